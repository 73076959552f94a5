"""A notice as Slack's Block Kit: pure, within Slack's limits, escaped.

An incident has one message. It keeps the headline and the proof it was opened with; its state
and what the loop is doing about it are replaced as things move on. The thread keeps the story.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from driftloop.records import PLATFORM, Evidence, Link, Notice, Stage

Block = dict[str, Any]
"""One Block Kit block, as JSON would hold it."""

HEADER = 150
SECTION = 3000
FIELD = 2000
FIELDS = 10
BLOCKS = 50
"""Slack's limits: characters of a header, a section and a field; fields; blocks."""

_FALLBACK = 1000
_LINKS = 2000
_SHOWN: Mapping[Stage, tuple[str, str]] = {
    Stage.OPENED: ("🔴", "Open"),
    Stage.WORSENED: ("🔴", "Open: now it predicts worse"),
    Stage.BLOCKED: ("⛔", "Blocked: bad data"),
    Stage.RETRAINING: ("🟡", "Retraining"),
    Stage.PROMOTED: ("🔵", "New version serving"),
    Stage.REFUSED: ("🟠", "Candidate refused"),
    Stage.FAILED: ("❌", "Retraining failed"),
    Stage.HELD: ("⏸️", "Rollout held"),
    Stage.STUCK: ("⛔", "Promotion stuck"),
    Stage.ROLLED_BACK: ("↩️", "Rolled back"),
    Stage.RECOVERED: ("🟢", "Recovered"),
    Stage.QUARANTINED: ("⛔", "In quarantine: trains nothing"),
    Stage.RELEASED: ("🟢", "Released: trains again"),
    Stage.DOUBTED: ("❔", "Labels in doubt"),
}
_NEEDS_A_PERSON = frozenset(
    {Stage.OPENED, Stage.WORSENED, Stage.BLOCKED, Stage.REFUSED, Stage.FAILED}
    | {Stage.HELD, Stage.STUCK, Stage.ROLLED_BACK, Stage.QUARANTINED}
)
_GROUPS = {"@here": "<!here>", "@channel": "<!channel>", "@everyone": "<!everyone>"}
_REFERENCE = re.compile(r"<[@!][A-Za-z0-9^|_.-]+>")
_ENTITY = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def opening(notice: Notice) -> tuple[str, list[Block]]:
    """Return the fallback text and the blocks of an incident's message.

    The fallback is what a phone shows; the blocks carry the ids `headline`, `state`,
    `evidence`, `doing` and `links`, of which an update replaces `state` and `doing`.
    """
    title = _title(notice)
    blocks = [
        {
            "type": "header",
            "block_id": "headline",
            "text": {"type": "plain_text", "text": fit(title, HEADER), "emoji": True},
        },
        _state(notice, mention=True),
    ]
    if fit(title, HEADER) != fit(title, SECTION):
        blocks.append(_section("full-headline", fit(title, SECTION)))
    blocks += [*_evidence(notice.evidence), _doing(notice), *_links(notice.links)]
    return _fallback(notice, fit(title, HEADER)), blocks


def updated(notice: Notice, standing: Sequence[Block]) -> tuple[str, list[Block]]:
    """Return the incident's message after `notice`: its standing facts, the new state.

    A standing message without a state of ours is written anew.
    """
    fresh = {"state": _state(notice, mention=True), "doing": _doing(notice)}
    if not fresh.keys() <= {block.get("block_id") for block in standing}:
        return opening(notice)
    kept = [fresh.get(block.get("block_id", ""), block) for block in standing]
    headline = next((text for block in standing[:1] for text in _texts(block)), "")
    return _fallback(notice, headline or fit(_title(notice), HEADER)), kept


def reply(notice: Notice, standing: Sequence[Block] = ()) -> tuple[str, list[Block]]:
    """Return the fallback text and the blocks that tell `notice` in the incident's thread.

    What already stands in the incident's message (`standing`) is not said again; the owner is
    mentioned only when a person has to look.
    """
    said = {text for block in standing for text in _texts(block)}
    headline = _section("headline", f"*{fit(_line(notice.headline), SECTION - 2)}*")
    title = fit(_title(notice), HEADER)
    extra = [*_evidence(notice.evidence), *_links(notice.links)]
    blocks = [
        _state(notice, mention=notice.stage in _NEEDS_A_PERSON, at=notice.at),
        *([] if title in said else [headline]),
        *([_section("doing", fit(notice.doing, SECTION))] if notice.doing.strip() else []),
        *(block for block in extra if not said.issuperset(_texts(block))),
    ]
    return _fallback(notice, title), blocks


def fit(text: str, limit: int) -> str:
    """Return `text` escaped for Slack in at most `limit` characters, an ellipsis where cut.

    >>> fit("MAE < 13 & falling", 40)
    'MAE &lt; 13 &amp; falling'
    >>> fit("MAE < 13 & falling", 9)
    'MAE &lt;…'
    """
    pieces = [_ENTITY.get(character, character) for character in text]
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    kept, size = [], 0
    for piece in pieces:
        if size + len(piece) > limit - 1:
            break
        kept.append(piece)
        size += len(piece)
    return "".join(kept).rstrip() + "…"


def mention_of(mention: str) -> str:
    """Return an owner's mention as Slack notifies by it; anything else as plain text.

    >>> mention_of("@here"), mention_of("<@U0123>"), mention_of("<b>")
    ('<!here>', '<@U0123>', '&lt;b&gt;')
    """
    if mention in _GROUPS:
        return _GROUPS[mention]
    return mention if _REFERENCE.fullmatch(mention) else fit(_line(mention), HEADER)


def _title(notice: Notice) -> str:
    headline = _line(notice.headline)
    return headline if notice.model in headline else f"{notice.model}: {headline}"


def _fallback(notice: Notice, escaped_title: str) -> str:
    emoji, word = _SHOWN[notice.stage]
    said = f"{emoji} {word}: {escaped_title}"
    return said + " - " + fit(_line(notice.doing), _FALLBACK - len(said))


def _state(notice: Notice, *, mention: bool, at: datetime | None = None) -> Block:
    emoji, word = _SHOWN[notice.stage]
    said = [f"{emoji} *{word}*"]
    if at is not None:
        said.append(_when(at))
    elif notice.stage is Stage.RECOVERED:
        lasted = notice.at - notice.since
        said.append(f"{_when(notice.since)} to {_when(notice.at)} ({_lasting(lasted)})")
    else:
        said.append(f"since {_when(notice.since)}")
    if at is None:
        said.insert(1, f"`{fit(_line(notice.model), FIELD)}`")
    if mention and notice.mention:
        said.append(mention_of(notice.mention))
    return _section("state", " · ".join(said))


def _doing(notice: Notice) -> Block:
    lead = "*What to do*\n" if notice.model == PLATFORM else "*What the loop is doing*\n"
    return _section("doing", lead + fit(notice.doing, SECTION - len(lead)))


def _evidence(evidence: Sequence[Evidence]) -> list[Block]:
    if not evidence:
        return []
    fields = [{"type": "mrkdwn", "text": _field(one)} for one in evidence[:FIELDS]]
    blocks: list[Block] = [{"type": "section", "block_id": "evidence", "fields": fields}]
    if len(evidence) > FIELDS:
        blocks.append(_context("more-evidence", f"and {len(evidence) - FIELDS} more"))
    return blocks


def _field(one: Evidence) -> str:
    part = FIELD // 4
    limit = f" · limit {fit(_line(one.limit), part)}" if one.limit else ""
    told = f"*{fit(_line(one.what), part)}*\n{fit(_line(one.value), part)}{limit}"
    return told if one.n is None else f"{told}\n{_counted(one.n, 'row')}"


def _links(links: Sequence[Link]) -> list[Block]:
    if not links:
        return []
    shown: list[str] = []
    for link in links:
        label = fit(_line(link.text), HEADER).replace("|", "/")
        one = f"<{_address(link.url)}|{label}>"
        if sum(map(len, shown)) + len(one) > _LINKS:
            break
        shown.append(one)
    if len(shown) < len(links):
        shown.append(f"and {len(links) - len(shown)} more")
    return [_context("links", "  ·  ".join(shown))]


def _address(url: str) -> str:
    coded = url.replace("|", "%7C").replace("<", "%3C").replace(">", "%3E").replace(" ", "%20")
    return coded.replace("&", "&amp;")


def _section(block_id: str, text: str) -> Block:
    return {"type": "section", "block_id": block_id, "text": {"type": "mrkdwn", "text": text}}


def _context(block_id: str, text: str) -> Block:
    return {
        "type": "context",
        "block_id": block_id,
        "elements": [{"type": "mrkdwn", "text": text}],
    }


def _texts(block: Block) -> Iterable[str]:
    parts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
    return [part["text"] for part in parts if isinstance(part, dict) and "text" in part]


def _line(text: str) -> str:
    return " ".join(text.split())


def _when(at: datetime) -> str:
    return f"{at.day} {at:%b %Y %H:%M} UTC"


def _lasting(lasted: timedelta) -> str:
    hours, minutes = lasted.seconds // 3600, lasted.seconds // 60
    if lasted.days:
        return _counted(lasted.days, "day")
    return _counted(hours, "hour") if hours else _counted(minutes, "minute")


def _counted(n: int, unit: str) -> str:
    return f"{n:,} {unit}" if n == 1 else f"{n:,} {unit}s"
