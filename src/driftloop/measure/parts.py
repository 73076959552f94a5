"""How much of a worsening comes from other inputs, and how much from another relation.

Cai, Namkoong, Yadlowsky 2023, "Diagnosing Model Performance Under Distribution Shift" (DISDE):
the loss of before and of now are compared on a distribution of inputs that both share, so that
what differs there can only be the relation of label to inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftloop.measure.columns import Codes, Floats

ROUNDS = 8
"""Newton steps; a logistic regression that has a ridge is there long before."""
GROUPS = 10
"""Parts in time that are left out in turn."""
RIDGE, RIDGE_OF_BINS = 0.1, 4.0
REACH = 6.0
"""Standard deviations beyond which a number says no more."""
LEAST = 30.0
"""Rows that the shared inputs must be worth, on either side."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The mean loss of now less that of before, in parts, each with its standard error.

    `overlap` is what the rows are worth that stand for the shared inputs, on the poorer side.
    `problem` says why the parts are not known; then they are 0.
    """

    whole: float
    error: float
    inputs: float
    inputs_error: float
    relation: float
    relation_error: float
    overlap: float
    problem: str | None = None


def design(columns: Sequence[tuple[Codes, Floats | None, int]]) -> Floats:
    """Return columns as a matrix: bins as 0 or 1, and numbers with their squares beside them.

    Args:
        columns: for each its bins' codes, shape (rows,), its values in standard deviations of
            before or None, and how many bins it has.
    """
    parts = [np.ones((len(columns[0][0]), 1))] if columns else []
    for codes, values, size in columns:
        if values is not None:
            near = np.clip(
                np.nan_to_num(values, nan=0.0, posinf=REACH, neginf=-REACH), -REACH, REACH
            )
            parts += [near[:, None], (near**2)[:, None]]
        parts.append((codes[:, None] == np.arange(size)).astype(np.float64))
    return np.concatenate(parts, axis=1)


def ridges(columns: Sequence[tuple[Codes, Floats | None, int]]) -> Floats:
    """Return the ridge of each column of `design`: bins are held more than smooth terms."""
    parts = [1e-6]
    for _, values, size in columns:
        parts += [RIDGE] * (2 if values is not None else 0) + [RIDGE_OF_BINS] * size
    return np.array(parts)


def parts(
    before: Floats, now: Floats, rows_before: Floats, rows_now: Floats, ridge: Floats
) -> Parts:
    """Return the parts of the worsening from `before` to `now`.

    With p and q the inputs of before and of now, the shared inputs are s, proportional to
    pq / (p + q); the classifier that tells the two sides apart gives its weights. `inputs` is
    what the loss changes by from p to s under the old relation and from s to q under the new one,
    `relation` what it changes by at s. Standard errors are those of a jackknife over ten parts in
    time (Shao and Wu 1989), the classifier made again in each by one Newton step.

    Args:
        before: shape (n,), losses in the order of time.
        now: shape (m,), likewise.
        rows_before: shape (n, k), their `design`.
        rows_now: shape (m, k), likewise.
        ridge: shape (k,), of the classifier.
    """
    x = np.concatenate([rows_before, rows_now])
    is_now = np.append(np.zeros(len(before)), np.ones(len(now)))
    loss = np.append(before, now)
    beta = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        beta = _stepped(x, is_now, beta, ridge)
    whole, inputs, relation, overlap = _parts(x, is_now, loss, beta)
    group = np.append(_groups(len(before)), _groups(len(now)))
    left = []
    for each in range(GROUPS):
        kept = group != each
        part = x[kept], is_now[kept]
        left.append(_parts(*part, loss[kept], _stepped(*part, beta, ridge))[:3])
    spread = np.sqrt((GROUPS - 1) / GROUPS * np.sum((left - np.mean(left, axis=0)) ** 2, axis=0))
    error, inputs_error, relation_error = (float(each) for each in spread)
    if overlap < LEAST:
        problem = "the inputs of now and of before hardly overlap"
        return Parts(whole, error, 0.0, 0.0, 0.0, 0.0, overlap, problem)
    return Parts(whole, error, inputs, inputs_error, relation, relation_error, overlap)


def _stepped(x: Floats, is_now: Floats, beta: Floats, ridge: Floats) -> Floats:
    likely = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -30.0, 30.0)))
    weight = np.maximum(likely * (1.0 - likely), 1e-6)
    slope = x.T @ (is_now - likely) - ridge * beta
    bend = (x * weight[:, None]).T @ x
    bend[np.diag_indices_from(bend)] += ridge
    step = np.linalg.solve(bend, slope)
    # Where the two sides are far apart, whole steps may run away.
    found: Floats = beta + step * min(1.0, 5.0 / max(float(np.max(np.abs(step))), 1e-12))
    return found


def _parts(
    x: Floats, is_now: Floats, loss: Floats, beta: Floats
) -> tuple[float, float, float, float]:
    """Return the whole, inputs, relation, and what the rows of the shared inputs are worth."""
    likely = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -30.0, 30.0)))
    share = float(is_now.mean())
    mixed = (1.0 - share) * likely + share * (1.0 - likely)
    now = is_now == 1.0
    of_before, of_now = (likely / mixed)[~now], ((1.0 - likely) / mixed)[now]
    before, after = loss[~now], loss[now]
    shared_before, shared_now = (
        np.average(before, weights=of_before),
        np.average(after, weights=of_now),
    )
    relation = float(shared_now - shared_before)
    whole = float(after.mean() - before.mean())
    worth = min(float(w.sum() ** 2 / np.sum(w**2)) for w in (of_before, of_now))
    return whole, whole - relation, relation, worth


def _groups(n: int) -> Codes:
    return np.arange(n) * GROUPS // max(n, 1)
