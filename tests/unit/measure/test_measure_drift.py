import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from driftloop import judge
from driftloop.errors import MeasureError
from driftloop.measure import drift
from driftloop.measure.apart import gap_and_area
from driftloop.measure.columns import counted, texts
from driftloop.measure.distances import chi_square_p_value
from driftloop.measure.kolmogorov import ks_p_values
from driftloop.measure.snapshot import recorded
from driftloop.records import Kind
from driftloop.spec import Family

Make = Callable[..., Any]


def test_the_room_opens_without_its_heavy_tools() -> None:
    """Importing measure loads neither Evidently nor SciPy nor pandas."""
    code = (
        "import sys, driftloop.measure as m; m.EvidentlyMeasure();"
        "print(sorted({'evidently', 'scipy', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("held", [1, 100, 450])
def test_how_many_columns_are_held_at_once_changes_nothing(
    eta: Family, regression: Make, measured: Make, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """One by one, or as many as fit: the same readings in the same order."""
    tables = regression(200, seed=1, shift=0.3), regression(900, seed=2)
    together = measured(eta, *tables).readings
    monkeypatch.setattr(drift, "HELD", held)
    assert measured(eta, *tables).readings == together


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(
    ("column", "method"),
    [
        ("distance", "wasserstein"),
        ("load", "wasserstein"),
        ("prediction", "wasserstein"),
        ("distance", "psi"),
        ("load", "jensenshannon"),
        ("vehicle", "jensenshannon"),
        ("vehicle", "psi"),
        ("vehicle", "chisquare"),
    ],
)
def test_distances_are_evidentlys_own(
    eta: Family,
    regression: Make,
    measured: Make,
    pick: Make,
    column: str,
    method: str,
    shift: float,
) -> None:
    """Each distance equals ValueDrift(column, method) of stock Evidently, nulls or not."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    current, reference = regression(300, seed=1, shift=shift), regression(1200, seed=2)
    frames = [table.select([column]).to_pandas() for table in (current, reference)]
    definition = DataDefinition(
        numerical_columns=[] if column == "vehicle" else [column],
        categorical_columns=["vehicle"] if column == "vehicle" else [],
        datetime_columns=[],
        text_columns=[],
        unknown_columns=[],
        list_columns=[],
    )
    stock = Report([ValueDrift(column=column, method=method)]).run(
        *(Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    )
    expected = stock.dict()["metrics"][0]["value"]

    got = pick(measured(eta, current, reference), method, column)

    assert (got.kind, got.n, got.baseline) == (Kind.DRIFT, 300, None)
    assert got.value == pytest.approx(expected, rel=1e-12)


def test_nulls_and_infinities_are_left_out_of_the_distance(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """A column with nulls, NaN and infinities has the distance of its finite values."""
    current, reference = regression(300, seed=1), regression(1200, seed=2)
    values = current["distance"].to_pylist()
    clean = current.slice(4)
    dirty = put(current, "distance", [None, float("nan"), float("inf"), -float("inf"), *values[4:]])

    got = pick(measured(eta, dirty, reference), "wasserstein", "distance")
    expected = pick(measured(eta, clean, reference), "wasserstein", "distance")

    assert got == expected
    assert got.n == 296


def test_p_values_are_those_of_scipy(
    eta: Family, regression: Make, measured: Make, pick: Make
) -> None:
    """KS is scipy's asymptotic one; categories have the two-sample chi-square."""
    current, reference = regression(300, seed=1, shift=0.2), regression(1200, seed=2)
    got = measured(eta, current, reference)

    for column in ("distance", "load", "prediction"):
        sides = (current[column].to_numpy(), reference[column].to_numpy())
        expected = ks_2samp(*sides, method="asymp").pvalue
        assert pick(got, "wasserstein", column).p_value == pytest.approx(expected, rel=1e-9)
    counts = pd.crosstab(
        np.repeat([0, 1], [1200, 300]),
        np.concatenate([reference["vehicle"].to_pylist(), current["vehicle"].to_pylist()]),
    )
    expected = chi2_contingency(counts, correction=False).pvalue
    assert pick(got, "jensenshannon", "vehicle").p_value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_ties_do_not_disturb_the_ks_test(seed: int) -> None:
    """On values full of ties our p-value is still scipy's."""
    rng = np.random.default_rng(seed)
    reference = np.sort(rng.integers(0, 6, 200).astype(float))
    current = np.sort(rng.integers(0, 1 + seed % 7, 40).astype(float))
    expected = ks_2samp(reference, current, method="asymp").pvalue
    gap, _ = gap_and_area(reference, current)
    assert ks_p_values([gap], [(200, 40)]) == [pytest.approx(expected, rel=1e-9)]


def test_the_chi_square_test_keeps_its_level() -> None:
    """Fifty levels, most of them rare, no change: about 5 % of p-values are below 0.05.

    Evidently's one-sample chi-square is below it 24 to 100 % of the time.
    """
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.full(50, 0.5))
    pairs = zip(
        rng.multinomial(2000, shares, 1000), rng.multinomial(1500, shares, 1000), strict=True
    )
    below = np.mean([chi_square_p_value(a, b) < 0.05 for a, b in pairs])
    assert 0.03 < below < 0.07


def test_a_wholly_new_set_of_categories_is_certain_drift(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """Jensen-Shannon is at its greatest, sqrt(ln 2), and the p-value as good as zero."""
    current, reference = regression(300, seed=1), regression(1200, seed=2)
    got = measured(eta, put(current, "vehicle", ["ship"] * 300), reference)
    reading = pick(got, "jensenshannon", "vehicle")
    assert reading.value == pytest.approx(np.sqrt(np.log(2)))
    assert reading.p_value < 1e-100


def test_unchanged_categories_have_no_distance(
    eta: Family, regression: Make, measured: Make, pick: Make
) -> None:
    """The same rows on both sides give a distance of 0, not nan, and no evidence."""
    for seed in range(30):
        table = regression(97 + seed, seed=seed)
        reading = pick(measured(eta, table, table), "jensenshannon", "vehicle")
        assert (reading.value, reading.p_value) == (
            pytest.approx(0.0, abs=1e-7),
            pytest.approx(1.0),
        )


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-20, 2.0**20, 2.0**900])
def test_drift_is_seen_in_any_unit(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make, scale: float
) -> None:
    """Tiny values drift as much as large ones; Evidently's own floor would hide them."""
    current, reference = regression(300, seed=1, shift=1.0), regression(1200, seed=2)
    expected = pick(measured(eta, current, reference), "wasserstein", "distance").value
    scaled = [put(t, "distance", t["distance"].to_numpy() * scale) for t in (current, reference)]
    got = pick(measured(eta, *scaled), "wasserstein", "distance")
    assert got.value == pytest.approx(expected, rel=1e-12)


def test_dictionary_and_integer_categories_compare_as_text(
    eta: Family, regression: Make, put: Make
) -> None:
    """A dictionary-encoded column on one side and text on the other are counted alike."""
    current, reference = regression(50, seed=1), regression(80, seed=2)
    encoded = put(current, "vehicle", current["vehicle"].combine_chunks().dictionary_encode())
    _, known = texts(reference, "vehicle", of="the reference")
    got, expected = (
        counted(*texts(table, "vehicle", of="the window"), known) for table in (encoded, current)
    )
    np.testing.assert_array_equal(got, expected)


def test_the_snapshot_is_the_record(eta: Family, regression: Make, measured: Make) -> None:
    """Evidently reads the snapshot back, without widgets, with every value and verdict of ours."""
    from evidently.core.report import Snapshot

    got = measured(eta, regression(300, seed=1, shift=2.0), regression(1200, seed=2))
    verdicts = judge.judged(got.readings, eta)
    text = got.snapshot(verdicts)
    shown = Snapshot.loads(text).dict()

    held = {
        (m["config"]["kind"], m["config"]["metric"], m["config"].get("column")): m["value"]
        for m in shown["metrics"]
    }
    assert held == {(str(r.kind), r.metric, r.column): r.value for r in got.measured}
    status = {"ok": "SUCCESS", "warn": "WARNING", "alarm": "FAIL", "blind": "ERROR"}
    assert sorted((t["description"], t["status"]) for t in shown["tests"]) == sorted(
        (v.reason, status[v.level]) for v in verdicts
    )
    assert {t["status"] for t in shown["tests"]} >= {"SUCCESS", "FAIL"}
    assert json.loads(text)["metadata"] == {"family": "eta", "problems": {}}
    assert all(result["widget"] == [] for result in json.loads(text)["metric_results"].values())


def test_the_snapshot_is_evidentlys_own(eta: Family, regression: Make, measured: Make) -> None:
    """What is filled into its text is what Evidently itself would have written, name by name."""

    def without_ids(text: str) -> Any:
        read = json.loads(text)
        for widget in read["tests_widgets"]:
            del widget["id"]  # random
        return read

    got = measured(eta, regression(300, seed=1, shift=2.0), regression(1200, seed=2))
    verdicts = judge.judged(got.readings, eta)
    for judged in ((), verdicts):
        theirs = recorded(got.measured, judged, family="eta", at=got.at).dumps()
        assert without_ids(got.snapshot(judged)) == without_ids(theirs)


def test_a_snapshot_is_a_file_whole_or_not_at_all(
    eta: Family, regression: Make, measured: Make, tmp_path: Path
) -> None:
    """It goes where it is told to; where that cannot be, the error names the file."""
    from evidently.core.report import Snapshot

    got = measured(eta, regression(300, seed=1), regression(1200, seed=2))
    got.keep(tmp_path / "eta-de" / "1.json", ())
    Snapshot.loads((tmp_path / "eta-de" / "1.json").read_text())
    (tmp_path / "taken").write_text("")
    with pytest.raises(MeasureError, match="taken"):
        got.keep(tmp_path / "taken" / "1.json", ())
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["1.json", "eta-de", "taken"]


def test_a_policy_chooses_what_is_judged(eta: Family, regression: Make, measured: Make) -> None:
    """One distance a column may be judged; the others stand beside it, in the snapshot alone."""
    drift = eta.drift.model_copy(update={"numeric": "psi_quantile", "categorical": "psi"})
    family = eta.model_copy(update={"drift": drift})
    got = measured(family, regression(300, seed=1), regression(1200, seed=2))
    chosen = {r.column: r.metric for r in got.readings if r.kind is Kind.DRIFT}
    assert chosen == {
        "distance": "psi_quantile",
        "load": "psi_quantile",
        "prediction": "psi_quantile",
        "vehicle": "psi",
    }
    assert {r.metric for r in got.measured if r.column == "load" and r.kind is Kind.DRIFT} == {
        "wasserstein",
        "ks",
        "psi",
        "jensenshannon",
        "psi_quantile",
    }


class Listing:
    """A table that counts how often all its names are listed."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.num_rows, self.listed = table, table.num_rows, 0

    @property
    def column_names(self) -> list[str]:
        self.listed += 1
        return self.table.column_names

    def column(self, name: str) -> pa.ChunkedArray:
        return self.table.column(name)


def test_names_are_not_listed_for_each_column(
    eta: Family, regression: Make, measured: Make
) -> None:
    """Of hundreds of columns that took longer than to measure them: it grew with their square."""
    current = Listing(regression(300, seed=1))
    got = measured(eta, current, regression(600, seed=2))
    assert got.readings == measured(eta, current.table, regression(600, seed=2)).readings
    assert current.listed <= 6
