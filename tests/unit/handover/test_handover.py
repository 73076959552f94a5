"""New versions told to who serves them elsewhere: real commands, a real HTTP server."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from driftloop.errors import BadRequest, HandoverFailed
from driftloop.handover import Handover
from driftloop.records import Head, ModelId
from driftloop.spec import Family, HandoverPolicy

DE = ModelId("eta-de")
HEAD = Head(model=DE, epoch=2, version=2, digest="ab12", artifact="/models/2/model.onnx")
FOUND = Head(model=DE, epoch=1, version=1, digest="cd34", artifact="/models/1/reference.parquet")
TOLD = {
    "model": "eta-de",
    "version": 2,
    "previous": 1,
    "artifact": "/models/2/model.onnx",
    "digest": "ab12",
    "features": ["distance", "load", "vehicle"],
    "key": "eta-de/k",
}


@dataclass
class Site:
    """An HTTP server that answers with `status` and keeps what it was sent."""

    url: str
    status: int = 200
    seen: list[tuple[dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    """Runs while a test does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.seen.append((dict(self.headers), json.loads(body)))
            self.send_response(made.status)
            self.end_headers()
            self.wfile.write(b"because")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Site(url=f"http://127.0.0.1:{server.server_port}/versions")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


@pytest.fixture
def told(eta: Family, tmp_path: Path) -> Callable[..., None]:
    """`told(head, token=..., **policy)` hands a version over."""

    def tell(head: Head = HEAD, *, token: str | None = None, **policy: Any) -> None:
        family = eta.model_copy(update={"handover": HandoverPolicy(**policy)})
        previous = FOUND if head is HEAD else HEAD
        Handover(tmp_path, token=token).hand_over(family, head, previous=previous, key="eta-de/k")

    return tell


def script(folder: Path, text: str) -> tuple[str, ...]:
    """Return the command that runs `text` in a shell, named as in the monitor's folder."""
    (folder / "take.sh").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "take.sh").chmod(0o755)
    return ("./take.sh", "now")


def test_a_command_is_told_on_its_standard_input(told: Any, tmp_path: Path) -> None:
    """In the folder of the monitor files, with its words as they are."""
    told(command=script(tmp_path, 'cat > told.json; echo "$1" > words'))
    assert json.loads((tmp_path / "told.json").read_text()) == TOLD
    assert (tmp_path / "words").read_text() == "now\n"


def test_who_serves_classes_is_told_their_names(colour: Family, tmp_path: Path) -> None:
    """In the order whose places the model answers with; others are told of none."""
    policy = HandoverPolicy(command=script(tmp_path, "cat > told.json"))
    family = colour.model_copy(update={"handover": policy})
    Handover(tmp_path).hand_over(family, HEAD, previous=FOUND, key="k")
    said = json.loads((tmp_path / "told.json").read_text())
    assert said["classes"] == ["red", "green", "blue", "off white"]


def test_what_was_found_has_no_file_to_hand_over(told: Any, tmp_path: Path) -> None:
    """A rollback to it names its version and no artifact."""
    told(FOUND, command=script(tmp_path, "cat > told.json"))
    said = json.loads((tmp_path / "told.json").read_text())
    assert (said["version"], said["previous"], said["artifact"]) == (1, 2, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo the canary failed; exit 3", "the command ended with 3: the canary failed"),
        ("exit 1", "the command ended with 1: it said nothing"),
        ("kill -9 $$", "the command ended with -9"),
    ],
)
def test_a_command_that_says_no(told: Any, tmp_path: Path, text: str, said: str) -> None:
    """Its code and its last words are told, one that never read its input too."""
    with pytest.raises(HandoverFailed, match=rf"eta\.toml: handover: {said}"):
        told(command=script(tmp_path, text))


def test_a_command_that_is_not_there(told: Any) -> None:
    """Named, with why."""
    with pytest.raises(HandoverFailed, match=r"'\./nothing' cannot be run: No such file"):
        told(command=("./nothing",))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("./nothing", r"there is no program '\./nothing' \(hint: it would be /.*/nothing"),
        ("./folder", r"there is no program '\./folder'"),
        ("./plain", r"'\./plain' is not executable \(hint: chmod \+x /.*/plain"),
        ("take.sh", r"no program 'take\.sh' on the PATH \(hint: .* is '\./take\.sh'"),
        ("/no/where", r"there is no program '/no/where'"),
    ],
)
def test_what_could_not_be_run_is_found_beforehand(
    eta: Family, tmp_path: Path, program: str, said: str
) -> None:
    """Where it was looked for, and what to do; nothing is run."""
    script(tmp_path, "touch ran")
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("")
    family = eta.model_copy(update={"handover": HandoverPolicy(command=(program,))})
    with pytest.raises(BadRequest, match=said) as raised:
        Handover(tmp_path).check(family)
    assert raised.value.where == "eta.toml: handover.command"


def test_what_can_be_run_is_not_run_by_looking(
    eta: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the folder, one of the PATH, a URL, and nobody at all."""
    command = script(tmp_path, "touch ran")
    monkeypatch.chdir("/")
    for policy in (
        HandoverPolicy(command=command),
        HandoverPolicy(command=("sh", "-c", "touch ran")),
        HandoverPolicy(url="http://nowhere.invalid/versions"),
        None,
    ):
        Handover(tmp_path).check(eta.model_copy(update={"handover": policy}))
    assert [file.name for file in tmp_path.iterdir()] == ["take.sh"]


def test_a_command_that_hangs_is_ended_with_all_it_started(told: Any, tmp_path: Path) -> None:
    """Within its limit; no child of it goes on."""
    command = script(tmp_path, "sleep 60 & echo $! > child; wait")
    began = time.monotonic()
    with pytest.raises(HandoverFailed, match=r"took longer than 0\.5 s and was ended"):
        told(command=command, time_limit=timedelta(seconds=0.5))
    assert time.monotonic() - began < 20
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_url_is_posted_to(told: Any, site: Site) -> None:
    """The same JSON, the key as Idempotency-Key, the token if there is one."""
    told(url=site.url, token="s3cret")
    told(url=site.url)
    (headers, body), (bare, _) = site.seen
    assert body == TOLD
    assert headers["Idempotency-Key"] == "eta-de/k"
    assert headers["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in bare


def test_a_url_that_says_no(told: Any, site: Site) -> None:
    """Its status and its words are told, and the token is not."""
    site.status = 409
    with pytest.raises(HandoverFailed, match="answered 409: because") as raised:
        told(url=site.url, token="s3cret")
    assert "s3cret" not in str(raised.value)


def test_a_url_where_nobody_listens(told: Any) -> None:
    """Told as such."""
    with pytest.raises(HandoverFailed, match="does not answer"):
        told(url="http://127.0.0.1:9/versions")


def test_nobody_to_tell(eta: Family, tmp_path: Path) -> None:
    """A family that only watches cannot be handed a version by hand either."""
    with pytest.raises(HandoverFailed, match="nobody is named") as raised:
        Handover(tmp_path).hand_over(eta, HEAD, previous=None, key="k")
    assert "give command or url" in raised.value.hint
