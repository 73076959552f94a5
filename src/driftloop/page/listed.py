"""Many models as lines of a message: what is common to all once, then what is each one's own."""

import re
from collections.abc import Sequence

from driftloop.incident.lines import one_line, without
from driftloop.page.text import line
from driftloop.records import ModelId, Notice

ROWS = 10
"""So many models have a line of their own."""
ROW = 250
"""Characters of a line at most."""
_NAME = 80


def together(notices: Sequence[Notice], incident: str) -> tuple[str, str]:
    """Return what all of `notices` say, "" where that is nothing, and the models as Slack's text.

    In commands a model's name is MODEL. How to see those that are not listed is named.
    """
    many = len({notice.model for notice in notices}) > 1
    told = [_sentences(notice, many=many) for notice in notices]
    every = [one for one in told[0] if all(one in each for each in told)]
    own = [" ".join(one for one in each if one not in every) for each in told]
    heads = [without(one_line(notice.headline), notice.model) for notice in notices]
    if not any(own) and len(set(heads)) > 1:
        own = heads
    more = len(notices) - ROWS
    rest = f"and {more:,} more: `driftloop incidents {_code(incident)}`" if more > 0 else ""
    shown = list(zip(notices, own, strict=True))[:ROWS]
    if any(own):
        rows = [row(notice.model, said) for notice, said in shown]
        return " ".join(every), "\n".join((*rows, rest) if rest else rows)
    names = ", ".join(dict.fromkeys(f"`{_code(notice.model)}`" for notice, _ in shown))
    return " ".join(every), f"{names} {rest}".rstrip()


def row(model: ModelId, said: str) -> str:
    """Return a model and what is said of it as a line of a list."""
    room = ROW - _NAME
    return f"• `{_code(model)}`  {line(_uncut(said, room), room)}"


def _code(name: str) -> str:
    """Return a name to stand in code, which a backtick would end."""
    return line(name.replace("`", "'"), _NAME) or "?"


def _sentences(notice: Notice, *, many: bool) -> list[str]:
    said = without(one_line(notice.doing), notice.model)
    if many:
        own = re.compile(rf"(?<![\w-]){re.escape(notice.model)}(?![\w-])")
        said = re.sub(r"`[^`]*`", lambda code: own.sub("MODEL", code[0]), said)
    return re.split(r"(?<=\.) ", said) if said else []


def _uncut(said: str, limit: int) -> str:
    """Return what is said up to a command that would be cut in its middle.

    >>> _uncut("Once it is right: `driftloop quarantine release eta-de`", 40)
    'Once it is right:…'
    """
    short = said[: limit - 1]
    if len(said) <= limit or short.count("`") % 2 == 0:
        return said
    return f"{short[: short.rindex('`')].rstrip()}…"
