"""Why a model does worse: data that are wrong, other inputs, or another relation of label to them.

Faults of the data come first (see `faults`): they are named whatever else is seen. Then the
worsening is parted into what other inputs and what another relation make of it (see `parts`), and
the columns and the segment are named that carry the larger part (see `carriers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from driftloop.measure.carriers import Excess, carried, flipped, relation_in
from driftloop.measure.columns import Codes, Floats, Unmeasurable
from driftloop.measure.faults import Fault, fault_of
from driftloop.measure.foretold import foretells, label_fault
from driftloop.measure.parts import Parts, design, parts, ridges
from driftloop.measure.sides import (
    LEAST,
    Answered,
    Sides,
    moves,
    sides,
    sure_of_worse,
    swing_of_mean,
)
from driftloop.records import Carrier, Cause, Kind, Level, Origin, Task, Verdict
from driftloop.rows import Rows
from driftloop.spec import LOSSES, Family

TOLD_APART = 5
"""So many columns, those that moved most, tell the two sides apart."""
SURE = 3.0
"""Standard errors from which on a worsening, or a part of it, is one."""
LEAST_MOVED = 0.1
"""Share of the rows that must have changed bins before other inputs are a cause by themselves."""
NAMED = 3
MEANS = ("mae", "mape", "mape_abs", "log_loss", "accuracy")
"""Metrics that are a mean over rows: their worsening has these parts as they are."""


def cause_of(
    *,
    family: Family,
    now: Rows,
    before: pa.Table | None,
    reference: pa.Table,
    verdicts: Sequence[Verdict] = (),
) -> Cause:
    """Return why a model does worse; UNKNOWN where too little is seen to tell.

    Args:
        family: gives the task, the judged metric, the features and the limits of quality.
        now: the champion's rows of the window; see `PredictionLog.rows`.
        before: rows it was not fitted on, from before its release: event_time, label, prediction
            and the features. None where they were not kept: faults are told by the reference alone
            then, and no parts.
        reference: rows it was fitted on: event_time, label, prediction and the features.
        verdicts: what was judged of the window: faults of quality are named first.
    """
    kept = 0 if before is None else before.num_rows
    if kept < LEAST:
        before = None
    alarms = tuple(_alarmed(verdicts))
    try:
        seen = sides(family, now, reference if before is None else before, reference)
    except Unmeasurable as problem:
        return _faulty(alarms) if alarms else _unknown(str(problem))
    faults = (*alarms, *(each for each in _faults(family, seen) if each.column not in _of(alarms)))
    if faults:
        return _faulty(faults)
    known = before is not None and min(seen.before.labelled.size, seen.worse.size) >= LEAST
    if known and family.task is not Task.SCORE:
        return _worsened(family, seen, verdicts)
    few = f"{kept or 'no'} rows from before its release"
    why = few if before is None else f"{seen.worse.size} labels"
    return _only_inputs(seen, f"{why}, {LEAST} are needed to tell what it does to performance")


# -- faults of the data --------------------------------------------------------------------


def _alarmed(verdicts: Sequence[Verdict]) -> Sequence[Fault]:
    found = []
    for verdict in verdicts:
        reading = verdict.reading
        of_data = reading.kind is Kind.QUALITY or (
            reading.kind is Kind.FRESH and reading.metric == "nulls"
        )
        if of_data and verdict.level is Level.ALARM:
            column = reading.column or reading.metric
            said = f"{column}: {verdict.reason}" if reading.column else verdict.reason
            share = max((reading.value or 0.0) - (reading.baseline or 0.0), 0.0)
            found.append(Fault(column, said, np.inf, min(share, 1.0)))
    return found


def _faults(family: Family, seen: Sides) -> Sequence[Fault]:
    quality = family.quality
    better = foretells(seen)
    found = []
    for name in seen.bins:
        text = "." in name
        fault = fault_of(
            seen.column(name),
            nulls=1.0 if text else quality.nulls,
            unseen=quality.unseen,
            better=better,
        )
        if fault is not None:
            found.append(fault)
    if family.task is Task.REGRESSION and (fault := label_fault(seen)) is not None:
        found.append(fault)
    return sorted(found, key=lambda each: (-each.share, -each.sure))


def _faulty(faults: Sequence[Fault]) -> Cause:
    whole = sum(each.share for each in faults) or 1.0
    carriers = tuple(
        Carrier(name=each.column, share=each.share / whole, said=each.said) for each in faults
    )
    more = f", and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    said = "; ".join(each.said for each in faults[:NAMED])
    return Cause(origin=Origin.DATA, said=f"the data is wrong: {said}{more}", carriers=carriers)


def _of(faults: Sequence[Fault]) -> frozenset[str]:
    return frozenset(each.column for each in faults)


# -- a worsening in parts ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    """What parts of a mean loss are in the judged metric: times `factor`, None if unknown."""

    factor: float | None
    unit: str
    metric: str

    def of(self, part: float) -> float | None:
        return None if self.factor is None else part * self.factor

    def said(self, part: float, error: float) -> str:
        if self.factor is None:
            return f"{part:.3g} (± {1.645 * error:.2g}) of mean loss"
        unit = f" {self.unit}" if self.unit else ""
        return f"{part * self.factor:.3g}{unit} (± {1.645 * error * abs(self.factor):.2g})"


def _worsened(family: Family, seen: Sides, verdicts: Sequence[Verdict]) -> Cause:
    before, now = seen.before.labelled, seen.worse
    gap, sure = sure_of_worse(before, now)
    if sure < SURE or gap < _least(family) * float(before.loss.mean()):
        return _not_surely_worse(family, seen, before, now)
    if family.task is Task.BINARY and (fault := flipped(seen)) is not None:
        return _faulty((fault,))
    found = _parted(seen, before, now)
    scale = _scaled(family, verdicts, found.whole)
    if found.problem is not None:
        moved = _only_inputs(seen, "")
        also = f", and {moved.said}" if moved.origin is Origin.INPUTS else ""
        return Cause(
            origin=Origin.UNKNOWN,
            said=f"{found.problem}: the parts cannot be told{also}",
            carriers=moved.carriers,
        )
    usual = swing_of_mean(before, now, before.loss)
    clear = {
        Origin.INPUTS: found.inputs / float(np.hypot(found.inputs_error, 1e-12)),
        Origin.RELATION: found.relation / float(np.hypot(found.relation_error, usual + 1e-12)),
    }
    origin = Origin.INPUTS if found.inputs > found.relation else Origin.RELATION
    carriers: tuple[Carrier, ...]
    if clear[origin] < SURE / 2:
        origin, carriers = Origin.UNKNOWN, ()
    elif origin is Origin.INPUTS:
        carriers = tuple(carried(seen, before, now))
    else:
        carriers = tuple(map(_carrier, relation_in(seen, before, now)))
    return Cause(
        origin=origin,
        said=_said(family, origin, found, scale, carriers),
        inputs=scale.of(found.inputs),
        relation=scale.of(found.relation),
        carriers=carriers,
    )


def _not_surely_worse(family: Family, seen: Sides, before: Answered, now: Answered) -> Cause:
    """Return what has changed: inputs, or where these have not the relation somewhere."""
    why = "performance is not surely worse on the labels so far"
    moved = _only_inputs(seen, why)
    if moved.origin is Origin.INPUTS:
        return moved
    carriers = tuple(map(_carrier, relation_in(seen, before, now)))
    if not carriers:
        return moved
    named = "; ".join(each.said for each in carriers[:NAMED])
    said = f"the relation of {family.target} to the inputs has changed in {named}, though {why}"
    return Cause(origin=Origin.RELATION, said=said, carriers=carriers)


def _parted(seen: Sides, before: Answered, now: Answered) -> Parts:
    moved = moves(seen.telling, before, now)
    names = sorted(moved, key=lambda name: -moved[name])[:TOLD_APART]
    if not names:
        return parts(
            before.loss, now.loss, np.ones((before.size, 1)), np.ones((now.size, 1)), np.ones(1)
        )
    sizes = [seen.bins[name].size for name in names]
    scales = []
    for name in names:
        values = before.columns[name].values
        finite = None if values is None else values[np.isfinite(values)]
        scales.append(None if finite is None or not len(finite) else _location(finite))
    made = [
        [
            (
                side.columns[name].codes,
                _standard(side.columns[name].values, scale),
                size,
            )
            for name, scale, size in zip(names, scales, sizes, strict=True)
        ]
        for side in (before, now)
    ]
    return parts(before.loss, now.loss, design(made[0]), design(made[1]), ridges(made[0]))


def _location(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0


def _standard(values: Floats | None, scale: tuple[float, float] | None) -> Floats | None:
    return None if values is None or scale is None else (values - scale[0]) / scale[1]


def _least(family: Family) -> float:
    return 0.0 if family.decay is None else min(family.decay.warn, 0.05)


def _scaled(family: Family, verdicts: Sequence[Verdict], whole: float) -> _Scale:
    metric = "" if family.decay is None else family.decay.metric
    unit = family.unit_of(metric)
    if metric in MEANS:
        return _Scale(1.0, unit, metric)
    for verdict in verdicts:
        reading = verdict.reading
        judged = reading.kind is Kind.DECAY and reading.metric == metric and not reading.segment
        if judged and reading.value is not None and reading.baseline is not None and whole:
            worse = reading.value - reading.baseline
            return _Scale((worse if metric in LOSSES else -worse) / whole, unit, metric)
    return _Scale(None, unit, metric)


def _said(
    family: Family, origin: Origin, found: Parts, scale: _Scale, carriers: Sequence[Carrier]
) -> str:
    parted = (
        f"{scale.said(found.inputs, found.inputs_error)} from other inputs and"
        f" {scale.said(found.relation, found.relation_error)} from another relation of"
        f" {family.target} to them"
    )
    if origin is Origin.UNKNOWN:
        return f"neither part is sure: {parted}"
    named = "; ".join(each.said for each in carriers[:NAMED])
    if origin is Origin.INPUTS:
        head = "the inputs have changed"
        return f"{head}: {parted}" + (f"; carried by {named}" if named else "")
    head = f"the relation of {family.target} to the inputs has changed"
    return f"{head}: {parted}; " + (f"most in {named}" if named else "alike in all segments")


def _carrier(excess: Excess) -> Carrier:
    return Carrier(name=excess.name, share=excess.share, said=excess.said)


# -- without labels ------------------------------------------------------------------------


def _only_inputs(seen: Sides, why: str) -> Cause:
    """Return which inputs have changed, where what that does to performance cannot be told."""
    before, now = seen.before, seen.changed
    found = []
    for name, far in moves(seen.telling, before, now).items():
        codes = before.columns[name].codes, now.columns[name].codes
        share = _share_moved(*codes, seen.bins[name].size)
        if far >= 2 * SURE and share >= LEAST_MOVED:
            found.append((name, share, far))
    if not found:
        return _unknown(
            f"{why}, and no input has surely changed" if why else "no input has changed"
        )
    found.sort(key=lambda each: (-each[1], -each[2]))
    whole = sum(share for _, share, _ in found)
    carriers = tuple(
        Carrier(name=name, share=share / whole, said=f"{name} (other in {share:.0%} of the rows)")
        for name, share, _ in found
    )
    named = ", ".join(each.said for each in carriers[:NAMED])
    tail = f"; {why}" if why else ""
    return Cause(
        origin=Origin.INPUTS, said=f"the inputs have changed: {named}{tail}", carriers=carriers
    )


def _share_moved(was: Codes, now: Codes, size: int) -> float:
    """Return what share of the rows has changed bins, less what so few rows do by chance."""
    old, new = (np.bincount(each, minlength=size) / len(each) for each in (was, now))
    both = (old + new) / 2.0
    chance = np.sqrt(2.0 / np.pi * both * (1.0 - both) * (1.0 / len(was) + 1.0 / len(now)))
    return float((np.abs(new - old) - chance).sum() / 2.0)


def _unknown(why: str) -> Cause:
    return Cause(origin=Origin.UNKNOWN, said=f"the cause is not known: {why}")
