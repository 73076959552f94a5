"""A real installation whose ledger holds every state a model can be in, and hostile words."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from dashboards.pages import pages_app
from driftloop.clock import Clock
from driftloop.ledger import SqlLedger
from driftloop.records import (
    Act,
    Acted,
    Candidate,
    Cause,
    Decided,
    Decision,
    Explained,
    Failed,
    Gated,
    GateResult,
    Grouped,
    Head,
    Kind,
    Level,
    Measured,
    Metric,
    ModelId,
    Noted,
    Notice,
    Order,
    Ordered,
    Origin,
    Paged,
    Posted,
    Reading,
    Receipt,
    Stage,
    State,
    Trained,
    Verdict,
    Window,
    version_key,
)
from driftloop.settings import Settings
from driftloop.wiring import System

NOW = datetime(2013, 6, 3, 12, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script> & \"größer\" מודל 模型 \u202edrow"
MARKETS = ("good", "drift", "decay", "fault", "blind", "train", "none", "stuck")


UNREAD = Reading(
    kind=Kind.FRESH,
    metric="fresh",
    column=None,
    value=None,
    n=0,
    problem="the log does not tell when rows arrive",
)


class Story:
    """Writes the facts of one model as the loop would, at days before `NOW`."""

    def __init__(self, ledger: SqlLedger, model: ModelId, *, metric: str) -> None:
        self.ledger, self.model, self.metric = ledger, model, metric

    def at(self, days: float) -> datetime:
        return NOW - timedelta(days=days)

    def window(self, at: datetime) -> Window:
        return Window(model=self.model, start=at - timedelta(days=14), end=at, known_at=at)

    def order(self, days: float, *, reason: str = "decay") -> Order:
        at = self.at(days)
        return Order(
            key=f"{self.model}/{at:%Y%m%dT%H%M%S}",
            model=self.model,
            at=at,
            reason=reason,
            window=self.window(at),
            holdout_from=at - timedelta(days=7),
            seed=7,
        )

    def moved(self, days: float, *, version: int, epoch: int, reason: str = "first") -> None:
        head = Head(
            model=self.model,
            epoch=epoch,
            version=version,
            digest=f"{version:064x}",
            artifact="nowhere/model.onnx",
        )
        previous = self.ledger.head(self.model)
        self.ledger.move(head, at=self.at(days), previous=previous, reason=reason)

    def estimated(self, value: float | None, n: int) -> tuple[Reading, ...]:
        """Return what is believed of labels to come: of all rows, and of the last day nothing."""
        told = Reading(
            kind=Kind.ESTIMATE,
            metric=self.metric,
            column=None,
            value=None if value is None else value + 0.2,
            n=n,
            low=None if value is None else value - 0.5,
            high=None if value is None else value + 0.9,
            baseline=7.1,
            problem="UNKNOWN: 3 labels, at least 200 are needed" if value is None else None,
        )
        moved = "UNKNOWN: 14% of load lie beyond what the champion was trained on"
        day = replace(
            told, value=None, n=n // 20, low=None, high=None, problem=moved, segment="age=day"
        )
        return (told, day)

    def measured(
        self, days: float, value: float | None, *, n: int = 400, problem: str | None = None
    ) -> tuple[Reading, ...]:
        spread = None if value is None else value * 0.05
        readings = (
            Reading(
                kind=Kind.DECAY,
                metric=self.metric,
                column=None,
                value=value,
                n=n,
                low=None if value is None or spread is None else value - spread,
                high=None if value is None or spread is None else value + spread,
                baseline=7.1,
                problem=problem,
            ),
            *self.estimated(value, n),
            Reading(kind=Kind.DRIFT, metric="wasserstein", column="load", value=0.31, n=900),
            Reading(kind=Kind.QUALITY, metric="null_share", column="load", value=0.01, n=900),
            *(() if value is not None else (UNREAD,)),
        )
        at = self.at(days)
        self.ledger.append(
            Measured(
                model=self.model,
                at=at,
                window=self.window(at),
                rows=1234,
                labels=n,
                readings=readings,
            )
        )
        return readings

    def decided(  # noqa: PLR0913 - a decision's parts
        self,
        days: float,
        state: State,
        value: float | None,
        *,
        reason: str = "as expected",
        n: int = 400,
        problem: str | None = None,
        incident: str | None = None,
        since: float | None = None,
        retrain: bool = False,
        opens: bool = False,
        worst: tuple[Reading, ...] = (),
    ) -> Decision:
        readings = self.measured(days, value, n=n, problem=problem)
        level = {
            State.DECAYING: Level.ALARM,
            State.BLIND: Level.BLIND,
        }.get(state, Level.OK)
        at = self.at(days)
        decision = Decision(
            version=1,
            key=f"{self.model}/{at:%Y%m%dT%H%M%S}",
            model=self.model,
            at=at,
            state=state,
            reason=f"{state}: {reason}",
            window=self.window(at),
            verdicts=tuple(
                Verdict(
                    reading=reading,
                    level=level if reading.kind is Kind.DECAY else Level.OK,
                    limit=None if level is Level.BLIND else 0.3,
                    reason=problem or f"{reading.metric} {reading.value}, n={reading.n}",
                )
                for reading in readings
                if reading.kind is not Kind.ESTIMATE  # it is never OK
            ),
            retrain=retrain,
            incident=incident,
            since=None if since is None else self.at(since),
            opens=opens,
            worst=worst,
        )
        self.ledger.append(Decided(model=self.model, at=at, decision=decision), key=decision.key)
        return decision

    def ordered(self, days: float) -> Order:
        order = self.order(days)
        self.ledger.append(Ordered(model=self.model, at=order.at, order=order), key=order.key)
        return order

    def trained(self, days: float, order: Order, *, version: int) -> None:
        candidate = Candidate(
            order=order,
            digest=f"{version:064x}",
            folder="nowhere",
            rows=52_000,
            holdout_rows=6_100,
            metrics=(Metric(name="mae", value=7.1),),
            parity=2e-6,
            fit_seconds=3.2,
            lower_seconds=1.1,
        )
        self.ledger.append(
            Trained(model=self.model, at=self.at(days), version=version, candidate=candidate),
            key=version_key(self.model, version),
        )

    def gated(
        self, days: float, order: Order, *, version: int, passed: bool, reason: str = "by 5 %"
    ) -> None:
        result = GateResult(
            passed=passed,
            reason=reason,
            loss="mae",
            n=6_100,
            champion_loss=10.0,
            candidate_loss=9.0 if passed else 11.0,
            gain=0.1 if passed else -0.1,
            low=0.05 if passed else -0.2,
            high=0.15 if passed else 0.02,
            confidence=0.9,
        )
        self.ledger.append(
            Gated(
                model=self.model,
                at=self.at(days),
                order_key=order.key,
                version=version,
                result=result,
            ),
            key=order.key,
        )

    def failed(self, days: float, order: Order, error: str) -> None:
        self.ledger.append(
            Failed(model=self.model, at=self.at(days), order_key=order.key, error=error),
            key=order.key,
        )

    def explained(self, days: float, cause: Cause) -> None:
        at = self.at(days)
        key = f"{self.model}/{at:%Y%m%dT%H%M%S}"
        fact = Explained(model=self.model, at=at, decision=key, cause=cause)
        self.ledger.append(fact, key=key)

    def paged(
        self,
        days: float,
        headline: str,
        *,
        stage: Stage = Stage.OPENED,
        order: Order | None = None,
    ) -> None:
        at, incident = self.at(days), f"{self.model}/opened"
        notice = Notice(
            key=f"{incident}/{stage}" + (f"/{order.key}" if order else ""),
            incident=incident,
            model=self.model,
            stage=stage,
            at=at,
            since=at,
            channel="#ml-logistics",
            mention="@here",
            headline=headline,
            doing="Retraining on the most recent labelled rows.",
        )
        receipt = Receipt(channel="C1", ts="1.0")
        if stage is Stage.OPENED:
            mine = {"model": self.model, "at": at, "incident": incident}
            self.ledger.append(
                Grouped(alert=incident, group="", owner="logistics", **mine), key=incident
            )
            self.ledger.append(Noted(notice=notice, **mine), key=notice.key)
            self.ledger.append(
                Posted(channel="#ml-logistics", receipt=receipt, shown="", **mine), key=incident
            )
            self.ledger.claim(f"incident/{incident}", lease=timedelta(0))
        self.ledger.append(
            Paged(model=self.model, at=at, notice=notice, receipt=receipt), key=notice.key
        )

    def acted(self, days: float, act: Act, **given: Any) -> None:
        """Let somebody act upon the open incident of the model."""
        fact = Acted(
            model=self.model,
            at=self.at(days),
            incident=f"{self.model}/opened",
            act=act,
            who=HOSTILE,
            **given,
        )
        self.ledger.append(fact, key=f"{self.model}/{act}")


def tell_everything(
    ledger: SqlLedger, model: ModelId, what: str, *, metric: str, days: int = 5
) -> None:
    """Write the past of a model that ends in the state its market is named after."""
    story = Story(ledger, model, metric=metric)
    if what == "none":
        return
    order = story.ordered(62)
    story.trained(61.5, order, version=1)
    story.gated(61.2, order, version=1, passed=True)
    story.moved(61, version=1, epoch=1)
    for day in range(days, 0, -1):
        wobble = ((day * 7919) % 13 - 6) / 20
        story.decided(day, State.FRESH, 7.2 + wobble)
    opened = f"{model}/opened"
    if what == "good":
        story.decided(0, State.FRESH, 7.0)
    elif what == "drift":
        story.decided(0, State.DRIFTING, 7.6, reason=f"{HOSTILE} moved")
    elif what == "decay":
        story.decided(
            0.9, State.DECAYING, 9.9, incident=opened, since=0.9, opens=True, retrain=True
        )
        story.paged(0.88, f"{model} predicts worse: {HOSTILE}")
        refused = story.ordered(0.86)
        story.trained(0.7, refused, version=2)
        story.gated(0.6, refused, version=2, passed=False, reason=f"not sure: {HOSTILE}")
        story.paged(0.85, "it is being retrained", stage=Stage.RETRAINING, order=refused)
        story.paged(0.5, "version 2 was refused", stage=Stage.REFUSED, order=refused)
        worst = Reading(
            kind=Kind.DECAY,
            metric=metric,
            column=None,
            value=14.2,
            n=120,
            segment=f"carrier={HOSTILE}",
        )
        story.decided(
            0, State.DECAYING, 10.4, reason=HOSTILE, incident=opened, since=0.9, worst=(worst,)
        )
    elif what == "fault":
        story.decided(0.5, State.DATA_FAULT, 7.4, incident=opened, since=0.5, opens=True)
        cause = Cause(
            origin=Origin.DATA,
            said=f"the data is wrong: {HOSTILE}",
            shared=(ModelId("eta-decay"),),
        )
        story.explained(0.5, cause)
        story.failed(0.3, story.ordered(0.4), f"the recipe raised {HOSTILE}")
        story.decided(0, State.DATA_FAULT, 7.4, incident=opened, since=0.5)
    elif what == "blind":
        story.decided(0, State.BLIND, None, n=3, problem="3 labels, at least 30 are needed")
    elif what == "train":
        story.decided(0, State.DECAYING, 9.8, incident=opened, since=0.0, opens=True)
        story.ordered(0)
    elif what == "stuck":
        back = story.ordered(20)
        story.gated(19, back, version=2, passed=True)
        story.moved(18, version=2, epoch=2, reason="decay; gate: by 5 %")
        story.moved(17, version=1, epoch=3, reason=f"rolled back by {HOSTILE}")
        story.decided(0, State.FRESH, 7.3)
        story.ordered(2)


def write_monitors(folder: Path, markets: dict[str, tuple[str, ...]]) -> None:
    """Write the shared monitors with other `markets`."""
    source = Path(__file__).parents[2] / "monitors"
    folder.mkdir()
    for file in source.glob("*.toml"):
        lines = file.read_text(encoding="utf-8").splitlines()
        named = ", ".join(f'"{market}"' for market in markets.get(file.stem, ()))
        wanted = [f"markets = [{named}]" if x.startswith("markets") else x for x in lines]
        (folder / file.name).write_text("\n".join(wanted), encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Callable[..., System]]:
    """Build an installation: `installed(eta=(markets...), churn=(...))`, started `age` s ago."""
    made: list[System] = []

    def build(*, age: float = 0.0, speed: float = 58_000.0, **markets: tuple[str, ...]) -> System:
        write_monitors(tmp_path / "monitors", markets)
        home = tmp_path / "home"
        home.mkdir()
        started = datetime.now(UTC) - timedelta(seconds=age)
        Clock(origin=NOW, started=started, speed=speed).write(home / "clock.json")
        system = System(Settings(home=home, monitors=tmp_path / "monitors"))
        made.append(system)
        return system

    yield build
    for system in made:
        ledger = system.ledger
        assert isinstance(ledger, SqlLedger)
        ledger.close()


@pytest.fixture
def storied(installed: Callable[..., System]) -> System:
    """Build an installation with a model in every state, in both families."""
    system = installed(eta=MARKETS, churn=("good", "decay"))
    ledger = system.ledger
    assert isinstance(ledger, SqlLedger)
    for family in system.fleet.families:
        for market, model in zip(family.markets, family.models, strict=True):
            tell_everything(ledger, model, market, metric=family.decay.metric)
    return system


@pytest.fixture
def tell() -> Callable[[System, str], Story]:
    """Write the past of a model of an installation, and return what writes more of it."""

    def write(system: System, model: str) -> Story:
        name, ledger = ModelId(model), system.ledger
        metric = system.fleet.family(name).decay.metric
        tell_everything(ledger, name, model.rpartition("-")[2], metric=metric)
        return Story(ledger, name, metric=metric)

    return write


@pytest.fixture
def serve() -> Callable[[System], Any]:
    """Serve the pages of an installation by uvicorn on a free port; gives a client of them."""
    return _served


@contextmanager
def _served(system: System) -> Iterator[httpx.Client]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(pages_app(system), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=address, trust_env=False, timeout=20) as client:
            yield client
        server.should_exit = True
        thread.join(20)
