"""Why a model does worse: what is named of rows that one thing is wrong with."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.errors import ArtifactError
from driftloop.measure import EvidentlyMeasure
from driftloop.measure.causes import cause_of
from driftloop.measure.parts import parts
from driftloop.records import Cause, Kind, Level, Origin, Reading, Verdict
from driftloop.spec import Family, Feature

Draw = np.random.Generator
Columns = dict[str, np.ndarray]
START = datetime(2026, 1, 1, tzinfo=UTC)


def inputs(rng: Draw, n: int) -> Columns:
    return {
        "distance": rng.gamma(2.0, 100.0, n),
        "load": rng.beta(2.0, 3.0, n),
        "vehicle": rng.choice(np.array(["van", "bike", "truck"], object), n, p=[0.5, 0.3, 0.2]),
    }


def truth(columns: Columns) -> np.ndarray:
    slow = np.where(columns["vehicle"] == "truck", 12.0, 0.0)
    found: np.ndarray = 10.0 + columns["distance"] / 10.0 + 20.0 * columns["load"] + slow
    return found


def answer(columns: Columns) -> np.ndarray:
    """The model: right up to a distance of 500, and beyond it none that it ever saw."""
    given = {**columns, "distance": np.clip(np.nan_to_num(columns["distance"], nan=200.0), 0, 500)}
    return truth(given)


def table(
    columns: Columns, label: np.ndarray, prediction: np.ndarray, *, days: float = 7.0
) -> pa.Table:
    micros = np.linspace(0, days * 86_400e6, len(label)).astype(np.int64)
    at = pa.array(micros + int(START.timestamp() * 1e6), pa.timestamp("us", tz="UTC"))
    return pa.table(
        {
            "event_time": at,
            "label": pa.array(label, from_pandas=True),
            "prediction": prediction,
            **{name: pa.array(values, from_pandas=True) for name, values in columns.items()},
        }
    )


def well(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = inputs(rng, n)
    return table(columns, truth(columns) + rng.normal(0.0, 3.0, n), answer(columns))


def found(
    eta: Family,
    *,
    given: Callable[[Draw, Columns], object] = lambda _, __: None,
    true: Callable[[Draw, Columns], object] = lambda _, __: None,
    relation: Callable[[Columns], np.ndarray] = lambda columns: np.zeros(len(columns["load"])),
    n: int = 4000,
    labelled: float = 1.0,
    verdicts: tuple[Verdict, ...] = (),
    before: pa.Table | None = None,
) -> Cause:
    """What is named of n rows: `true` changes what is, `given` what the model is told of it."""
    rng = np.random.default_rng(7)
    columns = inputs(rng, n)
    true(rng, columns)
    label = truth(columns) + relation(columns) + rng.normal(0.0, 3.0, n)
    label[rng.random(n) > labelled] = np.nan
    columns = {name: values.copy() for name, values in columns.items()}
    given(rng, columns)
    cause = cause_of(
        family=eta,
        now=table(columns, label, answer(columns), days=2.0),
        before=well(3000, 1) if before is None else before,
        reference=well(3000, 2),
        verdicts=verdicts,
    )
    # The ledger keeps it: no number of it is NumPy's.
    assert msgspec.json.decode(msgspec.json.encode(cause), type=Cause) == cause
    return cause


def first(cause: Cause) -> tuple[Origin, str | None]:
    return cause.origin, cause.carriers[0].name if cause.carriers else None


def lost(rng: Draw, columns: Columns) -> None:
    columns["load"][rng.random(len(columns["load"])) < 0.2] = np.nan


def scaled(_: Draw, columns: Columns) -> None:
    columns["distance"] *= 1.609344


def stuck(_: Draw, columns: Columns) -> None:
    columns["load"][:] = 0.4


def collapsed(_: Draw, columns: Columns) -> None:
    columns["vehicle"][columns["vehicle"] == "truck"] = "van"


def offset(_: Draw, columns: Columns) -> None:
    columns["distance"][1500:] += 150.0


@pytest.mark.parametrize(
    ("given", "column", "said"),
    [
        pytest.param(lost, "load", "% of load has no value", id="nulls"),
        pytest.param(scaled, "distance", "miles as kilometres", id="unit"),
        pytest.param(stuck, "load", "100% of the rows have load=0.4", id="stuck"),
        pytest.param(collapsed, "vehicle", "vehicle=truck is gone", id="collapse"),
        pytest.param(offset, "distance", "off", id="another-zero"),
    ],
)
def test_a_fault_of_the_data_is_named_with_its_column(
    eta: Family, given: Callable[[Draw, Columns], object], column: str, said: str
) -> None:
    """None of these is over a limit of quality; each is what is wrong, and not drift."""
    cause = found(eta, given=given)
    assert first(cause) == (Origin.DATA, column)
    assert said in cause.said


def test_new_levels_in_place_of_old_ones_have_not_collapsed(eta: Family) -> None:
    """A new timetable brings values that were never seen: where `unseen` allows it, no fault."""
    tolerant = eta.model_copy(
        update={"quality": eta.quality.model_copy(update={"unseen": 1.0, "nulls": 1.0})}
    )

    def renewed(_: Draw, columns: Columns) -> None:
        columns["vehicle"][columns["vehicle"] == "truck"] = "lorry"

    assert found(tolerant, given=renewed).origin is not Origin.DATA


def test_inputs_that_really_moved_are_no_fault(eta: Family) -> None:
    """The same offset of what is, and not of what is told: labels speak for the values."""

    def further(_: Draw, columns: Columns) -> None:
        columns["distance"] += 150.0

    cause = found(eta, true=further)
    assert first(cause) == (Origin.INPUTS, "distance")
    assert cause.inputs is not None
    assert cause.relation is not None
    assert cause.inputs > 3.0 * abs(cause.relation)


def test_the_parts_add_up_to_the_worsening(eta: Family) -> None:
    """Inputs and relation are in the metric's unit: together what mae is worse by."""

    def further(_: Draw, columns: Columns) -> None:
        columns["distance"] += 150.0

    cause = found(eta, true=further, relation=lambda columns: 4.0 * (columns["load"] > 0.0))
    rng = np.random.default_rng(3)
    columns = inputs(rng, 100_000)
    columns["distance"] += 150.0
    noise = rng.normal(0.0, 3.0, 100_000)
    worse = np.abs(truth(columns) + 4.0 + noise - answer(columns)).mean() - np.abs(noise).mean()
    assert cause.inputs is not None
    assert cause.relation is not None
    assert cause.inputs + cause.relation == pytest.approx(worse, rel=0.2)


def test_a_segment_whose_relation_changed_is_named(eta: Family) -> None:
    """Only trucks became slower: the relation, in that segment, with nearly all of it."""
    cause = found(eta, relation=lambda columns: 15.0 * (columns["vehicle"] == "truck"))
    assert first(cause) == (Origin.RELATION, "vehicle")
    assert "most in vehicle=truck (9" in cause.said


def test_a_relation_that_changed_everywhere_is_in_no_segment(eta: Family) -> None:
    """All take as much longer: nothing is named that is no worse than the rest."""
    cause = found(eta, relation=lambda columns: 6.0 * (columns["load"] >= 0.0))
    assert first(cause) == (Origin.RELATION, None)
    assert "alike in all segments" in cause.said


def test_labels_in_another_unit_are_a_fault_of_the_data(eta: Family) -> None:
    """Minutes become seconds in the labels: they are at fault, and not the relation."""
    cause = found(eta, relation=lambda columns: 999.0 * truth(columns))
    assert first(cause) == (Origin.DATA, "label")


def test_flipped_labels_are_told_from_another_relation(churn: Family) -> None:
    """A fifth of the labels of the other class, whatever the row: the labels are at fault."""

    def rows(n: int, seed: int, flips: float) -> pa.Table:
        rng = np.random.default_rng(seed)
        columns = {
            "tenure": rng.gamma(2.0, 20.0, n),
            "spend": rng.lognormal(0.0, 1.0, n),
            "plan": rng.choice(np.array([f"p{i}" for i in range(4)], object), n),
        }
        likely = 1.0 / (1.0 + np.exp(-(columns["tenure"] - 40.0) / 10.0))
        label = (rng.random(n) < likely) != (rng.random(n) < flips)
        return table(columns, label.astype(float), likely)

    sides = {"before": rows(3000, 1, 0.0), "reference": rows(3000, 2, 0.0)}
    cause = cause_of(family=churn, now=rows(4000, 3, 0.2), **sides)
    assert first(cause) == (Origin.DATA, "label")
    assert "% of the labels are of the other class" in cause.said
    assert cause_of(family=churn, now=rows(4000, 4, 0.0), **sides).origin is Origin.UNKNOWN


def test_a_change_late_in_the_window_is_found(eta: Family) -> None:
    """A tenth of the window is wrong: that tenth is compared, and not a diluted whole."""

    def late(_: Draw, columns: Columns) -> None:
        columns["distance"][-400:] *= 1000.0

    cause = found(eta, given=late)
    assert first(cause) == (Origin.DATA, "distance")


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_named_where_nothing_changed(eta: Family, seed: int) -> None:
    """Rows like those of before have no cause."""
    cause = cause_of(
        family=eta, now=well(4000, 10 + seed), before=well(3000, 1), reference=well(3000, 2)
    )
    assert first(cause) == (Origin.UNKNOWN, None)


def test_too_few_labels_leave_the_parts_unknown(eta: Family) -> None:
    """The inputs can still be named; what they cost is not made up."""

    def further(_: Draw, columns: Columns) -> None:
        columns["distance"] += 150.0

    cause = found(eta, true=further, labelled=0.005)
    assert (cause.origin, cause.inputs, cause.relation) == (Origin.INPUTS, None, None)
    assert "labels, 100 are needed" in cause.said


def test_inputs_that_do_not_overlap_have_no_parts(eta: Family) -> None:
    """Where no row of now is like any of before, none can tell the relation from the inputs."""

    def elsewhere(rng: Draw, columns: Columns) -> None:
        columns["distance"][:] = rng.uniform(5000.0, 9000.0, len(columns["distance"])) ** 1.01

    cause = found(eta, true=elsewhere)
    assert cause.origin is Origin.UNKNOWN
    assert "hardly overlap" in cause.said
    assert "distance" in cause.said


def test_too_few_rows_say_so(eta: Family) -> None:
    """A handful of rows has no cause."""
    cause = found(eta, n=20)
    assert cause.said == "the cause is not known: 20 rows, 100 are needed"


@pytest.mark.parametrize(
    ("kind", "metric"), [(Kind.QUALITY, "out_of_range"), (Kind.FRESH, "nulls")]
)
def test_an_alarm_of_quality_comes_first(eta: Family, kind: Kind, metric: str) -> None:
    """What quality has found already is the cause, whatever else has changed."""
    reading = Reading(kind=kind, metric=metric, column="load", value=0.3, n=4000, baseline=0.0)
    alarm = Verdict(reading=reading, level=Level.ALARM, limit=0.02, reason="30% out of range")
    cause = found(eta, relation=lambda columns: 6.0 * (columns["load"] >= 0.0), verdicts=(alarm,))
    assert first(cause) == (Origin.DATA, "load")


def test_a_part_of_the_day_is_no_change_by_its_hours(eta: Family) -> None:
    """Load goes up and down within each day: the newest hours differ from a week as ever."""

    def rows(n: int, days: float, seed: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        columns = inputs(rng, n)
        hours = np.linspace(0.0, days * 24.0, n)
        columns["load"] = np.clip(
            0.5 + 0.4 * np.sin(hours * np.pi / 12.0) + 0.05 * rng.standard_normal(n), 0.0, 1.0
        )
        return table(columns, truth(columns) + rng.normal(0.0, 3.0, n), answer(columns), days=days)

    now = rows(2400, 2.0 + 5.0 / 24.0, 3)
    cause = cause_of(family=eta, now=now, before=rows(4000, 7.0, 1), reference=rows(4000, 7.0, 2))
    assert first(cause) == (Origin.UNKNOWN, None)


@pytest.fixture
def weathered(eta: Family) -> Family:
    """The regression family with a month and a temperature, as real data have them."""
    more = {name: Feature(kind="numeric") for name in ("month", "warmth")}
    return eta.model_copy(update={"features": {**eta.features, **more}})


def months(rng: Draw, first: int, count: int, n: int) -> Columns:
    """Rows of whole months from `first` on: each is warmer than the one before, in all of it."""
    columns = inputs(rng, n)
    columns["month"] = first + np.floor(np.linspace(0.0, count - 1e-9, n))
    columns["warmth"] = 3.0 * columns["month"] + rng.standard_normal(n)
    return columns


@pytest.mark.parametrize("slower", [0.0, 4.0])
def test_a_calendar_is_never_wrong_data(weathered: Family, slower: float) -> None:
    """A month that training never had, and its weather: no stuck column, no other unit."""

    def rows(seed: int, first: int, count: int, extra: float = 0.0) -> pa.Table:
        rng = np.random.default_rng(seed)
        columns = months(rng, first, count, 3000)
        label = truth(columns) + extra + rng.normal(0.0, 3.0, 3000)
        return table(columns, label, answer(columns))

    cause = cause_of(
        family=weathered, now=rows(3, 6, 1, slower), before=rows(1, 5, 1), reference=rows(2, 0, 5)
    )
    assert cause.origin is not Origin.DATA
    assert "month" not in [carrier.name for carrier in cause.carriers]


def test_files_of_a_champion_are_read(eta: Family, tmp_path: Path) -> None:
    """Reference and held-out rows as training wrote them; without the latter, faults alone."""
    rng = np.random.default_rng(7)
    columns = inputs(rng, 3000)
    label = truth(columns) + 8.0 * (columns["vehicle"] == "van") + rng.normal(0.0, 3.0, 3000)
    now, before = table(columns, label, answer(columns)), well(3000, 1)
    reference = tmp_path / "reference.parquet"
    pq.write_table(well(3000, 2), reference)
    named = list(eta.inputs)
    features = pa.StructArray.from_arrays([before[n].combine_chunks() for n in named], named)
    held_out = before.select(["event_time", "label"])
    held_out = held_out.append_column("candidate", before["prediction"])
    measure = EvidentlyMeasure()
    assert measure.cause(family=eta, own=now, reference=reference, verdicts=()).relation is None
    pq.write_table(held_out.append_column("features", features), tmp_path / "holdout.parquet")
    cause = measure.cause(family=eta, own=now, reference=reference, verdicts=())
    assert first(cause) == (Origin.RELATION, "vehicle")
    reference.write_bytes(b"torn")
    with pytest.raises(ArtifactError):
        measure.cause(family=eta, own=now, reference=reference, verdicts=())


def test_parts_are_exact_where_inputs_are_the_same() -> None:
    """Without a column that tells the sides apart all is the relation's, with the usual error."""
    rng = np.random.default_rng(1)
    before, now = rng.exponential(1.0, 2000), rng.exponential(1.5, 2000)
    one = np.ones((2000, 1))
    found = parts(before, now, one, one, np.ones(1))
    assert found.inputs == pytest.approx(0.0, abs=1e-9)
    assert found.relation == pytest.approx(now.mean() - before.mean())
    usual = np.sqrt(before.var() / 2000 + now.var() / 2000)
    assert found.relation_error == pytest.approx(usual, rel=0.6)
