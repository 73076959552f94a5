"""What callers send, parsed once: rows to answer, and labels; every fault is gathered."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec

from driftloop.errors import BadRequest
from driftloop.records import FeatureValue, Label, ModelId, Task
from driftloop.spec import Family, Feature

MOST_ROWS = 10_000
"""Rows or labels in one request."""
MOST_FAULTS = 20
"""Faults that are told; the others are counted."""
LISTED = 600
"""More names than a row may have fields are not all listed."""
LONGEST_ID = 200
"""Characters of an id."""
LONGEST_TEXT = 10_000
"""Characters of a text that is a feature."""
LONGEST_WORD = 500
"""Characters of a category, or of a key."""
LARGEST = 3.4028234663852886e38
"""The largest float32: models are given no more."""
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
"""What is before it is no time of an event, but a mistake of units."""
AHEAD = timedelta(days=366)
"""How far an event may lie after the service's clock: one may predict what is yet to come."""
OBSERVED_AHEAD = timedelta(days=1)
"""How far an observation may: callers' clocks differ."""
WORDS = ("categorical", "key")
"""Kinds whose empty text is null."""
GZIP = b"\x1f\x8b"
"""How what gzip wrote begins."""
NAN = "is NaN"
TOO_LARGE = "is infinite, or too large for the float32 that models are given"

_STEM = len("2026-03-01T10:00:00")


@dataclass(frozen=True, slots=True)
class Row:
    """One row to answer; `features` has every feature, in the family's order.

    Null is what was not given, and what is looked up or computed: that is filled in later. Then
    `fallbacks` are the features that had no value to be found, or too old a one, and `position` is
    the stream position that others were read at. With any in `lacking` it is not to be answered:
    they had no value, and refuse rows without.
    """

    id: str
    event_time: datetime
    features: dict[str, FeatureValue]
    fallbacks: tuple[str, ...] = ()
    position: int | None = None
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field of `rows[row]`; `row` is None for the request itself."""

    row: int | None
    field: str
    what: str
    hint: str = ""


class BadRows(BadRequest):
    """Rows or labels that cannot be used: the first faults, and how many there are in all."""

    def __init__(self, faults: tuple[Fault, ...], total: int, key: str) -> None:
        """Keep `faults`; the message is the first one, in the list called `key`, and the count."""
        self.faults = faults
        self.total = total
        first = faults[0]
        # As JSON counts, from 0; the rows of files are counted from 1, and called "row 1".
        where = "request" if first.row is None else f"{key}[{first.row}]"
        others = f" ({total} faults in all)" if total > 1 else ""
        super().__init__(
            f"{first.what}{others}",
            where=f"{where}, {first.field}" if first.field else where,
            hint=first.hint,
        )


@dataclass(frozen=True, slots=True)
class Given:
    """The rows of one request, in its order, None where one is at fault; and what the faults are.

    `bad` is None where there are none.
    """

    rows: list[Row | None]
    bad: BadRows | None = None


class NotJson(BadRequest):
    """The body is not JSON at all."""


class Compressed(NotJson):
    """The body is compressed, which nothing here undoes."""


class Faults:
    """Gathers faults of the list called `key`; keeps the first `MOST_FAULTS`, counts the others.

    With `before` it goes on from there.
    """

    def __init__(self, key: str, before: BadRows | None = None) -> None:
        self._key = key
        self._kept: list[Fault] = [*before.faults] if before else []
        self._total = before.total if before else 0
        self.rows: set[int | None] = set()
        """The rows that have faults; with None, the request itself has."""

    def add(self, row: int | None, field: str, what: str, hint: str = "") -> None:
        """Note one fault."""
        self._total += 1
        self.rows.add(row)
        if self.room:
            named = field[:100].encode(errors="replace").decode()
            self._kept.append(Fault(row, named, what, hint))

    @property
    def room(self) -> bool:
        """Whether the next fault will be kept: a costly hint is worth its while only then."""
        return len(self._kept) < MOST_FAULTS

    def told(self) -> BadRows | None:
        """Return them, or None if there are none."""
        return BadRows(tuple(self._kept), self._total, self._key) if self._total else None

    def check(self) -> None:
        """Raise BadRows if there are any."""
        if bad := self.told():
            raise bad


class RowReader:
    """Reads requests of one family as `parse_rows` does, and what is without fault more quickly.

    msgspec checks fields and types while it decodes. What it refuses is parsed again, with care:
    either to name the faults, or because it can be used all the same.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        one, many = _shapes(family)
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(one)
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(many)
        self._blank: dict[str, FeatureValue] = dict.fromkeys(family.features)
        self._sent = tuple(family.requested)
        self._words = tuple(
            name for name, feature in family.requested.items() if feature.kind in WORDS
        )

    def read(self, body: bytes, *, now: datetime, whole: bool = False) -> Given:
        """Return what `parse_rows` returns, or raise what it raises."""
        try:
            try:
                given = [self._one.decode(body)]
            except msgspec.ValidationError:
                given = self._many.decode(body).rows
            rows: list[Row | None] = [self._row(each, now) for each in given]
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            rows = []
        if not rows or (len(rows) > 1 and len({row.id for row in rows if row}) < len(rows)):
            return parse_rows(self._family, body, now=now, whole=whole)
        return Given(rows)

    def _row(self, given: msgspec.Struct, now: datetime) -> Row:
        row_id, said, *values = msgspec.structs.astuple(given)
        features = self._blank | dict(zip(self._sent, values, strict=True))
        for name in self._words:
            features[name] = features[name] or None
        time = read_time(said)
        if what := untimely(time, now=now):
            raise ValueError(what)
        return Row(row_id or uuid.uuid4().hex, time, features)


def parse_rows(family: Family, body: bytes, *, now: datetime, whole: bool = False) -> Given:
    """Return the rows of `body`: one row object, or {"rows": [...]}.

    Of several rows those without fault are returned, unless all are to be or none (`whole`).

    A row is flat: the family's time column (ISO 8601 with a zone), its features, and an `id` if
    the caller has one (one is made otherwise). A feature that is null or absent is null, and so
    is an empty category, which models do not tell from null; an empty text is a text. A value
    outside a feature's declared range is answered: it is a reading of quality, not a fault of the
    request. A time more than 366 days after `now`, or before 1900, is one.

    Raises:
        NotJson: the body is not JSON.
        BadRows: with the faults of all rows, if none is without, or one is not enough.
    """
    given, doubt = decoded(body)
    faults = Faults("rows")
    items = items_of(given, "rows", faults)
    rows = [_row(family, number, item, faults, now) for number, item in enumerate(items)]
    check_unique(items, faults)
    if doubt is not None and faults.told() is None:
        raise doubt
    return _without_faulty(rows, faults, whole=whole)


def refuse_lacking(family: Family, given: Given, rows: list[Row | None], *, whole: bool) -> Given:
    """Return `rows`, which are those of `given` with what was looked up, without the lacking ones.

    Raises:
        BadRows: no row is left, or one is lacking and all are to be answered or none (`whole`).
    """
    faults = Faults("rows", given.bad)
    for number, row in enumerate(rows):
        if row is None:
            continue
        for name in row.lacking:
            faults.add(number, name, *lack(family, name, row))
    return _without_faulty(rows, faults, whole=whole)


def lack(family: Family, name: str, row: Row) -> tuple[str, str]:
    """Return what is told, and a hint, where the looked-up feature `name` refuses `row`."""
    feature = family.features[name]
    given = row.features[str(feature.key)]
    if given is None:
        return f"is looked up by {feature.key}, which is null", f"give {feature.key} a value"
    what = f"has no value for {feature.key} {str(given)[:60]!r}, and refuses rows without"
    return what, f"GET /v1/features/{feature.source}/KEY shows what is held of a {feature.key}"


def parse_labels(family: Family, model: ModelId, body: bytes, *, now: datetime) -> list[Label]:
    """Return the labels of `body`: one {"id", "value", "observed_at"?}, or {"labels": [...]}.

    A binary label is 0 or 1, a multiclass one the name of a class. `now` is when a label without
    `observed_at` was observed; none can have been observed more than a day after it, or before
    1900.

    Raises:
        NotJson: the body is not JSON.
        BadRows: with the faults of all labels.
    """
    given, doubt = decoded(body)
    faults = Faults("labels")
    items = items_of(given, "labels", faults)
    labels = [
        label
        for number, item in enumerate(items)
        if (label := _label(family, model, number, item, faults, now))
    ]
    check_unique(items, faults)
    faults.check()
    if doubt is not None:
        raise doubt
    return labels


def one_or_many(
    fields: Mapping[str, tuple[Any, ...]], key: str
) -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    """Return the types of bodies: one object of `fields`, and a list of such under `key`.

    Args:
        fields: by name their type and, if they may be left out, what stands then.
        key: what the list is called.
    """
    # Any word may be the name of a field, but not of a Python attribute.
    attributes = {f"f{index}": name for index, name in enumerate(fields)}
    one = msgspec.defstruct(
        "One",
        [(attribute, *fields[name]) for attribute, name in attributes.items()],
        rename=attributes,
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    length = msgspec.Meta(min_length=1, max_length=MOST_ROWS)
    many: Any = Annotated[list[one], length]  # type: ignore[valid-type] # it is made at run time
    return one, msgspec.defstruct("Many", [(key, many)], forbid_unknown_fields=True)


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
        msg = f"should be an ISO 8601 time, got {shown_of(value)}"
        raise ValueError(msg)
    if time.tzinfo is None:
        msg = f"should have a time zone, got {shown_of(value)}"
        raise ValueError(msg)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        msg = f"is outside the calendar in UTC: {shown_of(value)}"
        raise ValueError(msg) from None


def untimely(time: datetime, *, now: datetime, ahead: timedelta = AHEAD) -> str:
    """Return why nothing that is logged now can have happened at `time`; empty if it can.

    >>> untimely(datetime(2028, 3, 1, tzinfo=UTC), now=datetime(2026, 3, 1, tzinfo=UTC))
    "is more than 366 days after the service's clock, which shows 2026-03-01T00:00:00Z"
    """
    if time > now + ahead:
        shown = now.astimezone(UTC).isoformat()[:_STEM]
        return f"is more than {_words(ahead)} after the service's clock, which shows {shown}Z"
    return "is before the year 1900" if time < EARLIEST else ""


def _words(length: timedelta) -> str:
    """Return a length of time in words.

    >>> _words(timedelta(days=1)), _words(timedelta(minutes=30)), _words(timedelta(hours=36))
    ('a day', '30 minutes', '2160 minutes')
    """
    days, rest = divmod(length, timedelta(days=1))
    if days and not rest:
        return "a day" if days == 1 else f"{days} days"
    minutes = length / timedelta(minutes=1)
    return "a minute" if minutes == 1 else f"{minutes:g} minutes"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name nearest to `name`, or at all of them."""
    names = list(known)
    close = get_close_matches(name[:100], names, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """Return names in a line; of very many the first, and how many there are.

    >>> listed(["red", "green"])
    'red, green'
    """
    more = f"... ({len(names)} in all)" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def decoded(body: bytes) -> tuple[object, NotJson | None]:
    """Return the decoded body; NaN, Infinity and 1e999 pass, so that their row can be named."""
    try:
        return msgspec.json.decode(body), None
    except (ValueError, RecursionError) as error:
        if body.startswith(GZIP):
            raise Compressed(
                "the body is compressed", where="request", hint="send it as it is, without gzip"
            ) from error
        refusal = NotJson(f"the body is not JSON: {error}", where="request")
        try:
            return json.loads(body), refusal
        except (ValueError, RecursionError):
            raise refusal from error


def items_of(given: object, key: str, faults: Faults) -> list[Any]:
    """Return what is listed under `key`, or the one object that the body is."""
    if not isinstance(given, dict):
        faults.add(
            None, "", f"should be an object, got {shown_of(given)}", f'send {{"{key}": [...]}}'
        )
        return []
    if key not in given:
        return [given]
    items = given[key]
    for name in given.keys() - {key}:
        faults.add(None, name, f"stands beside {key!r}", f"put it into each of the {key}")
    if not isinstance(items, list) or not items:
        faults.add(None, key, f"should be a list of at least one, got {shown_of(items)}")
        return []
    if len(items) > MOST_ROWS:
        what = f"{len(items):,} are too many for one request"
        faults.add(None, key, what, f"send at most {MOST_ROWS:,}, or use predict-batch")
        return []
    return items


def check_unique(items: list[Any], faults: Faults) -> None:
    """Note every id of one request that stands in it twice."""
    seen: set[str] = set()
    for number, item in enumerate(items):
        given = item.get("id") if isinstance(item, dict) else None
        if isinstance(given, str):
            if given in seen:
                faults.add(number, "id", f"{shown_of(given)} stands twice in the request")
            seen.add(given)


def _without_faulty(rows: list[Row | None], faults: Faults, *, whole: bool) -> Given:
    """Return `rows` with None for those at fault; raise if that is not enough of them."""
    bad = faults.told()
    if bad is not None:
        rows = [None if number in faults.rows else row for number, row in enumerate(rows)]
        if whole or None in faults.rows or not any(rows):
            raise bad
    return Given(rows, bad)


def _shapes(family: Family) -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    """Return the types of requests without fault: one row, and `rows`.

    The fields of a row are its id, its time as text, then what callers send, in the family's order.
    """
    number: Any = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
    word: Any = Annotated[str, msgspec.Meta(max_length=LONGEST_WORD)]
    filled: Any = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_WORD)]
    text: Any = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
    kinds: dict[str, tuple[Any, Any]] = {
        # As it must be where it is required, and as it may be elsewhere: an empty category is null.
        "numeric": (number, number),
        "categorical": (filled, word),
        "text": (text, text),
        "key": (filled, word),
    }
    row_id: Any = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]
    fields: dict[str, Any] = {"id": (row_id | None, None), family.time: (str,)}
    for name, feature in family.requested.items():
        needed, optional = kinds[feature.kind]
        fields[name] = (needed,) if feature.required else (optional | None, None)
    return one_or_many(fields, "rows")


def _row(family: Family, number: int, given: object, faults: Faults, now: datetime) -> Row | None:
    if not isinstance(given, dict):
        faults.add(number, "", f"should be an object, got {shown_of(given)}")
        return None
    features: dict[str, FeatureValue] = dict.fromkeys(family.features)
    refused: set[str] = set()
    for name, value in given.items():
        if name in ("id", family.time):
            continue
        feature = family.features.get(name)
        if feature is None or not feature.requested:
            _refuse_field(family, name, number, faults)
        elif value is not None:
            what = _unfit(value, feature)
            if what:
                faults.add(number, name, what, _instead(what, feature))
                refused.add(name)
            elif feature.kind == "numeric":
                features[name] = float(value)
            else:
                features[name] = value if feature.kind == "text" else value or None
    for name, feature in family.features.items():
        if feature.required and features[name] is None and name not in refused:
            faults.add(number, name, "is required", "give it a value")
    row_id = read_id(number, given, faults) or uuid.uuid4().hex
    event_time = time_of(number, family.time, given.get(family.time), faults, (now, AHEAD))
    return Row(row_id, event_time, features) if event_time else None


def _refuse_field(family: Family, name: str, number: int, faults: Faults) -> None:
    feature = family.features.get(name)
    if feature is not None:
        what = "is computed" if feature.source is None else "is looked up"
        faults.add(number, name, what, "leave it out: it is no caller's to send")
        return
    known = ("id", family.time, *family.requested)
    faults.add(number, name, "unknown field", nearest(name, known) if faults.room else "")


def _label(
    family: Family, model: ModelId, number: int, given: object, faults: Faults, now: datetime
) -> Label | None:
    if not isinstance(given, dict):
        faults.add(number, "", f"should be an object, got {shown_of(given)}")
        return None
    for name in given.keys() - {"id", "value", "observed_at"}:
        faults.add(number, name, "unknown field", nearest(name, ("id", "value", "observed_at")))
    label_id = read_id(number, given, faults)
    if given.get("id") is None:
        faults.add(number, "id", "is required", "the id that the prediction was answered with")
    value, what, hint = _outcome(family, given.get("value"))
    if what:
        faults.add(number, "value", what, hint)
    at = given.get("observed_at")
    observed_at = (
        now if at is None else time_of(number, "observed_at", at, faults, (now, OBSERVED_AHEAD))
    )
    if what or label_id is None or observed_at is None:
        return None
    return Label(id=label_id, model=model, value=value, observed_at=observed_at)


def _outcome(family: Family, given: Any) -> tuple[float, str, str]:  # noqa: ANN401 - whatever JSON holds
    """Return a label's value as the log keeps it, or what is wrong with it and a hint."""
    if given is None:
        return 0.0, "is required", ""
    if family.task is Task.MULTICLASS:
        return _class(family, given)
    if what := not_a_number(given):
        return 0.0, what, "send it once it is known" if what == NAN else ""
    if family.task is Task.BINARY and given not in (0, 1):
        return 0.0, f"should be 0 or 1, got {shown_of(given)}", ""
    return float(given), "", ""


def _class(family: Family, given: object) -> tuple[float, str, str]:
    if not isinstance(given, str):
        what = f"should be the name of a class, got {shown_of(given)}"
        return 0.0, what, f"known: {listed(family.classes)}"
    if given not in family.classes:
        return 0.0, f"should be a class, got {shown_of(given)}", nearest(given, family.classes)
    return float(family.classes.index(given)), "", ""


def read_id(number: int, given: Mapping[str, Any], faults: Faults) -> str | None:
    """Return the `id` in `given`, None where there is none or it has a fault, which is noted."""
    row_id = given.get("id")
    if row_id is None:
        return None
    if not isinstance(row_id, str) or not 0 < len(row_id) <= LONGEST_ID:
        what = f"should be a string of 1 to {LONGEST_ID} characters, got {shown_of(row_id)}"
        faults.add(number, "id", what)
        return None
    return row_id


def time_of(
    number: int, field: str, value: object, faults: Faults, latest: tuple[datetime, timedelta]
) -> datetime | None:
    """Return the time that `value` is, or note its fault and return None.

    `latest` is the time now, and how far ahead of it one may lie.
    """
    hint = 'as in "2026-03-01T10:00:00Z"'
    if value is None:
        faults.add(number, field, "is required", hint)
        return None
    try:
        time = read_time(value)
    except ValueError as error:
        faults.add(number, field, str(error), hint)
        return None
    now, ahead = latest
    if what := untimely(time, now=now, ahead=ahead):
        faults.add(number, field, what, "is it in UTC, in this century, and not in other units?")
        return None
    return time


def not_a_number(value: object) -> str:
    """Return why `value` cannot be given to a model as a number; empty if it can."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"should be a number, got {shown_of(value)}"
    if value != value:  # noqa: PLR0124 - only NaN differs from itself
        return NAN
    return "" if -LARGEST <= value <= LARGEST else TOO_LARGE


def _instead(what: str, feature: Feature) -> str:
    """Return what to send instead of a number that is none, or too large."""
    if what not in (NAN, TOO_LARGE):
        return ""
    if feature.required:
        return "it is required: give it a finite number"
    return "if it is not known send null, or leave it out"


def _unfit(value: object, feature: Feature) -> str:
    """Return why `value` cannot be one of `feature`; empty if it can."""
    if feature.kind == "numeric":
        return not_a_number(value)
    if not isinstance(value, str):
        return f"should be a string, got {shown_of(value)}"
    return too_long(value, LONGEST_TEXT if feature.kind == "text" else LONGEST_WORD)


def too_long(text: str, most: int = LONGEST_WORD) -> str:
    """Return why `text` is too long to be taken; empty if it is not.

    >>> too_long("x" * 501)
    'has 501 characters, at most 500 are taken'
    """
    return f"has {len(text):,} characters, at most {most:,} are taken" if len(text) > most else ""


def shown_of(value: object) -> str:
    """Return how a value that has a fault is told to whoever sent it."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return "a very large integer"  # str() of it may raise
    text = repr(value[:60] if isinstance(value, str) else value)
    return f"the string {text}" if isinstance(value, str) else text
