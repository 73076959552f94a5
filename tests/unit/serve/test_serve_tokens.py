"""Who may ask for what."""

import asyncio
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftloop.errors import BadRequest
from driftloop.serve import schema
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.serve.tokens import (
    Guard,
    Scope,
    create_token,
    own_token,
    read_tokens,
    revoke_token,
)
from driftloop.spec import Fleet

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = "0" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def asked(secret: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {secret}".encode())]


def test_a_token_is_kept_as_its_digest_alone(file: Path) -> None:
    """What `create_token` returns is nowhere in the file, which nobody else may read."""
    secret = create_token(file, "ci", [Scope.PREDICT, Scope.READ], now=NOW)
    assert secret.startswith("dl_")
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (token,) = read_tokens(file)
    assert (token.name, token.scopes, token.created) == ("ci", (Scope.PREDICT, Scope.READ), NOW)


def test_tokens_come_and_go_by_name(file: Path) -> None:
    """Others stay as they are; a name stands for one token, and a revoked one is known no more."""
    secrets = [create_token(file, name, [Scope.READ], now=NOW) for name in ("a", "b")]
    with pytest.raises(BadRequest, match="a: there is a token of that name"):
        create_token(file, "a", [Scope.READ], now=NOW)
    guard = Guard(file, own="own")
    assert [guard.refused("GET", "/metrics", asked(each)) for each in secrets] == [None, None]
    revoke_token(file, "a")
    assert [token.name for token in read_tokens(file)] == ["b"]
    with pytest.raises(BadRequest, match=r"a: there is no such token \(hint: there are: b\)"):
        revoke_token(file, "a")
    guard.refresh()
    known = [guard.refused("GET", "/metrics", asked(each)) is None for each in secrets]
    assert known == [False, True]


@pytest.mark.parametrize("name", ["", "a b", "a.b", "x" * 65, "[x]", "ä"])
def test_a_name_that_cannot_be_written_is_refused(file: Path, name: str) -> None:
    """Nothing is written of it."""
    with pytest.raises(BadRequest, match="is no name of a token"):
        create_token(file, name, [Scope.READ], now=NOW)
    assert not file.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = 1", r"tokens.toml: a: should be a table"),
        (f'[a]\nsha256 = "{DIGEST}"', "scopes should be some of predict, read, admin"),
        (f'[a]\nsha256 = "{DIGEST}"\nscopes = []', "scopes should be some of"),
        (f'[a]\nsha256 = "{DIGEST}"\nscopes = ["all"]', "scopes should be some of"),
        ('[a]\nsha256 = "12"\nscopes = ["read"]', "sha256 should be 64 hexadecimal digits"),
        (f'[a]\nsha256 = "{DIGEST}"\nscopes = ["read"]\nscope = 1', "unknown key 'scope'"),
        (f'[a]\nsha256 = "{DIGEST}"\nscopes = ["read"]\ncreated = 1', "created should be a time"),
        ("[a", "not valid TOML"),
        (None, r"cannot be read: No such file .* \(hint: `driftloop token create`"),
    ],
)
def test_a_faulty_file_lets_nobody_in(file: Path, content: str | None, said: str) -> None:
    """The service does not begin with tokens that it cannot read; the fault is named."""
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadRequest, match=said):
        Guard(file, own="own")


def test_a_file_that_is_spoilt_later_changes_nothing(file: Path, caplog: Any) -> None:
    """Who was known stays known, who was not stays out, and the log says so; mended, it is read."""
    secret = create_token(file, "a", [Scope.READ], now=NOW)
    guard, good = Guard(file, own="own"), file.read_text()
    file.write_text("[a")
    guard.refresh()
    assert guard.refused("GET", "/metrics", asked(secret)) is None
    assert guard.refused("GET", "/metrics", asked("")) is not None
    assert "not valid TOML" in caplog.text
    file.unlink()
    guard.refresh()
    assert guard.refused("GET", "/metrics", asked(secret)) is None
    file.write_text(good.replace('"read"', '"predict"'))
    guard.refresh()
    refused = guard.refused("GET", "/metrics", asked(secret))
    assert refused is not None
    assert refused.status == 403


@pytest.mark.parametrize(
    ("method", "path", "good"),
    [
        ("GET", "/v1/models", {"read", "admin"}),
        ("HEAD", "/metrics", {"read", "admin"}),
        ("GET", "/docs", {"read", "admin"}),
        ("POST", "/v1/models/eta-de/predict", {"predict", "admin"}),
        ("POST", "/v1/models/eta-de/labels", {"predict", "admin"}),
        ("POST", "/v1/events/departures", {"predict", "admin"}),
        ("POST", "/v1/rollouts", {"admin"}),
        ("DELETE", "/v1/models/eta-de/predict", {"admin"}),
        ("GET", "/healthz", {"predict", "read", "admin", "none"}),
        ("GET", "/readyz", {"predict", "read", "admin", "none"}),
    ],
)
def test_a_scope_is_good_for_its_own(file: Path, method: str, path: str, good: set[str]) -> None:
    """Each is let in where it may; else it is told 403, and without a known token 401."""
    secrets = {scope: create_token(file, scope, [scope], now=NOW) for scope in Scope}
    guard = Guard(file, own="own")
    status = {
        scope: reply and reply.status
        for scope, secret in {**secrets, "none": "dl_guessed"}.items()
        for reply in (guard.refused(method, path, asked(secret)),)
    }
    denied = {"predict": 403, "read": 403, "admin": 403, "none": 401}
    assert status == {who: None if who in good else denied[who] for who in status}


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Basic own", b"own", b"Bearer own x", b"Bearer \xff"]
)
def test_what_is_no_bearer_token_is_unknown(file: Path, value: bytes) -> None:
    """However it is malformed, it is 401 and not a failure."""
    create_token(file, "a", [Scope.READ], now=NOW)
    refused = Guard(file, own="own").refused("GET", "/metrics", [(b"authorization", value)])
    assert refused is not None
    assert refused.status == 401


def test_our_own_processes_have_a_token_of_their_own(file: Path, tmp_path: Path) -> None:
    """It is made once, whoever asks first; nobody else may read it; the guard knows it."""
    own = tmp_path / "run" / "token"
    secret = own_token(own)
    assert own_token(own) == secret
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert [each.name for each in own.parent.iterdir()] == ["token"]
    create_token(file, "a", [Scope.READ], now=NOW)
    assert Guard(file, own=secret).refused("GET", "/v1/service", asked(secret)) is None


@pytest.fixture
def ask(fleet: Fleet, clock: Any, file: Path) -> Iterator[Any]:
    """Ask a service that is guarded."""
    service = Service(fleet=fleet, slots=Slots(fleet), spool=None, clock=clock)  # type: ignore[arg-type]
    create_token(file, "other", [Scope.READ], now=NOW)
    app = online_app(service, heads=lambda: (), poll_every=1, guard=Guard(file, own="own"))

    def one(method: str, path: str, **options: Any) -> httpx.Response:
        async def asking() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                return await http.request(method, path, **options)

        return asyncio.run(asking())

    yield one
    service.close()


@pytest.mark.parametrize("path", ["/v1/models/eta-de/predict", "/v1/models/no-such/labels"])
def test_the_service_refuses_in_the_usual_shape(ask: Any, path: str) -> None:
    """401 says how to ask, 403 what the token is good for; neither tells what models there are."""
    reply = ask("POST", path, json={}, headers={"X-Request-Id": "r1"})
    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert reply.headers["X-Request-Id"] == "r1"
    assert schema.Refusal.model_validate(reply.json()).error.what == "a token is needed"
    reply = ask("GET", "/nowhere", headers={"Authorization": "Bearer guessed"})
    assert (reply.status_code, reply.json()["error"]["what"]) == (401, "the token is not known")
    assert ask("GET", "/healthz").status_code == 200
    assert ask("GET", "/metrics", headers={"Authorization": "bearer own"}).status_code == 200
