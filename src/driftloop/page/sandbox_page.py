"""The local Slack, read by a person: channels and messages as one HTML page.

Everything that was sent is escaped first; of mrkdwn it shows bold, italic, strike, code,
links and mentions.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from driftloop.page.sandbox_store import Store, Stored

_SHOWN = 100
_HELD = "\x00"
_CODE = re.compile(r"```(?P<pre>.+?)```|`(?P<code>[^`\n]+)`", re.DOTALL)
_REFERENCE = re.compile(r"<([^<>\x00]+)>")
_STYLES = tuple(
    (re.compile(rf"(?<![\w{m}])[{m}](?=[^\s{m}])([^\n{m}]*)(?<=\S)[{m}](?![\w{m}])"), tag)
    for m, tag in (("*", "b"), ("_", "i"), ("~", "s"))
)
_DOTS = {
    "🔴": "#d1293d",
    "🟠": "#e8912d",
    "🟡": "#e3b505",
    "🔵": "#2f6fde",
    "🟢": "#2a9d4b",
    "❌": "#7c1d1d",
}
_DOT = re.compile("|".join(_DOTS))
_SCHEMES = frozenset({"http", "https", "mailto"})
_KINDS = frozenset({"header", "section", "context", "divider"})


class _Tab(NamedTuple):
    id: str
    name: str
    messages: int
    newest: int


def render(store: Store, channel: str) -> str:
    """Return the page of `channel` (an id or a name), or of the one that was written to last."""
    tabs = []
    for id_, name in store.channels().items():
        told = store.history(id_)
        tabs.append(_Tab(id_, name, len(told), told[0].at if told else 0))
    chosen = next((tab for tab in tabs if channel in {tab.id, tab.name}), None)
    chosen = chosen or max(tabs, key=lambda tab: tab.newest, default=None)
    threads: list[dict[str, Any]] = []
    if chosen is not None:
        threads = [
            _seen(one) | {"replies": [_seen(reply) for reply in store.replies(chosen.id, one.at)]}
            for one in store.history(chosen.id)[:_SHOWN]
        ]
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page.filters |= {"mrkdwn": mrkdwn, "plain": plain}
    source = Path(__file__).with_name("sandbox.html").read_text(encoding="utf-8")
    return page.from_string(source).render(tabs=tabs, chosen=chosen, threads=threads)


def mrkdwn(text: str) -> Markup:
    """Return Slack's mrkdwn as safe HTML.

    >>> print(mrkdwn("*MAE* &lt; 13 <https://example.org|here> <script> `a*b*`"))
    <b>MAE</b> &lt; 13 <a href="https://example.org">here</a> &lt;script&gt; <code>a*b*</code>
    """
    held: list[Markup] = []

    def hold(show: Callable[[re.Match[str]], Markup]) -> Callable[[re.Match[str]], str]:
        def holding(found: re.Match[str]) -> str:
            held.append(show(found))
            return f"{_HELD}{len(held) - 1}{_HELD}"

        return holding

    left = _CODE.sub(hold(_code), text.replace(_HELD, ""))
    left = _REFERENCE.sub(hold(_reference), left)
    left = _DOT.sub(hold(_dot), left)
    shown = str(escape(plain(left)))
    for pattern, tag in _STYLES:
        shown = pattern.sub(rf"<{tag}>\1</{tag}>", shown)
    parts = re.split(f"{_HELD}(\\d+){_HELD}", shown)
    whole = (held[int(part)] if odd % 2 else part for odd, part in enumerate(parts))
    return Markup("".join(whole))  # noqa: S704 - escaped above, the tags are ours


def plain(text: str) -> str:
    """Return Slack's plain text with its three entities read.

    >>> plain("a &lt; b &amp; c")
    'a < b & c'
    """
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _code(found: re.Match[str]) -> Markup:
    if found["pre"] is not None:
        return Markup("<pre>{}</pre>").format(plain(found["pre"]))
    return Markup("<code>{}</code>").format(plain(found["code"]))


def _reference(found: re.Match[str]) -> Markup:
    target, _, label = found[1].partition("|")
    if target.startswith(("@", "#", "!")):
        name = label or target.removeprefix("!").removeprefix("@")
        return Markup('<span class="mention">@{}</span>').format(plain(name))
    if urlsplit(plain(target)).scheme in _SCHEMES:
        shown = plain(label or target)
        return Markup('<a href="{}">{}</a>').format(plain(target), shown)
    return escape(plain(found[0]))


def _dot(found: re.Match[str]) -> Markup:
    # Drawn, because a server often has no font with coloured circles.
    drawn = Markup('<span class="dot" style="background:{}" title="{}"></span>')
    return drawn.format(_DOTS[found[0]], found[0])


def _seen(message: Stored) -> dict[str, Any]:
    body = message.body
    blocks = [block for block in body.get("blocks") or () if block["type"] in _KINDS]
    return {
        "ts": message.ts,
        "when": datetime.fromtimestamp(message.at / 1e6, UTC),
        "text": body["text"],
        "blocks": blocks,
        "edited": "edited" in body,
    }
