import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log import SegmentSpool, sealed, waiting
from driftloop.spec import Family

Make = Callable[..., Any]

FULL_DISK = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from driftloop.errors import LogError
from driftloop.prediction_log import SegmentSpool
from driftloop.records import Label

def row(i):
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Label(id=f"row-{i:04}", model="eta-de", value=1.0, observed_at=at)

with SegmentSpool(Path(sys.argv[1]), seal_rows=10**6, seal_every=3600.0) as spool:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    taken = []
    for i in range(30):
        try:
            spool.labels("eta", [row(i)])
            taken.append(f"row-{i:04}")
        except LogError as error:
            assert "could not be written" in str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    spool.labels("eta", [row(99)])
    print(",".join([*taken, "row-0099"]))
"""


def ids(folder: Path) -> list[str]:
    """The ids of all sealed rows, by segment."""
    return [
        msgspec.json.decode(line)["id"]
        for path in sorted(folder.glob("*.ndjson"))
        for line in path.read_bytes().splitlines()
    ]


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `true()` came about in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_rows_are_with_the_system_on_return(
    tmp_path: Path, spool: SegmentSpool, prediction: Make
) -> None:
    """What predictions() returned for can be read by anybody, before any sealing."""
    spool.predictions("eta", [prediction("a"), prediction("b")])
    (segment,) = (tmp_path / "spool" / "one").glob("predictions.eta.*.open")
    assert [msgspec.json.decode(line)["id"] for line in segment.read_bytes().splitlines()] == [
        "a",
        "b",
    ]


def test_full_segments_are_sealed(tmp_path: Path, prediction: Make) -> None:
    """A segment is sealed once it has seal_rows rows, and a new one begins."""
    with SegmentSpool(tmp_path / "w", seal_rows=2, seal_every=3600.0) as spool:
        for i in range(5):
            spool.predictions("eta", [prediction(str(i))])
        assert until(lambda: len(list((tmp_path / "w").glob("*.ndjson"))) == 2)
        assert len(list((tmp_path / "w").glob("*.open"))) == 1
    assert ids(tmp_path / "w") == ["0", "1", "2", "3", "4"]


def test_idle_segments_are_sealed(tmp_path: Path, label: Make) -> None:
    """A segment nobody appends to any more is sealed after seal_every seconds."""
    with SegmentSpool(tmp_path / "w", seal_rows=100, seal_every=0.05) as spool:
        spool.labels("eta", [label("a", 1.0)])
        assert until(lambda: ids(tmp_path / "w") == ["a"])
        spool.labels("eta", [label("b", 1.0)])
        assert until(lambda: ids(tmp_path / "w") == ["a", "b"])


def test_threads_do_not_mix_lines(tmp_path: Path, label: Make) -> None:
    """Rows appended by several threads at once are each whole and all there."""
    with SegmentSpool(tmp_path / "w", seal_rows=50, seal_every=0.01) as spool:

        def write(thread: int) -> None:
            for i in range(200):
                spool.labels("eta", [label(f"{thread}-{i}", 1.0)])

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ids(tmp_path / "w")) == sorted(f"{n}-{i}" for n in range(4) for i in range(200))


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    """Where the system takes only part of a line, LogError is raised and nothing of it stays."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "w")],
        check=True, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    taken = done.stdout.strip().split(",")
    assert 5 < len(taken) < 30
    assert ids(tmp_path / "w") == taken


def test_a_line_that_cannot_be_taken_back_is_cut_at_sealing(
    tmp_path: Path, spool: SegmentSpool, label: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If even the cut fails, the segment takes no more rows and is cut when it is sealed."""
    spool.labels("eta", [label("a", 1.0)])
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, lines: write(file, lines[:10]))
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(LogError):
            spool.labels("eta", [label("b", 1.0)])
    spool.labels("eta", [label("c", 1.0)])
    spool.seal()
    assert ids(tmp_path / "spool" / "one") == ["a", "c"]


def test_a_failed_sealing_is_told_and_tried_again(
    tmp_path: Path, spool: SegmentSpool, label: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """seal() raises when the rows cannot be made durable, and keeps them for the next time."""
    spool.labels("eta", [label("a", 1.0)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(LogError, match="could not be written"):
            spool.seal()
    assert ids(tmp_path / "spool" / "one") == []
    spool.seal()
    assert ids(tmp_path / "spool" / "one") == ["a"]


def test_a_folder_has_one_writer(
    tmp_path: Path, spool: SegmentSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second writer of a living one's folder is refused."""
    monkeypatch.setattr("driftloop.prediction_log.spool._PATIENCE", 0.05)
    with pytest.raises(LogError, match="another process writes"):
        SegmentSpool(tmp_path / "spool" / "one")


def test_a_new_writer_seals_what_a_dead_one_left(tmp_path: Path, label: Make) -> None:
    """Taking over a folder recovers its open segments; the torn last line is cut."""
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "labels.eta.00.open").write_bytes(b'{"id":"a"}\n{"id":"b"}\n{"id":"to')
    (folder / "labels.eta.01.open").write_bytes(b'{"id"')
    with SegmentSpool(folder):
        assert ids(folder) == ["a", "b"]
        assert [path.name for path in folder.glob("labels.eta.01.*")] == []


def test_closing_seals_and_gives_the_folder_up(tmp_path: Path, label: Make) -> None:
    """After close() all is sealed, the folder is free and the spool takes no more."""
    spool = SegmentSpool(tmp_path / "w")
    spool.labels("eta", [label("a", 1.0)])
    spool.close()
    spool.close()
    assert ids(tmp_path / "w") == ["a"]
    with (tmp_path / "w" / "owner.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(LogError, match="closed"):
        spool.labels("eta", [label("b", 1.0)])


def test_what_could_never_be_read_is_refused(spool: SegmentSpool, label: Make) -> None:
    """A label that is no number, or a text that is no Unicode, must not spoil a segment."""
    with pytest.raises(BadRequest, match="finite"):
        spool.labels("eta", [label("a", float("nan"))])
    with pytest.raises(BadRequest, match="Unicode"):
        spool.labels("eta", [label("\ud800", 1.0)])


def test_rows_that_wait_for_the_ingester_are_known(
    tmp_path: Path, spool: SegmentSpool, prediction: Make, label: Make, eta: Family
) -> None:
    """By id and model, of sealed segments of the family; one that vanishes is the lake's."""
    rows = pa.table({"id": ["c", "a", "a", "b"], "model": ["eta-de", "eta-fr", "eta-de", "eta-de"]})
    folder = tmp_path / "spool"
    assert waiting(folder / "none", eta, rows).num_rows == 0
    spool.predictions("eta", [prediction(id_) for id_ in ("a", "c", "d")])
    spool.labels("eta", [label("b", 1.0)])
    assert waiting(folder, eta, rows).num_rows == 0
    spool.seal()
    (one,) = sealed(folder, "predictions", "eta")
    one.write_bytes(one.read_bytes() + b"torn\n")
    one.with_name("predictions.eta.gone.ndjson").symlink_to("gone")
    found = waiting(folder, eta, rows).to_pydict()
    assert found == {"id": ["c", "a"], "model": ["eta-de", "eta-de"]}
    later = eta.model_copy(update={"name": "later"})
    assert waiting(folder, later, rows).num_rows == 0
    # What was set aside does not come in.
    (folder / "quarantine").mkdir()
    one.rename(folder / "quarantine" / one.name)
    assert waiting(folder, eta, rows).num_rows == 0
