import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from driftloop.errors import LogError
from driftloop.records import ModelId
from driftloop.serve.answers import Answer, Answers
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.spec import Fleet

MODEL, OTHER = ModelId("eta-de"), ModelId("eta-fr")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")


def batch(ids: list[str], value: float, *, at: datetime = NOW, version: int = 3) -> pa.Table:
    """Return what a batch publishes."""
    size = len(ids)
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "event_time": pa.array([at] * size, INSTANT),
            "version": pa.array([version] * size, pa.int32()),
            "epoch": pa.array([version + 1] * size, pa.int64()),
            "predicted_at": pa.array([at] * size, INSTANT),
            "value": pa.array([value] * size, pa.float64()),
        }
    )


@pytest.fixture
def answers(tmp_path: Path) -> Any:
    """A store that may grow to a few MB."""
    made = Answers(tmp_path / "answers", gib=0.01)
    yield made
    made.close()


def test_the_newest_answer_to_an_id_is_given(answers: Answers, tmp_path: Path) -> None:
    """Of its own model; one that was predicted earlier replaces none, whenever it comes."""
    assert answers.get(MODEL, "a") is None
    assert answers.expire(NOW) == 0
    assert not (tmp_path / "answers").exists()
    answers.publish(MODEL, batch(["a", "b", "x" * 900], 1.0))
    answers.publish(OTHER, batch(["a"], 5.0))
    answers.publish(MODEL, batch(["a"], 2.0, at=NOW + timedelta(hours=1), version=4))
    answers.publish(MODEL, batch(["a"], 9.0, at=NOW - timedelta(hours=1)))
    later = NOW + timedelta(hours=1)
    assert answers.get(MODEL, "a") == Answer(4, 5, later, later, 2.0)
    assert answers.get(MODEL, "b") == Answer(3, 4, NOW, NOW, 1.0)
    assert answers.get(MODEL, "x" * 900) is not None
    assert answers.get(MODEL, "c") is None
    assert answers.get(OTHER, "a") == Answer(3, 4, NOW, NOW, 5.0)


def test_another_process_reads_what_is_published(answers: Answers, tmp_path: Path) -> None:
    """As the online service does, which opened the store before."""
    import subprocess
    import sys

    answers.publish(MODEL, batch(["a"], 1.0))
    asked = (
        "import sys; from pathlib import Path; from driftloop.serve.answers import Answers;"
        "print(Answers(Path(sys.argv[1]), gib=0.01).get('eta-de', 'a').prediction)"
    )
    words = [sys.executable, "-c", asked, str(tmp_path / "answers")]
    assert subprocess.run(words, capture_output=True, check=True, text=True).stdout == "1.0\n"


def test_old_answers_expire(answers: Answers) -> None:
    """Those that were predicted before the limit; a dry run only counts."""
    old = [f"old-{n}" for n in range(50)]
    new = [f"new-{n}" for n in range(50)]
    answers.publish(MODEL, batch(old, 1.0, at=NOW - timedelta(days=8)))
    answers.publish(MODEL, batch(new, 1.0))
    limit = NOW - timedelta(days=7)
    assert answers.expire(limit, dry_run=True) == 50
    assert answers.expire(limit) == 50
    assert answers.expire(limit) == 0
    assert {answers.get(MODEL, id_) is not None for id_ in new} == {True}
    assert {answers.get(MODEL, id_) for id_ in old} == {None}
    assert answers.expire(NOW + timedelta(days=1)) == 50


def test_a_store_without_room_says_so(tmp_path: Path) -> None:
    """What is there stays readable; the settings that help are named."""
    answers = Answers(tmp_path, gib=0.001)
    answers.publish(MODEL, batch(["a"], 1.0))
    with pytest.raises(LogError, match=r"take all of the 0\.001 GiB") as full:
        answers.publish(MODEL, batch([f"id-{n}" for n in range(30_000)], 1.0))
    assert "answers_gib" in full.value.hint
    assert answers.get(MODEL, "a") is not None
    answers.close()


def test_a_store_that_is_none_is_told(tmp_path: Path) -> None:
    """No traceback of LMDB's."""
    (tmp_path / "data.mdb").write_bytes(b"nonsense" * 1000)
    with pytest.raises(LogError, match="published answers cannot be used"):
        Answers(tmp_path, gib=0.01).get(MODEL, "a")


def test_answers_are_given_over_http(fleet: Fleet, answers: Answers, clock: Any) -> None:
    """By id, with version, epoch and times; what is not there is a 404 that says why."""
    answers.publish(MODEL, batch(["a", "trip/7 ü"], 1.5))
    spool: Any = None
    service = Service(fleet=fleet, slots=Slots(fleet), spool=spool, clock=clock)
    app = online_app(service, heads=lambda: (), poll_every=60, answers=answers.get)

    def ask(path: str, method: str = "GET") -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.request(method, f"/v1/models/{path}")

        return asyncio.run(asked())

    found = ask("eta-de/predictions/a")
    assert (found.status_code, found.json()) == (
        200,
        {
            "model": "eta-de",
            "id": "a",
            "prediction": 1.5,
            "version": 3,
            "epoch": 4,
            "event_time": "2026-03-01T00:00:00Z",
            "predicted_at": "2026-03-01T00:00:00Z",
        },
    )
    assert ask("eta-de/predictions/trip/7 ü").json()["id"] == "trip/7 ü"
    for path, said in (
        ("eta-de/predictions/b", "no batch has published an answer to 'b'"),
        ("eta-xx/predictions/a", "no monitor declares the model 'eta-xx'"),
    ):
        refused = ask(path)
        assert refused.status_code == 404
        assert said in refused.json()["error"]["what"]
    assert ask("eta-de/predictions/a", "POST").status_code == 405
    described = app.openapi()["paths"]["/v1/models/{model}/predictions/{id}"]["get"]
    assert {"200", "404"} <= set(described["responses"])
