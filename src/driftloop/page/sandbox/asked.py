"""What the stand-in is asked, and how it refuses."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Body = dict[str, Any]
Item = TypeVar("Item")

TEAM = "T0LOCAL"
DOMAIN = "driftloop-local"
APP = "A0DRIFTLOOP"
BOT = {"user": "U0DRIFTLOOP", "bot_id": "B0DRIFTLOOP", "app_id": APP, "team": TEAM}
TS = re.compile(r"\d{10}\.\d{6}")

_ROWS = 1000


class Refused(Exception):
    """An error as Slack answers it: in the body of a 200."""

    def __init__(self, error: str, *faults: str) -> None:
        super().__init__(error)
        self.body: Body = {"ok": False, "error": error}
        if faults:
            told = [f"[ERROR] {fault}" for fault in faults]
            self.body |= {"errors": list(faults), "response_metadata": {"messages": told}}


def decoded(asked: Body, name: str, error: str) -> Any:  # noqa: ANN401 - whatever JSON says
    """Return the argument `name`, read as JSON where a form has it as text.

    Raises:
        Refused: it is no JSON, with `error`.
    """
    given = asked.get(name)
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError as broken:
        raise Refused(error) from broken


def flag(asked: Body, name: str) -> bool:
    """Return whether the argument `name` says yes.

    >>> flag({"inclusive": "1"}, "inclusive"), flag({"inclusive": "false"}, "inclusive")
    (True, False)
    """
    return str(asked.get(name, "")).lower() in {"1", "true"}


def part(
    items: Sequence[Item], asked: Body, key: Callable[[Item], str]
) -> tuple[Sequence[Item], str]:
    """Return one page and the cursor of the next, "" on the last.

    A cursor names the next item, so that a message posted meanwhile shifts nothing.

    Raises:
        Refused: the limit or the cursor cannot be one.
    """
    given, cursor = str(asked.get("limit") or 100), str(asked.get("cursor") or "")
    if not given.isdecimal() or not 1 <= int(given) < _ROWS:
        raise Refused("invalid_limit")
    keys = [_cursor(key(item)) for item in items]
    if cursor and cursor not in keys:
        raise Refused("invalid_cursor")
    start = keys.index(cursor) if cursor else 0
    end = start + int(given)
    return items[start:end], keys[end] if end < len(keys) else ""


def _cursor(key: str) -> str:
    return base64.b64encode(f"next:{key}".encode()).decode()
