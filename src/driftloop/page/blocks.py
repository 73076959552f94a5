"""Incidents, entries of their threads and digests as Slack's Block Kit.

Pure, within Slack's limits, and escaped: names, reasons and numbers may say anything. Each
function returns the text that a notification shows, and the blocks that are read.
"""

from collections.abc import Iterable, Mapping, Sequence

from driftloop.incident.lines import (
    CAUSE,
    STAGES,
    acted,
    cause,
    common,
    one_line,
    utc,
    without,
    worst,
)
from driftloop.incident.stages import OF_TELLING
from driftloop.incident.words import doing, headline, needs, standing, stands, telling
from driftloop.page.buttons import Block, buttons
from driftloop.page.picture import alt_text
from driftloop.page.text import (
    FIELDS,
    HEADER,
    SECTION,
    fit,
    line,
    link,
    mention_of,
    size,
    timed,
    visible,
    when,
)
from driftloop.records import (
    Address,
    Answer,
    Digest,
    Entry,
    Evidence,
    Incident,
    Link,
    ModelId,
    Notice,
    Severity,
    Stage,
    Status,
)

__all__ = ["answered", "entry", "message", "summary"]

_FALLBACK = 400
_HEADLINE, _SAID, _WHY, _PART, _ROW, _ACT = 1000, 1200, 800, 200, 250, 200
_ROWS = 10
_LINKS = 1500
_SECTIONS, _LISTED, _MORE = 20, 7_000, 20
_SIGNS: Mapping[Status, str] = {
    Status.WAITING: "⏳",
    Status.ACKED: "👀",
    Status.SILENCED: "🔕",
    Status.EXPLAINED: "🔗",
    Status.RESOLVED: "🟢",
}
_WORDS: Mapping[Status, str] = {
    Status.WAITING: "Soon to be told",
    Status.ACKED: "Acknowledged",
    Status.SILENCED: "Silenced",
    Status.EXPLAINED: "Part of a larger one",
    Status.RESOLVED: "Resolved",
}
_STAGE_SIGNS: Mapping[Stage, str] = {
    Stage.OPENED: "🔴",
    Stage.WORSENED: "🔴",
    Stage.BLOCKED: "⛔",
    Stage.RETRAINING: "🟡",
    Stage.PROMOTED: "🔵",
    Stage.REFUSED: "🟠",
    Stage.FAILED: "❌",
    Stage.HELD: "⏸️",
    Stage.STUCK: "⛔",
    Stage.ROLLED_BACK: "↩️",
    Stage.RECOVERED: "🟢",
    Stage.QUARANTINED: "⛔",
    Stage.RELEASED: "🟢",
    Stage.DOUBTED: "❔",
    Stage.ACTED: "👤",
    Stage.REMINDED: "🔔",
    Stage.ESCALATED: "⏫",
    Stage.EXPIRED: "🔴",
    Stage.RELAYED: "✉️",
    Stage.EXPLAINS: "🔗",
    Stage.AGAIN: "🔁",
}


def message(
    incident: Incident, to: Address, *, picture: str | None = None
) -> tuple[str, list[Block]]:
    """Return an incident's message as it is to be now; `picture` is Slack's id of its chart."""
    said, notice = headline(incident), telling(incident)
    over = incident.status is Status.RESOLVED
    links = _links_of(incident, notice)
    rows = buttons(incident, _report(links))
    blocks = [
        _header(f"Resolved: {said}" if over else said),
        _state(incident, to),
        *_whole(said),
        *(() if over else _titled("needs", "What you need to do", needs(incident))),
        *_titled("doing", "How it ended" if over else "What the loop is doing", _doing(incident)),
        *_titled("cause", "Why", cause(incident), _WHY),
        *(_models(incident) if len(incident.models) > 1 else _evidence(_numbers(notice))),
        *_picture(incident, picture),
        *_acts(incident),
        *rows,
        *_by_hand(incident, rows),
        _footer(incident),
        *_links(links),
    ]
    return _fallback(_sign(incident), _word(incident), said, needs(incident)), blocks


def entry(entry: Entry) -> tuple[str, list[Block]]:
    """Return what an incident's thread is told: notices of one stage, few or hundreds."""
    notices = entry.notices
    newest = notices[-1]
    models = tuple(dict.fromkeys(notice.model for notice in notices))
    word, sign = STAGES[newest.stage], _STAGE_SIGNS[newest.stage]
    if len(notices) == 1:
        said = lead = _named(newest)
        rest = [
            *_titled("doing", "", newest.doing),
            *_titled("cause", "Why", _cause(newest), _WHY),
            *_evidence(_numbers(newest)),
            *_links(newest.links),
        ]
    else:
        said = f"{len(models):,} models" if len(models) > 1 else models[0]
        lead, rest = f"{word}: {said}", _same(notices)
    parts = [f"{sign} *{line(lead, _HEADLINE)}*", when(newest.at)]
    if entry.mention.strip():
        parts.append(mention_of(entry.mention))
    blocks = [_section("state", " · ".join(parts)), *rest]
    if newest.stage in OF_TELLING:
        return _fallback(sign, "", said, newest.doing), blocks
    return _fallback(sign, word, said, newest.doing), blocks


def summary(digest: Digest, to: Address) -> tuple[str, list[Block]]:
    """Return a day of an owner's models; it wakes nobody, whoever `to` would mention."""
    del to
    blocks = [_header(digest.headline), *_whole(digest.headline)]
    room = _LISTED
    for number, (title, lines) in enumerate(digest.sections[:_SECTIONS]):
        text = _listed(lines, min(SECTION - HEADER - 10, max(room, 200)))
        room -= size(text)
        blocks.append(_section(f"section-{number}", f"*{line(title, HEADER)}*\n{text}".strip()))
    if len(digest.sections) > _SECTIONS:
        more = len(digest.sections) - _SECTIONS
        blocks.append(_context("more", f"and {more} sections more"))
    told = f"For {line(digest.owner, HEADER)} · {utc(digest.at)}"
    blocks += [_context("footer", told), *_links(digest.links)]
    text = digest.headline if visible(digest.headline) else "Digest"
    return line(text, _FALLBACK), blocks


def answered(answer: Answer) -> str:
    """Return what who clicked is told, seen by them alone."""
    return f"{'✅' if answer.done else '⚠️'} {fit(answer.said, _SAID)}"


def _header(said: str) -> Block:
    text = line(said, HEADER)
    shown = text if visible(text) else "driftloop"
    return {
        "type": "header",
        "block_id": "headline",
        "text": {"type": "plain_text", "text": shown, "emoji": True},
    }


def _whole(said: str) -> list[Block]:
    """Return a headline that its header cut."""
    if line(said, HEADER) == line(said, _HEADLINE):
        return []
    return [_section("full-headline", line(said, _HEADLINE))]


def _state(incident: Incident, to: Address) -> Block:
    first, *rest = stands(incident)
    lead = fit(str(first).strip(), _PART)
    said = f"{_sign(incident)} *{lead}*" + (" " if str(first).endswith(" ") else "")
    parts = [said + timed(tuple(rest), _PART)]
    if incident.status in (Status.OPEN, Status.WAITING):
        if incident.severity is Severity.CRITICAL:
            parts.append("*critical*")
        if to.mention.strip():
            parts.append(mention_of(to.mention))
    return _section("state", " · ".join(parts))


def _sign(incident: Incident) -> str:
    if incident.status in _SIGNS:
        return _SIGNS[incident.status]
    return _STAGE_SIGNS[standing(incident) or Stage.OPENED]


def _word(incident: Incident) -> str:
    """Return how it stands in a word or two, for a notification."""
    if incident.status is not Status.OPEN:
        return _WORDS[incident.status]
    stage = standing(incident) if len(incident.models) == 1 else None
    return STAGES[stage or Stage.OPENED]


def _doing(incident: Incident) -> str:
    return "" if incident.status is Status.EXPLAINED else doing(incident)


def _models(incident: Incident) -> list[Block]:
    rows, shared = worst(incident), common(incident)
    title = f"*{len(rows):,} models, worst first*"
    lines = [f"{title}: {line(shared, _ROW)}" if shared else title]
    lines += [_row(model, said) for model, said in rows[:_ROWS]]
    if len(rows) > _ROWS:
        lines.append(f"and {len(rows) - _ROWS:,} more: `driftloop incidents {_id(incident)}`")
    return [_section("models", "\n".join(lines))]


def _row(model: ModelId, said: str) -> str:
    return f"• `{_code(model)}`  {line(said, _ROW - 80)}"


def _code(name: str) -> str:
    """Return a name to stand in code, which a backtick would end."""
    return line(name.replace("`", "'"), 80) or "?"


def _same(notices: Sequence[Notice]) -> list[Block]:
    """Return what many notices of one stage say: once what is common to all."""
    doings = {without(one_line(notice.doing), notice.model) for notice in notices}
    every = next(iter(doings)) if len(doings) == 1 else ""
    rest = f"and {len(notices) - _ROWS:,} more" if len(notices) > _ROWS else ""
    if len({without(one_line(n.headline), n.model) for n in notices}) == 1 and every:
        names = [f"`{_code(notice.model)}`" for notice in notices[:_ROWS]]
        said = ", ".join(names) + (f" {rest}" if rest else "")
    else:
        rows = [
            _row(n.model, without(one_line(n.headline if every else n.doing), n.model))
            for n in notices[:_ROWS]
        ]
        said = "\n".join((*rows, rest) if rest else rows)
    return [*_titled("doing", "", every), _section("models", said)]


def _numbers(notice: Notice | None) -> tuple[Evidence, ...]:
    return () if notice is None else tuple(e for e in notice.evidence if e.what != CAUSE)


def _cause(notice: Notice) -> str:
    return next((e.value for e in notice.evidence if e.what == CAUSE), "")


def _evidence(evidence: Sequence[Evidence]) -> list[Block]:
    if not evidence:
        return []
    fields = [_mrkdwn(_field(one)) for one in evidence[:FIELDS]]
    blocks: list[Block] = [{"type": "section", "block_id": "evidence", "fields": fields}]
    if len(evidence) > FIELDS:
        blocks.append(_context("more-evidence", f"and {len(evidence) - FIELDS} more"))
    return blocks


def _field(one: Evidence) -> str:
    limit = f" · limit {line(one.limit, _PART)}" if one.limit.strip() else ""
    told = f"*{line(one.what, _PART)}*\n{line(one.value, _PART)}{limit}"
    if one.n is None:
        return told
    return f"{told}\n{one.n:,} {'row' if one.n == 1 else 'rows'}"


def _picture(incident: Incident, picture: str | None) -> list[Block]:
    if picture is None:
        return []
    drawn = [(n.chart, n.since) for n in incident.notices if n.chart is not None]
    alt = alt_text(drawn[-1][0], since=drawn[-1][1]) if drawn else headline(incident)
    return [
        {
            "type": "image",
            "block_id": "picture",
            "slack_file": {"id": picture},
            "alt_text": line(alt, _WHY),
        }
    ]


def _acts(incident: Incident) -> list[Block]:
    said = [timed(act, _ACT) for act in acted(incident)]
    return [_context("acts", "\n".join(f"👤 {one}" for one in said))] if said else []


def _by_hand(incident: Incident, rows: Iterable[Block]) -> list[Block]:
    """Return how to do on the command line what no button is there for."""
    if incident.status in (Status.RESOLVED, Status.EXPLAINED):
        return []
    if any(block["type"] == "actions" for block in rows):
        return []
    id_ = _id(incident)
    text = f"On the command line: `driftloop ack {id_}`, `driftloop silence {id_}`"
    return [_context("by-hand", text)]


def _footer(incident: Incident) -> Block:
    began = f"began {utc(incident.since)}"
    return _context("footer", f"`{_id(incident)}` · {began} · {line(incident.owner, HEADER)}")


def _id(incident: Incident) -> str:
    return line(incident.id.replace("`", "'"), HEADER) or "?"


def _links_of(incident: Incident, notice: Notice | None) -> tuple[Link, ...]:
    if len(incident.models) < 2:  # noqa: PLR2004 - one, or many
        told = [each.links for each in incident.notices if each.links]
        return notice.links if notice is not None and notice.links else (told or [()])[-1]
    first = worst(incident)[0][0]
    told = [each.links for each in incident.notices if each.model == first and each.links]
    return tuple(
        Link(text=f"{one.text} of {first}" if first in one.url else one.text, url=one.url)
        for one in (told or [()])[-1]
    )


def _report(links: Sequence[Link]) -> Link | None:
    return next((one for one in links if "report" in one.text), None)


def _links(links: Sequence[Link]) -> list[Block]:
    if not links:
        return []
    shown: list[str] = []
    for one in links:
        said = link(one.text if visible(one.text) else one.url, one.url)
        if sum(map(len, shown)) + len(said) > _LINKS:
            break
        shown.append(said)
    if len(shown) < len(links):
        shown.append(f"and {len(links) - len(shown)} more")
    return [_context("links", "  ·  ".join(shown))]


def _listed(lines: Sequence[str], room: int) -> str:
    """Return lines as a list within `room`, and how many are not shown."""
    shown: list[str] = []
    for one in lines:
        said = f"• {line(one, _ROW)}"
        if size("\n".join((*shown, said))) + _MORE > room:
            break
        shown.append(said)
    if len(shown) < len(lines):
        shown.append(f"and {len(lines) - len(shown):,} more")
    return "\n".join(shown)


def _named(notice: Notice) -> str:
    said = one_line(notice.headline)
    if not said:
        return notice.model
    if notice.stage in OF_TELLING - {Stage.EXPLAINS}:
        said = without(said, notice.model)
        return said[:1].upper() + said[1:]
    if notice.stage is Stage.EXPLAINS:  # it may be of many models, and names who it is of
        return said
    return said if notice.model in said else f"{notice.model}: {said}"


def _titled(id_: str, title: str, text: str, limit: int = _SAID) -> list[Block]:
    if not visible(text):
        return []
    lead = f"*{title}*\n" if title else ""
    return [_section(id_, lead + fit(text.strip(), limit))]


def _fallback(sign: str, word: str, said: str, rest: str) -> str:
    lead = f"{sign} {word}: {line(said, _FALLBACK)}" if word else f"{sign} {line(said, _FALLBACK)}"
    return f"{lead} - {line(rest, _FALLBACK)}" if visible(rest) else lead


def _section(block_id: str, text: str) -> Block:
    return {"type": "section", "block_id": block_id, "text": _mrkdwn(text)}


def _context(block_id: str, text: str) -> Block:
    return {"type": "context", "block_id": block_id, "elements": [_mrkdwn(text)]}


def _mrkdwn(text: str) -> Block:
    # Verbatim: "@channel" or an address in a name is nothing but its letters.
    return {"type": "mrkdwn", "text": text, "verbatim": True}
