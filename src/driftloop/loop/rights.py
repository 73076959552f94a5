"""Who may do something about an incident, at the moment they want to."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from driftloop.errors import PagerError
from driftloop.loop.standing import Standing
from driftloop.ports import People
from driftloop.records import Click, Incident
from driftloop.route import on_call
from driftloop.spec import Fleet, Owner

GROUP = "S"
"""How Slack's ids of user groups begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who is who, and whose an incident is."""

    fleet: Fleet
    standing: Standing
    people: People

    def named(self, click: Click) -> Click:
        """Return `click` with its user called as people know them, where that can be told."""
        if click.user is None:
            return click
        name = self.people.name(click.user)
        return click if name == click.user else replace(click, who=name)

    def refusal(self, click: Click, incident: Incident, now: datetime) -> str:
        """Return in words why who clicked may not; empty if they may.

        On the command line everybody may who can run it. In Slack those may who are members of
        the incident's owner, or of an owner that it was escalated to, directly or in a user group
        as it is at this moment; and who is on call for one of them.
        """
        if click.user is None:
            return ""
        names = self._told(incident)
        owners = [self.fleet.owners[name] for name in names]
        if click.user in _named(owners, now):
            return ""
        groups = {who for owner in owners for who in owner.members if who.startswith(GROUP)}
        try:
            if any(click.user in self.people.members(group) for group in sorted(groups)):
                return ""
        except PagerError as error:
            return f"Whether you may cannot be told now, so nothing was done: {error}"
        named = " and ".join(names) or "nobody"
        if not groups and not _named(owners, now):
            return (
                f"Nothing was done: owners.toml lists no members of {named}, so no button works."
                f" `driftloop incidents {incident.id}` on the command line does."
            )
        return f"Nothing was done: this is for {named}, and owners.toml does not list you there."

    def _told(self, incident: Incident) -> tuple[str, ...]:
        """Return the names of its owner, and of those that it was escalated to."""
        chain = self.standing.policy(incident).escalate[: incident.level]
        names = dict.fromkeys((incident.owner, *chain))
        return tuple(name for name in names if name in self.fleet.owners)


def _named(owners: Iterable[Owner], now: datetime) -> frozenset[str]:
    """Return the users that owners.toml names itself, those on call among them."""
    found: set[str] = set()
    for owner in owners:
        found |= {who for who in owner.members if not who.startswith(GROUP)}
        if (turn := on_call(owner, now)) is not None:
            found.add(turn)
    return frozenset(found)
