"""The flows' own logic, without a Prefect server: what they start, tell, say and survive."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import httpx
import msgspec
import pytest
from prefect import State
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Completed, Crashed, Running, Scheduled
from pydantic import TypeAdapter

from driftloop.batch import Due, Job, Scored
from driftloop.errors import BadRequest, DriftloopError, LedgerError, LogError
from driftloop.loop.release import Released
from driftloop.loop.renew import Renewed
from driftloop.loop.tell import Told
from driftloop.loop.watch import Watched
from driftloop.records import (
    Decision,
    GateResult,
    Head,
    Kind,
    Level,
    ModelId,
    Notice,
    Order,
    Phase,
    Reading,
    Rollout,
    Stage,
    Verdict,
    Window,
)
from driftloop.records import State as Word
from driftloop.settings import Settings
from flows import deployments
from flows.consistency import consistency
from flows.maintain import maintain
from flows.patience import patiently
from flows.refresh_features import refresh_features
from flows.release import release
from flows.renew import renew
from flows.score_batch import score_batch
from flows.score_due import score_due
from flows.system import skipped
from flows.watch import watch
from flows.worker import clear_abandoned

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")


REPORTING = (
    *("watch", "renew", "release", "score_batch", "score_due", "maintain", "consistency"),
    "refresh_features",
)


@dataclass
class FakeSystem:
    """Stands for watcher, renewer and teller alike, and notes what is asked of it."""

    seen: tuple[Watched, ...] = ()
    renewed: Callable[[Order], Renewed] | None = None
    released: tuple[Released, ...] = ()
    untold: ModelId | None = None
    cancelled: list[tuple[str, str]] = field(default_factory=list)
    given_up: list[tuple[str, str]] = field(default_factory=list)
    told: list[Notice] = field(default_factory=list)
    unsent: int = 0
    due: dict[Due, Any] = field(default_factory=dict)
    compared: tuple[Reading, ...] = ()
    asked: tuple[Order, ...] | DriftloopError = ()
    ledger: Any = None
    registry: Any = None

    @property
    def watcher(self) -> "FakeSystem":
        return self

    renewer = releaser = teller = watcher

    def watch(self) -> tuple[Watched, ...]:
        return self.seen

    def compare_features(self) -> tuple[Reading, ...]:
        return self.compared

    def release(self) -> tuple[Released, ...]:
        return self.released

    def wanted(self) -> tuple[Order, ...]:
        if isinstance(self.asked, DriftloopError):
            raise self.asked
        return self.asked

    def renew(self, order: Order) -> Renewed:
        assert self.renewed is not None
        return self.renewed(order)

    def cancel(self, order: Order, why: str) -> None:
        self.cancelled.append((order.key, why))

    def give_up(self, order: Order, why: str) -> None:
        self.given_up.append((order.key, why))

    def let_go(self, order: Order) -> None:
        assert order.model == DE

    def tell(self, notice: Notice) -> Told:
        if notice.model == self.untold:
            raise LedgerError("the disk is full")
        self.told.append(notice)
        return Told(notice, told=True, why="told")

    def tell_all(self, notices: Sequence[Notice]) -> tuple[Told, ...]:
        return tuple(self.tell(notice) for notice in notices)

    def tell_unsent(self) -> tuple[Told, ...]:
        self.unsent += 1
        return ()

    def heads(self) -> tuple[Head, ...]:
        return ()

    def prune(self) -> int:
        raise OSError("no such folder")

    def predict_batch(self, job: Job) -> Scored:
        job.out.write_text(f"{job.model} {job.source}")
        return scored(3)

    def batches_due(self) -> tuple[Due, ...]:
        return tuple(self.due)

    def score_due(self, due: Due) -> Scored | None:
        found = self.due[due]
        if isinstance(found, DriftloopError):
            raise found
        return found


def scored(rows: int) -> Scored:
    """Return that so many rows were scored by version 7."""
    head = Head(model=DE, epoch=7, version=7, digest="", artifact="")
    return Scored(rows=rows, before=0, head=head, champion=None, seconds=1.0)


@dataclass
class Prefect:
    """What the flows asked of Prefect: artifacts, runs started, runs renamed."""

    artifacts: dict[str, str] = field(default_factory=dict)
    started: list[dict[str, Any]] = field(default_factory=list)
    ended: dict[str, State[Any]] = field(default_factory=dict)
    ends: bool = False
    away: int = 0
    names: list[str] = field(default_factory=list)
    refuses: str = ""

    async def artifact(self, *, key: str, markdown: str, description: str) -> None:
        self.artifacts[key] = markdown

    async def run(self, name: str, **options: Any) -> FlowRun:
        key = options["idempotency_key"]
        if key == self.refuses:
            raise ConnectionError("no answer")
        if self.away:
            self.away -= 1
            raise RuntimeError("cannot reach it") from httpx.ConnectError("refused")
        self.started.append({"name": name, **options})
        state = self.ended.get(key, Crashed() if self.ends else Scheduled())
        return FlowRun(id=uuid5(NAMESPACE_OID, key), flow_id=uuid4(), state=state)

    @asynccontextmanager
    async def client(self) -> AsyncIterator["Prefect"]:
        yield self

    async def update_flow_run(self, _id: object, *, name: str) -> None:
        self.names.append(name)

    async def read_flow_runs(self, **_: object) -> list[object]:
        return []


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    """Prefect's doors, as the flows see them."""
    fake = Prefect()
    for name in REPORTING:
        monkeypatch.setattr(f"flows.{name}.acreate_markdown_artifact", fake.artifact)
    for name in ("renew", "maintain"):
        monkeypatch.setattr(f"flows.{name}.get_client", fake.client)
    monkeypatch.setattr("flows.watch.arun_deployment", fake.run)
    return fake


@dataclass
class Api:
    """Prefect's API after a worker died: the run it left, and what became of it."""

    left: FlowRun
    prefect: Prefect
    marked: list[tuple[str, int]] = field(default_factory=list)

    async def read_flow_runs(self, **_: object) -> list[FlowRun]:
        return [self.left]

    async def read_flow(self, _: object) -> object:
        return renew

    async def set_flow_run_state(self, _: object, state: State[Any], *, force: bool) -> None:
        """Note the state, and how many orders had been started by then."""
        self.marked.append((state.name or "", len(self.prefect.started)))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeSystem], FakeSystem]:
    """Let the flows work on a fake system."""

    def put(system: FakeSystem) -> FakeSystem:
        for name in (*REPORTING, "worker"):
            monkeypatch.setattr(f"flows.{name}.the_system", lambda: system)
        return system

    return put


Use = Callable[[FakeSystem], FakeSystem]


def order(model: ModelId) -> Order:
    """Return an order for `model`."""
    return Order(
        key=f"{model}/1",
        model=model,
        at=NOW,
        reason="decay",
        window=Window(model=model, start=NOW - timedelta(9), end=NOW, known_at=NOW),
        holdout_from=NOW - timedelta(1),
        seed=1,
        incident=f"{model}/1",
    )


def decaying(model: ModelId) -> Watched:
    """Return what a pass sees of a model that decays: a notice and an order."""
    mae = Reading(kind=Kind.DECAY, metric="mae", column=None, value=14.2, n=230, baseline=8.75)
    verdict = Verdict(reading=mae, level=Level.ALARM, limit=10.5, reason="14.2 | above 10.5")
    decision = Decision(
        version=1,
        key=f"{model}/1",
        model=model,
        at=NOW,
        state=Word.DECAYING,
        reason="mae 14.2 | above 10.5",
        window=order(model).window,
        verdicts=(verdict,),
        retrain=True,
        incident=f"{model}/1",
        opens=True,
    )
    notice = Notice(
        key=f"{model}/1/opened",
        incident=f"{model}/1",
        model=model,
        stage=Stage.OPENED,
        at=NOW,
        since=NOW,
        channel="#eta",
        mention="",
        headline="decays",
        doing="retraining",
    )
    return Watched(
        model=model, decision=decision, order=order(model), notices=(notice,), rows=250, labels=230
    )


def run(flow: Any, *arguments: object) -> State[Any]:
    """Return the state that the flow's function ends in."""
    ended: State[Any] = asyncio.run(flow.fn(*arguments))
    return ended


def test_a_pass_tells_then_starts_renewals_by_key(prefect: Prefect, use: Use) -> None:
    """Owners are told, each order starts one run under its key, and what waited is told."""
    system = use(FakeSystem(seen=(decaying(DE), decaying(UK))))
    state = run(watch)
    assert [notice.model for notice in system.told] == [DE, UK]
    assert [(s["name"], s["idempotency_key"], s["timeout"]) for s in prefect.started] == [
        ("renew/driftloop", "eta-de/1", 0),
        ("renew/driftloop", "churn-uk/1", 0),
    ]
    assert system.unsent == 1
    assert state.is_completed()
    assert state.message == "2 models looked at, 2 to renew, 0 problems"


def test_an_order_survives_the_way_through_prefect(prefect: Prefect, use: Use) -> None:
    """What `watch` hands over as JSON is the same order again in `renew`."""
    use(FakeSystem(seen=(decaying(DE),)))
    run(watch)
    sent = msgspec.json.decode(msgspec.json.encode(prefect.started[0]["parameters"]["order"]))
    assert TypeAdapter(Order).validate_python(sent) == order(DE)


def test_one_models_trouble_stays_its_own(prefect: Prefect, use: Use) -> None:
    """A failed measurement, a full disk and an unreachable API cost one model each."""
    prefect.refuses = "churn-uk/1"
    failed = Watched(model=FR, problem="no such column")
    system = use(FakeSystem(seen=(decaying(DE), failed, decaying(UK)), untold=DE))
    state = run(watch)
    assert [notice.model for notice in system.told] == [UK]
    assert [started["idempotency_key"] for started in prefect.started] == ["eta-de/1"]
    assert state.is_completed()
    assert state.message == "3 models looked at, 2 to renew, 3 problems"
    problems = prefect.artifacts["watch"].partition("## Problems")[2]
    assert "eta-fr: no such column" in problems
    assert "eta-de: not told: the disk is full" in problems
    assert "churn-uk: its renewal was not started: no answer" in problems


def test_an_order_that_never_began_is_started_again(prefect: Prefect, use: Use) -> None:
    """Its run ended without it: a new one follows, once; passes meanwhile start no third."""
    use(FakeSystem(seen=(decaying(DE),)))
    prefect.ended["eta-de/1"] = Completed(name="Elsewhere")
    run(watch)
    after = f"eta-de/1/after/{uuid5(NAMESPACE_OID, 'eta-de/1')}"
    assert [each["idempotency_key"] for each in prefect.started] == ["eta-de/1", after]
    run(watch)
    assert [each["idempotency_key"] for each in prefect.started[2:]] == ["eta-de/1", after]
    prefect.ended[after] = Crashed()
    state = run(watch)
    assert len({each["idempotency_key"] for each in prefect.started}) == 3
    assert state.message == "1 models looked at, 1 to renew, 0 problems"


def test_an_order_that_never_begins_is_a_problem_in_the_end(prefect: Prefect, use: Use) -> None:
    """Not tried for ever: after ten runs the pass says so."""
    use(FakeSystem(seen=(decaying(DE),)))
    prefect.ends = True
    run(watch)
    assert "started 10 times and never began" in prefect.artifacts["watch"]


def test_an_order_cancelled_while_it_waited_is_not_tried_again(prefect: Prefect, use: Use) -> None:
    """Prefect knows that somebody cancelled it, and the ledger is told."""
    system = use(FakeSystem(seen=(decaying(DE),)))
    prefect.ended["eta-de/1"] = Cancelled()
    run(watch)
    assert [each["idempotency_key"] for each in prefect.started] == ["eta-de/1"]
    assert system.cancelled == [("eta-de/1", "cancelled in Prefect")]


def test_what_an_earlier_pass_left_is_told_and_started(prefect: Prefect, use: Use) -> None:
    """It counts as no model looked at, and is done all the same."""
    left = replace(decaying(DE), decision=None)
    system = use(FakeSystem(seen=(left, decaying(UK))))
    state = run(watch)
    assert [notice.model for notice in system.told] == [DE, UK]
    assert [each["idempotency_key"] for each in prefect.started] == ["eta-de/1", "churn-uk/1"]
    assert state.message == "1 models looked at, 2 to renew, 0 problems"


@pytest.mark.parametrize("flow", [watch, release])
def test_what_people_want_retrained_is_started_by_whichever_comes_first(
    prefect: Prefect, use: Use, flow: Any
) -> None:
    """Both start it under its one key, so that it is carried out once."""
    use(FakeSystem(asked=(replace(order(FR), key="asked/c/eta-fr"),)))
    assert run(flow).is_completed()
    assert [each["idempotency_key"] for each in prefect.started] == ["asked/c/eta-fr"]


def test_what_the_pass_orders_itself_is_not_ordered_twice(prefect: Prefect, use: Use) -> None:
    """Somebody asked for a model that is due by itself: one renewal of it is enough."""
    asked = replace(order(DE), key="asked/c/eta-de")
    use(FakeSystem(seen=(decaying(DE),), asked=(asked,)))
    run(watch)
    assert [each["idempotency_key"] for each in prefect.started] == ["eta-de/1"]


@pytest.mark.parametrize("flow", [watch, release])
def test_what_people_want_that_cannot_be_read_is_a_problem(
    prefect: Prefect, use: Use, flow: Any
) -> None:
    """The pass comes to its end, and says so."""
    use(FakeSystem(asked=LedgerError("the disk is full")))
    state = run(flow)
    assert state.is_completed()
    said = f"{state.message} {prefect.artifacts.get('watch', '')}"
    assert "1 problems" in said
    assert "what people want retrained could not be read: the disk is full" in said


@pytest.mark.parametrize("begun", [False, True])
def test_a_renewal_whose_worker_died_is_ordered_again_before_its_run_is_marked(
    prefect: Prefect, use: Use, *, begun: bool
) -> None:
    """A worker that dies in between finds it again, and orders nothing twice."""
    use(FakeSystem())
    first = left_by_a_dead_worker("eta-de/1", begun=begun)
    key = "eta-de/1/again/1" if begun else f"eta-de/1/after/{first.id}"
    for _ in range(2):
        api = Api(first, prefect)
        before = len(prefect.started)
        asyncio.run(clear_abandoned(api))  # type: ignore[arg-type]
        assert api.marked == [("Crashed", before + 1)]
        assert prefect.started[-1]["idempotency_key"] == key
    assert {each["idempotency_key"] for each in prefect.started} == {key}


def test_a_renewal_that_takes_the_worker_down_is_given_up(prefect: Prefect, use: Use) -> None:
    """It is taken up again five times, and then told as failed."""
    system = use(FakeSystem())
    keys = ["eta-de/1", *(f"eta-de/1/again/{number}" for number in range(1, 6))]
    for key, follows in zip(keys, [*keys[1:], None], strict=True):
        assert system.given_up == []
        asyncio.run(clear_abandoned(Api(left_by_a_dead_worker(key, begun=True), prefect)))  # type: ignore[arg-type]
        assert follows is None or prefect.started[-1]["idempotency_key"] == follows
        prefect.ended[key] = Crashed()
    assert system.given_up == [("eta-de/1", "the worker died 6 times while it was at it")]


def left_by_a_dead_worker(key: str, *, begun: bool) -> FlowRun:
    """Return the run of that key as it stands once nobody is at it."""
    return FlowRun(
        id=uuid5(NAMESPACE_OID, key),
        flow_id=uuid4(),
        state=Running(),
        start_time=NOW if begun else None,
        parameters={"order": msgspec.to_builtins(order(DE))},
    )


def test_a_pass_waits_for_prefect_with_owners_told(
    prefect: Prefect, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is away the order is tried again and again; all pages are out before."""
    monkeypatch.setattr("flows.patience.PAUSE", 0.01)
    system = use(FakeSystem(seen=(decaying(DE), decaying(UK))))
    prefect.away = 3
    state = run(watch)
    assert [notice.model for notice in system.told] == [DE, UK]
    assert [each["idempotency_key"] for each in prefect.started] == ["eta-de/1", "churn-uk/1"]
    assert state.message == "2 models looked at, 2 to renew, 0 problems"


def test_what_is_away_too_long_or_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience has an end, and none is had with a server that is there and says no."""
    monkeypatch.setattr("flows.patience.PAUSE", 0.01)
    monkeypatch.setattr("flows.patience.PATIENCE", 0.1)
    calls: list[int] = []

    async def answered(status: int) -> None:
        calls.append(status)
        httpx.Response(status, request=httpx.Request("GET", "http://x")).raise_for_status()

    for status, most in ((422, 1), (500, 20)):
        calls.clear()
        with pytest.raises(httpx.HTTPStatusError):
            asyncio.run(patiently(answered, status))
        assert (len(calls) == 1) == (status == 422)
        assert len(calls) <= most


def test_the_pass_is_readable(prefect: Prefect, use: Use) -> None:
    """The artifact's table has the figure, its baseline, its limit, counts, why, what follows."""
    use(FakeSystem(seen=(decaying(DE),)))
    run(watch)
    row = prefect.artifacts["watch"].splitlines()[-1]
    assert row == (
        r"| eta-de | decaying | mae 14.2 | 8.75 | 10.5 | 250 | 230 | mae 14.2 \| above 10.5 "
        "| opened, renewal |"
    )


def test_a_late_pass_says_how_many_it_stands_for(prefect: Prefect, use: Use) -> None:
    """The runs that were skipped in favour of this one are counted in its final message."""
    use(FakeSystem())

    async def late() -> State[Any]:
        skipped.set(4)
        ended: State[Any] = await watch.fn()
        return ended

    assert "4 late runs skipped" in str(asyncio.run(late()).message)


def test_a_renewal_says_what_came_of_it(prefect: Prefect, use: Use) -> None:
    """A promoted version shows in the run's name and state; the gate's figures in its artifact."""
    result = GateResult(
        passed=True,
        reason="better by 0.31",
        loss="mae",
        n=812,
        champion_loss=14.2,
        candidate_loss=9.8,
        gain=0.31,
        low=0.25,
        high=0.37,
        confidence=0.95,
    )
    head = Head(model=DE, epoch=2, version=7, digest="ab", artifact="f/model.onnx")
    use(
        FakeSystem(
            renewed=lambda o: Renewed(o, "promoted", "better by 0.31", result=result, head=head)
        )
    )
    state = run(renew, order(DE))
    assert (state.name, state.type.value) == ("Promoted", "COMPLETED")
    assert prefect.names == ["eta-de: promoted version 7"]
    shown = prefect.artifacts["renew-eta-de"]
    for line in (
        "| rows compared | 812 |",
        "| champion's mae | 14.2 |",
        "| candidate's mae | 9.8 |",
        "| its interval at 95% | 0.25 to 0.37 |",
    ):
        assert line in shown


@pytest.mark.parametrize(
    ("outcome", "name", "type_"),
    [
        ("refused", "Refused", "COMPLETED"),
        ("elsewhere", "Elsewhere", "COMPLETED"),
        ("failed", "Failed", "FAILED"),
    ],
)
def test_only_a_failed_renewal_is_a_failed_run(
    prefect: Prefect, use: Use, outcome: str, name: str, type_: str
) -> None:
    """A refusal is the gate at work; only an order that came to nothing is red in the UI."""
    use(FakeSystem(renewed=lambda o: Renewed(o, outcome, "so it is")))
    state = run(renew, order(DE))
    assert (state.name, state.type.value) == (name, type_)
    assert state.message == f"{outcome}: so it is"


def test_a_batch_is_scored_as_asked(prefect: Prefect, use: Use, tmp_path: Path) -> None:
    """The flow hands model, source and target on, and says how many rows came of it."""
    use(FakeSystem())
    state = run(score_batch, "eta-de", "rows.parquet", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "eta-de rows.parquet"
    assert state.message == "3 rows scored by eta-de"


def test_batches_that_are_due_are_scored_each_by_itself(
    prefect: Prefect, use: Use, tmp_path: Path
) -> None:
    """One that fails makes the run fail, and the others are done; nothing due is nothing said."""
    jobs = [Job(model=DE, source=name, out=tmp_path / name) for name in ("a", "b", "c")]
    due = [Due(key=f"batch/{job.source}", job=job, lease=timedelta(days=1)) for job in jobs]
    use(FakeSystem(due=dict(zip(due, (scored(5), LogError("full"), None), strict=True))))
    state = run(score_due)
    assert (state.type.value, state.message) == ("FAILED", "1 batches scored, 1 failed")
    assert "| batch/a | 5 rows by version 7 into " in prefect.artifacts["score-due"]
    assert "| batch/b | failed: full |" in prefect.artifacts["score-due"]
    assert "batch/c" not in prefect.artifacts["score-due"]
    prefect.artifacts.clear()
    use(FakeSystem())
    assert run(score_due).type.value == "COMPLETED"
    assert prefect.artifacts == {}


def test_maintenance_goes_on_after_a_part_failed(prefect: Prefect, use: Use) -> None:
    """A part that raises is said to have failed; the others are done."""
    system = FakeSystem()
    system.ledger = use(system)
    state = run(maintain)
    assert state.message == "3 of 4 parts done"
    shown = prefect.artifacts["maintain"]
    assert "| what is old | failed: no such folder |" in shown
    assert "| old flow runs | 0 removed |" in shown
    assert system.unsent == 1


def test_consistency_says_the_worst_difference(use: Use, prefect: Prefect) -> None:
    """And lists every family, also one of which nothing could be compared."""
    readings = tuple(
        Reading(
            kind=Kind.QUALITY,
            metric="consistency",
            column=family,
            value=value,
            n=n,
            problem=problem,
        )
        for family, value, n, problem in (
            ("eta", 0.25, 9, "load of row r1"),
            ("churn", None, 0, "no row"),
        )
    )
    use(FakeSystem(compared=readings))
    state = run(consistency)
    assert state.message == "9 rows compared, worst difference 0.25"
    assert "load of row r1" in prefect.artifacts["consistency"]


def test_rollouts_are_reported_each_with_its_reason(prefect: Prefect, use: Use) -> None:
    """One that could not go on is a problem of its own; without any nothing is said."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    rollout = Rollout(
        model=DE,
        order="o",
        epoch=3,
        version=2,
        digest="",
        artifact="",
        champion=1,
        phase=Phase.CANARY,
        share=0.25,
        reason="",
        begun=at,
        since=at,
    )
    went = Released(model=DE, rollout=rollout, said="no harm on 1000 rows", moved=True)
    stands = Released(model=ModelId("eta-fr"), rollout=rollout, said="", problem="no lake")
    use(FakeSystem(released=(went, stands)))
    assert run(release).message == "2 rollouts, 1 moved, 1 problems"
    shown = prefect.artifacts.pop("release")
    assert "| eta-de | 2 | canary 25% | - | no harm on 1000 rows |" in shown
    assert "could not go on: no lake" in shown
    use(FakeSystem())
    assert run(release).message == "0 rollouts, 0 moved, 0 problems"
    assert prefect.artifacts == {}


def test_a_table_that_cannot_be_read_does_not_stop_the_others(
    prefect: Prefect, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has failed, and says of which; where nothing is due it says that."""

    def refresh(name: str) -> int:
        if name == "planes":
            raise BadRequest("there is no such file", where="planes.csv")
        return 3

    system: Any = use(FakeSystem())
    monkeypatch.setattr(FakeSystem, "due_tables", lambda _: ("planes", "airports"), raising=False)
    monkeypatch.setattr(FakeSystem, "refresh", staticmethod(refresh), raising=False)
    state = run(refresh_features)
    assert (state.is_failed(), state.message) == (True, "1 of 2 tables read")
    assert "| airports | 3 keys |" in prefect.artifacts["refresh-features"]
    assert "no such file" in prefect.artifacts["refresh-features"]
    monkeypatch.setattr(FakeSystem, "due_tables", lambda _: (), raising=False)
    assert run(refresh_features).message == "nothing is due"
    assert system.due_tables() == ()


def test_every_flow_is_deployed_once_with_its_limit() -> None:
    """Watch and maintain run alone at their cadence; renewals as many at once as set.

    Tables are read anew where there are any.
    """
    settings = Settings(watch_every=3, maintain_every=60, release_every=9, renew_slots=3)
    every = timedelta(minutes=5)
    deployed = deployments.deployed(settings, refresh_every=every)
    without = {each.flow.name for each in deployments.deployed(settings)}
    found = {each.flow.name: (each.at_once, each.every) for each in deployed}
    assert found.keys() - without == {"refresh-features"}
    assert found == {
        "watch": (1, timedelta(seconds=3)),
        "maintain": (1, timedelta(seconds=60)),
        "consistency": (1, timedelta(hours=1)),
        "renew": (3, None),
        "release": (1, timedelta(seconds=9)),
        "score-batch": (1, None),
        "score-due": (1, timedelta(seconds=300)),
        "refresh-features": (1, every),
    }
    assert found.keys() == deployments.FLOWS.keys()
