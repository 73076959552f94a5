"""Models that could not be lowered: asked over a socket, of a process that is really there."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from driftloop.errors import ArtifactError, ModelAway
from driftloop.records import Head, ModelId
from driftloop.retrain import fit, pack, predict
from driftloop.serve.frames import connect
from driftloop.serve.sidecar import Sidecar, loader
from driftloop.serve.slot import ChampionRefused, Slots
from driftloop.settings import Settings
from driftloop.spec import Family, Fleet, load_fleet
from driftloop.up import Supervisor, services, status

MONITORS = Path(__file__).parents[2] / "monitors"
MODEL = ModelId("eta-de")
COLUMNS: dict[str, list[Any]] = {
    "distance": [10.0, 400.0, 900.0, 50.0],
    "load": [0.5, None, 0.1, 0.9],
    "vehicle": ["van", "bike", None, "never seen"],
}
RECIPES = '''
"""What a recipe may bring along: an estimator of its own."""

import os
import time
from pathlib import Path

from sklearn.base import BaseEstimator, RegressorMixin

from driftloop.retrain.recipes import gradient_boosting


def native(family, *, seed, **parameters):
    """Categories handled by the trees themselves: ONNX would answer otherwise."""
    pipeline = gradient_boosting(family, seed=seed, **parameters)
    return pipeline.set_params(model__categorical_features=[0])


class Constant(RegressorMixin, BaseEstimator):
    """Answers a number, once there is a file if one is named; leaves a mark where it is loaded."""

    def __init__(self, number=0.0, gate="", mark=""):
        self.number, self.gate, self.mark = number, gate, mark

    def fit(self, X, y):
        self.fitted_ = True
        return self

    def predict(self, X):
        while self.gate and not Path(self.gate).exists():
            time.sleep(0.01)
        return [self.number] * len(X)

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.mark:
            Path(self.mark).write_text("loaded")


def constant(family, *, seed, **parameters):
    return Constant(**parameters)
'''


@dataclass
class Kept:
    """A pipeline in a file, as a candidate's folder would hold it."""

    file: Path
    digest: str
    fitted: Any

    def head(self, *, epoch: int, model: str = MODEL) -> Head:
        return Head(
            model=ModelId(model),
            epoch=epoch,
            version=epoch,
            digest=self.digest,
            artifact=str(self.file),
        )


@dataclass
class House:
    """A home whose sidecar is kept running, and models for it."""

    folder: Path
    eta: Family

    @property
    def socket(self) -> Path:
        return self.folder / "home" / "run"

    def sidecar(self, *, within: float = 20.0) -> Sidecar:
        """A service's end of it."""
        return Sidecar(partial(connect, self.socket), within=within)

    def kept(self, recipe: str, **parameters: Any) -> Kept:
        """Fit a recipe on made up trips."""
        retrain = self.eta.retrain.model_copy(
            update={"recipe": f"own_recipes:{recipe}", "parameters": parameters}
        )
        fitted = fit(self.eta.model_copy(update={"retrain": retrain}), trips(), seed=1)
        content = pack(fitted)
        digest = hashlib.sha256(content).hexdigest()
        file = self.folder / digest[:16] / "pipeline.skops"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        return Kept(file, digest, fitted)

    @property
    def parent(self) -> psutil.Process:
        """Who is supervised, and forks those that answer."""
        (found,) = status(self.folder / "home")
        return psutil.Process(found.pid)

    @property
    def pid(self) -> int:
        """The process that answers now; 0 while there is none."""
        children = self.parent.children()
        return children[0].pid if children else 0


def trips() -> pa.Table:
    rng = np.random.default_rng(5)
    distance, vehicle = rng.uniform(0, 1000, 300), rng.choice(["van", "bike"], 300)
    return pa.table(
        {
            "distance": distance,
            "load": rng.uniform(0, 1, 300),
            "vehicle": vehicle,
            "label": distance / 20 + 8 * (vehicle == "bike"),
        }
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One sidecar for all of these tests, under the supervisor that `driftloop up` has."""
    folder = tmp_path_factory.mktemp("house")
    (folder / "own_recipes.py").write_text(RECIPES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", ""))))
        settings = Settings(home=folder / "home", monitors=MONITORS)
        wanted = [each for each in services(settings, sidecar=True) if each.name == "sidecar"]
        with threadpool_limits(1), Supervisor(settings, wanted):
            yield House(folder, load_fleet(MONITORS).family_named("eta"))


@pytest.fixture
def sidecar(house: House) -> Iterator[Sidecar]:
    """A service's end, which hangs up at the end of the test."""
    asked = house.sidecar()
    yield asked
    asked.close()


def test_answers_are_those_of_scikit_learn(house: House, sidecar: Sidecar) -> None:
    """To the last bit, nulls and unseen categories included, in one request or in many."""
    kept = house.kept("native", max_iter=20)
    model = sidecar.load(kept.file, kept.digest)
    expected = predict(kept.fitted, pa.table(COLUMNS)).tolist()
    assert model.predict(COLUMNS) == expected
    assert (model.digest, model.classes) == (kept.digest, ())
    ones = [{name: [values[row]] for name, values in COLUMNS.items()} for row in range(4)]
    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(model.predict, ones * 20)]
    assert answers == [[value] for value in expected] * 20


def test_a_replaced_file_is_refused_before_anything_of_it_is_loaded(
    house: House, sidecar: Sidecar, tmp_path: Path
) -> None:
    """What is in it would leave a mark when it is loaded; asked for as what it is, it does."""
    mark = tmp_path / "mark"
    good, bad = house.kept("constant", number=1.0), house.kept("constant", mark=str(mark))
    mark.unlink(missing_ok=True)
    slots = Slots(fleet_of(house), load=loader(sidecar))
    slots.refresh([good.head(epoch=1)])
    other = house.kept("constant", number=2.0)
    other.file.write_bytes(bad.file.read_bytes())
    _, (refused,) = slots.refresh([other.head(epoch=2)])
    assert "not the one its digest names" in refused.error.what
    assert slots.slot(MODEL).hand().head.epoch == 1
    assert slots.slot(MODEL).hand().model.predict(COLUMNS) == [1.0] * 4
    assert not mark.exists()
    sidecar.load(other.file, bad.digest)
    assert mark.exists()


def test_a_file_of_other_types_than_it_lists_is_not_loaded(house: House, sidecar: Sidecar) -> None:
    """Its digest may be right: what was not there at training is not trusted."""
    import skops.io

    content = skops.io.dumps({"pipeline": Path("x"), "task": "regression", "columns": []})
    file = house.folder / "foreign.skops"
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"not trusted: .*pathlib"):
        sidecar.load(file, hashlib.sha256(content).hexdigest())


def test_a_swap_mixes_no_versions(house: House, sidecar: Sidecar) -> None:
    """While requests run, each answer is wholly the version's that was handed out for it."""
    versions = [house.kept("constant", number=float(number)) for number in range(4)]
    slots = Slots(fleet_of(house), load=loader(sidecar))
    slots.refresh([versions[0].head(epoch=0)])
    stop = threading.Event()
    mixed: list[tuple[int, list[float]]] = []
    seen: set[int] = set()

    def ask() -> None:
        while not stop.is_set():
            held = slots.slot(MODEL).hand()
            answers = held.model.predict(COLUMNS)
            seen.add(held.head.version)
            if answers != [float(held.head.version)] * 4:
                mixed.append((held.head.version, answers))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number, version in enumerate(versions):
        slots.refresh([version.head(epoch=number)])
        wait_until(lambda number=number: number in seen)
    stop.set()
    for thread in threads:
        thread.join()
    assert mixed == []
    assert seen == {0, 1, 2, 3}


def test_a_slow_model_does_not_keep_a_quick_one_waiting(
    house: House, sidecar: Sidecar, tmp_path: Path
) -> None:
    """While a flood for one waits for its first batch to end, the other is answered."""
    slow = house.kept("constant", gate=str(tmp_path / "open"))
    quick = house.kept("constant", number=5.0)
    slow_one, quick_one = (sidecar.load(each.file, each.digest) for each in (slow, quick))
    with ThreadPoolExecutor(8) as threads:
        flood = [threads.submit(slow_one.predict, COLUMNS) for _ in range(8)]
        assert [quick_one.predict(COLUMNS) for _ in range(3)] == [[5.0] * 4] * 3
        assert not any(each.done() for each in flood)
        (tmp_path / "open").touch()
        assert [each.result() for each in flood] == [[0.0] * 4] * 8


def test_too_much_at_once_is_turned_away_and_the_rest_answered(
    house: House, sidecar: Sidecar, tmp_path: Path
) -> None:
    """The caller is told at once that it is busy, and nobody waits for ever."""
    kept = house.kept("constant", gate=str(tmp_path / "open"))
    model = sidecar.load(kept.file, kept.digest)
    rows: dict[str, list[Any]] = {name: values * 2000 for name, values in COLUMNS.items()}
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(model.predict, rows) for _ in range(8)]
        # One that runs and two that wait are as much as is taken on.
        wait_until(lambda: sum(each.done() for each in asked) >= 5)
        (tmp_path / "open").touch()
        said = [each.exception() for each in asked]
    assert {type(error) for error in said} == {ModelAway, type(None)}
    assert {error.what for error in said if isinstance(error, ModelAway)} == {
        "too many rows wait for the model"
    }


def test_what_is_no_request_ends_its_connection_alone(house: House, sidecar: Sidecar) -> None:
    """A frame too large, and one of something else; others are answered as before."""
    kept = house.kept("constant", number=3.0)
    model = sidecar.load(kept.file, kept.digest)
    for junk in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc"):
        with connect(house.socket) as caller:
            caller.sendall(junk)
            assert caller.recv(1) == b""
    assert model.predict(COLUMNS) == [3.0] * 4


def test_one_that_hangs_is_given_up_and_taken_up_again(house: House) -> None:
    """Who asks is told that it is away, and waits no longer than he said."""
    sidecar = house.sidecar()
    kept = house.kept("constant", number=4.0)
    model = sidecar.load(kept.file, kept.digest)
    sidecar.within = 0.2
    os.kill(house.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            with pytest.raises(ModelAway, match=r"did not answer within 0\.2 s"):
                model.predict(COLUMNS)
    finally:
        os.kill(house.pid, signal.SIGCONT)
    sidecar.within = 20.0
    assert model.predict(COLUMNS) == [4.0] * 4
    sidecar.close()


def test_killed_under_requests_it_comes_back_and_no_answer_is_wrong(
    house: House, sidecar: Sidecar
) -> None:
    """What was under way is told that it is away; the next one loads the file by its digest.

    A head that comes while it is away is taken once it is back, without a file being blamed.
    """
    kept, later = house.kept("native", max_iter=20), house.kept("constant", number=6.0)
    slots = Slots(fleet_of(house), load=loader(sidecar))
    slots.refresh([kept.head(epoch=1)])
    model = slots.slot(MODEL).hand().model
    expected = predict(kept.fitted, pa.table(COLUMNS)).tolist()
    killed = threading.Event()
    counts = {"before": 0, "away": 0, "after": 0}

    def ask() -> None:
        while counts["after"] < 50:
            try:
                answers = model.predict(COLUMNS)
            except ModelAway:
                counts["away"] += 1
                time.sleep(0.01)
            else:
                assert answers == expected
                counts["after" if counts["away"] else "before"] += 1
                if counts["before"] == 50:
                    killed.set()

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        assert killed.wait(20)
        first = house.pid
        os.kill(first, signal.SIGKILL)
        _, (refused,) = slots.refresh([later.head(epoch=2)])
        assert isinstance(refused.error, ModelAway)
        assert slots.slot(MODEL).hand().head.epoch == 1
        for each in asking:
            each.result(60)
    assert counts["away"] > 0
    taken, _ = slots.refresh([later.head(epoch=2)])
    assert [head.epoch for head in taken] == [2]
    assert house.pid != first


def test_over_http_one_that_hangs_takes_its_own_model_away_alone(
    house: House, serving: Callable[..., Any], made: Any
) -> None:
    """503 and when to come again for that one; the other is answered; the log has what was."""
    sidecar, kept = house.sidecar(within=0.3), house.kept("native", max_iter=20)
    other = made["ten"].head("eta-fr", epoch=1)
    service = serving(kept.head(epoch=1), other, load=loader(sidecar))
    row = {"id": "a", "asked_at": "2026-02-28T10:00:00Z", "distance": 10.0, "vehicle": "van"}

    def post(model: str, id_: str) -> Any:
        return service.http.post(f"/v1/models/{model}/predict", json=row | {"id": id_})

    expected = predict(
        kept.fitted, pa.table({"distance": [10.0], "load": pa.nulls(1), "vehicle": ["van"]})
    )
    sidecar.within = 20.0
    said = post("eta-de", "first").json()
    assert said["predictions"] == [{"id": "first", "prediction": expected[0]}]
    sidecar.within = 0.3
    child = house.pid
    os.kill(child, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(4) as threads:
            waiting = [threads.submit(post, "eta-de", f"away-{n}") for n in range(4)]
            assert [post("eta-fr", f"fr-{n}").status_code for n in range(3)] == [200] * 3
            away = [each.result() for each in waiting]
    finally:
        os.kill(child, signal.SIGCONT)
    assert [(each.status_code, each.headers["retry-after"]) for each in away] == [(503, "1")] * 4
    assert [each.json()["error"] for each in away] == [
        {
            "what": "the sidecar did not answer within 0.3 s",
            "where": "eta-de",
            "hint": "send it again a little later",
            "faults": [],
        }
    ] * 4
    sidecar.within = 20.0
    assert post("eta-de", "last").status_code == 200
    logged = sorted(each.id for each in service.spool.kept)
    assert logged == ["first", "fr-0", "fr-1", "fr-2", "last"]
    sidecar.close()


def test_a_service_that_asks_one_of_its_own_loads_nothing_itself_and_takes_it_along(
    house: House,
) -> None:
    """What answers over HTTP has no library of training in it; killed, it leaves nobody behind."""
    kept = house.kept("constant", number=7.0)
    program = """
import asyncio, sys
from datetime import datetime, UTC
from pathlib import Path
from types import SimpleNamespace
import httpx, psutil
from driftloop.records import Head
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.sidecar import loader, own_sidecar
from driftloop.serve.slot import Slots
from driftloop.spec import load_fleet
fleet = load_fleet(Path(sys.argv[1]))
head = Head(model="eta-de", epoch=1, version=1, digest=sys.argv[3], artifact=sys.argv[2])
spool = SimpleNamespace(predictions=lambda family, rows: None)
clock = SimpleNamespace(now=lambda: datetime.now(UTC))
async def ask(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        row = {"asked_at": "2026-03-01T10:00:00Z", "distance": 3.0, "vehicle": "van"}
        return (await http.post("/v1/models/eta-de/predict", json=row)).json()
with own_sidecar() as sidecar:
    slots = Slots(fleet, load=loader(sidecar))
    slots.refresh([head])
    service = Service(fleet=fleet, slots=slots, spool=spool, clock=clock)
    app = online_app(service, heads=lambda: [head], poll_every=1)
    print(asyncio.run(ask(app))["predictions"][0]["prediction"])
    heavy = {"sklearn", "skops", "joblib", "mlflow", "pandas", "onnx", "skl2onnx", "scipy"}
    print(sorted(heavy & set(sys.modules)))
    print(psutil.Process().children()[0].pid, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, MONITORS, kept.file, kept.digest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(3)]
        assert said[:2] == ["7.0", "[]"]
        process.kill()
    wait_until(lambda: not is_alive(int(said[2])))


def test_without_a_sidecar_a_model_is_away_and_not_damaged(house: House, tmp_path: Path) -> None:
    """A service that starts first says that there is a champion, and takes it up later."""
    kept = house.kept("constant", number=8.0)
    nobody = Sidecar(partial(connect, tmp_path))
    slots = Slots(fleet_of(house), load=loader(nobody))
    _, (refused,) = slots.refresh([kept.head(epoch=1)])
    assert "the sidecar is not there" in refused.error.what
    with pytest.raises(ChampionRefused, match="the sidecar is not there"):
        slots.slot(MODEL).hand()
    nobody._connect = partial(connect, house.socket)
    taken, _ = slots.refresh([kept.head(epoch=1)])
    assert [head.epoch for head in taken] == [1]
    nobody.close()


def test_two_in_one_home_is_one_too_many(house: House) -> None:
    """The second says so and changes nothing."""
    ran = subprocess.run(
        [sys.executable, "-m", "driftloop", "--home", house.folder / "home", "_sidecar"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 2
    assert "another sidecar serves here" in ran.stderr


def test_its_parent_killed_nobody_is_left_behind(house: House) -> None:
    """The child sees the end of it, and frees the lock for the one that is started next."""
    parent, child = house.parent.pid, house.pid
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not is_alive(child))


def fleet_of(house: House) -> Fleet:
    fleet = load_fleet(MONITORS)
    return fleet.only((MODEL,))


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    patience = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < patience, "it did not become true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
