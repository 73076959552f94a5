"""What a button carries: what it does, and to what."""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftloop.errors import BadRequest
from driftloop.records import Act, ModelId

PREFIX = "driftloop."
"""How the `action_id` of every button of ours begins; the act follows."""

REPORT = f"{PREFIX}report"
"""The `action_id` of a button that is a link: nothing is to be done."""

WHY = f"{PREFIX}why"
"""The `callback_id` of the window that asks why something is no problem."""

WHY_BLOCK = WHY_INPUT = "why"
"""Where the reason stands in that window's values: block, and input."""


LONGEST_VALUE = 2000
"""Characters that Slack lets the value of a button have."""

LONGEST_OPTION = 150
"""Characters that Slack lets the value of a choice have."""


class Target(BaseModel):
    """What a button is about; `silence` is "" but on a choice of how long to be silent."""

    model_config = ConfigDict(frozen=True, strict=True)

    incident: str = Field(min_length=1)
    model: str | None = None
    version: int | None = None
    silence: str = ""

    @classmethod
    def read(cls, value: str) -> Self:
        """Return what `value_of` wrote.

        Raises:
            BadRequest: it is not of ours.
        """
        try:
            return cls.model_validate_json(value)
        except ValidationError as error:
            msg = "the button carries nothing that can be read"
            raise BadRequest(msg, hint="it is not of this version of driftloop") from error


def action_of(act: Act) -> str:
    """Return the `action_id` of an act's button.

    >>> action_of(Act.ROLL_BACK)
    'driftloop.rollback'
    """
    return f"{PREFIX}{act.value}"


def value_of(
    incident: str, model: ModelId | None = None, version: int | None = None, silence: str = ""
) -> str:
    """Return what a button carries, as compact JSON without what is not given.

    >>> value_of("eta/1", version=3)
    '{"incident":"eta/1","version":3}'
    """
    given = {"incident": incident, "model": model, "version": version, "silence": silence}
    return json.dumps({key: said for key, said in given.items() if said}, separators=(",", ":"))


def option_of(incident: str, silence: str) -> str:
    """Return what a choice of how long to be silent carries, in the 150 characters that it may.

    Where the incident's name does not fit it is left out: it is that of the message.

    >>> option_of("eta-de/2013-04-09", "1h")
    '{"incident":"eta-de/2013-04-09","silence":"1h"}'
    >>> option_of("x" * 150, "1h")
    '{"silence":"1h"}'
    """
    value = value_of(incident, silence=silence)
    if len(value) <= LONGEST_OPTION:
        return value
    return json.dumps({"silence": silence}, separators=(",", ":"))
