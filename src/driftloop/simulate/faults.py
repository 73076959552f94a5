"""What can go wrong with a fleet, when, and how it is written down."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite

from driftloop.errors import BadRequest


class FaultKind(StrEnum):
    """What goes wrong. The first four are of the world, the next two of the data alone.

    A fault of the world moves the outcomes too; one of the data only what the model is given.
    """

    MEAN_SHIFT = "mean-shift"
    """`size` standard deviations are added to a numeric column."""
    SCALE = "scale"
    """A numeric column is multiplied with `size`."""
    CATEGORY_MIX = "category-mix"
    """A share `size` of a categorical column is drawn anew, rare levels for frequent ones."""
    CONCEPT_FLIP = "concept-flip"
    """What the features say of the outcome is multiplied with 1 - 2 `size`: 1 turns it round."""
    NULL_BURST = "null-burst"
    """A share `size` of a column is null."""
    BROKEN_FEATURE = "broken-feature"
    """A share `size` of a column is -999, or the level "broken", which nobody has seen."""
    VOLUME_DROP = "volume-drop"
    """A share `size` of the rows never happens."""


EARLIEST, LATEST = 1902, 2900
"""Years that can be simulated: the log takes what is older for a mistake of units."""
NUMERIC = frozenset({FaultKind.MEAN_SHIFT, FaultKind.SCALE})
CATEGORICAL = frozenset({FaultKind.CATEGORY_MIX})
WHOLE = frozenset({FaultKind.CONCEPT_FLIP, FaultKind.VOLUME_DROP})
"""Kinds of a model as a whole, and of no column."""
SYNTAX = "KIND[:COLUMN]:SIZE@FROM[..UNTIL][/MARKET,...]"
"""How a fault is written; times are ISO 8601, in UTC if not said; without markets, all models."""
_HINT = (
    f"write {SYNTAX}, as in mean-shift:x03:2.0@2026-03-10/m003,m004 or"
    f" concept-flip:1@2026-03-10T06:00..2026-03-12; kinds: {', '.join(FaultKind)}"
)
_WRITTEN = re.compile(
    r"(?P<kind>[^:@/]+)(:(?P<column>[^:@/]+))?:(?P<size>[^:@/]+)"
    r"@(?P<at>[^/]+?)(\.\.(?P<until>[^/]+))?(/(?P<markets>.+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong in [at, until) with the models of `markets`, or with all of them.

    Times are aware. `column` is None for the kinds that concern a model as a whole. For `size`
    see the kind: a share in (0, 1], but for `mean-shift` (standard deviations) and `scale`.

    Raises:
        BadRequest: kind, column and size do not fit, or it ends before it begins.
    """

    kind: FaultKind
    at: datetime
    size: float
    column: str | None = None
    until: datetime | None = None
    markets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without a plan."""
        if self.at.utcoffset() is None or (self.until and self.until.utcoffset() is None):
            raise self._wrong("its times have no zone")
        if self.until is not None and self.until <= self.at:
            raise self._wrong("it ends before it begins")
        if self.kind in WHOLE and self.column is not None:
            raise self._wrong(f"{self.kind} is of a model as a whole, and takes no column")
        if self.kind not in WHOLE and self.column is None:
            raise self._wrong(f"{self.kind} needs a column")
        if self.kind is FaultKind.MEAN_SHIFT:
            if not isfinite(self.size) or not self.size:
                raise self._wrong("its size is a number of standard deviations other than 0")
        elif self.kind is FaultKind.SCALE:
            if not isfinite(self.size) or self.size <= 0.0 or self.size == 1.0:
                raise self._wrong("its size is a factor above 0 other than 1")
        elif not 0.0 < self.size <= 1.0:
            raise self._wrong("its size is a share above 0 and up to 1")

    def __str__(self) -> str:
        """Return the fault as `parse_fault` takes it."""
        column = f":{self.column}" if self.column else ""
        until = f"..{_shown(self.until)}" if self.until else ""
        markets = f"/{','.join(self.markets)}" if self.markets else ""
        return f"{self.kind}{column}:{self.size}@{_shown(self.at)}{until}{markets}"

    def _wrong(self, what: str) -> BadRequest:
        return BadRequest(what, where=str(self), hint=_HINT)


def parse_fault(text: str) -> Fault:
    """Return the fault that `text` describes, as `KIND[:COLUMN]:SIZE@FROM[..UNTIL][/MARKET,...]`.

    Raises:
        BadRequest: it is not written so, or its parts do not fit; the hint lists the kinds.

    >>> fault = parse_fault("mean-shift:x03:2.0@2026-03-10..2026-03-12T06:00/m003,m004")
    >>> fault.column, fault.size, fault.markets
    ('x03', 2.0, ('m003', 'm004'))
    >>> str(fault)
    'mean-shift:x03:2.0@2026-03-10..2026-03-12T06:00/m003,m004'
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise BadRequest("this is not how a fault is written", where=text, hint=_HINT)
    if found["kind"] not in tuple(FaultKind):
        raise BadRequest(f"there is no kind of fault {found['kind']!r}", where=text, hint=_HINT)
    try:
        size = float(found["size"])
    except ValueError as error:
        raise BadRequest(
            f"its size {found['size']!r} is not a number", where=text, hint=_HINT
        ) from error
    return Fault(
        kind=FaultKind(found["kind"]),
        column=found["column"],
        size=size,
        at=parse_time(found["at"], where=text),
        until=parse_time(found["until"], where=text) if found["until"] else None,
        markets=tuple(dict.fromkeys(found["markets"].split(","))) if found["markets"] else (),
    )


def parse_time(text: str, *, where: str) -> datetime:
    """Return an ISO 8601 date or time, aware; one without a zone is taken as UTC.

    Raises:
        BadRequest: it is neither, or centuries away.

    >>> parse_time("2026-03-10T06:00+02:00", where="--start")
    datetime.datetime(2026, 3, 10, 4, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=UTC) if at.utcoffset() is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"{text!r} is not a date or time",
            where=where,
            hint="write 2026-03-10 or 2026-03-10T06:00, in UTC",
        ) from error
    if not EARLIEST <= at.year <= LATEST:
        raise BadRequest(f"{text!r} is not in {EARLIEST} to {LATEST}", where=where)
    return at


def _shown(at: datetime) -> str:
    """Return a time, in UTC if it has a zone, no longer than it need be."""
    at = at if at.utcoffset() is None else at.astimezone(UTC)
    text = at.replace(tzinfo=None).isoformat()
    return text.removesuffix(":00").removesuffix("T00:00")
