"""The month itself: faults, restarts and outages at random times; what stands in Slack after it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr

from driftloop.records import Grouped, Incident, Noted, Paged, Posted, Relayed, Status, Unsent
from driftloop.settings import Settings
from driftloop.wiring import System
from tests.benchmarks._paging_place import Lives, Sandbox, set_clock, webhook
from tests.benchmarks._paging_world import HOUR, ORIGIN, Fault, Month, times, write_monitors
from tests.benchmarks._raw import Raw

POST = "chat.postMessage"
POINTS = (
    *("grouped-after", "noted-before", "noted-after", "lease-after", "intent-after"),
    *("act-before", "act-after", "stands-before", "stands-after", "record-before", "record-after"),
    *("finish-before", "finish-after", "end-before"),
)
OUTAGES = ("cut", "hang", "error", "long")
DOWN, QUICK_DOWN = 8.0, 4.0
"""Wall seconds after which the second way is used, instead of ten minutes."""
LONG = 2.0
"""An outage that outlasts that is so many times as long."""
FULL_LEASE, QUICK_LEASE = 15.0, 4.0
"""Seconds that what a killed process was at is left alone, instead of sixty."""
PATIENCE = 90.0


@dataclass(slots=True)
class Run:
    """A month under way."""

    raw: Raw
    month: Month
    settings: Settings
    system: System
    slack: Sandbox
    orders: Path
    journal: Path
    lease: float
    random: Random
    lives: dict[str, Lives] = field(default_factory=dict)
    trouble_until: float = 0.0

    def begin(self, name: str) -> None:
        """Start a noter or a teller, by this name."""
        month, what = self.month, name.partition("-")[0]
        more = (month.days, month.models, month.singles, month.seed, self.journal)
        self.lives[name] = Lives(what, self.settings, self.orders, *more)

    def end(self, name: str) -> None:
        """End one for good."""
        lives = self.lives.pop(name)
        lives.end()
        for wall, code in lives.deaths:
            self.raw.note("death", process=name, wall=wall, code=code)

    def is_done(self, step: str) -> bool:
        """Say whether the noter has come to the end of a step."""
        if not self.journal.exists():
            return False
        lines = self.journal.read_text(encoding="utf-8").splitlines()
        known = [json.loads(line) for line in lines if line.endswith("}")]
        return any(each["what"] == "done" and each["step"] == step for each in known)

    def pending(self) -> int:
        """Return how many incidents have something to tell that waits for nothing but the teller.

        Quiet hours, and what gathers for ten minutes, are such a wait.
        """
        now, standing = self.system.clock.now(), self.system.teller.standing
        names = {fact.incident for fact in self.system.ledger.untold()}
        found = (standing.one(name, now) for name in names)

        def waits_for_us(one: Incident) -> bool:
            if one.status is Status.EXPLAINED:
                return True
            if one.status not in (Status.OPEN, Status.ACKED, Status.RESOLVED):
                return False
            if one.told is None:
                return standing.opens_at(one, now) <= now
            return len(one.members) == 1 or one.status is Status.RESOLVED

        return sum(waits_for_us(one) for one in found if one is not None)

    def settle(self) -> None:
        """Wait until everything is told that can be, and no trouble is left."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if time.time() >= self.trouble_until and not self.pending():
                return
            time.sleep(0.1)
        self.raw.note("unsettled", at=self.system.clock.now().isoformat())


def live_through(raw: Raw, month: Month, *, quick: bool) -> None:
    """Write raw lines: fault, step, trouble, death, and all that stands in Slack at the end."""
    with _place(raw, month, quick=quick) as run:
        for fault in month.faults():
            raw.note("fault", **_told(fault))
        run.begin("noter")
        run.begin("teller")
        _through(run, quick=quick)
        _ended(run)
        for name in list(run.lives):
            run.end(name)
        _read_back(run)


@contextmanager
def _place(raw: Raw, month: Month, *, quick: bool) -> Iterator[Run]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        write_monitors(folder / "monitors", month)
        slack = Sandbox(folder / "slack", limits=True)
        stack.callback(slack.end)
        url, came = stack.enter_context(webhook())
        settings = Settings(
            home=folder / "home",
            monitors=folder / "monitors",
            slack_api=slack.api,
            slack_token=SecretStr("xoxb-local"),
            slack_down=QUICK_DOWN if quick else DOWN,
            webhook=SecretStr(url),
        )
        settings.home.mkdir()
        set_clock(settings, ORIGIN)
        lease = QUICK_LEASE if quick else FULL_LEASE
        orders = folder / "orders"
        orders.mkdir()
        (orders / "lease").write_text(str(lease), encoding="utf-8")
        run = Run(
            raw=raw,
            month=month,
            settings=settings,
            system=System(settings),
            slack=slack,
            orders=orders,
            journal=folder / "journal.jsonl",
            lease=lease,
            random=Random(month.seed + 1),
        )
        stack.callback(lambda: [run.end(name) for name in list(run.lives)])
        yield run
        for each in came:
            raw.note("second_way", wall=each["wall"], incident=each["incident"])


def _through(run: Run, *, quick: bool) -> None:
    """Step through the month; at speed 1 around what happens, in jumps between."""
    steps = sorted(times(run.month.faults()), key=lambda each: each[0])
    openings = sum(turn == "opens" for _, _, turn in steps)
    troubles = _troubles(run.random, openings, quick=quick)
    at, every = ORIGIN, (8 if quick else 6) * HOUR
    for number, (when, fault, turn) in enumerate(steps):
        if number == len(steps) // 4:
            run.begin("teller-2")
        if number == len(steps) * 3 // 4:
            run.end("teller-2")
        while at + every < when:
            at += every
            _jump(run, at)
        at = max(at, when)
        trouble = ""
        if turn == "opens":
            trouble = "killed" if fault.kind == "upstream" else (troubles or [""]).pop(0)
            _make(run, trouble, fault)
        _jump(run, when, wait=False)
        step = f"{fault.name}/{turn}"
        _until(lambda step=step: run.is_done(step))
        run.settle()
        run.raw.note("step", step=step, trouble=trouble, wall=time.time())
    run.settle()


def _jump(run: Run, at: datetime, *, wait: bool = True) -> None:
    if at > run.system.clock.now():
        set_clock(run.settings, at)
    if wait:
        time.sleep(run.settings.tell_every + 0.2)
        run.settle()


def _until(done: Callable[[], bool], patience: float = PATIENCE) -> None:
    until = time.monotonic() + patience
    while not done():
        if time.monotonic() > until:
            raise RuntimeError("a step does not come to its end")
        time.sleep(0.05)


def _ended(run: Run) -> None:
    """Let the last quiet hours end, and whatever else waits for the time."""
    last = max(run.system.clock.now(), *(each.closes for each in run.month.faults()))
    for hours in (1, 5, 9, 13):
        _jump(run, last + hours * HOUR)


# -- trouble --------------------------------------------------------------------------------


def _troubles(random: Random, openings: int, *, quick: bool) -> list[str]:
    """Return what else goes wrong at each opening: some nothing, and everything once at least."""
    once = ["killed", "lost-drop", "storm", "long", "killed", "5xx", "cut", "unread"]
    if quick:
        once = ["killed", "lost-drop", "storm", "unread", "long"]
        return [*once, *[""] * max(0, openings - len(once))]
    once += ["hang", "lost-error", "lost-delay", "killed", "shot", "killed", "error", "shot"]
    # The upstream fault's is chosen apart.
    made = once + [""] * max(0, openings - 1 - len(once))
    random.shuffle(made)
    return made


def _make(run: Run, trouble: str, fault: Fault) -> None:
    """Make trouble while a fault is told."""
    random, began = run.random, time.time()
    if trouble:
        run.raw.note("trouble", kind=trouble, fault=fault.name, wall=began)
    if trouble == "killed":
        who = random.choice(["noter", "teller"])
        points = POINTS if who == "noter" else POINTS[3:]
        (run.orders / f"{who}.{random.choice(points)}").touch()
        if fault.kind == "upstream":
            (run.orders / "noter.noted-after").touch()
            (run.orders / "teller.act-after").touch()
    elif trouble == "shot":
        threading.Timer(random.uniform(0.0, 1.0), _shot, (run,)).start()
    elif trouble.startswith("lost-"):
        by = trouble.removeprefix("lost-")
        lost = {"lose_reply_next": 1, "lose_by": by, "method": POST, "delay": 7.0}
        run.slack.control(lost)
    elif trouble == "unread":
        run.slack.control(
            {"lose_reply_next": 1, "lose_by": "drop", "method": POST},
            {"for_seconds": 4.0, "error": "missing_scope", "method": "conversations.history"},
        )
        run.trouble_until = began + 4.0
    elif trouble == "storm":
        run.slack.control(
            {"fail_next": 2 + 2 * (run.month.days > 7), "error": "ratelimited", "retry_after": 1}
        )
    elif trouble == "5xx":
        run.slack.control({"fail_next": 3, "error": "internal_error"})
    elif trouble in OUTAGES:
        long = LONG * run.settings.slack_down
        seconds = long if trouble == "long" else random.uniform(2.0, 4.5)
        how = random.choice(["cut", "error"]) if trouble == "long" else trouble
        run.slack.control({"outage": how, "for_seconds": seconds})
        run.raw.note(
            "outage",
            wall=began,
            seconds=seconds,
            how=how,
            # For who posts without our loop, and is told of the same outage.
            begins=fault.opens.isoformat(),
            ends=(fault.opens + timedelta(minutes=20)).isoformat(),
        )
        run.trouble_until = began + seconds


def _shot(run: Run) -> None:
    """Kill all there is, whatever it is at."""
    for lives in list(run.lives.values()):
        lives.kill()


# -- what stands there ----------------------------------------------------------------------


def _told(fault: Fault) -> dict[str, object]:
    return {
        "fault": fault.name,
        "kind": fault.kind,
        "models": len(fault.models),
        "model": fault.models[0],
        "owner": fault.owner,
        "nexts": list(fault.nexts),
        "opens": fault.opens.isoformat(),
        "closes": fault.closes.isoformat(),
        "quiet": fault.is_quiet(),
        "within": fault.within,
    }


def _read_back(run: Run) -> None:
    ledger, raw = run.system.ledger, run.raw
    for line in run.journal.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        if told["what"] == "decided":
            raw.note("decided", **{key: told[key] for key in ("step", "fault", "wall", "alerts")})
    for fact in ledger.facts(Grouped):
        raw.note("grouped", alert=fact.alert, incident=fact.incident)
    for stands in ledger.facts(Posted):
        at = stands.at.isoformat()
        raw.note("posted", incident=stands.incident, channel=stands.channel, at=at)
    for gone in ledger.facts(Unsent):
        raw.note("unsent", incident=gone.incident, wall=gone.wall, away=gone.away)
    for other in ledger.facts(Relayed):
        raw.note("relayed", incident=other.incident, way=other.way)
    noted = {fact.notice.key for fact in ledger.facts(Noted)}
    paged = {fact.notice.key for fact in ledger.facts(Paged)}
    raw.note("left", noted=len(noted), untold=sorted(noted - paged))
    for message in run.slack.messages():
        raw.note("message", **_shown(message))


def _shown(message: dict[str, Any]) -> dict[str, object]:
    payload = (message.get("metadata") or {}).get("event_payload") or {}
    return {
        "channel": message["channel_name"],
        "ts": float(message["ts"]),
        "thread": message.get("thread_ts") not in (None, message["ts"]),
        "parent": message.get("thread_ts"),
        "key": payload.get("key", ""),
        "blind": bool(payload.get("blind")),
        "text": str(message.get("text", ""))[:120],
    }
