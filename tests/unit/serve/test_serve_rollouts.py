"""Challengers in the serving process: who is answered by one, and what a shadow leaves behind."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftloop.errors import ArtifactError, LogError, ModelAway
from driftloop.records import ModelId, Phase, Prediction, Role, Rollout, Served, Shadow
from driftloop.serve import rollouts as module
from driftloop.serve.online import online_app
from driftloop.serve.rollouts import Challengers, place
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.spec import Fleet

DE = ModelId("eta-de")
ROW = {"asked_at": "2026-03-01T10:00:00Z", "distance": 12, "load": 0.5, "vehicle": "van"}
AT = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Spool:
    """Keeps what it is given; `full` refuses how versions did."""

    kept: list[Prediction] = field(default_factory=list)
    shadowed: list[Shadow] = field(default_factory=list)
    counted: list[Served] = field(default_factory=list)
    full: bool = False

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None:
        self.kept += rows

    def shadows(self, family: str, rows: Sequence[Shadow]) -> None:
        self.shadowed += rows

    def served(self, family: str, rows: Sequence[Served]) -> None:
        if self.full:
            raise LogError("no space left on device")
        self.counted += rows


@dataclass
class Serving:
    """eta-de answered by version 1, which always says 10, and a challenger that says 20."""

    service: Service
    challengers: Challengers
    spool: Spool
    open: list[Rollout]
    damaged: Callable[[], Path]

    def goes_to(self, **changed: Any) -> None:
        """Let the ledger say where the rollout is now, and the process take it up."""
        self.open[:] = [replace(self.open[0], epoch=self.open[0].epoch + 1, **changed)]
        self.challengers.refresh()

    def ends(self) -> None:
        self.open.clear()
        self.challengers.refresh()

    def ask(self, *asked: tuple[Any, str | None]) -> list[httpx.Response]:
        """Return the reply to each (body, routing key), all posted in one turn."""
        app = online_app(self.service, heads=lambda: (), poll_every=1)

        async def all_of_them() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                path = f"/v1/models/{DE}/predict"
                return await asyncio.gather(
                    *(
                        http.post(path, json=body, headers={"X-Routing-Key": key} if key else {})
                        for body, key in asked
                    )
                )

        return asyncio.run(all_of_them())

    def versions(self, keys: Sequence[str]) -> list[int]:
        found = []
        for some in (keys[at : at + 400] for at in range(0, len(keys), 400)):
            replies = self.ask(*(({**ROW, "id": key}, None) for key in some))
            found += [reply.json()["version"] for reply in replies]
        return found


@pytest.fixture
def serving(fleet: Fleet, made: Any, clock: Any, tmp_path: Path) -> Iterator[Serving]:
    """A rollout in shadow."""
    slots, spool, head = Slots(fleet), Spool(), made["twenty"].head(DE, epoch=2)
    slots.refresh([made["ten"].head(DE, epoch=1)])
    open_ = [
        Rollout(
            model=DE,
            order="o",
            epoch=2,
            version=2,
            digest=head.digest,
            artifact=head.artifact,
            champion=1,
            phase=Phase.SHADOW,
            reason="",
            begun=AT,
            since=AT,
        )
    ]
    challengers = Challengers(
        slots=Slots(fleet), rollouts=lambda: tuple(open_), spool=spool, clock=clock
    )
    service = Service(fleet=fleet, slots=slots, spool=spool, clock=clock, rollouts=challengers)
    challengers.refresh()

    def damaged() -> Path:
        file = tmp_path / "model.onnx"
        file.write_bytes(b"no model")
        return file

    yield Serving(service, challengers, spool, open_, damaged)
    challengers.close()


def test_a_shadow_answers_the_same_rows_and_nobody_sees_it(serving: Serving) -> None:
    """Every reply is the champion's; beside each of its rows stands what the other would say."""
    keys = [f"r{n}" for n in range(40)]
    assert serving.versions(keys) == [1] * 40
    serving.challengers.close()
    assert {(row.id, _whole(row)) for row in serving.spool.shadowed} == {(key, 20) for key in keys}
    assert {(row.version, row.epoch) for row in serving.spool.shadowed} == {(2, 2)}
    assert {(row.version, _whole(row)) for row in serving.spool.kept} == {(1, 10)}
    counted = {(row.version, row.role): row for row in serving.spool.counted}
    assert counted[1, Role.CHAMPION].requests == counted[2, Role.SHADOW].requests == 40
    assert sum(counted[2, Role.SHADOW].seconds) == 40


def test_a_canary_answers_its_share_and_always_the_same_keys(serving: Serving) -> None:
    """Within the noise of the draw; a larger share keeps who was in; another process agrees."""
    keys = [f"user-{n}" for n in range(2000)]
    answered: dict[float, set[str]] = {}
    for share in (0.1, 0.25, 0.5):
        serving.goes_to(phase=Phase.CANARY, share=share)
        versions = serving.versions(keys)
        answered[share] = {key for key, version in zip(keys, versions, strict=True) if version == 2}
        noise = 4 * sqrt(2000 * share * (1 - share))
        assert abs(len(answered[share]) - 2000 * share) < noise
        # A pure function of rollout and key: the same in every process, on every machine.
        assert answered[share] == {
            key for key in keys if place(serving.open[0], key.encode()) < share
        }
    assert answered[0.1] < answered[0.25] < answered[0.5]


def test_where_a_key_lies_is_the_same_on_every_machine() -> None:
    """By SHA-256, which is no matter of the process: a known place."""
    rollout = Rollout(
        model=DE,
        order="o",
        epoch=2,
        version=2,
        digest="",
        artifact="",
        champion=1,
        phase=Phase.CANARY,
        reason="",
        begun=AT,
        since=AT,
    )
    assert place(rollout, b"user-1") == pytest.approx(0.046308, abs=1e-6)
    assert place(replace(rollout, order="p"), b"user-1") != place(rollout, b"user-1")


def test_a_request_is_answered_by_one_version_by_its_routing_key(serving: Serving) -> None:
    """Two hundred rows of one caller, in requests of several rows: one version, one epoch."""
    serving.goes_to(phase=Phase.CANARY, share=0.5)
    for key in ("ann", "bob", "cid", "dan", "eve"):
        wanted = 2 if place(serving.open[0], key.encode()) < 0.5 else 1
        bodies = [{"rows": [{**ROW, "id": f"{key}-{n}-{k}"} for k in range(10)]} for n in range(4)]
        replies = serving.ask(*((body, key) for body in bodies))
        assert {reply.json()["version"] for reply in replies} == {wanted}
        for reply in replies:
            said = {round(each["prediction"]) for each in reply.json()["predictions"]}
            assert said == {20 if wanted == 2 else 10}
    epochs = {(row.version, row.epoch) for row in serving.spool.kept}
    assert epochs <= {(1, 1), (2, 3)}


@pytest.mark.parametrize("error", [ArtifactError("it fails"), ModelAway("its sidecar is away")])
def test_a_challenger_that_fails_harms_nobody_and_is_counted(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, error: ArtifactError
) -> None:
    """The champion answers in its place; each such request counts against the challenger."""
    serving.goes_to(phase=Phase.CANARY, share=0.5)
    challenger = serving.challengers._slots.slot(DE).hand().model

    def fails(_: object) -> list[float]:
        raise error

    monkeypatch.setattr(challenger, "predict", fails, raising=False)
    keys = [f"r{n}" for n in range(60)]
    meant = sum(place(serving.open[0], key.encode()) < 0.5 for key in keys)
    assert serving.versions(keys) == [1] * 60
    serving.challengers.close()
    (canary,) = [row for row in serving.spool.counted if row.role is Role.CANARY]
    assert (canary.version, canary.requests, canary.errors) == (2, meant, meant)


def test_a_challenger_that_is_away_harms_nobody_and_is_asked_once(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests of one turn go to the champion together: nobody waits for it one by one."""
    serving.goes_to(phase=Phase.CANARY, share=0.5)
    keys = [f"r{n}" for n in range(100)]
    share = serving.versions(keys).count(2)
    assert 0 < share < 100
    challenger = serving.challengers._slots.slot(DE).hand().model
    asked: list[object] = []

    def away(columns: object) -> list[float]:
        asked.append(columns)
        raise ModelAway("the sidecar is not there")

    monkeypatch.setattr(challenger, "predict", away, raising=False)
    serving.spool.kept.clear()
    assert serving.versions(keys) == [1] * 100
    assert {(row.version, _whole(row)) for row in serving.spool.kept} == {(1, 10)}
    assert len(serving.spool.kept) == 100
    assert len(asked) < share
    serving.challengers.close()
    errors = sum(each.errors for each in serving.spool.counted if each.role is Role.CANARY)
    assert errors == share


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.CANARY])
def test_a_challenger_that_is_refused_harms_nobody_and_is_counted(
    serving: Serving, phase: Phase
) -> None:
    """Its file is not what its digest names: it was never loaded, and cannot be promoted so."""
    file = serving.damaged()
    serving.goes_to(
        phase=phase,
        share=0.5 if phase is Phase.CANARY else 0.0,
        version=3,
        digest="0" * 64,
        artifact=str(file),
    )
    assert serving.versions([f"r{n}" for n in range(40)]) == [1] * 40
    serving.challengers.close()
    (counted,) = [row for row in serving.spool.counted if row.version == 3]
    assert counted.errors == counted.requests > 0
    assert all(row.prediction is None for row in serving.spool.shadowed)


def test_rows_beyond_what_may_wait_are_dropped_and_counted(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is busy does not pile up shadows."""
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    body = {"rows": [{**ROW, "id": f"r{n}"} for n in range(6)]}
    (reply,) = serving.ask((body, None))
    assert reply.status_code == 200
    serving.challengers.close()
    assert (serving.challengers.dropped, serving.spool.shadowed) == (6, [])


def test_a_rollout_that_ended_answers_nothing_more(serving: Serving) -> None:
    """From the next look at the ledger on; and its memory is let go."""
    serving.goes_to(phase=Phase.CANARY, share=0.999999)
    assert serving.versions(["a", "b"]) == [2, 2]
    serving.goes_to(phase=Phase.ROLLING_BACK, share=0.0)
    assert serving.versions(["c", "d"]) == [1, 1]
    assert serving.challengers._slots.slot(DE).held is None


def test_each_step_is_counted_apart(serving: Serving) -> None:
    """What was seen in shadow is written down before the canary begins."""
    serving.versions(["a", "b", "c"])
    serving.goes_to(phase=Phase.CANARY, share=0.999999)
    before = {(row.version, row.role, row.requests) for row in serving.spool.counted}
    assert (1, Role.CHAMPION, 3) in before
    serving.versions(["d"])
    serving.challengers.close()
    assert [(r.role, r.requests) for r in serving.spool.counted if r.version == 2][-1] == (
        Role.CANARY,
        1,
    )


def test_a_full_disk_does_not_stop_the_answers(serving: Serving) -> None:
    """How versions did is not written down; requests are answered all the same."""
    serving.spool.full = True
    serving.versions(["a"])
    serving.goes_to(phase=Phase.CANARY, share=0.5)
    assert serving.versions(["b"]) in ([1], [2])


def _whole(row: Prediction | Shadow) -> int:
    assert row.prediction is not None
    return round(row.prediction)
