"""The same month told otherwise, one message for each alarm; and what telling nothing costs."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from pydantic import SecretStr
from slack_sdk import WebClient
from slack_sdk.errors import SlackClientError

from driftloop.loop.tell import Teller
from driftloop.records import ModelId, Notice, Stage
from driftloop.settings import Settings
from driftloop.wiring import System
from tests.benchmarks._paging_place import Sandbox, set_clock
from tests.benchmarks._paging_world import ORIGIN, Fault, Month, owner_of_model, write_monitors
from tests.benchmarks._raw import Line, Raw, cost
from tests.fakes.pager import FakePager

LOOKS = 200


def per_alarm(raw: Raw, month: Month, lines: Sequence[Line], *, every: timedelta) -> None:
    """Post as the usual automation does: at each pass, for each model that is in alarm.

    To the channel of the model's owner, once, without looking what was said before. Slack is out
    of reach when it was for our loop; a pass that was killed is run again. Its limits are off: they
    would refuse most of what is posted here.
    """
    away = [
        (datetime.fromisoformat(line["begins"]), datetime.fromisoformat(line["ends"]))
        for line in lines
        if line["what"] == "outage"
    ]
    killed = {
        line["fault"] for line in lines if line["what"] == "trouble" and line["kind"] == "killed"
    }
    with TemporaryDirectory() as folder:
        slack = Sandbox(Path(folder), limits=False)
        try:
            client = WebClient("xoxb-local", base_url=slack.api, timeout=5, retry_handlers=[])
            for fault in month.faults():
                for at in _passes(fault, every):
                    is_away = any(begin <= at < end for begin, end in away)
                    if is_away:
                        slack.control({"outage": "error", "for_seconds": 60.0})
                    for _ in range(2 if at == fault.opens and fault.name in killed else 1):
                        _posted(raw, client, fault, at)
                    if is_away:
                        slack.control()
        finally:
            slack.end()


def _passes(fault: Fault, every: timedelta) -> list[datetime]:
    """Return when a fault is seen: one that was rolled back once, any other until it ends."""
    ends = fault.opens if fault.kind == "rolled-back" else fault.closes - timedelta(seconds=1)
    return [fault.opens + n * every for n in range(max(0, (ends - fault.opens) // every) + 1)]


def _posted(raw: Raw, client: WebClient, fault: Fault, at: datetime) -> None:
    for model in fault.models:
        owner = owner_of_model(model)
        try:
            client.chat_postMessage(channel=f"#ml-{owner}", text=f"{model}: {fault.kind} alarm")
        except (SlackClientError, OSError) as error:
            raw.note(
                "alarm", fault=fault.name, model=model, at=at.isoformat(), lost=str(error)[:80]
            )
        else:
            right = owner == fault.owner
            raw.note("alarm", fault=fault.name, model=model, at=at.isoformat(), right=right)


def idle(raw: Raw, *, incidents: int) -> None:
    """Measure a look at so many live incidents of which nothing is due, as two a second are taken.

    The pager is in memory: nothing is asked of it.
    """
    with TemporaryDirectory() as folder:
        month = Month(days=1, models=incidents, singles=0, seed=0)
        write_monitors(Path(folder) / "monitors", month)
        settings = Settings(
            home=Path(folder) / "home",
            monitors=Path(folder) / "monitors",
            slack_token=SecretStr("xoxb-local"),
        )
        settings.home.mkdir()
        set_clock(settings, ORIGIN)
        system = System(settings)
        pager = FakePager()
        teller = Teller(fleet=system.fleet, ledger=system.ledger, pager=pager, clock=system.clock)
        began = time.perf_counter()
        teller.tell_all([_opened(system, model) for model in system.fleet.models])
        teller.tell_unsent()
        raw.note("told_all", incidents=len(pager.told), wall_s=time.perf_counter() - began)
        asked = pager.asked
        looks = []
        for _ in range(LOOKS):
            with cost() as spent:
                teller.tell_unsent()
            looks.append(spent.wall_s)
        live = len(teller.standing.live_ids())
        raw.note("idle", live=live, wall_s=median(looks), most_s=max(looks))
        if pager.asked != asked or live != incidents:
            raise RuntimeError(f"{live} incidents live, and the pager was asked meanwhile")


def _opened(system: System, model: ModelId) -> Notice:
    owner = system.fleet.family(model).owner
    return Notice(
        key=f"{model}/bench/opened",
        incident=f"{model}/bench",
        model=model,
        stage=Stage.OPENED,
        at=ORIGIN,
        since=ORIGIN,
        channel=f"#ml-{owner}",
        mention="",
        headline=f"{model} predicts worse",
        doing="Watching.",
        owner="supply",
    )
