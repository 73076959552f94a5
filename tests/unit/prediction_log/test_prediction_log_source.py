from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.errors import BadRequest
from driftloop.prediction_log import (
    Ingester,
    Lake,
    SegmentSpool,
    as_parquet,
    history_rows,
    read_labels,
    read_source,
)
from driftloop.prediction_log.source import AHEAD, EARLIEST, OBSERVED_AHEAD
from driftloop.records import Label
from driftloop.serve import request
from driftloop.spec import Family, Fleet

Make = Callable[..., Any]

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
TIMES = pa.timestamp("us", tz="UTC")


def history(**given: pa.Array | None) -> pa.Table:
    """A table of three rows of eta's history; columns may be replaced, or left out by None."""
    usual = {
        "id": pa.array(["a", "b", "c"]),
        "model": pa.array(["eta-de", "eta-fr", "eta-de"]),
        "asked_at": pa.array([NOON, NOON + timedelta(hours=1), NOON], TIMES),
        "distance": pa.array([1.0, float("nan"), None]),
        "load": pa.array([0, 1, None]),
        "vehicle": pa.array(["van", None, "bike"]),
        "label": pa.array([10.0, None, 30.0]),
        "observed_at": pa.array([NOON, None, NOON], TIMES),
        "ignored": pa.array([1, 2, 3]),
    }
    return pa.table({k: v for k, v in (usual | given).items() if v is not None})


def test_a_csv_is_sniffed_over_all_its_rows(tmp_path: Path) -> None:
    """A column of whole numbers that has a fraction at its very end is read as such."""
    file = tmp_path / "long.csv"
    file.write_text("x\n" + "1\n" * 30_000 + "1.5\n")
    assert read_source(str(file)).column("x")[-1].as_py() == 1.5


@pytest.mark.parametrize("begin", ["SELECT * FROM", "from", "WITH a AS (SELECT 1) FROM"])
def test_a_query_reads_files(tmp_path: Path, begin: str) -> None:
    """Text that begins as a query is run by DuckDB."""
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "a.parquet")
    assert read_source(f"{begin} '{tmp_path}/*.parquet' ORDER BY x").to_pydict() == {"x": [1, 2]}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.csv", "no such file"),
        ("table.xlsx", r"neither a \.parquet or \.csv file nor a query that starts with SELECT"),
        ("UPDATE x", "nor a query that starts with SELECT, FROM or WITH"),
        ("SELECT nonsense", "nonsense"),
        ("FROM 'nowhere.parquet'", "nowhere"),
    ],
)
def test_what_cannot_be_read_is_a_bad_request(source: str, said: str) -> None:
    """A missing file, an unknown ending and an SQL error each say what was wrong."""
    with pytest.raises(BadRequest, match=said):
        read_source(source)


def test_a_damaged_file_is_a_bad_request(tmp_path: Path) -> None:
    """A file that is not what its ending says is named."""
    file = tmp_path / "broken.parquet"
    file.write_text("no parquet")
    with pytest.raises(BadRequest, match="broken"):
        read_source(str(file))


def test_of_what_duckdb_says_one_line_is_told() -> None:
    """Guesses, the SQL and the caret under it are left out."""
    with pytest.raises(BadRequest) as caught:
        read_source("FROM nothing_of_this_name")
    assert "nothing_of_this_name does not exist" in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty: no header and no rows"),
        (" \n\n", "empty: no header and no rows"),
        ("id,model,value\n", "a header but no rows"),
    ],
)
def test_a_csv_without_rows_says_so(tmp_path: Path, fleet: Fleet, text: str, said: str) -> None:
    """Nobody is told of the types of columns that hold nothing."""
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(BadRequest, match=said):
        read_labels(str(file), fleet, now=NOON)


def test_history_becomes_rows_of_version_zero(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, window: Make, eta: Family, clock: Any
) -> None:
    """Through spool and lake, history has version 0, no prediction, and labels where known."""
    assert spool.history(eta, history()) == (3, 2)
    report = ingester.ingest()
    assert (report.rows, report.labels, report.bad) == (3, 2, 0)
    assert lake.rows(eta, window()).to_pylist() == [
        {
            "id": id_,
            "version": 0,
            "event_time": NOON,
            "arrived_at": clock.shown,
            "prediction": None,
            "label": label,
            "labelled_at": clock.shown,
            "distance": distance,
            "load": load,
            "vehicle": vehicle,
        }
        for id_, label, distance, load, vehicle in (
            ("a", 10.0, 1.0, 0.0, "van"),
            ("c", 30.0, None, None, "bike"),
        )
    ]
    assert lake.rows(eta, window(model="eta-fr")).column("label").to_pylist() == [None]
    arrived = lake.query("SELECT DISTINCT arrived_at FROM lake.eta_predictions").to_pydict()
    assert arrived == {"arrived_at": [clock.shown]}


def test_history_given_twice_is_kept_once(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, window: Make, eta: Family
) -> None:
    """Doing an import again adds nothing that a window shows."""
    spool.history(eta, history())
    spool.history(eta, history())
    ingester.ingest()
    assert lake.rows(eta, window()).num_rows == 2


def test_times_without_zone_are_utc(eta: Family) -> None:
    """A TIMESTAMP is UTC; one with another zone is the same instant."""
    naive = pa.array([NOON.replace(tzinfo=None)] * 3, pa.timestamp("ns"))
    zoned = pa.array([NOON] * 3, pa.timestamp("ms", tz="America/New_York"))
    rows, _ = history_rows(eta, history(asked_at=naive))
    assert rows.column("event_time").to_pylist() == [NOON] * 3
    rows, labels = history_rows(eta, history(asked_at=zoned, observed_at=zoned))
    assert rows.column("event_time").to_pylist() == [NOON] * 3
    assert labels.column("observed_at").to_pylist() == [NOON] * 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"load": None}, "no column load"),
        ({"id": pa.array(["a", None, "c"])}, "row 2, column id: is missing"),
        ({"id": pa.array(["a", "b", "a"])}, "row 3, column id: 'a' stands twice$"),
        ({"id": pa.array(["a"] * 3)}, "'a' stands twice, and 2 rows in all repeat an id"),
        ({"model": pa.array(["eta-de", "eta-de", "eta-xx"])}, "row 3, column model: 'eta-xx'"),
        ({"model": pa.array(["eta-de", None, "eta-de"])}, "row 2, column model"),
        ({"asked_at": pa.array([NOON, None, NOON], TIMES)}, "row 2, column asked_at: is missing"),
        ({"asked_at": pa.array(["noon"] * 3)}, "asked_at should be times, not string"),
        ({"distance": pa.array(["1", "2", "3"])}, "distance should be numbers, not string"),
        ({"distance": pa.array([1.0, float("inf"), 1.0])}, "row 2, column distance: inf"),
        ({"distance": pa.array([1.0, 1.0, -1e300])}, "row 3, column distance: .* too large"),
        ({"label": pa.array([1.0, 1e300, 1.0])}, "row 2, column label: .* too large for float32"),
        ({"vehicle": pa.array([1.0, 2.0, 3.0])}, "vehicle should be text, not double"),
        ({"label": pa.array(["x"] * 3)}, "label should be numbers"),
        ({"observed_at": pa.nulls(3, TIMES)}, "row 1, column observed_at: is missing"),
    ],
)
def test_history_that_does_not_fit_is_refused(
    tmp_path: Path, spool: SegmentSpool, eta: Family, given: dict[str, pa.Array], said: str
) -> None:
    """Each fault is named with its column and row, and nothing is written."""
    with pytest.raises(BadRequest, match=said):
        spool.history(eta, history(**given))
    assert [path.name for path in (tmp_path / "spool" / "one").iterdir()] == ["owner.lock"]


def test_history_without_rows_is_refused(tmp_path: Path, eta: Family) -> None:
    """A Parquet file too, and a query that finds nothing."""
    file = tmp_path / "history.parquet"
    pq.write_table(history().slice(0, 0), file)
    for source in (str(file), f"FROM '{file}' WHERE false"):
        with pytest.raises(BadRequest, match="history of eta: it has no rows"):
            history_rows(eta, read_source(source))


def test_columns_of_a_csv_may_be_empty(tmp_path: Path, eta: Family) -> None:
    """What DuckDB then calls text is null all the same: features, labels and their times."""
    file = tmp_path / "history.csv"
    file.write_text(
        "id,model,asked_at,distance,load,vehicle,label,observed_at\n"
        "1,eta-de,2026-02-28,3.5,,,,\n2,eta-de,2026-02-28,4.5,,,,\n"
    )
    rows, labels = history_rows(eta, read_source(str(file)))
    assert rows["features"].to_pylist() == [
        {"distance": distance, "load": None, "vehicle": None} for distance in (3.5, 4.5)
    ]
    assert labels.num_rows == 0


def test_a_binary_label_is_zero_or_one(churn: Family) -> None:
    """For a yes or no, anything else is refused; booleans will do."""
    given = {
        "id": [1, 2],
        "model": ["churn-uk"] * 2,
        "asked_at": pa.array([NOON] * 2, TIMES),
        "tenure": [1, 2],
        "spend": [1.0, 2.0],
        "plan": [10, 20],
        "observed_at": pa.array([NOON] * 2, TIMES),
    }
    rows, labels = history_rows(churn, pa.table({**given, "label": [True, False]}))
    assert rows.column("id").to_pylist() == ["1", "2"]
    assert rows.column("features")[1].as_py() == {"tenure": 2.0, "spend": 2.0, "plan": "20"}
    assert labels.column("value").to_pylist() == [1.0, 0.0]
    with pytest.raises(BadRequest, match=r"row 2, column label: 0\.5 is neither 0 nor 1"):
        history_rows(churn, pa.table({**given, "label": [1.0, 0.5]}))


def test_labels_are_read_from_a_file(tmp_path: Path, fleet: Fleet) -> None:
    """A file of labels gives records; without a time they were observed now."""
    file = tmp_path / "labels.csv"
    file.write_text("id,model,value\n007,eta-de,1.5\n8,eta-fr,2\n")
    assert read_labels(str(file), fleet, now=NOON) == [
        Label(id="007", model="eta-de", value=1.5, observed_at=NOON),
        Label(id="8", model="eta-fr", value=2.0, observed_at=NOON),
    ]
    file.write_text("id,model,value,observed_at\n1,eta-de,1.5,2026-02-28T13:00:00+01:00\n")
    assert read_labels(str(file), fleet, now=NOON + timedelta(days=1)) == [
        Label(id="1", model="eta-de", value=1.5, observed_at=NOON)
    ]


def test_a_label_without_value_is_refused(tmp_path: Path, fleet: Fleet) -> None:
    """A missing value is named by its row."""
    file = tmp_path / "labels.csv"
    file.write_text("id,model,value\n1,eta-de,1\n2,eta-de,\n")
    with pytest.raises(BadRequest, match="row 2, column value: is missing"):
        read_labels(str(file), fleet, now=NOON)


def test_a_label_is_at_most_the_largest_float32(tmp_path: Path, fleet: Fleet) -> None:
    """A file takes the same numbers as HTTP does."""
    file = tmp_path / "labels.csv"
    file.write_text("id,model,value\n1,eta-de,3.4028234663852886e38\n2,eta-de,-1e300\n")
    with pytest.raises(BadRequest, match=r"row 2, column value: .* too large for float32"):
        read_labels(str(file), fleet, now=NOON)


def test_a_label_stands_once_in_a_file(tmp_path: Path, fleet: Fleet) -> None:
    """Which of two labels were true nobody could say; another model may have the same id."""
    file = tmp_path / "labels.csv"
    file.write_text("id,model,value\n1,eta-de,1\n1,eta-fr,1\n")
    assert len(read_labels(str(file), fleet, now=NOON)) == 2
    file.write_text("id,model,value\n1,eta-de,1\n1,eta-fr,1\n1,eta-de,2\n")
    with pytest.raises(BadRequest, match="row 3, column id: '1' stands twice for eta-de"):
        read_labels(str(file), fleet, now=NOON)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "1,eta-de,1,2026-02-28\n2,eta-xx,1,2026-02-28",
            "row 2, column model: 'eta-xx' is a model",
        ),
        ("1,eta-de,3,2026-02-28\n2,churn-uk,3,2026-02-28", "row 2, column value: 3 is neither"),
        ("1,eta-de,1,2026-03-02", "row 1, column observed_at: is after 2026-03-01 12:00 UTC"),
        ("1,eta-de,1,1870-01-01", "row 1, column observed_at: is before the year 1900"),
    ],
)
def test_labels_that_do_not_fit_the_fleet_are_refused(
    tmp_path: Path, fleet: Fleet, text: str, said: str
) -> None:
    """A file takes what HTTP does: declared models, possible outcomes, times that can be."""
    file = tmp_path / "labels.csv"
    file.write_text(f"id,model,value,observed_at\n{text}\n")
    with pytest.raises(BadRequest, match=said):
        read_labels(str(file), fleet, now=NOON)


@pytest.mark.parametrize(
    ("column", "at", "said"),
    [
        ("asked_at", NOON + timedelta(days=367), "asked_at: is after 2027-03-01 12:00 UTC"),
        ("observed_at", NOON + timedelta(days=2), "observed_at: is after 2026-03-01 12:00 UTC"),
        ("asked_at", datetime(1, 1, 1, tzinfo=UTC), "asked_at: is before the year 1900"),
    ],
)
def test_history_of_another_time_is_refused(
    eta: Family, column: str, at: datetime, said: str
) -> None:
    """Milliseconds taken for seconds, or a wrong century: never in a window, and not let in."""
    times = {column: pa.array([NOON, NOON, at], TIMES)}
    with pytest.raises(BadRequest, match=f"row 3, column {said}"):
        history_rows(eta, history(**times), now=NOON)


def test_files_take_the_times_that_http_takes() -> None:
    """Two rooms that may not know each other draw the same lines."""
    ours = (EARLIEST, AHEAD, OBSERVED_AHEAD)
    assert ours == (request.EARLIEST, request.AHEAD, request.OBSERVED_AHEAD)


def colours(colour: Family, *labels: str | int | None) -> pa.Table:
    """Rows of colour with these labels."""
    count = len(labels)
    features = {
        name: [1.0] * count if feature.kind == "numeric" else ["a"] * count
        for name, feature in colour.features.items()
    }
    at = [datetime(2026, 2, 27, tzinfo=UTC)] * count
    return pa.table(
        {
            "id": [f"r{n}" for n in range(count)],
            "model": ["colour-uk"] * count,
            colour.time: at,
            **features,
            "label": list(labels),
            "observed_at": at,
        }
    )


def test_history_of_classes_is_told_by_name(colour: Family) -> None:
    """The log keeps a class's place; an unlabelled row has no label."""
    rows, labels = history_rows(colour, colours(colour, "blue", None, "red"))
    assert rows.num_rows == 3
    assert labels.select(["id", "value"]).to_pydict() == {"id": ["r0", "r2"], "value": [2.0, 0.0]}


@pytest.mark.parametrize("odd", ["purple", "Red", "red "])
def test_an_unknown_class_in_history_is_named(colour: Family, odd: str) -> None:
    """With its row, and what would have been known."""
    said = (
        f"history of colour, row 2, column label: {odd!r} is no class of colour; known: red, green,"
        " blue, off white"
    )
    with pytest.raises(BadRequest, match=said):
        history_rows(colour, colours(colour, "red", odd))


def test_numbers_are_no_names_of_classes(colour: Family) -> None:
    """Unless a class is written so."""
    with pytest.raises(BadRequest, match="row 1, column label: 2 is no class of colour"):
        history_rows(colour, colours(colour, 2, 0))
    numbered = colour.model_copy(update={"classes": ("10", "2")})
    _, labels = history_rows(numbered, colours(numbered, 2, 10))
    assert labels["value"].to_pylist() == [1.0, 0.0]


def test_labels_of_classes_and_of_numbers_in_one_file(
    tmp_path: Path, fleet: Fleet, colour: Family
) -> None:
    """Each is read as its model predicts; what fits neither names its row."""
    both = replace(fleet, families=(*fleet.families, colour))
    file = tmp_path / "labels.csv"

    def read(*rows: str) -> list[float]:
        file.write_text("\n".join(["id,model,value", *rows]), encoding="utf-8")
        return [label.value for label in read_labels(str(file), both, now=NOON)]

    assert read("1,colour-uk,off white", "2,eta-de,12.5", "3,churn-uk,1") == [3.0, 12.5, 1.0]
    assert read("1,eta-de,12.5", "2,churn-uk,1") == [12.5, 1.0]
    for odd, said in (
        ("2,colour-uk,pink", "row 2, column value: 'pink' is no class of colour; known: red"),
        ("2,eta-de,red", "row 2, column value: 'red' is no number"),
        ("2,churn-uk,3", "row 2, column value: '3' is neither 0 nor 1"),
        ("2,eta-de,inf", "row 2, column value: 'inf' is infinite"),
        ("2,eta-de,nan", "row 2, column value: 'nan' is infinite, too large for float32, or NaN"),
        ("2,colour-uk,", "row 2, column value: is missing"),
    ):
        with pytest.raises(BadRequest) as caught:
            read("1,colour-uk,red", odd)
        assert said in str(caught.value)


@pytest.mark.parametrize("line", ["4,5", "4,5,6,7"])
@pytest.mark.parametrize("before", [1, 30_000])
def test_a_line_of_another_length_is_named(tmp_path: Path, line: str, before: int) -> None:
    """However far down it stands, here and in batches; the header is no column of its own."""
    file = tmp_path / "rows.csv"
    file.write_text("a,b,c\n" + "1,2,3\n" * before + f"{line}\n1,2,3\n")
    said = rf"rows.csv, line {before + 2}: has \d fields, and its header 3"
    with pytest.raises(BadRequest, match=said):
        read_source(str(file))
    with pytest.raises(BadRequest, match=said):
        as_parquet(str(file), None, tmp_path / "copy.parquet")
