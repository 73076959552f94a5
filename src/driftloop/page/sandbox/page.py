"""The local Slack, read by a person: channels and messages as one HTML page, to click on.

Everything that was sent is escaped first; of mrkdwn it shows bold, italic, strike, code,
links and mentions.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from driftloop.page.sandbox.asked import Body
from driftloop.page.sandbox.files import address_of, file_id, media_type, shown_file
from driftloop.page.sandbox.store import Store, Stored
from driftloop.page.sandbox.workspace import Whisper, Workspace

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
    "⛔": "#7c1d1d",
    "⏫": "#d1293d",
    "🔔": "#e8912d",
    "👀": "#2f6fde",
    "👤": "#6a676a",
    "⏸️": "#6a676a",
    "↩️": "#6a676a",
    "🔕": "#a09ca0",
    "🔗": "#a09ca0",
    "⏳": "#a09ca0",
    "❔": "#a09ca0",
}
_DOT = re.compile("|".join(_DOTS))
_SCHEMES = frozenset({"http", "https", "mailto"})
_READER = "U0OPERATOR1"
"""Who reads the page until somebody else is chosen."""


class _Tab(NamedTuple):
    id: str
    name: str
    messages: int
    newest: int
    archived: bool


def render(slack: Workspace, channel: str, user: str) -> str:
    """Return the page of `channel` (an id or a name), or of the one that was written to last.

    `user` reads it, and clicks.
    """
    tabs = _tabs(slack.store)
    return (
        _pages()
        .get_template("page.html")
        .render(
            tabs=tabs,
            chosen=_chosen(tabs, channel),
            readers=[one for one in slack.store.people("U").values() if not one["is_bot"]],
            reader=_reader(slack, user),
            told=fragment(slack, channel, user),
        )
    )


def fragment(slack: Workspace, channel: str, user: str) -> Body:
    """Return the parts of that page which change.

    As {"tabs": HTML, "articles": [{"id", "html"}], "older": how many are not shown, "modal":
    {"id", "html"} or None}.
    """
    tabs, reader = _tabs(slack.store), _reader(slack, user)
    chosen = _chosen(tabs, channel)
    parts = _pages().get_template("parts.html").module
    threads = [] if chosen is None else _threads(slack, chosen.id, reader)
    names = _names(slack.store)
    view = next((one for one in slack.views.values() if one.user == reader), None)
    modal = None
    if view is not None:
        html = str(parts.modal(view.told, view.errors, names))  # type: ignore[attr-defined]
        modal = {"id": view.told["id"], "html": html}
    return {
        "tabs": str(parts.tabs(tabs, chosen, reader)),  # type: ignore[attr-defined]
        "articles": [
            {"id": f"t{one['ts']}", "html": str(parts.article(one, names))}  # type: ignore[attr-defined]
            for one in threads
        ],
        "older": 0 if chosen is None else max(0, chosen.messages - _SHOWN),
        "modal": modal,
    }


def mrkdwn(text: str, names: Mapping[str, str] | None = None) -> Markup:
    """Return Slack's mrkdwn as safe HTML; `names` of people and channels stand for their ids.

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
    left = _REFERENCE.sub(hold(lambda found: _reference(found, names or {})), left)
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


def drawn(text: str) -> Markup:
    """Return Slack's plain text as safe HTML, with its coloured circles drawn.

    >>> print(drawn("a &lt; b"))
    a &lt; b
    """
    shown = Markup()
    last = 0
    for found in _DOT.finditer(text):
        shown += escape(plain(text[last : found.start()])) + _dot(found)
        last = found.end()
    return shown + escape(plain(text[last:]))


def _code(found: re.Match[str]) -> Markup:
    if found["pre"] is not None:
        return Markup("<pre>{}</pre>").format(plain(found["pre"]))
    return Markup("<code>{}</code>").format(plain(found["code"]))


def _reference(found: re.Match[str], names: Mapping[str, str]) -> Markup:
    target, _, label = found[1].partition("|")
    if target.startswith("!date"):
        return escape(plain(label))
    if target.startswith(("@", "#", "!")):
        id_ = target.removeprefix("!").removeprefix("subteam^").lstrip("@#")
        sign = "#" if target.startswith("#") else "@"
        name = label.lstrip("@#") or names.get(id_, id_)
        return Markup('<span class="mention">{}{}</span>').format(sign, plain(name))
    if urlsplit(plain(target)).scheme in _SCHEMES:
        shown = plain(label or target)
        return Markup('<a href="{}">{}</a>').format(plain(target), shown)
    return escape(plain(found[0]))


def _dot(found: re.Match[str]) -> Markup:
    # Drawn, because a server often has no font with coloured circles.
    drawn = Markup('<span class="dot" style="background:{}" title="{}"></span>')
    return drawn.format(_DOTS[found[0]], found[0])


@cache
def _pages() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "mrkdwn": mrkdwn,
        "plain": plain,
        "drawn": drawn,
        "rich": _rich,
        "http": _http,
    }
    return pages


def _tabs(store: Store) -> list[_Tab]:
    tabs, archived = [], store.archived()
    for id_, name in store.channels().items():
        told = store.history(id_)
        tabs.append(_Tab(id_, name, len(told), told[0].at if told else 0, id_ in archived))
    return tabs


def _chosen(tabs: list[_Tab], channel: str) -> _Tab | None:
    chosen = next((tab for tab in tabs if channel in {tab.id, tab.name}), None)
    return chosen or max(tabs, key=lambda tab: tab.newest, default=None)


def _reader(slack: Workspace, user: str) -> str:
    return user if user in slack.store.people("U") else _READER


def _names(store: Store) -> dict[str, str]:
    users = {id_: str(one["real_name"]) for id_, one in store.people("U").items()}
    groups = {id_: str(one["handle"]) for id_, one in store.people("S").items()}
    return users | groups | store.channels()


def _threads(slack: Workspace, channel: str, reader: str) -> list[Body]:
    """Return the newest that `reader` sees in a channel, newest first, each with its replies."""
    whispers = [one for one in slack.whispers if (one.channel, one.user) == (channel, reader)]
    threads = []
    for one in slack.store.history(channel)[:_SHOWN]:
        replies = [_seen(slack, reply) for reply in slack.store.replies(channel, one.at)]
        replies += [_whispered(slack, said) for said in whispers if said.thread == one.at]
        replies.sort(key=lambda seen: str(seen["ts"]))
        threads.append(_seen(slack, one) | {"replies": replies})
    threads += [_whispered(slack, said) for said in whispers if said.thread is None]
    return sorted(threads, key=lambda seen: str(seen["ts"]), reverse=True)


def _whispered(slack: Workspace, said: Whisper) -> Body:
    message = Stored(said.channel, said.at, said.thread, said.body)
    return _seen(slack, message) | {"alone": True, "replies": []}


def _seen(slack: Workspace, message: Stored) -> Body:
    body = message.body
    return {
        "channel": message.channel,
        "ts": message.ts,
        "when": datetime.fromtimestamp(message.at / 1e6, UTC),
        "text": body["text"],
        "blocks": [_with_pictures(slack.store, block) for block in body.get("blocks") or ()],
        "files": list(_files(slack.store, body.get("files", ()))),
        "edited": "edited" in body,
        "gone": body.get("subtype") == "tombstone",
        "trouble": slack.troubles.get((message.channel, message.at), ""),
        "alone": False,
    }


def _with_pictures(store: Store, block: Body) -> Body:
    """Return the block with an address the page has for each image that was uploaded."""
    if isinstance(block.get("elements"), list) and block["type"] == "context":
        block = {**block, "elements": [_pictured(store, one) for one in block["elements"]]}
    if isinstance(block.get("accessory"), dict):
        block = {**block, "accessory": _pictured(store, block["accessory"])}
    return _pictured(store, block)


def _pictured(store: Store, block: Body) -> Body:
    if block.get("type") != "image":
        return block
    found = store.file(file_id(block.get("slack_file") or {}))
    # What stands elsewhere is not fetched: the page calls nobody.
    return block | {"src": "" if found is None else f"/{address_of(found)}"}


def _files(store: Store, ids: Iterable[str]) -> Iterable[Body]:
    for file in map(store.file, ids):
        if file is not None:
            told = shown_file(file)
            yield told | {
                "src": f"/{address_of(file)}",
                "drawn": media_type(file.content or b"") is not None,
            }


def _http(url: str) -> str:
    """Return an address a button may open, "#" for any other."""
    return url if urlsplit(url).scheme in _SCHEMES else "#"


def _rich(block: Body) -> str:
    """Return the words of a block of rich text, or of one the page does not draw."""
    if isinstance(block.get("text"), str):
        return str(block["text"])
    inside = block.get("elements") or block.get("rows")
    listed = inside if isinstance(inside, list) else []
    words = [_rich(one) if isinstance(one, dict) else "" for one in listed]
    return (" " if block.get("type") != "rich_text" else "\n").join(words)
