"""Texts, and categories with more levels than can be told apart."""

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.judge import judged
from driftloop.measure import EvidentlyMeasure
from driftloop.measure.columns import Unmeasurable, numbers, texts
from driftloop.measure.drift import drift_readings
from driftloop.measure.reference import APART, KEPT, References, leveled
from driftloop.records import Kind, Level, LogSummary, Reading
from driftloop.spec import TOLD, Family, Feature

Make = Callable[..., Any]

SAID = ["late again", "it was fine, thank you very much", "no", "ok", "never came", ""]


@pytest.fixture
def telling(eta: Family) -> Family:
    """The regression family with a text."""
    features = {**eta.features, "comment": Feature(kind="text")}
    return eta.model_copy(update={"features": features})


@pytest.fixture
def told(regression: Make) -> Make:
    """Makes rows of it; each comment is one of `said`."""

    def table(n: int, *, seed: int, said: list[str] = SAID) -> pa.Table:
        drawn = np.random.default_rng(seed).choice(said, n)
        return regression(n, seed=seed).append_column("comment", pa.array(drawn, pa.string()))

    return table


def test_what_is_told_of_a_text() -> None:
    """Characters, not bytes; words between white space; the share that is not ASCII."""
    table = pa.table({"t": ["ab cd", "", None, "größe", " 北京\n", "\t"]})
    assert {said: numbers(table, f"t.{said}", of="x").tolist() for said in TOLD} == {
        "length": pytest.approx([5, 0, float("nan"), 5, 4, 1], nan_ok=True),
        "words": pytest.approx([2, 0, float("nan"), 1, 1, 0], nan_ok=True),
        "non_ascii": pytest.approx([0, 0, float("nan"), 0.4, 0.5, 0], nan_ok=True),
    }
    with pytest.raises(Unmeasurable, match="t is missing in the window"):
        numbers(pa.table({"a": [1]}), "t.length", of="the window")
    with pytest.raises(Unmeasurable, match="t is list<item: int64> in the window, not text"):
        numbers(pa.table({"t": [[1]]}), "t.length", of="the window")


def test_a_text_drifts_by_what_is_told_of_it(
    telling: Family, told: Make, measured: Make, pick: Make
) -> None:
    """Longer texts move length and words, in units of their own deviations; nulls are counted."""
    reference = told(900, seed=1)
    still = measured(telling, told(400, seed=2), reference)
    moved = measured(telling, told(400, seed=3, said=[each * 3 + " x" for each in SAID]), reference)
    for said in ("length", "words"):
        before, after = (pick(got, "wasserstein", f"comment.{said}") for got in (still, moved))
        assert (before.value < 0.2, after.value > 1.0) == (True, True)
        assert after.p_value < 1e-5 < before.p_value
    assert pick(still, "null_share", "comment").value == 0.0


def test_mended_encodings_are_seen(telling: Family, told: Make, measured: Make, pick: Make) -> None:
    """Where the reference has none but ASCII, how many texts have another character is told."""
    got = measured(telling, told(400, seed=2, said=["café", "no"]), told(900, seed=1))
    found = pick(got, "wasserstein", "comment.non_ascii")
    assert found.value is None
    assert "constant in the reference (0)" in found.problem
    assert " of 400 values differ" in found.problem


def test_empty_texts_are_a_fault_when_they_are_more_than_usual(
    telling: Family, told: Make, measured: Make, pick: Make
) -> None:
    """A sixth is empty in the reference: that many are no alarm, and half of them is one."""
    reference = told(900, seed=1)
    levels = {}
    for name, said in (("usual", SAID), ("half", ["", "", "no", "never came"])):
        reading = pick(
            measured(telling, told(400, seed=2, said=said), reference), "empty_share", "comment"
        )
        assert reading.baseline == pytest.approx(1 / 6, abs=0.05)
        (verdict,) = judged([reading], telling)
        levels[name] = verdict.level
    assert levels == {"usual": Level.OK, "half": Level.ALARM}


def test_a_text_survives_its_prepared_file_and_the_second_measurement(
    telling: Family, told: Make, measured: Make, tmp_path: Path
) -> None:
    """What is kept of a reference has its numbers, and Evidently agrees with each of ours."""
    file = tmp_path / "model" / "first" / "reference.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(told(900, seed=1), file)
    current = told(400, seed=2, said=[*SAID, "ça va"])
    direct = measured(telling, current, pq.read_table(file)).measured
    kept = References().of(telling, file)
    assert tuple(drift_readings(telling, current, kept)) == tuple(
        r for r in direct if r.kind is Kind.DRIFT
    )
    drift = [r for r in direct if r.kind is Kind.DRIFT and r.value is not None]
    assert {"comment.length", "comment.words"} <= {r.column for r in drift}
    again = EvidentlyMeasure()
    assert (
        again.disputed(family=telling, readings=drift, current=current, own=current, reference=file)
        == ()
    )
    assert References().of(telling, file).empty_share("comment") == pytest.approx(1 / 6, abs=0.05)


def test_evidentlys_report_draws_a_text(telling: Family, told: Make, tmp_path: Path) -> None:
    """By its numbers, under their names."""
    file = tmp_path / "report.html"
    EvidentlyMeasure().report(
        family=telling,
        title="eta-de",
        current=told(200, seed=2),
        reference=told(300, seed=1),
        file=file,
    )
    assert "comment.length" in file.read_text(encoding="utf-8")


def plan_of(family: Family, current: pa.Table, file: Path) -> dict[str, Reading]:
    """The readings of churn's category against a file."""
    summary = LogSummary(rows=current.num_rows, duplicates=0, labels=0, newest_event=None)
    found = EvidentlyMeasure().measure(
        family=family,
        current=current,
        own=current,
        reference=file,
        summary=summary,
        baselines={},
        now=datetime(2026, 3, 1, tzinfo=UTC),
    )
    return {r.metric: r for r in found.readings if r.column == "plan"}


# -- many levels ------------------------------------------------------------------------------


def plan(
    family: Family, measured: Make, binary: Make, put: Make, window: list[str], before: list[str]
) -> dict[str, Reading]:
    """The readings of churn's category."""
    current = put(binary(len(window), seed=1), "plan", pa.array(window, pa.string()))
    reference = put(binary(len(before), seed=2), "plan", pa.array(before, pa.string()))
    return {
        r.metric: r for r in measured(family, current, reference).readings if r.column == "plan"
    }


def drawn(n: int, levels: int, *, seed: int, power: float = 1.0) -> list[str]:
    share = np.arange(1.0, levels + 1.0) ** -power
    codes = np.random.default_rng(seed).choice(levels, n, p=share / share.sum())
    return [f"c{code}" for code in codes]


def test_up_to_a_hundred_levels_are_all_told_apart() -> None:
    """Then every level has its count, in order of appearance, the window's new ones last."""
    before = pa.table({"c": [f"c{n}" for n in range(APART)] * 2})
    levels = leveled(*texts(before, "c", of="x"))
    found = texts(pa.table({"c": ["c3", "new", "c3", "c99", "newer", "new"]}), "c", of="x")
    ref, cur = levels.beside(*found)
    assert ref.tolist() == [2] * APART + [0, 0]
    assert (cur[3], cur[99], cur[100:].tolist(), cur.sum()) == (2, 1, [2, 1], 6)


def test_beyond_a_hundred_the_rare_ones_are_one() -> None:
    """The last count is that of all others, and of what the reference never had; none is lost."""
    before = [f"c{n}" for n in range(150) for _ in range(300 - n)]
    levels = leveled(*texts(pa.table({"c": before}), "c", of="x"))
    found = texts(pa.table({"c": ["c0", "c99", "c100", "c149", "new"]}), "c", of="x")
    ref, cur = levels.beside(*found)
    assert len(ref) == len(cur) == APART + 1
    assert ref.sum() == len(before)
    assert ref[:3].tolist() == [300, 299, 298]
    assert (cur[0], cur[99], cur[100]) == (1, 1, 3)


def test_many_levels_alarm_when_their_shares_move_and_only_then(
    churn: Family, measured: Make, binary: Make, put: Make
) -> None:
    """2,000 levels, 5,000 rows of reference, 1,000 of a window."""
    before = drawn(5000, 2000, seed=1)
    levels = {}
    for name, window in {
        "still": drawn(1000, 2000, seed=2),
        "moved": drawn(1000, 2000, seed=2, power=0.3),
    }.items():
        (verdict,) = judged(
            [plan(churn, measured, binary, put, window, before)["jensenshannon"]], churn
        )
        levels[name] = verdict.level
    assert levels == {"still": Level.OK, "moved": Level.ALARM}


def test_ids_are_no_data_fault(churn: Family, measured: Make, binary: Make, put: Make) -> None:
    """Where every value is new each time, new ones are usual; where few were, they are a fault."""
    ids = [f"i{n}" for n in range(4000)]
    got = plan(churn, measured, binary, put, ids[3000:], ids[:3000])["unseen"]
    assert (got.value, got.baseline) == (1.0, 1.0)
    (verdict,) = judged([got], churn)
    assert verdict.level is Level.OK
    got = plan(churn, measured, binary, put, ["new"] * 300 + ["a"] * 700, ["a", "b"] * 1000)[
        "unseen"
    ]
    assert (got.value, got.baseline) == (0.3, 0.0)
    (verdict,) = judged([got], churn)
    assert verdict.level is Level.ALARM


def test_the_usual_share_of_unseen_levels_is_what_comes(
    churn: Family, measured: Make, binary: Make, put: Make
) -> None:
    """Good's estimate: within two hundredths of what a window really has."""
    got = plan(churn, measured, binary, put, drawn(5000, 3000, seed=3), drawn(3000, 3000, seed=4))[
        "unseen"
    ]
    assert got.baseline == pytest.approx(got.value, abs=0.02)
    assert got.value > 0.1


def test_a_million_ids_stay_small(churn: Family, binary: Make, put: Make, tmp_path: Path) -> None:
    """What is kept of them is bounded, on disk and in memory; an unseen one cannot be told."""
    file = tmp_path / "model" / "first" / "reference.parquet"
    file.parent.mkdir(parents=True)
    ids = pa.array(np.char.add("user-", np.arange(1_000_000).astype(str)))
    size = binary(1000, seed=1)
    rest = {
        name: pa.array(np.resize(size[name].to_numpy(), len(ids)))
        for name in ("prediction", "label")
    }
    pq.write_table(pa.table({"plan": ids, **rest}), file)
    References().of(churn, file)
    (kept,) = (path for path in file.parent.iterdir() if path != file)
    assert kept.stat().st_size < 1_000_000 * 8 + 1_000_000
    tracemalloc.start()
    levels = References().of(churn, file).levels("plan")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(levels.names), levels.distinct, levels.once) == (KEPT, 10**6, 10**6)
    assert held < 2_000_000
    got = plan_of(churn, put(binary(300, seed=2), "plan", ids.slice(0, 300)), file)
    assert got["unseen"].problem == (
        "plan has 1000000 levels in the reference, too many to keep them all"
    )
    assert got["jensenshannon"].n == 300


def test_evidentlys_report_pools_rare_levels(
    churn: Family, binary: Make, put: Make, tmp_path: Path
) -> None:
    """A chart of thousands of levels would tell nothing: the rare ones are drawn as one."""
    file = tmp_path / "report.html"
    tables = [put(binary(n, seed=n), "plan", drawn(n, 900, seed=n)) for n in (800, 2000)]
    EvidentlyMeasure().report(
        family=churn, title="churn-uk", current=tables[0], reference=tables[1], file=file
    )
    text = file.read_text(encoding="utf-8")
    assert "(other)" in text
    assert '"c899"' not in text
