"""What a person may do about an incident, as buttons under its message."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from driftloop.page.clicks import (
    LONGEST_VALUE,
    REPORT,
    WHY,
    WHY_BLOCK,
    WHY_INPUT,
    action_of,
    option_of,
    value_of,
)
from driftloop.page.text import SECTION, line, visible
from driftloop.records import Act, Incident, Link, Member, ModelId

Block = dict[str, Any]
"""One Block Kit block, as JSON would hold it."""

_URL, _TITLE, _TEXT, _LABEL = 3000, 100, 300, 30
_REASON = 1000
_SILENCES = (
    ("1h", "For 1 hour"),
    ("tomorrow", "Until tomorrow"),
    ("next-version", "Until the next version"),
)
_OF_PEOPLE = (Act.ACK, Act.SILENCE, Act.NO_PROBLEM, Act.RESOLVE)
_OF_MODELS = (Act.RETRAIN, Act.PROMOTE, Act.HOLD, Act.RESUME, Act.ROLL_BACK)
_OF_ROLLOUTS = frozenset({Act.PROMOTE, Act.HOLD, Act.RESUME})
_OF_ONE = _OF_ROLLOUTS | {Act.ROLL_BACK}
_STYLES: Mapping[Act, str] = {Act.ACK: "primary", Act.ROLL_BACK: "danger"}
_LABELS: Mapping[Act, str] = {
    Act.ACK: "Acknowledge",
    Act.SILENCE: "Silence",
    Act.RESOLVE: "Resolve",
    Act.NO_PROBLEM: "Not a problem",
    Act.RETRAIN: "Retrain now",
    Act.HOLD: "Hold rollout",
    Act.RESUME: "Let rollout go on",
    Act.PROMOTE: "Promote",
    Act.ROLL_BACK: "Roll back",
}


class _About(NamedTuple):
    """What the acts on models are about: one of them, or all; `what` names it."""

    model: ModelId | None
    version: int | None
    what: str


def buttons(incident: Incident, report: Link | None = None) -> list[Block]:
    """Return up to two rows of what `incident.asks`; one that Slack could not carry is left out.

    What people may say of the incident comes first, what is done to models below. `report` is
    where the button leads that opens it.
    """
    if not incident.asks:
        return []
    about = _about(incident)
    first = [_element(act, incident, about) for act in _OF_PEOPLE if act in incident.asks]
    second = [
        _element(act, incident, about)
        for act in _OF_MODELS
        if act in incident.asks
        and (act not in _OF_ROLLOUTS or about.version is not None)
        and (act not in _OF_ONE or about.model is not None)
    ]
    opens = [] if report is None or len(report.url) > _URL else [_report(report)]
    rows = (("say", first), ("do", [*second, *opens]))
    return [
        {"type": "actions", "block_id": id_, "elements": kept}
        for id_, row in rows
        if (kept := [each for each in row if each is not None])
    ]


def why_view(value: str, headline: str = "") -> Block:
    """Return the window that asks why an incident is no problem; `value` is what a button carried.

    Its `callback_id` is `WHY`, its `private_metadata` is `value`, and the reason stands under
    `WHY_BLOCK` and `WHY_INPUT`.
    """
    blocks: list[Block] = []
    if visible(headline):
        said = {"type": "mrkdwn", "text": f"*{line(headline, SECTION - 2)}*", "verbatim": True}
        blocks.append({"type": "section", "block_id": "headline", "text": said})
    reason = {
        "type": "plain_text_input",
        "action_id": WHY_INPUT,
        "multiline": True,
        "min_length": 1,
        "max_length": _REASON,
        "placeholder": _plain("Christmas: the numbers are right"),
    }
    blocks.append(
        {
            "type": "input",
            "block_id": WHY_BLOCK,
            "label": _plain("Why is it not a problem?"),
            "hint": _plain("It counts as a false page: of models with many, less is told."),
            "element": reason,
        }
    )
    return {
        "type": "modal",
        "callback_id": WHY,
        "private_metadata": value,
        "title": _plain("Not a problem"),
        "submit": _plain("Close incident"),
        "close": _plain("Cancel"),
        "blocks": blocks,
    }


def _about(incident: Incident) -> _About:
    still = [member for member in incident.members if member.over is None]
    rolling = [member for member in still if member.version is not None]
    models = incident.models
    if len(models) == 1:
        version = rolling[-1].version if rolling else None
        return _About(models[0], version, models[0])
    versions = dict.fromkeys((member.model, member.version) for member in rolling)
    if len(versions) == 1:
        ((model, version),) = versions
        return _About(model, version, model)
    return _About(None, None, _all(still))


def _all(members: Iterable[Member]) -> str:
    match sorted({member.model for member in members}):
        case [model]:
            return model
        case [_, _]:
            return "both models"
        case models:
            return f"all {len(models)} models"


def _element(act: Act, incident: Incident, about: _About) -> Block | None:
    if act is Act.SILENCE:
        return _silence(incident.id)
    on_model = act in _OF_MODELS
    if act is Act.RETRAIN and len(incident.models) > 1:
        about = _About(None, None, _all(m for m in incident.members if m.over is None))
    value = value_of(
        incident.id, about.model if on_model else None, about.version if on_model else None
    )
    if len(value) > LONGEST_VALUE:
        return None
    element: Block = {
        "type": "button",
        "action_id": action_of(act),
        "text": _plain(_label(act, about)),
        "value": value,
    }
    if act in _STYLES:
        element["style"] = _STYLES[act]
    confirm = _confirm(act, about)
    return element if confirm is None else element | {"confirm": confirm}


def _label(act: Act, about: _About) -> str:
    versioned = act in (Act.PROMOTE, Act.ROLL_BACK) and about.version is not None
    return f"{_LABELS[act]} version {about.version}" if versioned else _LABELS[act]


def _silence(incident: str) -> Block:
    return {
        "type": "static_select",
        "action_id": action_of(Act.SILENCE),
        "placeholder": _plain(_LABELS[Act.SILENCE]),
        "options": [
            {"text": _plain(said), "value": option_of(incident, until)} for until, said in _SILENCES
        ],
    }


def _report(report: Link) -> Block:
    return {
        "type": "button",
        "action_id": REPORT,
        "text": _plain("Open report"),
        "url": report.url,
    }


def _confirm(act: Act, about: _About) -> Block | None:
    named = "the new version" if about.version is None else f"version {about.version}"
    match act:
        case Act.RETRAIN:
            title, does = "Retrain now?", "Retrain"
            text = f"A new version of {about.what} is trained; the gate decides if it may answer."
        case Act.PROMOTE:
            title, does = f"Promote {named}?", "Promote"
            text = f"It answers all requests of {about.what} at once, without the rest of its test."
        case Act.ROLL_BACK:
            back = "the version before" if about.version is None else "the version before it"
            title = "Roll back?" if about.version is None else f"Roll back {named}?"
            does, text = "Roll back", f"Requests of {about.what} are answered by {back} at once."
        case _:
            return None
    confirm: Block = {
        "title": _plain(title, _TITLE),
        "text": _plain(text, _TEXT),
        "confirm": _plain(does, _LABEL),
        "deny": _plain("Leave it", _LABEL),
    }
    return confirm | ({"style": "danger"} if act is Act.ROLL_BACK else {})


def _plain(text: str, limit: int = 75) -> Block:
    return {"type": "plain_text", "text": line(text, limit), "emoji": True}
