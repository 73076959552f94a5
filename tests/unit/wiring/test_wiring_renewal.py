"""Orders carried out on real rows, each fit in a process of its own: what the gate lets in."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.pager import FakePager
from fakes.world import FakeRegistry

from driftloop.loop import notices
from driftloop.loop.renew import Renewed, Renewer
from driftloop.loop.tell import Teller
from driftloop.records import (
    Decided,
    Decision,
    Failed,
    Head,
    ModelId,
    Moved,
    Order,
    Stage,
    State,
    Window,
)
from driftloop.wiring import IsolatedTrainer

DE = ModelId("eta-de")


@dataclass
class Renewing:
    """A renewer that is real but for pager and registry."""

    place: Any
    renewer: Renewer
    registry: FakeRegistry
    pager: FakePager

    def renew(self, key: str, *, incident: str | None = None) -> Renewed:
        """Carry an order out."""
        order: Order = self.place.order(key)
        return self.renewer.renew(replace(order, incident=incident))

    @property
    def head(self) -> Head | None:
        """Who is champion of eta-de."""
        head: Head | None = self.place.system.ledger.head(DE)
        return head

    def open_incident(self, key: str) -> None:
        """Record a decision that opened an incident, and tell it."""
        system = self.place.system
        now = system.clock.now()
        decision = Decision(
            version=1,
            key=key,
            model=DE,
            at=now,
            state=State.DECAYING,
            reason="worse",
            window=Window(model=DE, start=now, end=now, known_at=now),
            verdicts=(),
            retrain=True,
            incident=key,
            opens=True,
        )
        system.ledger.append(Decided(model=DE, at=now, decision=decision), key=key)
        family, owner = system.fleet.family(DE), system.fleet.owner(DE)
        self.renewer.teller.tell(notices.opened(decision, family, owner, system.places))


@pytest.fixture
def renewing(place: Callable[..., Any]) -> Renewing:
    """A renewer over an empty installation."""
    here = place()
    system, registry, pager = here.system, FakeRegistry(), FakePager()
    # The real lake is opened once there is one; what is not given here is the installation's own.
    here.ingest()
    renewer = replace(
        system.renewer,
        registry=registry,
        teller=Teller(fleet=system.fleet, ledger=system.ledger, pager=pager, clock=system.clock),
    )
    return Renewing(here, renewer, registry, pager)


def test_a_candidate_of_shuffled_labels_is_refused_and_told(renewing: Renewing) -> None:
    """The champion keeps answering; version, reason and thread say that the candidate was worse."""
    rows = renewing.place.history(range(50, 0, -1))
    assert renewing.renew("first").outcome == "promoted"
    champion = renewing.head
    older = rows.slice(0, 43 * 20)
    shuffled = np.random.default_rng(1).permutation(older["label"].to_numpy())
    renewing.place.correct(older["id"].to_pylist(), shuffled)
    renewing.open_incident("eta-de/worse")

    renewed = renewing.renew("second", incident="eta-de/worse")

    assert renewed.outcome == "refused", renewed.reason
    assert renewed.result is not None
    assert renewed.result.gain is not None
    assert renewed.result.gain < -1.0
    assert renewing.head == champion
    assert renewing.registry.gates[DE, 2] == renewed.result
    assert renewing.registry.aliases == {DE: 1}
    (message,) = renewing.pager.told
    assert [message.opened.stage, *(one.stage for one in message.thread)] == [
        Stage.OPENED,
        Stage.RETRAINING,
        Stage.REFUSED,
    ]
    assert "version 2" in message.thread[-1].doing


def test_a_candidate_that_has_seen_the_new_world_passes(renewing: Renewing) -> None:
    """Trips that take half as long again for four weeks: what was trained on three is let in."""
    now = renewing.place.system.clock.now()
    renewing.place.stand_at(now - timedelta(days=28))
    renewing.place.history(range(84, 28, -1))
    assert renewing.renew("first").outcome == "promoted"
    before = renewing.head
    renewing.place.stand_at(now)
    renewing.place.history(range(28, 0, -1), slope=1.5)

    renewed = renewing.renew("second")

    assert renewed.outcome == "promoted", renewed.reason
    assert renewed.result is not None
    assert renewed.result.low is not None
    assert renewed.result.low > 0.1
    after = renewing.head
    assert before is not None
    assert after == renewed.head
    assert after is not None
    assert (after.version, after.epoch) == (2, before.epoch + 1)
    assert renewing.registry.aliases == {DE: 2}
    moves = renewing.place.system.ledger.facts(Moved, model=DE)
    assert [move.head for move in moves] == [before, after]


def test_the_same_order_again_is_not_carried_out_again(renewing: Renewing) -> None:
    """A key is done once: the second call says what came of the first and trains nothing."""
    renewing.place.history(range(50, 0, -1))
    first = renewing.renew("first")
    again = renewing.renew("first")
    assert (first.outcome, again.outcome, again.reason) == ("promoted", "elsewhere", "promoted")
    assert len(renewing.place.system.ledger.facts(Moved, model=DE)) == 1


def test_too_few_rows_fail_in_the_child_and_are_told_here(renewing: Renewing) -> None:
    """What the fit's own process raised is the outcome, word for word; there is no champion."""
    renewing.place.history(range(10, 0, -1))
    renewed = renewing.renew("first")
    assert renewed.outcome == "failed"
    assert "60 labelled rows, 100 are needed (retrain.min_rows)" in renewed.reason
    assert renewing.head is None
    (failed,) = renewing.place.system.ledger.facts(Failed, model=DE)
    assert failed.error == renewed.reason


def test_a_renewal_that_is_called_off_changes_nothing(
    renewing: Renewing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that hangs is ended at once; no version, the lease is free, the next order works."""
    place = renewing.place
    place.history(range(50, 0, -1))
    (tmp_path / "code").mkdir()
    hangs = "import time\ndef never(*_, **__):\n    time.sleep(600)\n"
    (tmp_path / "code" / "slow_recipe.py").write_text(hangs)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    family = place.system.fleet.family(DE)
    slow = family.retrain.model_copy(update={"recipe": "slow_recipe:never"})
    fleet = replace(place.system.fleet, families=(family.model_copy(update={"retrain": slow}),))
    system = place.system
    trainer = IsolatedTrainer(fleet, system.log, system.settings.artifacts)
    hanging = replace(renewing.renewer, fleet=fleet, trainer=trainer)
    order: Order = place.order("hangs")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hanging.renew, order)
        time.sleep(2.0)
        assert not running.done()
        began = time.monotonic()
        trainer.call_off(order)
        renewed = running.result(10.0)
        assert time.monotonic() - began < 5.0
    assert renewed.outcome == "cancelled", renewed.reason
    assert renewing.head is None
    assert [fact.order_key for fact in system.ledger.facts(Failed, model=DE)] == ["hangs"]
    assert not list(system.settings.artifacts.rglob("*.part"))
    assert renewing.renew("hangs").outcome == "elsewhere"
    assert renewing.renew("next").outcome == "promoted"


def test_a_clock_that_was_ahead_and_is_set_back_blinds_nobody(renewing: Renewing) -> None:
    """Rows that arrive after it, stamped with what was shown then, are judged and trained on."""
    here, now = renewing.place, renewing.place.system.clock.now()
    here.history(range(50, 2, -1))
    here.stand_at(now + timedelta(days=365))
    here.history([60])
    here.stand_at(now)
    here.history([2])
    assert here.system.log.horizon(here.system.fleet.family(DE)) > now
    renewed = renewing.renew("first")
    assert renewed.outcome == "promoted", renewed.reason
    assert renewed.candidate is not None
    assert renewed.candidate.holdout_rows == 20 * 6
    (seen,) = (each for each in here.system.watcher.watch() if each.model == DE)
    assert seen.decision is not None, seen.problem
    assert seen.rows == 20 * 13
    assert seen.decision.window.end == now
