"""Kill -9 at named points, in short: a spool and its ingester, a teller and its Slack.

Each point is shown to have been hit. The long form, on all that `driftloop up` runs, is
`test_kill_campaign.py`.
"""

from collections import Counter
from pathlib import Path

import pytest
from fakes.mail_server import Hook, hook_server
from integration.house import answers, eventually, free_ports
from kill.clerk import opened
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
from pydantic import SecretStr

from driftloop.prediction_log import Lake
from driftloop.records import Acted, Paged, Relayed, Stage
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
CLICKS = ("acted-before", "acted-after", "reply-after")
MORE_CLICKS = ("click-after", "answered-before", "answered-after", "noted-before", "record-before")
RELAYS = ("send-after", "relayed-after")
MORE_RELAYS = ("send-before", "relayed-before")
LONG = (pytest.mark.long, pytest.mark.timeout(600))


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


@pytest.mark.parametrize("points", [CLICKS, pytest.param(MORE_CLICKS, marks=LONG)])
def test_a_click_is_done_and_told_once_wherever_the_desk_dies(
    settings: Settings, orders: Orders, points: tuple[str, ...]
) -> None:
    """Before and after its intent, the act, its answer, and the line in the thread.

    Who hears nothing clicks again, and Slack sends it again: it is the same click.
    """
    env = orders.environment()
    slack = Lives(settings, env, HERE / "command.py", "_slack")
    clerk = Lives(settings, env, HERE / "clerk.py")
    try:
        slack.begin("")
        eventually(lambda: answers(settings.slack_base.replace("api/", "healthz")), "local Slack")
        teller = System(settings).teller
        teller.tell_all([opened(number) for number in range(len(points))])
        for number, name in enumerate(points):
            orders.give(Point("clerk", name))
            died_at(Point("clerk", name), orders, clerk.begin(f"click {number}"))
            assert clerk.begin(f"click {number}").ends() == 0
        standing = keys(messages(settings))
    finally:
        clerk.kill()
        slack.kill()
    ledger = System(settings).ledger
    acted, paged = ledger.facts(Acted), ledger.facts(Paged)
    assert Counter(fact.key for fact in acted) == {f"click/{n}": 1 for n in range(len(points))}
    assert told_once(paged, standing, untold(settings)) == []
    stages = Counter(fact.notice.stage for fact in paged)
    assert stages == {Stage.OPENED: len(points), Stage.ACTED: len(points)}


@pytest.mark.parametrize("points", [RELAYS, pytest.param(MORE_RELAYS, marks=LONG)])
def test_what_is_told_the_second_way_is_one_incident_wherever_its_teller_dies(
    settings: Settings, orders: Orders, points: tuple[str, ...]
) -> None:
    """Between sending and its record it is sent again, under the same key; in Slack it is once."""
    env = orders.environment()
    slack = Lives(settings, env, HERE / "command.py", "_slack")
    with hook_server(Hook()) as hook:
        given = {"slack_down": 0.1, "webhook": SecretStr(hook.url)}
        told = settings.model_copy(update=given)
        clerk = Lives(told, env, HERE / "clerk.py")
        try:
            for number, name in enumerate(points):
                orders.give(Point("clerk", name))
                died_at(Point("clerk", name), orders, clerk.begin(f"relay {number}"))
                assert clerk.begin(f"relay {number}").ends() == 0
            slack.begin("")
            assert clerk.begin("rest").ends() == 0
            standing = keys(messages(settings))
        finally:
            clerk.kill()
            slack.kill()
    ledger = System(settings).ledger
    sent = Counter(headers["Idempotency-Key"] for headers, _ in hook.taken)
    own = {key: count for key, count in sent.items() if key.startswith("eta-de/")}
    assert {key.split("/")[1] for key in own} == {str(n) for n in range(len(points))}
    assert len(own) == len(points)
    relayed = Counter(fact.incident for fact in ledger.facts(Relayed))
    assert {relayed[f"eta-de/{n}"] for n in range(len(points))} == {1}
    assert told_once(ledger.facts(Paged), standing, untold(settings)) == []


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
