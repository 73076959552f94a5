"""`driftloop quarantine`: what it prints, and what a person's word becomes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from driftloop.commands.quarantine import quarantine_command
from driftloop.errors import BadRequest
from driftloop.judge.partitions import Standing
from driftloop.records import ModelId, Quarantined
from driftloop.spec import Fleet

DE = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FACT = Quarantined(
    model=DE,
    at=AT,
    start=AT,
    end=AT + DAY,
    reasons=("nulls of km: 80.0%, usually 1.0%",),
    until=AT + 30 * DAY,
    rows=400,
)
HELD = Standing(start=AT, end=AT + DAY, fact=FACT)


@dataclass
class Installed:
    """An installation whose quarantine notes what it is told."""

    fleet: Fleet
    held: tuple[Standing, ...] = (HELD,)
    told: list[tuple[str, datetime, datetime, str]] = field(default_factory=list)

    @property
    def quarantine(self) -> "Installed":
        return self

    def listed(self) -> tuple[Standing, ...]:
        return self.held

    def release(
        self, model: ModelId, start: datetime, end: datetime, *, who: str, why: str
    ) -> tuple[Any, ...]:
        self.told.append(("release", start, end, why))
        return self.held, ()

    def add(
        self, model: ModelId, start: datetime, end: datetime, *, who: str, why: str
    ) -> tuple[Any, ...]:
        self.told.append(("add", start, end, why))
        return FACT, ()


@pytest.fixture
def installed(fleet: Fleet) -> Installed:
    return Installed(fleet)


def run(installed: Installed, *words: str) -> str:
    app = typer.Typer()
    app.command()(quarantine_command(lambda: installed))  # type: ignore[arg-type, return-value]
    ran = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_what_is_held_is_listed_with_its_reasons(installed: Installed) -> None:
    """Model, span, rows, until when, and why; or that there is none."""
    assert run(installed) == (
        "eta-de: 2026-03-01 00:00 to 2026-03-02 00:00 UTC, 400 rows, until 2026-03-31 00:00 UTC\n"
        "  nulls of km: 80.0%, usually 1.0%\n"
    )
    assert '"reasons"' in run(installed, "--json")
    installed.held = ()
    assert run(installed) == "nothing is in quarantine\n"


@pytest.mark.parametrize("act", ["release", "add"])
def test_a_day_is_whole_and_until_is_a_day_too(installed: Installed, act: str) -> None:
    """One day, or from it to the end of another."""
    assert "eta-de: 2026-03-01 00:00 to 2026-03-02 00:00 UTC" in run(
        installed, act, DE, "2026-03-01", "--why", "w"
    )
    run(installed, act, DE, "2026-03-01", "--until", "2026-03-03", "--why", "w")
    assert installed.told == [(act, AT, AT + DAY, "w"), (act, AT, AT + 3 * DAY, "w")]


def test_a_time_names_the_block_that_it_is_in(installed: Installed) -> None:
    """And not that block and the next; what was let go of a span is not counted as held."""
    run(installed, "add", DE, "2026-03-01T06:00", "--why", "w")
    assert installed.told[-1][2] == AT + DAY
    installed.held = (Standing(start=AT, end=AT + DAY / 2, fact=FACT),)
    assert "some of 400 rows" in run(installed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("free", DE, "2026-03-01", "--why", "w"), "not how it is asked"),
        (("release", DE), "not how it is asked"),
        (("release", DE, "2026-03-01"), "says not why"),
        (("release", DE, "yesterday", "--why", "w"), "not a date"),
        (
            ("add", DE, "2026-03-02", "--until", "2026-03-01", "--why", "w"),
            "before the first day",
        ),
        (("add", "eta-xx", "2026-03-01", "--why", "w"), "eta-xx"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    installed: Installed, words: tuple[str, ...], said: str
) -> None:
    """A clear error, and nothing is done."""
    with pytest.raises(BadRequest, match=said):
        run(installed, *words)
    assert installed.told == []
