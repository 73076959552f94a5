import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fakes.batch import trips

from driftloop.batch.journal import Journal, folder_of
from driftloop.errors import BadRequest, LogError
from driftloop.records import Head, ModelId
from driftloop.serve.slot import NoChampion

Other = Callable[[int], Head]


class Death(BaseException):
    """What kill -9 is to a test: nothing is tidied up that a handler of errors would."""


class Dying:
    """A spool whose process dies at a chosen step of its `steps`-th segment."""

    def __init__(self, spool: Any, *, before: int, handed: bool) -> None:
        self.spool, self.left, self.handed = spool, before, handed

    def adopt(self, family: str, file: Path) -> None:
        self.left -= 1
        if self.left < 0 and not self.handed:
            raise Death
        self.spool.adopt(family, file)
        if self.left < 0:
            raise Death


def all_once(bench: Any, count: int, *, version: int) -> None:
    """Hold file and log to `count` rows, each once, in order, all by one version."""
    written, logged = bench.written(), bench.logged()
    assert written["prediction"].to_pylist() == [float(version * n) for n in range(count)]
    assert logged["prediction"].to_pylist() == written["prediction"].to_pylist()
    assert logged["id"].to_pylist() == written["id"].to_pylist()
    assert len({*written["id"].to_pylist()}) == count
    assert {*written["version"].to_pylist(), *logged["version"].to_pylist()} == {version}
    assert not list(bench.runs.iterdir())


@pytest.mark.parametrize("groups", [1000, 7, 10])
def test_rows_come_back_in_order_and_are_logged_once(bench: Any, groups: int) -> None:
    """However the source is cut; ids are made; nothing else stays behind."""
    scored = bench.score(bench.source(trips(95), row_group_size=groups))
    assert (scored.rows, scored.before, scored.head, scored.champion) == (
        *(95, 0, bench.champion),
        None,
    )
    all_once(bench, 95, version=2)
    assert bench.written().schema == pa.schema(
        [
            ("id", pa.string()),
            ("event_time", pa.timestamp("us", tz="UTC")),
            ("prediction", pa.float64()),
            ("version", pa.int32()),
            ("epoch", pa.int64()),
        ]
    )
    assert {each.what: each.done for each in bench.heard} == {
        "read": 0,
        "checked": 95,
        "scored": 95,
    }


def test_files_by_a_pattern_queries_and_csv_are_sources_too(bench: Any) -> None:
    """The same rows get the same answers and the same ids from each."""
    folder = bench.folder / "many"
    bench.source(trips(30).slice(0, 12), "many/a.parquet")
    bench.source(trips(30).slice(12), "many/b.parquet")
    csv = bench.folder / "rows.csv"
    pyarrow.csv.write_csv(trips(30), csv)
    seen = []
    for source in (
        f"{folder}/*.parquet",
        f"FROM '{folder}/*.parquet' ORDER BY distance;",
        str(csv),
    ):
        assert bench.score(source).rows == 30
        seen.append(bench.written())
    assert seen[0] == seen[1] == seen[2]
    bench.score(f"{folder}/*.parquet", out=bench.folder / "out.csv")
    read = pyarrow.csv.read_csv(bench.folder / "out.csv")
    assert read["prediction"].to_pylist() == seen[0]["prediction"].to_pylist()


def test_no_rows_make_an_empty_file(bench: Any) -> None:
    """With the columns that any other has; nothing is logged."""
    assert bench.score(bench.source(trips(0))).rows == 0
    assert bench.written().num_rows == 0
    assert bench.written().schema.names == ["id", "event_time", "prediction", "version", "epoch"]


@pytest.mark.parametrize("handed", [False, True])
@pytest.mark.parametrize("before", [0, 3, 9])
def test_after_a_death_the_same_batch_goes_on(
    bench: Any, other: Other, before: int, handed: Any
) -> None:
    """Wherever it died: complete, each row logged once, by the version it began with."""
    source = bench.source(trips(95), row_group_size=25)
    begun = bench.champion
    with pytest.raises(Death):
        bench.score(source, lambda spool: Dying(spool, before=before, handed=handed))
    assert not bench.out.exists()
    bench.champion = other(7)
    scored = bench.score(source)
    assert (scored.head, scored.champion) == (begun, bench.champion)
    assert scored.before >= before * 10
    all_once(bench, 95, version=2)


def test_a_death_between_any_two_files_loses_and_doubles_nothing(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At random renames, again and again, until it is done."""
    source, chance = bench.source(trips(95)), random.Random(4)
    bench.options.update(part_rows=3, at_once=1)
    deaths = 0
    for name in ("replace", "rename"):
        done = getattr(Path, name)

        def dying(self: Path, *given: Any, done: Any = done, **more: Any) -> Any:
            if chance.random() < 0.05:
                raise Death
            made = done(self, *given, **more)
            if chance.random() < 0.05:
                raise Death
            return made

        monkeypatch.setattr(Path, name, dying)
    while True:
        try:
            bench.score(source)
            break
        except Death:
            deaths += 1
    assert deaths > 5
    all_once(bench, 95, version=2)


def test_what_is_done_is_not_done_again(bench: Any, monkeypatch: Any) -> None:
    """Neither checked nor scored; whole row groups are not even read."""
    source = bench.source(trips(100), row_group_size=10)
    bench.options["at_once"] = 1
    with pytest.raises(Death):
        bench.score(source, lambda spool: Dying(spool, before=5, handed=True))
    bench.heard.clear()
    read: list[int] = []
    group = "driftloop.prediction_log.stream.Pieces._group"
    kept = __import__("driftloop.prediction_log.stream", fromlist=["Pieces"]).Pieces._group

    def noted(self: Any, file: Path, number: int, start: int) -> Any:
        read.append(number)
        return kept(self, file, number, start)

    monkeypatch.setattr(group, noted)
    scored = bench.score(source)
    assert scored.before >= 60
    assert read == list(range(scored.before // 10, 10))
    assert "checked" not in {each.what for each in bench.heard}
    all_once(bench, 100, version=2)


def test_a_full_disk_says_how_many_rows_are_logged(bench: Any) -> None:
    """And that the same again goes on; it does."""

    class Full:
        def __init__(self, spool: Any) -> None:
            self.spool, self.left = spool, 4

        def adopt(self, family: str, file: Path) -> None:
            self.left -= 1
            if self.left < 0:
                raise LogError("no space left on device")
            self.spool.adopt(family, file)

    source = bench.source(trips(95))
    with pytest.raises(
        LogError, match=r"40 of 95 rows were logged, and then no more.*space"
    ) as full:
        bench.score(source, Full)
    assert "run the same again" in full.value.hint
    bench.score(source)
    all_once(bench, 95, version=2)


def test_a_source_that_changed_is_refused(bench: Any) -> None:
    """Its rows would not fit those that are done; --anew begins again."""
    source = bench.source(trips(95))
    with pytest.raises(Death):
        bench.score(source, lambda spool: Dying(spool, before=3, handed=True))
    bench.source(trips(50))
    with pytest.raises(BadRequest, match="changed since this batch began") as refused:
        bench.score(source)
    assert "--anew" in refused.value.hint
    scored = bench.score(source, anew=True)
    assert (scored.rows, scored.before) == (50, 0)
    assert bench.written()["prediction"].to_pylist() == [2.0 * n for n in range(50)]


def test_what_a_query_gave_at_first_is_what_is_scored(bench: Any) -> None:
    """Its rows are kept once they are read: another answer, or order, changes nothing."""
    bench.source(trips(95))
    source = f"FROM '{bench.folder}/*.parquet'"
    with pytest.raises(Death):
        bench.score(source, lambda spool: Dying(spool, before=3, handed=True))
    bench.source(trips(5))
    assert bench.score(source).rows == 95
    all_once(bench, 95, version=2)


def test_a_fault_anywhere_is_told_before_a_row_is_logged(bench: Any) -> None:
    """With its column and its row in the whole source, over all files."""
    bench.source(trips(40), "many/a.parquet")
    wrong = [float(n) if n != 25 else float("nan") for n in range(40)]
    bench.source(trips(40, distance=pa.array(wrong)), "many/b.parquet")
    with pytest.raises(BadRequest, match="eta-de: column distance, row 66: is NaN"):
        bench.score(f"{bench.folder}/many/*.parquet")
    bench.source(trips(40).drop_columns("distance"), "many/b.parquet")
    with pytest.raises(BadRequest, match="column distance: the column is missing"):
        bench.score(f"{bench.folder}/many/*.parquet")
    assert not bench.out.exists()
    assert not bench.segments()
    assert not list(bench.runs.iterdir())


def test_an_id_that_stands_twice_in_the_whole_source_is_refused(bench: Any) -> None:
    """However far apart; the second one's row is named."""
    ids = pa.array([f"trip-{n}" for n in range(94)] + ["trip-3"])
    source = bench.source(trips(95, id=ids), row_group_size=10)
    with pytest.raises(BadRequest, match="column id, row 95: 'trip-3' stands twice"):
        bench.score(source)
    some = pa.array([f"trip-{n}" if n % 2 else None for n in range(95)])
    bench.score(bench.source(trips(95, id=some)))
    assert bench.written()["id"].to_pylist()[1] == "trip-1"
    all_once(bench, 95, version=2)


@pytest.mark.parametrize("source", ["nothing.parquet", "no/*.parquet", "rows.txt", "FROM nothing"])
def test_a_source_that_is_not_there_is_refused(bench: Any, source: str) -> None:
    """Nothing is begun."""
    with pytest.raises(BadRequest):
        bench.score(source)
    assert not list(bench.runs.iterdir())


def test_files_that_are_not_what_they_seem_are_refused(bench: Any) -> None:
    """Parquet that is none, and a CSV with a header alone."""
    (bench.folder / "rows.parquet").write_text("id\n")
    (bench.folder / "rows.csv").write_text("id,asked_at,distance\n")
    for name, said in (("rows.parquet", "cannot be read"), ("rows.csv", "header but no rows")):
        with pytest.raises(BadRequest, match=said):
            bench.score(str(bench.folder / name))


def test_without_a_champion_nothing_is_read(bench: Any) -> None:
    """A model without a champion says so."""
    bench.champion = None
    with pytest.raises(NoChampion):
        bench.score("nothing.parquet")


def test_two_at_the_same_batch_are_one_too_many(bench: Any) -> None:
    """The second is told, and the first not hindered."""
    source = bench.source(trips(20))
    names = {"model": ModelId("eta-de"), "source": source, "out": bench.out}
    with (
        Journal(folder_of(bench.runs, **names)),
        pytest.raises(BadRequest, match="another process is at just this batch"),
    ):
        bench.score(source)
    assert bench.score(source).rows == 20


def test_damaged_notes_are_told(bench: Any) -> None:
    """Nothing is guessed of what was done."""
    source = bench.source(trips(20))
    with pytest.raises(Death):
        bench.score(source, lambda spool: Dying(spool, before=1, handed=True))
    (plan,) = bench.runs.glob("*/plan.json")
    plan.write_text("{")
    with pytest.raises(LogError, match="notes of a batch cannot be read"):
        bench.score(source)


def test_what_is_looked_up_is_filled_in_before_it_is_answered(bench: Any) -> None:
    """The seam of batch features: what it adds is answered and logged."""

    def fill(table: pa.Table, **_: Any) -> pa.Table:
        column = table.column_names.index("distance")
        more = pa.array([5.0] * table.num_rows)
        fell = pa.array([["load"]] * table.num_rows)
        return table.set_column(column, "distance", more).append_column("fallbacks", fell)

    bench.options["fill"] = fill
    bench.score(bench.source(trips(20)))
    assert {*bench.written()["prediction"].to_pylist()} == {10.0}
    assert bench.logged()["fallbacks"].to_pylist() == [["load"]] * 20


def test_what_nothing_looks_up_is_refused(bench: Any) -> None:
    """No answer is made of features that are merely missing."""
    eta = bench.family
    load = eta.features["load"].model_copy(update={"source": "trucks"})
    family = eta.model_copy(update={"features": {**eta.features, "load": load}})
    bench.fleet = replace(bench.fleet, families=(family,))
    with pytest.raises(BadRequest, match="nothing here looks up or computes load"):
        bench.score(bench.source(trips(5)))
    assert not bench.segments()


def test_one_row_group_larger_than_what_is_held_is_read_in_pieces(bench: Any) -> None:
    """So memory does not grow with the file."""
    count = 150_000
    source = bench.source(trips(count).drop_columns("vehicle"), row_group_size=count)
    bench.options["part_rows"] = 40_000
    assert bench.score(source).rows == count
    assert [each.done for each in bench.heard if each.what == "checked"] == [
        *(65_536, 131_072),
        count,
    ]
    assert pq.ParquetFile(bench.out).metadata.num_rows == count
    assert bench.logged().num_rows == count
