"""What Slack posts when somebody clicks, read into what the desk is asked.

Of what Slack sends only the little that is used is looked at, and that strictly: whatever else is
in a payload may change as Slack likes.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from driftloop.errors import BadRequest
from driftloop.page.clicks import (
    LONGEST_VALUE,
    PREFIX,
    REPORT,
    WHY,
    WHY_BLOCK,
    WHY_INPUT,
    Target,
    value_of,
)
from driftloop.records import Act, Click, ModelId

LARGEST = 2**31
"""No version has such a number."""

_Id = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{2,40}$")]
_Ts = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}\.[0-9]{1,9}$")]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2000)]


class _Read(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


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

    click: Click
    """What is asked for, still without a reason."""
    metadata: str
    """What the modal is to bring back: its target, and the channel."""
    trigger: str
    user: str
    channel: str = ""
    response_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """A click that we know nothing of: `said` is told to who clicked, nothing is done.

    `field` says that the modal's input can show it.
    """

    said: str
    user: str = ""
    channel: str = ""
    response_url: str = ""
    field: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """What Slack tells though nothing is asked: a link was opened, a modal closed."""


Asked = Pressed | Asks | Unclear | Nothing


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


class _Back(TypedDict):
    user: str
    channel: str
    response_url: str


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
    value: Annotated[str, StringConstraints(max_length=LONGEST_VALUE)]


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


class _From(_Read):
    channel: _Id | Literal[""] = ""


class _Silence(_Read):
    silence: Annotated[str, StringConstraints(min_length=1, max_length=40)]


class _Submission(_Read):
    type: Literal["view_submission"]
    user: _User
    view: _View


def _of_actions(said: _Actions) -> Asked:
    # Slack sends one click at a time, in a list.
    action = said.actions[0]
    channel = said.channel.id if said.channel is not None else ""
    back = _Back(user=said.user.id, channel=channel, response_url=said.response_url)
    if action.action_id == REPORT or action.url is not None:
        return Nothing()
    act = _act(action.action_id)
    if act is None:
        return Unclear(
            said="This button is not one that driftloop knows. Nothing was done.", **back
        )
    if act is Act.SILENCE:
        target = _choice(action.selected_option, said.message)
    else:
        target = _target(action.value or "")
    if target is None:
        return Unclear(said="This button does not say what it is about. Nothing was done.", **back)
    click = _click(
        act, target, said.user, key=f"{said.user.id}/{action.action_ts}/{action.action_id}"
    )
    if act is Act.NO_PROBLEM:
        metadata = target.model_dump(exclude_defaults=True) | {"channel": channel}
        return Asks(click=click, metadata=json.dumps(metadata), trigger=said.trigger_id, **back)
    return Pressed(click=click, channel=channel, response_url=said.response_url)


def _of_view(said: _Submission) -> Asked:
    view, user = said.view, said.user
    if view.callback_id != WHY:
        return Unclear(said="This form is not one that driftloop knows.", user=user.id)
    target = _target(view.private_metadata)
    if target is None:
        return Unclear(said="This form does not say what it is about.", user=user.id, field=True)
    channel = _From.model_validate_json(view.private_metadata).channel
    given = view.state.values.get(WHY_BLOCK, {}).get(WHY_INPUT)
    why = _clean((_Input.model_validate(given).value if given is not None else None) or "", 3000)
    if not why:
        return Unclear(said="Say why, please.", user=user.id, channel=channel, field=True)
    # Who submits a form again, because it was refused, does the same once more.
    click = _click(Act.NO_PROBLEM, target, user, key=f"{user.id}/{view.id}/{WHY}", why=why)
    return Pressed(click=click, channel=channel, submits=True)


def _click(act: Act, target: Target, user: _User, *, key: str, why: str = "") -> Click:
    return Click(
        key=key,
        act=act,
        incident=target.incident,
        who=user.said,
        user=user.id,
        model=ModelId(target.model) if target.model is not None else None,
        version=target.version,
        why=why,
        silence=target.silence,
    )


def _act(action_id: str) -> Act | None:
    name = action_id.removeprefix(PREFIX)
    return Act(name) if name != action_id and name in set(Act) else None


def _target(value: str) -> Target | None:
    """Return what a button is about, None where it does not say so as we write it."""
    try:
        target = Target.read(value)
    except BadRequest:
        return None
    words = (target.incident, target.model or "", target.silence)
    numbered = target.version is None or 0 < target.version < LARGEST
    sound = numbered and all(word.isprintable() for word in words)
    return target if sound else None


def _choice(option: _Option | None, message: _Message | None) -> Target | None:
    """Return what a choice is about; where it does not name the incident, the message's."""
    if option is None:
        return None
    target = _target(option.value)
    if target is None and message is not None:
        try:
            silence = _Silence.model_validate_json(option.value).silence
            target = _target(value_of(str(message.incident or ""), silence=silence))
        except ValidationError:
            return None
    return target if target is not None and target.silence else None


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
