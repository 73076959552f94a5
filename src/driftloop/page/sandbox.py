"""A local stand-in for Slack: its Web API as our client sees it, and a page to read it on.

Without a token driftloop posts here through the same client code; only the base URL differs.
It answers in Slack's shapes with Slack's error codes, keeps its messages in one SQLite file
and sends nothing anywhere. Unlike Slack it makes a channel on the first post to "#name", and
it refuses a reply to a message that does not exist.
"""

import asyncio
import base64
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from driftloop.page.sandbox_page import render
from driftloop.page.sandbox_store import Store, Stored, micros_of, ts_of

Body = dict[str, Any]
Item = TypeVar("Item")

_BOT = {"user": "U0DRIFTLOOP", "bot_id": "B0DRIFTLOOP", "app_id": "A0DRIFTLOOP", "team": "T0LOCAL"}
_TEXT = 40_000
_BLOCKS = 50
_BLOCK_ID = 255
_ROWS = 1000
_TOO_MANY = 429
_ITEMS = {"fields": 10, "elements": 10}
_CHARACTERS = {"header": 150, "section": 3000, "fields": 2000, "elements": 3000}
_KINDS = frozenset(
    {"actions", "context", "divider", "file", "header", "image", "input", "markdown"}
    | {"rich_text", "section", "table", "video"}
)
_NAME = re.compile(r"#?(?P<name>[a-z0-9_-]{1,80})")
_TS = re.compile(r"\d{10}\.\d{6}")


class Faults(BaseModel):
    """What goes wrong next; tests set it by `POST /control`.

    The next `fail_next` calls are refused with `error` and HTTP `status`, and nothing is kept.
    Of the next `lose_reply_next` calls that write, the message is kept and the reply lost:
    `drop` cuts the connection, `error` answers 500, `delay` holds it back for `delay` seconds.
    `method` limits both to one method of the API.
    """

    model_config = ConfigDict(extra="forbid")

    fail_next: int = Field(default=0, ge=0)
    error: str = "internal_error"
    status: int = 503
    retry_after: int = Field(default=1, ge=0)
    lose_reply_next: int = Field(default=0, ge=0)
    lose_by: Literal["drop", "error", "delay"] = "drop"
    delay: float = Field(default=10.0, ge=0.0)
    method: str = ""


def sandbox_app(store: Path) -> FastAPI:
    """Return the server as an ASGI application; its messages live in the SQLite file `store`.

    A message is on disk before it is answered: it survives a restart, and a kill.
    """
    kept, faults = Store(store), _FaultBox()
    app = FastAPI(title="driftloop's local Slack", docs_url=None, redoc_url=None, openapi_url=None)

    @app.api_route("/api/{method}", methods=["GET", "POST"])
    async def api(method: str, request: Request) -> Response:
        asked = _asked(request, await request.body())
        if (fault := faults.refusing(method)) is not None:
            return _refusal(fault)
        answer = await asyncio.to_thread(_answer, kept, method, asked)
        if answer["ok"] and (fault := faults.losing(method)) is not None:
            return await _lost(fault, answer)
        return JSONResponse(answer)

    @app.post("/control")
    def control(wanted: Faults) -> Faults:
        return faults.set(wanted)

    @app.get("/", response_class=HTMLResponse)
    def page(channel: str = "") -> str:
        return render(kept, channel)

    @app.get("/messages.json")
    def messages() -> list[Body]:
        names = kept.channels()
        return [
            {"channel": one.channel, "channel_name": names[one.channel], **_shown(kept, one)}
            for one in kept.messages()
        ]

    @app.get("/healthz")
    def healthz() -> Body:
        return {"ok": True, "messages": len(kept.messages())}

    return app


class _Refused(Exception):
    """An error as Slack answers it: in the body of a 200."""

    def __init__(self, error: str, *faults: str) -> None:
        super().__init__(error)
        self.body: Body = {"ok": False, "error": error}
        if faults:
            told = [f"[ERROR] {fault}" for fault in faults]
            self.body |= {"errors": list(faults), "response_metadata": {"messages": told}}


class _FaultBox:
    """The faults still to come, shared by the server's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults = Faults()

    def set(self, wanted: Faults) -> Faults:
        with self._lock:
            self._faults = wanted.model_copy()
            return wanted

    def refusing(self, method: str) -> Faults | None:
        return self._take("fail_next", method)

    def losing(self, method: str) -> Faults | None:
        writes = method in {"chat.postMessage", "chat.update"}
        return self._take("lose_reply_next", method) if writes else None

    def _take(self, count: str, method: str) -> Faults | None:
        with self._lock:
            left = getattr(self._faults, count)
            if not left or self._faults.method not in {"", method}:
                return None
            setattr(self._faults, count, left - 1)
            return self._faults


def _refusal(fault: Faults) -> Response:
    body = {"ok": False, "error": fault.error}
    if fault.error != "ratelimited":
        return JSONResponse(body, status_code=fault.status)
    headers = {"Retry-After": str(fault.retry_after)}
    return JSONResponse(body, status_code=_TOO_MANY, headers=headers)


async def _lost(fault: Faults, answer: Body) -> Response:
    if fault.lose_by == "error":
        return JSONResponse({"ok": False, "error": "fatal_error"}, status_code=500)
    if fault.lose_by == "delay":
        await asyncio.sleep(fault.delay)
        return JSONResponse(answer)

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
    return asked | ({"token": token} if scheme == "Bearer" else {})


def _answer(store: Store, method: str, asked: Body) -> Body:
    try:
        return {"ok": True, **_allowed(method, asked)(store, asked)}
    except _Refused as refused:
        return refused.body


def _allowed(method: str, asked: Body) -> Callable[[Store, Body], Body]:
    if method not in _METHODS:
        raise _Refused("unknown_method")
    if not asked.get("token"):
        raise _Refused("not_authed")
    if not str(asked["token"]).startswith("xox"):
        raise _Refused("invalid_auth")
    if "_unread" in asked:
        raise _Refused(asked["_unread"])
    return _METHODS[method]


def _auth_test(_: Store, __: Body) -> Body:
    return {
        "url": "http://127.0.0.1/",
        "team": "driftloop-local",
        "user": "driftloop",
        "team_id": _BOT["team"],
        "user_id": _BOT["user"],
        "bot_id": _BOT["bot_id"],
        "is_enterprise_install": False,
    }


def _post(store: Store, asked: Body) -> Body:
    body = _message(asked)
    named = str(asked.get("channel") or "")
    thread = asked.get("thread_ts")
    if thread is not None and not _TS.fullmatch(str(thread)):
        raise _Refused("invalid_thread_ts")
    channel = _known(store, named, missing=thread is None)
    parent = None if thread is None else store.message(channel, micros_of(thread))
    if thread is not None and parent is None:
        raise _Refused("thread_not_found")
    of = None if parent is None else parent.thread or parent.at
    message = store.add(channel, body, thread=of)
    return {"channel": channel, "ts": message.ts, "message": _shown(store, message)}


def _update(store: Store, asked: Body) -> Body:
    channel = _known(store, str(asked.get("channel") or ""))
    message = _found(store, channel, asked, "message_not_found")
    body = _message(asked)
    if "metadata" not in body and "metadata" in message.body:
        body["metadata"] = message.body["metadata"]
    edit = {"user": _BOT["user"], "ts": ts_of(store.now())}
    new = Stored(channel, message.at, message.thread, body | {"edited": edit})
    store.replace(new)
    shown = _shown(store, new)
    return {"channel": channel, "ts": new.ts, "text": body["text"], "message": shown}


def _history(store: Store, asked: Body) -> Body:
    channel = _known(store, str(asked.get("channel") or ""))
    return _paged(store, store.history(channel), asked) | {"pin_count": 0}


def _replies(store: Store, asked: Body) -> Body:
    channel = _known(store, str(asked.get("channel") or ""))
    parent = _found(store, channel, asked, "thread_not_found")
    return _paged(store, (parent, *store.replies(channel, parent.at)), asked)


def _list(store: Store, asked: Body) -> Body:
    public = "public_channel" in str(asked.get("types") or "public_channel")
    channels = [_channel(id_, name) for id_, name in store.channels().items()] if public else []
    part, cursor = _part(channels, asked, lambda one: str(one["id"]))
    return {"channels": part, "response_metadata": {"next_cursor": cursor}}


_METHODS: Mapping[str, Callable[[Store, Body], Body]] = {
    "auth.test": _auth_test,
    "chat.postMessage": _post,
    "chat.update": _update,
    "conversations.history": _history,
    "conversations.replies": _replies,
    "conversations.list": _list,
}


def _known(store: Store, named: str, *, missing: bool = False) -> str:
    if named in store.channels():
        return named
    name = _NAME.fullmatch(named)
    if not missing or name is None:
        raise _Refused("channel_not_found")
    return store.channel(name["name"])


def _found(store: Store, channel: str, asked: Body, error: str) -> Stored:
    ts = str(asked.get("ts") or "")
    message = store.message(channel, micros_of(ts)) if _TS.fullmatch(ts) else None
    if message is None:
        raise _Refused(error)
    return message


def _message(asked: Body) -> Body:
    text, blocks = str(asked.get("text") or ""), _decoded(asked, "blocks", "invalid_blocks_format")
    metadata = _decoded(asked, "metadata", "invalid_metadata_format")
    if not text and not blocks:
        raise _Refused("no_text")
    if len(text) > _TEXT:
        raise _Refused("msg_too_long")
    if blocks and not isinstance(blocks, list):
        raise _Refused("invalid_blocks_format")
    if faults := tuple(_faults(blocks or [])):
        raise _Refused("invalid_blocks", *faults)
    body: Body = {"text": text, "blocks": blocks or []}
    if not metadata:
        return body
    if not isinstance(metadata, dict) or metadata.keys() != {"event_type", "event_payload"}:
        raise _Refused("invalid_metadata_format")
    return body | {"metadata": metadata}


def _decoded(asked: Body, name: str, error: str) -> Any:  # noqa: ANN401 - whatever JSON says
    given = asked.get(name)
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError as broken:
        raise _Refused(error) from broken


def _faults(blocks: Sequence[Any]) -> Iterator[str]:
    if len(blocks) > _BLOCKS:
        yield f"no more than {_BLOCKS} items allowed [json-pointer:/blocks]"
    ids: set[str] = set()
    for number, block in enumerate(blocks):
        at = f"/blocks/{number}"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _KINDS:
            yield f"unsupported type: {kind} [json-pointer:{at}/type]"
            continue
        id_ = str(block.get("block_id") or f"{number}")
        if id_ in ids or len(id_) > _BLOCK_ID:
            yield f"invalid block_id [json-pointer:{at}/block_id]"
        ids.add(id_)
        yield from _text_faults(block, kind, at)


def _text_faults(block: Body, kind: str, at: str) -> Iterator[str]:
    if kind not in {"header", "section", "context"}:
        return
    if kind == "header" or "text" in block:
        yield from _length_faults(block.get("text"), _CHARACTERS[kind], f"{at}/text")
    listed = {"section": "fields", "context": "elements"}.get(kind, "")
    items = block.get(listed)
    if listed and not items and "text" not in block:
        yield f"missing required field: {listed} [json-pointer:{at}]"
    if not listed or items is None:
        return
    if len(items) > _ITEMS[listed]:
        yield f"no more than {_ITEMS[listed]} items allowed [json-pointer:{at}/{listed}]"
    for number, item in enumerate(items):
        if isinstance(item, dict) and item.get("type") == "image":
            continue
        yield from _length_faults(item, _CHARACTERS[listed], f"{at}/{listed}/{number}")


def _length_faults(text: object, limit: int, at: str) -> Iterator[str]:
    said = text.get("text") if isinstance(text, dict) else None
    if not isinstance(said, str):
        yield f"missing required field: text [json-pointer:{at}]"
    elif not said:
        yield f"must be more than 0 characters [json-pointer:{at}/text]"
    elif len(said) > limit:
        yield f"must be less than {limit + 1} characters [json-pointer:{at}/text]"


def _paged(store: Store, messages: Sequence[Stored], asked: Body) -> Body:
    part, cursor = _part(messages, asked, lambda one: one.ts)
    metadata = str(asked.get("include_all_metadata", "")).lower() in {"1", "true"}
    answer: Body = {
        "messages": [_shown(store, one, metadata=metadata) for one in part],
        "has_more": bool(cursor),
    }
    return answer | ({"response_metadata": {"next_cursor": cursor}} if cursor else {})


def _part(
    items: Sequence[Item], asked: Body, key: Callable[[Item], str]
) -> tuple[Sequence[Item], str]:
    """Return one page and the cursor of the next, "" on the last.

    A cursor names the next item, so that a message posted meanwhile shifts nothing.
    """
    given, cursor = str(asked.get("limit") or 100), str(asked.get("cursor") or "")
    if not given.isdecimal() or not 1 <= int(given) < _ROWS:
        raise _Refused("invalid_limit")
    keys = [_cursor(key(item)) for item in items]
    if cursor and cursor not in keys:
        raise _Refused("invalid_cursor")
    start = keys.index(cursor) if cursor else 0
    end = start + int(given)
    return items[start:end], keys[end] if end < len(keys) else ""


def _cursor(key: str) -> str:
    return base64.b64encode(f"next:{key}".encode()).decode()


def _shown(store: Store, message: Stored, *, metadata: bool = True) -> Body:
    body = {k: v for k, v in message.body.items() if metadata or k != "metadata"}
    shown: Body = {"type": "message", **_BOT, "ts": message.ts, **body}
    if message.thread is not None:
        return shown | {"thread_ts": ts_of(message.thread), "parent_user_id": _BOT["user"]}
    replies = store.replies(message.channel, message.at)
    if not replies:
        return shown
    return shown | {
        "thread_ts": message.ts,
        "reply_count": len(replies),
        "reply_users_count": 1,
        "reply_users": [_BOT["user"]],
        "latest_reply": replies[-1].ts,
        "subscribed": False,
    }


def _channel(id_: str, name: str) -> Body:
    flags = {"is_channel": True, "is_private": False, "is_archived": False, "is_member": True}
    return {"id": id_, "name": name, "name_normalized": name, "num_members": 1, **flags}
