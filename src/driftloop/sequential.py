"""Two models on the same rows, paired, however often one looks. Numbers in, numbers out.

What the gate and the rollouts share: the loss of a row, the interval of the gain that counts
blocks of time instead of rows, and the confidence that one look may have so that all looks
together keep theirs. There are two cases. In a rollout the same two models are looked at again
and again while their rows grow in number: a confidence sequence holds at every look (`looked_at`).
At the gate each attempt has a candidate of its own, on rows that earlier attempts have partly
used: what may go wrong on a row is shared out among its uses (`left`).

The loss of a row is its absolute error for regression ("mae"), its clipped log loss for binary
models ("log_loss"), and whether it is wrong for classes ("misclassified").
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from driftloop.records import Task, metric_name

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one row costs at most 13.8 in log loss."""
LEAST = 1e-12
"""Beyond it a quantile is no longer a number: no interval is asked to be surer."""
NEARLY = 0.1
"""Sizes of blocks that differ by so little that it costs a tenth of a block are taken as alike."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_WANTED = {
    Task.REGRESSION: "a target is a finite number",
    Task.BINARY: "an outcome is 0 or 1",
    Task.MULTICLASS: "a class is a whole number from 0 on",
}
_LOSS = {Task.REGRESSION: "mae", Task.BINARY: "log_loss", Task.MULTICLASS: "misclassified"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A candidate against the champion on the same `n` labelled rows of `blocks` blocks.

    `gain` in [`low`, `high`] is 1 - mean(candidate's loss) / mean(champion's loss). What could
    not be computed is None, and `problem` says why.
    """

    loss: str
    n: int
    blocks: int = 0
    champion_loss: float | None = None
    candidate_loss: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    problem: str = ""

    @property
    def said(self) -> str:
        """Both losses in words."""
        return (
            f"{metric_name(self.loss)} {self.champion_loss:.4g} for the champion,"
            f" {self.candidate_loss:.4g} for the candidate"
        )


def paired(
    label: npt.ArrayLike,
    champion: npt.ArrayLike,
    candidate: npt.ArrayLike,
    block: npt.ArrayLike,
    *,
    task: Task,
    confidence: float,
    unit: str = "day",
) -> Paired:
    """Return by how much the candidate's mean loss is smaller, with its interval.

    Rows of one day, or whatever else is a block of time, share weather, outages and the like, so
    the interval counts blocks, not rows: the variance of the ratio is linearised (Deng, Knoblich
    and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018) and summed by block, with
    Student's t for one less than the number of blocks, as far as these are alike in size (Cameron
    and Miller, "A Practitioner's Guide to Cluster-Robust Inference", Journal of Human Resources
    2015, sections II and VI; see `clustered`).

    Args:
        label: shape [n]: the true outcomes, 0 or 1 for binary, indexes of classes for multiclass;
            a row whose label is NaN is unknown and does not count.
        champion: shape [n]: its answers.
        candidate: shape [n]: its answers, the target's unit, the probability of 1 or a class.
        block: shape [n]: the event's day or other block, of any dtype that numpy can sort.
        task: which loss.
        confidence: of the two-sided interval.
        unit: what one block is called where there is one alone.

    Raises:
        ValueError: the columns differ in length, or the task has no loss.
    """
    truth, blocks, (before, after) = known_rows(label, block, champion, candidate)
    found = Paired(loss=loss_of(task), n=truth.size)
    if problem := misfits(truth, task):
        return replace(found, problem=problem)
    if problem := unfit(after, task):
        return replace(found, problem=f"the candidate answers {problem}")
    mine = _LOSSES[task](truth, after)
    found = replace(found, candidate_loss=float(mine.mean()) if mine.size else None)
    if problem := unfit(before, task):
        problem = f"no fair comparison: the champion answers {problem}"
        return replace(found, problem=problem)
    return paired_losses(mine, _LOSSES[task](truth, before), blocks, found, confidence, unit=unit)


def paired_losses(
    mine: Floats,
    theirs: Floats,
    block: npt.NDArray[np.generic],
    found: Paired,
    confidence: float,
    *,
    unit: str = "day",
) -> Paired:
    """Return `found` with what `mine` gain against `theirs`, shape [n] both: see `paired`."""
    if not mine.size:
        return replace(found, problem="no labelled rows")
    before, after = float(theirs.mean()), float(mine.mean())
    found = replace(found, champion_loss=before, candidate_loss=after)
    if before == 0.0:
        problem = f"the champion made no error on {mine.size} rows: there is nothing to gain"
        return replace(found, problem=problem)
    gain = 1.0 - after / before
    spread = clustered((theirs * (1.0 - gain) - mine) / before, block)
    found = replace(found, gain=gain, blocks=spread.blocks)
    if spread.blocks < 2:  # noqa: PLR2004 - one cluster has no variance
        problem = (
            f"{found.said}, but all {mine.size} rows are of one {unit}, and certainty needs two"
        )
        return replace(found, problem=problem)
    reach = t_quantile((1.0 + confidence) / 2, spread.freedom) * spread.error
    return replace(found, low=gain - reach, high=gain + reach)


@dataclass(frozen=True, slots=True)
class Clustered:
    """A mean with its standard error by blocks, infinite where there is one block alone.

    `freedom` are the degrees of freedom of Student's t that it has.
    """

    mean: float
    error: float
    blocks: int
    freedom: int


def clustered(values: Floats, block: npt.NDArray[np.generic]) -> Clustered:
    """Return the mean of `values`, shape [n], with its error by blocks: see `paired`.

    Blocks that differ in size count as fewer: the square of the sum of their sizes over the sum
    of the squares (Kish, "Survey Sampling", 1965, section 11.7; of clusters Carter, Schnepel and
    Steigerwald, "Asymptotic Behavior of a t-Test Robust to Cluster Heterogeneity", Review of
    Economics and Statistics 99, 2017). Else a day that has just begun would add a degree of
    freedom, and make an error of 0.1 % one of 0.2 %.

    >>> clustered(np.array([1.0, 3.0, 1.0, 3.0]), np.array([1, 1, 2, 2]))
    Clustered(mean=2.0, error=0.0, blocks=2, freedom=1)
    >>> clustered(np.arange(141.0), np.repeat(np.arange(8), [20] * 7 + [1])).freedom
    6
    """
    _, group, sizes = np.unique(block, return_inverse=True, return_counts=True)
    count, mean = int(sizes.size), float(values.mean())
    if count < 2:  # noqa: PLR2004 - one cluster has no variance
        return Clustered(mean, math.inf, count, 0)
    by_block = np.bincount(group, weights=values - mean) / values.size
    error = math.sqrt(count / (count - 1) * float(by_block @ by_block))
    alike = values.size**2 / float(np.square(sizes, dtype=np.float64).sum())
    return Clustered(mean, error, count, max(int(alike - 1.0 + NEARLY), 1))


def looked_at(confidence: float, n: int, *, first: int) -> float:
    """Return the confidence of one look, so that all looks together have `confidence`.

    The boundary of Robbins' normal mixture, as an asymptotic confidence sequence (Waudby-Smith,
    Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 52, 2024, theorem 2.2 and section B.2): valid
    however often, and whenever, one looks.

    Args:
        confidence: of all looks together.
        n: observations at this look.
        first: observations at which the boundary is narrowest.

    >>> round(looked_at(0.95, 1000, first=1000), 4)
    0.9976
    """
    alpha = 1.0 - confidence
    wanted = -2.0 * math.log(alpha)
    x = max(n, 1) * (wanted + math.log(wanted + 1.0)) / first
    reach = math.sqrt(2.0 * (x + 1.0) / x * math.log(math.sqrt(x + 1.0) / alpha))
    return min(math.erf(reach / math.sqrt(2.0)), 1.0 - LEAST)


def left(confidence: float, *purses: npt.ArrayLike | None, tried: int = 1) -> float:
    """Return the confidence of one attempt on rows that earlier attempts have used.

    Alpha spending, row by row. A row has the error 1 - `confidence` for all its uses, in as many
    equal purses as are given; of a purse the attempt after u others that drew on it gets
    1 / ((u + 1)(u + 2)), which sums to 1 over endless reuse. The mean over an attempt's rows is
    what the lower end of its interval may err. So these errors sum to at most 1 - `confidence`
    for each holdout's worth of rows (exchange the two sums), and by Boole's inequality that
    bounds the expected number of wrong promotions, however the attempts depend on each other and
    whichever candidate each has. A first use has half of it: the very interval of `confidence`,
    whose two ends err by half each. Fresh rows bring new error to spend, for ever. Where N
    attempts draw on each row each has about 1 / N of the purse, which no schedule that treats all
    alike can better. A second purse for the few attempts that bring new evidence keeps their part
    from being eaten by the many that look again at nearly the same.

    Spending a level over looks is Lan and DeMets' ("Discrete sequential boundaries for clinical
    trials", Biometrika 70, 1983), over an endless line of hypotheses Tian and Ramdas' ("Online
    control of the familywise error rate", Statistical Methods in Medical Research 30, 2021), and
    over the updates of a model on data used before Feng, Pennello, Petrick, Sahiner, Pirracchio
    and Gossmann's ("Sequential algorithmic modification with test data reuse", UAI 2022): like
    them it assumes that of earlier attempts only pass or refusal steers what is tried next.
    A confidence sequence over attempts would not do: it follows one pair of models, and each
    attempt has another.

    Args:
        confidence: of a first attempt's two-sided interval.
        purses: shape [n] each: how many earlier attempts on each row drew on the purse; None for
            one that this attempt does not draw on.
        tried: candidates of this attempt that were compared on these rows, the best of which is
            taken; each has an equal part of its error (Bonferroni).

    >>> left(0.8, [0, 0])
    0.8
    >>> [round(1 - left(0.8, [u]), 4) for u in (0, 1, 2, 9)], round(left(0.8, [0], tried=2), 4)
    ([0.2, 0.0667, 0.0333, 0.0036], 0.9)
    >>> round(1 - left(0.8, [99], [0]), 4), round(1 - left(0.8, [99], None), 6)
    (0.1, 2e-05)
    """
    share = sum(map(_part, purses)) / len(purses) if purses else 1.0
    error = (1.0 - confidence) * share / tried
    return confidence if error == 1.0 - confidence else min(1.0 - error, 1.0 - LEAST)


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


# -- losses ---------------------------------------------------------------------------------


def losses(label: npt.ArrayLike, answer: npt.ArrayLike, *, task: Task) -> tuple[str, Floats]:
    """Return what the loss of a row is called, and each row's; NaN where the label is.

    Args:
        label: shape [n], as for `paired`.
        answer: shape [n], as for `paired`.
        task: which loss.
    """
    truth, given = np.asarray(label, np.float64), np.asarray(answer, np.float64)
    return loss_of(task), np.where(np.isnan(truth), np.nan, _LOSSES[task](truth, given))


def loss_of(task: Task) -> str:
    """Return what the loss of a row is called.

    Raises:
        ValueError: the task has none.
    """
    if task not in _LOSS:
        raise ValueError("scores have no right answer to be compared by")
    return _LOSS[task]


def known_rows(
    label: npt.ArrayLike, block: npt.ArrayLike, *answers: npt.ArrayLike
) -> tuple[Floats, npt.NDArray[np.generic], list[Floats]]:
    """Return labels, blocks and answers of the rows whose label is known.

    Raises:
        ValueError: they differ in length.
    """
    truth, blocks = np.asarray(label, np.float64), np.asarray(block)
    given = [np.asarray(answer, np.float64) for answer in answers]
    if any(column.shape != truth.shape for column in (blocks, *given)):
        raise ValueError("label, block and every model's answers must have one value for each row")
    known = ~np.isnan(truth)
    return truth[known], blocks[known], [column[known] for column in given]


def misfits(truth: Floats, task: Task) -> str:
    """Return how many labels cannot be, and why; empty if all can."""
    match task:
        case Task.REGRESSION:
            fits = np.isfinite(truth)
        case Task.BINARY:
            fits = np.isin(truth, (0.0, 1.0))
        case _:
            fits = _is_index(truth)
    wrong = int((~fits).sum())
    return f"{wrong} of {truth.size} labels cannot be: {_WANTED[task]}" if wrong else ""


def unfit(answer: Floats, task: Task) -> str:
    """Return what is wrong with a model's answers, to be read after "answers"; empty if nothing."""
    if wrong := int((~np.isfinite(answer)).sum()):
        return f"no finite number on {wrong} of {answer.size} rows"
    if task is Task.BINARY and (wrong := int(((answer < 0.0) | (answer > 1.0)).sum())):
        return f"no probability on {wrong} of {answer.size} rows"
    if task is Task.MULTICLASS and (wrong := int((~_is_index(answer)).sum())):
        return f"no class on {wrong} of {answer.size} rows"
    return ""


def constant(truth: Floats, task: Task) -> Floats:
    """Return the best that one answer to all rows can be, for each of them.

    The mean label, the base rate (k + 1) / (n + 2), or the commonest class.
    """
    match task:
        case Task.REGRESSION:
            level = float(truth.mean())
        case Task.BINARY:
            level = (float(truth.sum()) + 1) / (truth.size + 2)
        case _:
            classes, counts = np.unique(truth, return_counts=True)
            level = float(classes[counts.argmax()])
    return np.full(truth.size, level)


def _part(purse: npt.ArrayLike | None) -> float:
    """Return what an attempt gets of a purse, as a part of what a first one would."""
    if purse is None:
        return 0.0
    before = np.asarray(purse, np.float64)
    return float(np.mean(2.0 / ((before + 1.0) * (before + 2.0)))) if before.size else 1.0


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


def _is_index(values: Floats) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (
        np.isfinite(values) & (values >= 0.0) & (values == np.floor(values))
    )
    return found


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
