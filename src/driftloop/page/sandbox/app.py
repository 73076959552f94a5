"""The stand-in as one ASGI application: Slack's addresses, the page, and knobs for tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from driftloop.page.sandbox import chat, files, people, views
from driftloop.page.sandbox.asked import Body, Refused
from driftloop.page.sandbox.clicks import Click, Clicks
from driftloop.page.sandbox.faults import FaultBox, Faults, Limits, Meter
from driftloop.page.sandbox.page import fragment, render
from driftloop.page.sandbox.sockets import Sockets, opened
from driftloop.page.sandbox.store import Store, Stored
from driftloop.page.sandbox.workspace import Method, Whisper, Workspace

_METHODS = {**chat.METHODS, **files.METHODS, **people.METHODS, **views.METHODS}
_SOCKET = "apps.connections.open"
_HANGS = 60.0
_POLICY = "default-src 'none'; sandbox"


class Knobs(Faults):
    """What `POST /control` takes: a fault, and how long uploaded files cannot be shown yet."""

    file_delay: float | None = Field(default=None, ge=0.0)


class Ending(BaseModel):
    """What `POST /control/socket` takes: how all Socket Mode connections end."""

    model_config = ConfigDict(extra="forbid")

    reason: Literal["warning", "refresh_requested", "link_disabled", "drop"] = "refresh_requested"
    after: float = Field(default=10.0, ge=0.0)


def sandbox_app(
    store: Path,
    *,
    actions_url: str = "",
    signing_secret: str = "local-signing-secret",  # noqa: S107 - a stand-in's
    limits: Limits | None = None,
) -> FastAPI:
    """Return the server as an ASGI application; its messages live in the SQLite file `store`.

    A message is on disk before it is answered: it survives a restart, and a kill.

    Args:
        store: the file, made when it is missing.
        actions_url: where clicks are posted to, signed with `signing_secret`, while no Socket Mode
            connection is open.
        signing_secret: as Slack's, of the app.
        limits: how many calls are taken before 429; None takes all.
    """
    slack, faults, sockets = Workspace(Store(store, people.SEEDS)), FaultBox(), Sockets()
    meter = None if limits is None else Meter(limits)
    clicks = Clicks(slack, sockets, url=actions_url, secret=signing_secret)
    app = FastAPI(title="driftloop's local Slack", docs_url=None, redoc_url=None, openapi_url=None)
    methods: dict[str, Method] = {**_METHODS, _SOCKET: lambda _, asked: opened(sockets, asked)}
    _add_api(app, slack, faults, meter, methods)
    _add_files(app, slack)
    _add_page(app, slack)
    _add_knobs(app, slack, faults, sockets, clicks)
    _add_seeds(app, slack, clicks)

    @app.websocket("/link/")
    async def link(socket: WebSocket) -> None:
        await sockets.attend(socket)

    @app.get("/healthz")
    def healthz() -> Body:
        return {"ok": True, "messages": len(slack.store.messages()), "sockets": len(sockets)}

    return app


def _add_api(
    app: FastAPI,
    slack: Workspace,
    faults: FaultBox,
    meter: Meter | None,
    methods: dict[str, Method],
) -> None:
    @app.api_route("/api/{method}", methods=["GET", "POST"])
    async def api(method: str, request: Request) -> Response:
        asked = _asked(request, await request.body())
        if (fault := faults.out()) is not None:
            return await _out(fault)
        channel = await asyncio.to_thread(_names, slack.store, asked)
        if (fault := faults.refusing(method, channel)) is not None:
            return _refusal(fault.error, fault.answered, fault.retry_after)
        if meter is not None and (wait := meter.wait(method, channel[-1] if channel else "")):
            return _refusal("ratelimited", 429, wait)
        answer = await asyncio.to_thread(_answer, slack, methods, method, asked)
        if answer["ok"] and (fault := faults.losing(method, channel)) is not None:
            return await _lost(fault, answer)
        return JSONResponse(answer)

    @app.post("/actions/{team}/{secret}")
    async def actions(team: str, secret: str, request: Request) -> Response:  # noqa: ARG001 - the address has it
        asked = _asked(request, await request.body())
        try:
            await asyncio.to_thread(_respond, slack, secret, asked)
        except Refused as refused:
            gone = str(refused) in {"invalid_url", "expired_url", "used_url"}
            return JSONResponse(refused.body, status_code=404 if gone else 400)
        return JSONResponse({"ok": True})


def _add_files(app: FastAPI, slack: Workspace) -> None:
    @app.post("/upload/v1/{ticket}")
    async def upload(ticket: str, request: Request) -> Response:
        content = await request.body()
        try:
            size = await asyncio.to_thread(files.take, slack.store, ticket, content)
        except Refused as refused:
            return PlainTextResponse(str(refused), status_code=400)
        return PlainTextResponse(f"OK - {size}")

    @app.get("/files-pri/{place}/{name}")
    def file(place: str, name: str) -> Response:  # noqa: ARG001 - the address has it, for people
        found = slack.store.file(place.rpartition("-")[2])
        if found is None or found.content is None:
            return PlainTextResponse("file_not_found", status_code=404)
        kind = files.media_type(found.content) or "application/octet-stream"
        # Whatever was uploaded, a browser runs nothing of it.
        safe = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(found.content, media_type=kind, headers=safe)


def _add_page(app: FastAPI, slack: Workspace) -> None:
    @app.get("/", response_class=HTMLResponse)
    def page(channel: str = "", user: str = "") -> str:
        return render(slack, channel, user)

    @app.get("/fragment.json")
    def changed(channel: str = "", user: str = "") -> Body:
        return fragment(slack, channel, user)

    @app.get("/page.js")
    def script() -> Response:
        source = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
        return Response(source, media_type="text/javascript")

    @app.get("/messages.json")
    def messages() -> list[Body]:
        names = slack.store.channels()
        return [
            {
                "channel": one.channel,
                "channel_name": names[one.channel],
                **chat.shown(slack.store, one),
            }
            for one in slack.store.messages()
        ]

    @app.get("/whispers.json")
    def whispers(user: str = "") -> list[Body]:
        names = slack.store.channels()
        return [
            {"channel": one.channel, "channel_name": names[one.channel], "user": one.user, **said}
            for one in slack.whispers
            if user in {"", one.user}
            for said in ({"text": one.body["text"], "blocks": one.body["blocks"]},)
        ]

    @app.get("/views.json")
    def open_views(user: str = "") -> list[Body]:
        return [
            {"user": one.user, "errors": one.errors, "view": one.told}
            for one in slack.views.values()
            if user in {"", one.user}
        ]


def _add_knobs(
    app: FastAPI, slack: Workspace, faults: FaultBox, sockets: Sockets, clicks: Clicks
) -> None:
    @app.post("/control")
    def control(wanted: Knobs | list[Knobs]) -> Body:
        given = wanted if isinstance(wanted, list) else [wanted]
        faults.set(given)
        for one in given:
            if one.file_delay is not None:
                slack.file_delay = one.file_delay
        return {"ok": True, "faults": len(given)}

    @app.post("/control/click")
    async def click(wanted: Click, request: Request) -> Response:
        try:
            outcome = await clicks.take(wanted, str(request.base_url))
        except Refused as refused:
            return JSONResponse({"ok": False, "error": str(refused)}, status_code=404)
        return JSONResponse({"ok": not outcome.trouble, **asdict(outcome)})

    @app.post("/control/socket")
    async def socket(wanted: Ending) -> Body:
        return {"ok": True, "connections": await sockets.disconnect(wanted.reason, wanted.after)}


def _add_seeds(app: FastAPI, slack: Workspace, clicks: Clicks) -> None:
    @app.post("/control/url")
    def url(wanted: Annotated[dict[Literal["url"], str], Field(min_length=1)]) -> Body:
        clicks.url = wanted["url"]
        return {"ok": True}

    @app.post("/control/people")
    def person(given: dict[str, Any]) -> Response:
        try:
            people.add(slack.store, given)
        except ValueError as error:
            return JSONResponse({"ok": False, "error": str(error)}, status_code=422)
        return JSONResponse({"ok": True})

    @app.post("/control/channels/{name}")
    def channel(name: str) -> Body:
        return {"ok": True, "channel": slack.store.channel(name)}


def _names(store: Store, asked: Body) -> tuple[str, ...]:
    """Return the id and the name of the channel that a call is about, if it is about one."""
    given = asked.get("channel") or asked.get("channel_id")
    if not given:
        return ()
    wanted, channels = str(given).removeprefix("#"), store.channels()
    id_ = next((id_ for id_, name in channels.items() if wanted in {id_, name}), wanted)
    return id_, channels.get(id_, wanted)


async def _out(fault: Faults) -> Response:
    if fault.outage == "error":
        return PlainTextResponse("upstream connect error", status_code=500)
    if fault.outage == "hang":
        await asyncio.sleep(_HANGS)
    return _cut()


def _refusal(error: str, status: int, retry_after: int) -> Response:
    body = {"ok": False, "error": error}
    headers = {"Retry-After": str(retry_after)} if status == 429 else {}  # noqa: PLR2004 - HTTP's
    return JSONResponse(body, status_code=status, headers=headers)


async def _lost(fault: Faults, answer: Body) -> Response:
    if fault.lose_by == "error":
        return JSONResponse({"ok": False, "error": "fatal_error"}, status_code=500)
    if fault.lose_by == "delay":
        await asyncio.sleep(fault.delay)
        return JSONResponse(answer)
    return _cut()


def _cut() -> Response:
    async def cut() -> AsyncIterator[bytes]:
        yield b"{"

    # Promises more than it sends: the server cuts the connection in the middle of the reply.
    return StreamingResponse(cut(), headers={"Content-Length": "1000"})


def _asked(request: Request, sent: bytes) -> Body:
    asked: Body = dict(request.query_params)
    if "json" in request.headers.get("content-type", ""):
        try:
            given = json.loads(sent or b"{}")
        except ValueError:
            given = None
        asked |= given if isinstance(given, dict) else {"_unread": "invalid_json"}
    else:
        asked |= dict(parse_qsl(sent.decode("utf-8", "replace")))
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    asked |= {"token": token} if scheme == "Bearer" else {}
    return asked | {"_base": str(request.base_url)}


def _answer(slack: Workspace, methods: dict[str, Method], method: str, asked: Body) -> Body:
    try:
        return {"ok": True, **_allowed(methods, method, asked)(slack, asked)}
    except Refused as refused:
        return refused.body


def _allowed(methods: dict[str, Method], method: str, asked: Body) -> Method:
    if method not in methods:
        raise Refused("unknown_method")
    if not asked.get("token"):
        raise Refused("not_authed")
    if not str(asked["token"]).startswith("xox" if method != _SOCKET else "x"):
        app = str(asked["token"]).startswith("xapp-")
        raise Refused("not_allowed_token_type" if app else "invalid_auth")
    if "_unread" in asked:
        raise Refused(asked["_unread"])
    return methods[method]


def _respond(slack: Workspace, secret: str, asked: Body) -> None:
    """Do what was posted to a click's address for answers."""
    if "_unread" in asked:
        raise Refused("invalid_payload")
    place = slack.answering(secret)
    message = slack.store.message(place.channel, place.at)
    if asked.get("delete_original"):
        if message is not None:
            chat.deleted(slack.store, message)
        return
    body = chat.message_of(slack, asked)
    if asked.get("replace_original") and message is not None:
        kept = {k: message.body[k] for k in ("metadata", "files") if k in message.body}
        slack.store.replace(Stored(place.channel, place.at, message.thread, kept | body))
        return
    thread = place.thread
    if (given := asked.get("thread_ts")) is not None:
        thread = chat.thread_of(slack.store, place.channel, given)
    if asked.get("response_type") == "in_channel":
        slack.store.add(place.channel, body, thread=thread)
        return
    whisper = Whisper(place.channel, slack.store.now(), thread, place.user, body)
    slack.whisper(whisper)
