"""Runs a function in a process of its own, so that a bad fit takes nothing else with it.

Children are forked from multiprocessing's fork server, a small single-threaded process that has
imported the heavy libraries once: a start costs tens of milliseconds instead of seconds, and no
thread, lock, connection or signal handler of the caller is copied.
"""

import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import (
    connection,
    current_process,
    forkserver,
    get_context,
    parent_process,
    resource_tracker,
)
from pathlib import Path
from typing import Any, TypeVar

from driftloop.errors import MOST_SAID, CalledOff, DriftloopError, TrainingFailed, named

T = TypeVar("T")
GRACE = 10.0
"""Seconds after its limit at which a child that nobody ended (its caller hangs) ends itself."""
LOOK_EVERY = 0.25
"""Seconds between two looks at whether somebody called it off."""
TAIL = 5
"""Lines of a dead child's output that its error repeats."""
LARGEST_FILE = 2 * 2**30
"""Bytes to which a file of a child may grow: one that prints for hours must not fill the disk."""

_context = get_context("forkserver")
# multiprocessing's list of children is polled by every start; two threads that poll one child at
# the same moment would lose its exit code.
_children = threading.Lock()


def warm_up(modules: Iterable[str]) -> None:
    """Start the fork server, importing `modules` in it; returns before they are imported.

    Only the first call of a process says which modules: later ones only see that it runs.
    """
    _context.set_forkserver_preload(["__main__", __name__, *modules])
    # Ctrl-C is the caller's affair: the server ends with it, and is not torn out of an import. The
    # tracker, which the server brings up first, would let the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_isolated(
    function: Callable[..., T],
    *args: Any,  # noqa: ANN401 - handed through
    time_limit: float,
    memory_gib: float,
    name: str,
    log: Path | None = None,
    called_off: threading.Event | None = None,
) -> T:
    """Return `function(*args)` as computed in a child process with one thread a library.

    May be called from several threads at once. Whatever the child started is ended with it, but
    for what left its process group; and the child itself when its caller dies, however that dies.

    Args:
        function: a function of a module, so that it can be named to the child.
        args: what it is given; these and its result are pickled.
        time_limit: seconds of wall time, start included.
        memory_gib: most private memory (RLIMIT_DATA); the libraries take 0.35 GiB of it.
        name: what it is called in errors.
        log: file its output is appended to; None keeps only what an error repeats.
        called_off: ends the child once another thread sets it.

    Raises:
        CalledOff: `called_off` was set before it answered.
        TrainingFailed: it raised, crashed, was killed, ran out of memory or out of time; says
            which.
        DriftloopError: the function's own.
    """
    with _output(log) as output:
        receiver, sender = _context.Pipe(duplex=False)
        process = _context.Process(
            target=_child,
            args=(sender, function, args, str(output.absolute()), time_limit, memory_gib),
            name=name,
            daemon=True,  # so that a caller that exits does not wait for it
        )
        deadline = time.monotonic() + time_limit
        with receiver:
            try:
                with sender, _children:
                    process.start()
                answer = _received(receiver, process, deadline, called_off)
            except OSError as error:
                raise TrainingFailed(f"no process could be started: {error}", where=name) from error
            finally:
                exit_code = _ended(process)
        if answer is None:
            raise _died(exit_code, name, output, time_limit)
    raised, value = answer
    if raised is None:
        result: T = value
        return result
    if isinstance(raised, MemoryError):
        raise TrainingFailed(
            f"ran out of its {memory_gib:g} GiB of memory",
            where=name,
            hint="raise retrain.memory_gib, or train on fewer rows (retrain.span)",
        )
    raise raised


# -- in the caller --------------------------------------------------------------------------


@contextmanager
def _output(log: Path | None) -> Iterator[Path]:
    if log is not None:
        yield log
        return
    with tempfile.NamedTemporaryFile(prefix="driftloop-", suffix=".log") as kept:
        yield Path(kept.name)


def _received(
    receiver: "connection.Connection[Any, Any]",
    process: Any,  # noqa: ANN401 - the context's own Process class
    deadline: float,
    called_off: threading.Event | None,
) -> tuple[BaseException | None, Any] | None:
    """Return what the child answered, None when it died or the time is up."""
    off = called_off or threading.Event()
    while (left := deadline - time.monotonic()) > 0.0:
        if off.is_set():
            raise CalledOff("was called off", where=process.name)
        if connection.wait([receiver, process.sentinel], min(left, LOOK_EVERY)):
            break
    if receiver.poll():
        try:
            answer: tuple[BaseException | None, Any] = receiver.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of its answer
            # It is dying; its exit code comes a moment after its end of the pipe is gone.
            connection.wait([process.sentinel], 1.0)
        else:
            return answer
    return None


def _ended(process: Any) -> int | None:  # noqa: ANN401 - the context's own Process class
    """End the child and whatever it started; return its exit code, None if it never started."""
    if process.pid is None:
        return None
    with _children:
        process.join(0.0)
        before: int | None = process.exitcode
        for kill in (os.killpg, os.kill) if before is None else (os.killpg,):
            with suppress(ProcessLookupError):
                kill(process.pid, signal.SIGKILL)
        process.join(GRACE)
        process.close()
    return before


def _died(exit_code: int | None, name: str, output: Path, time_limit: float) -> TrainingFailed:
    tail = ""
    with suppress(OSError):
        tail = _last_words(output)
    said = f"; it last said: {tail}" if tail else ""
    if exit_code is None:
        return TrainingFailed(
            f"did not finish within {time_limit:g} s and was ended{said}",
            where=name,
            hint="raise retrain.time_limit, or train on fewer rows (retrain.span)",
        )
    if exit_code < 0:
        how = f"was killed by {signal.Signals(-exit_code).name}"
        hint = "the machine may have run out of memory" if exit_code == -signal.SIGKILL else ""
    else:
        how, hint = f"ended with code {exit_code} before it answered", ""
    return TrainingFailed(f"{how}{said}", where=name, hint=hint)


def _last_words(output: Path) -> str:
    with output.open("rb") as file:
        file.seek(max(output.stat().st_size - TAIL * MOST_SAID, 0))
        lines = file.read().decode(errors="replace").splitlines()
    said = " | ".join(line.strip() for line in lines[-TAIL:])
    return said if len(said) <= MOST_SAID else f"...{said[-MOST_SAID:]}"


# -- in the child ---------------------------------------------------------------------------


def _child(
    sender: "connection.Connection[Any, Any]",
    function: Callable[..., Any],
    args: tuple[Any, ...],
    output: str,
    time_limit: float,
    memory_gib: float,
) -> None:
    _settle(output, time_limit, memory_gib)
    try:
        import threadpoolctl  # type: ignore[import-untyped]  # has no type information

        # Two fits side by side would fight for the cores with more threads each.
        with threadpoolctl.threadpool_limits(1):
            answer = (None, function(*args))
        packed = _packed(answer)
    except MemoryError:
        packed = pickle.dumps((MemoryError(), None))
    except BaseException as error:  # noqa: BLE001 - whatever it raised, the caller is told
        with suppress(OSError):  # the disk may be full, and the answer is needed all the more
            traceback.print_exc()
        packed = pickle.dumps((_portable(error), None))
    for printed in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # ValueError: it was closed
            printed.flush()
    sender.send_bytes(packed)


def _settle(output: str, time_limit: float, memory_gib: float) -> None:
    """Make the process its own: group, end, signals, output, limits."""
    os.setsid()
    threading.Thread(target=_end_with_caller, name="end-with-caller", daemon=True).start()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.setitimer(signal.ITIMER_REAL, time_limit + GRACE)
    with Path(output).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    most = int(memory_gib * 2**30)
    # Private writable memory, and not RLIMIT_AS: libraries reserve addresses that they never use.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    allowed = LARGEST_FILE if hard == resource.RLIM_INFINITY else min(LARGEST_FILE, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, hard))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
        os.environ[variable] = "1"


def _end_with_caller() -> None:
    """Wait for the caller's death, which the kernel shows, and end the group with it.

    The fork server is our parent and does not know; but the caller alone holds the other end of
    the pipe that we were sent through, and holds it until it has our exit code.
    """
    caller = parent_process()
    if caller is not None:
        connection.wait([caller.sentinel])
        os.killpg(os.getpid(), signal.SIGKILL)


def _packed(answer: tuple[None, object]) -> bytes:
    try:
        return pickle.dumps(answer)
    except Exception as error:
        raise TrainingFailed(
            f"its result could not be pickled: {named(error)}", where=current_process().name
        ) from error


def _portable(error: BaseException) -> DriftloopError:
    """Return `error` if it survives the way to the caller, else its words."""
    if isinstance(error, DriftloopError):
        with suppress(Exception):
            if str(pickle.loads(pickle.dumps(error))) == str(error):  # noqa: S301 - made a line above
                return error
        return TrainingFailed(str(error))
    return TrainingFailed(f"raised {named(error)}", where=current_process().name)
