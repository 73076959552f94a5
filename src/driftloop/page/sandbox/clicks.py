"""What a click at the stand-in sends, in Slack's shapes, and where.

It goes to an address, signed as Slack signs, or down a Socket Mode connection.
"""

import asyncio
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ConfigDict, Field

from driftloop.page.sandbox.asked import APP, DOMAIN, TEAM, TS, Body, Refused
from driftloop.page.sandbox.blocks import elements_of
from driftloop.page.sandbox.chat import channel_of, shown
from driftloop.page.sandbox.people import named
from driftloop.page.sandbox.sockets import Sockets
from driftloop.page.sandbox.store import Stored, micros_of, ts_of
from driftloop.page.sandbox.views import answered
from driftloop.page.sandbox.workspace import Workspace

ANSWER_WITHIN = 3.0
"""Seconds that Slack waits for the answer to a click."""

_AGENT = "Slackbot 1.0 (+https://api.slack.com/robots)"
_TOKEN = "deprecated-verification-token"  # noqa: S105 - Slack sends one; nobody should believe it


class Click(BaseModel):
    """A click of `user`: on an element of a message, or at the end of a modal.

    `value` and `option` (an option's value) are what the message says, unless they are given: a
    button that is not in the message any more can be clicked too. `values` are what was written
    into a modal, by block and action. `by` chooses the way; by itself a click goes down a
    connection where there is one. The same click is delivered `copies` times.
    """

    model_config = ConfigDict(extra="forbid")

    user: str = "U0OPERATOR1"
    channel: str = ""
    ts: str = ""
    action_id: str = ""
    block_id: str = ""
    value: str | None = None
    option: str | None = None
    view_id: str = ""
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    closed: bool = False
    by: Literal["", "http", "socket"] = ""
    copies: int = Field(default=1, ge=1, le=20)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a click: `trouble` is "" where it was answered as it should be."""

    way: str
    payload: Body
    trouble: str = ""
    status: int | None = None
    answer: Any = None
    seconds: float = 0.0


class Clicks:
    """Sends clicks on.

    Args:
        url: where Slack's "Request URL" points to; "" for nowhere.
        secret: what requests to it are signed with.
    """

    def __init__(self, slack: Workspace, sockets: Sockets, *, url: str, secret: str) -> None:
        self._slack = slack
        self._sockets = sockets
        self.url = url
        self._secret = secret

    async def take(self, click: Click, base: str) -> Outcome:
        """Send the click on and return what came of it; the page shows it too.

        Raises:
            Refused: there is nothing to click on, or nobody of that name.
        """
        payload, message = await asyncio.to_thread(self._payload, click, base)
        way = click.by or ("socket" if self._sockets else "http")
        sent = [self._send(way, payload) for _ in range(click.copies)]
        outcome = (await asyncio.gather(*sent))[0]
        if payload["type"] == "view_submission" and not outcome.trouble:
            wrong = answered(self._slack, click.view_id, outcome.answer)
            outcome = Outcome(way, payload, wrong, outcome.status, outcome.answer, outcome.seconds)
        if payload["type"] == "view_submission" and outcome.trouble:
            if (view := self._slack.views.get(click.view_id)) is not None:
                view.errors = {"": f"driftloop {outcome.trouble}"}
        elif message is not None:
            if outcome.trouble:
                self._slack.troubles[message.channel, message.at] = outcome.trouble
            else:
                self._slack.troubles.pop((message.channel, message.at), None)
        return outcome

    async def _send(self, way: str, payload: Body) -> Outcome:
        began = time.monotonic()
        if way == "socket":
            trouble, answer = await self._sockets.deliver(payload, ANSWER_WITHIN)
            return Outcome(way, payload, trouble, None, answer, time.monotonic() - began)
        if not self.url:
            return Outcome(way, payload, "has no request URL, and no Socket Mode connection")
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                status, answer = await self._post(payload)
        except (TimeoutError, httpx.HTTPError) as error:
            why = "in time" if isinstance(error, TimeoutError) else f"({type(error).__name__})"
            trouble = f"didn't respond {why}"
            return Outcome(way, payload, trouble, None, None, time.monotonic() - began)
        trouble = "" if status == httpx.codes.OK else f"answered with HTTP {status}"
        return Outcome(way, payload, trouble, status, answer, time.monotonic() - began)

    async def _post(self, payload: Body) -> tuple[int, Any]:
        body = urlencode({"payload": json.dumps(payload, ensure_ascii=False)}).encode()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": _AGENT,
            **signature(self._secret, body, at=time.time()),
        }
        async with httpx.AsyncClient(timeout=ANSWER_WITHIN, trust_env=False) as client:
            answer = await client.post(self.url, content=body, headers=headers)
        try:
            return answer.status_code, answer.json() if answer.content else None
        except ValueError:
            return answer.status_code, answer.text

    def _payload(self, click: Click, base: str) -> tuple[Body, Stored | None]:
        who = named(self._slack.store, click.user)
        told: Body = {
            "type": "block_actions",
            "user": {
                "id": who["id"],
                "username": who["name"],
                "name": who["name"],
                "team_id": TEAM,
            },
            "api_app_id": APP,
            "token": _TOKEN,
            "team": {"id": TEAM, "domain": DOMAIN},
            "enterprise": None,
            "is_enterprise_install": False,
        }
        if click.view_id:
            return told | self._of_view(click), None
        message = self._clicked(click)
        return told | self._of_message(click, message, base), message

    def _of_view(self, click: Click) -> Body:
        view = self._slack.views.get(click.view_id)
        if view is None or view.user != click.user:
            raise Refused("view_not_found")
        if click.closed:
            self._slack.close(click.view_id)
            return {"type": "view_closed", "view": view.told, "is_cleared": False}
        written: dict[str, Body] = {}
        for block, element in elements_of(view.told["blocks"]):
            said = click.values.get(block, {}).get(element["action_id"])
            value = {"type": element["type"], "value": said or None}
            written.setdefault(block, {})[element["action_id"]] = value
        return {
            "type": "view_submission",
            "trigger_id": self._slack.trigger(click.user),
            "view": view.told | {"state": {"values": written}},
            "response_urls": [],
        }

    def _clicked(self, click: Click) -> Stored:
        channel = channel_of(self._slack.store, {"channel": _channel_id(self._slack, click)})
        at = micros_of(click.ts) if TS.fullmatch(click.ts) else -1
        message = self._slack.store.message(channel, at)
        if message is not None:
            return message
        for one in self._slack.whispers:
            if (one.channel, one.at, one.user) == (channel, at, click.user):
                return Stored(channel, at, one.thread, one.body)
        raise Refused("message_not_found")

    def _of_message(self, click: Click, message: Stored, base: str) -> Body:
        slack, channel = self._slack, message.channel
        action = _action(click, message)
        told = shown(slack.store, message)
        whispered = slack.store.message(channel, message.at) is None
        container: Body = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": channel,
            "is_ephemeral": whispered,
        }
        if message.thread is not None:
            container["thread_ts"] = ts_of(message.thread)
        address = slack.response_url(channel, message.at, message.thread, click.user)
        return {
            "container": container,
            "trigger_id": slack.trigger(click.user),
            "channel": {"id": channel, "name": slack.store.channels()[channel]},
            "message": told,
            "state": {"values": _state(message, action)},
            "response_url": f"{base.rstrip('/')}{address}",
            "actions": [action | {"action_ts": ts_of(slack.store.now())}],
        }


def signature(secret: str, body: bytes, *, at: float) -> dict[str, str]:
    """Return the headers by which Slack signs a body at a time.

    >>> signature("8f742231b10e8888abcd99yyyzzz85a5", b"x", at=1531420618)["X-Slack-Signature"][:11]
    'v0=edfae967'
    """
    stamp = str(int(at))
    told = b":".join((b"v0", stamp.encode(), body))
    mac = hmac.new(secret.encode(), told, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={mac}"}


def _channel_id(slack: Workspace, click: Click) -> str:
    wanted = click.channel.removeprefix("#")
    named_so = (id_ for id_, name in slack.store.channels().items() if name == wanted)
    return next(named_so, wanted)


def _action(click: Click, message: Stored) -> Body:
    """Return the action that the click sends, without its time."""
    for block, element in elements_of(message.body["blocks"]):
        if element["action_id"] != click.action_id or click.block_id not in {"", block}:
            continue
        kept = {k: v for k, v in element.items() if k not in {"options", "option_groups"}}
        if element["type"] == "button":
            value = {} if click.value is None else {"value": click.value}
            return kept | value | {"block_id": block}
        return kept | {"block_id": block, "selected_option": _option(click, element)}
    if click.value is None and click.option is None:
        raise Refused("action_not_found")
    gone = {"action_id": click.action_id, "block_id": click.block_id or "gone"}
    if click.option is not None:
        chosen = {"text": {"type": "plain_text", "text": "?", "emoji": True}, "value": click.option}
        return gone | {"type": "static_select", "selected_option": chosen}
    text = {"type": "plain_text", "text": "?", "emoji": True}
    return gone | {"type": "button", "text": text, "value": click.value}


def _option(click: Click, element: Body) -> Body:
    groups = element.get("option_groups") or [{"options": element.get("options") or []}]
    for group in groups:
        for option in group["options"]:
            if option["value"] == click.option:
                return dict(option)
    if click.option is None:
        raise Refused("option_not_found")
    text = {"type": "plain_text", "text": "?", "emoji": True}
    return {"text": text, "value": click.option}


def _state(message: Stored, action: Body) -> dict[str, Body]:
    """Return what Slack tells of all fields of the message: its menus, and what they stand at."""
    values: dict[str, Body] = {}
    for block, element in elements_of(message.body["blocks"]):
        if element["type"] == "static_select":
            chosen = element.get("initial_option")
            if element["action_id"] == action["action_id"]:
                chosen = action.get("selected_option")
            told = {"type": "static_select", "selected_option": chosen}
            values.setdefault(block, {})[element["action_id"]] = told
    return values
