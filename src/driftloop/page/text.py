"""Text as Slack takes it: escaped, whole characters, within a limit; untrusted all of it."""

import re
import unicodedata
from datetime import datetime

from driftloop.incident.lines import Said, one_line, utc

HEADER, SECTION, FIELDS = 150, 3000, 10
"""Slack's limits: characters of a header and of a section; fields of a section."""

_ENTITY = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_GROUPS = {"@here": "<!here>", "@channel": "<!channel>", "@everyone": "<!everyone>"}
_REFERENCE = re.compile(r"<[@!][A-Za-z0-9^|_.-]+>")
_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d \d\d:\d\d) UTC\b", re.ASCII)
_MENTION = 150
_BEYOND = 0x10000
_ISOLATE, _END = "\u2066", "\u2069"
_JOINS = "\u200d\ufe0e\ufe0f"
# They turn around what follows, ours too; Slack has no use for them.
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff")


def fit(text: str, limit: int) -> str:
    """Return `text` escaped for Slack in at most `limit` characters, an ellipsis where cut.

    Characters count as UTF-16 has them, which is never fewer than Slack counts. What runs from
    right to left does so for itself alone, and turns nothing around that follows it.

    >>> fit("MAE < 13 & falling", 40)
    'MAE &lt; 13 &amp; falling'
    >>> fit("MAE < 13 & falling", 9)
    'MAE &lt;…'
    """
    cleaned = "".join(_cleaned(character) for character in text)
    turned = [_isolated(line) for line in cleaned.split("\n")]
    whole = [piece for line in _joined(turned) for piece in line]
    if sum(map(size, whole)) <= limit:
        return "".join(whole)
    # Room for the ellipsis, and for the end of what runs the other way.
    room = limit - 1 - (_ISOLATE in whole)
    kept, taken = [], 0
    for piece in whole:
        if taken + size(piece) > room:
            break
        kept.append(piece)
        taken += size(piece)
    while kept and (kept[-1] in _JOINS or kept[-1] == _ISOLATE):
        kept.pop()
    ending = "…" + _END * (kept.count(_ISOLATE) - kept.count(_END))
    return "".join(kept).rstrip() + ending


def line(text: str, limit: int) -> str:
    """Return `text` in one line, as `fit` does."""
    return fit(one_line(text), limit)


def size(text: str) -> int:
    """Return how long a text is as UTF-16 has it, which is never less than Slack counts.

    >>> size("a&amp;"), size("🔥")
    (6, 2)
    """
    return len(text) + sum(ord(character) >= _BEYOND for character in text)


def visible(text: str) -> bool:
    """Say whether there is anything to be seen.

    >>> visible("a"), visible(" \u200b")
    (True, False)
    """
    return any(unicodedata.category(character)[0] not in "CZM" for character in text)


def mention_of(mention: str) -> str:
    """Return an owner's mention as Slack notifies by it; anything else as plain text.

    >>> mention_of("@here"), mention_of("<@U0123>"), mention_of("<b>")
    ('<!here>', '<@U0123>', '&lt;b&gt;')
    """
    if mention in _GROUPS:
        return _GROUPS[mention]
    return mention if _REFERENCE.fullmatch(mention) else line(mention, _MENTION)


def when(at: datetime) -> str:
    """Return a time that Slack shows each reader in their own zone.

    >>> from datetime import UTC
    >>> when(datetime(2013, 4, 2, 6, tzinfo=UTC))
    '<!date^1364882400^{date_short_pretty} {time}|2 Apr 2013 06:00 UTC>'
    """
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{utc(at)}>"


def timed(said: Said, limit: int) -> str:
    """Return a sentence, each part of it within `limit`, its times as readers have them."""
    return "".join(when(part) if isinstance(part, datetime) else fit(part, limit) for part in said)


def zoned(text: str) -> str:
    """Return text with the times in it that are whole, as readers have them.

    >>> zoned("Ada has it until 2013-04-02 06:00 UTC")
    'Ada has it until <!date^1364882400^{date_short_pretty} {time}|2 Apr 2013 06:00 UTC>'
    """
    return _TIME.sub(_in_zone, text)


def link(text: str, url: str, limit: int = HEADER) -> str:
    """Return a link as Slack writes it."""
    return f"<{_address(url)}|{line(text, limit).replace('|', '/')}>"


def _in_zone(found: re.Match[str]) -> str:
    try:
        return when(datetime.strptime(f"{found[1]} +0000", "%Y-%m-%d %H:%M %z"))
    except ValueError:  # as a name may have it
        return found[0]


def _address(url: str) -> str:
    coded = url.replace("|", "%7C").replace("<", "%3C").replace(">", "%3E")
    coded = re.sub(r"\s", "%20", coded).replace("&", "&amp;")
    return "".join(character for character in coded if not _odd(character))


def _cleaned(character: str) -> str:
    if character in "\n\t":
        return character
    return "" if _odd(character) else character


def _odd(character: str) -> bool:
    return character in _TURNS or unicodedata.category(character) in ("Cc", "Cs")


def _isolated(text: str) -> list[str]:
    """Return the escaped characters of a line; closed off, where some run from right to left."""
    pieces = [_ENTITY.get(character, character) for character in text]
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
        return [_ISOLATE, *pieces, _END]
    return pieces


def _joined(lines: list[list[str]]) -> list[list[str]]:
    return [[*line_, "\n"] for line_ in lines[:-1]] + lines[-1:]
