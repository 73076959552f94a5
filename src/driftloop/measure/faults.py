"""Columns that are wrong in themselves: empty, stuck, collapsed, or in another unit.

What is found here needs no limit of a policy to be crossed: it is asked of a model that does
worse already, and names the fault rather than the fact of a change.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from driftloop.measure.bins import Bins, Column, counts
from driftloop.measure.columns import Floats

SURE = 6.0
"""Standard errors; of some hundred columns and bins none is that far by chance."""
NULLS, STUCK = 0.05, 0.2
"""So much more of the rows, as a share."""
WHOLE, USUAL = 0.98, 0.9
"""A value that nearly all rows have now, and had not."""
LEFT = 0.1
"""What may be left of a level that is gone: the moment it went is known nearly, and not quite."""
LEVEL = 0.05
"""A level with this share of the rows does not go unnoticed."""
HELD, CLOSE = 0.1, 0.03
"""Quantiles agree where they are within this part of their spread; closer for a known unit."""
FAR = 8.0
"""A factor that no usual change of a column has."""
UNITS = {
    1.8: (32.0, "Celsius as Fahrenheit"),
    5 / 9: (-160 / 9, "Fahrenheit as Celsius"),
    2.54: (0.0, "inches as centimetres"),
    1 / 2.54: (0.0, "centimetres as inches"),
    1.609344: (0.0, "miles as kilometres"),
    1 / 1.609344: (0.0, "kilometres as miles"),
    1.852: (0.0, "knots as kilometres an hour"),
    0.45359237: (0.0, "pounds as kilograms"),
    1 / 0.45359237: (0.0, "kilograms as pounds"),
    0.3048: (0.0, "feet as metres"),
    1 / 0.3048: (0.0, "metres as feet"),
}
"""Factor: what is added, and what it is called."""
KELVIN = 273.15
WARM = 60.0
"""Degrees Celsius that the middle of temperatures is within."""
AT = np.arange(0.05, 0.951, 0.05)

Better = Callable[[str, Floats], float]
"""How many standard errors labels are better foretold with a column's values replaced.

0 where that cannot be told.
"""


@dataclass(frozen=True, slots=True)
class Side:
    """A column of before and of now, with how far shares of it swing from one time to another."""

    bins: Bins
    before: Column
    now: Column
    swing: Floats
    """Shape (bins,): standard deviations of the bins' shares that are usual between spans."""
    moved: float
    """By how many standard errors the share of the bin has changed that has changed most."""
    still: bool = False
    """Whether it usually stands still for long, as a month does: then it is never stuck."""
    sudden: bool = False
    """Whether the window begins as usual, and hardly any other column has moved."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a column, how sure that is, and the share of rows it is of."""

    column: str
    said: str
    sure: float
    share: float


def fault_of(
    side: Side, *, nulls: float, unseen: float, better: Better, lines: bool = True
) -> Fault | None:
    """Return the gravest fault of one column, None where its values can well be what they are.

    Args:
        side: the column.
        nulls: more nulls than before, by this share, are a fault.
        unseen: likewise of levels that the reference has not.
        better: tells whether another unit would explain the labels; see `_unit`.
        lines: whether any factor and constant may be the fault, or only what is one by itself.
    """
    for found in (_nulls(side, nulls), _unseen(side, unseen), _stuck(side), _collapsed(side)):
        if found is not None:
            return found
    return _unit(side, better, lines=lines)


# -- what is wrong with rows ---------------------------------------------------------------


def _nulls(side: Side, limit: float) -> Fault | None:
    null = side.bins.null
    was, now = _share(side.before.codes == null), _share(side.now.codes == null)
    sure = _sure(side, was, now, float(side.swing[null]))
    if now - was < min(limit, NULLS) or sure < SURE or limit >= 1.0:
        return None
    said = f"{now:.0%} of {side.bins.name} has no value, usually {was:.0%}"
    return Fault(side.bins.name, said, sure, now - was)


def _unseen(side: Side, limit: float) -> Fault | None:
    was, now = _share(side.before.unseen > 0), _share(side.now.unseen > 0)
    sure = _sure(side, was, now, 0.0)
    if now - was < limit or sure < SURE or limit >= 1.0:
        return None
    said = f"{now:.0%} of {side.bins.name} is nothing that the training rows had, usually {was:.0%}"
    return Fault(side.bins.name, said, sure, now - was)


def _stuck(side: Side) -> Fault | None:
    """Return that one value has taken the place of all, or of many that were hardly ever it."""
    before, now, said = side.before, side.now, side.bins.said
    usual = counts(before.codes, side.bins.size)[: side.bins.null]
    if side.still or usual.max(initial=0.0) >= USUAL * usual.sum():
        return None
    if now.values is None or before.values is None:
        place = int(np.argmax(counts(now.codes, side.bins.size)[: side.bins.null]))
        was, share = _share(before.codes == place), _share(now.codes == place)
        value, swing = said[place], float(side.swing[place])
    else:
        finite = now.values[np.isfinite(now.values)]
        if not len(finite):
            return None
        distinct, often = np.unique(finite, return_counts=True)
        most = float(distinct[np.argmax(often)])
        was, share = _share(before.values == most), _share(now.values == most)
        value = f"{side.bins.name}={most:.6g}"
        swing = float(side.swing[side.bins.coded(np.array([most]))[0]])
    rare = now.values is not None and not side.bins.exact and was < LEVEL
    stuck = share >= WHOLE and was < USUAL
    sure = _sure(side, was, share, swing if was > 0.0 else 0.0)
    if share - was < STUCK or not (stuck or rare) or sure < SURE:
        return None
    words = f"{share:.0%} of the rows have {value}, usually {was:.0%}"
    return Fault(side.bins.name, words, sure, share - was)


def _collapsed(side: Side) -> Fault | None:
    """Return that levels are gone and their rows have turned up in a single other one.

    That is a level the reference had: where values are gone and new ones have come, as with a
    new timetable, nothing has collapsed; what is new is counted by itself (`_unseen`).
    """
    if side.still or (side.now.values is not None and not side.bins.exact):
        return None
    size = side.bins.null
    was, now = (counts(each.codes, side.bins.size)[:size] for each in (side.before, side.now))
    was, now = was / max(was.sum(), 1.0), now / max(now.sum(), 1.0)
    gone = (now <= LEFT * was) & (was * len(side.now.codes) >= SURE**2) & (was >= LEVEL)
    lost = float(was[gone].sum())
    into = int(np.argmax((now - was)[: size - 1]))
    gained = float(now[into] - was[into])
    noise = 3.0 / np.sqrt(min(len(side.before.codes), len(side.now.codes)))
    if (
        not gone.any()
        or gained < 0.8 * lost - noise * np.sqrt(was[into])
        or lost < 2.0 * float(side.swing[:size][gone].max())
    ):
        return None
    names = [side.bins.said[place] for place in np.flatnonzero(gone)][:3]
    said = f"{', '.join(names)} is gone, and its rows have {side.bins.said[into]}"
    return Fault(side.bins.name, said, lost * float(np.sqrt(len(side.now.codes))), lost)


# -- units ---------------------------------------------------------------------------------


def _unit(side: Side, better: Better, *, lines: bool) -> Fault | None:
    """Return that a number's quantiles are its usual ones times a factor, plus a constant.

    A factor of a known unit, or one that no usual change has, is a fault unless labels speak for
    the values as they are. Any other needs the labels to say so, and to have come suddenly and
    alone: a column that has moved and one that is measured from another zero look alike, and
    seasons move many.
    """
    if side.now.values is None or side.before.values is None or side.bins.exact:
        return None
    if side.moved < SURE:
        return None
    was, now = (each[np.isfinite(each)] for each in (side.before.values, side.now.values))
    if min(len(was), len(now)) < SURE**2:
        return None
    old, new = np.quantile(was, AT), np.quantile(now, AT)
    spread = float(np.std(old))
    noise = 2.0 / np.sqrt(min(len(was), len(now)))
    if (
        spread == 0.0
        or np.std(new) == 0.0
        or np.std(new - old) + abs(np.mean(new - old)) < (HELD + noise) * spread
    ):
        return None  # as it was
    for factor, added, said, known in _maps(old, new):
        mapped = np.sort(factor * old + added)
        off = float(np.sqrt(np.mean((new - mapped) ** 2))) / float(np.std(mapped))
        if off > (CLOSE if known else HELD) + noise:
            continue
        if not known and not (lines and side.sudden):
            continue
        told = better(side.bins.name, (side.now.values - added) / factor)
        if told > SURE / 2 or (known and told > -SURE / 2):
            moved = float(np.sqrt(np.mean((new - old) ** 2))) / spread
            return Fault(side.bins.name, f"{side.bins.name} is {said}", moved * 10.0, 1.0)
    return None


def _maps(old: Floats, new: Floats) -> Iterator[tuple[float, float, str, bool]]:
    """Yield factor, what is added, both in words, and whether they are enough in themselves."""
    size = float(np.median(np.abs(old)))
    ratio = float(np.median(np.abs(new))) / size if size > 0.0 else 0.0
    if ratio > 0.0:
        power = 10.0 ** round(float(np.log10(ratio)))
        if power != 1.0:
            yield power, 0.0, f"{power:g} times what it was", True
    for factor, (added, named) in UNITS.items():
        yield factor, added, f"told in another unit ({named})", True
    middle = float(np.median(old))
    for added in (KELVIN, -KELVIN):
        # Of numbers that are no temperatures it is any offset.
        if abs(middle) <= WARM if added > 0 else abs(middle - KELVIN) <= WARM:
            yield 1.0, added, f"told in another unit ({added:+g})", True
    yield -1.0, 0.0, "of the other sign", True
    off = float(np.median(new - old))
    yield 1.0, off, f"{off:+.4g} off", False
    slope, level = (float(each) for each in np.polyfit(old, new, 1))
    if slope > 0.0:
        far = slope >= FAR or slope <= 1.0 / FAR
        yield slope, level, f"{slope:.4g} times what it was, {level:+.4g}", far


# -- sureness ------------------------------------------------------------------------------


def _share(found: np.ndarray) -> float:
    return float(np.mean(found)) if len(found) else 0.0


def _sure(side: Side, was: float, now: float, swing: float) -> float:
    n, m = len(side.before.codes), len(side.now.codes)
    both = (was * n + now * m) / max(n + m, 1)
    noise = max(both * (1.0 - both), 1.0 / max(n + m, 1)) * (1.0 / max(n, 1) + 1.0 / max(m, 1))
    return (now - was) / float(np.sqrt(noise + swing**2))
