"""What is needed to take clicks, and to tell what is to be told."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from driftloop.wiring.acting import Acting
from driftloop.wiring.telling import Telling

if TYPE_CHECKING:
    from driftloop.page.reception import Reception
    from driftloop.page.signing import Signatures
    from driftloop.page.socket_mode import SocketMode


class Receiving(Acting, Telling):
    """The parts of the desk's service; see `System`."""

    @cached_property
    def reception(self) -> "Reception":
        """What takes clicks to the desk, and answers who clicked."""
        from driftloop.page.reception import Reception

        settings = self.settings
        return Reception(self.desk, token=settings.bot_token, base_url=settings.slack_base)

    @cached_property
    def signatures(self) -> "Signatures":
        """What tells whether Slack posted something."""
        from driftloop.page.signing import Signatures, local_secret

        given = self.settings.slack_signing_secret
        if given is not None:
            return Signatures(given.get_secret_value())
        local = self.settings.slack_is_local
        return Signatures(local_secret(self.settings.home) if local else None)

    @cached_property
    def socket_mode(self) -> "SocketMode | None":
        """The other way by which clicks come; None without an app token."""
        from driftloop.page.socket_mode import SocketMode

        token = self.settings.slack_app_token
        if token is None:
            return None
        return SocketMode(
            self.reception, app_token=token.get_secret_value(), base_url=self.settings.slack_base
        )

    @property
    def chores(self) -> Mapping[str, Callable[[], object]]:
        """What is to be done over and over so that nothing stays untold, each by its name.

        The first is what people wait for: it comes round every `tell_every` seconds.
        """
        return {
            "telling": self.teller.tell_unsent,
            "acts": self.desk.finish_left,
            "the second way": self.relay.relay,
            "digests": self.digests.tell_due,
        }
