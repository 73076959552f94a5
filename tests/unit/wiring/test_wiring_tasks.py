"""Classes and scores through a whole installation: real logs, fits, files and measurements."""

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

from driftloop.cli import main
from driftloop.clock import Clock
from driftloop.loop.watch import first_orders, order
from driftloop.records import Decision, ModelId, Stage, State
from driftloop.workshop import build_candidate

if TYPE_CHECKING:
    from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
RISK, COLOUR = ModelId("risk-uk"), ModelId("colour-uk")
SHARED = """
target = "what"
time = "asked_at"
owner = "growth"
markets = ["uk"]
[features]
size = { kind = "numeric" }
shop = { kind = "categorical" }
"""
RISKS = f"""task = "score"{SHARED}
[log]
source = "../theirs/*.parquet"
[retrain]
triggers = []
"""
COLOURS = f"""task = "multiclass"
classes = ["red", "green", "blue"]{SHARED}
[decay]
metric = "accuracy"
warn = 0.1
alarm = 0.2
[retrain.parameters]
max_iter = 20
"""


@dataclass
class Site:
    """An installation of one family, and what is logged for it elsewhere."""

    folder: Path
    system: "System"

    def scored(self, days: range, *, now: datetime, shift: float = 0.0) -> None:
        """Log 40 scores for each of `days` ago; nobody labels them."""
        rng = np.random.default_rng(days[0])
        count = 40 * len(days)
        at = [now - timedelta(days=n) + timedelta(minutes=30 * m) for n in days for m in range(40)]
        (self.folder / "theirs").mkdir(exist_ok=True)
        table = pa.table(
            {
                "id": [f"{when:%m%d%H%M}" for when in at],
                "asked_at": at,
                "size": rng.normal(0, 1, count),
                "shop": rng.choice(["a", "b"], count),
                "prediction": rng.gamma(2.0, 1.0, count) + shift,
            }
        )
        pq.write_table(table, self.folder / "theirs" / f"{now:%m%d}-{days[0]}.parquet")

    def history(self, days: range) -> pa.Table:
        """Return 40 outcomes by name for each of `days` ago, told by size."""
        rng = np.random.default_rng(days[0])
        count = 40 * len(days)
        now = self.system.clock.now()
        at = [now - timedelta(days=n) + timedelta(minutes=30 * m) for n in days for m in range(40)]
        size = rng.normal(0, 1, count)
        place = np.searchsorted([-0.4, 0.4], size + rng.normal(0, 0.1, count))
        return pa.table(
            {
                "id": [f"{when:%m%d%H%M}" for when in at],
                "model": [str(COLOUR)] * count,
                "asked_at": at,
                "size": size,
                "shop": rng.choice(["a", "b"], count),
                "label": np.array(["red", "green", "blue"])[place],
                "observed_at": at,
            }
        )

    def decision(self) -> Decision:
        (seen,) = self.system.watcher.watch()
        assert seen.decision is not None, seen.problem
        for notice in seen.notices:
            self.system.teller.tell(notice)
        return seen.decision

    def stand_at(self, at: datetime) -> None:
        Clock(origin=at, started=STANDING, speed=1.0).write(self.system.settings.clock)

    def run(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
        settings = self.system.settings
        given = ("--home", str(settings.home), "--monitors", str(settings.monitors))
        monkeypatch.setattr("sys.argv", ["driftloop", *given, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)


@pytest.fixture
def site(place: Callable[..., Any], tmp_path: Path) -> Callable[[str, str], Site]:
    """Make an installation that has one family alone."""

    def make(name: str, text: str) -> Site:
        monitors = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
        (monitors / "eta.toml").unlink()
        (monitors / "churn.toml").unlink()
        (monitors / f"{name}.toml").write_text(text, encoding="utf-8")
        system = place(monitors).system
        system.__dict__["pager"] = FakePager()
        system.__dict__["registry"] = FakeRegistry()
        return Site(tmp_path, system)

    return make


def test_scores_are_found_watched_paged_and_found_anew(
    site: Callable[[str, str], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a label: fresh, drifting with a page, and fresh again with the new reference."""
    risk = site("risk", RISKS)
    system, now = risk.system, risk.system.clock.now()
    risk.scored(range(30, 0, -1), now=now)
    assert risk.run(monkeypatch, "check") == 0
    (first,) = first_orders(system.fleet, (), now)
    found = system.renewer.renew(first)
    assert found.outcome == "promoted", found.reason
    assert found.reason == "taken as found in its log, with 560 newest rows as the reference"
    assert found.candidate is not None
    assert found.candidate.metrics == ()
    assert risk.decision().state is State.FRESH

    later = now + timedelta(days=14)
    risk.scored(range(14, 0, -1), now=later, shift=3.0)
    risk.stand_at(later)
    bad = risk.decision()
    assert (bad.state, bad.opens, bad.retrain) == (State.DRIFTING, True, False), bad.reason
    assert "prediction" in bad.reason
    assert system.report(RISK, key=bad.key).exists()

    # The world changed for good: whoever answers for it takes what is now as the reference.
    family = system.fleet.family(RISK)
    family.need_handover()
    again = order(family, RISK, key="by-hand", reason="asked for by hand", now=later)
    assert system.renewer.renew(again).outcome == "promoted"
    head = system.ledger.head(RISK)
    assert head is not None
    assert (head.version, head.found) == (2, True)
    for days in (1, 2):
        risk.stand_at(later + timedelta(days=days))
        last = risk.decision()
        assert (last.state, last.version) == (State.FRESH, 2), last.reason
    assert last.resolves == bad.incident
    told = [each.stage for each in system.pager.told[0].thread]  # type: ignore[attr-defined]
    assert told == [Stage.RECOVERED]


def test_too_few_scores_are_no_reference(site: Callable[[str, str], Site]) -> None:
    """Said as a training that failed; nothing is champion."""
    risk = site("risk", RISKS)
    now = risk.system.clock.now()
    risk.scored(range(2, 0, -1), now=now)
    (first,) = first_orders(risk.system.fleet, (), now)
    renewed = risk.system.renewer.renew(first)
    assert renewed.outcome == "failed"
    assert "80 scored rows in the newest window.span, 100 are needed" in renewed.reason
    assert risk.system.ledger.head(RISK) is None


def test_a_model_of_classes_is_made_of_names_and_gated(
    site: Callable[[str, str], Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From a file of outcomes by name to a candidate that a champion is compared with."""
    colour = site("colour", COLOURS)
    system = colour.system
    pq.write_table(colour.history(range(50, 0, -1)), tmp_path / "history.parquet")
    words = ("backfill", "colour", str(tmp_path / "history.parquet"))
    # Nobody ingests yet: else it waits until that is done.
    assert colour.run(monkeypatch, *words) == 0
    with system.ingester() as ingester:
        assert ingester.ingest().bad == 0
    family = system.fleet.family(COLOUR)
    (first,) = first_orders(system.fleet, (), system.clock.now())
    rows = system.log.rows(family, first.window)
    assert set(rows["label"].to_pylist()) == {0.0, 1.0, 2.0}
    artifacts = system.settings.artifacts
    candidate = build_candidate(family, first, None, rows, artifacts)
    figures = {metric.name: metric.value for metric in candidate.metrics}
    assert list(figures) == ["accuracy", "f1", "precision", "recall"]
    assert figures["accuracy"] > 0.8
    reference = pq.read_table(Path(candidate.folder) / "reference.parquet")
    assert set(reference["prediction"].to_pylist()) <= {0.0, 1.0, 2.0}
    assert json.loads((Path(candidate.folder) / "card.json").read_text())["parity"] <= 1e-4


def test_an_unknown_class_in_a_file_exits_with_2(
    site: Callable[[str, str], Site],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Row and class are named; nothing is handed over."""
    colour = site("colour", COLOURS)
    history = colour.history(range(2, 0, -1)).slice(0, 3)
    at = history.schema.get_field_index("label")
    spoilt = history.set_column(at, "label", pa.array(["red", "purple", "blue"]))
    pq.write_table(spoilt, tmp_path / "history.parquet")
    words = ("backfill", "colour", str(tmp_path / "history.parquet"))
    assert colour.run(monkeypatch, *words) == 2
    said = "history of colour, row 2, column label: 'purple' is no class of colour; known: red,"
    assert said in capsys.readouterr().err
    (tmp_path / "labels.csv").write_text(f"id,model,value\n1,{COLOUR},red\n2,{COLOUR},3\n")
    assert colour.run(monkeypatch, "labels", str(tmp_path / "labels.csv")) == 2
    assert "row 2, column value: '3' is no class of colour" in capsys.readouterr().err
    assert not list(colour.system.settings.spool.rglob("*.ndjson"))
