"""The verdict on a candidate: numbers in, passed or refused with its reason out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
import numpy.typing as npt

from driftloop.gate.segments import harmed
from driftloop.gate.uses import Uses
from driftloop.records import Candidate, GateResult, Task, metric_name
from driftloop.sequential import (
    Floats,
    Ints,
    Paired,
    constant,
    known_rows,
    left,
    loss_of,
    losses,
    misfits,
    paired,
    paired_losses,
    unfit,
)
from driftloop.spec import GatePolicy

Blocks = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known of the n rows beside their labels and answers.

    `uses` says how many earlier attempts used each row, see `uses.uses`; None for none. Of
    `tried` candidates the one compared is the best on these very rows. `segments` has of each
    column the level of each row, None where it has none.
    """

    uses: Uses | None = None
    tried: int = 1
    segments: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse less than the candidate itself."""
        if self.tried < 1:
            raise ValueError("at least the candidate itself was tried")


NOTHING = Beside()


def compare(
    label: npt.ArrayLike,
    champion: npt.ArrayLike | None,
    candidate: npt.ArrayLike,
    block: npt.ArrayLike,
    *,
    task: Task,
    policy: GatePolicy,
    unit: str = "day",
    beside: Beside = NOTHING,
) -> GateResult:
    """Return whether the candidate may answer, and why, from one row for each held-out event.

    The gain is 1 - mean(candidate's loss) / mean(champion's loss); see `sequential.paired` for
    its interval, which counts blocks of time. It passes when the interval's lower end is above
    the policy's margin, and no segment is worse for certain by more than `segment_margin` (see
    `segments.harmed`).

    The interval is at the policy's confidence where no earlier attempt used the rows. Else it is
    wider, so that all attempts on a holdout's worth of rows together let a candidate through that
    is not better with a probability of at most 1 - confidence: see `sequential.left`. So two equal
    models do not take turns: what let the one through by chance has to be outdone, for certain,
    for the other to come back.

    Without a champion the candidate must not be worse for certain than a constant: the mean
    label, the base rate (k + 1) / (n + 2), or the commonest class, of the very rows it is judged
    on.

    Args:
        label: shape [n]: the true outcomes, 0 or 1 for binary, indexes of classes for multiclass;
            a row whose label is NaN is unknown and does not count.
        champion: shape [n]: its answers, None when there is no champion.
        candidate: shape [n]: its answers, the target's unit, the probability of 1 or a class.
        block: shape [n]: the event's day or other block, of any dtype that numpy can sort.
        task: which loss.
        policy: fewest rows, margins and confidence.
        unit: what one block is called in the reason.
        beside: how often the rows were used before, candidates tried, and segments.

    Raises:
        ValueError: the columns differ in length, or the task is one that has no gate.

    >>> rng = np.random.default_rng(0)
    >>> label, day = rng.normal(100.0, 10.0, 700), np.arange(700) // 100
    >>> policy = GatePolicy(holdout="7d", min_rows=30, margin=0.0, confidence=0.9)
    >>> worse, better = label + rng.normal(0, 8, 700), label + rng.normal(0, 6, 700)
    >>> compare(label, worse, better, day, task=Task.REGRESSION, policy=policy).passed
    True
    >>> compare(label, better, worse, day, task=Task.REGRESSION, policy=policy).passed
    False
    """
    before = candidate if champion is None else champion
    truth, blocks, (answer, theirs) = known_rows(label, block, candidate, before)
    known = ~np.isnan(np.asarray(label, np.float64))
    used, parts = _known(beside.uses, known), beside.segments
    if any(len(column) != known.size for column in parts.values()):
        raise ValueError("every segment must have one value for each row")
    blank = _nothing_known(task, truth.size, policy.confidence)
    if truth.size < policy.min_rows:
        said = f"only {truth.size} labelled rows are held out, and the gate needs {policy.min_rows}"
        return replace(blank, reason=said)
    if champion is None:
        return _first(blank, truth, answer, blocks, task)
    confidence = left(policy.confidence, used.all, used.new, tried=beside.tried)
    found = paired(truth, theirs, answer, blocks, task=task, confidence=confidence, unit=unit)
    result = replace(
        blank,
        confidence=confidence,
        champion_loss=found.champion_loss,
        candidate_loss=found.candidate_loss,
        gain=found.gain,
        low=found.low,
        high=found.high,
    )
    if found.low is None:
        return replace(result, reason=found.problem)
    passed = found.low > policy.margin
    reason = (
        f"{found.said}: {found.gain:+.1%} ({found.low:+.1%} to {found.high:+.1%} at"
        f" {_sure(confidence)} confidence{_why(used.all, policy, beside.tried)})"
        f" on {found.n} rows of {found.blocks} {unit}s;"
        f" the lower end {'clears' if passed else 'falls short of'} the margin of"
        f" {policy.margin:+.1%}"
    )
    if not passed or not parts:
        return replace(result, passed=passed, reason=reason)
    worse = harmed(
        losses(truth, answer, task=task)[1],
        losses(truth, theirs, task=task)[1],
        blocks,
        {column: list(compress(levels, known)) for column, levels in parts.items()},
        least=policy.min_rows,
        tolerance=policy.segment_margin,
        confidence=policy.confidence,
    )
    if worse.worst:
        return replace(result, reason=f"{reason}, but {worse.worst}")
    return replace(result, passed=True, reason=reason)


def as_found(candidate: Candidate) -> GateResult:
    """Return that what answers already may: nothing is compared, its figures are the baseline."""
    kept = (
        f"{candidate.holdout_rows} newest labelled rows as the baseline"
        if candidate.holdout_rows
        else f"{candidate.rows} newest rows as the reference"
    )
    return GateResult(
        passed=True,
        reason=f"taken as found in its log, with {kept}",
        loss="",
        n=candidate.holdout_rows,
        champion_loss=None,
        candidate_loss=None,
        gain=None,
        low=None,
        high=None,
        confidence=0.0,
    )


def _nothing_known(task: Task, n: int, confidence: float) -> GateResult:
    return GateResult(
        passed=False,
        reason="",
        loss=loss_of(task),
        n=n,
        champion_loss=None,
        candidate_loss=None,
        gain=None,
        low=None,
        high=None,
        confidence=confidence,
    )


def _known(uses: Uses | None, known: npt.NDArray[np.bool_]) -> Uses:
    """Return how often the rows whose label is known were used.

    Raises:
        ValueError: there is not one number for each row.
    """
    if uses is None:
        none = np.zeros(int(known.sum()), np.int64)
        return Uses(all=none, new=none)
    if any(one is not None and one.shape != known.shape for one in (uses.all, uses.new)):
        raise ValueError("uses must have one value for each row")
    return Uses(all=uses.all[known], new=None if uses.new is None else uses.new[known])


def _first(
    blank: GateResult, truth: Floats, answer: Floats, blocks: Blocks, task: Task
) -> GateResult:
    """Return whether the first version, which has no champion to beat, may answer."""
    if problem := misfits(truth, task):
        return replace(blank, reason=problem)
    if problem := unfit(answer, task):
        return replace(blank, reason=f"the candidate answers {problem}")
    mine = losses(truth, answer, task=task)[1]
    usual = losses(truth, constant(truth, task), task=task)[1]
    met = paired_losses(mine, usual, blocks, Paired(loss=blank.loss, n=blank.n), blank.confidence)
    # The average is that of these very rows: a hard thing to beat with hindsight, so that only a
    # candidate that is worse for certain is refused.
    passed = met.high is None or met.high >= 0.0
    gain = f"{met.gain:+.1%}" if met.gain is not None else "no gain"
    against = "commonest class" if task is Task.MULTICLASS else "average"
    return replace(
        blank,
        candidate_loss=met.candidate_loss,
        passed=passed,
        reason=(
            f"first version: {metric_name(blank.loss)} {met.candidate_loss:.4g} on"
            f" {blank.n} rows, {gain} against always answering their {against}"
            f"{'' if passed else ', which is worse for certain'}"
        ),
    )


def _why(used: Ints, policy: GatePolicy, tried: int) -> str:
    """Return in words why the confidence asked for is higher than the policy's; empty if not."""
    said = []
    if most := int(used.max(initial=0)):
        attempts = "an earlier attempt" if most == 1 else f"up to {most} earlier attempts"
        said.append(f"{attempts} used {(used > 0).mean():.0%} of the rows")
    if tried > 1:
        said.append(f"it is the best of {tried} candidates")
    return f" instead of {_sure(policy.confidence)} as {' and '.join(said)}" if said else ""


def _sure(confidence: float) -> str:
    """Return a confidence in words, with as many digits as tell it from certainty.

    >>> _sure(0.8), _sure(0.9975), _sure(1 - 2.1e-5)
    ('80%', '99.8%', '99.998%')
    """
    digits = 0
    while digits < 10 and 1.0 - confidence < 10.0 ** -(digits + 2):  # noqa: PLR2004 - a last resort
        digits += 1
    return f"{confidence:.{digits}%}"
