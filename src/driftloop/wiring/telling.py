"""Who is told what no pass tells: the second way, and the daily digests."""

from functools import cached_property

from driftloop.loop.digest import Digests
from driftloop.loop.relay import Relay
from driftloop.ports import SecondWay
from driftloop.records import Link
from driftloop.wiring.parts import Parts


class Telling(Parts):
    """What tells people in time; see `System`."""

    @cached_property
    def ways(self) -> tuple[SecondWay, ...]:
        """The second ways that the settings name."""
        from driftloop.page.second import Mail, Webhook

        settings, found = self.settings, list[SecondWay]()
        if smtp := settings.smtp.get_secret_value():
            found.append(Mail(smtp, settings.smtp_from))
        if webhook := settings.webhook.get_secret_value():
            found.append(Webhook(webhook))
        return tuple(found)

    @cached_property
    def relay(self) -> Relay:
        """What tells the second way where Slack is out of reach for long."""
        return Relay(
            ledger=self.ledger,
            clock=self.clock,
            teller=self.teller,
            ways=self.ways,
            down=self.settings.slack_down,
        )

    @cached_property
    def digests(self) -> Digests:
        """What tells each owner once a day how their models are."""
        return Digests(
            fleet=self.fleet,
            ledger=self.ledger,
            clock=self.clock,
            pager=self.pager,
            standing=self.teller.standing,
            links=(Link(text="fleet", url=self.settings.pages_url),),
        )
