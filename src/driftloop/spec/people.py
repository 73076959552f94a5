"""Who is told of what, when, and who comes next: the tables of owners.toml and routes.toml."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from typing import Annotated, Self, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from driftloop.records import Origin, Severity
from driftloop.spec.values import Duration, Pause, Table

TIME = r"([01]\d|2[0-3]):[0-5]\d"
SPAN = rf"{TIME}-{TIME}"
USER = r"[UW][A-Z0-9]{5,}"
PERSON = r"[UWS][A-Z0-9]{5,}"
"""Slack's id of a user, or of a user group (S...)."""

CHANNEL = r"#[a-z0-9_-]{1,79}|[CG][A-Z0-9]{6,}"
ADDRESS = r"[^@\s<>,;]+@[^@\s<>,;]+"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        near = get_close_matches(name, available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else 'as in "Europe/Berlin"'
        raise PydanticCustomError("no_zone", "no such time zone", {"hint": hint}) from None
    return name


def _not_nothing(span: str) -> str:
    begin, _, end = span.partition("-")
    if begin == end:
        hint = {"hint": "for whole days there is quiet_days"}
        raise PydanticCustomError("no_span", "begins when it ends", hint)
    return span


def _not_empty(given: tuple[object, ...]) -> tuple[object, ...]:
    if not given:
        hint = {"hint": "name at least one, or leave it out"}
        raise PydanticCustomError("nothing", "names nothing", hint)
    return given


def _shaped(pattern: str, what: str, example: str) -> AfterValidator:
    """Return a check that a text is `what`, which says how one is written."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text, re.ASCII) is None:
            raise PydanticCustomError(
                "no_shape", "should be {what}", {"what": what, "hint": example}
            )
        return text

    return AfterValidator(check)


Clock = Annotated[str, _shaped(TIME, "a time of day", 'as in "08:00"')]
User = Annotated[str, _shaped(USER, "Slack's id of a user", 'as in "U0123ABCD"')]
Person = Annotated[
    str, _shaped(PERSON, "Slack's id of a user or user group", 'as in "U0123ABCD" or "S0123ABCD"')
]
Span = Annotated[
    str, _shaped(SPAN, "two times of day", 'as in "22:00-07:00"'), AfterValidator(_not_nothing)
]
Day = Annotated[str, _shaped("|".join(DAYS), "a day of the week", f"one of {', '.join(DAYS)}")]
Channel = Annotated[
    str, _shaped(CHANNEL, "a channel of Slack", 'as in "#ml-operations", in lower case, or its id')
]
Address = Annotated[str, _shaped(ADDRESS, "an e-mail address", 'as in "nights@example.org"')]


T = TypeVar("T")
Condition = Annotated[tuple[T, ...], Field(strict=False), AfterValidator(_not_empty)]
"""One that is given names something: an empty one would hold for nothing, and so for nobody."""


class Override(Table):
    """Somebody else has the shift from `start` up to `until`; times without a zone are local."""

    who: User
    start: datetime
    until: datetime


class OnCall(Table):
    """Whose turn it is: `people` take shifts of `weeks` each, in turn, from `start` on for ever."""

    people: Annotated[tuple[User, ...], Field(strict=False), AfterValidator(_not_empty)]
    start: date
    """A day on which the first of `people` begins."""
    hand_over: Clock = "09:00"
    """The local time at which shifts change."""
    weeks: Annotated[int, Field(ge=1)] = 1
    overrides: Annotated[tuple[Override, ...], Field(strict=False)] = ()


class Owner(Table):
    """Who is told: a Slack channel, and whom to mention in it ("@here", "<@U123>" or "").

    Where somebody is on call, they are mentioned in place of `mention`.
    """

    channel: Channel
    mention: str = ""
    members: Annotated[tuple[Person, ...], Field(strict=False)] = ()
    """Who may press the buttons: users, and user groups. Those on call may too."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """As in "Europe/Berlin": of quiet hours, shifts, and what "tomorrow" is."""
    quiet: Annotated[tuple[Span, ...], Field(strict=False)] = ()
    """Local hours in which nobody is woken, as in "22:00-07:00"; what is found then waits."""
    quiet_days: Annotated[tuple[Day, ...], Field(strict=False)] = ()
    """Local days that are quiet from midnight to midnight."""
    wakes: Annotated[Severity | None, Field(strict=False)] = None
    """From this severity on what is found in quiet hours is told at once; None: nothing is."""
    on_call: OnCall | None = None
    email: Annotated[tuple[Address, ...], Field(strict=False)] = ()
    """Where Slack is down for long, these addresses are written to."""
    digest: Clock | None = "08:00"
    """The local time of the daily digest; "" in a file for none."""

    @model_validator(mode="before")
    @classmethod
    def _no_digest(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("digest") == "":
            return {**given, "digest": None}
        return given

    @model_validator(mode="after")
    def _is_awake(self) -> Self:
        ends = [time(), *(end for _, end in self.spans)]
        if all(self.is_quiet(day, end) for day in range(len(DAYS)) for end in ends):
            msg = "is quiet at all hours: nobody would ever be told"
            raise ValueError(msg)
        return self

    @property
    def zone(self) -> tzinfo:
        """The owner's time zone."""
        return UTC if self.time_zone == "UTC" else ZoneInfo(self.time_zone)

    @property
    def spans(self) -> tuple[tuple[time, time], ...]:
        """Begin and end of the quiet hours, local; one that ends before it begins ends next day."""
        return tuple(
            (time.fromisoformat(begin), time.fromisoformat(end))
            for begin, _, end in (span.partition("-") for span in self.quiet)
        )

    def is_quiet(self, day: int, clock: time) -> bool:
        """Say whether a local time is in the quiet hours, on a `day` of the week (Monday is 0)."""
        return DAYS[day] in self.quiet_days or any(
            begin <= clock < end if begin < end else clock >= begin or clock < end
            for begin, end in self.spans
        )

    def moment(self, given: datetime) -> datetime:
        """Return a time of this owner's table, in UTC: one without a zone is local."""
        if given.tzinfo is None:
            given = given.replace(tzinfo=self.zone)
        return given.astimezone(UTC)


class Paging(Table):
    """How insistent paging is; what a route does not say it has from the route around it."""

    wait: Pause | None = None
    """So long an incident gathers what belongs to it before it is told."""
    repeat: Duration | None = None
    """So long after it was told last an incident is called to mind that is open still."""
    ack_within: Duration | None = None
    """So long an incident may stay without an acknowledgement; then the next is told."""
    ack_expires: Duration | None = None
    """So long an acknowledgement lasts."""
    escalate: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    """Owners that are told one after another where nobody acknowledges."""


class Route(Paging):
    """Who owns what: the first route whose conditions all hold, and of those in it likewise.

    A condition that is not given holds always. Of `family` and `market` names may end in "*".
    driftloop itself is the family "driftloop".
    """

    family: Condition[str] = ()
    market: Condition[str] = ()
    cause: Condition[Annotated[Origin, Field(strict=False)]] = ()
    severity: Condition[Annotated[Severity, Field(strict=False)]] = ()
    owner: str | None = None
    """None: who owns the model; of data at fault who owns the data; of driftloop itself who owns
    the platform."""
    routes: Annotated[tuple["Route", ...], Field(strict=False)] = ()

    def takes(self, family: str, market: str, origin: Origin, severity: Severity) -> bool:
        """Say whether all conditions hold, those of the routes around it left aside."""
        return (
            (not self.cause or origin in self.cause)
            and (not self.severity or severity in self.severity)
            and (not self.family or any(fits(pattern, family) for pattern in self.family))
            and (not self.market or any(fits(pattern, market) for pattern in self.market))
        )

    def first(self, family: str, market: str, origin: Origin, severity: Severity) -> int | None:
        """Return the place of the first of `routes` that takes it, None where none does."""
        return next(
            (
                place
                for place, route in enumerate(self.routes)
                if route.takes(family, market, origin, severity)
            ),
            None,
        )


class Routes(Route):
    """The whole of routes.toml: the root of the tree, which holds for everything."""

    @model_validator(mode="after")
    def _no_conditions(self) -> Self:
        if self.family or self.market or self.cause or self.severity:
            msg = "the root holds for everything: conditions belong into a [[routes]] table"
            raise ValueError(msg)
        return self


DEFAULTS = Paging(
    wait=timedelta(seconds=1),
    repeat=timedelta(days=1),
    ack_within=None,
    ack_expires=timedelta(hours=8),
    escalate=(),
)
"""What holds where no route says otherwise."""


def fits(pattern: str, name: str) -> bool:
    """Say whether a name of a condition is that of a family or market; "*" is any ending.

    >>> fits("eta-*", "eta-de"), fits("eta", "eta-de")
    (True, False)
    """
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def inherited(around: Paging, route: Paging) -> Paging:
    """Return how insistent paging is in `route`, which has what it does not say from `around`."""
    said = {name: getattr(route, name) for name in Paging.model_fields}
    given = {name: value for name, value in said.items() if value is not None}
    return Paging.model_construct(**{**dict(around), **given})
