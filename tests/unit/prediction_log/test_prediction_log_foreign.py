"""Logs that somebody else writes: DuckDB tables and views, Parquet and queries, real ones."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from driftloop.errors import LogError, SpecError
from driftloop.prediction_log import ForeignLog
from driftloop.prediction_log import foreign as module
from driftloop.records import Head, ModelId, Moved, Window
from driftloop.spec import Family, LabelSource, LogSource

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DE, FR = ModelId("eta-de"), ModelId("eta-fr")
SCORED = """
    SELECT 'r' || i AS request, CASE WHEN i % 2 = 0 THEN 'de' ELSE 'fr' END AS market,
           TIMESTAMP '2026-02-28' + to_minutes(i) AS asked_at,
           i::FLOAT AS yhat, i AS distance, 0.5::DECIMAL(4, 2) AS load, 'van' AS vehicle,
           CASE WHEN i < 40 THEN i + 1 END AS truth
    FROM range(60) t(i)
"""
MAPPED = {"id": "request", "model": "market", "prediction": "yhat", "label": "truth"}
LABELS_APART = {key: name for key, name in MAPPED.items() if key != "label"}
Make = Callable[..., ForeignLog]


@pytest.fixture
def log(tmp_path: Path, eta: Family) -> Make:
    """`log(source, **rest of [log])`, with `moves` of the ledger and the family if not eta."""

    def make(
        source: str,
        *,
        family: Family = eta,
        moves: Callable[[ModelId], tuple[Moved, ...]] = lambda model: (),
        **more: Any,
    ) -> ForeignLog:
        declared = LogSource(source=source, **{"columns": MAPPED, **more})
        away = family.model_copy(update={"log": declared})
        return ForeignLog(away, folder=tmp_path, scratch=tmp_path / "scratch", moves=moves)

    return make


def made(file: Path, *statements: str) -> Path:
    """Run statements in a DuckDB file."""
    with duckdb.connect(str(file)) as con:
        for statement in statements:
            con.execute(statement)
    return file


def parquet(folder: Path, sql: str = SCORED, name: str = "scored.parquet") -> None:
    duckdb.execute(f"COPY ({sql}) TO '{folder / name}' (FORMAT parquet)")


def binary(churn: Family, even: str = "uk", odd: str = "uk") -> str:
    """Return the query of sound rows of churn, every other one of each market."""
    features = ", ".join(
        f"{'1.0' if feature.kind == 'numeric' else repr('a')} AS {name}"
        for name, feature in churn.features.items()
    )
    return (
        f"SELECT request, CASE market WHEN 'de' THEN '{even}' ELSE '{odd}' END AS market,"
        f" asked_at AS {churn.time}, 0.5 AS yhat, 1 AS truth, {features} FROM ({SCORED})"
    )


def window(model: ModelId = DE, *, known_at: datetime = NOW, version: int | None = None) -> Window:
    start = NOW - timedelta(days=14)
    return Window(model=model, start=start, end=NOW, known_at=known_at, version=version)


def moved(model: ModelId, version: int, at: datetime) -> Moved:
    head = Head(model=model, epoch=version, version=version, digest="", artifact="")
    return Moved(model=model, at=at, head=head, previous=None, reason="")


@pytest.mark.parametrize("kind", ["table", "view", "parquet", "pattern", "query"])
def test_every_kind_of_source_reads_the_same(
    tmp_path: Path, eta: Family, log: Make, kind: str
) -> None:
    """A table and a view of a database, Parquet files and a query, all named from the folder."""
    more: dict[str, object] = {}
    if kind in ("table", "view"):
        source = "serving.duckdb"
        made(
            tmp_path / source,
            "CREATE SCHEMA s",
            f"CREATE TABLE s.scored AS {SCORED}",
            "CREATE VIEW shown AS FROM s.scored",
        )
        more["table"] = "s.scored" if kind == "table" else "shown"
    elif kind == "query":
        parquet(tmp_path)
        source = "FROM 'scored.parquet';"
    else:
        (tmp_path / "days").mkdir()
        for half in ("i < 30", "i >= 30"):
            parquet(
                tmp_path,
                f"FROM ({SCORED}) WHERE {half.replace('i', 'distance')}",
                f"days/{len(half)}.parquet",
            )
        source = "days/*.parquet"
        if kind == "parquet":
            parquet(tmp_path)
            source = "scored.parquet"
    theirs = log(source, **more)
    rows = theirs.rows(eta, window()).to_pydict()
    assert rows["id"][:2] == ["r0", "r2"]
    assert rows["event_time"][1] == datetime(2026, 2, 28, 0, 2, tzinfo=UTC)
    assert (rows["prediction"][1], rows["label"][1], rows["distance"][1]) == (2.0, 3.0, 2.0)
    assert (rows["load"][0], rows["vehicle"][0], rows["version"][0]) == (0.5, "van", 0)
    summary = theirs.summary(eta, window())
    assert (summary.rows, summary.duplicates, summary.labels) == (30, 0, 20)
    both = dict(theirs.looks(eta, [window(DE), window(FR)]))
    assert both[DE].rows.to_pydict() == rows
    assert both[FR].summary.newest_event == datetime(2026, 2, 28, 0, 59, tzinfo=UTC)
    assert theirs.horizon(eta) is None
    assert [str(each) for each in theirs.contents()] == [
        "eta-de: 30 rows, 20 labelled, 2026-02-28 00:00 to 2026-02-28 00:58 UTC",
        "eta-fr: 30 rows, 20 labelled, 2026-02-28 00:01 to 2026-02-28 00:59 UTC",
    ]


def test_nothing_of_theirs_is_changed_or_held(tmp_path: Path, eta: Family, log: Make) -> None:
    """After a question the file is as it was, and its writer can open it at once."""
    file = made(tmp_path / "serving.duckdb", f"CREATE TABLE scored AS {SCORED}")
    before = file.read_bytes()
    theirs = log("serving.duckdb", table="scored")
    assert theirs.rows(eta, window()).num_rows == 30
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"serving.duckdb", "scratch"}
    made(file, f"INSERT INTO scored FROM ({SCORED.replace('i % 2 = 0', 'true')})")
    assert theirs.summary(eta, window()).duplicates == 30


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has serving.duckdb open for writing, until its stdin is closed."""
    made(tmp_path / "serving.duckdb", f"CREATE TABLE scored AS {SCORED}")
    code = (
        "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('open', flush=True);"
        " sys.stdin.read(); con.close()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "serving.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.wait(10)
    process.stdout.close()


def test_a_file_being_written_is_waited_for(
    eta: Family, log: Make, writer: subprocess.Popen[str]
) -> None:
    """A writer that soon lets go costs a moment."""
    assert writer.stdin is not None
    closing = threading.Timer(0.5, writer.stdin.close)
    closing.start()
    began = time.monotonic()
    assert log("serving.duckdb", table="scored").rows(eta, window()).num_rows == 30
    assert time.monotonic() - began > 0.3


@pytest.mark.usefixtures("writer")
def test_a_file_that_stays_locked_is_told(
    eta: Family, log: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With who holds it, and what would help."""
    monkeypatch.setattr(module, "LOCKED_FOR", 0.2)
    with pytest.raises(LogError, match=r"PID .*Parquet files always are") as raised:
        log("serving.duckdb", table="scored").rows(eta, window())
    assert raised.value.where == "eta.toml: log"


def test_rows_are_of_who_was_champion_when_they_were_answered(
    tmp_path: Path, eta: Family, log: Make
) -> None:
    """Before the first move too; a version column of theirs, where it is mapped, says better."""
    parquet(tmp_path)
    turn = datetime(2026, 2, 28, 0, 20, tzinfo=UTC)
    heads = {DE: (moved(DE, 3, NOW), moved(DE, 5, turn)), FR: ()}
    theirs = log("scored.parquet", moves=heads.__getitem__)
    found = theirs.rows(eta, window()).to_pydict()["version"]
    assert found == [3] * 10 + [5] * 20
    assert theirs.rows(eta, window(version=5)).num_rows == 20
    assert set(theirs.rows(eta, window(FR)).to_pydict()["version"]) == {0}
    parquet(
        tmp_path, f"SELECT *, CASE WHEN distance > 9 THEN 5 END AS v FROM ({SCORED})", "v.parquet"
    )
    told = log("v.parquet", moves=heads.__getitem__, columns={**MAPPED, "version": "v"})
    assert told.rows(eta, window()).to_pydict()["version"] == [3] * 5 + [5] * 25


def test_labels_may_be_apart(tmp_path: Path, eta: Family, log: Make) -> None:
    """In another table or file, with or without the model; the newest known wins, none too soon."""
    outcomes = """
        SELECT * FROM (VALUES ('r0', 1.0, TIMESTAMP '2026-02-28 01:00'),
                              ('r0', 2.0, TIMESTAMP '2026-02-28 02:00'),
                              ('r1', 9.0, TIMESTAMP '2026-02-28 02:00'),
                              ('gone', 9.0, TIMESTAMP '2026-02-28 02:00')) v(request, truth, seen)
    """
    made(
        tmp_path / "serving.duckdb",
        f"CREATE TABLE scored AS {SCORED}",
        f"CREATE TABLE outcomes AS {outcomes}",
    )
    parquet(tmp_path, outcomes, "outcomes.parquet")
    columns = {"id": "request", "label": "truth", "observed_at": "seen"}
    for labels in (
        LabelSource(table="outcomes", columns=columns),
        LabelSource(source="outcomes.parquet", columns=columns),
    ):
        theirs = log("serving.duckdb", table="scored", columns=LABELS_APART, labels=labels)
        at_two = window(known_at=datetime(2026, 2, 28, 2, tzinfo=UTC))
        assert theirs.rows(eta, at_two).to_pydict()["label"][:2] == [2.0, None]
        assert theirs.summary(eta, at_two).labels == 1
        sooner = window(known_at=datetime(2026, 2, 28, 1, 30, tzinfo=UTC))
        assert theirs.rows(eta, sooner).to_pydict()["label"][0] == 1.0
        assert theirs.rows(eta, window(FR)).to_pydict()["label"][0] == 9.0
        found = theirs.rows(eta, window()).to_pydict()
        assert found["labelled_at"][:2] == [datetime(2026, 2, 28, 2, tzinfo=UTC), None]
        assert found["arrived_at"] == found["event_time"]


def test_when_a_label_came_is_null_where_nobody_tells(
    tmp_path: Path, eta: Family, log: Make
) -> None:
    """The label itself counts as known from ever, as it does without the time."""
    parquet(tmp_path)
    parquet(tmp_path, "SELECT 'r0' AS request, 2.0 AS truth", "outcomes.parquet")
    labels = LabelSource(source="outcomes.parquet", columns={"id": "request", "label": "truth"})
    theirs = log("scored.parquet", columns=LABELS_APART, labels=labels)
    ((_, look),) = theirs.looks(eta, [window()])
    assert look.rows.column("label").to_pylist()[:2] == [2.0, None]
    assert look.rows.column("labelled_at").null_count == look.rows.num_rows


def test_one_market_needs_no_column_for_it(tmp_path: Path, eta: Family, log: Make) -> None:
    """All rows are its; two markets do."""
    parquet(tmp_path, f"SELECT * EXCLUDE market FROM ({SCORED})")
    columns = {name: theirs for name, theirs in MAPPED.items() if name != "model"}
    one = eta.model_copy(update={"markets": ("de",)})
    assert log("scored.parquet", family=one, columns=columns).rows(one, window()).num_rows == 60
    with pytest.raises(SpecError, match=r"log\.columns\.model: the source has no column 'model'"):
        log("scored.parquet", columns=columns).rows(eta, window())


def test_other_models_and_numbers_that_are_none(tmp_path: Path, eta: Family, log: Make) -> None:
    """Full names of models are understood, others passed over; NaN and infinity are null."""
    parquet(
        tmp_path,
        f"SELECT * REPLACE (['eta-de', 'other'][1 + distance % 2] AS market,"
        f" CASE distance WHEN 0 THEN 'nan' WHEN 2 THEN '-inf' ELSE '1' END::DOUBLE AS load)"
        f" FROM ({SCORED})",
    )
    rows = log("scored.parquet").rows(eta, window()).to_pydict()
    assert len(rows["id"]) == 30
    assert rows["load"][:3] == [None, None, 1.0]


def test_rows_without_an_id_are_duplicates_of_one_another(
    tmp_path: Path, eta: Family, log: Make
) -> None:
    """A fault of that model's data, which is measured; the other model is as before."""
    parquet(
        tmp_path,
        f"SELECT * REPLACE (CASE WHEN market = 'fr' OR distance > 9 THEN request END AS request)"
        f" FROM ({SCORED})",
    )
    found = dict(log("scored.parquet").looks(eta, [window(DE), window(FR)]))
    assert (found[DE].summary.rows, found[DE].summary.duplicates) == (30, 4)
    assert found[DE].rows.num_rows == 26
    assert (found[FR].summary.rows, found[FR].summary.duplicates) == (30, 0)


def test_what_will_bite_is_told_before_it_does(tmp_path: Path, eta: Family, log: Make) -> None:
    """Rows without id, time or answer, ids twice, names of nobody: counted over all rows."""
    parquet(tmp_path)
    assert log("scored.parquet").warnings() == ()
    parquet(
        tmp_path,
        f"""
        SELECT * REPLACE (
            CASE WHEN distance IN (0, 1, 2) THEN NULL WHEN distance IN (5, 7) THEN 'r3'
                 ELSE request END AS request,
            CASE WHEN distance NOT IN (10, 11) THEN asked_at END AS asked_at,
            CASE distance WHEN 12 THEN 'nan'::FLOAT WHEN 13 THEN NULL ELSE yhat END AS yhat,
            CASE WHEN distance < 50 THEN market WHEN distance < 55 THEN 'it'
                 WHEN distance < 57 THEN 'es' WHEN distance < 58 THEN 'pl'
                 WHEN distance < 59 THEN 'uk' END AS market)
        FROM ({SCORED})
        """,
    )
    theirs = log("scored.parquet")
    assert theirs.warnings() == (
        "3 rows have no id: they count as duplicates of one another, and no label finds them",
        "2 rows have no asked_at: they are in no window, ever",
        "2 rows have no prediction: they never count for performance",
        (
            "2 rows repeat an id of their model, as 'r3' of eta-fr: of each id one row counts,"
            " and the others are duplicates"
        ),
        (
            "10 rows are of none of these models, and are passed over: 'it', 'es', 'pl' and 2"
            " names more; written as 'de' or 'eta-de' they would count"
        ),
    )
    one = eta.model_copy(update={"markets": ("de",)})
    columns = {name: theirs for name, theirs in MAPPED.items() if name != "model"}
    assert len(log("scored.parquet", family=one, columns=columns).warnings()) == 4


def test_labels_of_an_id_whose_time_is_not_told(tmp_path: Path, eta: Family, log: Make) -> None:
    """Each with its model; without a time of theirs there is none to show."""
    parquet(tmp_path)
    parquet(
        tmp_path,
        "SELECT 'r2' AS request, unnest(['de', 'fr']) AS market, 9.0 AS truth",
        "known.parquet",
    )
    columns = {"id": "request", "model": "market", "label": "truth"}
    labels = LabelSource(source="known.parquet", columns=columns)
    theirs = log("scored.parquet", columns=LABELS_APART, labels=labels)
    assert theirs.label_history(eta, "r2") == {DE: ((None, 9.0),), FR: ((None, 9.0),)}


def test_rows_of_models_that_a_cut_leaves_out_are_not_nobodys(
    tmp_path: Path, eta: Family, log: Make
) -> None:
    """Written as another market they would count, as what they are not."""
    parquet(
        tmp_path,
        f"SELECT * FROM ({SCORED}) UNION ALL SELECT * REPLACE ('it' AS market) FROM"
        f" ({SCORED}) UNION ALL SELECT * REPLACE ('eta-fr' AS market) FROM ({SCORED})",
    )
    one = eta.model_copy(update={"markets": ("de",)})
    (warned,) = (
        each for each in log("scored.parquet", family=one).warnings([FR]) if "none" in each
    )
    assert warned.startswith("60 rows are of none of these models, and are passed over: 'it'; ")


def test_impossible_values_are_told_before_they_stop_a_model(
    tmp_path: Path, churn: Family, log: Make
) -> None:
    """As a window would meet them: of labels the newest counts, of ids the first row."""
    parquet(tmp_path, binary(churn))
    assert log("scored.parquet", family=churn).warnings() == ()
    parquet(
        tmp_path,
        f"SELECT * REPLACE (CASE WHEN request IN ('r8', 'r9') THEN 3 ELSE 1 END AS truth,"
        f" CASE request WHEN 'r6' THEN 1.5 ELSE 0.5 END AS yhat) FROM ({binary(churn)})",
    )
    assert log("scored.parquet", family=churn).warnings() == (
        (
            "2 rows have a label that is neither 0 nor 1, as 3.0 of id 'r8' of churn-uk: a model"
            " is not judged while its window has such a row"
        ),
        (
            "1 rows have a prediction that is no probability of 1, as 1.5 of id 'r6' of churn-uk:"
            " a model is not judged while its window has such a row"
        ),
    )


def test_every_fault_of_the_columns_at_once(tmp_path: Path, eta: Family, log: Make) -> None:
    """A feature that is missing, types that do not fit: each by name, with what there is."""
    parquet(
        tmp_path,
        f"SELECT * EXCLUDE vehicle REPLACE ('late' AS truth, [1] AS distance, 0.5 AS market)"
        f" FROM ({SCORED})",
    )
    with pytest.raises(SpecError) as raised:
        log("scored.parquet", columns={**MAPPED, "version": "yhat"}).rows(eta, window())
    said = [str(fault) for fault in raised.value.faults]
    assert sorted(line.partition(" (hint")[0] for line in said) == [
        "eta.toml: log.columns.distance: the column 'distance' should be numbers, and is INTEGER[]",
        "eta.toml: log.columns.label: the column 'truth' should be numbers, and is VARCHAR",
        "eta.toml: log.columns.model: the column 'market' should be text, and is DECIMAL(2,1)",
        "eta.toml: log.columns.vehicle: the source has no column 'vehicle'",
        "eta.toml: log.columns.version: the column 'yhat' should be whole numbers, and is FLOAT",
    ]
    assert any("it has request, market, asked_at" in line for line in said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("2 AS truth", "the label 2.0 is neither 0 nor 1"),
        ("1.5 AS yhat", "the prediction 1.5 is no probability of 1"),
    ],
)
def test_what_no_log_can_hold_is_refused(
    tmp_path: Path, churn: Family, log: Make, change: str, said: str
) -> None:
    """With the id of the first such row; the family's other models are as before."""
    parquet(tmp_path, binary(churn, "uk", "us"))
    two = churn.model_copy(update={"markets": ("uk", "us")})
    british, american = (window(model) for model in two.models)
    theirs = log("scored.parquet", family=two)
    assert theirs.rows(two, british).num_rows == 30
    parquet(
        tmp_path,
        f"FROM ({binary(churn, 'uk', 'us')}) WHERE market = 'us' UNION ALL"
        f" SELECT * REPLACE ({change}) FROM ({binary(churn, 'uk', 'us')}) WHERE market = 'uk'",
    )
    with pytest.raises(LogError, match=said) as raised:
        theirs.rows(two, british)
    looks = dict(theirs.looks(two, [british, american]))
    assert str(looks[british.model].fault) == str(raised.value)
    assert raised.value.where == "churn.toml: log, id r0"
    assert looks[american.model].fault is None
    assert looks[american.model].rows.num_rows == theirs.rows(two, american).num_rows == 30


@pytest.mark.parametrize(
    ("source", "table"),
    [
        ("nowhere.duckdb", "scored"),
        ("nowhere/*.parquet", None),
        ("serving.duckdb", "gone"),
        ("SELECT nonsense FROM nowhere", None),
        ("FROM 'scored.parquet'; DROP TABLE x", None),
        ("text.parquet", None),
        ("text.duckdb", "scored"),
    ],
)
def test_what_cannot_be_read_is_told(
    tmp_path: Path, eta: Family, log: Make, source: str, table: str | None
) -> None:
    """No such file, table or column, no Parquet, no database, more than one statement."""
    made(tmp_path / "serving.duckdb", f"CREATE TABLE scored AS {SCORED}")
    parquet(tmp_path)
    for name in ("text.parquet", "text.duckdb"):
        (tmp_path / name).write_text("not at all" * 1000)
    with pytest.raises(LogError, match=r"eta\.toml: log: the log cannot be read"):
        log(source, table=table).rows(eta, window())


def classes(colour: Family, label: str = "'blue'", answer: str = "'red'") -> str:
    """Return the query of rows of colour, all of its only market."""
    features = ", ".join(
        f"{'1.0' if feature.kind == 'numeric' else repr('a')} AS {name}"
        for name, feature in colour.features.items()
    )
    return (
        f"SELECT request, 'uk' AS market, asked_at AS {colour.time}, {answer} AS yhat,"
        f" {label} AS truth, {features} FROM ({SCORED})"
    )


UK = ModelId("colour-uk")


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("'blue'", "'red'"),
        ("CAST('blue' AS ENUM ('blue', 'red'))", "CAST('red' AS ENUM ('blue', 'red'))"),
        ("2", "0"),
        ("2::UTINYINT", "0::BIGINT"),
        ("'blue'", "0"),
    ],
)
def test_classes_are_read_by_name_or_by_place(
    tmp_path: Path, colour: Family, log: Make, label: str, answer: str
) -> None:
    """A text is a class's name, and a number its place, where no class is written as one."""
    parquet(tmp_path, classes(colour, label, answer))
    theirs = log("scored.parquet", family=colour)
    rows = theirs.rows(colour, window(UK))
    assert set(rows["label"].to_pylist()) == {2.0}
    assert set(rows["prediction"].to_pylist()) == {0.0}
    assert theirs.warnings() == ()


def test_numbers_are_names_where_a_class_is_written_as_one(
    tmp_path: Path, colour: Family, log: Make
) -> None:
    """Else 2 would be one thing in their log and another in ours."""
    numbered = colour.model_copy(update={"classes": ("10", "2", "off")})
    parquet(tmp_path, classes(numbered, "2", "10"))
    rows = log("scored.parquet", family=numbered).rows(numbered, window(UK))
    assert set(rows["label"].to_pylist()) == {1.0}
    assert set(rows["prediction"].to_pylist()) == {0.0}


def test_what_is_not_labelled_has_no_class(tmp_path: Path, colour: Family, log: Make) -> None:
    """Null stays null: it is no class that nobody knows."""
    parquet(tmp_path, classes(colour, "CASE WHEN distance < 20 THEN 'blue' END"))
    rows = log("scored.parquet", family=colour).rows(colour, window(UK))
    assert rows["label"].to_pylist() == [2.0] * 20 + [None] * 40


@pytest.mark.parametrize(
    ("label", "answer", "said"),
    [
        ("CASE distance WHEN 3 THEN 'purple' ELSE 'blue' END", "'red'", "label 'purple'"),
        ("'blue'", "CASE distance WHEN 3 THEN '' ELSE 'red' END", "prediction ''"),
        ("CASE distance WHEN 3 THEN 4 ELSE 2 END", "'red'", "label '4'"),
        ("CASE distance WHEN 3 THEN -1 ELSE 2 END", "'red'", "label '-1'"),
    ],
)
def test_an_unknown_class_is_that_models_trouble(
    tmp_path: Path, colour: Family, log: Make, label: str, answer: str, said: str
) -> None:
    """Named with its id; the other models are looked at, and `check` warns of it."""
    two = colour.model_copy(update={"markets": ("uk", "us")})
    whole = classes(two, label, answer)
    sound = classes(two).replace("'uk' AS market", "'us' AS market")
    parquet(tmp_path, f"FROM ({whole}) UNION ALL BY NAME FROM ({sound})")
    theirs = log("scored.parquet", family=two)
    us = ModelId("colour-us")
    if "4" in said or "-1" in said:  # one column cannot be of numbers and of texts
        parquet(tmp_path, whole)
        two = colour
        theirs = log("scored.parquet", family=two)
    with pytest.raises(LogError, match=f"the {said} is no class of colour") as raised:
        theirs.rows(two, window(UK))
    assert raised.value.where == "colour.toml: log, id r3"
    looks = dict(theirs.looks(two, [window(each) for each in two.models]))
    assert looks[UK].fault is not None
    assert us not in looks or looks[us].fault is None
    (warning,) = theirs.warnings()
    column, value = said.split(maxsplit=1)
    assert warning.startswith(
        f"1 rows have a {column} that is no class, as {value} of id 'r3' of colour-uk: a model"
    )


def test_an_unknown_class_in_a_source_of_labels(tmp_path: Path, colour: Family, log: Make) -> None:
    """It is named as it is written there."""
    parquet(tmp_path, classes(colour))
    parquet(tmp_path, "SELECT 'r5' AS request, 'purple' AS truth", "outcomes.parquet")
    labels = LabelSource(source="outcomes.parquet", columns={"id": "request", "label": "truth"})
    theirs = log("scored.parquet", family=colour, columns=LABELS_APART, labels=labels)
    with pytest.raises(LogError, match="the label 'purple' is no class of colour"):
        theirs.rows(colour, window(UK))
    (warning,) = theirs.warnings()
    assert "'purple' of id 'r5'" in warning


def test_classes_written_as_other_numbers_are_refused(
    tmp_path: Path, colour: Family, log: Make
) -> None:
    """A measurement is no class."""
    parquet(tmp_path, classes(colour, "0.5::DOUBLE"))
    with pytest.raises(SpecError, match="the column 'truth' should be text, and is DOUBLE"):
        log("scored.parquet", family=colour).rows(colour, window(UK))


def test_scores_have_no_labels(tmp_path: Path, risk: Family, log: Make) -> None:
    """None is looked for, even where a column is called so."""
    away = risk.model_copy(update={"name": "risk"})
    query = classes(away, "'whatever'", "distance::DOUBLE")
    parquet(tmp_path, query.replace("AS truth", "AS label"))
    columns = {"id": "request", "model": "market", "prediction": "yhat"}
    theirs = log("scored.parquet", family=away, columns=columns)
    rows = theirs.rows(away, window(ModelId("risk-uk")))
    assert rows["label"].null_count == rows.num_rows == 60
    assert rows["prediction"].to_pylist()[:3] == [0.0, 1.0, 2.0]
    assert theirs.summary(away, window(ModelId("risk-uk"))).labels == 0
    assert theirs.label_history(away, "r1") == {}
    assert theirs.warnings() == ()


def test_check_reads_every_column_of_every_file(tmp_path: Path, colour: Family, log: Make) -> None:
    """One file of many that lacks a feature is told where the others are counted."""
    parquet(tmp_path, classes(colour), "scored-1.parquet")
    theirs = log("scored-*.parquet", family=colour)
    assert [each.rows for each in theirs.contents()] == [theirs.rows(colour, window(UK)).num_rows]
    feature = next(iter(colour.features))
    lacking = f"SELECT * EXCLUDE ({feature}) FROM ({classes(colour)})"
    parquet(tmp_path, lacking, "scored-2.parquet")
    with pytest.raises((LogError, SpecError), match=feature):
        log("scored-*.parquet", family=colour).contents()
