"""What people want of an installation: acts upon incidents, and models retrained."""

from functools import cached_property

from driftloop.judge import COUNTED, denied_pages
from driftloop.loop.desk import FrontDesk
from driftloop.loop.incidents import Incidents
from driftloop.loop.rights import Rights
from driftloop.loop.rollout_acts import RolloutActs
from driftloop.loop.standing import Standing
from driftloop.loop.wanted import wanted
from driftloop.records import Acted, ModelId, Order
from driftloop.wiring.parts import Parts


class Acting(Parts):
    """What people want of an installation. See `System`."""

    @property
    def is_installed(self) -> bool:
        """Whether there is a ledger to read; asking for it makes one."""
        return bool(self.settings.ledger.get_secret_value()) or self.settings.home.is_dir()

    @cached_property
    def incidents(self) -> Incidents:
        """What people are told of."""
        standing = Standing(fleet=self.fleet, ledger=self.ledger)
        return Incidents(standing=standing, ledger=self.ledger, clock=self.clock)

    @property
    def desk(self) -> FrontDesk:
        """What takes clicks, and the same from the command line."""
        rollouts = RolloutActs(
            ledger=self.ledger,
            steps=lambda: self.releaser,
            move_back=lambda model, who: self.roll_back(model, to=None, who=who),
        )
        return FrontDesk(
            fleet=self.fleet,
            ledger=self.ledger,
            clock=self.clock,
            incidents=self.incidents,
            rights=Rights(fleet=self.fleet, standing=self.incidents.standing, people=self.pager),
            teller=self.teller,
            rollouts=rollouts,
        )

    def wanted(self) -> tuple[Order, ...]:
        """Return what people want retrained and nobody has begun; see `loop.wanted`."""
        return wanted(self.fleet, self.ledger)

    def denied(self) -> tuple[tuple[ModelId, ...], ...]:
        """Return the models of each page that people found to be no problem, and that counts.

        Raises:
            LedgerError: the ledger cannot be read; one that was never made has none.
        """
        if not self.settings.has_ledger:
            return ()
        now = self.clock.now()
        return denied_pages(self.ledger.facts(Acted, since=now - COUNTED), now)
