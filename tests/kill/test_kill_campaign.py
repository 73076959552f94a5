"""Kill -9 on all that `driftloop up` runs, at named points and at random moments.

Days of a changed world come one after another, so that incidents open and models are renewed;
clients ask all the while. KILL_SEED repeats a campaign's random part, KILL_SECONDS is its length.
"""

import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from integration.house import eventually
from kill.harness import keys, messages, tell, untold
from kill.invariants import (
    Row,
    every_turn_told,
    logged_once,
    moved_in_order,
    of_one_version,
    told_once,
)
from kill.town import DAYS, MODELS, PATIENCE, UNDER_WAY, Town, claims, town

from driftloop.records import Decided, Head, ModelId, Moved, Ordered, Paged, Stage, Trained
from driftloop.serve.model import OnnxModel, load_model

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
SERVICES = ("online", "ingester", "worker", "prefect", "mlflow", "slack")
FACTORS = (1.0, 1.6)
"""The worlds that take turns: each is harm to a champion of the other."""
WORSE = 2.5
"""Harm to a champion of either."""
FORGOTTEN = 30
"""Days after which no window has a row of what was before."""


def before_and_after(*names: str) -> tuple[str, ...]:
    """Return both points of each name."""
    return tuple(f"{name}-{when}" for name in names for when in ("before", "after"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Two models with champions; everything runs, and somebody asks all the while."""
    with town(tmp_path_factory.mktemp("campaign")) as made, made.traffic.flowing(MODELS, made.now):
        yield made


@pytest.mark.parametrize(
    ("meanwhile", "renewing", "by_hand"),
    [
        (
            (*before_and_after("online.append"), *before_and_after("ingest.commit")),
            (
                *before_and_after("worker.decided", "worker.intent", "worker.act", "worker.record"),
                "worker.register-before",
            ),
            "",
        ),
        (before_and_after("online.seal"), ("worker.register-after", "slack.keep-before"), ""),
        ((), ("worker.move-before", "slack.keep-after", "online.swap-before"), ""),
        ((), ("worker.move-after", "online.swap-after"), ""),
        ((), ("worker.alias-before",), "prefect"),
        ((), ("worker.alias-after",), "mlflow"),
    ],
    ids=["page", "register", "move", "moved", "alias", "aliased"],
)
def test_every_named_point_is_survived(
    place: Town, meanwhile: tuple[str, ...], renewing: tuple[str, ...], by_hand: str
) -> None:
    """Services die at each point while harm is logged and mended; every renewal comes to its end.

    `meanwhile` are points that rows pass, `renewing` those of the incident, `by_hand` a service
    that is killed once a renewal is under way. A renewal is promoted however often its worker dies.
    """
    place.kill_at(*meanwhile)
    place.days(other_world(place))
    place.died_at(*meanwhile)
    heads, begun = place.system.ledger.heads(), len(place.system.ledger.facts(Ordered))
    place.kill_at(*renewing)
    place.step(1)
    if by_hand:
        eventually(lambda: len(place.system.ledger.facts(Ordered)) > begun, "an order", PATIENCE)
        eventually(lambda: place.kill(by_hand), f"{by_hand} to be up", PATIENCE)
    place.died_at(*renewing)
    eventually(lambda: place.decided() and place.ended(), "the end of the renewals", PATIENCE)
    assert [head.epoch for head in place.system.ledger.heads()] == [h.epoch + 1 for h in heads]


def test_random_moments_are_survived(place: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """Every second or so one of the services dies, whatever it is at; harm goes on."""
    seed = int(os.environ.get("KILL_SEED", secrets.randbelow(10**6)))
    seconds = float(os.environ.get("KILL_SECONDS", "60"))
    with capsys.disabled():
        tell(f"KILL_SEED={seed} KILL_SECONDS={seconds:g}")
    before = len(place.killed)
    until = time.monotonic() + seconds
    with place.dying(random.Random(seed), SERVICES):
        while time.monotonic() < until:
            place.step(DAYS)
            place.harm(other_world(place))
            place.step(1)
            eventually(
                lambda: (place.decided() and place.ended()) or time.monotonic() > until,
                "its end",
                PATIENCE,
            )
    assert len(place.killed) - before > seconds / 6


def test_calm_comes_back_by_itself(place: Town) -> None:
    """Nobody kills any more: all is healthy, the next harm is mended, and the incidents end."""
    eventually(lambda: set(SERVICES) <= place.pids().keys(), "all services", PATIENCE)
    eventually(lambda: place.decided() and place.ended(), "the end of the last harm", PATIENCE)
    # What died in the midst of a harm may have left either world's champion, and half a harm.
    place.step(FORGOTTEN)
    eventually(lambda: place.decided() and place.ended(), "the end of what was", PATIENCE)
    place.days(WORSE)
    heads = place.system.ledger.heads()
    place.step(1)
    eventually(lambda: place.decided() and place.ended(), "a renewal", PATIENCE)
    assert [head.epoch for head in place.system.ledger.heads()] == [h.epoch + 1 for h in heads]
    place.days(WORSE)
    for _ in range(6):
        if not open_incidents(place):
            break
        place.step(1)
        eventually(place.decided, "a decision", PATIENCE)
    assert open_incidents(place) == []
    eventually(lambda: not untold(place.settings), "all told", PATIENCE)
    stages = [fact.notice.stage for fact in place.system.ledger.facts(Paged)]
    assert stages.count(Stage.RECOVERED) >= len(MODELS)


def test_no_run_is_left_under_way(place: Town) -> None:
    """What died with its worker is marked as crashed; no renewal hangs, no slot is held."""
    eventually(lambda: not under_way(place, "renew"), "the renewals' ends", PATIENCE)
    passes = {run["id"] for run in under_way(place, "watch")}
    eventually(
        lambda: not passes & {run["id"] for run in under_way(place, "watch")},
        "the end of the passes under way",
        PATIENCE,
    )
    ends = Counter(run["state_type"] for run in place.runs("watch") + place.runs("renew"))
    assert ends["CRASHED"] >= 6, ends
    assert ends["FAILED"] == 0, ends


def test_invariants_hold(place: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows once, replies of one version, pages once, every turn told, heads in order."""
    ledger, traffic = place.system.ledger, place.traffic
    answered, ambiguous, refused = (
        dict(traffic.answered),
        set(traffic.ambiguous),
        set(traffic.refused),
    )
    eventually(lambda: answered.keys() <= {row.id for row in in_lake(place)}, "the log", PATIENCE)
    settled = {*answered, *ambiguous, *refused}
    # Others are asked at this very moment.
    logged = [row for row in in_lake(place) if row.id in settled or row.id not in traffic.features]
    faults = logged_once(answered, ambiguous, logged)
    moves = ledger.facts(Moved)
    for model in MODELS:
        replies = list(traffic.replies[model])
        faults += of_one_version(replies, predictor(place, model, moves))
        known = {(m.head.version, m.head.epoch) for m in moves if m.model == model}
        given = {(row.version, row.epoch) for reply in replies for row in reply}
        faults += [f"{model}: nobody made {pair} champion" for pair in given - known]
    standing = keys(messages(place.settings))
    faults += told_once(ledger.facts(Paged), standing, untold(place.settings))
    ordered, paged = ledger.facts(Ordered), ledger.facts(Paged)
    faults += every_turn_told(ledger.facts(Decided), ordered, moves, paged)
    faults += moved_in_order(moves)
    faults += registered_once(place, ledger.heads())
    report(place, ambiguous, {row.id for row in logged}, capsys)
    assert faults == []
    assert len(answered) > 1000
    assert len({row.version for reply in traffic.replies[MODELS[0]] for row in reply}) > 5


# -- what is looked at ----------------------------------------------------------------------


def other_world(place: Town) -> float:
    """Return how long all takes in the world that comes next."""
    place.factor = FACTORS[0] if place.factor == FACTORS[1] else FACTORS[1]
    return place.factor


def open_incidents(place: Town) -> list[str]:
    """Return the incidents that are open now."""
    newest = [place.system.ledger.facts(Decided, model=model, last=1)[0] for model in MODELS]
    return [fact.decision.incident for fact in newest if fact.decision.incident]


def under_way(place: Town, flow: str) -> list[dict[str, str]]:
    """Return the runs of a flow that somebody is said to be at."""
    return [run for run in place.runs(flow) if run["state_type"] in UNDER_WAY]


def in_lake(place: Town) -> list[Row]:
    """Return every row that was predicted."""
    found = place.system.log.query(
        "SELECT id, version, epoch, prediction FROM lake.eta_predictions WHERE version > 0"
    )
    return [Row(**row) for row in found.to_pylist()]


def predictor(
    place: Town, model: ModelId, moves: Sequence[Moved]
) -> Callable[[int, Sequence[str]], Sequence[float]]:
    """Return what recomputes rows with a version's own file."""
    heads = {move.head.version: move.head for move in moves if move.model == model}
    loaded: dict[int, OnnxModel] = {}
    names = tuple(place.system.fleet.family(model).features)

    def predict(version: int, ids: Sequence[str]) -> Sequence[float]:
        if version not in loaded:
            head = heads[version]
            loaded[version] = load_model(Path(head.artifact), head.digest)
        rows = [place.traffic.features[id_] for id_ in ids]
        return loaded[version].predict({name: [row[name] for row in rows] for name in names})

    return predict


def registered_once(place: Town, heads: Sequence[Head]) -> list[str]:
    """An order has one version in the registry, which is the ledger's; the alias is the head."""
    faults = []
    trained = place.system.ledger.facts(Trained)
    for head in heads:
        versions = place.system.registry.versions(head.model)
        times = Counter(version.order for version in versions)
        faults += [f"{order} was registered {n} times" for order, n in times.items() if n > 1]
        known = {each.order: (each.version, each.digest) for each in versions}
        for fact in (each for each in trained if each.model == head.model):
            order, made = fact.candidate.order.key, (fact.version, fact.candidate.digest)
            if known.get(order) != made:
                faults.append(f"{order}: {made} in the ledger, {known.get(order)} in MLflow")
        champions = [each.version for each in versions if each.champion]
        if champions != [head.version]:
            faults.append(f"{head.model}: alias at {champions}, head at {head.version}")
    return faults


def report(
    place: Town, ambiguous: set[str], logged: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Show how often what was killed, and what was ambiguous."""
    traffic = place.traffic
    ends = Counter(run["state_type"] for run in place.runs("watch") + place.runs("renew"))
    again = [key for key, _, tries in claims(place.settings, "notice/") if tries > 1]
    killed = ", ".join(f"{name} {n}" for name, n in sorted(Counter(place.killed).items()))
    with capsys.disabled():
        tell(f"killed {len(place.killed)} times: {killed}")
        tell(
            f"{len(traffic.answered)} rows answered; ambiguous: {len(ambiguous)} rows without an"
            f" answer, {len(ambiguous & logged)} of them in the lake;"
            f" {len(traffic.refused)} rows refused"
        )
        tell(
            f"{len(place.system.ledger.facts(Paged))} notices told; ambiguous, so looked up before"
            f" telling again: {len(again)}: {', '.join(again)}"
        )
        tell(f"flow runs: {dict(ends)}")
