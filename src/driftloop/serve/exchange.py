"""One request and its reply, without a framework: what was asked, what is told, in which status."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs

import msgspec

from driftloop.errors import (
    BadRequest,
    DriftloopError,
    LogError,
    ModelAway,
    UnknownModel,
    UnknownSource,
)
from driftloop.serve.lookup import NothingFresh
from driftloop.serve.request import BadRows, Compressed, NotJson
from driftloop.serve.slot import ChampionRefused, NoChampion
from driftloop.serve.store import StoreError
from driftloop.serve.stream import NotTaken

UNAVAILABLE = 503
BUSY = 429
UNKNOWN = 401
GONE = 499
"""nginx's status for a caller that hung up; nobody reads it but the metrics."""
FAULT_OF_OURS = 500
"""From here on a status says that we failed, not the caller."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

CHUNK = 64 * 1024
"""A body of at most so many bytes comes whole, and is not counted."""
BODIES = 4
"""How many of the largest bodies are held at once."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much one process takes on: requests at a time, bytes of a body, seconds for an answer."""

    requests: int = 512
    body: int = 32 * 1024 * 1024
    seconds: float = 60.0


class TooLarge(BadRequest):
    """The body is larger than the largest that is read."""


class TooBusy(DriftloopError):
    """As much is under way as is taken on at once; nothing was done."""


class TooSlow(DriftloopError):
    """The answer was not there in time; its rows may be logged, and nobody was told them."""


class NotLogged(LogError):
    """The spool took nothing, so nothing was answered."""


class HungUp(Exception):
    """The caller closed the connection before the body was whole."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says beside its body; `request_id` is the caller's, if it can be used.

    With `whole` all of its rows are to be answered, or none. Of requests with one `key` all are
    answered by the same version, also while a challenger answers a part.
    """

    length: int = 0
    request_id: bytes | None = None
    whole: bool = False
    key: bytes | None = None

    @classmethod
    def of(cls, headers: Headers, query: bytes = b"") -> Self:
        """Return what `headers` and `query`, as ASGI gives them, say.

        >>> Asked.of([(b"content-length", b"12"), (b"x-request-id", b"job-7")], b"all=true")
        Asked(length=12, request_id=b'job-7', whole=True, key=None)

        Raises:
            BadRequest: `all` is neither true nor false.
        """
        length, request_id, key = 0, None, None
        for name, value in headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() else 0
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                # Any other would let a caller write what it likes into our answers and our log.
                request_id = value
            elif name == b"x-routing-key":
                key = value
        return cls(length, request_id, _all_asked(query) if query else False, key)

    @property
    def trace(self) -> str | None:
        """The request's id as log records carry it."""
        return self.request_id.decode() if self.request_id else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What is told: a status, a body of JSON, and the error it was made of, if any."""

    status: int
    body: bytes
    error: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether the service is to blame.

        It is not for a model that has yet to be trained, though that is a 503 as well.
        """
        untrained = isinstance(self.error, NoChampion)
        untrained = untrained and not isinstance(self.error, ChampionRefused)
        return self.status >= FAULT_OF_OURS and not untrained

    def headers(self, asked: Asked) -> list[tuple[bytes, bytes]]:
        """Return the headers of this reply to `asked`."""
        told = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
        ]
        if self.status in (UNAVAILABLE, BUSY):
            told.append((b"retry-after", b"1"))
        if self.status == UNKNOWN:
            told.append((b"www-authenticate", b"Bearer"))
        if asked.request_id is not None:
            told.append((b"x-request-id", asked.request_id))
        return told


def told(status: int, shown: object) -> Reply:
    """Return `shown` as a reply."""
    return Reply(status, msgspec.json.encode(shown))


def refusal(error: DriftloopError, status: int | None = None) -> Reply:
    """Return what a caller is told of `error`, with the status that fits it unless one is given."""
    faults = error.faults if isinstance(error, BadRows) else ()
    shown = {"what": error.what, "where": error.where, "hint": error.hint, "faults": faults}
    return Reply(status or _status(error), msgspec.json.encode({"error": shown}), error)


def failure(error: Exception) -> Reply:
    """Return what a caller is told of a fault of ours; the log has its traceback."""
    said = DriftloopError(f"the service failed: {type(error).__name__}")
    return refusal(said, FAULT_OF_OURS)


class Room:
    """What the bodies that are larger than `CHUNK` take in memory; one is used on one loop alone.

    Args:
        most: bytes of the largest body; `BODIES` of them are held at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._left = BODIES * most

    def take(self, size: int) -> None:
        """Count `size` bytes.

        Raises:
            TooBusy: there is no room for them.
        """
        if size > self._left:
            raise TooBusy(
                "too many large bodies are under way",
                where="request",
                hint="send it again a little later, or send fewer rows at a time",
            )
        self._left -= size

    def give(self, size: int) -> None:
        """Count `size` bytes no more."""
        self._left += size


async def read_body(asked: Asked, receive: Receive, room: Room) -> bytes:
    """Return the whole body; if it is larger than `CHUNK` its room is taken, to be given back.

    Raises:
        TooLarge: it is, or says it is, larger than `room.most`; it was not kept whole.
        TooBusy: there is no room for it now.
        HungUp: the caller went before its end.
    """
    if asked.length > room.most:
        raise _too_large(room.most)
    parts: list[bytes] = []
    size = taken = 0
    whole = False
    try:
        while not whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > room.most:
                raise _too_large(room.most)
            if size > CHUNK:
                room.take(size - taken)
                taken = size
            whole = not message.get("more_body", False)
    finally:
        if not whole:
            room.give(taken)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def send_reply(reply: Reply, asked: Asked, send: Send) -> None:
    """Send `reply` as two ASGI messages."""
    start = {"type": "http.response.start", "status": reply.status, "headers": reply.headers(asked)}
    await send(start)
    await send({"type": "http.response.body", "body": reply.body})


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {most // 1024 // 1024} MiB",
        where="request",
        hint="send fewer rows at a time, or use predict-batch",
    )


def _all_asked(query: bytes) -> bool:
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("all", ["false"])[-1]
    if given not in ("true", "false"):
        raise BadRequest("should be true or false", where="all", hint="as in ?all=true")
    return given == "true"


def _status(error: DriftloopError) -> int:
    """Return the HTTP status of `error`.

    A model without a champion is 503, not 409: the request is right, and the same request will be
    answered once the model's first training is done, or its refused champion is mended.
    """
    statuses = (
        (NoChampion, UNAVAILABLE),
        (NotLogged, UNAVAILABLE),
        (TooBusy, BUSY),
        (TooSlow, 504),
        (ModelAway, UNAVAILABLE),
        (NothingFresh, UNAVAILABLE),
        (NotTaken, UNAVAILABLE),
        (StoreError, UNAVAILABLE),
        (UnknownModel, 404),
        (UnknownSource, 404),
        (TooLarge, 413),
        (Compressed, 415),
        (NotJson, 400),
        (BadRequest, 422),
    )
    return next((status for kind, status in statuses if isinstance(error, kind)), FAULT_OF_OURS)
