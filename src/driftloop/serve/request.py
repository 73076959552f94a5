"""What callers send, parsed once: rows to answer, and labels; every fault is gathered."""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import msgspec

from driftloop.errors import BadRequest
from driftloop.records import FeatureValue, Label, ModelId, Task
from driftloop.spec import Family

MOST_ROWS = 10_000
"""Rows or labels in one request."""
MOST_FAULTS = 20
"""Faults that are told; the others are counted."""
LONGEST_ID = 200
"""Characters of an id."""
LARGEST = 3.4028234663852886e38
"""The largest float32: models are given no more."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row to answer; `features` has every feature of the family, null where not given."""

    id: str
    event_time: datetime
    features: dict[str, FeatureValue]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field; `row` counts from 0, and is None for the request itself."""

    row: int | None
    field: str
    what: str
    hint: str = ""


class BadRows(BadRequest):
    """Rows or labels that cannot be used: the first faults, and how many there are in all."""

    def __init__(self, faults: tuple[Fault, ...], total: int) -> None:
        """Keep `faults`; the message is the first one, and the count."""
        self.faults = faults
        self.total = total
        first = faults[0]
        where = "request" if first.row is None else f"row {first.row}"
        others = f" ({total} faults in all)" if total > 1 else ""
        super().__init__(
            f"{first.what}{others}",
            where=f"{where}, {first.field}" if first.field else where,
            hint=first.hint,
        )


class NotJson(BadRequest):
    """The body is not JSON at all."""


class Faults:
    """Gathers faults; keeps the first `MOST_FAULTS` and counts the others."""

    def __init__(self) -> None:
        self._kept: list[Fault] = []
        self._total = 0

    def add(self, row: int | None, field: str, what: str, hint: str = "") -> None:
        """Note one fault."""
        self._total += 1
        if self.room:
            named = field[:100].encode(errors="replace").decode()
            self._kept.append(Fault(row, named, what, hint))

    @property
    def room(self) -> bool:
        """Whether the next fault will be kept: a costly hint is worth its while only then."""
        return len(self._kept) < MOST_FAULTS

    def check(self) -> None:
        """Raise BadRows if there are any."""
        if self._total:
            raise BadRows(tuple(self._kept), self._total)


def parse_rows(family: Family, body: bytes) -> list[Row]:
    """Return the rows of `body`: one row object, or {"rows": [...]}.

    A row is flat: the family's time column (ISO 8601 with a zone), its features, and an `id` if
    the caller has one (one is made otherwise). A feature that is null or absent is null, and so
    is an empty category, which models do not tell from null. A value outside a feature's declared
    range is answered: it is a reading of quality, not a fault of the request.

    Raises:
        NotJson: the body is not JSON.
        BadRows: with the faults of all rows.
    """
    given, doubt = _decoded(body)
    faults = Faults()
    items = _items(given, "rows", faults)
    rows = [row for number, item in enumerate(items) if (row := _row(family, number, item, faults))]
    _check_unique(items, faults)
    faults.check()
    if doubt is not None:
        raise doubt
    return rows


def parse_labels(family: Family, model: ModelId, body: bytes, *, now: datetime) -> list[Label]:
    """Return the labels of `body`: one {"id", "value", "observed_at"?}, or {"labels": [...]}.

    A binary label is 0 or 1. `now` is when a label without `observed_at` was observed.

    Raises:
        NotJson: the body is not JSON.
        BadRows: with the faults of all labels.
    """
    given, doubt = _decoded(body)
    faults = Faults()
    items = _items(given, "labels", faults)
    labels = [
        label
        for number, item in enumerate(items)
        if (label := _label(family, model, number, item, faults, now))
    ]
    _check_unique(items, faults)
    faults.check()
    if doubt is not None:
        raise doubt
    return labels


def read_time(value: object) -> datetime:
    """Return `value`, ISO 8601 text or a datetime, in UTC.

    Raises:
        ValueError: it is neither, or has no zone; the message says so.

    >>> read_time("2026-03-01T10:00:00+01:00")
    datetime.datetime(2026, 3, 1, 9, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        time = None
    if time is None or not isinstance(value, str | datetime):
        msg = f"should be an ISO 8601 time, got {_shown(value)}"
        raise ValueError(msg)
    if time.tzinfo is None:
        msg = f"should have a time zone, got {_shown(value)}"
        raise ValueError(msg)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        msg = f"is outside the calendar in UTC: {_shown(value)}"
        raise ValueError(msg) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name nearest to `name`, or at all of them."""
    names = list(known)
    close = get_close_matches(name[:100], names, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def _decoded(body: bytes) -> tuple[object, NotJson | None]:
    """Return the decoded body; NaN, Infinity and 1e999 pass, so that their row can be named."""
    try:
        return msgspec.json.decode(body), None
    except (ValueError, RecursionError) as error:
        refusal = NotJson(f"the body is not JSON: {error}", where="request")
        try:
            return json.loads(body), refusal
        except (ValueError, RecursionError):
            raise refusal from error


def _items(given: object, key: str, faults: Faults) -> list[Any]:
    """Return what is listed under `key`, or the one object that the body is."""
    if not isinstance(given, dict):
        faults.add(
            None, "", f"should be an object, got {_shown(given)}", f'send {{"{key}": [...]}}'
        )
        return []
    if key not in given:
        return [given]
    items = given[key]
    for name in given.keys() - {key}:
        faults.add(None, name, f"stands beside {key!r}", f"put it into each of the {key}")
    if not isinstance(items, list) or not items:
        faults.add(None, key, f"should be a list of at least one, got {_shown(items)}")
        return []
    if len(items) > MOST_ROWS:
        what = f"{len(items):,} are too many for one request"
        faults.add(None, key, what, f"send at most {MOST_ROWS:,}, or use predict-batch")
        return []
    return items


def _check_unique(items: list[Any], faults: Faults) -> None:
    """Note every id of one request that stands in it twice."""
    seen: set[str] = set()
    for number, item in enumerate(items):
        given = item.get("id") if isinstance(item, dict) else None
        if isinstance(given, str):
            if given in seen:
                faults.add(number, "id", f"{_shown(given)} stands twice in the request")
            seen.add(given)


def _row(family: Family, number: int, given: object, faults: Faults) -> Row | None:
    if not isinstance(given, dict):
        faults.add(number, "", f"should be an object, got {_shown(given)}")
        return None
    features: dict[str, FeatureValue] = dict.fromkeys(family.features)
    refused: set[str] = set()
    for name, value in given.items():
        if name in ("id", family.time):
            continue
        feature = family.features.get(name)
        if feature is None:
            known = ("id", family.time, *family.features)
            hint = nearest(name, known) if faults.room else ""
            faults.add(number, name, "unknown field", hint)
        elif value is not None:
            what = _not_a_number(value) if feature.kind == "numeric" else _not_text(value)
            if what:
                faults.add(number, name, what)
                refused.add(name)
            else:
                features[name] = float(value) if feature.kind == "numeric" else value or None
    for name, feature in family.features.items():
        if feature.required and features[name] is None and name not in refused:
            faults.add(number, name, "is required", "give it a value")
    row_id = _row_id(number, given, faults) or uuid.uuid4().hex
    event_time = _time(number, family.time, given.get(family.time), faults)
    return Row(row_id, event_time, features) if event_time else None


def _label(
    family: Family, model: ModelId, number: int, given: object, faults: Faults, now: datetime
) -> Label | None:
    if not isinstance(given, dict):
        faults.add(number, "", f"should be an object, got {_shown(given)}")
        return None
    for name in given.keys() - {"id", "value", "observed_at"}:
        faults.add(number, name, "unknown field", nearest(name, ("id", "value", "observed_at")))
    label_id = _row_id(number, given, faults)
    if given.get("id") is None:
        faults.add(number, "id", "is required", "the id that the prediction was answered with")
    value: Any = given.get("value")
    what = "is required" if value is None else _not_a_number(value)
    if not what and family.task is Task.BINARY and value not in (0, 1):
        what = f"should be 0 or 1, got {_shown(value)}"
    if what:
        faults.add(number, "value", what)
    at = given.get("observed_at")
    observed_at = now if at is None else _time(number, "observed_at", at, faults)
    if what or label_id is None or observed_at is None:
        return None
    return Label(id=label_id, model=model, value=float(value), observed_at=observed_at)


def _row_id(number: int, given: Mapping[str, Any], faults: Faults) -> str | None:
    row_id = given.get("id")
    if row_id is None:
        return None
    if not isinstance(row_id, str) or not 0 < len(row_id) <= LONGEST_ID:
        what = f"should be a string of 1 to {LONGEST_ID} characters, got {_shown(row_id)}"
        faults.add(number, "id", what)
        return None
    return row_id


def _time(number: int, field: str, value: object, faults: Faults) -> datetime | None:
    hint = 'as in "2026-03-01T10:00:00Z"'
    if value is None:
        faults.add(number, field, "is required", hint)
        return None
    try:
        return read_time(value)
    except ValueError as error:
        faults.add(number, field, str(error), hint)
        return None


def _not_a_number(value: object) -> str:
    """Return why `value` cannot be given to a model as a number; empty if it can."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"should be a number, got {_shown(value)}"
    if value != value:  # noqa: PLR0124 - only NaN differs from itself
        return "is NaN; send null, or leave it out"
    if not -LARGEST <= value <= LARGEST:
        return "is infinite, or too large for the float32 that models are given"
    return ""


def _not_text(value: object) -> str:
    return "" if isinstance(value, str) else f"should be a string, got {_shown(value)}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return "a very large integer"  # str() of it may raise
    text = repr(value[:60] if isinstance(value, str) else value)
    return f"the string {text}" if isinstance(value, str) else text
