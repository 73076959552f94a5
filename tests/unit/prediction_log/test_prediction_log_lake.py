import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from driftloop.errors import BadRequest, LogError, TooNew
from driftloop.prediction_log import Ingester, Lake, SegmentSpool
from driftloop.prediction_log import windows as windows_of
from driftloop.records import LogSummary, ModelId
from driftloop.spec import Family, Feature, Fleet

MONITORS = Path(__file__).parents[2] / "monitors"
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
Make = Callable[..., Any]

READER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from driftloop.prediction_log import Lake
from driftloop.records import Window
from driftloop.spec import load_fleet

fleet = load_fleet(Path(sys.argv[2]))
window = Window(model="eta-de", start=datetime(2026, 1, 1, tzinfo=UTC),
                end=datetime(2027, 1, 1, tzinfo=UTC), known_at=datetime(2027, 1, 1, tzinfo=UTC))
with Lake(Path(sys.argv[1]), fleet, read_only=True) as lake:
    for _ in sys.stdin:
        days = lake.query("SELECT DISTINCT event_time::DATE::TEXT AS day FROM lake.eta_predictions")
        print(lake.rows(fleet.family_named("eta"), window).num_rows, *days["day"], flush=True)
"""


def changed(fleet: Fleet, **features: Feature) -> tuple[Fleet, Family]:
    """The fleet with other features of eta."""
    eta = fleet.family_named("eta")
    eta = eta.model_copy(update={"features": {**eta.features, **features}})
    return type(fleet)(families=(eta,), owners=fleet.owners), eta


def test_rows_have_the_promised_columns(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    label: Make,
    window: Make,
    eta: Family,
) -> None:
    """A window's table has exactly the documented columns and types, by event time, in UTC."""
    later = window().start + timedelta(hours=20)
    spool.predictions("eta", [prediction("b", event_time=later), prediction("a", version=3)])
    spool.predictions("eta", [prediction("other", model="eta-fr")])
    spool.labels("eta", [label("a", 30.0)])
    spool.seal()
    ingester.ingest()
    rows = lake.rows(eta, window())
    assert rows.schema == pa.schema(
        {
            "id": pa.string(),
            "version": pa.int32(),
            "event_time": pa.timestamp("us", tz="UTC"),
            "arrived_at": pa.timestamp("us", tz="UTC"),
            "prediction": pa.float64(),
            "label": pa.float64(),
            "labelled_at": pa.timestamp("us", tz="UTC"),
            "distance": pa.float64(),
            "load": pa.float64(),
            "vehicle": pa.string(),
        }
    )
    assert rows.select(["id", "version", "label"]).to_pydict() == {
        "id": ["a", "b"],
        "version": [3, 1],
        "label": [30.0, None],
    }
    assert rows.column("event_time")[1].as_py() == later


def test_a_window_is_half_open(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make, window: Make, eta: Family
) -> None:
    """The start belongs to a window, the end to the next one."""
    span = window()
    spool.predictions(
        "eta", [prediction("s", event_time=span.start), prediction("e", event_time=span.end)]
    )
    spool.seal()
    ingester.ingest()
    assert lake.rows(eta, span).column("id").to_pylist() == ["s"]
    assert lake.summary(eta, span).newest_event == span.start


def test_the_first_arrival_of_an_id_wins(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    clock: Any,
    prediction: Make,
    window: Make,
    eta: Family,
) -> None:
    """Sent again, in the same segment or days later, an id stays what it was; both are counted."""
    spool.predictions("eta", [prediction("a"), prediction("a", prediction=1.0)])
    spool.seal()
    ingester.ingest()
    clock.shown += timedelta(days=1)
    spool.predictions("eta", [prediction("a", prediction=2.0, version=2), prediction("b")])
    spool.seal()
    ingester.ingest()
    for _ in ("as ingested", "after maintenance"):
        assert lake.rows(eta, window()).select(["id", "prediction"]).to_pydict() == {
            "id": ["a", "b"],
            "prediction": [21.5, 21.5],
        }
        assert lake.summary(eta, window()) == LogSummary(
            rows=4, duplicates=2, labels=0, newest_event=window().start + timedelta(hours=12)
        )
        ingester.maintain()


@pytest.mark.parametrize("together", [1, 3, 500_000])
def test_a_fleet_is_read_a_few_models_at_a_time(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    window: Make,
    eta: Family,
    monkeypatch: pytest.MonkeyPatch,
    together: int,
) -> None:
    """However many rows are read at once, every model has its own, in the order asked for."""
    french = ModelId("eta-fr")
    spool.predictions("eta", [prediction(str(n)) for n in range(3)])
    spool.predictions("eta", [prediction(str(n), model=french) for n in range(2)])
    spool.seal()
    ingester.ingest()
    monkeypatch.setattr(windows_of, "TOGETHER", together)
    asked = [window(model=french), window(model=ModelId("eta-none")), window()]
    found = [(model, look.rows["id"].to_pylist()) for model, look in lake.looks(eta, asked)]
    assert found == [(french, ["0", "1"]), ("eta-none", []), ("eta-de", ["0", "1", "2"])]


@pytest.mark.parametrize("twice", [True, False])
def test_models_looked_at_together_see_what_each_would_alone(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    label: Make,
    window: Make,
    eta: Family,
    *,
    twice: bool,
) -> None:
    """The same id in two models stays two rows, and a model without rows has an empty look."""
    french = ModelId("eta-fr")
    spool.predictions("eta", [prediction("a"), prediction("b", version=2)])
    spool.predictions("eta", [prediction("a")] * twice)
    spool.predictions("eta", [prediction("a", model=french, prediction=9.0)])
    spool.labels("eta", [label("a", 20.0), label("a", 8.0, model=french), label("a", 21.0)])
    spool.labels("eta", [label("never", 1.0)])
    spool.seal()
    ingester.ingest()
    for version in (None, 2):
        windows = [window(version=version), window(version=version, model=french)]
        looks = dict(lake.looks(eta, windows))
        assert {each.model for each in windows} == looks.keys()
        for each in windows:
            assert lake.rows(eta, each).equals(looks[each.model].rows.combine_chunks())
            assert lake.summary(eta, each) == looks[each.model].summary
    (empty,) = (look for _, look in lake.looks(eta, [window(version=77)]))
    assert empty.rows.num_rows == 0
    assert list(lake.looks(eta, [])) == []
    with pytest.raises(ValueError, match="differ in their models alone"):
        next(lake.looks(eta, [window(), window(model=french, version=3)]))


def test_a_version_keeps_the_rows_it_predicted(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make, window: Make, eta: Family
) -> None:
    """With a version, rows of others and of history are left out, and so are their repetitions."""
    spool.predictions(
        "eta", [prediction("a"), prediction("b", version=2), prediction("a", version=2)]
    )
    spool.seal()
    ingester.ingest()
    second = window(version=2)
    assert lake.rows(eta, second).column("id").to_pylist() == ["b"]
    summary = lake.summary(eta, second)
    assert (summary.rows, summary.duplicates) == (2, 1)
    assert lake.rows(eta, window()).num_rows == 2


def test_labels_are_what_was_known_then(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    clock: Any,
    prediction: Make,
    label: Make,
    window: Make,
    eta: Family,
) -> None:
    """A late label is invisible before it arrived; a corrected one is new only from then on."""
    spool.predictions("eta", [prediction("a")])
    spool.seal()
    ingester.ingest()
    clock.shown = MARCH + timedelta(days=2)
    spool.labels("eta", [label("a", 10.0), label("a", 20.0)])
    spool.seal()
    ingester.ingest()
    clock.shown = MARCH + timedelta(days=4)
    spool.labels("eta", [label("a", 30.0)])
    spool.seal()
    ingester.ingest()

    def known(days: int) -> float | None:
        at = window(known_at=MARCH + timedelta(days=days))
        return lake.rows(eta, at).column("label")[0].as_py()

    for _ in ("as ingested", "after maintenance"):
        assert [known(days) for days in (0, 1, 2, 3, 4)] == [None, None, 20.0, 20.0, 30.0]
        assert lake.label_history(eta, "a") == {
            "eta-de": (
                (MARCH + timedelta(days=2), 10.0),
                (MARCH + timedelta(days=2), 20.0),
                (MARCH + timedelta(days=4), 30.0),
            )
        }
        ingester.maintain()
    assert lake.rows(eta, window(known_at=MARCH - timedelta(seconds=1))).num_rows == 0
    assert lake.horizon() == clock.shown


def test_labels_may_come_before_their_prediction_or_without_one(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    clock: Any,
    prediction: Make,
    label: Make,
    window: Make,
    eta: Family,
) -> None:
    """An early label counts once its prediction is there; one for nothing is counted apart."""
    early, lost = label("early", 10.0), label("lost", 99.0)
    elsewhere = label("early", 50.0, model=ModelId("eta-fr"))
    spool.labels("eta", [early, lost, elsewhere])
    spool.seal()
    assert ingester.ingest().bad == 0
    assert lake.summary(eta, window()).labels == 0
    assert lake.unmatched(eta, [early, lost, elsewhere]) == 3
    clock.shown = MARCH + timedelta(days=2)
    spool.predictions("eta", [prediction("early"), prediction("unlabelled")])
    spool.seal()
    ingester.ingest()
    for _ in ("as ingested", "after maintenance"):
        summary = lake.summary(eta, window())
        assert (summary.rows, summary.duplicates, summary.labels) == (2, 0, 1)
        rows = lake.rows(eta, window())
        assert rows.select(["id", "label"]).to_pydict() == {
            "id": ["early", "unlabelled"],
            "label": [10.0, None],
        }
        assert lake.unmatched(eta, [early, lost, elsewhere]) == 2
        assert lake.unmatched(eta, [early]) == 0
        ingester.maintain()


def test_what_is_in_the_log_already_is_known(
    tmp_path: Path,
    fleet: Fleet,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    eta: Family,
) -> None:
    """By id and model together; a family whose tables are not made yet has nothing."""
    rows = pa.table({"id": ["c", "a", "a", "b"], "model": ["eta-de", "eta-fr", "eta-de", "eta-de"]})
    spool.predictions("eta", [prediction(id_) for id_ in ("a", "c", "d")])
    spool.seal()
    assert lake.logged(eta, rows).num_rows == 0
    assert ingester.ingest().bad == 0
    assert lake.logged(eta, rows).to_pydict() == {"id": ["a", "c"], "model": ["eta-de", "eta-de"]}
    later = eta.model_copy(update={"name": "later"})
    assert lake.logged(later, rows).num_rows == 0


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_query_is_ctrl_c(lake: Lake) -> None:
    """And no error, which would be told as one of the log."""
    lake.migrate()
    pressing = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        lake.query("SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b")


def test_a_new_feature_is_a_new_column(
    tmp_path: Path,
    fleet: Fleet,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    clock: Any,
    prediction: Make,
    window: Make,
) -> None:
    """A feature added to the spec is null in older rows and kept from then on."""
    spool.predictions("eta", [prediction("old")])
    spool.seal()
    ingester.ingest()
    ingester.close()
    lake.close()
    fleet, eta = changed(fleet, rain=Feature(kind="numeric"))
    features = {"distance": 1.0, "load": 0.1, "vehicle": "bike", "rain": 4.5}
    spool.predictions("eta", [prediction("new", features=features)])
    spool.seal()
    with (
        Lake(tmp_path / "lake", fleet, read_only=False) as wider,
        Ingester(tmp_path / "spool", wider, clock) as again,
    ):
        again.ingest()
        found = wider.rows(eta, window()).select(["id", "rain", "vehicle"]).to_pydict()
    assert found == {"id": ["new", "old"], "rain": [4.5, None], "vehicle": ["bike", "van"]}


def test_a_changed_kind_is_refused(tmp_path: Path, fleet: Fleet, lake: Lake) -> None:
    """A feature that was a number cannot become a category under the same name."""
    lake.migrate()
    lake.close()
    fleet, _ = changed(fleet, load=Feature(kind="categorical"))
    with (
        Lake(tmp_path / "lake", fleet, read_only=False) as other,
        pytest.raises(LogError, match=r"features\.load.*DOUBLE.*VARCHAR"),
    ):
        other.migrate()


def test_a_lake_of_a_newer_driftloop_is_refused(lake: Lake) -> None:
    """A layout from the future is left alone."""
    lake.migrate()
    with lake._store.transaction() as con:
        con.execute("UPDATE lake.layout SET version = 99")
    with pytest.raises(TooNew, match="layout 99"):
        lake.migrate()


def test_migrating_again_changes_nothing(lake: Lake) -> None:
    """A second migrate makes no snapshot."""
    lake.migrate()
    before = lake.snapshot()
    lake.migrate()
    assert lake.snapshot() == before


def test_readers_of_other_processes_see_commits(
    tmp_path: Path,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    window: Make,
) -> None:
    """A reader sees each commit at its next question, and days in UTC wherever it runs."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path / "lake"), str(MONITORS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "TZ": "Pacific/Auckland"},
    ) as reader:  # fmt: skip
        seen = []
        for i in range(4):
            spool.predictions("eta", [prediction(f"{i}-{n}") for n in range(50)])
            spool.seal()
            ingester.ingest()
            if i == 2:
                ingester.maintain()
            reader.stdin.write("\n")
            seen.append(reader.stdout.readline().split())
        reader.stdin.close()
        assert reader.wait(20) == 0
    assert seen == [[str(n), "2026-02-28"] for n in (50, 100, 150, 200)]
    catalog = sqlite3.connect(tmp_path / "lake" / "catalog.sqlite")
    assert catalog.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    catalog.close()


def test_reading_before_there_is_a_lake_says_so(
    tmp_path: Path, fleet: Fleet, eta: Family, window: Make
) -> None:
    """A reader that comes first is told to start the ingester, and reads once it is there."""
    with Lake(tmp_path / "lake", fleet, read_only=True) as reader:
        with pytest.raises(LogError, match="start the ingester"):
            reader.rows(eta, window())
        with Lake(tmp_path / "lake", fleet, read_only=False) as lake:
            lake.migrate()
        assert reader.rows(eta, window()).num_rows == 0


def test_queries_only_read(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make, eta: Family
) -> None:
    """query() answers a SELECT with parameters and refuses all else."""
    spool.predictions("eta", [prediction("a"), prediction("b")])
    spool.seal()
    ingester.ingest()
    found = lake.query("SELECT id FROM lake.eta_predictions WHERE id = $id", {"id": "a"})
    assert found.to_pydict() == {"id": ["a"]}
    assert lake.models(eta) == {"eta-de": 2}
    for sql in ("DROP TABLE lake.eta_labels", "SELECT 1; SELECT 2", "SELEC", "FROM lake.nowhere"):
        with pytest.raises(BadRequest):
            lake.query(sql)


def test_a_slow_query_draws_no_progress_bar(lake: Lake) -> None:
    """What the command line prints is its own: DuckDB would draw on the same stdout."""
    found = lake.query("SELECT current_setting('enable_progress_bar') AS bar")
    assert found.to_pydict() == {"bar": [False]}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NUMBER = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=st.dictionaries(
        TEXT, st.tuples(NUMBER, st.one_of(st.none(), TEXT)), min_size=20, max_size=80
    )
)
@example(rows={"a\x00b": (-0.0, "\x00"), "'\"\\": (1e308, "NaN"), "é\u2028": (5e-324, "null")})
def test_what_was_written_is_read_back(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    clock: Any,
    prediction: Make,
    window: Make,
    eta: Family,
    rows: dict[str, tuple[float | None, str | None]],
) -> None:
    """Any text and any finite number come back as they were: inlined, and as Parquet."""
    clock.shown += timedelta(days=1)
    start = clock.shown
    spool.predictions(
        "eta",
        [
            prediction(id_, event_time=start, features={"distance": number, "vehicle": text})
            for id_, (number, text) in rows.items()
        ],
    )
    spool.seal()
    ingester.ingest()
    span = window(start=start, end=start + timedelta(seconds=1), known_at=clock.shown)
    for _ in ("as ingested", "after maintenance"):
        found = lake.rows(eta, span).select(["id", "distance", "vehicle"]).to_pylist()
        assert {row["id"]: (row["distance"], row["vehicle"]) for row in found} == rows
        ingester.maintain()
