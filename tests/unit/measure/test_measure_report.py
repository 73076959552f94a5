import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from driftloop.errors import MeasureError
from driftloop.measure import EvidentlyMeasure, report
from driftloop.spec import Family

Make = Callable[..., Any]
LOADS = re.compile(r"""(?:src|<link[^>]{0,200}href)\s*=\s*["']?https?:|url\(\s*["']?https?:""")


@pytest.fixture
def write(tmp_path: Path) -> Make:
    """Writes a report and gives its HTML."""

    def written(
        family: Family,
        current: pa.Table,
        reference: pa.Table,
        title: str = "eta-de: drift",
        of: int | None = None,
    ) -> str:
        file = tmp_path / "deep" / "er" / "report.html"
        EvidentlyMeasure().report(
            family=family, title=title, current=current, reference=reference, file=file, of=of
        )
        assert [path.name for path in file.parent.iterdir()] == ["report.html"]
        return file.read_text(encoding="utf-8")

    return written


def test_the_regression_report_shows_drift_and_performance(
    eta: Family, regression: Make, write: Make, put: Make
) -> None:
    """One page, parents made, every column in it, nothing to be fetched from a network.

    A column that would have made Evidently raise is left out and named.
    """
    current = regression(200, seed=1)
    current = put(current, "load", pa.nulls(200, pa.float64()))
    current = put(current, "label", [None, *current["label"].to_pylist()[1:]])
    html = write(eta, current, regression(400, seed=2))
    for expected in (
        "eta-de: drift",
        "Wasserstein",
        "distance",
        "vehicle",
        "Regression Model Performance",
    ):
        assert expected in html
    assert "Drift is called detected above 0.25" in html
    assert "Left out: load has 0 usable values in the window" in html
    assert LOADS.search(html) is None


def test_a_report_of_a_sample_says_so(eta: Family, regression: Make, write: Make) -> None:
    """In its first line, with the number of rows that there are; all of them are no sample."""
    current, reference = regression(50, seed=1), regression(60, seed=2)
    said = "50 rows of the window (a sample by the hash of their ids, of 7000 in all) against 60"
    assert said in write(eta, current, reference, of=7000)
    assert "50 rows of the window against 60" in write(eta, current, reference, of=50)


def test_the_binary_report_survives_late_labels_and_hostile_text(
    churn: Family, binary: Make, write: Make, put: Make
) -> None:
    """Null labels are left out, infinities too, and a category cannot end the page's script."""
    current = binary(200, seed=1)
    current = put(current, "label", [None] * 50 + current["label"].to_pylist()[50:])
    current = put(current, "spend", [float("inf"), *current["spend"].to_pylist()[1:]])
    current = put(current, "plan", ["</script><script>bad()", *current["plan"].to_pylist()[1:]])
    html = write(churn, current, binary(400, seed=2), title="<b>churn</b>")
    assert "Jensen-Shannon" in html
    assert "ROC" in html
    assert "Left out" not in html
    assert "<script>bad()" not in html
    assert "<b>churn" not in html


def test_a_column_that_breaks_evidently_is_found_and_left_out(
    eta: Family, regression: Make, write: Make, put: Make
) -> None:
    """Values that no histogram can hold cost their own column, and the report says so."""
    current = put(regression(200, seed=1), "distance", [1e308, -1e308] * 100)
    html = write(eta, current, regression(400, seed=2))
    assert "Left out: distance, because Evidently cannot draw it (ValueError" in html
    assert "Left out: load" not in html
    assert "Regression Model Performance" in html


def test_a_drawing_warns_of_nothing(churn: Family, binary: Make, write: Make, put: Make) -> None:
    """A class that is never predicted is no news for a terminal."""
    never = put(binary(200, seed=1), "prediction", [0.1] * 200)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        html = write(churn, never, never)
    assert "Classification Model Performance" in html
    assert [str(one.message) for one in leaked] == []


def test_without_labels_only_drift_is_drawn(eta: Family, regression: Make, write: Make) -> None:
    """The report says that performance is left out, and why."""
    current = regression(200, seed=1).drop_columns("label")
    html = write(eta, current, regression(400, seed=2))
    assert "Left out: performance, because label is missing in the window" in html
    assert "Regression Model Performance" not in html


@pytest.mark.parametrize(("rows", "kept"), [((0, 40), "the window"), ((40, 0), "the reference")])
def test_nothing_to_draw_is_an_error(
    eta: Family, regression: Make, tmp_path: Path, rows: tuple[int, int], kept: str
) -> None:
    """An empty side is told in words, and no file appears."""
    current, reference = (regression(n, seed=n) for n in rows)
    file = tmp_path / "new" / "report.html"
    with pytest.raises(MeasureError, match=f"eta-de: {kept} has no rows"):
        EvidentlyMeasure().report(
            family=eta, title="eta-de", current=current, reference=reference, file=file
        )
    assert not file.parent.exists()


def test_an_older_report_outlives_a_failure(
    eta: Family, regression: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all: what stood there before is untouched, and no part is left."""
    file = tmp_path / "report.html"
    file.write_text("older", encoding="utf-8")

    def broken(**_: Any) -> None:
        raise ZeroDivisionError("inside Evidently")

    monkeypatch.setattr(report, "page", broken)
    with pytest.raises(MeasureError, match=r"Evidently could not draw .* ZeroDivisionError"):
        EvidentlyMeasure().report(
            family=eta,
            title="eta-de",
            current=regression(40, seed=1),
            reference=regression(40, seed=2),
            file=file,
        )
    assert file.read_text(encoding="utf-8") == "older"
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_cannot_be_written_is_named(
    eta: Family, regression: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses is our error with the file's name; no part is left."""
    monkeypatch.setattr(report, "page", lambda **_: "<html>")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MeasureError, match=r"report\.html: it cannot be written"):
        EvidentlyMeasure().report(
            family=eta,
            title="eta-de",
            current=regression(4, seed=1),
            reference=regression(4, seed=2),
            file=tmp_path / "file" / "report.html",
        )
