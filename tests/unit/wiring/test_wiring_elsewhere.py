"""A team with its own serving uses the loop: its Parquet log, its hook, all else of ours real."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.pager import FakePager
from fakes.world import FakeRegistry

from driftloop.batch import Job
from driftloop.cli import main
from driftloop.clock import Clock
from driftloop.errors import ArtifactError, BadRequest
from driftloop.loop.watch import first_orders
from driftloop.records import ModelId, Ordered, State
from driftloop.serve.slot import Slots

if TYPE_CHECKING:
    from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"
DE = ModelId("eta-de")
DECLARED = """
[log]
source = "../theirs/*.parquet"
columns = { id = "request", model = "market", prediction = "yhat", label = "minutes" }
[handover]
command = ["./take"]
"""


@dataclass
class Theirs:
    """A team's serving: it logs to Parquet, and takes versions by a command."""

    folder: Path
    system: "System"

    def serve(self, days: range, *, slope: float = 1.0, now: datetime) -> None:
        """Log 40 rows for each of `days` ago: their model knows the usual world, slope 1."""
        rng = np.random.default_rng(days[0])
        count = 40 * len(days)
        at = [
            now - timedelta(days=ago) + timedelta(minutes=30 * n) for ago in days for n in range(40)
        ]
        distance, load = rng.uniform(0, 1000, count), rng.uniform(0, 1, count)
        usual = 10 + distance / 20 + 20 * load
        table = pa.table(
            {
                "request": [f"{when:%m%d%H%M}" for when in at],
                "market": ["de"] * count,
                "asked_at": at,
                "distance": distance,
                "load": load,
                "vehicle": rng.choice(["van", "truck"], count),
                "yhat": usual + rng.normal(0, 1, count),
                "minutes": usual * slope + rng.normal(0, 2, count),
            }
        )
        (self.folder / "theirs").mkdir(exist_ok=True)
        pq.write_table(table, self.folder / "theirs" / f"{days[0]}.parquet")

    def told(self) -> list[dict[str, Any]]:
        """Return what the command was told, oldest first."""
        file = self.folder / "monitors" / "told.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def theirs(place: Callable[..., Any], tmp_path: Path) -> Theirs:
    """The tests' eta family, served by somebody else; nothing is logged yet."""
    monitors = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
    with (monitors / "eta.toml").open("a") as file:
        file.write(DECLARED)
    text = (monitors / "eta.toml").read_text().replace('["de", "fr"]', '["de"]')
    (monitors / "eta.toml").write_text(text)
    (monitors / "take").write_text("#!/bin/sh\ncat >> told.jsonl; echo >> told.jsonl\n")
    (monitors / "take").chmod(0o755)
    system = place(monitors).system
    system.__dict__["pager"] = FakePager()
    return Theirs(tmp_path, system)


def test_a_team_with_its_own_serving_uses_the_loop(theirs: Theirs) -> None:
    """Found, watched, seen to decay, retrained, handed over, judged anew, and rolled back."""
    system, now = theirs.system, theirs.system.clock.now()
    theirs.serve(range(60, 14, -1), now=now - timedelta(days=1))
    theirs.serve(range(14, 0, -1), now=now)
    (order,) = (o for o in first_orders(system.fleet, (), now) if o.model == DE)
    renewed = system.renewer.renew(order)
    assert renewed.outcome == "promoted", renewed.reason
    assert renewed.candidate is not None
    baseline = {each.name: each.value for each in renewed.candidate.metrics}
    # What their model is: 1 minute of its own noise beside 2 of the world's.
    assert baseline["mae"] == pytest.approx(np.hypot(1, 2) * np.sqrt(2 / np.pi), rel=0.15)
    decision = decided(system)
    assert (decision.state, decision.version) == (State.FRESH, 1), decision.reason
    assert theirs.told() == []

    later = now + timedelta(days=14)
    theirs.serve(range(14, 0, -1), slope=1.6, now=later)
    stand_at(system, later)
    (seen,) = (each for each in system.watcher.watch() if each.model == DE)
    assert seen.decision is not None
    assert seen.decision.state == State.DECAYING, seen.decision.reason
    assert seen.order is not None
    renewed = system.renewer.renew(seen.order)
    assert renewed.outcome == "promoted", renewed.reason
    (told,) = theirs.told()
    assert (told["model"], told["version"], told["previous"]) == (DE, 2, 1)
    assert told["key"] == seen.decision.key
    head = system.ledger.head(DE)
    assert head is not None
    assert (told["artifact"], told["digest"]) == (head.artifact, head.digest)
    assert [each.version for each in system.registry.versions(DE) if each.champion] == [2]
    # What was answered before it was handed over is not its doing.
    rows = system.logs.rows(system.fleet.family(DE), seen.decision.window)
    assert set(rows["version"].to_pylist()) == {1}

    back = system.roll_back(DE, to=None, who="ann")
    assert (back.version, back.epoch) == (1, 3)
    assert theirs.told()[-1]["artifact"] is None
    assert [each.version for each in system.registry.versions(DE) if each.champion] == [1]
    Path(back.artifact).write_bytes(b"damaged")
    assert system.roll_back(DE, to=2, who="ann").version == 2
    with pytest.raises(ArtifactError, match="not the one its digest names"):
        system.roll_back(DE, to=None, who="ann")


def test_too_few_answers_to_find(theirs: Theirs) -> None:
    """Said as a training that failed, and nothing is registered or made champion."""
    theirs.serve(range(3, 0, -1), now=theirs.system.clock.now())
    (order,) = (
        o for o in first_orders(theirs.system.fleet, (), theirs.system.clock.now()) if o.model == DE
    )
    renewed = theirs.system.renewer.renew(order)
    assert renewed.outcome == "failed"
    assert "labelled rows" in renewed.reason
    assert theirs.system.ledger.head(DE) is None


def test_what_is_watched_only_is_not_trained_anew(
    theirs: Theirs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found it may be; a version that nobody would take is refused before a fit begins."""
    system, file = theirs.system, theirs.folder / "monitors" / "eta.toml"
    text = file.read_text().replace(DECLARED[DECLARED.index("[handover]") :], "")
    file.write_text(f"{text}\n[retrain]\ntriggers = []\n")
    system.__dict__["registry"] = FakeRegistry()
    theirs.serve(range(60, 0, -1), now=system.clock.now())
    (order,) = (o for o in first_orders(system.fleet, (), system.clock.now()) if o.model == DE)
    assert system.renewer.renew(order).outcome == "promoted"
    home, monitors = str(system.settings.home), str(system.settings.monitors)
    words = ["driftloop", "--home", home, "--monitors", monitors, "train", "churn-uk", DE]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "eta.toml: handover: nobody is named to hand a version to: these models are watched only"
        " (hint: give command or url in [handover])\n"
    )
    assert [fact.order.key for fact in system.ledger.facts(Ordered)] == [order.key]


def test_nothing_of_ours_answers_or_logs_for_them(theirs: Theirs, tmp_path: Path) -> None:
    """No slot, no table in the lake, no batch; other families are as before."""
    system = theirs.system
    slots = Slots(system.fleet.served)
    assert (slots.knows(DE), slots.knows("churn-uk")) == (False, True)
    with system.ingester():
        assert set(system.log.sizes()) == {"churn_predictions", "churn_labels"}
    with pytest.raises(BadRequest, match="served elsewhere"):
        system.predict_batch(Job(model=DE, source="FROM range(1)", out=tmp_path / "out.parquet"))
    assert system.expiring().rows == 0


def test_an_id_of_theirs_is_traced(theirs: Theirs) -> None:
    """From their log to the decision that judged it; what was found was not trained."""
    system, now = theirs.system, theirs.system.clock.now()
    system.__dict__["registry"] = FakeRegistry()
    theirs.serve(range(60, 0, -1), now=now)
    with system.ingester():  # the other family's tables
        pass
    (order,) = (o for o in first_orders(system.fleet, (), now) if o.model == DE)
    assert system.renewer.renew(order).outcome == "promoted"
    decision = decided(system)
    id_ = system.logs.rows(system.fleet.family(DE), decision.window)["id"][0].as_py()
    found = [step.what for step in system.trace(id_)]
    assert {"predicted", "labelled", "decided", "found answering"} <= set(found)
    assert "trained" not in found


def decided(system: "System") -> Any:
    """Return what a pass decides of eta-de."""
    (seen,) = (each for each in system.watcher.watch() if each.model == DE)
    assert seen.decision is not None, seen.problem
    return seen.decision


def stand_at(system: "System", at: datetime) -> None:
    Clock(origin=at, started=datetime(9999, 1, 1, tzinfo=UTC), speed=1.0).write(
        system.settings.clock
    )
