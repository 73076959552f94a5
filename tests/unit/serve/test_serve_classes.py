"""Models of classes answer by name at every door, and are logged by the class's place."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftloop.errors import ArtifactError
from driftloop.optimize import lower
from driftloop.records import Head, ModelId, Task
from driftloop.retrain import fit, predict
from driftloop.serve import schema
from driftloop.serve.batch import Checker, answer_table, log_table, shown_table
from driftloop.serve.model import OnnxModel, warm
from driftloop.serve.request import BadRows, parse_labels
from driftloop.serve.slot import Slots
from driftloop.spec import DecayPolicy, Family, Fleet

UK = ModelId("colour-uk")
NAMES = ("red", "green", "blue", "off white")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PREDICT, LABELS = f"/v1/models/{UK}/predict", f"/v1/models/{UK}/labels"


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    """The usual fleet, and a family of classes with the features of churn."""
    decay = DecayPolicy(metric="accuracy", warn=0.1, alarm=0.2)
    named = {"name": "colour", "task": Task.MULTICLASS, "classes": NAMES, "decay": decay}
    colour = fleet.family_named("churn").model_copy(update=named)
    return replace(fleet, families=(*fleet.families, colour))


@pytest.fixture
def colour(fleet: Fleet) -> Family:
    """The family of classes."""
    return fleet.family_named("colour")


@dataclass
class Trained:
    """A model of classes as a file, and what it says of the rows it was fitted on."""

    head: Head
    rows: pa.Table
    says: list[str]


@pytest.fixture
def trained(colour: Family, tmp_path: Path) -> Trained:
    """A model that knows the class by spend; the last class it never saw."""
    rng = np.random.default_rng(3)
    spend = rng.uniform(0, 30, 300)
    rows = pa.table(
        {
            "tenure": rng.uniform(0, 600, 300),
            "spend": spend,
            "plan": rng.choice(["a", "b"], 300),
            "label": np.floor(spend / 10),
        }
    )
    fitted = fit(colour, rows, seed=1)
    content = lower(fitted.pipeline, colour)
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    head = Head(model=UK, epoch=2, version=1, digest=digest, artifact=str(file))
    return Trained(head, rows, [NAMES[int(each)] for each in predict(fitted, rows)])


@pytest.mark.parametrize("serving", ["front", "fastapi"], indirect=True)
def test_answers_are_names_and_the_log_has_places(serving: Any, trained: Trained) -> None:
    """Over HTTP, the description of the service included."""
    service = serving(trained.head)
    rows = [
        {**row, "asked_at": "2026-03-01T10:00:00Z", "id": str(n)}
        for n, row in enumerate(trained.rows.drop_columns("label").to_pylist())
    ]
    reply = service.http.post(PREDICT, json={"rows": rows})
    assert reply.status_code == 200
    said = schema.Answer.model_validate(reply.json()).predictions
    assert [each.prediction for each in said] == trained.says
    assert set(trained.says) == {"red", "green", "blue"}
    assert [NAMES[int(each.prediction)] for each in service.spool.kept] == trained.says
    shown = schema.Champions.model_validate(service.http.get("/v1/models").json()).models
    assert {each.model: each.classes for each in shown}[UK] == list(NAMES)
    assert {each.model: (each.task, each.classes) for each in shown}["eta-de"] == (
        "regression",
        None,
    )
    docs = service.http.get("/docs").text
    assert "answered with one of red, green, blue, off white" in docs
    assert f"{LABELS} -H" in docs


@pytest.mark.parametrize("serving", ["front", "fastapi"], indirect=True)
def test_labels_are_names(serving: Any, trained: Trained) -> None:
    """Another text, a number or nothing is a 422 that names row and class; nothing is kept."""
    service = serving(trained.head)
    told = service.http.post(LABELS, json={"id": "a", "value": "off white"})
    assert told.status_code == 202
    assert [(each.id, each.value) for each in service.spool.told] == [("a", 3.0)]
    rows = [{"id": "b", "value": "red"}, {"id": "c", "value": "grean"}, {"id": "d", "value": 1}]
    refused = service.http.post(LABELS, json={"labels": rows})
    assert refused.status_code == 422
    faults = schema.Refusal.model_validate(refused.json()).error.faults
    assert [(fault.row, fault.field, fault.what, fault.hint) for fault in faults] == [
        (1, "value", "should be a class, got the string 'grean'", "did you mean 'green'?"),
        (
            2,
            "value",
            "should be the name of a class, got 1",
            "known: red, green, blue, off white",
        ),
    ]
    assert len(service.spool.told) == 1


@pytest.mark.parametrize("value", [None, True, ["red"], {"class": "red"}, 0, 0.5, "", "RED"])
def test_only_the_name_of_a_class_is_a_label(colour: Family, value: object) -> None:
    """Whatever else JSON may hold is refused."""
    body = json.dumps({"id": "a", "value": value}).encode()
    with pytest.raises(BadRows) as raised:
        parse_labels(colour, UK, body, now=NOW)
    assert [fault.field for fault in raised.value.faults] == ["value"]


def test_of_a_thousand_classes_not_all_are_told(colour: Family) -> None:
    """A hint stays one that can be read."""
    many = colour.model_copy(update={"classes": tuple(f"k{n:03}" for n in range(1000))})
    with pytest.raises(BadRows) as raised:
        parse_labels(many, UK, b'{"id": "a", "value": "zzz"}', now=NOW)
    hint = raised.value.faults[0].hint
    assert hint.endswith("... (1000 in all)")
    assert len(hint) < 5000


def test_a_batch_is_answered_by_name(
    colour: Family, trained: Trained, clock: Any, serving: Any
) -> None:
    """In a column of texts; the log has places."""
    held = serving(trained.head).slots.slot(UK).hand()
    times = pa.array([NOW] * trained.rows.num_rows, pa.timestamp("us", tz="UTC"))
    table = trained.rows.drop_columns("label").append_column("asked_at", times)
    for given, says in ((table, trained.says), (table.slice(0, 0), [])):
        rows = Checker(colour, UK, NOW, colour.features).check(given)
        answers = pa.array(answer_table(held, colour, rows))
        shown = shown_table(held, colour, rows, answers)["prediction"]
        assert (shown.type, shown.to_pylist()) == (pa.string(), says)
        assert log_table(held, colour, rows, answers, now=NOW)["prediction"].type == pa.float64()
    assert {
        *answer_table(held, colour, Checker(colour, UK, NOW, colour.features).check(table))
    } == {
        0.0,
        1.0,
        2.0,
    }


def test_a_model_with_a_class_that_is_gone_is_refused(
    fleet: Fleet, colour: Family, trained: Trained
) -> None:
    """Before it answers by the name of another; what was in hand would keep answering."""
    fewer = colour.model_copy(update={"classes": ("red",)})
    slots = Slots(replace(fleet, families=(fewer,)))
    model = OnnxModel(
        Path(trained.head.artifact).read_bytes(), digest=trained.head.digest, where="model"
    )
    with pytest.raises(ArtifactError, match="and colour has 1 classes"):
        warm(model, fewer)
    taken, failed = slots.refresh([trained.head])
    assert taken == ()
    assert "with class 'green' where colour.toml now has 'none'" in failed[0].error.what


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (NAMES, 0),
        ((*NAMES, "black"), 0),
        (("green", "red", *NAMES[2:]), 1),
        (("rouge", *NAMES[1:]), 1),
    ],
)
def test_classes_keep_their_names_and_their_order(
    fleet: Fleet, colour: Family, trained: Trained, names: tuple[str, ...], refused: int
) -> None:
    """New ones at the end are well; of any other change the model would answer by wrong names."""
    changed = colour.model_copy(update={"classes": names})
    slots = Slots(replace(fleet, families=(changed,)))
    found, failed = slots.refresh([trained.head])
    assert (len(found), len(failed)) == (1 - refused, refused)
    if failed:
        assert "classes keep their names and their order" in failed[0].error.hint
