"""What becomes of a batch: one call for all, each its own reply, and nobody pays for another."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import ArtifactError
from driftloop.records import Samples
from driftloop.serve.frames import Answers, Ask, Load, Loaded, Refused, Reply
from driftloop.sidecar.answering import Answering, open_model
from driftloop.sidecar.gather import Waiting


@dataclass
class Doubling:
    """Twice x; fails on 13, and answers NaN to 0."""

    size: int = 10
    where: str = "file"
    classes: tuple[str, ...] = ("red", "blue")
    inputs: tuple[str, ...] = ("x",)
    samples: Samples = field(default_factory=lambda: Samples(columns={"x": [1.0]}, answers=[2.0]))
    calls: list[int] = field(default_factory=list)

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> list[float]:
        self.calls.append(len(columns["x"]))
        if 13.0 in columns["x"]:
            raise ArtifactError("the model failed to answer: ValueError: 13", where=self.where)
        return [2 * x or float("nan") for x in columns["x"]]


@dataclass
class Desk:
    """Asks, and keeps the replies in the order they came in."""

    answering: Answering
    replies: list[Reply] = field(default_factory=list)

    def waiting(self, request: Ask | Load, *, until: float = 1.0) -> Waiting:
        return Waiting(request, 1, until, self.replies.append)

    def asked(self, *values: Any, digest: str = "d") -> list[Reply]:
        asks = [Ask(n, "file", digest, 5.0, each) for n, each in enumerate(values)]
        self.answering.answer([self.waiting(each) for each in asks])
        return sorted(self.replies, key=lambda reply: reply.number)


def desk(model: Any, **options: Any) -> Desk:
    return Desk(
        Answering(
            **{"most_bytes": 100, "load": lambda file, digest: model, "tick": lambda: 0.0} | options
        )
    )


def test_a_batch_is_one_call_and_each_gets_its_own_rows() -> None:
    """Requests of several sizes are asked together; what else they carry is left aside."""
    model = Doubling()
    replies = desk(model).asked({"x": [1.0]}, {"x": [2.0, 3.0], "y": ["a", "b"]}, {"x": [4.0]})
    assert replies == [Answers(0, [2.0]), Answers(1, [4.0, 6.0]), Answers(2, [8.0])]
    assert model.calls == [4]


def test_a_fault_of_one_request_is_none_of_the_others() -> None:
    """One that the model raises on, one of no finite answer, two that cannot be asked at all."""
    replies = desk(Doubling()).asked(
        {"x": [1.0]}, {"x": [13.0]}, {"x": [2.0, 0.0]}, {"y": [1.0]}, {"x": [1.0], "y": []}, {}
    )
    assert replies[0] == Answers(0, [2.0])
    said = [reply.what for reply in replies[1:] if isinstance(reply, Refused)]
    assert [what.split(":")[0] for what in said] == [
        "the model failed to answer",
        "the model answers no finite number (row 1 of 2)",
        "the model needs features it is not given",
        "the columns are not of one length",
        "the model needs features it is not given",
    ]


def test_a_model_is_loaded_once_and_says_what_it_is() -> None:
    """Its classes and samples; whatever is asked first loads it."""
    loads: list[tuple[str, str]] = []
    model = Doubling()

    def load(file: str, digest: str) -> Any:
        loads.append((file, digest))
        return model

    here = desk(model, load=load)
    here.answering.answer([here.waiting(Load(7, "file", "d"))])
    here.asked({"x": [1.0]})
    assert here.replies[0] == Loaded(7, ("x",), ("red", "blue"), model.samples)
    assert loads == [("file", "d")]


def test_a_model_that_does_not_load_is_told_to_all_and_tried_again() -> None:
    """The error comes with its hint; once the file is mended it answers."""
    given: list[Any] = [ArtifactError("damaged", where="file", hint="restore it"), Doubling()]

    def load(file: str, digest: str) -> Any:
        if isinstance(each := given.pop(0), ArtifactError):
            raise each
        return each

    here = desk(None, load=load)
    replies = here.asked({"x": [1.0]}, {"x": [2.0]})
    assert replies == [Refused(n, "damaged", "file", "restore it") for n in (0, 1)]
    here.replies.clear()
    assert here.asked({"x": [1.0]}) == [Answers(0, [2.0])]


def test_whom_nobody_waits_for_is_not_answered() -> None:
    """Its asker gave up: the model is not bothered, and it may be asked again."""
    model = Doubling()
    here = desk(model, tick=lambda: 3.0)
    late, inside = (Ask(n, "file", "d", 5.0, {"x": [1.0]}) for n in (1, 2))
    here.answering.answer([here.waiting(late, until=3.0), here.waiting(inside, until=3.1)])
    assert [type(reply) for reply in here.replies] == [Refused, Answers]
    assert isinstance(here.replies[0], Refused)
    assert here.replies[0].busy
    assert model.calls == [1]


def test_models_that_were_asked_for_longest_ago_make_room() -> None:
    """The newest is kept however large it is; one that went is loaded again when it is asked."""
    loads: list[str] = []

    def load(file: str, digest: str) -> Any:
        loads.append(digest)
        return Doubling(size=40 if digest != "large" else 400)

    here = desk(None, load=load)
    for digest in ("a", "b", "a", "c", "a", "b", "large", "large"):
        here.asked({"x": [1.0]}, digest=digest)
    assert loads == ["a", "b", "c", "b", "large"]


def test_without_its_digest_a_file_is_not_even_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are read and compared; what would unpack them is called for the right ones only."""
    unpacked: list[bytes] = []

    def unpack(content: bytes, *, where: str) -> Any:
        unpacked.append(content)
        raise ArtifactError("as far as this", where=where)

    monkeypatch.setattr("driftloop.retrain.model.unpack", unpack)
    file = tmp_path / "pipeline.skops"
    file.write_bytes(b"replaced")
    with pytest.raises(ArtifactError, match="not the one its digest names"):
        open_model(str(file), hashlib.sha256(b"trained").hexdigest())
    assert unpacked == []
    with pytest.raises(ArtifactError, match="as far as this"):
        open_model(str(file), hashlib.sha256(b"replaced").hexdigest())
    assert unpacked == [b"replaced"]
