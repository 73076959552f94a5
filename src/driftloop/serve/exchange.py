"""One request and its reply, without a framework: what was asked, what is told, in which status."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from driftloop.errors import BadRequest, DriftloopError, LogError, UnknownModel
from driftloop.serve.request import BadRows, NotJson
from driftloop.serve.slot import ChampionRefused, NoChampion

MOST_BYTES = 32 * 1024 * 1024
"""The largest body that is read."""
UNAVAILABLE = 503
GONE = 499
"""nginx's status for a caller that hung up; nobody reads it but the metrics."""
FAULT_OF_OURS = 500
"""From here on a status says that we failed, not the caller."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class TooLarge(BadRequest):
    """The body is larger than `MOST_BYTES`."""


class NotLogged(LogError):
    """The spool took nothing, so nothing was answered."""


class HungUp(Exception):
    """The caller closed the connection before the body was whole."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the headers of a request say; `request_id` is the caller's, if it can be used."""

    length: int
    request_id: bytes | None

    @classmethod
    def of(cls, headers: Headers) -> Self:
        """Return what `headers`, as ASGI gives them, say.

        >>> Asked.of([(b"content-length", b"12"), (b"x-request-id", b"job-7")])
        Asked(length=12, request_id=b'job-7')
        """
        length, request_id = 0, None
        for name, value in headers:
            if name == b"content-length":
                length = int(value) if value.isdigit() else 0
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                # Any other would let a caller write what it likes into our answers and our log.
                request_id = value
        return cls(length, request_id)

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
        if self.status == UNAVAILABLE:
            told.append((b"retry-after", b"1"))
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


async def read_body(asked: Asked, receive: Receive) -> bytes:
    """Return the whole body.

    Raises:
        TooLarge: it is, or says it is, larger than `MOST_BYTES`; it was not kept whole.
        HungUp: the caller went before its end.
    """
    if asked.length > MOST_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


async def send_reply(reply: Reply, asked: Asked, send: Send) -> None:
    """Send `reply` as two ASGI messages."""
    start = {"type": "http.response.start", "status": reply.status, "headers": reply.headers(asked)}
    await send(start)
    await send({"type": "http.response.body", "body": reply.body})


def _too_large() -> TooLarge:
    return TooLarge(
        f"the body is larger than {MOST_BYTES // 1024 // 1024} MiB",
        where="request",
        hint="send fewer rows at a time, or use predict-batch",
    )


def _status(error: DriftloopError) -> int:
    """Return the HTTP status of `error`.

    A model without a champion is 503, not 409: the request is right, and the same request will be
    answered once the model's first training is done, or its refused champion is mended.
    """
    statuses = (
        (NoChampion, UNAVAILABLE),
        (NotLogged, UNAVAILABLE),
        (UnknownModel, 404),
        (TooLarge, 413),
        (NotJson, 400),
        (BadRequest, 422),
    )
    return next((status for kind, status in statuses if isinstance(error, kind)), FAULT_OF_OURS)
