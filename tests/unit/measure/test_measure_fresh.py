"""What arrived since the last look, on rows."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftloop.measure import Measurement
from driftloop.measure.fresh import Usual, sidak
from driftloop.measure.learn import learnt
from driftloop.measure.profile import Profile
from driftloop.measure.reference import prepared
from driftloop.measure.scores import losses_of
from driftloop.records import Kind, ModelId, Reading, Window
from driftloop.spec import Family

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Z90 = 1.6448536269514722
LOAD = ("shift", "load")
Look = Callable[..., dict[tuple[str, str | None], Reading]]


def made(count: int, *, start: datetime, end: datetime, seed: int, **changed: Any) -> pa.Table:
    """Rows of eta that arrive, and get their labels, as they happen; the hour moves `load`."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.uniform(start.timestamp(), end.timestamp(), count))
    at = pa.array((seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC"))
    distance = rng.gamma(2.0, 100.0, count)
    prediction = 10.0 + distance / 10.0
    load = rng.normal(0.5, 0.1, count) + 0.05 * np.sin(seconds / 86_400.0 * 2.0 * np.pi)
    columns = {
        "id": [f"{seed}-{n}" for n in range(count)],
        "version": pa.array(np.ones(count, np.int32)),
        "event_time": at,
        "arrived_at": at,
        "prediction": prediction,
        "label": prediction + rng.normal(0.0, 5.0, count),
        "labelled_at": at,
        "distance": distance,
        "load": load,
        "vehicle": rng.choice(["van", "bike", "truck"], count, p=[0.5, 0.3, 0.2]),
    }
    return pa.table({**columns, **changed})


@pytest.fixture(scope="module")
def training() -> pa.Table:
    """Four weeks of training rows, up to a week ago."""
    return made(20_000, start=NOW - timedelta(days=35), end=NOW - timedelta(days=7), seed=1)


@pytest.fixture
def hourly(eta: Family) -> Family:
    """Eta, looked at every hour."""
    window = eta.window.model_copy(update={"cadence": HOUR})
    return eta.model_copy(update={"window": window})


@pytest.fixture
def profile(hourly: Family, training: pa.Table) -> Profile:
    """The champion's; it was scored on the week after its training."""
    held_out = made(5000, start=NOW - timedelta(days=7), end=NOW, seed=2)
    held_out = held_out.rename_columns(
        ["candidate" if name == "prediction" else name for name in held_out.column_names]
    )
    return learnt(hourly, prepared(hourly, training.slice(0, 5000)), training, held_out)


@pytest.fixture
def look(
    hourly: Family,
    training: pa.Table,
    profile: Profile,
    measured: Callable[..., Measurement],
) -> Look:
    """Looks at rows: fresh is what came in the last hour, or since `since`."""

    def fresh(
        rows: pa.Table,
        *,
        since: datetime | None = NOW - HOUR,
        family: Family = hourly,
        **other: Any,
    ) -> dict[tuple[str, str | None], Reading]:
        window = Window(
            model=ModelId("eta-de"),
            start=NOW - timedelta(days=14),
            end=NOW,
            known_at=NOW,
            since=since,
        )
        found = measured(
            family,
            rows,
            training.slice(0, 5000),
            usual=Usual(other.get("profile", profile), window),
            own=other.get("own", rows),
        )
        return {(r.metric, r.column): r for r in found.readings if r.kind is Kind.FRESH}

    return fresh


def recent(count: int, *, hours: float = 6.0, seed: int = 3, **changed: Any) -> pa.Table:
    return made(count, start=NOW - timedelta(hours=hours), end=NOW, seed=seed, **changed)


def z(reading: Reading, of: float = 0.0) -> float:
    """How many standard errors a reading lies from `of`."""
    assert reading.value is not None
    assert reading.high is not None
    return (reading.value - of) * Z90 / (reading.high - reading.value)


def test_every_column_and_the_loss_are_read(look: Look) -> None:
    """Numbers and the prediction twice, categories, nulls of features, and the judged metric."""
    found = look(recent(1200))
    numbers = {(m, c) for m in ("shift", "spread") for c in ("distance", "load", "prediction")}
    nulls = {("nulls", c) for c in ("distance", "load", "vehicle")}
    assert found.keys() == numbers | nulls | {("share", "vehicle"), ("loss", None)}
    for reading in found.values():
        assert 150 < reading.n < 250
        assert abs(z(reading)) < 4.0


def test_nothing_new_is_no_reading(look: Look) -> None:
    """Nor is anything fresh at a first look, nor where the clock was set back."""
    assert look(recent(1200), since=None) == {}
    assert look(recent(1200), since=NOW + HOUR) == {}
    assert look(recent(1200).slice(0, 900)) == {}


@pytest.mark.parametrize("moved", [0.3, -0.6])
def test_a_shift_is_told_in_standard_deviations(look: Look, moved: float) -> None:
    """Of a number: where it lies, and how far it spreads stays as it was."""
    rows = recent(12_000)
    shifted = pa.array(rows["load"].to_numpy() + 0.106 * moved)
    rows = rows.set_column(rows.column_names.index("load"), "load", shifted)
    found = look(rows, since=NOW - timedelta(hours=5.9))
    assert found["shift", "load"].value == pytest.approx(moved, abs=0.05)
    assert abs(z(found["shift", "load"], moved)) < 4.0
    assert abs(z(found["shift", "distance"])) < 4.0


def test_the_hour_of_the_day_is_no_shift(look: Look) -> None:
    """Rows of one hour lie where that hour's usually do; late ones where theirs did."""
    for back in (6, 12, 18):
        end = NOW - timedelta(hours=back)
        rows = made(2000, start=end - HOUR, end=end, seed=back)
        late = pa.array([NOW] * rows.num_rows, pa.timestamp("us", "UTC"))
        rows = rows.set_column(rows.column_names.index("arrived_at"), "arrived_at", late)
        reading = look(rows)["shift", "load"]
        assert reading.n == 2000
        assert abs(z(reading)) < 4.0
        assert abs(reading.value or 0.0) < 0.15


@pytest.mark.parametrize("level", ["van", "truck", "scooter"])
def test_the_rise_of_any_level_shows(look: Look, level: str) -> None:
    """Common, rare or never seen."""
    rows = recent(6000)
    kinds = rows["vehicle"].to_numpy(zero_copy_only=False).copy()
    kinds[::4] = level
    found = look(rows.set_column(rows.column_names.index("vehicle"), "vehicle", pa.array(kinds)))
    assert z(found["share", "vehicle"]) > 3.5
    assert z(look(rows)["share", "vehicle"]) < 3.5


def test_nulls_are_told_as_a_share_of_rows(look: Look) -> None:
    """Of a column that never had any, and beside it what is still there."""
    rows = recent(6000)
    load = [None if n % 4 == 0 else value for n, value in enumerate(rows["load"].to_pylist())]
    found = look(rows.set_column(rows.column_names.index("load"), "load", pa.array(load)))
    assert found["nulls", "load"].value == pytest.approx(0.25, abs=0.03)
    assert found["shift", "load"].n < found["shift", "distance"].n


@pytest.mark.parametrize(
    ("metric", "worse", "told"), [("mae", 1.3, 0.3), ("rmse", 1.3, 0.345), ("r2", 1.3, 0.3)]
)
def test_a_loss_is_told_as_the_judged_metric_worsens(
    hourly: Family, training: pa.Table, look: Look, metric: str, worse: float, told: float
) -> None:
    """As a share of its baseline; squares to the first order, and what is no mean by the gate's."""
    assert hourly.decay is not None
    decay = hourly.decay.model_copy(update={"metric": metric})
    family = hourly.model_copy(update={"decay": decay})
    held_out = training.rename_columns(
        ["candidate" if name == "prediction" else name for name in training.column_names]
    )
    profile = learnt(family, prepared(family, training), training, held_out)
    rows = recent(9000)
    error = (rows["label"].to_numpy() - rows["prediction"].to_numpy()) * worse
    label = pa.array(rows["prediction"].to_numpy() + error)
    rows = rows.set_column(rows.column_names.index("label"), "label", label)
    reading = look(rows, family=family, profile=profile)["loss", None]
    # The largest losses are cut, and the baseline is taken at its upper end.
    assert reading.value == pytest.approx(told, abs=0.09)
    assert z(reading) > 3.0
    assert losses_of(family) is not None


def test_labels_count_when_they_come(look: Look) -> None:
    """Of rows from days ago as of new ones; what was known at the last look is not fresh."""
    old = made(500, start=NOW - timedelta(days=3), end=NOW - timedelta(days=2), seed=5)
    at = [NOW if n < 200 else NOW - timedelta(days=1) for n in range(500)]
    came = pa.array(at, pa.timestamp("us", "UTC"))
    rows = old.set_column(old.column_names.index("labelled_at"), "labelled_at", came)
    found = look(rows)
    assert found.keys() == {("loss", None)}
    assert found["loss", None].n == 200


def test_one_row_is_enough_to_tell_little(look: Look) -> None:
    """It has a value and a wide interval; a value far out is no sensation."""
    rows = recent(1, hours=0.5)
    rows = rows.set_column(rows.column_names.index("load"), "load", pa.array([1e9]))
    found = look(rows)
    assert found["shift", "load"].n == 1
    assert 1.0 < z(found["shift", "load"]) < 2.5


def test_a_long_time_without_a_look_is_one_slice_after_the_other(look: Look) -> None:
    """What came in two days is surer than what came in an hour."""
    rows = recent(6000, hours=60.0)
    hour, days = look(rows), look(rows, since=NOW - timedelta(days=2))
    assert days["shift", "load"].n > 40 * hour["shift", "load"].n

    def width(reading: Reading) -> float:
        return (reading.high or 0.0) - (reading.low or 0.0)

    assert width(days["shift", "load"]) < width(hour["shift", "load"]) / 2.5


def test_what_cannot_be_read_says_why(look: Look) -> None:
    """A column that is text now; a profile of another loss; one without losses at all."""
    rows = recent(600)
    text = rows.set_column(rows.column_names.index("load"), "load", pa.array(["a"] * 600))
    reading = look(text)["shift", "load"]
    assert reading.value is None
    assert "load is string" in (reading.problem or "")


def test_a_champion_without_held_out_rows_has_no_usual_loss(
    hourly: Family, training: pa.Table, look: Look
) -> None:
    """All else is read."""
    alone = learnt(hourly, prepared(hourly, training), training, pa.table({}))
    found = look(recent(600), profile=alone)
    assert found["loss", None].value is None
    assert "held-out rows" in (found["loss", None].problem or "")
    assert found["shift", "load"].value is not None


def test_where_nothing_can_be_fresh_one_reading_says_why(
    hourly: Family, training: pa.Table, profile: Profile, look: Look
) -> None:
    """A reference without event_time, and a log that does not tell when rows or labels arrive."""
    rows = recent(600)
    timeless = learnt(
        hourly, prepared(hourly, training), training.drop_columns(["event_time"]), pa.table({})
    )
    found = look(rows, profile=timeless)
    assert found.keys() == {("fresh", None)}
    assert "no event_time" in (found["fresh", None].problem or "")
    never = pa.nulls(600, pa.timestamp("us", "UTC"))
    found = look(rows.set_column(rows.column_names.index("arrived_at"), "arrived_at", never))
    assert found.keys() == {("fresh", None)}
    assert "when rows arrive" in (found["fresh", None].problem or "")
    found = look(rows.set_column(rows.column_names.index("labelled_at"), "labelled_at", never))
    assert "when labels arrive" in (found["loss", None].problem or "")
    assert found["shift", "load"].value is not None


def test_what_another_answered_foretells_nothing(look: Look, profile: Profile) -> None:
    """Right after a promotion the earlier answers are of who was champion then."""
    at = [place for place, each in enumerate(profile.series) if each.column == "prediction"]
    noise, phi = profile.noise.copy(), profile.phi.copy()
    noise[at], phi[at] = 0.05, 0.9
    goes_on = replace(profile, noise=noise, phi=phi)
    rows = recent(1200)
    old = rows["arrived_at"].to_numpy() < np.datetime64((NOW - HOUR).replace(tzinfo=None))
    answers = pa.array(rows["prediction"].to_numpy() + np.where(old, 1000.0, 0.0))
    both = rows.set_column(rows.column_names.index("prediction"), "prediction", answers)
    own = both.filter(pa.array(~old))
    known = {
        name: look(both, own=given, profile=goes_on)["shift", "prediction"]
        for name, given in {"own": own, "both": both}.items()
    }
    assert abs(z(known["own"])) < 3.0
    assert z(known["both"]) < -4.0


def test_readings_are_short(look: Look) -> None:
    """They are kept for ever: six digits of the interval, and the error is as good as ever."""
    for reading in look(recent(1200)).values():
        assert reading.value is not None
        assert reading.high is not None
        assert len(repr(reading.value).strip("-0.").replace(".", "")) <= 8
        assert reading.low == pytest.approx(2.0 * reading.value - reading.high, abs=2e-5)


def test_an_hour_may_begin_a_step_higher(hourly: Family, training: pa.Table) -> None:
    """Where a look is an hour its usual level is that of the hour, and no line between hours."""
    rng = np.random.default_rng(21)
    rows = made(60_000, start=NOW - timedelta(days=56), end=NOW - timedelta(days=28), seed=21)
    weekend = np.isin(np.floor(rows["event_time"].cast(pa.int64()).to_numpy() / 864e8) % 7, (2, 3))
    load = pa.array(rng.normal(0.5, 0.1, 60_000) + 0.3 * weekend)
    rows = rows.set_column(rows.column_names.index("load"), "load", load)
    found = learnt(hourly, prepared(hourly, rows), rows, pa.table({}))
    (at,) = (n for n, each in enumerate(found.series) if (each.metric, each.column) == LOAD)
    levels = found.levels[:168, at]
    assert levels[47] - levels[48] < -0.2
    assert not found.levels[168:, at].any()


def test_the_largest_of_many_is_as_rare_as_it_is() -> None:
    """Of independent ones it is standard normal."""
    rng = np.random.default_rng(11)
    found = np.array([sidak(each) for each in rng.normal(size=(4000, 12))])
    assert abs(found.mean()) < 0.05
    assert abs(found.std() - 1.0) < 0.05
    assert sidak(np.array([50.0, 0.0])) == 50.0
