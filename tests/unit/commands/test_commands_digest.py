"""`driftloop digest`: what it prints, and what it refuses."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import pytest
import typer
from typer.testing import CliRunner

from driftloop.commands.digest import digest_command
from driftloop.errors import BadRequest
from driftloop.records import Digest
from driftloop.spec import Fleet


@dataclass
class Installed:
    """An installation whose digests note what they are asked."""

    fleet: Fleet
    asked: list[tuple[str, str, date | None]] = field(default_factory=list)

    @property
    def digests(self) -> "Installed":
        return self

    def of(self, name: str, *, day: date | None) -> Digest | None:
        self.asked.append(("of", name, day))
        if name == "growth":
            return None
        return Digest(
            key="k",
            owner=name,
            at=datetime(2026, 3, 10, tzinfo=UTC),
            headline="2 models: 1 fresh, 1 decaying",
            sections=(("Health", ("decaying: eta-de",)),),
        )

    def send(self, name: str, *, day: date | None) -> Digest | None:
        self.asked.append(("send", name, day))
        return None


def run(installed: Installed, *words: str) -> str:
    app = typer.Typer()
    app.command()(digest_command(lambda: installed))  # type: ignore[arg-type, return-value]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    return result.output


def test_every_owners_day_is_printed(fleet: Fleet) -> None:
    """One after another; who has nothing to hear is named."""
    assert run(Installed(fleet)).splitlines() == [
        "growth: no models, and nothing to tell",
        "logistics: 2 models: 1 fresh, 1 decaying",
        "  Health",
        "    decaying: eta-de",
    ]


def test_one_owners_day_can_be_sent(fleet: Fleet) -> None:
    """Of the day that is named."""
    installed = Installed(fleet)
    run(installed, "logistics", "--date", "2026-03-09", "--send")
    assert installed.asked == [("send", "logistics", date(2026, 3, 9))]


def test_what_is_no_day_is_refused(fleet: Fleet) -> None:
    """Before anything is opened."""
    with pytest.raises(BadRequest, match="as in 2026-03-10"):
        run(Installed(fleet), "--date", "yesterday")
