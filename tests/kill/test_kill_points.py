"""Kill -9 at named points, in short: a spool and its ingester, a teller and its Slack.

Each point is shown to have been hit. The long form, on all that `driftloop up` runs, is
`test_kill_campaign.py`.
"""

from pathlib import Path

import pytest
from integration.house import answers, eventually, free_ports
from kill.harness import (
    HERE,
    Life,
    Lives,
    Orders,
    Point,
    keys,
    killed,
    messages,
    tell,
    untold,
)
from kill.invariants import Row, logged_once, told_once

from driftloop.prediction_log import Lake
from driftloop.records import Paged
from driftloop.settings import Settings
from driftloop.spec import Fleet
from driftloop.wiring import System

MONITORS = HERE.parent / "monitors"
WRITER = ("append-before", "append-after", "seal-before", "rename-before", "seal-after")
INGESTER = ("commit-before", "insert-after", "commit-after", "take-after")
TELLER = (
    *("grouped-before", "grouped-after", "noted-before", "noted-after", "lease-after"),
    *("intent-before", "intent-after", "act-before", "act-after", "stands-before", "stands-after"),
    *("record-before", "record-after", "finish-before", "finish-after"),
    *("update-after", "reply-before", "reply-after", "end-before", "end-after"),
)
SLACK = ("keep-before", "keep-after")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation of which nothing runs yet."""
    (slack,) = free_ports(1)
    made = Settings(
        home=tmp_path / "home",
        monitors=MONITORS,
        slack_port=slack,
        ingest_every=0.05,
        seal_every=0.03,
        seal_rows=40,
    )
    made.home.mkdir()
    return made


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    """Nobody is to die yet."""
    return Orders(tmp_path / "orders")


def test_an_answered_row_is_in_the_lake_once_wherever_writer_and_ingester_die(
    settings: Settings, orders: Orders, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after append, seal, rename, insert, commit and removal of what came in."""
    env = orders.environment()
    writer = Lives(settings, env, HERE / "writer.py")
    ingester = Lives(settings, env, HERE / "command.py", "_ingest")
    try:
        ingesting = ingester.begin("")
        for number, name in enumerate(WRITER):
            orders.give(Point("writer", name))
            died_at(Point("writer", name), orders, writer.begin(f"life{number}"))
        last = writer.begin(f"life{len(WRITER)}")
        for name in INGESTER:
            orders.give(Point("ingest", name))
            died_at(Point("ingest", name), orders, ingesting)
            ingesting = ingester.begin("")
        last.kill()
        eventually(lambda: not list(settings.spool.glob("*/*")), "an empty spool")
        assert ingesting.alive
    finally:
        ingester.kill()
        writer.kill()
    answered, ambiguous = said(writer.said)
    logged = in_lake(settings, fleet)
    assert logged_once(answered, ambiguous, logged) == []
    assert len(answered) > 200
    came = {row.id for row in logged} & ambiguous
    # The first life died with nothing written, the second with what it did not come to answer.
    assert {id_.split("-")[0] for id_ in came} >= {"life1"}
    assert not any(id_.startswith("life0") for id_ in came)
    with capsys.disabled():
        tell(f"ambiguous: {len(ambiguous)} rows not answered, {len(came)} of them in the lake")


def test_a_notice_stands_once_wherever_teller_and_slack_die(
    settings: Settings, orders: Orders, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after intent, act, record and end; and Slack itself, its reply then lost."""
    env = orders.environment()
    slack = Lives(settings, env, HERE / "command.py", "_slack")
    teller = Lives(settings, env, HERE / "teller.py")
    try:
        listening = slack.begin("")
        eventually(lambda: answers(settings.slack_base.replace("api/", "healthz")), "local Slack")
        for number, name in enumerate(TELLER, start=1):
            orders.give(Point("teller", name))
            died_at(Point("teller", name), orders, teller.begin(number))
        for number, name in enumerate(SLACK, start=len(TELLER) + 1):
            orders.give(Point("slack", name))
            telling = teller.begin(number)
            died_at(Point("slack", name), orders, listening)
            assert telling.alive
            listening = slack.begin("")
            assert telling.ends() == 0
        standing = keys(messages(settings))
    finally:
        teller.kill()
        slack.kill()
    paged = System(settings).ledger.facts(Paged)
    assert told_once(paged, standing, untold(settings)) == []
    assert len(standing) == len(paged) == 2 * len(TELLER + SLACK)
    with capsys.disabled():
        lost = "teller.act-after, teller.reply-after, slack.keep-after"
        tell(f"ambiguous: replies lost at {lost}; {len(standing)} messages, each once")


def died_at(point: Point, orders: Orders, victim: Life) -> None:
    """Wait until `victim` has died where it was ordered to, and nowhere else."""
    assert killed(victim.ends()), f"it ended by itself, not at {point}"
    assert orders.was_obeyed(point), f"{point} was not what killed it"


def said(lines: list[str]) -> tuple[dict[str, Row], set[str]]:
    """Return what the writer promised in its lives, and the ids that it did not come to answer."""
    answered: dict[str, Row] = {}
    asked: set[str] = set()
    for what, *words in (line.split() for line in lines):
        if what == "asked":
            asked.update(words)
        elif what == "answered":
            batch, *ids = words
            answered |= {id_: Row(id_, 1, 1, float(batch)) for id_ in ids}
    return answered, asked - answered.keys()


def in_lake(settings: Settings, fleet: Fleet) -> list[Row]:
    """Return every row of the lake's one table that is written here."""
    with Lake(settings.lake, fleet, read_only=True) as lake:
        found = lake.query("SELECT id, version, epoch, prediction FROM lake.eta_predictions")
    return [Row(**row) for row in found.to_pylist()]
