"""`driftloop rollout`: what it prints, and what a person's word becomes."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from driftloop.commands.rollout import rollout_command
from driftloop.errors import BadRequest
from driftloop.loop.release import Looked
from driftloop.records import Advanced, Finding, Harm, ModelId, Phase, Rollout
from driftloop.spec import Fleet

DE = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)
CANARY = Rollout(
    model=DE,
    order="o",
    epoch=7,
    version=3,
    digest="",
    artifact="",
    champion=2,
    phase=Phase.CANARY,
    share=0.25,
    reason="no harm on 1000 rows",
    begun=AT,
    since=AT,
)


@dataclass
class Installed:
    """An installation whose releaser notes what it is told."""

    fleet: Fleet
    open: tuple[Rollout, ...] = (CANARY,)
    past: tuple[Advanced, ...] = ()
    told: list[tuple[str, str]] = field(default_factory=list)

    @property
    def releaser(self) -> "Installed":
        return self

    ledger = releaser

    def rollouts(self) -> tuple[Rollout, ...]:
        return self.open

    def facts(self, kind: type, *, model: ModelId, last: int) -> tuple[Advanced, ...]:
        return self.past

    def has_open(self, model: ModelId) -> bool:
        return any(each.model == model for each in self.open)

    def look(self, model: ModelId) -> Looked:
        finding = Finding(
            what="errors", harm=Harm.NONE, limit=0.01, n=9, of=9, said="fails on 0.0%"
        )
        return Looked(rollout=CANARY, findings=(finding,), waits="9 of 100 rows", until=AT)

    def __getattr__(self, act: str) -> Any:
        """Whatever a person may want of the releaser."""

        def acted(model: ModelId, *, who: str) -> Rollout:
            self.told.append((act, model))
            return replace(CANARY, held=who if act == "hold" else None)

        return acted


@pytest.fixture
def installed(fleet: Fleet) -> Installed:
    return Installed(fleet)


def run(installed: Installed, *words: str) -> str:
    app = typer.Typer()
    app.command()(rollout_command(lambda: installed))  # type: ignore[arg-type, return-value]
    ran = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_all_that_are_under_way_are_listed(installed: Installed) -> None:
    """A line each; or that there is none."""
    assert run(installed) == (
        "eta-de: version 3 after version 2: canary 25% since 2026-03-01 00:00 UTC, epoch 7:"
        " no harm on 1000 rows\n"
    )
    installed.open = ()
    assert run(installed) == "no rollout is under way\n"


def test_one_is_shown_with_its_evidence_and_what_it_waits_for(installed: Installed) -> None:
    """What was seen, in words with the interval, and until when it waits at the latest."""
    shown = run(installed, DE).splitlines()
    assert shown[1:] == [
        "  errors   harm none: fails on 0.0%",
        "  next     9 of 100 rows, until 2026-03-01 00:00 UTC",
    ]


def test_one_that_is_over_says_so(installed: Installed) -> None:
    """Its last step; and a model that never had one is no error."""
    installed.open = ()
    assert run(installed, DE) == "eta-de never had a rollout\n"
    last = replace(CANARY, phase=Phase.ROLLED_BACK, share=0.0)
    installed.past = (Advanced(model=DE, at=AT, rollout=last),)
    assert run(installed, DE).startswith("eta-de: version 3 after version 2: rolled-back since")
    assert run(installed, DE).endswith(": over\n")


@pytest.mark.parametrize(
    ("word", "act"),
    [("hold", "hold"), ("resume", "resume"), ("promote", "promote"), ("rollback", "roll_back")],
)
def test_a_persons_word_is_carried_out(installed: Installed, word: str, act: str) -> None:
    """And what came of it is told."""
    said = run(installed, word, DE)
    assert installed.told == [(act, DE)]
    assert said.startswith("eta-de: version 3")
    assert ("held by" in said) == (word == "hold")


@pytest.mark.parametrize("words", [("hold",), ("hold", "eta-de", "eta-fr"), ("eta-de", "eta-fr")])
def test_what_cannot_be_meant_is_refused(installed: Installed, words: tuple[str, ...]) -> None:
    """A word without a model, or two models: nothing is done."""
    with pytest.raises(BadRequest, match=r"names no model|takes one model"):
        run(installed, *words)
    assert installed.told == []


def test_a_model_that_is_not_declared_is_refused(installed: Installed) -> None:
    """Not taken for one that never had a rollout."""
    with pytest.raises(BadRequest, match="no monitor declares"):
        run(installed, "eta-xx")
