"""Which memories candidates are made with: what their past comparisons speak for. Pure."""

from collections.abc import Mapping, Sequence
from math import log

from driftloop.records import Memory, Trained

RECALLED = 5
"""So many comparisons of memories count, the newest."""
AGAIN = 3
"""After so many renewals with one memory alone all of them are tried again."""
TINY = 1e-12


def memories_to_try(
    listed: Sequence[Memory], past: Sequence[Trained], *, lost: bool
) -> tuple[Memory, ...]:
    """Return the memories that are worth a fit each at the next renewal.

    All of them at first, when what was made last `lost` (what its memory knew is no longer so),
    and after `AGAIN` renewals with one alone; else the one that did best on held-out rows so far:
    by the mean of log(its loss / the smallest loss) over the last `RECALLED` comparisons.

    Args:
        listed: those of the policy, in its order, which decides between equals.
        past: the model's trainings, newest last.
        lost: whether the gate refused the newest candidate, or the champion decays.

    >>> memories_to_try([Memory.RECENT, Memory.ALL], [], lost=False)
    (<Memory.RECENT: 'recent'>, <Memory.ALL: 'all'>)
    """
    if len(listed) == 1:
        return tuple(listed)
    compared = [_losses(each) for each in past]
    whole = [place for place, losses in enumerate(compared) if set(listed) <= losses.keys()]
    if not whole or lost or len(past) - 1 - whole[-1] >= AGAIN:
        return tuple(listed)
    means = standing(listed, [compared[place] for place in whole])
    return (min(listed, key=lambda memory: means[memory]),)


def standing(
    listed: Sequence[Memory], compared: Sequence[Mapping[Memory, float]]
) -> dict[Memory, float]:
    """Return how far above the best each memory was, on average: 0 where it was always the best.

    Args:
        listed: which memories.
        compared: mean losses on the same held-out rows, newest last; each has all of `listed`.

    >>> losses = {Memory.RECENT: 1.0, Memory.ALL: 2.0}
    >>> {str(memory): round(by, 2) for memory, by in standing(tuple(losses), [losses]).items()}
    {'recent': 0.0, 'all': 0.69}
    """
    newest = compared[-RECALLED:]
    return {
        memory: sum(
            log(max(losses[memory], TINY) / max(min(losses[each] for each in listed), TINY))
            for losses in newest
        )
        / len(newest)
        for memory in listed
    }


def _losses(trained: Trained) -> dict[Memory, float]:
    return {each.memory: each.loss for each in trained.tried if each.loss is not None}
