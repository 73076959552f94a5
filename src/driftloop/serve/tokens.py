"""Who may ask the online service for what: tokens with scopes, of which only digests are kept."""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from driftloop.errors import BadRequest, DriftloopError
from driftloop.serve.exchange import Headers, Reply, refusal

PREFIX = "dl_"
"""What every token begins with, so that scanners for secrets know one."""
OPEN = ("/healthz", "/readyz")
"""What anybody may ask: those who balance the load have no token."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


class Scope(StrEnum):
    """What a token is good for; `admin` for all of it."""

    PREDICT = "predict"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it is kept; `sha256` is its digest, and `created` when it was made."""

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created: datetime | None = None


class Unknown(DriftloopError):
    """No token was sent, or one that is not known."""


class NotAllowed(DriftloopError):
    """The token is known, and not good for what was asked."""


def read_tokens(file: Path) -> tuple[Token, ...]:
    """Return the tokens of `file`, in its order.

    Raises:
        BadRequest: it cannot be read, or is not what `create_token` writes; names the fault.
    """
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(
            f"the tokens cannot be read: {error.strerror or error}",
            where=str(file),
            hint="`driftloop token create` makes the first one",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"not valid TOML: {error}", where=str(file)) from error
    return tuple(_token(file, name, given) for name, given in said.items())


def create_token(file: Path, name: str, scopes: Sequence[Scope], *, now: datetime) -> str:
    """Return a new token, written to `file` as its digest alone: it cannot be told again.

    Raises:
        BadRequest: the name is taken or cannot be used, no scope is given, or the file cannot be
            read or written.
    """
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is no name of a token", hint="letters, digits, - and _; 64 at most"
        )
    if not scopes:
        raise BadRequest("a token without a scope is good for nothing", where=name)
    secret = PREFIX + secrets.token_urlsafe(32)
    with _locked(file):
        tokens = read_tokens(file) if file.exists() else ()
        if any(each.name == name for each in tokens):
            raise BadRequest(
                "there is a token of that name", where=name, hint="revoke it, or name it otherwise"
            )
        made = Token(name=name, sha256=_digest(secret.encode()), scopes=tuple(scopes), created=now)
        _write(file, (*tokens, made))
    return secret


def revoke_token(file: Path, name: str) -> None:
    """Take the token called `name` out of `file`.

    Raises:
        BadRequest: there is none, or the file cannot be read or written.
    """
    with _locked(file):
        tokens = read_tokens(file)
        left = [each for each in tokens if each.name != name]
        if len(left) == len(tokens):
            known = ", ".join(each.name for each in tokens)
            raise BadRequest(
                "there is no such token", where=name, hint=known and f"there are: {known}"
            )
        _write(file, left)


def own_token(file: Path) -> str:
    """Return the token by which the installation's own processes ask; made if there is none.

    Raises:
        OSError: it can be neither read nor written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(PREFIX + secrets.token_urlsafe(32))
        # Of processes that start at once one keeps its own, whole, and all read that one.
        with suppress(FileExistsError):
            file.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)
    return file.read_text(encoding="ascii")


class Guard:
    """Lets those pass who may; a file that was changed is read again at the next `refresh`.

    Args:
        file: the tokens.
        own: the installation's own token, good for all.

    Raises:
        BadRequest: the tokens cannot be read: nobody is let in, or kept out, by mistake.
    """

    def __init__(self, file: Path, *, own: str) -> None:
        self._file = file
        self._own = Token(name="driftloop", sha256=_digest(own.encode()), scopes=(Scope.ADMIN,))
        self._stamp = _stamp(file)
        self._tokens = (*read_tokens(file), self._own)

    def refresh(self) -> None:
        """Read the tokens again if they were changed; what cannot be read changes nothing."""
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = (*read_tokens(self._file), self._own)
        except BadRequest as error:
            _log.error("%s; the tokens as they were are good as before", error)
        else:
            _log.info("the tokens were read again: %d", len(self._tokens) - 1)

    def refused(self, method: str, path: str, headers: Headers) -> Reply | None:
        """Return what a caller is told who may not ask this, None if it may."""
        if path in OPEN:
            return None
        needed = _needed(method, path)
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, secret = given.partition(b" ")
        token = self._known(secret.strip()) if scheme.lower() == b"bearer" else None
        if token is None:
            what = "the token is not known" if given else "a token is needed"
            return refusal(Unknown(what, where="request", hint="Authorization: Bearer ..."), 401)
        if needed in token.scopes or Scope.ADMIN in token.scopes:
            return None
        said = f"the token {token.name!r} is good for {', '.join(token.scopes)}, not for {needed}"
        return refusal(NotAllowed(said, where="request"), 403)

    def _known(self, secret: bytes) -> Token | None:
        """Return the token, found in a time that does not tell how near a guess came."""
        digest = _digest(secret)
        found = None
        for each in self._tokens:
            if hmac.compare_digest(each.sha256, digest):
                found = each
        return found


def _needed(method: str, path: str) -> Scope:
    if method in ("GET", "HEAD"):
        return Scope.READ
    if method == "POST" and path.startswith(("/v1/models/", "/v1/events/")):
        return Scope.PREDICT
    return Scope.ADMIN


def _token(file: Path, name: str, given: Any) -> Token:  # noqa: ANN401 - whatever TOML holds
    where = f"{file}: {name}"
    if not isinstance(given, dict):
        raise BadRequest("should be a table with sha256 and scopes", where=where)
    if unknown := given.keys() - {"sha256", "scopes", "created"}:
        raise BadRequest(f"unknown key {min(unknown)!r}", where=where)
    digest, scopes, created = given.get("sha256"), given.get("scopes"), given.get("created")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BadRequest("sha256 should be 64 hexadecimal digits", where=where)
    known = [scope.value for scope in Scope]
    if not isinstance(scopes, list) or not scopes or any(each not in known for each in scopes):
        raise BadRequest(f"scopes should be some of {', '.join(known)}", where=where)
    if created is not None and not isinstance(created, datetime):
        raise BadRequest("created should be a time", where=where)
    return Token(
        name=name, sha256=digest, scopes=tuple(Scope(each) for each in scopes), created=created
    )


def _write(file: Path, tokens: Iterable[Token]) -> None:
    """Write the tokens whole, or leave the file as it was."""
    lines = ["# Tokens of the online service: `driftloop token` writes this file."]
    for each in tokens:
        scopes = ", ".join(f'"{scope}"' for scope in each.scopes)
        lines += ["", f"[{each.name}]", f'sha256 = "{each.sha256}"', f"scopes = [{scopes}]"]
        lines += [f"created = {each.created.isoformat()}"] if each.created else []
    part = file.with_name(f"{file.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write("\n".join((*lines, "")))
        part.replace(file)
    except OSError as error:
        raise _unwritten(file, error) from error


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let one at a time change `file`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritten(file, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _unwritten(file: Path, error: OSError) -> BadRequest:
    said = error.strerror or str(error)
    return BadRequest(f"the tokens cannot be written: {said}", where=str(file))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
