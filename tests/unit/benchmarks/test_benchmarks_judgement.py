"""What the scoreboard makes of stored lines, and whether others are what they stand for."""

import json
from pathlib import Path

import numpy as np
import pytest

from driftloop.measure.distances import wasserstein
from tests.benchmarks import _whole, judgement
from tests.benchmarks._beside import Part, side_by_side
from tests.benchmarks._detectors import (
    Adwin,
    Cusum,
    Detector,
    Evidently,
    Hddm,
    NannyMl,
    PageHinkley,
)
from tests.benchmarks._fleet import SHIFTS, Fleet, Weather
from tests.benchmarks._ours import Evidence, Readings
from tests.benchmarks._raw import Figure, Line, Plan, Raw
from tests.benchmarks._scoreboard import page

MACHINE = {"what": "machine", "at": "2026-11-26T12:00:00", "system": "Linux", "cores": 2}
ONE = np.array([True])


def clean(weather: str, pages: int) -> Line:
    about = {"weather": weather, "models": 20, "rows": 5000, "weeks": 2.0}
    return {"what": "clean", **about, "pages": pages, "budget": 0.1}


def delay(who: str, fault: str, delays: list[int | None], *, tuned: bool = True) -> Line:
    about = {"weather": "independent", "fault": fault, "who": who, "tuned": tuned}
    return {"what": "delay", **about, "delays": delays}


def figures(*lines: Line) -> dict[str, Figure]:
    return judgement.figures([json.loads(json.dumps(line)) for line in lines])


def test_what_was_not_measured_is_told_as_such() -> None:
    """Every figure that is always told is there without any line of it, and has no value."""
    found = figures(MACHINE)
    assert set(judgement.WANTED) <= set(found)
    assert {found[name].value for name in judgement.WANTED} == {None}


def test_false_pages_are_those_of_200_models_in_the_worst_weather() -> None:
    """Three pages of 20 models in two weeks are 15 a week of 200; the calm weather hides none."""
    found = figures(clean("independent", 0), clean("seasonal", 3))
    assert found["false_pages_per_week"].value == 15.0
    assert found["false_pages_by_weather"].value == {"independent": 0.0, "seasonal": 15.0}


def test_a_miss_is_an_infinite_delay() -> None:
    """A median over as many misses as pages has no value, and the share that is missed counts."""
    half = [delay("ours", "shift 0.5", [1, None, None]), delay("ours", "accuracy -3", [1, 2, 3])]
    found = figures(*half)
    assert found["delay_cycles_median"].value is None
    assert found["missed_share"].value == pytest.approx(1 / 3)
    whole = [delay("ours", "shift 0.5", [1, 1, None]), delay("ours", "accuracy -3", [1, 2, 3])]
    assert figures(*whole)["delay_cycles_median"].value == 2


def test_faults_below_the_floors_are_not_missed() -> None:
    """A shift that the owner said does not matter is not among those that may be missed."""
    silent = delay("ours", "shift 0.05", [None] * 9)
    found = figures(silent, delay("ours", "shift 0.5", [1]))
    assert found["missed_share"].value == 0.0


def test_ours_are_held_to_the_best_of_the_others_that_are_tuned() -> None:
    """Neither an untuned one that pages at once nor a classic one on our readings is the best."""
    found = figures(
        delay("ours", "shift 0.5", [4, 4]),
        delay("slow", "shift 0.5", [8, 8]),
        delay("quick", "shift 0.5", [2, 2]),
        delay("eager", "shift 0.5", [1, 1], tuned=False),
        delay("classic, CUSUM", "shift 0.5", [1, 1]),
    )
    assert found["delay_ratio_to_best_other"].value == 2.0
    assert found["delay_behind_best_other"].value == {"shift 0.5, independent": 2.0}
    assert found["delay_behind_best_classic"].value == {"shift 0.5, independent": 3.0}


def test_where_all_others_miss_none_is_the_best() -> None:
    """Ours is not held to a median that does not exist."""
    found = figures(delay("ours", "shift 0.5", [4]), delay("slow", "shift 0.5", [None]))
    assert found["delay_ratio_to_best_other"].value is None


def test_the_page_tells_by_what_it_was_made() -> None:
    """Command and date stand on it, a miss is "never", and figures without a value are told."""
    lines = [
        MACHINE | {"python": "3.12"},
        clean("independent", 1),
        delay("ours", "shift 0.5", [None]),
    ]
    said = page(lines, judgement.figures(lines), "python -m this")
    assert "python -m this" in said
    assert "2026-11-26" in said
    assert "| ours | 5 | not measured | not measured |" in said
    assert "| never |" in said
    assert "| coverage90 | not measured |" in said


def test_the_page_tells_what_is_missed_and_what_retraining_gains() -> None:
    """Misses of all large faults, ours first; each strategy's error and retrains on each data."""
    about = {"steps": 50, "trees": None}
    lines = [
        MACHINE | {"python": "3.12"},
        delay("eager", "shift 0.5", [1, 1], tuned=False),
        delay("eager", "shift 0.5", [None, 1, 1, 1]),
        delay("eager", "nulls +40%", [1, None, None, None]),
        delay("eager", "shift 0.05", [None]),  # below the floors
        delay("ours", "shift 0.5", [1]),
        *(
            {"what": "real", "data": "bike", "strategy": name, "error": 9.5, "retrains": count}
            | about
            for name, count in (("ours", 12), ("static", 0), ("evidently", 7))
        ),
    ]
    told = {"fresh": 0.9, "days": 0.875}
    found = judgement.figures(lines) | {"coverage90_by_age": Figure(told, "", "")}
    said = page(lines, found, "python -m this")
    missed = said[said.index("## Missed") : said.index("## Performance")]
    assert missed.index("| ours | 0 |") < missed.index("| eager | 0.5 |")
    assert "| eager, default | 0 |" in missed
    assert "shift 0.05" not in missed
    assert "| coverage, clean | 0.9 | not measured | 0.875 | not measured |" in said
    real = said[said.index("## Retraining") :]
    assert real.index("| no retraining | 9.5 (0) |") < real.index("| ours | 9.5 (12) |")
    assert "limits say so | 9.5 (7) |" in real


def test_parts_side_by_side_write_their_lines_in_one_order(tmp_path: Path) -> None:
    """Whoever ends first, lines stand in the order of the parts, and nothing is left beside."""
    raw = Raw(tmp_path / "raw.jsonl")
    plan = Plan(quick=True, seed=1, size=0.01)
    parts = [Part(f"tests.benchmarks.{name}") for name in ("_late_labels", "_river", "_whole")]
    side_by_side(raw, plan, parts, ("_whole",))
    costs = [line["part"] for line in raw.lines() if line["what"] == "part_cost"]
    assert costs == ["_late_labels", "_river", "_whole"]
    assert raw.lines()[0]["what"] == "estimated"
    assert list(tmp_path.iterdir()) == [raw.file]


@pytest.mark.parametrize("detector", [Adwin((1,), 200), PageHinkley((1,)), Hddm((1,))])
def test_a_detector_pages_after_a_change_and_begins_anew(detector: Detector) -> None:
    """Errors of 10 % that become 30 % are paged within a few batches, and then no more."""
    random = np.random.default_rng(3)
    paged = []
    for number in range(60):
        mean = random.binomial(500, 0.1 if number < 40 else 0.3, size=1) / 500
        if detector.update(mean, mean * (1.0 - mean), 500)[0] > detector.limit:
            paged.append(number)
            detector.restart(ONE)
    assert any(40 <= number < 44 for number in paged)
    assert len(paged) <= 4


def test_river_itself_pages_at_the_same_batches() -> None:
    """Row by row ADWIN and HDDM_A page at the batch at which they do as they stand here."""
    drift = pytest.importorskip("river.drift")
    random = np.random.default_rng(1)
    for river, ours in ((drift.ADWIN(), Adwin((1,), 80)), (drift.binary.HDDMA(), Hddm((1,)))):
        theirs, mine = [], []
        for number in range(80):
            wrong = (random.random(500) < (0.1 if number < 40 else 0.2)).astype(float)
            for value in wrong.tolist():
                river.update(value)
                theirs += [number] * river.drift_detected
            held = ours.update(wrong[None].mean(axis=1), wrong[None].var(axis=1), 500)
            mine += [number] * int(held[0] > ours.limit)
            ours.restart(held > ours.limit)
        assert abs(theirs[0] - mine[0]) <= 1


def test_distances_are_those_of_rows() -> None:
    """By the mean of the rows alone the distance is as it is on rows, to a hundredth."""
    random = np.random.default_rng(5)
    reference = np.sort(random.standard_normal(10_000))
    reference = (reference - reference.mean()) / reference.std()
    for shift in (0.0, 0.15, 0.5):
        rows = np.sort(random.standard_normal(5000) + shift)
        told = Evidently(seed=1).update(np.array([rows.mean()]), np.array([1.0]), 5000)[0]
        real = wasserstein(reference, rows, float(reference.std()))[1]
        assert told == pytest.approx(real, abs=0.015)
    told = [NannyMl(seed=1).update(np.array([x]), ONE * 1.0, 5000)[0] for x in (0.0, 0.1, 0.4)]
    assert told[0] < told[1] < 0.1 < told[2]


def test_cusum_adds_up_what_is_beyond_its_slack_both_ways() -> None:
    """Three readings of -2 standard errors are three times 1.5, and one below its slack nothing."""
    cusum = Cusum((2,), slack=0.5)
    for _ in range(3):
        held = cusum.update(np.array([-2.0, 0.4]), np.ones(2), 1)
    assert held.tolist() == [4.5, 0.0]


@pytest.mark.parametrize("weather", Weather)
def test_looks_go_on_as_the_history_was(weather: Weather) -> None:
    """Against what was usual in training, looks without a fault have errors as they are said."""
    fleet = Fleet(weather, models=4, features=3, rows=5000, seed=2)
    readings = Readings.of(fleet.history(28))
    looks = readings.looks(fleet.looks(288), fleet.at)
    z = np.array([fresh.z[:, :4] for _, fresh in looks])
    assert 0.8 < z.std() < 1.2


def test_a_fault_of_the_important_feature_is_paged_and_without_one_nothing_is() -> None:
    """A shift of half a deviation is paged at its first look, by every model."""
    fleet = Fleet(Weather.SEASONAL, models=4, features=3, rows=5000, seed=2)
    readings = Readings.of(fleet.history(28))
    evidence = Evidence(4, features=3, rows=5000, per_week=0.02)
    looks = readings.looks(fleet.looks(100, SHIFTS[3], since=90), fleet.at)
    paged = [int(evidence.look(fresh).sum()) for _, fresh in looks]
    assert sum(paged[:90]) == 0
    assert paged[90] == 4


@pytest.mark.long
def test_slices_tell_what_rows_tell_through_the_whole_loop(tmp_path: Path) -> None:
    """Through spool, lake and measure readings are as sure as of slices, and pages the same."""
    raw = Raw(tmp_path / "raw.jsonl")
    _whole.run(raw, _whole.Size(models=2, rows=600, cycles=12, after=4), seed=7)
    found = _whole.figures(raw.lines())
    assert found["whole_error_ratio"].value == pytest.approx(1.0, abs=0.05)
    assert found["whole_apart"].value == pytest.approx(1.0, abs=0.3)
    assert found["whole_same_pages"].value == 1.0
