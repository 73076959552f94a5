"""Champion against candidate on the same held-out rows, paired: better for certain, or refused.

Nothing but numbers in, a verdict with its reason out. The loss of a row is its absolute error
for regression ("mae"), its clipped log loss for binary models ("log_loss"), and whether it is
wrong for classes ("misclassified"). Scores have no right answer, and no gate.
"""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from driftloop.records import Candidate, GateResult, Task, metric_name
from driftloop.spec import GatePolicy

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one row costs at most 13.8 in log loss."""

Floats = npt.NDArray[np.float64]

_WANTED = {
    Task.REGRESSION: "a target is a finite number",
    Task.BINARY: "an outcome is 0 or 1",
    Task.MULTICLASS: "a class is a whole number from 0 on",
}
_LOSS = {Task.REGRESSION: "mae", Task.BINARY: "log_loss", Task.MULTICLASS: "misclassified"}


def compare(
    label: npt.ArrayLike,
    champion: npt.ArrayLike | None,
    candidate: npt.ArrayLike,
    block: npt.ArrayLike,
    *,
    task: Task,
    policy: GatePolicy,
    unit: str = "day",
) -> GateResult:
    """Return whether the candidate may answer, and why, from one row for each held-out event.

    The gain is 1 - mean(candidate's loss) / mean(champion's loss). Rows of one day, or
    whatever else is a block of time, share weather, outages and the like, so the interval counts
    blocks, not rows: the variance of the ratio is linearised (Deng, Knoblich and Lu, "Applying
    the Delta Method in Metric Analytics", KDD 2018) and summed by block, with Student's t for one
    less than the number of blocks (Cameron and Miller,
    "A Practitioner's Guide to Cluster-Robust Inference", Journal of Human Resources 2015,
    sections II and VI). It passes when the interval's lower end is above the policy's margin.

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
        policy: fewest rows, margin and confidence.
        unit: what one block is called in the reason.

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
    if task is Task.SCORE:
        raise ValueError("scores have no right answer to be compared by")
    truth, answer = np.asarray(label, np.float64), np.asarray(candidate, np.float64)
    before = None if champion is None else np.asarray(champion, np.float64)
    blocks = np.asarray(block)
    if any(
        column.shape != truth.shape for column in (answer, blocks, before) if column is not None
    ):
        raise ValueError("label, champion, candidate and block must have one value for each row")
    known = ~np.isnan(truth)
    truth, answer, blocks = truth[known], answer[known], blocks[known]
    before = None if before is None else before[known]
    loss = _LOSSES[task]
    blank = _nothing_known(task, truth.size, policy.confidence)
    if truth.size < policy.min_rows:
        said = f"only {truth.size} labelled rows are held out, and the gate needs {policy.min_rows}"
        return replace(blank, reason=said)
    if wrong := _misfits(truth, task):
        said = f"{wrong} of {truth.size} labels cannot be: {_WANTED[task]}"
        return replace(blank, reason=said)
    if fault := _unfit(answer, task):
        return replace(blank, reason=f"the candidate answers {fault}")
    losses = loss(truth, answer)
    scored = replace(blank, candidate_loss=float(losses.mean()))
    if before is None:
        return _against_constant(scored, losses, loss(truth, _constant(truth, task)), blocks)
    if fault := _unfit(before, task):
        return replace(scored, reason=f"no fair comparison: the champion answers {fault}")
    return _against_champion(
        scored, losses, loss(truth, before), blocks, margin=policy.margin, unit=unit
    )


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


def losses(label: npt.ArrayLike, answer: npt.ArrayLike, *, task: Task) -> tuple[str, Floats]:
    """Return what the loss of a row is called, and each row's; NaN where the label is.

    Args:
        label: shape [n], as for `compare`.
        answer: shape [n], as for `compare`.
        task: which loss.
    """
    truth, given = np.asarray(label, np.float64), np.asarray(answer, np.float64)
    return _LOSS[task], np.where(np.isnan(truth), np.nan, _LOSSES[task](truth, given))


def t_quantile(probability: float, freedom: int) -> float:
    """Return Student's t quantile for whole degrees of `freedom`, exact to about 1e-12.

    Bisects the closed form of the distribution (Abramowitz and Stegun, "Handbook of Mathematical
    Functions", 26.7.3 and 26.7.4).

    >>> round(t_quantile(0.95, 6), 4), round(t_quantile(0.975, 1), 4)
    (1.9432, 12.7062)
    """
    if probability < 0.5:  # noqa: PLR2004 - the distribution is symmetric about its median
        return -t_quantile(1.0 - probability, freedom)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if (1.0 + _within(middle, freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


# -- the two comparisons --------------------------------------------------------------------


def _nothing_known(task: Task, n: int, confidence: float) -> GateResult:
    return GateResult(
        passed=False,
        reason="",
        loss=_LOSS[task],
        n=n,
        champion_loss=None,
        candidate_loss=None,
        gain=None,
        low=None,
        high=None,
        confidence=confidence,
    )


def _against_constant(
    scored: GateResult, losses: Floats, constant: Floats, blocks: npt.NDArray[np.generic]
) -> GateResult:
    met = _against_champion(scored, losses, constant, blocks, margin=0.0)
    # The average is that of these very rows: a hard thing to beat with hindsight, so that only a
    # candidate that is worse for certain is refused.
    passed = met.high is None or met.high >= 0.0
    gain = f"{met.gain:+.1%}" if met.gain is not None else "no gain"
    usual = "commonest class" if scored.loss == _LOSS[Task.MULTICLASS] else "average"
    return replace(
        scored,
        passed=passed,
        reason=(
            f"first version: {metric_name(scored.loss)} {scored.candidate_loss:.4g} on"
            f" {scored.n} rows, {gain} against always answering their {usual}"
            f"{'' if passed else ', which is worse for certain'}"
        ),
    )


def _against_champion(
    scored: GateResult,
    losses: Floats,
    before: Floats,
    blocks: npt.NDArray[np.generic],
    *,
    margin: float,
    unit: str = "day",
) -> GateResult:
    mine, theirs = float(losses.mean()), float(before.mean())
    scored = replace(scored, champion_loss=theirs)
    if theirs == 0.0:
        said = f"the champion made no error on {scored.n} rows: there is nothing to gain"
        return replace(scored, reason=said)
    gain = 1.0 - mine / theirs
    scored = replace(scored, gain=gain)
    losses_said = (
        f"{metric_name(scored.loss)} {theirs:.4g} for the champion, {mine:.4g} for the candidate"
    )
    _, group = np.unique(blocks, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:  # noqa: PLR2004 - one cluster has no variance
        said = f"{losses_said}, but all {scored.n} rows are of one {unit}, and certainty needs two"
        return replace(scored, reason=said)
    influence = (before * (1.0 - gain) - losses) / theirs
    by_block = np.bincount(group, weights=influence) / scored.n
    error = math.sqrt(count / (count - 1) * float(by_block @ by_block))
    reach = t_quantile((1.0 + scored.confidence) / 2, count - 1) * error
    low, high = gain - reach, gain + reach
    passed = low > margin
    return replace(
        scored,
        passed=passed,
        low=low,
        high=high,
        reason=(
            f"{losses_said}: {gain:+.1%} ({low:+.1%} to {high:+.1%} at {scored.confidence:.0%}"
            f" confidence) on {scored.n} rows of {count} {unit}s;"
            f" {'clears' if passed else 'falls short of'} the margin of {margin:+.1%}"
        ),
    )


# -- losses ---------------------------------------------------------------------------------


def _absolute_error(truth: Floats, answer: Floats) -> Floats:
    return np.abs(truth - answer)


def _log_loss(truth: Floats, answer: Floats) -> Floats:
    of_one = np.clip(answer, CLIP, 1.0 - CLIP)
    return -np.log(np.where(truth == 1.0, of_one, 1.0 - of_one))


def _misclassified(truth: Floats, answer: Floats) -> Floats:
    wrong: Floats = (truth != answer).astype(np.float64)
    return wrong


_LOSSES = {
    Task.REGRESSION: _absolute_error,
    Task.BINARY: _log_loss,
    Task.MULTICLASS: _misclassified,
}


def _constant(truth: Floats, task: Task) -> Floats:
    match task:
        case Task.REGRESSION:
            level = float(truth.mean())
        case Task.BINARY:
            level = (float(truth.sum()) + 1) / (truth.size + 2)
        case _:
            classes, counts = np.unique(truth, return_counts=True)
            level = float(classes[counts.argmax()])
    return np.full(truth.size, level)


def _misfits(truth: Floats, task: Task) -> int:
    match task:
        case Task.REGRESSION:
            fits = np.isfinite(truth)
        case Task.BINARY:
            fits = np.isin(truth, (0.0, 1.0))
        case _:
            fits = _is_index(truth)
    return int((~fits).sum())


def _is_index(values: Floats) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (
        np.isfinite(values) & (values >= 0.0) & (values == np.floor(values))
    )
    return found


def _unfit(answer: Floats, task: Task) -> str:
    if wrong := int((~np.isfinite(answer)).sum()):
        return f"no finite number on {wrong} of {answer.size} rows"
    if task is Task.BINARY and (wrong := int(((answer < 0.0) | (answer > 1.0)).sum())):
        return f"no probability on {wrong} of {answer.size} rows"
    if task is Task.MULTICLASS and (wrong := int((~_is_index(answer)).sum())):
        return f"no class on {wrong} of {answer.size} rows"
    return ""


def _within(angle: float, freedom: int) -> float:
    """Return the probability that |t| is below sqrt(freedom) * tan(angle)."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
