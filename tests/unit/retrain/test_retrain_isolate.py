"""A fit in a process of its own: what comes back, and what becomes of those that do not."""

import asyncio
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import CalledOff, ParityError, TrainingFailed
from driftloop.retrain.isolate import LARGEST_FILE, run_isolated, warm_up

DEEDS = """
import os, signal, subprocess, sys, time

from driftloop.errors import PagerError, ParityError

def greedy():
    return len(bytearray(2**32))

def hang(file):
    child = subprocess.Popen(["sleep", "600"])
    with open(file, "w") as note:
        note.write(f"{os.getpid()} {child.pid}")
    print("still at it", flush=True)
    time.sleep(600)

def spin(file):
    child = subprocess.Popen(["sleep", "600"])
    with open(file, "w") as note:
        note.write(f"{os.getpid()} {child.pid}")
    while True:
        pass

def leave_a_child(file):
    child = subprocess.Popen(["sleep", "600"])
    with open(file, "w") as note:
        note.write(str(child.pid))

def answer_half():
    import gc
    from multiprocessing.connection import Connection
    sender = next(o for o in gc.get_objects() if type(o) is Connection and o.writable)
    os.write(sender.fileno(), (1000).to_bytes(4, "big") + b"half")
    os._exit(7)

def refuse():
    raise ParityError("3 rows differ", where="eta-de", hint="look")

def refuse_oddly():
    error = PagerError("the channel is gone", where="#ml", retry=False)
    error.held = lambda: None  # some libraries make errors travel: not with this
    raise error

def unpicklable():
    return lambda: None

def talk():
    print("to stdout")
    print("to stderr", file=sys.stderr)

def shout_and_leave():
    for _ in range(8):
        sys.stdout.write("x" * 1_000_000)
    print(" | last words", flush=True)
    os._exit(3)

def fill_the_disk():
    import resource
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    for _ in range(2):
        print("x" * 100_000, flush=True)
    return most

def print_on_a_full_disk():
    with __import__("contextlib").suppress(OSError):
        fill_the_disk()
    return "an answer"

def handlers():
    names = ("SIGINT", "SIGTERM", "SIGALRM")
    own_group = os.getpgid(0) == os.getpid()
    return [signal.getsignal(getattr(signal, n)) == signal.SIG_DFL for n in names], own_group

def threads():
    import numpy, sklearn.ensemble, threadpoolctl
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
"""

CALLER = """
import sys
from driftloop.retrain.isolate import run_isolated
import driftloop_test_deeds as deeds

if __name__ == "__main__":
    deed, note = sys.argv[1:]
    run_isolated(getattr(deeds, deed), note, time_limit=60.0, memory_gib=2.0, name="fit")
"""

WARMING = """
import sys, time
from driftloop.retrain.isolate import run_isolated, warm_up

if __name__ == "__main__":
    warm_up(["driftloop_test_slow"])
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print(run_isolated(abs, -1, time_limit=60.0, memory_gib=2.0, name="fit"))
"""
SLOW = """
import pathlib, time
pathlib.Path(__file__).with_name("warming").touch()
time.sleep(1.0)
"""


@pytest.fixture(scope="module")
def deeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module that children can import, and a warm fork server."""
    folder = tmp_path_factory.mktemp("deeds")
    (folder / "driftloop_test_deeds.py").write_text(DEEDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        warm_up(["sklearn.ensemble", "threadpoolctl"])
        import driftloop_test_deeds

        yield driftloop_test_deeds


def isolated(function: Any, *args: Any, **changed: Any) -> Any:
    limits = {"time_limit": 60.0, "memory_gib": 2.0, "name": "fit eta-de"}
    return run_isolated(function, *args, **(limits | changed))


def gone(pid: int) -> bool:
    """Whether the process is dead within two seconds."""
    for _ in range(100):
        if ended(pid):
            return True
        time.sleep(0.02)
    return False


def ended(pid: int) -> bool:
    """Whether the process is dead; a zombie is."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def test_a_result_comes_back_large_or_small(deeds: Any) -> None:
    """What the function returned, also when it does not fit into a pipe's buffer."""
    assert isolated(math.sqrt, 2.0) == math.sqrt(2.0)
    assert isolated(bytes, 5_000_000) == bytes(5_000_000)
    assert isolated(os.getpid) != os.getpid()


def test_our_errors_come_back_as_they_are(deeds: Any) -> None:
    """Class, place and hint survive the way."""
    with pytest.raises(ParityError) as caught:
        isolated(deeds.refuse)
    assert (caught.value.what, caught.value.where, caught.value.hint) == (
        "3 rows differ",
        "eta-de",
        "look",
    )


def test_an_error_that_cannot_travel_keeps_its_words(deeds: Any) -> None:
    """One of ours that does not pickle arrives as TrainingFailed with the same text."""
    with pytest.raises(TrainingFailed, match="#ml: the channel is gone"):
        isolated(deeds.refuse_oddly)


def test_any_other_error_is_named(deeds: Any, tmp_path: Path) -> None:
    """The type and message in the error, the traceback in the log."""
    log = tmp_path / "fit.log"
    with pytest.raises(TrainingFailed, match="fit eta-de: raised ValueError: math domain error"):
        isolated(math.sqrt, -1.0, log=log)
    assert "Traceback" in log.read_text()


def test_a_result_that_cannot_travel_is_an_error(deeds: Any) -> None:
    """Nobody waits for an answer that never comes."""
    with pytest.raises(TrainingFailed, match="pickle"):
        isolated(deeds.unpicklable)


def test_a_killed_child_is_named_with_its_signal(deeds: Any) -> None:
    """A crash ends the child alone, and the error says by which signal."""
    with pytest.raises(TrainingFailed, match="was killed by SIGABRT"):
        isolated(os.abort)


def test_a_child_that_just_leaves_is_noticed(deeds: Any) -> None:
    """An exit without an answer is a failure, with its code."""
    with pytest.raises(TrainingFailed, match="ended with code 3 before it answered"):
        isolated(os._exit, 3)


def test_out_of_memory_is_named(deeds: Any) -> None:
    """Four GiB asked of two: the limit holds, and the hint names the key."""
    with pytest.raises(TrainingFailed, match="ran out of its 2 GiB") as caught:
        isolated(deeds.greedy)
    assert "retrain.memory_gib" in caught.value.hint


def test_out_of_time_ends_it_and_its_children(deeds: Any, tmp_path: Path) -> None:
    """A hung fit is ended at its limit with all it started, and its last words are repeated."""
    note, began = tmp_path / "pids", time.monotonic()
    with pytest.raises(TrainingFailed, match=r"within 1\.5 s.*it last said: still at it"):
        isolated(deeds.hang, str(note), time_limit=1.5)
    assert time.monotonic() - began < 4.0
    assert all(gone(int(pid)) for pid in note.read_text().split())


def test_a_fit_that_is_called_off_ends_with_all_it_started(deeds: Any, tmp_path: Path) -> None:
    """Another thread sets the event: child and grandchild are gone within a second or two."""
    note, off = tmp_path / "pids", threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(isolated, deeds.hang, str(note), time_limit=60.0, called_off=off)
        until = time.monotonic() + 30.0
        while not (note.exists() and len(note.read_text().split()) == 2):
            assert time.monotonic() < until
            time.sleep(0.02)
        off.set()
        with pytest.raises(CalledOff, match="was called off"):
            running.result(5.0)
    assert all(gone(int(pid)) for pid in note.read_text().split())


@pytest.mark.parametrize("deed", ["hang", "spin"])
def test_a_killed_caller_takes_its_fit_along(deeds: Any, tmp_path: Path, deed: str) -> None:
    """A SIGKILL of the caller ends child and grandchild, whether the child sleeps or computes."""
    script, note = tmp_path / "caller.py", tmp_path / "pids"
    script.write_text(CALLER)
    own = {"PYTHONPATH": str(Path(deeds.__file__).parent), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, str(script), deed, str(note)], env=os.environ | own
    ) as caller:
        until = time.monotonic() + 30.0
        while not (note.exists() and len(note.read_text().split()) == 2):
            assert time.monotonic() < until
            time.sleep(0.02)
        pids = [int(pid) for pid in note.read_text().split()]
        assert not any(ended(pid) for pid in pids)
        caller.kill()
    assert all(gone(pid) for pid in pids)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_the_server_imports_is_the_callers_alone(tmp_path: Path) -> None:
    """A terminal sends it to the whole group: no traceback, and the server goes on serving."""
    script = tmp_path / "caller.py"
    script.write_text(WARMING)
    (tmp_path / "driftloop_test_slow.py").write_text(SLOW)
    pythonpath = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": pythonpath},
    ) as caller:
        until = time.monotonic() + 30.0
        while not (tmp_path / "warming").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(caller.pid, signal.SIGINT)
        # The server holds the pipe too: it is at its end once nobody is left.
        said, _ = caller.communicate(timeout=30.0)
    assert (caller.returncode, said) == (0, "1\n")


def test_an_answer_cut_short_is_no_answer(deeds: Any) -> None:
    """A child that dies while it sends is a dead child, not one that could not be started."""
    with pytest.raises(TrainingFailed, match="ended with code 7 before it answered"):
        isolated(deeds.answer_half)


def test_nothing_outlives_a_good_answer(deeds: Any, tmp_path: Path) -> None:
    """A child process that the function forgot is ended too."""
    note = tmp_path / "pid"
    isolated(deeds.leave_a_child, str(note))
    assert gone(int(note.read_text()))


def test_output_goes_to_the_log_and_nowhere_else(
    deeds: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both streams are appended to the log; the caller's stay clean."""
    log = tmp_path / "fit.log"
    log.write_text("before\n")
    isolated(deeds.talk, log=log)
    assert sorted(log.read_text().splitlines()) == ["before", "to stderr", "to stdout"]
    assert capfd.readouterr() == ("", "")


def test_megabytes_of_output_are_not_repeated(deeds: Any, tmp_path: Path) -> None:
    """The error, which is paged and kept, has the last words alone; the log has everything."""
    log = tmp_path / "fit.log"
    with pytest.raises(TrainingFailed, match=r"last words$") as caught:
        isolated(deeds.shout_and_leave, log=log)
    assert len(str(caught.value)) < 1000
    assert log.stat().st_size > 8_000_000


def test_what_fills_its_log_is_ended_and_told(deeds: Any, tmp_path: Path) -> None:
    """No file of a child grows for ever; where it cannot print any more it can still answer."""
    log = tmp_path / "fit.log"
    with pytest.raises(TrainingFailed, match=r"raised OSError: .*File too large"):
        isolated(deeds.fill_the_disk, log=log)
    assert log.stat().st_size == 100_000
    assert isolated(deeds.print_on_a_full_disk, log=tmp_path / "other.log") == "an answer"
    assert isolated(resource.getrlimit, resource.RLIMIT_FSIZE)[0] == LARGEST_FILE


def test_the_child_has_default_signals_one_thread_and_its_own_group(deeds: Any) -> None:
    """Nothing of the caller's handlers, and no fight for the cores."""
    assert isolated(deeds.handlers) == ([True, True, True], True)
    assert isolated(deeds.threads) == {1}


def test_threads_of_an_asyncio_process_may_call_at_once(deeds: Any) -> None:
    """Eight calls from four threads under a running loop: each gets its own answer, or death."""

    def one(number: int) -> float | str:
        try:
            return isolated(math.sqrt, number) if number % 3 else isolated(os._exit, number)
        except TrainingFailed as error:
            return error.what

    async def all_at_once() -> list[float | str]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(4) as pool:
            return await asyncio.gather(*(loop.run_in_executor(pool, one, n) for n in range(1, 9)))

    expected = [
        math.sqrt(n) if n % 3 else f"ended with code {n} before it answered" for n in range(1, 9)
    ]
    assert asyncio.run(all_at_once()) == expected


def test_a_warm_start_is_cheap(deeds: Any) -> None:
    """The best of five starts with scikit-learn loaded takes less than half of importing it."""
    isolated(math.sqrt, 2.0)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        isolated(math.sqrt, 2.0)
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import sklearn.ensemble"], check=True)
    assert min(times) < (time.perf_counter() - began) / 2
