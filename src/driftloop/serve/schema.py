"""The shapes that the online service answers in, for its OpenAPI page and for its callers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from driftloop.serve.request import LONGEST_TEXT, LONGEST_WORD, listed
from driftloop.spec import Family, Fleet, Source


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Predicted(_Shape):
    """One answered row; the prediction of a multiclass model is the name of a class."""

    id: str
    prediction: float | str


class Taken(_Shape):
    """What became of events.

    `repeated` ones were known already by their ids. Of the accepted, `late` ones are logged, but
    too old for the features of some key. `position` is that of the newest event of all sources.
    """

    accepted: int
    repeated: int
    late: int
    position: int


class HeldByField(_Shape):
    """What is held of the events whose `field` is the key, and what features they make now."""

    field: str
    newest: datetime | None
    age_seconds: float | None
    events: int
    features: dict[str, dict[str, float | str | None]]


class HeldOfEvents(_Shape):
    """What the online store holds of one key of a source of events."""

    source: str
    key: str
    kind: Literal["events"]
    position: int
    states: list[HeldByField]


class HeldOfTable(_Shape):
    """What the online store holds of one key of a table; `row` is null where it has none."""

    source: str
    key: str
    kind: Literal["table"]
    loaded_at: datetime | None
    age_seconds: float | None
    rows: int
    row: dict[str, float | str | None] | None


class FieldFault(_Shape):
    """What is wrong with one field of `rows[row]` or `labels[row]`; null for the request itself.

    As in JSON, the first is 0; the rows of files, in `predict-batch` and `labels`, begin at 1.
    """

    row: int | None
    field: str
    what: str
    hint: str


class Answer(_Shape):
    """The answers of one request, in its order, all by one version.

    Where some of several rows are at fault the others are answered: the prediction of one at fault
    is null, `refused` is how many there are, and `faults` names the first 20 faults.
    """

    model: str
    version: int
    epoch: int
    predictions: list[Predicted | None]
    refused: int = 0
    faults: list[FieldFault] = []


class Retrieved(_Shape):
    """The newest answer of a batch to one id; the prediction of a multiclass model is a class."""

    model: str
    id: str
    prediction: float | str
    version: int
    epoch: int
    event_time: datetime
    predicted_at: datetime


class Accepted(_Shape):
    """How many labels were written down."""

    accepted: int


class Refused(_Shape):
    """What was wrong, where, and what to do about it."""

    what: str
    where: str
    hint: str
    faults: list[FieldFault]


class Refusal(_Shape):
    """The body of every answer that is an error."""

    error: Refused


class Champion(_Shape):
    """One model of the fleet; version, epoch and digest are null while it has no champion.

    `classes` is what a multiclass model answers one of, and null for any other.
    """

    model: str
    family: str
    task: str
    classes: list[str] | None
    version: int | None
    epoch: int | None
    digest: str | None


class Champions(_Shape):
    """Every model of the fleet."""

    models: list[Champion]


class Alive(_Shape):
    """The process answers."""

    status: str


class RefusedVersion(_Shape):
    """A version that could not be taken up; the champion before it, if any, keeps answering."""

    model: str
    version: int
    digest: str
    error: str


class Readiness(_Shape):
    """Ready once the heads were first read, unless no model at all can answer for refusals.

    Models that cannot answer do not take others away.
    A model that was never trained is `without_champion`; one whose only champion was refused, for
    a damaged file or a failed warm-up, is `only_refused_champion`.
    """

    ready: bool
    without_champion: list[str]
    only_refused_champion: list[str]
    refused: list[RefusedVersion]


class ModelRecently(_Shape):
    """What one model was asked, of what `Recently` counts."""

    requests: int
    errors: int
    p99_ms: float | None


class Recently(_Shape):
    """How requests for predictions and labels went in the last five minutes of wall time.

    `seconds` says how much of them is counted: less after a start, and up to ten less because
    they are counted in buckets of ten. `errors` are the answers the service is to blame for: 500,
    a log that cannot be written, and a champion whose file was refused. A 503 for a model that has
    yet to be trained is none, nor is a caller's mistake; a caller that hung up is not counted.
    `error_rate` is errors / requests. Times are from a whole request to its answer, in
    milliseconds, at most a tenth too high; they and the rate are null where nothing was asked.
    `models` has those that were asked. `refused` is as in /readyz, now; `poll_failures` counts the
    times the heads could not be read, `turned_away` the requests that were answered 429, and not
    counted else.
    """

    seconds: float
    requests: int
    errors: int
    error_rate: float | None
    p50_ms: float | None
    p99_ms: float | None
    models: dict[str, ModelRecently]
    refused: list[RefusedVersion]
    turned_away: int
    poll_failures: int


def rows_body(fleet: Fleet) -> dict[str, Any]:
    """Return OpenAPI's description of a body of rows: one row object, or {"rows": [...]}."""
    examples = {
        family.name: {
            "summary": f"One row of {family.name}",
            "value": _example(family),
            "x-model": family.models[0],
        }
        for family in fleet.families
    }
    row = {
        "type": "object",
        "properties": {"id": {"type": "string", "description": "made if absent"}},
        "additionalProperties": True,
    }
    return _body(row, "rows", examples)


LABELS_SAID = (
    "A label that comes again corrects the one before it. One may come before its prediction: it "
    "is kept, and counts once a prediction has its id; if none ever has, it changes nothing."
)


def labels_body(fleet: Fleet) -> dict[str, Any]:
    """Return OpenAPI's description of a body of labels: one label, or {"labels": [...]}."""
    label = {
        "type": "object",
        "required": ["id", "value"],
        "properties": {
            "id": {"type": "string", "description": "the id the prediction was answered with"},
            "value": {
                "type": ["number", "string"],
                "description": "a number, 0 or 1 for a binary family; a class's name for a"
                " multiclass one",
            },
            "observed_at": {
                "type": "string",
                "format": "date-time",
                "description": "with a zone; now if absent",
            },
        },
        "additionalProperties": False,
    }
    example: dict[str, Any] = {"summary": "One label", "value": {"id": "a1", "value": 1}}
    if fleet.models:  # none where all are served elsewhere
        example["x-model"] = fleet.models[0]
        example["value"]["value"] = (*fleet.families[0].classes, 1)[0]
    examples = {"one": example}
    for family in fleet.families[1:]:
        if family.classes:
            examples[family.name] = {
                "summary": f"One label of {family.name}",
                "value": {"id": "a1", "value": family.classes[0]},
                "x-model": family.models[0],
            }
    return _body(label, "labels", examples)


PARAMETERS: dict[str, Any] = {
    "parameters": [
        {
            "name": "all",
            "in": "query",
            "description": "whether one row at fault refuses all of them",
            "schema": {"type": "boolean", "default": False},
        },
        {
            "name": "X-Routing-Key",
            "in": "header",
            "description": "requests with the same one are answered by the same version, also while"
            " another answers a share of them; the first row's id if left out",
            "schema": {"type": "string"},
        },
    ]
}


EVENTS_SAID = (
    'Takes one event, or up to 10,000 as `{"events": [...]}`, all or none. They are durable, and '
    "seen by the next request, once this is answered. An event with an `id` counts once however "
    "often it is sent: after an error or no answer send the same again. Every field of the source "
    f"stands in it, null where it is not known; a category has at most {LONGEST_WORD} characters. "
    "Its time may not lie further ahead of the service's clock than the source's lateness, and a "
    "minute."
)


def events_body(sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return OpenAPI's description of a body of events: one event, or {"events": [...]}."""
    event = {
        "type": "object",
        "properties": {"id": {"type": "string", "description": "made if absent"}},
        "additionalProperties": True,
    }
    examples = {
        source.name: {
            "summary": f"One event of {source.name}",
            "value": {
                "id": "e1",
                str(source.time): "2026-03-01T10:00:00Z",
                **{n: 1.0 if kind == "numeric" else "a" for n, kind in source.fields.items()},
            },
            "x-source": source.name,
        }
        for source in sources.values()
        if source.kind == "events"
    }
    return _body(event, "events", examples)


def rows_described(fleet: Fleet) -> str:
    """Return, as Markdown, which fields a row of each family has."""
    opening = (
        'Answers one row, or up to 10,000 as `{"rows": [...]}`, by one version. A row is flat; '
        "a null or absent feature is null. Of several rows those at fault are null in the answer "
        "and named in `faults`, and the others are answered; with `?all=true` one at fault refuses "
        "all, and nothing is logged. Every row is logged before it is answered. An id that "
        "comes again in a later request is answered again; in the log the row that arrived first "
        "stays, and the other counts as a duplicate, which is a reading of the data's quality. "
        "Within one request an id may stand once. A time may lie at most 366 days after the "
        "service's clock. An `X-Request-Id` of up to 128 letters, digits and `._:/+=@-` is given "
        "back, and stands in the service's log if the request fails."
    )
    said = [opening]
    for family in fleet.families:
        fields = [f"- `{family.time}`: ISO 8601 time with a zone, required"]
        for name, feature in family.requested.items():
            kind = _KINDS[feature.kind]
            usual = "" if feature.range is None else f", usually {feature.range[0]:g} to "
            usual += "" if feature.range is None else f"{feature.range[1]:g}"
            fields.append(f"- `{name}`: {kind}{usual}{', required' if feature.required else ''}")
        if made := [name for name in family.features if name not in family.requested]:
            fields.append(f"- looked up or computed, and never sent: {listed(made)}")
        if family.classes:
            fields.append(f"- answered with one of {listed(family.classes)}")
        said.append(f"**{family.name}** ({', '.join(family.models)})\n\n" + "\n".join(fields))
    return "\n\n".join(said)


_KINDS = {
    "numeric": "number",
    "categorical": f"string of at most {LONGEST_WORD} characters",
    "key": f"string of at most {LONGEST_WORD} characters that features are looked up by, logged and"
    " not given to the model",
    "text": f"text of at most {LONGEST_TEXT:,} characters, logged and not given to the model",
}


def _body(item: dict[str, Any], key: str, examples: dict[str, Any]) -> dict[str, Any]:
    many = {
        "type": "object",
        "required": [key],
        "properties": {key: {"type": "array", "minItems": 1, "maxItems": 10_000, "items": item}},
        "additionalProperties": False,
    }
    schema = {"anyOf": [many, item]}
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def _example(family: Family) -> dict[str, Any]:
    row: dict[str, Any] = {"id": "a1", family.time: "2026-03-01T10:00:00Z"}
    for name, feature in family.requested.items():
        low, high = feature.range or (0.0, 2.0)
        row[name] = (low + high) / 2 if feature.kind == "numeric" else "a"
    return row
