"""The stand-in's modals: views.*, and what a submission's answer makes of them."""

import secrets
from collections.abc import Mapping

from driftloop.page.sandbox.asked import APP, BOT, TEAM, Body, Refused, decoded
from driftloop.page.sandbox.blocks import faults_of_view, with_ids
from driftloop.page.sandbox.workspace import Method, View, Workspace

_KEPT = ("private_metadata", "callback_id", "external_id")


def answered(slack: Workspace, id_: str, answer: object) -> str:
    """Let the modal do what a submission was answered with; return what was wrong with that."""
    view = slack.views.get(id_)
    if view is None or answer in (None, {}, ""):
        slack.close(id_)
        return ""
    action = answer.get("response_action") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or action not in {"errors", "clear", "update", "push"}:
        return "answered with no response_action"
    if action == "clear":
        slack.close(id_)
    elif action == "errors":
        return _errors(view, answer.get("errors"))
    else:
        try:
            told = _told(slack, answer.get("view"), id_ if action == "update" else "")
        except Refused as refused:
            return f"answered with a view that Slack refuses: {refused.body.get('errors')}"
        slack.open(View(view.user, told))
    return ""


def _errors(view: View, errors: object) -> str:
    asked = {block["block_id"] for block in view.told["blocks"] if block["type"] == "input"}
    if not isinstance(errors, dict) or not errors or not errors.keys() <= asked:
        return "answered with errors of fields that are not there"
    view.errors = {str(block): str(said) for block, said in errors.items()}
    return ""


def _open(slack: Workspace, asked: Body) -> Body:
    told = _told(slack, decoded(asked, "view", "invalid_arguments"), "")
    user = slack.triggered(str(asked.get("trigger_id") or ""))
    slack.open(View(user, told))
    return {"view": told}


def _update(slack: Workspace, asked: Body) -> Body:
    id_ = str(asked.get("view_id") or "")
    view = slack.views.get(id_)
    if view is None:
        raise Refused("not_found")
    if asked.get("hash") not in {None, view.told["hash"]}:
        raise Refused("hash_conflict")
    told = _told(slack, decoded(asked, "view", "invalid_arguments"), id_)
    slack.open(View(view.user, told))
    return {"view": told}


METHODS: Mapping[str, Method] = {"views.open": _open, "views.update": _update}


def _told(slack: Workspace, view: object, id_: str) -> Body:
    faults = tuple(
        faults_of_view(view, lambda file: slack.store.file(str(file.get("id"))) is not None)
    )
    if faults or not isinstance(view, dict):
        raise Refused("invalid_arguments", *faults)
    id_ = id_ or f"V{secrets.token_hex(5).upper()}"
    return {
        "id": id_,
        "team_id": TEAM,
        "type": "modal",
        "blocks": with_ids(view["blocks"]),
        **{name: str(view.get(name) or "") for name in _KEPT},
        "state": {"values": {}},
        "hash": f"{slack.store.now() / 1e6:.6f}.{secrets.token_hex(4)}",
        "title": view["title"],
        "clear_on_close": bool(view.get("clear_on_close")),
        "notify_on_close": bool(view.get("notify_on_close")),
        "close": view.get("close"),
        "submit": view.get("submit"),
        "previous_view_id": None,
        "root_view_id": id_,
        "app_id": APP,
        "app_installed_team_id": TEAM,
        "bot_id": BOT["bot_id"],
    }
