import os
import shutil
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftloop.deploy import rolled_back
from driftloop.errors import SpecError
from driftloop.keep import backup, restore
from driftloop.keep.retention import expiries, kept_versions, pins, prune
from driftloop.ledger import SqlLedger
from driftloop.records import (
    Advanced,
    Candidate,
    Decided,
    Decision,
    Head,
    Measured,
    ModelId,
    Moved,
    Notice,
    Order,
    Paged,
    Phase,
    Receipt,
    Rollout,
    Stage,
    State,
    Trained,
    Window,
    version_key,
)
from driftloop.serve.model import load_model
from driftloop.spec import Fleet, RetentionPolicy, duration, load_fleet

DE = ModelId("eta-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MONITORS = Path(__file__).parents[2] / "monitors"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    made = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield made
    made.close()


def moved(*versions: int) -> tuple[Moved, ...]:
    return tuple(
        Moved(
            model=DE,
            at=NOW,
            head=Head(model=DE, epoch=epoch, version=version, digest="d", artifact="a"),
            previous=None,
            reason="",
        )
        for epoch, version in enumerate(versions, start=1)
    )


def decided(ledger: SqlLedger, ago: int, *, incident: str | None) -> Decision:
    at = NOW - ago * DAY
    window = Window(model=DE, start=at - DAY, end=at, known_at=at)
    made = Decision(
        key=f"{DE}/{at:%Y%m%dT%H%M%S}",
        model=DE,
        at=at,
        state=State.DECAYING,
        reason="",
        version=1,
        window=window,
        verdicts=(),
        incident=incident,
    )
    measured = Measured(model=DE, at=at, window=window, rows=1, labels=1, readings=())
    ledger.append(measured, key=made.key)
    ledger.append(Decided(model=DE, at=at, decision=made), key=made.key)
    return made


@pytest.mark.parametrize(
    ("answered", "kept"),
    [
        ((), set()),
        ((1,), {1}),
        ((1, 2, 3, 4, 5), {1, 4, 5}),
        ((1, 3, 5, 6, 2), {1, 2, 5, 6}),
        ((1, 2, 3, 4, 3, 4), {1, 3, 4}),
    ],
)
def test_the_champion_the_newest_and_the_first_are_kept(
    answered: tuple[int, ...], kept: set[int]
) -> None:
    """Of those that answered: the policy's number of newest, who answers now, and the first."""
    assert kept_versions(moved(*answered), RetentionPolicy(versions=2)) == kept
    if len(kept) > 1:
        assert rolled_back(DE, moved(*answered)).version in kept


def test_the_files_of_a_rollout_under_way_stay(
    ledger: SqlLedger, fleet: Fleet, tmp_path: Path
) -> None:
    """However old the challenger is, and whatever the policy keeps; once it is over they go."""
    old, rollout = NOW - 30 * DAY, open_rollout()
    (tmp_path / DE / "2").mkdir(parents=True)
    made = Candidate(
        order=Order(
            key="o",
            model=DE,
            at=old,
            reason="",
            window=Window(model=DE, start=old, end=old, known_at=old),
            holdout_from=old,
            seed=1,
        ),
        digest="d",
        folder=str(tmp_path / DE / "2"),
        rows=1,
        holdout_rows=1,
        metrics=(),
        parity=0.0,
        fit_seconds=0.0,
        lower_seconds=0.0,
    )
    ledger.append(Trained(model=DE, at=old, version=2, candidate=made), key=version_key(DE, 2))

    def going() -> int:
        """How many folders of model files would go."""
        found = prune(
            ledger=ledger,
            fleet=fleet,
            now=NOW,
            artifacts=tmp_path,
            reports=tmp_path / "reports",
            copies=NoCopies(),
            dry_run=True,
        )
        return found[1].count

    ledger.advance(Advanced(model=DE, at=old, rollout=rollout))
    assert going() == 0
    assert [pin.why for pin in pins(ledger, fleet.family_named("eta"))] == [
        "version 2, which is kept, was trained on them"
    ]
    ended = replace(rollout, epoch=3, phase=Phase.ROLLED_BACK)
    ledger.advance(Advanced(model=DE, at=old, rollout=ended))
    assert going() == 1


class NoCopies:
    def drop_files(self, model: ModelId, version: int) -> None:
        raise AssertionError


def open_rollout() -> Rollout:
    return Rollout(
        model=DE,
        order="o",
        epoch=2,
        version=2,
        digest="d",
        artifact="a",
        champion=1,
        phase=Phase.SHADOW,
        reason="",
        begun=NOW,
        since=NOW,
    )


def test_an_open_incident_pins_what_it_was_decided_on(ledger: SqlLedger, fleet: Fleet) -> None:
    """From the window that opened it to the newest; once it is over nothing is pinned."""
    eta = fleet.family_named("eta")
    first = decided(ledger, 30, incident=f"{DE}/{NOW - 30 * DAY:%Y%m%dT%H%M%S}")
    decided(ledger, 20, incident=first.key)
    last = decided(ledger, 10, incident=first.key)
    (pin,) = pins(ledger, eta)
    assert (pin.window.start, pin.window.end) == (first.window.start, last.window.end)
    assert first.key in pin.why
    assert expiries(ledger, fleet, NOW)[0].pins == (pin.window,) or (
        expiries(ledger, fleet, NOW)[1].pins == (pin.window,)
    )
    decided(ledger, 5, incident=None)
    assert pins(ledger, eta) == ()


def test_rows_are_old_by_whole_days(ledger: SqlLedger, fleet: Fleet) -> None:
    """Within a day nothing new is old, so that files are not written anew all the time."""
    noon = NOW + timedelta(hours=12)
    early, late = expiries(ledger, fleet, NOW), expiries(ledger, fleet, noon)
    assert early == late
    assert {one.before for one in early} == {NOW - 400 * DAY}


@pytest.mark.parametrize("table", ["window", "retrain"])
def test_a_log_that_would_forget_what_is_needed_is_refused(tmp_path: Path, table: str) -> None:
    """Rows must stay for at least as long as windows and training reach back."""
    monitors = shutil.copytree(MONITORS, tmp_path / "monitors")
    defaults = monitors / "defaults.toml"
    found = tomllib.loads(defaults.read_text())
    spans = {name: duration(found[name]["span"]) for name in ("window", "retrain")}
    hours = spans[table] / timedelta(hours=1) - 1
    defaults.write_text(f'{defaults.read_text()}\n[retention]\nlog = "{hours:g}h"\n')
    with pytest.raises(SpecError, match=f"must not be shorter than {table}.span"):
        load_fleet(monitors)
    written = defaults.read_text().replace(f"{hours:g}h", f"{max(spans.values()).days}d")
    defaults.write_text(written)
    assert load_fleet(monitors).families[0].retention.log == max(spans.values())


def test_old_measurements_thin_out_to_one_a_day(ledger: SqlLedger, fleet: Fleet) -> None:
    """The last of each day stays, what was paged stays, the young stay; nothing else does."""
    for hour in range(0, 24 * 100, 6):
        at = NOW - timedelta(hours=hour)
        window = Window(model=DE, start=at - DAY, end=at, known_at=at)
        measured = Measured(model=DE, at=at, window=window, rows=1, labels=1, readings=())
        ledger.append(measured, key=f"{DE}/{hour}")
    notice = Notice(
        key=f"{DE}/2382/opened",
        incident=f"{DE}/2382",
        model=DE,
        stage=Stage.OPENED,
        at=NOW,
        since=NOW,
        channel="#c",
        mention="",
        headline="",
        doing="",
    )
    ledger.append(
        Paged(model=DE, at=NOW, notice=notice, receipt=Receipt(channel="C", ts="1")),
        key=notice.key,
    )
    before = ledger.facts(Measured)
    cut = NOW - 90 * DAY
    told = ledger.thin(model=DE, before=cut, dry_run=True)
    assert ledger.facts(Measured) == before
    assert ledger.thin(model=ModelId("eta-fr"), before=cut) == 0
    assert ledger.thin(model=DE, before=cut) == told > 20
    kept = ledger.facts(Measured)
    assert [m for m in kept if m.at >= cut] == [m for m in before if m.at >= cut]
    old = [m for m in kept if m.at < cut]
    paged = next(m for m in before if m.at == NOW - timedelta(hours=2382))
    assert paged in old
    assert {m.at.date() for m in old} == {m.at.date() for m in before if m.at < cut}
    assert len(old) == len({m.at.date() for m in old}) + 1
    assert ledger.thin(model=DE, before=cut) == 0


def test_files_of_what_never_answered_go_with_their_copies(
    house_at: Any, house: Any, tmp_path: Path
) -> None:
    """Old refused candidates leave the disk, MLflow's copies too; kept ones load as before."""
    backup(house.system.settings, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "home")
    other = house_at(tmp_path / "home")
    other.version("refused/old", seed=11, at=NOW - 20 * DAY, passed=False)
    other.version("refused/young", seed=12, at=NOW - 2 * DAY, passed=False)
    system = other.system
    orphan = system.settings.artifacts / DE / "never-registered"
    orphan.mkdir()
    (orphan / "model.onnx").write_bytes(b"x" * 10**6)
    month_ago = time.time() - 30 * 86400
    os.utime(orphan, (month_ago, month_ago))
    report = system.settings.reports / DE / "old.html"
    report.parent.mkdir(parents=True)
    report.write_text("old")
    os.utime(report, (month_ago, month_ago))
    (report.parent / "young.html").write_text("young")
    before = _bytes(other.home)
    folders = {fact.version: Path(fact.candidate.folder) for fact in system.ledger.facts(Trained)}
    told = system.prune(dry_run=True)
    assert _bytes(other.home) == before
    assert [one.count for one in told] == [1, 2, 0, 0, 0]

    done = system.prune()
    assert done == told
    assert sorted(v for v, folder in folders.items() if folder.is_dir()) == [1, 2, 4]
    assert not orphan.exists()
    assert [file.name for file in report.parent.iterdir()] == ["young.html"]
    copies = list((other.home / "mlflow" / "artifacts").rglob("model.onnx"))
    assert len(copies) == 3
    # Twice the refused candidate: its own files, and MLflow's copy of them.
    assert before - _bytes(other.home) > done[1].bytes + 10_000
    for move in system.ledger.facts(Moved):
        load_model(Path(move.head.artifact), move.head.digest)
    assert [version.version for version in system.registry.versions(DE)] == [4, 3, 2, 1]
    assert [one.count for one in system.prune()] == [0, 0, 0, 0, 0]


def test_nothing_goes_from_a_model_that_is_being_renewed(
    house_at: Any, house: Any, tmp_path: Path
) -> None:
    """A renewal may be about to use the files: they go another time."""
    backup(house.system.settings, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "home")
    system = house_at(tmp_path / "home").system
    orphan = system.settings.artifacts / DE / "never-registered"
    orphan.mkdir()
    os.utime(orphan, (0, 0))
    system.ledger.claim(f"renewing/{DE}", lease=timedelta(minutes=1))
    assert [one.count for one in system.prune()] == [0, 0, 0, 0, 0]
    assert orphan.exists()
    system.ledger.release(f"renewing/{DE}")
    assert [one.count for one in system.prune()] == [0, 1, 0, 0, 0]
    assert not orphan.exists()
    assert system.ledger.claim(f"renewing/{DE}", lease=timedelta(minutes=1)).mine


def test_an_installation_without_anything_has_nothing_to_prune(
    ledger: SqlLedger, fleet: Fleet, tmp_path: Path, house: Any
) -> None:
    """No folders are no fault."""
    done = prune(
        ledger=ledger,
        fleet=fleet,
        now=NOW,
        artifacts=tmp_path / "artifacts",
        reports=tmp_path / "reports",
        copies=house.system.registry,
    )
    assert [one.count for one in done] == [0, 0, 0]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
