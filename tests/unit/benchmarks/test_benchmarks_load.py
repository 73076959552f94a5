"""What the benchmarks' client counts, against a server that does as it is told."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks._load import ASKED, ID, Load, read_requests

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
Answer = Callable[[int], tuple[bytes, ...] | None]


@contextmanager
def server(answer: Answer) -> Iterator[int]:
    """Answer the n-th request with the parts that `answer(n)` gives; None hangs up."""
    counted = iter(range(10**9))

    def serve(caller: socket.socket) -> None:
        with caller:
            while got := caller.recv(65536):
                assert got.endswith(b"}")
                parts = answer(next(counted))
                if parts is None:
                    return
                for part in parts:
                    caller.sendall(part)

    def accept() -> None:
        while True:
            try:
                caller, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(caller,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield door.getsockname()[1]
        finally:
            door.shutdown(socket.SHUT_RDWR)


def asked(folder: Path, port: int, *flags: str) -> Load:
    """Return what a client saw that asked for a moment."""
    file = folder / "requests"
    file.write_bytes(b'/v1/models/m/predict {"id":"%b"}\n' % ID)
    load = Load(
        ASKED.parse_args(
            [f"--port={port}", f"--requests={file}", "--callers=2", "--seconds=0.1", *flags]
        )
    )
    load.run()
    return load


def answered(version: int, value: float) -> tuple[bytes, ...]:
    body = b'{"model":"m","version":%d,"epoch":1,"predictions":[{"id":"a","prediction":%f}]}'
    return (OK % (len(body % (version, value)), body % (version, value)),)


def test_an_id_stands_in_every_request_and_its_length_is_right(tmp_path: Path) -> None:
    """Wherever a body says so, and as long as the header says."""
    file = tmp_path / "requests"
    file.write_bytes(b'/a {"id":"@id@.0","and":"@id@.1"}\n/b {}\n')
    first, second = read_requests(file, digits=3)
    whole = b"r-7".join(first)
    head, body = whole.split(b"\r\n\r\n")
    assert head.startswith(b"POST /a HTTP/1.1\r\n")
    assert body == b'{"id":"r-7.0","and":"r-7.1"}'
    assert b"Content-Length: %d" % len(body) in head
    assert b"".join(second).endswith(b"Content-Length: 2\r\n\r\n{}")


def test_every_answer_counts_however_it_comes(tmp_path: Path) -> None:
    """In one piece or in three, nothing is lost and nothing failed."""
    whole = answered(1, 1000.0)[0]
    with server(lambda n: (whole[:10], whole[10:60], whole[60:]) if n % 2 else (whole,)) as port:
        load = asked(tmp_path, port)
    assert load.sent > 2
    assert (len(load.took), load.unanswered, load.dropped) == (load.sent, [], [])


def test_what_is_not_200_has_failed(tmp_path: Path) -> None:
    """A refusal is told by its status and by which request it was."""
    busy = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
    with server(lambda n: (busy,) if n == 1 else answered(1, 1000.0)) as port:
        load = asked(tmp_path, port)
    assert (load.statuses[429], len(load.unanswered)) == (1, 1)
    assert len(load.took) == load.sent - 1


def test_a_connection_that_is_lost_fails_its_request_alone(tmp_path: Path) -> None:
    """The client connects again and goes on."""
    with server(lambda n: None if n == 1 else answered(1, 1000.0)) as port:
        load = asked(tmp_path, port)
    assert (len(load.dropped), len(load.unanswered)) == (1, 1)
    assert len(load.took) == load.sent - 1 > 2


def test_an_answer_of_two_minds_is_counted(tmp_path: Path) -> None:
    """Version 2 cannot answer 1000, which is version 1's."""
    with server(lambda n: answered(2, 1000.2) if n == 1 else answered(2, 1999.7)) as port:
        load = asked(tmp_path, port, "--thousands")
    assert (load.mixed, load.answered_by) == (1, {(b"m", 2)})


def test_a_request_that_waited_is_late_since_it_was_due(tmp_path: Path) -> None:
    """A stall counts for those who came meanwhile, though they were sent only after it."""
    stalled = threading.Event()

    def answer(number: int) -> tuple[bytes, ...]:
        if number < 2:
            stalled.wait(0.05)
        return answered(1, 1000.0)

    with server(answer) as port:
        load = asked(tmp_path, port, "--rate=200")
    # Both connections stand still: those due in that time were sent after it, and are late too.
    assert sum(took >= 0.01 for took in load.took) > 2
    assert len(load.took) == load.sent == 20
