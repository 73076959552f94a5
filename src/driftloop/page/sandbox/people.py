"""The stand-in's users and user groups: users.* and usergroups.*."""

import re
from collections.abc import Mapping

from driftloop.page.sandbox.asked import BOT, TEAM, Body, Refused, flag, part
from driftloop.page.sandbox.store import Store
from driftloop.page.sandbox.workspace import Method, Workspace


def user(id_: str, name: str, *, real_name: str = "", bot: bool = False) -> Body:
    """Return Slack's record of a user."""
    shown = real_name or name.capitalize()
    return {
        "id": id_,
        "team_id": TEAM,
        "name": name,
        "deleted": False,
        "real_name": shown,
        "tz": "Etc/UTC",
        "tz_label": "Coordinated Universal Time",
        "tz_offset": 0,
        "profile": {"real_name": shown, "display_name": name, "team": TEAM},
        "is_admin": False,
        "is_owner": False,
        "is_bot": bot,
        "is_app_user": False,
        "updated": 0,
    }


def group(id_: str, handle: str, users: tuple[str, ...], *, name: str = "") -> Body:
    """Return Slack's record of a user group, members included."""
    return {
        "id": id_,
        "team_id": TEAM,
        "is_usergroup": True,
        "is_subteam": True,
        "name": name or handle,
        "description": "",
        "handle": handle,
        "is_external": False,
        "date_create": 0,
        "date_update": 0,
        "date_delete": 0,
        "auto_type": None,
        "created_by": BOT["user"],
        "updated_by": BOT["user"],
        "deleted_by": None,
        "prefs": {"channels": [], "groups": []},
        "users": list(users),
        "user_count": len(users),
    }


SEEDS: Mapping[str, Body] = {
    one["id"]: one
    for one in (
        user("U0OPERATOR1", "ada", real_name="Ada Lovelace"),
        user("U0OPERATOR2", "grace", real_name="Grace Hopper"),
        user("U0PASSENGER", "edith", real_name="Edith Clarke"),
        user("U0STRANGER", "eve", real_name="Eve"),
        user(BOT["user"], "driftloop", real_name="driftloop", bot=True),
        group("S0ONCALL01", "on-call", ("U0OPERATOR1", "U0OPERATOR2"), name="On call"),
    )
}
"""Who is there from the start on; Eve owns nothing."""


def named(store: Store, id_: str) -> Body:
    """Return the user `id_`.

    Raises:
        Refused: there is none.
    """
    found = store.people("U").get(id_)
    if found is None:
        raise Refused("user_not_found")
    return found


def _info(slack: Workspace, asked: Body) -> Body:
    return {"user": named(slack.store, str(asked.get("user") or ""))}


def _list(slack: Workspace, asked: Body) -> Body:
    members, cursor = part(
        tuple(slack.store.people("U").values()), asked, lambda one: str(one["id"])
    )
    return {"members": members, "cache_ts": 0, "response_metadata": {"next_cursor": cursor}}


def _groups(slack: Workspace, asked: Body) -> Body:
    left_out = () if flag(asked, "include_users") else ("users",)
    if not flag(asked, "include_count"):
        left_out = (*left_out, "user_count")
    groups = slack.store.people("S").values()
    return {"usergroups": [{k: one[k] for k in one if k not in left_out} for one in groups]}


def _members(slack: Workspace, asked: Body) -> Body:
    found = slack.store.people("S").get(str(asked.get("usergroup") or ""))
    if found is None:
        raise Refused("no_such_subteam")
    return {"users": found["users"]}


METHODS: Mapping[str, Method] = {
    "users.info": _info,
    "users.list": _list,
    "usergroups.list": _groups,
    "usergroups.users.list": _members,
}

_USER = re.compile(r"U[A-Z0-9]{5,}")
_GROUP = re.compile(r"S[A-Z0-9]{5,}")


def add(store: Store, given: Body) -> None:
    """Keep one more user, as {"id": "U...", "name": ...}, or group, with "handle" and "users".

    Raises:
        ValueError: neither of them.
    """
    id_, name = str(given.get("id", "")), str(given.get("name", ""))
    if _USER.fullmatch(id_) and name:
        told = user(id_, name, real_name=str(given.get("real_name", "")))
        store.keep_person(id_, told | {"deleted": bool(given.get("deleted"))})
    elif _GROUP.fullmatch(id_) and given.get("handle"):
        users = tuple(str(one) for one in given.get("users", ()))
        store.keep_person(id_, group(id_, str(given["handle"]), users, name=name))
    else:
        raise ValueError(f"neither a user nor a group: {id_!r}")
