"""What the ledger tells of earlier attempts decides how sure the gate has to be."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from fakes.pager import FakePager
from fakes.world import FakeHandover, FakeLog, FakeRegistry, FakeTrainer, held_out

from driftloop.ledger import SqlLedger
from driftloop.loop.renew import Renewed, Renewer
from driftloop.loop.tell import Teller
from driftloop.loop.watch import order as ordered
from driftloop.records import Gated, ModelId
from driftloop.spec import Fleet

if TYPE_CHECKING:
    from conftest import StoppedClock

DE = ModelId("eta-de")


class Site:
    """A model, and orders to renew it whenever a test says so."""

    def __init__(self, fleet: Fleet, clock: "StoppedClock", ledger: SqlLedger) -> None:
        self.fleet, self.clock, self.ledger = fleet.only((DE,)), clock, ledger
        self.trainer, self.registry = FakeTrainer(), FakeRegistry()
        self.table: Callable[[Path], pa.Table] = self._newest

    def _newest(self, file: Path) -> pa.Table:
        """200 rows of the hours up to now; three of ten vehicles are bikes."""
        table = held_out(file)
        if not table.num_rows:
            return table
        now: datetime = self.clock.shown.replace(tzinfo=None)
        hours = [now - timedelta(hours=200 - n) for n in range(table.num_rows)]
        vehicle = ["bike" if n % 10 < 3 else "van" for n in range(table.num_rows)]
        features = pa.StructArray.from_arrays([pa.array(vehicle)], ["vehicle"])
        at = table.schema.get_field_index("event_time")
        return table.set_column(at, "event_time", pa.array(hours)).append_column(
            "features", features
        )

    def renew(self, *, error: float, later: timedelta = timedelta(0), key: str = "") -> Renewed:
        """Order a candidate whose error is `error`; the champion's is always 10."""
        self.clock.shown += later
        self.trainer.error = error
        family = self.fleet.family(DE)
        key = key or f"{DE}/{len(self.trainer.orders)}"
        renewer = Renewer(
            fleet=self.fleet,
            log=FakeLog(),
            trainer=self.trainer,
            registry=self.registry,
            handover=FakeHandover(),
            ledger=self.ledger,
            clock=self.clock,
            teller=Teller(
                fleet=self.fleet, ledger=self.ledger, pager=FakePager(), clock=self.clock
            ),
            table=self.table,
        )
        return renewer.renew(ordered(family, DE, key=key, reason="asked", now=self.clock.shown))

    def gated(self) -> Gated:
        return self.ledger.facts(Gated, model=DE)[-1]


@pytest.fixture
def site(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[Site]:
    """A model of one champion, which no rows were used for."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    made = Site(fleet, clock, ledger)
    assert made.renew(error=9.0).outcome == "promoted"
    yield made
    ledger.close()


def test_each_attempt_on_the_same_rows_has_to_be_surer(site: Site) -> None:
    """The first version is compared with nobody; then each refusal raises what is asked."""
    assert (site.gated().start, site.gated().end) == (None, None)
    seen = []
    for _ in range(3):
        assert site.renew(error=11.0).outcome == "refused"
        seen.append(site.gated().result.confidence)
        assert site.gated().end == site.clock.shown - timedelta(hours=1)
    assert seen == pytest.approx([0.9, 1 - 0.1 / 6, 1 - 0.1 / 12])
    assert "as up to 2 earlier attempts used 100% of the rows" in site.gated().result.reason


def test_after_a_holdout_all_is_as_it_was(site: Site) -> None:
    """Rows that no attempt has used have the policy's confidence; half of them, less."""
    site.renew(error=11.0)
    site.renew(error=11.0, later=timedelta(hours=100))
    assert 0.9 < site.gated().result.confidence < 1 - 0.1 / 3
    site.renew(error=11.0, later=timedelta(hours=201))
    assert site.gated().result.confidence == 0.9
    assert "instead" not in site.gated().result.reason


def test_one_attempt_gated_twice_is_one_use(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died right after its gate is not punished for it when it comes again."""

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SqlLedger, "finish", dies)
        with pytest.raises(KeyboardInterrupt):
            site.renew(error=11.0)
    again = site.renew(error=11.0, key=site.gated().order_key)
    assert again.result is not None
    assert again.result.confidence == 0.9
    assert len(site.trainer.orders) == 3


def test_a_segment_that_the_log_has_is_looked_into(site: Site, fleet: Fleet) -> None:
    """Bikes become worse while the whole gains: refused, and the segment is named."""
    family = fleet.family(DE).model_copy(update={"segments": ("vehicle",)})
    site.fleet = replace(site.fleet, families=(family,))
    plain = site.table

    def bikes_worse(file: Path) -> pa.Table:
        table = plain(file)
        bike = [levels["vehicle"] == "bike" for levels in table["features"].to_pylist()]
        worse = [
            answer + 20.0 * one
            for answer, one in zip(table["candidate"].to_pylist(), bike, strict=True)
        ]
        at = table.schema.get_field_index("candidate")
        return table.set_column(at, "candidate", pa.array(worse))

    site.table = bikes_worse
    refused = site.renew(error=1.0)
    assert refused.outcome == "refused"
    assert "but vehicle=bike is worse for certain" in refused.reason
