"""What is expected of rows without a label: outcomes told by rows like them that have one.

Of classes it is the probability of each outcome given the champion's answer, as in
confidence-based performance estimation; of numbers the size of the error, as in direct loss
estimation. Both are one additive model, fitted by ridge regression on rows that have labels and
that the champion was not trained on: piecewise linear in the answer and in those features that
tell most, so that it costs milliseconds and is told by a few sums. For a binary model it begins
at the champion's own probability and learns what is to be added to it.

Blind to a relation that changed since the labels that are here: whoever asks must look at those.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from driftloop.measure.columns import (
    Codes,
    Floats,
    Unmeasurable,
    measured_columns,
    no_class,
    numbers,
    texts,
)
from driftloop.measure.delays import Mask
from driftloop.measure.reference import Levels, Numbers, Reference
from driftloop.records import Task
from driftloop.rows import Rows
from driftloop.spec import Family

OF = "the champion's rows"
TELLING = 6
"""So many features, those that tell most of the outcome, are used beside the answer."""
KNOTS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
"""Quantiles of the reference between which the expected outcome is a straight line."""
LEVELS = 8
"""So many levels of a category, the most frequent, have an effect of their own."""
RIDGE = 8.0
"""In rows: an effect that is told by no more of them counts half."""
TRIED = 1000
"""Features are chosen by no more rows."""


@dataclass(frozen=True, slots=True)
class Design:
    """Rows as the model of outcomes sees them: shape (rows, effects), the first always 1.

    `start` is what is expected before anything is learnt, shape (rows, outcomes).
    """

    effects: Floats
    start: Floats

    def part(self, rows: slice) -> "Design":
        """Return some of the rows."""
        return Design(self.effects[rows], self.start[rows])


@dataclass(frozen=True, slots=True)
class Fit:
    """What was learnt: `effects` of shape (effects, outcomes), and the inverse they come of."""

    effects: Floats
    inverse: Floats

    def expected(self, design: Design) -> Floats:
        """Return the outcomes expected of rows, shape (rows, outcomes)."""
        found: Floats = design.start + design.effects @ self.effects
        return found


@dataclass(frozen=True, slots=True)
class Sums:
    """What a fit needs to know of rows; sums of two sets of rows add up to those of both."""

    square: Floats
    product: Floats

    @staticmethod
    def of(design: Design, outcome: Floats, weight: Floats) -> "Sums":
        """Return the sums of rows with `outcome`, each counted `weight` times."""
        weighted = design.effects * weight[:, None]
        return Sums(weighted.T @ design.effects, weighted.T @ (outcome - design.start))

    def __add__(self, other: "Sums") -> "Sums":
        """Return the sums of both sets of rows."""
        return Sums(self.square + other.square, self.product + other.product)

    def fit(self) -> Fit:
        """Return the model that these rows tell."""
        penalty = np.full(len(self.square), RIDGE)
        penalty[0] = 1e-9 * max(float(self.square[0, 0]), 1.0)
        inverse: Floats = np.linalg.inv(self.square + np.diag(penalty)).astype(np.float64)
        return Fit(inverse @ self.product, inverse)


def design(
    family: Family,
    rows: Rows,
    reference: Reference,
    prediction: Floats,
    *,
    outcome: Floats,
    weight: Floats,
) -> Design:
    """Return rows as the model of outcomes sees them.

    Args:
        family: the model's.
        rows: all of them, with their features.
        reference: the champion's training rows, whose quantiles are the knots.
        prediction: shape (rows,), those of `rows`.
        outcome: shape (rows, outcomes), NaN where unknown.
        weight: shape (rows,), 0 where the outcome is not to be used. Features are chosen by the
            others: those that tell most of what the answer leaves unsaid.
    """
    effects = [np.ones((rows.num_rows, 1)), answered(family, reference, prediction)]
    begun = start(family, prediction, outcome.shape[1])
    known = np.flatnonzero(weight > 0.0)
    if len(known):
        known = known[:: -(-len(known) // TRIED)]
        first = Design(np.hstack(effects)[known], begun[known])
        left = outcome[known] - Sums.of(first, outcome[known], weight[known]).fit().expected(first)
        found = [effect for _, effect in features(family, rows, reference)]
        telling = [told(effect(known), left) for effect in found]
        best = sorted(range(len(found)), key=lambda at: -telling[at])[:TELLING]
        every = np.arange(rows.num_rows)
        effects += [found[at](every) for at in sorted(best)]
    return Design(np.hstack(effects), begun)


def padded(plain: Design, effects: int) -> Design:
    """Return rows of which only the answer is known beside others with `effects`: none of them."""
    more = np.zeros((len(plain.effects), effects - plain.effects.shape[1]))
    return Design(np.hstack([plain.effects, more]), plain.start)


def answers_alone(
    family: Family, reference: Reference, prediction: Floats, outcomes: int
) -> Design:
    """Return rows of which only the answer is known; see `padded`."""
    one = np.ones((len(prediction), 1))
    effects = np.hstack([one, answered(family, reference, prediction)])
    return Design(effects, start(family, prediction, outcomes))


def start(family: Family, prediction: Floats, outcomes: int) -> Floats:
    """Return what is expected before anything is learnt: of a binary model what it says itself."""
    if family.task is Task.BINARY:
        return np.clip(prediction, 0.0, 1.0)[:, None]
    return np.zeros((len(prediction), outcomes))


def answered(family: Family, reference: Reference, prediction: Floats) -> Floats:
    """Return the effects of the champion's answer, shape (rows, effects)."""
    if family.task is Task.MULTICLASS:
        if odd := int(np.count_nonzero(no_class(prediction, family))):
            raise Unmeasurable(f"{odd} predictions are none of the {len(family.classes)} classes")
        found: Floats = (prediction[:, None] == np.arange(len(family.classes))).astype(np.float64)
        return found
    return _hats(prediction, reference.numbers("prediction"))


def beyond(family: Family, rows: Rows, reference: Reference) -> dict[str, Mask]:
    """Return of each number and category which rows have what the reference never had.

    A column that cannot be compared is left out.
    """
    found: dict[str, Mask] = {}
    numeric, categorical = measured_columns(family)
    for name in (*numeric, *categorical):
        column = reference.columns.get(name)
        try:
            if isinstance(column, Numbers) and len(column.ascending):
                values = numbers(rows, name, of=OF)
                low, high = column.ascending[0], column.ascending[-1]
                found[name] = (values < low) | (values > high)
            elif isinstance(column, Levels) and name in family.measured:
                codes, names = texts(rows, name, of=OF)
                unseen = np.append(~_known(names, column), np.False_)  # null is not new
                found[name] = unseen[codes]
        except Unmeasurable:
            continue
    return found


def outside(beyond: Mapping[str, Mask], among: Mask) -> tuple[str, float]:
    """Return which column is most often `beyond` the reference, and at what share of `among`."""
    worst = "", 0.0
    count = max(int(np.count_nonzero(among)), 1)
    for name, new in beyond.items():
        share = int(np.count_nonzero(new & among)) / count
        worst = max(worst, (name, share), key=lambda each: each[1])
    return worst


Effect = Callable[[Codes], Floats]
"""Makes the effects of one feature, for the rows at some places."""


def features(
    family: Family, rows: Rows, reference: Reference, *, among: Collection[str] | None = None
) -> Iterator[tuple[str, Effect]]:
    """Yield what makes the effects of each feature that can be used; with `among`, of those."""
    for name in family.numbers:
        if among is not None and name not in among:
            continue
        try:
            values, column = numbers(rows, name, of=OF), reference.numbers(name)
        except Unmeasurable:
            continue
        if len(column.ascending):
            yield name, partial(_numeric, values, column)
    for name in family.categorical:
        if among is not None and name not in among:
            continue
        try:
            codes, names = texts(rows, name, of=OF)
            levels = reference.levels(name)
        except Unmeasurable:
            continue
        yield name, partial(_leveled, codes, names.to_pylist(), levels)


def summed(values: Floats, column: Numbers, effects: Floats) -> tuple[Floats, int]:
    """Return what `effects` of a number's columns add up to, and how many these are.

    It is a straight line between the knots: what it is there is all that has to be known.
    """
    knots = _knots(column.ascending)
    found = np.interp(values, knots, _hats(knots, column) @ effects[: len(knots)])
    found[~np.isfinite(values)] = 0.0
    return found, len(knots)


def summed_levels(rows: Rows, name: str, levels: Levels, effects: Floats) -> tuple[Floats, int]:
    """Return the same of a category's columns.

    Raises:
        Unmeasurable: the column cannot be used.
    """
    codes, names = texts(rows, name, of=OF)
    each = _levels(np.append(np.arange(len(names)), -1), names.to_pylist(), levels)
    found: Floats = (each @ effects[: each.shape[1]])[codes]
    return found, each.shape[1]


def told(effects: Floats, left: Floats) -> float:
    """Return how much of what is left a column tells: its squared correlations, summed."""
    away = effects - effects.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((away**2).sum(axis=0))[:, None] * np.sqrt((left**2).sum(axis=0))
        found = np.where(spread > 0.0, (away.T @ left) / spread, 0.0)
    return float(np.max(found**2, initial=0.0))


# -- effects --------------------------------------------------------------------------------


def _numeric(values: Floats, column: Numbers, at: Codes) -> Floats:
    return _hats(values[at], column)


def _leveled(codes: Codes, names: Sequence[str], levels: Levels, at: Codes) -> Floats:
    return _levels(codes[at], names, levels)


def _levels(codes: Codes, names: Sequence[str], levels: Levels) -> Floats:
    """Return which level each row has, shape (rows, levels), less the reference's share of it."""
    largest = np.argsort(-levels.counts, kind="stable")[:LEVELS]
    common = [levels.names[int(at)].as_py() for at in largest]
    place = {name: at for at, name in enumerate(common)}
    at = np.array([place.get(name, -1) for name in names] + [-1])[codes]
    usual = levels.counts[largest] / max(levels.rows, 1)
    found: Floats = (at[:, None] == np.arange(len(common))) - usual
    return found


def _known(names: object, levels: Levels) -> Mask:
    import pyarrow.compute as pc

    found: Mask = pc.is_in(names, value_set=levels.names).to_numpy(zero_copy_only=False)
    return found


def _hats(values: Floats, column: Numbers) -> Floats:
    """Return how near each value is to each knot, shape (rows, knots): 1 at it, 0 at the next.

    A value beyond the last knot is at it. One that is not there has no effect: what is returned is
    the difference from the mean.
    """
    ascending = column.ascending
    if not len(ascending):
        raise Unmeasurable("no values in the reference")
    knots = _knots(ascending)
    found = np.zeros((len(values), len(knots)))
    here = np.flatnonzero(np.isfinite(values))
    if len(knots) > 1:
        at = np.clip(values[here], knots[0], knots[-1])
        left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
        share = (at - knots[left]) / np.diff(knots)[left]
        found[here, left] = 1.0 - share
        found[here, left + 1] = share
    usual = _usual(ascending, knots)
    found[here] -= usual
    return found


def _knots(ascending: Floats) -> Floats:
    found: Floats = np.unique(ascending[[int(q * (len(ascending) - 1)) for q in KNOTS]])
    return found


def _usual(ascending: Floats, knots: Floats) -> Floats:
    """Return the mean of each knot's column over the reference, of at most a thousand values."""
    if len(knots) == 1:
        return np.zeros(1)
    few = ascending[:: -(-len(ascending) // 1000)]
    at = np.clip(few, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    share = (at - knots[left]) / np.diff(knots)[left]
    sums = np.bincount(left, weights=1.0 - share, minlength=len(knots))
    sums += np.bincount(left + 1, weights=share, minlength=len(knots))
    found: Floats = sums / len(few)
    return found
