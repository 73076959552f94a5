"""Who is who in Slack: the users of a group, and what people are called."""

import logging
import time

from driftloop.errors import PagerError
from driftloop.page.asking import Line

KEPT = 60.0
"""Seconds for which an answer of Slack is remembered."""
_log = logging.getLogger(__name__)


class People:
    """Asks Slack, and remembers for a minute; implements `ports.People`."""

    def __init__(self, slack: Line) -> None:
        self._slack = slack
        self._groups: dict[str, tuple[float, frozenset[str]]] = {}
        self._names: dict[str, tuple[float, str]] = {}

    def members(self, group: str) -> frozenset[str]:
        """Return the ids of the users in a user group.

        Raises:
            PagerError: it cannot be asked.
        """
        asked, users = self._groups.get(group, (-KEPT, frozenset()))
        if time.monotonic() - asked < KEPT:
            return users
        answer = self._slack.ask("usergroups_users_list", where=group, usergroup=group)
        users = frozenset(str(user) for user in answer.get("users") or ())
        self._groups[group] = time.monotonic(), users
        return users

    def name(self, user: str) -> str:
        """Return what a user is called; the id itself where that cannot be told."""
        asked, name = self._names.get(user, (-KEPT, user))
        if time.monotonic() - asked < KEPT:
            return name
        try:
            answer = self._slack.ask("users_info", where=user, patient=False, user=user)
        except PagerError as error:
            _log.info("%s is called by the id: %s", user, error)
            name = user
        else:
            found = answer.get("user") or {}
            profile = found.get("profile") or {}
            names = (profile.get("display_name"), profile.get("real_name"))
            name = next((one for one in (*names, found.get("real_name")) if one), user)
        self._names[user] = time.monotonic(), str(name)
        return str(name)
