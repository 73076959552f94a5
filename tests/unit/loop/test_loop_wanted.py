"""Retrainings that people asked for: begun once, and not where they make no sense any more."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes.desk import DE, FR, Office

from driftloop.ledger import SqlLedger
from driftloop.loop.wanted import wanted
from driftloop.records import Act, Advanced, Failed, Order, Ordered, Phase, Stage
from driftloop.spec import Fleet

if TYPE_CHECKING:
    from conftest import StoppedClock


@pytest.fixture
def office(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Office:
    return Office(fleet, SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}"), clock)


def asked(office: Office) -> tuple[Order, ...]:
    return wanted(office.fleet, office.ledger)


def test_an_order_is_made_of_what_was_asked_and_by_whom(office: Office) -> None:
    """Its key is the click's and the model's, its reason who; it belongs to the open incident."""
    id_ = office.opened(DE, FR, group="data/weather")
    assert asked(office) == ()
    office.take(Act.RETRAIN, id_)
    assert [(each.key, each.reason, each.incident) for each in asked(office)] == [
        ("asked/click-1/eta-de", "asked for by Ada", "eta-de/20260301T000000"),
        ("asked/click-1/eta-fr", "asked for by Ada", "eta-fr/20260301T000000"),
    ]
    assert asked(office) == asked(office)


def test_of_many_models_the_one_that_was_named_is_retrained(office: Office) -> None:
    """The others are left."""
    id_ = office.opened(DE, FR, group="data/weather")
    office.take(Act.RETRAIN, id_, model=FR)
    assert [each.model for each in asked(office)] == [FR]


@pytest.mark.parametrize("ended", [Ordered, Failed])
def test_what_was_begun_or_given_up_comes_no_more(
    office: Office, ended: type[Ordered | Failed]
) -> None:
    """An order that began, or that somebody cancelled before it did."""
    id_ = office.opened(DE)
    office.take(Act.RETRAIN, id_)
    (order,) = asked(office)
    now = office.clock.now()
    fact = (
        Ordered(model=DE, at=now, order=order)
        if ended is Ordered
        else Failed(model=DE, at=now, order_key=order.key, error="cancelled")
    )
    office.ledger.append(fact, key=order.key)
    assert asked(office) == ()


def test_another_order_that_began_since_will_do(office: Office) -> None:
    """The loop itself ordered one after somebody had asked: a second one would be in vain."""
    office.take(Act.RETRAIN, office.opened(DE))
    (order,) = asked(office)
    office.clock.shown += timedelta(minutes=1)
    own = replace(order, key="eta-de/decision")
    office.ledger.append(Ordered(model=DE, at=office.clock.now(), order=own), key=own.key)
    assert asked(office) == ()


def test_it_waits_for_a_rollout_and_goes_on_after_it(office: Office) -> None:
    """A rollout that began meanwhile is not disturbed."""
    office.take(Act.RETRAIN, office.opened(DE))
    rollout = office.rolled_out(DE, 5)
    assert asked(office) == ()
    ended = replace(rollout, epoch=rollout.epoch + 1, phase=Phase.ROLLED_BACK)
    office.ledger.advance(Advanced(model=DE, at=office.clock.now(), rollout=ended))
    assert [each.model for each in asked(office)] == [DE]


def test_what_has_recovered_is_not_retrained(office: Office) -> None:
    """What was to be mended is over; of a rollout's or a quarantine's own page nothing recovers."""
    office.take(Act.RETRAIN, office.opened(DE))
    held = office.opened(FR, alert="quarantine/eta-fr/1", stage=Stage.QUARANTINED)
    office.take(Act.RETRAIN, held)
    office.decided(DE, None)
    assert [(each.model, each.incident) for each in asked(office)] == [(FR, None)]
