"""The table [retrain] of monitor files: when a candidate is made, and of which rows."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from driftloop.errors import DriftloopError
from driftloop.records import Memory
from driftloop.spec.values import Duration, Pause, Positive, Table, duration

Trigger = Literal["harm", "decay", "drift", "schedule", "age", "cost"]
"""When a model is retrained: "decay" is the former name of "harm"."""


class CostPolicy(Table):
    """What errors, fits and changes cost, in one currency of the owner's; all but `value` may be 0.

    A retraining pays where what it avoids within `horizon` is more than what it takes: the judged
    metric's worsening over its baseline x rows a day x `horizon` in days x `value`, against the
    hours of its fits x `compute` + `risk`.
    """

    value: Positive
    """Of one unit of the judged metric on one row: of "mae" in minutes, a minute on one row."""
    compute: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Of an hour of fitting."""
    risk: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Of one change of what answers, whatever comes of it."""
    horizon: Duration = timedelta(days=7)
    """So long a new version is expected to keep what it gains."""


class RetrainPolicy(Table):
    """When and how a candidate is made."""

    triggers: tuple[Trigger, ...] = Field(strict=False)
    cooldown: Pause
    span: Duration
    max_age: Duration
    """With the trigger "age": retrain when the champion was trained this long ago."""
    every: Duration | None = None
    """With the trigger "schedule": retrain this long after the last order, whatever came of it."""
    cost: CostPolicy | None = None
    """With the trigger "cost": the exchange rate."""
    memory: Annotated[
        tuple[Annotated[Memory, Field(strict=False)], ...], Field(strict=False, min_length=1)
    ] = (Memory.RECENT,)
    """Which rows candidates are made of; of several, those that the gate's history speaks for."""
    half_life: Duration | None = None
    """Of the memory "decayed": a row this much older counts half as much; by default `span`."""
    compute_per_day: Duration | None = None
    """So long may the fits of this family take in any 24 hours; None for no limit."""
    recipe: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    parameters: dict[str, float | int | str | bool] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    min_rows: Annotated[int, Field(ge=2)]
    time_limit: Duration
    memory_gib: Annotated[float, Field(ge=0.5, le=4096.0)]
    """Private memory a fit may have; the libraries alone take 0.35 GiB."""
    parity: Positive
    """Largest allowed difference of the lowered model, relative to max(1, |answer|)."""
    serve: Literal["onnx", "sklearn", "either"] = "onnx"
    """What answers: the lowered model, the fitted pipeline in the sidecar, or the pipeline where it
    cannot be lowered."""

    def due_to(self, *triggers: Trigger) -> bool:
        """Return whether one of `triggers` is a reason to retrain."""
        return any(trigger in self.triggers for trigger in triggers)


def bad_retraining(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    """Yield what contradicts itself in the table [retrain] of a family's file."""
    table = whole.get("retrain")
    if not isinstance(table, dict):
        return
    given = table.get("triggers")
    triggers = given if isinstance(given, list) else []
    if "schedule" in triggers and "every" not in table:
        yield DriftloopError(
            'the trigger "schedule" needs it', where="retrain.every", hint='as in every = "7d"'
        )
    if "cost" in triggers and "cost" not in table:
        yield DriftloopError(
            'the trigger "cost" needs it: what a unit of the judged metric is worth on one row',
            where="retrain.cost",
            hint="as in [retrain.cost] value = 0.05, compute = 0.4, risk = 2.0",
        )
    every, cooldown = _length(table, "every"), _length(table, "cooldown")
    if "schedule" in triggers and every is not None and cooldown is not None and every < cooldown:
        yield DriftloopError(
            "must not be shorter than retrain.cooldown, which would put it off",
            where="retrain.every",
        )
    yield from _bad_memory(whole, table)


def _bad_memory(whole: Mapping[str, Any], table: Mapping[str, Any]) -> Iterator[DriftloopError]:
    given = table.get("memory")
    listed = [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
    for each in dict.fromkeys(each for each in listed if listed.count(each) > 1):
        yield DriftloopError(f"{each!r} stands twice", where="retrain.memory")
    kept = whole.get("retention")
    log = _length(kept, "log") if isinstance(kept, dict) else None
    span = _length(table, "span")
    if any(each != Memory.RECENT for each in listed) and log is not None and log == span:
        yield DriftloopError(
            "no row older than retrain.span is kept: all history is the recent span",
            where="retrain.memory",
            hint="a longer retention.log keeps more",
        )


def _length(table: Mapping[str, Any], key: str) -> timedelta | None:
    try:
        found = duration(table.get(key))
    except ValueError:
        return None
    return found if isinstance(found, timedelta) else None
