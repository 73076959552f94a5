"""What is known of a model's rows, and what is believed of those that have no label yet."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from driftloop.measure.columns import Codes, Floats, Unmeasurable, blocks, check_outcomes, numbers
from driftloop.measure.delays import Delays, Mask, learnt, strata, weights
from driftloop.measure.expected import OF, Design, Fit, Sums, answers_alone, design, padded
from driftloop.measure.pseudo import outcomes
from driftloop.measure.reference import Reference
from driftloop.records import Task
from driftloop.rows import Rows
from driftloop.spec import Family

ENOUGH = 3000
"""Where the window has so many labels, those of the holdout, which are older, are not used."""
FIRST = 0.4
"""The share of the labels that are expected by nobody: the first to learn of."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the rows with a prediction; `used` says which of the table's they are.

    `outcome`, shape (rows, outcomes), is NaN where no label is `here`; `age` and `delay` are
    seconds.
    """

    prediction: Floats
    label: Floats
    outcome: Floats
    here: Mask
    age: Floats
    delay: Floats
    block: Codes
    used: Mask


@dataclass(frozen=True, slots=True)
class Learnt:
    """The rows that outcomes were learnt of, oldest first: the holdout's, then the window's.

    `stands` is for how many rows each counts, and `answer` what the champion said. `place` is
    where the last of them stand in the window. `blind` is what was expected of each by those
    before it alone; NaN for the first.
    """

    design: Design
    answer: Floats
    outcome: Floats
    stands: Floats
    block: Codes
    place: Codes
    blind: Floats


@dataclass(frozen=True, slots=True)
class Believed:
    """What is believed of all rows: `expected` of each, and for how many its label stands.

    Both have the rows of `Known`; of them `design` and `fit` are what expectations are made of.
    `waits` are those that no label stands for.
    """

    delays: Delays
    weight: Floats
    waits: Mask
    expected: Floats
    design: Design
    fit: Fit
    learnt: Learnt


def known(family: Family, metric: str, own: Rows, now: datetime) -> Known:
    """Return what is known of the champion's rows at `now`.

    Raises:
        Unmeasurable: there are none, or their labels cannot be used.
    """
    prediction = numbers(own, "prediction", of=OF)
    label = numbers(own, "label", of=OF)
    used: Mask = np.isfinite(prediction)
    if not used.any():
        raise Unmeasurable("no predictions")
    block = blocks(own, family.window.block)
    if block is None:
        raise Unmeasurable("when the rows happened is not known")
    happened, arrived = _seconds(own, "event_time")[used], _seconds(own, "labelled_at")[used]
    at = min(now.timestamp(), _newest(own, arrived))
    prediction, label = prediction[used], label[used]
    here: Mask = np.isfinite(label)
    label = np.where(here, label, np.nan)
    n = int(np.count_nonzero(here))
    check_outcomes(family, label[here], prediction, n)
    lost = int(np.count_nonzero(here & np.isnan(arrived)))
    if lost and n < len(here):
        raise Unmeasurable(f"when {lost} of {n} labels arrived is not known", n=n)
    return Known(
        prediction=prediction,
        label=label,
        outcome=outcomes(family, metric, label, prediction),
        here=here,
        age=np.maximum(at - happened, 0.0),
        delay=np.where(here, np.maximum(arrived - happened, 0.0), np.nan),
        block=block[used],
        used=used,
    )


def believed(
    family: Family, metric: str, own: Rows, reference: Reference, rows: Known, holdout: Rows | None
) -> Believed:
    """Return what is believed of `own`, whose `rows` are known; see `estimate_readings`.

    Raises:
        Unmeasurable: too few labels to learn of.
    """
    outcome = strata(rows.label, classes=family.task is not Task.REGRESSION)
    expiry = family.window.label_expiry.total_seconds()
    delays = learnt(rows.delay, rows.age, outcome, expiry)
    weight = weights(delays, rows.here, rows.age, outcome)
    every = design(
        family,
        own,
        reference,
        _spread(rows.prediction, rows.used, 0.0),
        outcome=_spread(rows.outcome, rows.used, np.nan),
        weight=_spread(weight, rows.used, 0.0),
    )
    seen = Design(every.effects[rows.used], every.start[rows.used])
    place = np.flatnonzero(weight > 0.0)
    place = place[np.argsort(-rows.age[place], kind="stable")]
    count = rows.outcome.shape[1]
    held = _held(family, metric, holdout, count=count, most=ENOUGH - len(place))
    before = padded(answers_alone(family, reference, held.answer, count), seen.effects.shape[1])
    told = Design(
        np.vstack([before.effects, seen.effects[place]]),
        np.vstack([before.start, seen.start[place]]),
    )
    true = np.vstack([held.outcome, rows.outcome[place]])
    stands = np.concatenate([np.ones(len(held.answer)), weight[place]])
    least = family.estimate.min_labels
    if len(stands) < least:
        raise Unmeasurable(f"{len(stands)} labels, at least {least} are needed", n=len(stands))
    fit, blind = _in_turn(told, true, stands)
    return Believed(
        delays=delays,
        weight=weight,
        waits=(weight == 0.0) & ~delays.told(rows.age),
        expected=possible(family, fit.expected(seen)),
        design=seen,
        fit=fit,
        learnt=Learnt(
            design=told,
            answer=np.concatenate([held.answer, rows.prediction[place]]),
            outcome=true,
            stands=stands,
            block=np.concatenate([held.block, rows.block[place]]),
            place=place,
            blind=possible(family, blind),
        ),
    )


def possible(family: Family, expected: Floats) -> Floats:
    """Return expected outcomes within what they can be: of classes, probabilities."""
    return expected if family.task is Task.REGRESSION else np.clip(expected, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Held:
    """The holdout's rows: of them the answer is known, and no feature."""

    answer: Floats
    outcome: Floats
    block: Codes


def _held(
    family: Family,
    metric: str,
    holdout: Rows | None,
    *,
    count: int,
    most: int,
) -> _Held:
    if most > 0 and holdout is not None and holdout.num_rows:
        answer = numbers(holdout, "candidate", of="the holdout")
        label = numbers(holdout, "label", of="the holdout")
        block = blocks(holdout, family.window.block)
        if block is not None:
            newest = np.argsort(block, kind="stable")
            usable = newest[np.isfinite(answer[newest]) & np.isfinite(label[newest])]
            usable = usable[max(0, len(usable) - most) :]
            answer, label = answer[usable], label[usable]
            return _Held(answer, outcomes(family, metric, label, answer), block[usable])
    return _Held(np.zeros(0), np.zeros((0, count)), np.zeros(0, dtype=np.int64))


def _in_turn(told: Design, outcome: Floats, stands: Floats) -> tuple[Fit, Floats]:
    """Return what all rows tell, and what was expected of each by those before it."""
    n = len(stands)
    first, second = int(FIRST * n), int((1.0 + FIRST) / 2.0 * n)
    blind = np.full_like(outcome, np.nan)
    sums = Sums.of(told.part(slice(0, first)), outcome[:first], stands[:first])
    for part in (slice(first, second), slice(second, n)):
        here = told.part(part)
        blind[part] = sums.fit().expected(here)
        sums += Sums.of(here, outcome[part], stands[part])
    return sums.fit(), blind


def _spread(values: Floats, used: Mask, otherwise: float) -> Floats:
    """Return values of used rows at their places among all rows."""
    found = np.full((len(used), *values.shape[1:]), otherwise)
    found[used] = values
    return found


def _newest(own: Rows, labelled: Floats) -> float:
    """Return when the newest row or label arrived: what is not in the log yet could not be known.

    Infinite where the log does not tell when rows arrive.
    """
    came = _seconds(own, "arrived_at")
    if np.isnan(came).all():
        return np.inf
    return float(np.nanmax(np.concatenate([came, labelled])))


def _seconds(rows: Rows, name: str) -> Floats:
    """Return times in seconds since 1970, NaN where there is none."""
    try:
        column = rows.column(name)
    except KeyError:
        return np.full(rows.num_rows, np.nan)
    if not pa.types.is_timestamp(column.type):
        return np.full(rows.num_rows, np.nan)
    plain = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    found: Floats = plain.cast(pa.float64()).to_numpy() / 1e6
    return found
