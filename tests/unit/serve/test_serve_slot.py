import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from driftloop.errors import ArtifactError, UnknownModel
from driftloop.optimize import with_samples
from driftloop.records import Head, ModelId, Samples
from driftloop.serve.model import load_model
from driftloop.serve.slot import NoChampion, Slots
from driftloop.spec import Fleet

MODEL = "eta-de"
COLUMNS = {
    "distance": [100.0, 4200.5, 2500.0],
    "load": [0.5, None, 0.1],
    "vehicle": ["van", "bike", None],
}


def test_answers_are_those_of_the_fitted_regression(made: Any) -> None:
    """A loaded regression answers what scikit-learn answers, nulls and all."""
    frame = pd.DataFrame(COLUMNS).fillna({"vehicle": ""}).astype({"distance": "f4", "load": "f4"})
    expected = made["sloped"].fitted.predict(frame)
    model = load_model(made["sloped"].file, made["sloped"].digest)
    answers = model.predict({**COLUMNS, "of no use": [1.0, 2.0, 3.0]})
    assert answers == pytest.approx(expected, rel=1e-5)
    assert {type(answer) for answer in answers} == {float}


def test_a_classifier_answers_the_probability_of_one(made: Any) -> None:
    """Of a classifier's outputs the probability of 1 is taken, not the label nor that of 0."""
    columns = {"tenure": [10.0, 500.0], "spend": [5.0, 45.0], "plan": ["a", "unheard of"]}
    frame = pd.DataFrame(columns).astype({"tenure": "f4", "spend": "f4"})
    expected = made["churn"].fitted.predict_proba(frame)[:, 1]
    answers = load_model(made["churn"].file, made["churn"].digest).predict(columns)
    assert answers == pytest.approx(expected, abs=1e-6)
    assert answers[0] < 0.3
    assert answers[1] > 0.7


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A model file that is not there is an ArtifactError that names it."""
    with pytest.raises(ArtifactError, match=r"model\.onnx: the model file cannot be read"):
        load_model(tmp_path / "model.onnx", "0" * 64)


def test_a_changed_byte_is_refused(made: Any, tmp_path: Path) -> None:
    """A file with one byte changed is refused before onnxruntime sees it."""
    content = bytearray(made["ten"].file.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="not the one its digest names"):
        load_model(tmp_path / "model.onnx", made["ten"].digest)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """A file with the right digest that is not ONNX is an ArtifactError, not onnxruntime's own."""
    file = tmp_path / "model.onnx"
    file.write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match="onnxruntime cannot load"):
        load_model(file, hashlib.sha256(b"not a model").hexdigest())


def test_a_model_that_lacks_a_feature_says_which(made: Any) -> None:
    """A model asked without a feature it needs names that feature."""
    model = load_model(made["ten"].file, made["ten"].digest)
    with pytest.raises(ArtifactError, match="not given: vehicle"):
        model.predict({"distance": [1.0], "load": [1.0]})


def test_an_empty_slot_says_so(fleet: Fleet) -> None:
    """A declared model without a champion is told apart from one that nobody declared."""
    slots = Slots(fleet)
    with pytest.raises(NoChampion, match="eta-de: the model has no champion yet"):
        slots.slot(MODEL).hand()
    with pytest.raises(UnknownModel, match="no monitor declares") as raised:
        slots.slot("eta-es")
    assert not isinstance(raised.value, NoChampion)


def test_only_a_newer_epoch_is_taken_up(fleet: Fleet, made: Any) -> None:
    """Each newer head is taken up once; the same or an older epoch changes nothing."""
    slots = Slots(fleet)
    first, second = made["ten"].head(MODEL, epoch=1), made["twenty"].head(MODEL, epoch=2)
    assert slots.refresh([first]) == ((first,), ())
    assert slots.refresh([first]) == ((), ())
    before = slots.slot(MODEL).hand()
    assert slots.refresh([second]) == ((second,), ())
    assert slots.refresh([first]) == ((), ())
    assert slots.slot(MODEL).hand().head == second
    assert before.head == first
    assert before.model.predict({**COLUMNS}) == pytest.approx([10.0] * 3)


def test_a_rollback_to_the_same_file_is_a_new_epoch(fleet: Fleet, made: Any) -> None:
    """A new epoch of the digest in hand changes the head and loads nothing."""
    slots = Slots(fleet)
    slots.refresh([made["ten"].head(MODEL, epoch=1)])
    model = slots.slot(MODEL).hand().model
    slots.refresh([made["ten"].head(MODEL, epoch=2, version=1)])
    assert slots.slot(MODEL).hand().head.epoch == 2
    assert slots.slot(MODEL).hand().model is model


def test_a_refused_version_leaves_the_champion_and_is_not_tried_at_every_poll(
    fleet: Fleet, made: Any, tmp_path: Path
) -> None:
    """A damaged version is refused, kept as a failure, and tried again only after a while."""
    now = 0.0
    slots = Slots(fleet, retry_after=30.0, tick=lambda: now)
    good, bad = made["ten"].head(MODEL, epoch=1), made["twenty"].head(MODEL, epoch=2)
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(b"damaged")
    bad = type(bad)(model=bad.model, epoch=2, version=2, digest=bad.digest, artifact=str(damaged))
    slots.refresh([good])
    taken, failed = slots.refresh([bad])
    assert (taken, [failure.head for failure in failed]) == ((), [bad])
    assert "digest" in str(slots.failures[bad.model].error)
    assert slots.slot(MODEL).hand().head == good
    damaged.write_bytes(made["twenty"].file.read_bytes())
    now = 29.0
    assert slots.refresh([bad]) == ((), ())
    now = 30.0
    assert slots.refresh([bad]) == ((bad,), ())
    assert slots.failures == {}


def test_another_version_is_tried_at_once_after_a_failure(fleet: Fleet, made: Any) -> None:
    """The pause after a failure is the digest's, not the model's."""
    slots = Slots(fleet, tick=lambda: 0.0)
    bad, good = made["churn"].head(MODEL, epoch=1), made["ten"].head(MODEL, epoch=2)
    assert slots.refresh([bad])[1][0].error.what.startswith("the model needs features")
    assert slots.refresh([good]) == ((good,), ())


def test_a_model_that_answers_nan_to_a_null_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    """A version that cannot answer the nulls a request may hold never becomes the one answering."""
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1])
        for name in ("distance", "load")
    ]
    output = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 1])
    node = helper.make_node("Add", ["distance", "load"], ["answer"])
    graph = helper.make_graph([node], "sum", inputs, [output])
    content = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert load_model(file, digest).predict({"distance": [1.0], "load": [2.0]}) == [3.0]
    head = Head(model=ModelId(MODEL), epoch=1, version=1, digest=digest, artifact=str(file))
    _, failed = Slots(fleet).refresh([head])
    assert "no finite number (row 1 of 2)" in str(failed[0].error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answers: [*answers[:-1], answers[-1] * 1.001], "recorded sample 3 of 3 with"),
        (lambda answers: answers, None),
    ],
)
def test_a_model_that_answers_its_samples_otherwise_is_refused(
    fleet: Fleet, made: Any, tmp_path: Path, change: Any, said: str | None
) -> None:
    """A version must answer some rows as it did when it was made; else the champion stays."""
    lowered = made["sloped"].file.read_bytes()
    answers = change(load_model(made["sloped"].file, made["sloped"].digest).predict(COLUMNS))
    content = with_samples(lowered, Samples(columns=COLUMNS, answers=answers))
    file, digest = tmp_path / "model.onnx", hashlib.sha256(content).hexdigest()
    file.write_bytes(content)
    slots, champion = Slots(fleet), made["ten"].head(MODEL, epoch=1)
    head = Head(model=ModelId(MODEL), epoch=2, version=2, digest=digest, artifact=str(file))
    slots.refresh([champion])
    _, failed = slots.refresh([head])
    if said is None:
        assert failed == ()
        assert slots.slot(MODEL).hand().head == head
    else:
        assert said in str(failed[0].error)
        assert slots.slot(MODEL).hand().head == champion


def test_samples_that_cannot_be_read_are_a_refusal(fleet: Fleet, made: Any, tmp_path: Path) -> None:
    """What stands where samples should is an ArtifactError, not a failure of the poll."""
    import onnx

    model = onnx.load(made["sloped"].file)
    entry = model.metadata_props.add()
    entry.key, entry.value = "driftloop.samples", '{"columns": 3}'
    content = model.SerializeToString()
    file, digest = tmp_path / "model.onnx", hashlib.sha256(content).hexdigest()
    file.write_bytes(content)
    head = Head(model=ModelId(MODEL), epoch=1, version=1, digest=digest, artifact=str(file))
    _, failed = Slots(fleet).refresh([head])
    assert "its recorded samples cannot be read" in str(failed[0].error)


def test_a_head_outside_the_fleet_is_passed_over(fleet: Fleet, made: Any) -> None:
    """A ledger may know models that this process was not started for."""
    assert Slots(fleet).refresh([made["ten"].head("eta-es", epoch=1)]) == ((), ())


def test_answers_are_floats_of_full_rows(made: Any) -> None:
    """Many rows are answered in their order."""
    model = load_model(made["sloped"].file, made["sloped"].digest)
    far = np.linspace(0, 5000, 1000).tolist()
    columns = {"distance": far, "load": [0.5] * 1000, "vehicle": ["van"] * 1000}
    one = [
        model.predict({name: [values[row]] for name, values in columns.items()})[0]
        for row in (0, 500, 999)
    ]
    many = model.predict(columns)
    assert [many[0], many[500], many[999]] == one
    assert one[0] < one[1] < one[2]


def test_serving_imports_no_training_library(made: Any, tmp_path: Path) -> None:
    """A process that answered over HTTP has loaded none of the heavy or unsafe libraries."""
    program = """
import asyncio, sys
from datetime import datetime, UTC
from pathlib import Path
from types import SimpleNamespace
import httpx
from driftloop.records import Head
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.spec import load_fleet
fleet = load_fleet(Path(sys.argv[1]))
head = Head(model="eta-de", epoch=1, version=1, digest=sys.argv[3], artifact=sys.argv[2])
spool = SimpleNamespace(predictions=lambda family, rows: None)
slots = Slots(fleet)
slots.refresh([head])
clock = SimpleNamespace(now=lambda: datetime.now(UTC))
service = Service(fleet=fleet, slots=slots, spool=spool, clock=clock)
app = online_app(service, heads=lambda: [head], poll_every=1)
async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        row = {"asked_at": "2026-03-01T10:00:00Z", "distance": 3.0, "vehicle": "van"}
        return (await http.post("/v1/models/eta-de/predict", json=row)).json()
print(asyncio.run(ask())["predictions"][0]["prediction"])
heavy = {"sklearn", "mlflow", "evidently", "prefect", "pandas", "onnx", "skl2onnx", "duckdb"}
print(sorted(heavy & set(sys.modules)))
"""
    monitors = Path(__file__).parents[2] / "monitors"
    ran = subprocess.run(
        [sys.executable, "-c", program, monitors, made["ten"].file, made["ten"].digest],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.split("\n")[:2] == ["10.0", "[]"]
