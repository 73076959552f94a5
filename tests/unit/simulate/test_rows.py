"""What is simulated is made by seed, model and day alone, and each fault does what it says."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from driftloop.records import Head, ModelId, Task
from driftloop.simulate import Plan, Shape, batches, parse_fault, rows

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
AT = START + 2 * DAY
PLAN = Plan(
    start=START,
    end=START + 4 * DAY,
    models=3,
    shape=Shape(numeric=4, categorical=2, levels=5, nulls=0.05),
    rows=1000,
    history=4 * DAY,
    label_delay=timedelta(hours=30),
    unlabelled=0.1,
)
FIRST, SECOND = PLAN.ids[:2]
MADE = [task for task in Task if task is not Task.SCORE]
"""Scores are not simulated."""


def told(plan: Plan, model: ModelId = FIRST) -> pa.Table:
    """Return a model's rows of the plan's time with their labels, features as columns."""
    predictions, labels = rows(plan, model, plan.start, plan.end + plan.label_delay)
    features = predictions["features"].combine_chunks()
    flat = predictions.drop_columns(["features", "model"])
    for name in plan.shape.columns:
        flat = flat.append_column(name, features.field(name))
    return flat.join(labels.select(["id", "value", "observed_at"]), "id").sort_by("event_time")


def during(table: pa.Table, start: datetime, end: datetime | None = None) -> pa.Table:
    at = table["event_time"]
    inside = pc.greater_equal(at, pa.scalar(start))
    if end is not None:
        inside = pc.and_(inside, pc.less(at, pa.scalar(end)))
    return table.filter(inside)


def error(table: pa.Table) -> float:
    return float(pc.mean(pc.abs(pc.subtract(table["prediction"], table["value"]))).as_py())


def test_day_by_day_the_rows_are_those_of_the_whole_time() -> None:
    """However time is cut, at midnight or not, history included."""
    whole = rows(PLAN, FIRST, PLAN.began, PLAN.end)
    for step in (DAY, timedelta(hours=7, minutes=13)):
        cuts = [PLAN.began]
        while cuts[-1] < PLAN.end:
            cuts.append(min(cuts[-1] + step, PLAN.end))
        parts = [rows(PLAN, FIRST, a, b) for a, b in pairwise(cuts)]
        assert pa.concat_tables([p for p, _ in parts]).combine_chunks() == whole[0].combine_chunks()
        assert pa.concat_tables([k for _, k in parts]).combine_chunks() == whole[1].combine_chunks()


def test_what_is_elsewhere_changes_no_row() -> None:
    """More models, a fault of another model, a longer plan, a later fault: the same rows."""
    mine = rows(PLAN, FIRST, PLAN.began, AT)
    others = (
        replace(PLAN, models=30),
        replace(PLAN, end=PLAN.end + DAY),
        replace(PLAN, faults=(parse_fault("mean-shift:x00:2@2026-03-02/m001"),)),
        replace(PLAN, faults=(parse_fault("concept-flip:1@2026-03-03"),)),
    )
    for plan in others:
        assert rows(plan, FIRST, PLAN.began, AT) == mine
    assert rows(replace(PLAN, seed=2), FIRST, PLAN.began, AT) != mine
    assert rows(PLAN, SECOND, PLAN.began, AT)[1]["value"] != mine[1]["value"]


def test_ids_are_each_one_row_and_every_label_is_of_one() -> None:
    """Over the fleet and its history; labels come after their delay, but for a share never."""
    predictions, labels = (
        pa.concat_tables(each)
        for each in zip(*batches(PLAN, PLAN.began, PLAN.end + 2 * DAY, {}), strict=True)
    )
    assert predictions.num_rows == 3 * 8 * 1000
    assert pc.count_distinct(predictions["id"]).as_py() == predictions.num_rows
    both = predictions.select(["id", "event_time"]).join(labels, "id", join_type="inner")
    assert both.num_rows == labels.num_rows
    late = pc.subtract(both["observed_at"], both["event_time"])
    assert pc.unique(late).to_pylist() == [PLAN.label_delay]
    assert labels.num_rows / predictions.num_rows == pytest.approx(0.9, abs=0.01)


def test_a_label_is_not_known_before_its_time() -> None:
    """What is asked for up to an hour has the labels of that hour, and later ones later."""
    _, early = rows(PLAN, FIRST, PLAN.start, PLAN.start + timedelta(hours=29))
    _, known = rows(PLAN, FIRST, PLAN.start, PLAN.end)
    assert pc.max(early["observed_at"]).as_py() < PLAN.start + timedelta(hours=29)
    assert pc.max(known["observed_at"]).as_py() < PLAN.end
    # Those of the end of the history become known in the plan's time.
    assert pc.min(known["observed_at"]).as_py() < PLAN.start + timedelta(minutes=10)


def test_history_was_predicted_by_nobody() -> None:
    """Version and epoch 0 and no prediction before the start; the champion's after it."""
    head = Head(model=FIRST, epoch=5, version=4, digest="0", artifact="model.onnx")
    predictions = pa.concat_tables(
        [p for p, _ in batches(PLAN, PLAN.began, PLAN.end, {FIRST: head})]
    )
    before = pc.less(predictions["event_time"], pa.scalar(PLAN.start))
    history, after = predictions.filter(before), predictions.filter(pc.invert(before))
    assert history["prediction"].null_count == history.num_rows == 3 * 4 * 1000
    assert set(history["version"].to_pylist()) == set(history["epoch"].to_pylist()) == {0}
    assert after["prediction"].null_count == 0
    mine = pc.equal(after["model"], FIRST)
    assert pc.unique(after.filter(mine)["version"]).to_pylist() == [4]
    assert pc.unique(after.filter(mine)["epoch"]).to_pylist() == [5]
    assert pc.unique(after.filter(pc.invert(mine))["version"]).to_pylist() == [1]


@pytest.mark.parametrize("task", MADE)
@pytest.mark.parametrize(("numeric", "categorical"), [(5, 0), (0, 5), (20, 5), (480, 20)])
def test_models_of_any_shape_are_good(task: Task, numeric: int, categorical: int) -> None:
    """From 5 to 500 features: the prediction explains most of the outcome."""
    shape = Shape(task=task, numeric=numeric, categorical=categorical, nulls=0.0)
    plan = replace(PLAN, shape=shape, end=PLAN.start + DAY, unlabelled=0.0)
    table = told(plan)
    features = rows(plan, FIRST, plan.start, plan.end)[0]["features"].type
    assert [field.name for field in features] == list(shape.columns)
    assert [str(field.type) for field in features] == ["double"] * numeric + [
        "string"
    ] * categorical
    prediction, value = (table[name].to_numpy() for name in ("prediction", "value"))
    if task is Task.REGRESSION:
        assert np.mean((prediction - value) ** 2) < 0.15 * np.var(value)
    elif task is Task.MULTICLASS:
        assert set(value) == set(prediction) == {0.0, 1.0, 2.0}
        assert np.mean(prediction == value) > 0.75
    else:
        assert set(value) == {0.0, 1.0}
        assert prediction.min() >= 0.0
        assert prediction.max() <= 1.0
        assert np.mean((prediction > 0.5) == value) > 0.75
        assert np.mean(prediction) == pytest.approx(np.mean(value), abs=0.03)


def test_nulls_are_as_many_as_the_shape_says() -> None:
    """In each column, of either kind."""
    table = told(PLAN)
    for name in PLAN.shape.columns:
        assert table[name].null_count / table.num_rows == pytest.approx(0.05, abs=0.015)


def mean(table: pa.Table, column: str) -> float:
    return float(pc.mean(table[column]).as_py())


def spread(table: pa.Table, column: str) -> float:
    return float(pc.stddev(table[column]).as_py())


def share(table: pa.Table, column: str, value: object) -> float:
    known = table[column].drop_null()
    return float(pc.mean(pc.equal(known, value).cast(pa.int8())).as_py())


def null_share(table: pa.Table, column: str) -> float:
    return float(table[column].null_count / table.num_rows)


@pytest.mark.parametrize(
    ("text", "column", "measured", "before", "after"),
    [
        ("mean-shift:x01:2.0", "x01", mean, 0.0, 2.0),
        ("mean-shift:x01:-0.5", "x01", mean, 0.0, -0.5),
        ("scale:x02:3", "x02", spread, 1.0, 3.0),
        ("category-mix:c01:1", "c01", lambda t, c: share(t, c, "level-0"), 0.438, 0.088),
        ("category-mix:c01:1", "c01", lambda t, c: share(t, c, "level-4"), 0.088, 0.438),
        ("category-mix:c00:0.5", "c00", lambda t, c: share(t, c, "level-4"), 0.088, 0.263),
        ("null-burst:x03:0.4", "x03", null_share, 0.05, 0.43),
        ("null-burst:c00:1", "c00", null_share, 0.05, 1.0),
        ("broken-feature:x00:1", "x00", lambda t, c: share(t, c, -999.0), 0.0, 1.0),
        ("broken-feature:c01:0.25", "c01", lambda t, c: share(t, c, "broken"), 0.0, 0.25),
    ],
)
def test_a_fault_of_a_column(
    text: str,
    column: str,
    measured: Callable[[pa.Table, str], float],
    before: float,
    after: float,
) -> None:
    """It does its work between its times, in its model and its column, and nothing elsewhere."""
    plan = replace(PLAN, faults=(parse_fault(f"{text}@2026-03-02T06:00..2026-03-03T18:00/m000"),))
    since, until = START + 1.25 * DAY, START + 2.75 * DAY
    sound, struck = told(PLAN), told(plan)
    assert told(plan, SECOND) == told(PLAN, SECOND)
    assert during(struck, START, since) == during(sound, START, since)
    assert during(struck, until) == during(sound, until)
    inside, was = during(struck, since, until), during(sound, since, until)
    assert measured(was, column) == pytest.approx(before, abs=0.08)
    assert measured(inside, column) == pytest.approx(after, abs=0.12)
    untouched = ["id", "event_time", *(c for c in PLAN.shape.columns if c != column)]
    assert inside.select(untouched) == was.select(untouched)


@pytest.mark.parametrize(
    ("text", "worse"),
    [
        ("concept-flip:1", 6.0),
        ("mean-shift:x00:3", 2.0),
        ("broken-feature:x00:1", 3.0),
        ("null-burst:x00:1", 1.5),
    ],
)
def test_faults_show_as_decay(text: str, worse: float) -> None:
    """The model goes on as it was fitted, so its error grows by as many times."""
    struck = told(replace(PLAN, faults=(parse_fault(f"{text}@2026-03-03"),)))
    assert error(during(struck, AT)) > worse * error(during(struck, START, AT))


def test_a_fault_of_the_data_leaves_the_outcomes_alone() -> None:
    """What is null or broken on the way to the model is as it was in the world."""
    for text in ("null-burst:x00:1", "broken-feature:x00:1"):
        struck = told(replace(PLAN, faults=(parse_fault(f"{text}@2026-03-03"),)))
        assert struck["value"] == told(PLAN)["value"]
        assert struck["prediction"] != told(PLAN)["prediction"]


def test_a_concept_flip_leaves_features_and_predictions_alone() -> None:
    """Only what they mean for the outcome is another."""
    struck, sound = (
        told(replace(PLAN, faults=(parse_fault("concept-flip:1@2026-03-03"),))),
        told(PLAN),
    )
    assert struck.drop_columns(["value"]) == sound.drop_columns(["value"])
    now = during(struck, AT).drop_null()
    assert np.corrcoef(now["prediction"].to_numpy(), now["value"].to_numpy())[0, 1] < -0.9


def test_a_volume_drop_leaves_a_share_of_the_same_rows() -> None:
    """Those that are left are as they were, labels too."""
    struck = told(replace(PLAN, faults=(parse_fault("volume-drop:0.7@2026-03-03"),)))
    sound = told(PLAN)
    assert during(struck, START, AT) == during(sound, START, AT)
    left = during(struck, AT)
    assert left.num_rows / 2000 == pytest.approx(0.3, abs=0.03)
    assert left == during(sound, AT).filter(
        pc.is_in(during(sound, AT)["id"], value_set=left["id"].combine_chunks())
    )


def test_one_fault_may_strike_many_models() -> None:
    """Without markets it strikes them all."""
    fault = parse_fault("broken-feature:x00:1@2026-03-03")
    some = parse_fault("broken-feature:x00:1@2026-03-03/m000,m002")
    for plan, struck in ((replace(PLAN, faults=(fault,)), 3), (replace(PLAN, faults=(some,)), 2)):
        broken = [share(during(told(plan, model), AT), "x00", -999.0) for model in plan.ids]
        assert sorted(broken) == [0.0] * (3 - struck) + [1.0] * struck


def test_batches_are_no_larger_than_a_segment() -> None:
    """Wide rows come in smaller tables, and none is lost."""
    wide = replace(PLAN, shape=Shape(numeric=400), models=12)
    sizes = [p.num_rows for p, _ in batches(wide, wide.start, wide.end, {})]
    assert len(sizes) > 1
    assert max(sizes) <= 4_000_000 / 401 + wide.rows
    assert sum(sizes) == 12 * 4 * 1000


def test_outside_the_plans_time_there_is_nothing() -> None:
    """Tables without rows have the columns of those with some."""
    full = rows(PLAN, FIRST, PLAN.start, PLAN.end)
    for start in (PLAN.began - 9 * DAY, PLAN.end + 9 * DAY):
        empty = rows(PLAN, FIRST, start, start + DAY)
        assert [table.num_rows for table in empty] == [0, 0]
        assert [table.schema for table in empty] == [table.schema for table in full]


def test_classes_are_as_frequent_as_one_another_and_foreseen() -> None:
    """Places in the family's list; what is flipped is foreseen no more."""
    shape = replace(PLAN.shape, task=Task.MULTICLASS, classes=4, nulls=0.0)
    plan = replace(
        PLAN, shape=shape, unlabelled=0.0, faults=(parse_fault("concept-flip:1@2026-03-03"),)
    )
    table = told(plan)
    assert set(table["value"].to_pylist()) == set(table["prediction"].to_pylist()) == {0, 1, 2, 3}
    shares = np.bincount(table["value"].to_numpy().astype(int)) / table.num_rows
    assert shares.min() > 0.15
    right = [
        float(pc.mean(pc.equal(part["prediction"], part["value"])).as_py())
        for part in (during(table, START, AT), during(table, AT))
    ]
    assert right[0] > 0.75
    assert right[1] < 0.25
