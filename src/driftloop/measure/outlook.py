"""What loss is expected of rows before they have a label, by their answer and features alone.

One additive ridge model (see `expected`), fitted when the champion is made on the rows that it was
not trained on, and kept in its profile. It moves only with the answers and the inputs: of a
relation that changed it tells nothing.
"""

from dataclasses import dataclass

import numpy as np

from driftloop.measure.columns import Floats, Unmeasurable, numbers
from driftloop.measure.expected import (
    OF,
    RIDGE,
    TELLING,
    answered,
    features,
    summed,
    summed_levels,
    told,
)
from driftloop.measure.reference import Reference
from driftloop.records import Task
from driftloop.rows import Rows
from driftloop.spec import Family

FEWEST = 200
"""Rows with a label that it takes."""
CLASSES = 50
"""Of more classes each has too few rows to tell its losses by."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The model of losses: its features beside the answer, and what it learnt.

    `effects`, shape (e,), are of the columns that `seen` returns; `unsure`, shape (e, e), is the
    covariance of their errors, and `usual`, shape (e,), the columns' means where it was learnt.
    """

    names: tuple[str, ...]
    effects: Floats
    unsure: Floats
    usual: Floats

    def error(self, design: Floats) -> float:
        """Return the standard error of the change expected of rows, as `seen` has them."""
        away: Floats = design.mean(axis=0) - self.usual
        return float(np.sqrt(max(float(away @ self.unsure @ away), 0.0)))


def outlook(
    family: Family, reference: Reference, rows: Rows, answer: Floats, loss: Floats, day: Floats
) -> Outlook | None:
    """Return what losses are told by; None where there are too few rows, or no answers.

    Args:
        family: the model's.
        reference: the champion's: its quantiles are the knots.
        rows: held-out rows, with their features; of these those are used that tell most.
        answer: shape (rows,), the champion's answers.
        loss: shape (rows,), NaN where unknown.
        day: shape (rows,), that each is of: errors of one day are not independent.
    """
    known = np.flatnonzero(np.isfinite(loss) & np.isfinite(answer))
    if len(known) < FEWEST or len(family.classes) > CLASSES:
        return None
    try:
        columns = [np.ones((len(known), 1)), answered(family, reference, answer[known])]
    except Unmeasurable:
        return None
    loss, day = loss[known], day[known]
    alone = np.hstack(columns)
    left = loss - alone @ _fit(alone, loss)[0]
    found = {name: effect(known) for name, effect in features(family, rows, reference)}
    telling = {name: told(effect, left[:, None]) for name, effect in found.items()}
    best = set(sorted(telling, key=lambda name: -telling[name])[:TELLING])
    names = tuple(name for name in found if name in best)
    design = np.hstack([alone, *(found[name] for name in names)])
    effects, inverse = _fit(design, loss)
    left = loss - design @ effects
    return Outlook(
        names=names,
        effects=effects,
        unsure=inverse * _variance(left, day, design.shape[1]),
        usual=design.mean(axis=0),
    )


def seen(
    family: Family, reference: Reference, rows: Rows, answer: Floats, names: tuple[str, ...]
) -> Floats:
    """Return rows as the model of losses sees them, shape (rows, e); NaN where there is no answer.

    Raises:
        Unmeasurable: one of the columns cannot be used.
    """
    every = np.arange(rows.num_rows)
    found = {name: effect(every) for name, effect in features(family, rows, reference, among=names)}
    if missing := [name for name in names if name not in found]:
        raise Unmeasurable(f"{missing[0]} cannot be used")
    there = np.isfinite(answer)
    columns = [np.ones((len(answer), 1)), answered(family, reference, np.where(there, answer, 0.0))]
    design: Floats = np.hstack([*columns, *found.values()])
    design[~there] = np.nan
    return design


def losses_ahead(
    family: Family, reference: Reference, rows: Rows, answer: Floats, model: Outlook
) -> Floats:
    """Return the loss expected of each row, NaN where it has no answer: `seen` times its effects.

    Raises:
        Unmeasurable: one of the columns cannot be used.
    """
    there = np.isfinite(answer)
    left = model.effects[1:]
    if family.task is Task.MULTICLASS:
        at = len(family.classes)
        found = answered(family, reference, np.where(there, answer, 0.0)) @ left[:at]
    else:
        found, at = summed(answer, reference.numbers("prediction"), left)
    found += model.effects[0]
    for name in (*family.numbers, *family.categorical):
        if name in model.names:
            left = left[at:]
            if name in family.numbers:
                values = numbers(rows, name, of=OF)
                more, at = summed(values, reference.numbers(name), left)
            else:
                more, at = summed_levels(rows, name, reference.levels(name), left)
            found += more
    found[~there] = np.nan
    return found


def _fit(design: Floats, loss: Floats) -> tuple[Floats, Floats]:
    penalty = np.full(design.shape[1], RIDGE)
    penalty[0] = 1e-9 * len(design)
    inverse: Floats = np.linalg.inv(design.T @ design + np.diag(penalty)).astype(np.float64)
    return inverse @ (design.T @ loss), inverse


def _variance(left: Floats, day: Floats, effects: int) -> float:
    """Return the variance of what is left, larger by as much as days have of it in common."""
    _, which = np.unique(day, return_inverse=True)
    sums = np.bincount(which, weights=left)
    whole = float((left**2).sum())
    shared = float((sums**2).sum()) / whole if whole > 0.0 else 1.0
    return whole / max(len(left) - effects, 1) * max(shared, 1.0)
