"""Who is told of what, when, and who comes next: the tables of owners.toml and routes.toml."""

from datetime import date, datetime, timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from driftloop.records import Origin, Severity
from driftloop.spec.values import Duration, Pause, Table

TIME = r"^([01]\d|2[0-3]):[0-5]\d$"
SPAN = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
USER = r"^[UW][A-Z0-9]{5,}$"
PERSON = r"^[UWS][A-Z0-9]{5,}$"
"""Slack's id of a user, or of a user group (S...)."""

Clock = Annotated[str, Field(pattern=TIME)]
User = Annotated[str, Field(pattern=USER)]
Person = Annotated[str, Field(pattern=PERSON)]


class Override(Table):
    """Somebody else has the shift from `start` up to `until`; times without a zone are local."""

    who: User
    start: datetime
    until: datetime


class OnCall(Table):
    """Whose turn it is: `people` take shifts of `weeks` each, in turn, from `start` on for ever."""

    people: Annotated[tuple[User, ...], Field(min_length=1, strict=False)]
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

    channel: Annotated[str, Field(pattern=r"^(#[a-z0-9_-]{1,79}|[CG][A-Z0-9]{6,})$")]
    mention: str = ""
    members: Annotated[tuple[Person, ...], Field(strict=False)] = ()
    """Who may press the buttons: users, and user groups. Those on call may too."""
    time_zone: str = "UTC"
    """As in "Europe/Berlin": of quiet hours, shifts, and what "tomorrow" is."""
    quiet: Annotated[tuple[Annotated[str, Field(pattern=SPAN)], ...], Field(strict=False)] = ()
    """Local hours in which nobody is woken, as in "22:00-07:00"; what is found then waits."""
    quiet_days: Annotated[
        tuple[Annotated[str, Field(pattern=r"^(mon|tue|wed|thu|fri|sat|sun)$")], ...],
        Field(strict=False),
    ] = ()
    """Local days that are quiet from midnight to midnight."""
    wakes: Annotated[Severity | None, Field(strict=False)] = None
    """From this severity on what is found in quiet hours is told at once; None: nothing is."""
    on_call: OnCall | None = None
    email: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Where Slack is down for long, these addresses are written to."""
    digest: Clock | None = "08:00"
    """The local time of the daily digest; "" in a file for none."""

    @model_validator(mode="before")
    @classmethod
    def _no_digest(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("digest") == "":
            return {**given, "digest": None}
        return given


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
    """

    family: Annotated[tuple[str, ...], Field(strict=False)] = ()
    market: Annotated[tuple[str, ...], Field(strict=False)] = ()
    cause: Annotated[tuple[Origin, ...], Field(strict=False)] = ()
    severity: Annotated[tuple[Severity, ...], Field(strict=False)] = ()
    owner: str | None = None
    """None: who owns the model; of data at fault who owns the data; of driftloop itself who owns
    the platform."""
    routes: Annotated[tuple["Route", ...], Field(strict=False)] = ()


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
