"""What loss is expected of rows before they have a label."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from driftloop.measure.fresh import Usual, fresh_readings
from driftloop.measure.learn import learnt
from driftloop.measure.outlook import losses_ahead, seen
from driftloop.measure.profile import Profile
from driftloop.measure.profile_file import read_profile, write_profile
from driftloop.measure.reference import Reference, prepared
from driftloop.records import ModelId, Reading, Window
from driftloop.spec import Family

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Z90 = 1.6448536269514722
Look = Callable[..., Reading]


def made(
    count: int, start: datetime, end: datetime, rng: np.random.Generator, **moved: float
) -> pa.Table:
    """Rows of eta whose error grows with `load` and does not depend on `distance`."""
    seconds = np.sort(rng.uniform(start.timestamp(), end.timestamp(), count))
    at = pa.array((seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC"))
    day = np.sin(seconds / 86_400.0 * 2.0 * np.pi)
    load = rng.normal(0.5, 0.1, count) + 0.03 * day + 0.1 * moved.get("load", 0.0)
    distance = rng.gamma(2.0, 100.0, count) + 140.0 * moved.get("distance", 0.0)
    prediction = 10.0 + distance / 10.0
    hard = 5.0 * np.exp(4.0 * (load - 0.5)) * moved.get("relation", 1.0)
    return pa.table(
        {
            "event_time": at,
            "arrived_at": at,
            "prediction": prediction,
            "label": prediction + rng.normal(0.0, 1.0, count) * hard,
            "labelled_at": at,
            "distance": distance,
            "load": load,
            "vehicle": rng.choice(["van", "bike", "truck"], count, p=[0.5, 0.3, 0.2]),
        }
    )


def gated(rows: pa.Table) -> pa.Table:
    """Held-out rows as a candidate's folder has them."""
    names = ["distance", "load", "vehicle"]
    features = pa.StructArray.from_arrays([rows[name].combine_chunks() for name in names], names)
    return pa.table(
        {
            "event_time": rows["event_time"],
            "label": rows["label"],
            "candidate": rows["prediction"],
            "features": features,
        }
    )


@pytest.fixture
def hourly(eta: Family) -> Family:
    """Eta, looked at every hour."""
    return eta.model_copy(update={"window": eta.window.model_copy(update={"cadence": HOUR})})


def champion(family: Family, seed: int) -> tuple[Reference, Profile]:
    """A champion's reference and profile, of four weeks and a week held out."""
    rng = np.random.default_rng(seed)
    week = NOW - timedelta(days=7)
    training = made(8000, NOW - timedelta(days=35), week, rng)
    reference = prepared(family, training.slice(0, 4000))
    return reference, learnt(family, reference, training, gated(made(2500, week, NOW, rng)))


def looked(
    family: Family, rows: pa.Table, reference: Reference, profile: Profile, end: datetime
) -> Reading | None:
    window = Window(
        model=ModelId("eta-de"), start=NOW - HOUR, end=end, known_at=end, since=end - HOUR
    )
    found = fresh_readings(family, rows, rows, reference, Usual(profile, window))
    return next((each for each in found if each.metric == "expected"), None)


def surely(reading: Reading | None, of: float = 0.0) -> float:
    """By how many standard errors a reading is above `of`."""
    assert reading is not None
    assert reading.value is not None
    assert reading.high is not None
    return (reading.value - of) * Z90 / (reading.high - reading.value)


def test_harder_rows_are_worse_before_their_labels_come(hourly: Family) -> None:
    """A shift of the column that errors depend on shows, at most as large as it is."""
    reference, profile = champion(hourly, 1)
    rows = made(600, NOW, NOW + HOUR, np.random.default_rng(2), load=1.0)
    unlabelled = rows.set_column(
        rows.column_names.index("label"), "label", pa.nulls(600, pa.float64())
    )
    reading = looked(hourly, unlabelled, reference, profile, NOW + HOUR)
    assert surely(reading, of=0.1) > 3.0
    assert reading is not None
    assert reading.value is not None
    assert 0.25 < reading.value < np.exp(0.4) - 1.0
    assert reading.n == 600


def test_what_errors_do_not_depend_on_may_move(hourly: Family) -> None:
    """Nor does a relation that changed show, which only labels can tell of."""
    reference, profile = champion(hourly, 3)
    rng = np.random.default_rng(4)
    for moved in ({"distance": 1.0}, {"relation": 2.0}):
        rows = made(600, NOW, NOW + HOUR, rng, **moved)
        reading = looked(hourly, rows, reference, profile, NOW + HOUR)
        assert surely(reading) < 2.5


def test_clean_rows_of_a_fleet_are_not_expected_to_be_worse(hourly: Family) -> None:
    """Look after look, whatever each model's outlook got wrong: the mean of none is above 0."""
    means, deviations = [], []
    for seed in range(4):
        reference, profile = champion(hourly, 10 + seed)
        looks = 24
        rows = made(100 * looks, NOW, NOW + looks * HOUR, np.random.default_rng(seed))
        told = [
            surely(looked(hourly, rows, reference, profile, NOW + (look + 1) * HOUR))
            for look in range(looks)
        ]
        means.append(np.mean(told))
        deviations.append(np.std(told))
    assert max(means) < 3.0 / np.sqrt(24)
    assert np.mean(deviations) < 1.1


def test_classes_are_foretold_too(churn: Family) -> None:
    """Of a binary model by its answer: what it is less sure of is harder."""
    rng = np.random.default_rng(5)
    start = NOW - timedelta(days=28)

    def rows(count: int, start: datetime, end: datetime, sure: float) -> pa.Table:
        seconds = np.sort(rng.uniform(start.timestamp(), end.timestamp(), count))
        at = pa.array((seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC"))
        chance = rng.beta(1.0 - sure, 1.0 - sure, count)
        columns = {name: rng.gamma(2.0, 20.0, count) for name in churn.numbers}
        columns |= {name: rng.choice(["a", "b"], count) for name in churn.categorical}
        label = (rng.uniform(size=count) < chance).astype(np.float64)
        told = {"event_time": at, "arrived_at": at, "prediction": chance, "label": label}
        return pa.table(told | columns)

    training = rows(6000, start, NOW - timedelta(days=7), 0.7)
    held = rows(2500, NOW - timedelta(days=7), NOW, 0.7)
    names = [*churn.numbers, *churn.categorical]
    features = pa.StructArray.from_arrays([held[name].combine_chunks() for name in names], names)
    held = held.select(["event_time", "label"]).append_column("candidate", held["prediction"])
    reference = prepared(churn, training)
    profile = learnt(churn, reference, training, held.append_column("features", features))
    fresh = [rows(600, NOW, NOW + HOUR, sure) for sure in (0.7, 0.2)]
    usual, unsure = (looked(churn, each, reference, profile, NOW + HOUR) for each in fresh)
    assert surely(usual) < 2.5
    assert surely(unsure) > 3.0


def test_what_cannot_be_foretold_says_why(hourly: Family) -> None:
    """A column that losses are told by and that is text now."""
    reference, profile = champion(hourly, 1)
    rows = made(60, NOW, NOW + HOUR, np.random.default_rng(2))
    text = rows.set_column(rows.column_names.index("load"), "load", pa.array(["a"] * 60))
    reading = looked(hourly, text, reference, profile, NOW + HOUR)
    assert reading is not None
    assert reading.value is None
    assert "load" in (reading.problem or "")


def test_an_outlook_comes_back_from_its_file(hourly: Family, tmp_path: Path) -> None:
    """To the last bit; and a profile without one has none."""
    _, profile = champion(hourly, 1)
    write_profile(profile, tmp_path / "profile.parquet")
    again = read_profile(tmp_path / "profile.parquet")
    assert again is not None
    assert again.outlook is not None
    assert profile.outlook is not None
    assert again.outlook.names == profile.outlook.names
    for name in ("effects", "unsure", "usual"):
        assert np.array_equal(getattr(again.outlook, name), getattr(profile.outlook, name))


def test_what_rows_add_up_to_is_what_their_columns_do(hourly: Family) -> None:
    """Values that are missing, beyond all knots or of no known level included."""
    reference, profile = champion(hourly, 1)
    model = profile.outlook
    assert model is not None
    rows = made(50, NOW, NOW + HOUR, np.random.default_rng(2))
    load = [None, 9.0, -9.0, *rows["load"].to_pylist()[3:]]
    kinds = ["tram", None, *rows["vehicle"].to_pylist()[2:]]
    rows = rows.set_column(rows.column_names.index("load"), "load", pa.array(load))
    rows = rows.set_column(rows.column_names.index("vehicle"), "vehicle", pa.array(kinds))
    answer = np.array([np.nan, *rows["prediction"].to_numpy()[1:]])
    found = losses_ahead(hourly, reference, rows, answer, model)
    design = seen(hourly, reference, rows, answer, model.names)
    assert set(model.names) == {"distance", "load", "vehicle"}
    assert found == pytest.approx(design @ model.effects, nan_ok=True)
    assert np.isnan(found).tolist() == [True, *[False] * 49]


def test_too_few_held_out_rows_tell_nothing(hourly: Family) -> None:
    """Then nothing is expected, and all else is followed."""
    rng = np.random.default_rng(1)
    training = made(2000, NOW - timedelta(days=35), NOW - timedelta(days=7), rng)
    held = gated(made(100, NOW - timedelta(days=7), NOW, rng))
    profile = learnt(hourly, prepared(hourly, training), training, held)
    assert profile.outlook is None
    assert {each.metric for each in profile.series} >= {"shift", "loss"}
