"""The watchdog on a real ledger, real files and the local Slack: what it sees and tells."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
from fakes.sandbox_server import SandboxServer, running

from driftloop.records import (
    PLATFORM,
    Compared,
    Disputed,
    Kind,
    Level,
    ModelId,
    Paged,
    Passed,
    Reading,
    Sensed,
)
from driftloop.settings import Settings
from driftloop.up.status import ServiceStatus, created, vitals_file, write_status
from driftloop.up.watchdog import Watchdog
from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"
CHANNEL = "ml-logistics"


class Hand:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.at = time.time()

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[SandboxServer]:
    with running(tmp_path / "slack.db") as server:
        yield server


@pytest.fixture
def system(tmp_path: Path, slack: SandboxServer) -> Iterator[System]:
    monitors = tmp_path / "monitors"
    shutil.copytree(MONITORS, monitors)
    made = System(
        Settings(
            home=tmp_path / "home",
            monitors=monitors,
            slack_api=slack.api,
            watch_every=60.0,
            online_port=1,
        )
    )
    yield made
    made.ledger.close()


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def dog(system: System, hand: Hand) -> Watchdog:
    write_status(system.settings.home, [])
    hand.at = time.time()
    return Watchdog(system, wall=hand)


def levels(dog: Watchdog) -> dict[str, Level]:
    return {
        v.reading.metric + (f"/{v.reading.column}" if v.reading.column else ""): v.level
        for v in dog.look()
    }


def looks(dog: Watchdog, count: int) -> None:
    for _ in range(count):
        dog.look()


def stages(system: System) -> list[str]:
    return [fact.notice.stage.value for fact in system.ledger.facts(Paged, model=PLATFORM)]


def passed(system: System) -> None:
    system.ledger.append(Passed(at=datetime.now(UTC), looked=1, seconds=0.1))


def test_models_that_no_pass_can_look_at_are_paged(
    dog: Watchdog, system: System, slack: SandboxServer
) -> None:
    """A log that stays unreadable is told, with why; a passing trouble, or no champion, is not."""
    locked = "eta-de: eta.toml: log: the log cannot be read: locked"
    young = "eta-fr: no champion yet (hint: `driftloop train` makes one)"

    def pass_with(*problems: str) -> None:
        at = datetime.now(UTC)
        system.ledger.append(Passed(at=at, looked=2, seconds=0.1, problems=problems))
        looks(dog, 2)

    pass_with(locked, young)
    pass_with(young)
    pass_with(locked, young)
    pass_with(locked, young)
    assert slack.messages() == []
    pass_with(locked, young)
    (told,) = slack.messages()
    assert "some models cannot be looked at" in told["text"]
    assert "locked" in told["text"]
    for _ in range(2):
        pass_with(young)
    assert stages(system) == ["opened", "recovered"]


def test_a_disputed_number_is_paged(
    dog: Watchdog, system: System, slack: SandboxServer, hand: Hand
) -> None:
    """The platform's owner hears of it with both numbers; a day later it is no news any more."""
    passed(system)
    said = ("mae is 14.0 by us and 10.0 by Evidently",)
    system.ledger.append(Disputed(model=ModelId("eta-de"), at=datetime.now(UTC), said=said))
    looks(dog, 2)
    (page,) = slack.messages()
    assert "Evidently disagrees" in page["text"]
    assert "eta-de: mae is 14.0 by us and 10.0 by Evidently" in page["text"]
    hand.at += 25 * 3600
    assert levels(dog)["disputed"] is Level.OK


def test_features_that_were_served_otherwise_are_paged(
    dog: Watchdog, system: System, slack: SandboxServer
) -> None:
    """With the family, the feature and the row; it is over once the next comparison is well."""
    passed(system)

    def compared(value: float, problem: str | None) -> None:
        reading = Reading(
            kind=Kind.QUALITY,
            metric="consistency",
            column="eta",
            value=value,
            n=7,
            problem=problem,
        )
        now = datetime.now(UTC)
        system.ledger.append(Compared(at=now, until=now, readings=(reading,)))

    compared(9e-7, None)
    looks(dog, 2)
    assert slack.messages() == []
    compared(0.25, "load of row r1 was served as 4.0, and is 3.0 replayed")
    looks(dog, 2)
    (page,) = slack.messages()
    assert "features are served otherwise than the log makes them" in page["text"]
    assert "load of row r1 was served as 4.0, and is 3.0 replayed" in page["text"]
    compared(0.0, None)
    looks(dog, 3)
    assert stages(system) == ["opened", "recovered"]


def test_a_loop_that_does_its_work_is_left_in_peace(
    dog: Watchdog, system: System, slack: SandboxServer
) -> None:
    """All is well: nothing is told, however often it looks."""
    passed(system)
    looks(dog, 5)
    assert slack.messages() == []
    shown = json.loads(vitals_file(system.settings.home).read_text())
    assert {each["name"] for each in shown["vitals"]} >= {"passes_missed", "disk_free", "spool_mib"}


def test_a_slow_start_is_no_missed_pass(
    dog: Watchdog, system: System, slack: SandboxServer, hand: Hand
) -> None:
    """Cadences count from when the worker works, or from when it had time enough to."""
    me = psutil.Process()
    worker = ServiceStatus(name="worker", state="starting", pid=me.pid, created=me.create_time())
    write_status(system.settings.home, [worker])
    hand.at = me.create_time()
    for _ in range(17):
        looks(dog, 1)
        hand.at += 10.0
    assert levels(dog)["passes_missed"] is Level.OK
    write_status(system.settings.home, [replace(worker, state="healthy")])
    looks(dog, 1)
    hand.at += 2.5 * 60
    looks(dog, 3)
    assert slack.messages() == []
    hand.at += 60
    looks(dog, 3)
    (page,) = slack.messages()
    assert "not being watched" in page["text"]


def test_a_watch_that_stopped_is_told_once_and_again_when_it_is_back(
    dog: Watchdog, system: System, slack: SandboxServer, hand: Hand
) -> None:
    """Three cadences without a finished pass page; the next passes resolve it in its thread."""
    passed(system)
    hand.at += 2.5 * 60
    looks(dog, 3)
    assert slack.messages() == []
    hand.at += 60
    looks(dog, 5)
    (page,) = slack.messages()
    assert page["channel_name"] == CHANNEL
    assert "the fleet is not being watched" in page["text"]
    hand.at = time.time()
    passed(system)
    looks(dog, 5)
    assert stages(system) == ["opened", "recovered"]
    assert sum("well again" in message["text"] for message in slack.messages()) >= 1


def test_an_idle_week_before_the_start_is_no_alarm(
    system: System, hand: Hand, slack: SandboxServer
) -> None:
    """What was missed while nothing ran is not held against what runs now."""
    passed(system)
    with sqlite3.connect(system.settings.home / "ledger.db") as ledger:
        ledger.execute("UPDATE facts SET written = written - 604800")
    ledger.close()
    write_status(system.settings.home, [])
    hand.at = created(os.getpid()) or 0.0
    looks(Watchdog(system, wall=hand), 4)
    assert slack.messages() == []


def segment(system: System, name: str, *, age: float, now: float) -> Path:
    folder = system.settings.spool / "online-1"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("{}\n")
    os.utime(file, (now - age, now - age))
    return file


def test_a_segment_that_waits_is_an_ingester_that_lags(
    dog: Watchdog, system: System, hand: Hand
) -> None:
    """Sealed or left open by a dead writer: what waits too long alarms until it is gone."""
    passed(system)
    file = segment(system, "predictions.eta.01.ndjson", age=59.0, now=hand.at)
    assert levels(dog)["ingest_lag"] is Level.OK
    hand.at += 10
    assert levels(dog)["ingest_lag"] is Level.ALARM
    looks(dog, 1)
    file.unlink()
    looks(dog, 4)
    assert stages(system) == ["opened", "recovered"]


def test_rows_set_aside_are_told(dog: Watchdog, system: System, slack: SandboxServer) -> None:
    """Somebody must look at what could not be read: it is in nobody's log."""
    passed(system)
    aside = system.settings.spool / "quarantine"
    aside.mkdir(parents=True)
    (aside / "predictions.eta.01.reason").write_text("why")
    looks(dog, 3)
    (page,) = slack.messages()
    assert "set aside" in page["text"]


def test_a_dead_service_is_told_by_name(system: System, slack: SandboxServer, hand: Hand) -> None:
    """A service that is dead longer than allowed pages with its name; a short death does not."""
    passed(system)
    alive = ServiceStatus(
        name="worker", state="healthy", pid=os.getpid(), created=created(os.getpid())
    )
    write_status(system.settings.home, [alive])
    hand.at = time.time()
    dog = Watchdog(system, wall=hand)
    looks(dog, 2)
    write_status(system.settings.home, [ServiceStatus(name="worker", state="dead")])
    hand.at += 50
    looks(dog, 2)
    assert slack.messages() == []
    hand.at += 20
    looks(dog, 3)
    (page,) = slack.messages()
    assert "worker is down or does not answer (dead)" in page["text"]


def test_a_full_disk_is_told(
    dog: Watchdog, system: System, slack: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before nothing can be logged any more, somebody is told to make room."""
    passed(system)
    usage = shutil._ntuple_diskusage(100, 97, 3)  # type: ignore[attr-defined]
    monkeypatch.setattr("driftloop.up.watchdog.shutil.disk_usage", lambda _: usage)
    looks(dog, 3)
    (page,) = slack.messages()
    assert "the disk fills" in page["text"]


def test_a_second_watchdog_goes_on_where_the_first_was_killed(
    dog: Watchdog, system: System, slack: SandboxServer, hand: Hand
) -> None:
    """An incident that is open stays one message over a restart, and is ended by the new one."""
    passed(system)
    hand.at += 600
    looks(dog, 3)
    again = Watchdog(system, wall=hand)
    looks(again, 5)
    assert len(slack.messages()) == 1
    hand.at = time.time()
    passed(system)
    looks(again, 4)
    assert stages(system) == ["opened", "recovered"]


def test_what_slack_did_not_take_is_told_later(
    dog: Watchdog, system: System, slack: SandboxServer, hand: Hand
) -> None:
    """While Slack is down the page waits, is shown as untold, and is sent once."""
    passed(system)
    hand.at += 600
    system.__dict__["teller"] = replace(system.teller, wall=hand)
    slack.control(fail_next=100, error="internal_error", status=500)
    looks(dog, 3)
    assert slack.messages() == []
    assert levels(dog)["untold"] is Level.WARN
    slack.control(fail_next=0)
    hand.at += 60
    looks(dog, 3)
    assert len(slack.messages()) == 1


def test_a_ledger_that_cannot_be_written_does_not_silence_it(
    dog: Watchdog, system: System, slack: SandboxServer, hand: Hand
) -> None:
    """With the ledger read-only, as on a full disk, the page goes out all the same, once."""
    passed(system)
    hand.at += 600
    refuse = "CREATE TRIGGER full_{0} BEFORE {1} ON {0} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    with sqlite3.connect(system.settings.home / "ledger.db") as ledger:
        for table in ("intents", "facts"):
            for act in ("INSERT", "UPDATE"):
                ledger.execute(refuse.format(table, act).replace("full_", f"full_{act}_", 1))
    ledger.close()
    looks(dog, 4)
    (page,) = slack.messages()
    assert "the fleet is not being watched" in page["text"]


def test_readings_become_facts_only_when_a_level_changes(
    dog: Watchdog, system: System, hand: Hand
) -> None:
    """A day of looks is a handful of facts, not seventeen thousand."""
    passed(system)
    looks(dog, 20)
    assert len(system.ledger.facts(Sensed)) == 1
    hand.at += 600
    looks(dog, 20)
    assert len(system.ledger.facts(Sensed)) == 2


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        pytest.param(lambda text: text + "\n# a note\n", "restart `driftloop up`", id="changed"),
        pytest.param(lambda text: text + "\nnonsense\n", "not valid TOML", id="broken"),
    ],
)
def test_an_edit_of_the_monitors_shows(
    dog: Watchdog, system: System, edit: Callable[[str], str], said: str
) -> None:
    """What was edited since the start is not in use yet: it is said, and nobody is paged."""
    assert levels(dog)["monitors"] is Level.OK
    file = system.settings.monitors / "eta.toml"
    file.write_text(edit(file.read_text()))
    (found,) = (v for v in dog.look() if v.reading.metric == "monitors")
    assert found.level is Level.WARN
    assert said in found.reason


def test_a_refused_version_is_named_with_its_reason(
    dog: Watchdog, system: System, slack: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is paged reads which model, which version and why; of very many the first five."""
    refused = [
        {"model": f"m{n}", "version": n, "digest": "d", "error": "answers its samples otherwise"}
        for n in range(1, 8)
    ]
    said: dict[str, dict[str, object]] = {
        "/readyz": {"ready": True, "refused": refused},
        "/v1/service": {"error_rate": None, "p99_ms": None, "requests": 0},
    }
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Authorization"])
        return httpx.Response(200, json=said[request.url.path])

    client = httpx.Client
    monkeypatch.setattr(
        "driftloop.up.watchdog.httpx.Client",
        lambda **options: client(**options, transport=httpx.MockTransport(answer)),
    )
    reading = next(each for each in dog.readings() if each.metric == "refused")
    assert reading.value == 7
    assert reading.problem is not None
    assert reading.problem.startswith("m1 version 1: answers its samples otherwise; m2 version 2")
    assert reading.problem.endswith("; and 2 more")
    own = system.settings.own_token.read_text()
    assert asked == [f"Bearer {own}"] * 2
