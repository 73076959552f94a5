"""What Slack posts when somebody clicks, read into what the desk is asked.

Of what Slack sends only the little that is used is looked at, and that strictly: whatever else is
in a payload may change as Slack likes.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from driftloop.errors import BadRequest
from driftloop.records import Act, Click, ModelId

PREFIX = "driftloop."
"""An action id of ours is this and the value of an `Act`."""
SILENCE = f"{PREFIX}{Act.SILENCE}"
NO_PROBLEM = f"{PREFIX}{Act.NO_PROBLEM}"
WHY_VIEW = "driftloop.why"
"""The callback id of the modal that asks why something is no problem."""
WHY = "why"
"""The block id, and the action id, of its one input."""

LONGEST_VALUE = 2000
"""Characters that Slack lets the value of a button have."""
LONGEST_OPTION = 150
"""Characters that Slack lets the value of an option have."""

_Word = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1900)]
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{2,40}$")]
_Ts = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}\.[0-9]{1,9}$")]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2000)]


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Target(_Read):
    """What a button is about, as it stands in its `value`: JSON, made by `value_of`."""

    incident: _Word | None = None
    """None: that of the message it stands in."""
    model: _Word | None = None
    version: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    silence: Annotated[_Word, StringConstraints(max_length=40)] | None = None
    channel: _Id | None = None
    """Of a modal: where the message is that it was opened from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """A click that the desk is to take; the other fields are for telling who clicked.

    `channel` is where the message stands, or "", and `response_url` an address to answer at, or
    "" where Slack gave none. `submits` says that it comes from the modal.
    """

    click: Click
    channel: str = ""
    response_url: str = ""
    submits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """Somebody says that something is no problem, and is to be asked why in a modal."""

    target: Target
    trigger: str
    user: str
    channel: str = ""
    response_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """A click that we know nothing of: `said` is told to who clicked, nothing is done.

    `field` names the input of the modal that is to blame, where it is one.
    """

    said: str
    user: str = ""
    channel: str = ""
    response_url: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """What Slack tells though nothing is asked: a link was opened, a modal closed."""


Asked = Pressed | Asks | Unclear | Nothing


def value_of(
    incident: str, model: ModelId | None = None, version: int | None = None, *, silence: str = ""
) -> str:
    """Return the `value` of a button, or of an option that silences.

    Raises:
        ValueError: it is longer than Slack takes.

    >>> value_of("eta-de/2013-04-09", ModelId("eta-de"), 7)
    '{"incident":"eta-de/2013-04-09","model":"eta-de","version":7}'
    """
    said = {"incident": incident, "model": model, "version": version}
    if silence:
        said["silence"] = silence
    value = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    if len(value) > LONGEST_VALUE:
        raise ValueError(f"a button's value of {len(value)} characters: {value[:80]}...")
    return value


def option_of(incident: str, silence: str) -> str:
    """Return the `value` of an option that silences, which may be but 150 characters long.

    Where the incident's name does not fit it is left out: it is that of the message.

    >>> option_of("eta-de/2013-04-09", "1h")
    '{"incident":"eta-de/2013-04-09","silence":"1h"}'
    >>> option_of("x" * 150, "1h")
    '{"silence":"1h"}'
    """
    whole = {"incident": incident, "silence": silence}
    value = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    if len(value) <= LONGEST_OPTION:
        return value
    return json.dumps({"silence": silence}, separators=(",", ":"))


def parsed(payload: str | bytes) -> Asked:
    """Return what a payload in JSON asks; see `read`.

    Raises:
        BadRequest: it is not JSON, or not what Slack sends.
    """
    try:
        said = from_json(payload, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"not JSON: {_first(error)}", where="payload") from error
    return read(said)


def read(payload: object) -> Asked:
    """Return what a payload asks.

    Raises:
        BadRequest: it is of a kind that is not known, or lacks what is needed of it.
    """
    kind = payload.get("type") if isinstance(payload, dict) else None
    try:
        match kind:
            case "block_actions":
                return _of_actions(_Actions.model_validate(payload))
            case "view_submission":
                return _of_view(_Submission.model_validate(payload))
            case "view_closed":
                return Nothing()
    except ValidationError as error:
        raise BadRequest(_faults(error), where=f"payload of type {kind}") from error
    known = "block_actions, view_submission"
    raise BadRequest(
        "a payload of a type that is not known", where="payload", hint=f"known: {known}"
    )


class _User(_Read):
    id: _Id
    username: str = ""
    name: str = ""

    @property
    def said(self) -> str:
        return _clean(self.username or self.name, 80) or self.id


class _Channel(_Read):
    id: _Id


class _Option(_Read):
    value: Annotated[str, StringConstraints(max_length=LONGEST_OPTION)]


class _Action(_Read):
    action_id: Annotated[str, StringConstraints(max_length=255)]
    action_ts: _Ts
    type: Annotated[str, StringConstraints(max_length=80)] = ""
    value: Annotated[str, StringConstraints(max_length=LONGEST_VALUE)] | None = None
    selected_option: _Option | None = None
    url: object = None


class _Payload(_Read):
    key: object = None


class _Metadata(_Read):
    event_payload: _Payload = _Payload()


class _Message(_Read):
    metadata: _Metadata | None = None

    @property
    def incident(self) -> object:
        return self.metadata.event_payload.key if self.metadata is not None else None


class _Actions(_Read):
    type: Literal["block_actions"]
    user: _User
    actions: Annotated[tuple[_Action, ...], Field(min_length=1, max_length=25, strict=False)]
    trigger_id: Annotated[str, StringConstraints(max_length=500)] = ""
    channel: _Channel | None = None
    message: _Message | None = None
    response_url: _Url | Literal[""] = ""


class _Input(_Read):
    value: Annotated[str, StringConstraints(max_length=3000)] | None = None


class _State(_Read):
    values: dict[str, dict[str, Any]] = {}


class _View(_Read):
    id: _Id
    callback_id: Annotated[str, StringConstraints(max_length=255)] = ""
    private_metadata: Annotated[str, StringConstraints(max_length=3000)] = ""
    state: _State = _State()


class _Submission(_Read):
    type: Literal["view_submission"]
    user: _User
    view: _View


def _of_actions(said: _Actions) -> Asked:
    # Slack sends one click at a time, in a list.
    action = said.actions[0]
    channel = said.channel.id if said.channel is not None else ""
    back = {"user": said.user.id, "channel": channel, "response_url": said.response_url}
    if action.url is not None or action.action_id.startswith(f"{PREFIX}open"):
        return Nothing()
    act = _act(action.action_id)
    if act is None:
        return Unclear(
            said="This button is not one that driftloop knows. Nothing was done.", **back
        )
    chosen = action.selected_option
    target = _target(chosen.value if chosen is not None else action.value or "")
    incident = target and (target.incident or _word(said.message and said.message.incident))
    if target is None or not incident or (act is Act.SILENCE and target.silence is None):
        return Unclear(said="This button does not say what it is about. Nothing was done.", **back)
    if act is Act.NO_PROBLEM:
        about = target.model_copy(update={"incident": incident, "channel": channel or None})
        return Asks(target=about, trigger=said.trigger_id, **back)
    click = Click(
        key=f"{said.user.id}/{action.action_ts}/{action.action_id}",
        act=act,
        incident=incident,
        who=said.user.said,
        user=said.user.id,
        model=ModelId(target.model) if target.model is not None else None,
        version=target.version,
        silence=target.silence or "",
    )
    return Pressed(click=click, channel=channel, response_url=said.response_url)


def _of_view(said: _Submission) -> Asked:
    view, user = said.view, said.user
    if view.callback_id != WHY_VIEW:
        return Unclear(said="This form is not one that driftloop knows.", user=user.id)
    target = _target(view.private_metadata)
    if target is None or target.incident is None:
        return Unclear(said="This form does not say what it is about.", user=user.id, field=WHY)
    given = view.state.values.get(WHY, {}).get(WHY)
    why = _clean((_Input.model_validate(given).value if given is not None else None) or "", 3000)
    channel = target.channel or ""
    if not why:
        return Unclear(said="Say why, please.", user=user.id, channel=channel, field=WHY)
    click = Click(
        # Who submits a form again, because it was refused, does the same once more.
        key=f"{user.id}/{view.id}/{NO_PROBLEM}",
        act=Act.NO_PROBLEM,
        incident=target.incident,
        who=user.said,
        user=user.id,
        model=ModelId(target.model) if target.model is not None else None,
        version=target.version,
        why=why,
    )
    return Pressed(click=click, channel=channel, submits=True)


def _act(action_id: str) -> Act | None:
    name = action_id.removeprefix(PREFIX)
    return Act(name) if name != action_id and name in set(Act) else None


def _target(value: str) -> Target | None:
    try:
        return Target.model_validate(from_json(value, allow_inf_nan=False))
    except ValueError:  # pydantic's is one too
        return None


def _word(said: object) -> str | None:
    try:
        return Target(incident=said).incident  # type: ignore[arg-type]  # that is the question
    except ValidationError:
        return None


def _clean(text: str, most: int) -> str:
    """Return text without what no name and no sentence has, at most so many characters."""
    kept = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return kept.strip()[:most]


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    said = [f"{'.'.join(map(str, fault['loc']))[:80]}: {fault['msg']}" for fault in faults[:3]]
    return "; ".join(said)


def _first(error: ValueError) -> str:
    return (str(error).splitlines() or [""])[0][:120]
