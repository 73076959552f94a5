"""The door that Slack posts clicks to: an ASGI application with nothing else on it.

What is not signed by Slack is turned away before anything in it is looked at.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from driftloop.errors import BadRequest
from driftloop.page.payloads import parsed
from driftloop.page.reception import Reception
from driftloop.page.signing import Signatures

LARGEST = 2**20
"""Bytes of the largest body that is read; what Slack sends is a hundredth of it."""
ARRIVE_WITHIN = 5.0
"""Seconds within which a body must have come whole."""
FORM = "application/x-www-form-urlencoded"

_log = logging.getLogger(__name__)


def actions_app(
    reception: Reception,
    signatures: Signatures,
    *,
    works: Callable[[], bool] = lambda: True,
) -> FastAPI:
    """Return the application: POST /slack/actions, and GET /healthz, which says whether it `works`.

    An action is answered 200 if it was taken, whatever came of it; 401 if it is not signed by
    Slack, now and for the first time; 413 if it is too large, 408 if it does not come whole; 400
    if it is not what Slack sends.
    """
    app = FastAPI(title="driftloop's desk", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/slack/actions")
    async def actions(request: Request) -> Response:
        try:
            return await _answered(request, reception, signatures)
        except _TurnedAway as away:
            host = request.client.host if request.client is not None else "?"
            _log.warning("turned away (%d) %s: %s", away.status, host, away.said)
            return PlainTextResponse(
                f"{away.said}\n",
                status_code=away.status,
                # The rest of what was not read is not waited for.
                headers=None if away.whole else {"Connection": "close"},
            )

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        well = works()
        return JSONResponse({"ok": well}, status_code=200 if well else 503)

    return app


class _TurnedAway(Exception):
    """What is posted is not taken; `whole` says that all of it was read."""

    def __init__(self, status: int, said: str, *, whole: bool = True) -> None:
        super().__init__(said)
        self.status = status
        self.said = said
        self.whole = whole


async def _answered(request: Request, reception: Reception, signatures: Signatures) -> Response:
    body = await _body(request)
    if body.split(b"&", 1)[0] == b"ssl_check=1":
        # Slack looks whether our certificate holds; nothing is asked of us.
        return Response()
    signature = _one(request, "x-slack-signature")
    doubt = signatures.doubt(
        body, timestamp=_one(request, "x-slack-request-timestamp"), signature=signature
    )
    if doubt:
        raise _TurnedAway(401, doubt)
    try:
        asked = parsed(_payload(request, body))
    except BadRequest as error:
        raise _TurnedAway(400, str(error)) from error
    said = await reception.answer(asked)
    return JSONResponse(said) if said else Response()


async def _body(request: Request) -> bytes:
    declared = _one(request, "content-length") or ""
    if declared.isdecimal() and (len(declared) > len(str(LARGEST)) or int(declared) > LARGEST):
        raise _TurnedAway(413, f"larger than {LARGEST} bytes", whole=False)
    body = bytearray()
    try:
        async with asyncio.timeout(ARRIVE_WITHIN):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST:
                    raise _TurnedAway(413, f"larger than {LARGEST} bytes", whole=False)
    except TimeoutError as error:
        raise _TurnedAway(408, f"not whole within {ARRIVE_WITHIN:g} s", whole=False) from error
    except ClientDisconnect as error:
        raise _TurnedAway(400, "cut short", whole=False) from error
    return bytes(body)


def _payload(request: Request, body: bytes) -> str:
    """Return the one field `payload` of a form.

    Raises:
        BadRequest: it is no form, or not one with one payload.
    """
    kind = (_one(request, "content-type") or "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise BadRequest(f"not a form: its content type should be {FORM}", where="headers")
    try:
        fields: Sequence[tuple[Any, Any]] = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20
        )
    except ValueError as error:
        raise BadRequest("not a form that can be read", where="body") from error
    found = [value for name, value in fields if name == "payload"]
    if len(found) != 1:
        raise BadRequest(f"{len(found)} fields called payload, instead of one", where="body")
    return str(found[0])


def _one(request: Request, name: str) -> str | None:
    """Return the header; None where it is not there, or there more than once."""
    found = request.headers.getlist(name)
    return found[0] if len(found) == 1 else None
