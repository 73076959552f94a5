"""One installation as its users meet it: real services, a real fleet of two, a clock we set.

The tests tell one story in order. The clock stands still but where a test moves it, so that what
is judged does not depend on how fast the machine is; everything else runs in wall time.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from integration.house import (
    answers,
    eventually,
    flow_runs,
    free_ports,
    processes_of,
    yardstick,
)

from driftloop.clock import Clock
from driftloop.records import (
    Decided,
    Failed,
    Gated,
    Measured,
    ModelId,
    Moved,
    Ordered,
    Paged,
    Stage,
    State,
    Trained,
    Window,
)
from driftloop.settings import Settings
from driftloop.wiring import System

MONITORS = Path(__file__).parents[1] / "monitors"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
"""A clock that is yet to start shows its origin for as long."""
DE, FR = ModelId("eta-de"), ModelId("eta-fr")
POLICY = {"holdout": "3d", "span": "28d", "time_limit": "150s"}
"""Shorter than the test monitors': a story of three weeks has to hold two trainings. A fit may
take longer: of the first in a process it is the libraries' start that takes."""
HARM = 12
"""Days of labels that turn out much worse than usual."""


@dataclass
class Fleet:
    """An installation that `driftloop up` runs, and what a user does to it."""

    settings: Settings
    process: subprocess.Popen[bytes]
    said: Path
    up_within: float
    slow: float
    system: System
    http: httpx.Client
    now: datetime = BEGIN

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `driftloop` as a person would."""
        return driftloop(self.settings, *words)

    def step(self, days: float) -> None:
        """Let `days` pass at once."""
        self.now += timedelta(days=days)
        stand_at(self.settings, self.now)

    def predict(self, model: ModelId, body: dict[str, Any]) -> httpx.Response:
        """Ask for predictions."""
        return self.http.post(f"/v1/models/{model}/predict", json=body)

    def label(self, model: ModelId, body: dict[str, Any]) -> httpx.Response:
        """Hand in labels."""
        return self.http.post(f"/v1/models/{model}/labels", json=body)

    def days(self, count: int, *, seed: int, worse: Sequence[ModelId] = ()) -> None:
        """Let `count` days pass with sixty rows a day asked and labelled for each model.

        The log has them all before the days pass, at once.
        """
        for number, model in enumerate((DE, FR)):
            rows = made(
                model,
                60 * count,
                start=self.now,
                days=count,
                seed=seed + number,
                worse=model in worse,
            )
            before = self.labelled(model)
            asked = [{k: shown(v) for k, v in row.items() if k in a_row(id="")} for row in rows]
            assert self.predict(model, {"rows": asked}).status_code == 200
            labels = [{"id": row["id"], "value": row["label"]} for row in rows]
            assert self.label(model, {"labels": labels}).status_code == 202
            wanted = before + len(rows)
            eventually(lambda m=model, n=wanted: self.labelled(m) == n, f"labels of {model}")  # type: ignore[misc]
        self.step(count)

    def labelled(self, model: ModelId) -> int:
        """Return how many rows of `model` have a label in the log."""
        whole = Window(
            model=model,
            start=BEGIN - timedelta(days=366),
            end=BEGIN + timedelta(days=366),
            known_at=BEGIN + timedelta(days=366),
        )
        return self.system.log.summary(self.system.fleet.family(model), whole).labels

    def decided(self, model: ModelId) -> Decided:
        """Return the newest decision on `model`, once it is one of the present moment."""

        def present() -> Decided | None:
            facts = self.system.ledger.facts(Decided, model=model, last=1)
            return facts[0] if facts and facts[0].at == self.now else None

        what = f"a decision on {model} at {self.now:%Y-%m-%d}"
        return eventually(present, what, so_far=self.so_far)

    def version(self, model: ModelId) -> int | None:
        """Return which version answers for `model` over HTTP."""
        shown = self.http.get("/v1/models").json()["models"]
        return next(each["version"] for each in shown if each["model"] == model)

    def messages(self) -> list[dict[str, Any]]:
        """Return what stands in the local Slack, oldest first."""
        url = f"http://{self.settings.host}:{self.settings.slack_port}/messages.json"
        found: list[dict[str, Any]] = httpx.get(url, timeout=30).json()
        return found

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the runs of a flow that have ended well, oldest first."""
        found = flow_runs(self.settings.prefect_api, flow)
        return [run for run in found if run["state_type"] == "COMPLETED"]

    def so_far(self) -> str:
        """Return what the loop did of late, for a failure's message: facts, runs, logs."""
        lines = [f"the clock stands at {self.now}"]
        for fact in self.system.ledger.facts(Decided, last=4):
            made = fact.decision
            lines.append(f"Decided {made.key}: {made.reason} (blocked: {made.blocked})")
        for kind in (Ordered, Trained, Gated, Failed, Moved, Paged):
            lines += [f"{fact!r}"[:400] for fact in self.system.ledger.facts(kind, last=3)]
        for flow in ("renew", "watch", "maintain"):
            try:
                runs = flow_runs(self.settings.prefect_api, flow)
            except httpx.HTTPError as error:
                lines.append(f"runs of {flow}: {error!r}")
                continue
            states = Counter(run["state_name"] for run in runs)
            lines.append(f"runs of {flow}: {dict(states)}")
            begun = [run for run in runs if run["state_name"] not in {"Skipped", "Late"}]
            lines += [_ran(run) for run in begun[-5:]]
        return "\n".join([*lines, self.log_tails()])

    def log_tails(self) -> str:
        """Return the ends of the services' logs, for a failure's message."""
        files = sorted(self.settings.logs.glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-1500:]}" for file in files)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """`driftloop up` over two models, watched all the time, the clock standing at March 1st."""
    folder = tmp_path_factory.mktemp("installation")
    online, pages, slack, desk, mlflow, prefect = free_ports(6)
    settings = Settings(
        home=folder / "home",
        monitors=monitors_in(folder / "monitors"),
        online_port=online,
        pages_port=pages,
        slack_port=slack,
        desk_port=desk,
        mlflow_port=mlflow,
        prefect_port=prefect,
        watch_every=2.0,
        maintain_every=10.0,
        ingest_every=0.25,
        seal_every=0.2,
        poll_every=0.25,
    )
    settings.home.mkdir()
    stand_at(settings, BEGIN)
    slow = yardstick()
    said = folder / "up.txt"
    began = time.monotonic()
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftloop", "up"],
            env=environment(settings),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(
            lambda: "Ctrl-C stops everything" in said.read_text() or process.poll() is not None,
            "everything up",
            within=240,
        )
        assert process.poll() is None, said.read_text()
        up_within = time.monotonic() - began
        system = System(settings)
        with httpx.Client(base_url=settings.online_url, timeout=30.0) as http, system.log:
            yield Fleet(settings, process, said, up_within, slow, system, http)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def test_up_starts_everything(house: Fleet) -> None:
    """Within a minute every service is healthy, and every address that it prints answers.

    On a slow or busy machine, where one import alone takes seconds, within 25 such times.
    """
    assert house.up_within < max(60.0, 25 * house.slow)
    ran = house.run("status")
    said = f"{ran.stdout}\n{house.log_tails()}"
    assert "online" in ran.stdout, said
    for name in ("online", "pages", "slack", "desk", "prefect"):
        port = getattr(house.settings, f"{name}_port")
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=30).status_code < 500, name
    assert "2 models" in house.said.read_text()


def test_without_a_champion_a_request_is_to_come_again(house: Fleet) -> None:
    """503 with Retry-After, not an answer from nowhere; `report` says the same."""
    answer = house.predict(DE, a_row())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    ran = house.run("report", DE)
    assert (ran.returncode, "no champion" in ran.stderr) == (2, True), ran.stderr


def test_history_and_first_versions(house: Fleet, tmp_path: Path) -> None:
    """A backfilled Parquet is what `driftloop train` makes both first versions of."""
    rows = [
        row
        for number, model in enumerate((DE, FR))
        for row in made(model, 900, start=BEGIN - timedelta(days=28), days=28, seed=number)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "history.parquet")
    ran = house.run("backfill", "eta", str(tmp_path / "history.parquet"))
    assert ran.returncode == 0, ran.stderr
    assert "1800 rows, 1800 of them labelled" in ran.stdout
    eventually(lambda: house.labelled(DE) == house.labelled(FR) == 900, "the history in the log")
    ran = house.run("train")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("promoted: first version") == 2
    eventually(lambda: house.version(DE) == house.version(FR) == 1, "first versions answering")
    assert "every model has a champion" in house.run("train").stdout


def test_one_row_and_many_are_answered_and_logged(house: Fleet) -> None:
    """Answers near the truth, in the order asked, each id in the log once."""
    rows = made(DE, 50, start=BEGIN - timedelta(hours=2), days=0.05, seed=5)
    asked = [{k: shown(v) for k, v in row.items() if k in a_row(id="")} for row in rows]
    one = house.predict(DE, asked[0]).json()
    many = house.predict(DE, {"rows": asked[1:]}).json()
    assert (one["version"], many["version"]) == (1, 1)
    answers = one["predictions"] + many["predictions"]
    assert [each["id"] for each in answers] == [row["id"] for row in rows]
    errors = [abs(a["prediction"] - r["label"]) for a, r in zip(answers, rows, strict=True)]
    assert np.mean(errors) < 6, errors
    logged = eventually(
        lambda: found if (found := ids_logged(house, DE, rows)) else None, "50 rows in the log"
    )
    assert logged == sorted(row["id"] for row in rows)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("eta-xx/predict", b"{}", 404, "eta-xx"),
        ("eta-de/predict", b"{", 400, "not JSON"),
        ("eta-de/predict", b'{"rows": []}', 422, "at least one"),
        ("eta-de/predict", b'{"asked_at": "2026-03-01T00:00:00Z", "load": 0.5}', 422, "distance"),
        ("eta-de/predict", b'{"asked_at": "yesterday", "distance": 3}', 422, "asked_at"),
        ("eta-de/labels", b'{"id": "x", "value": "long"}', 422, "value"),
        ("eta-xx/labels", b'{"id": "x", "value": 1}', 404, "eta-xx"),
    ],
)
def test_bad_requests_say_what_is_wrong(
    house: Fleet, path: str, body: bytes, status: int, said: str
) -> None:
    """A 4xx whose body names the field or the model; nothing of it reaches the log."""
    answer = house.http.post(f"/v1/models/{path}", content=body)
    assert answer.status_code == status, answer.text
    assert said in answer.text
    assert answer.json()["error"]["what"]


def test_labels_over_http_and_from_a_file(house: Fleet, tmp_path: Path) -> None:
    """A label reaches the log either way, and one that comes again corrects the one before."""
    rows = made(DE, 50, start=BEGIN - timedelta(hours=2), days=0.05, seed=5)
    before = house.labelled(DE)
    assert house.label(DE, {"id": rows[0]["id"], "value": 1.0}).json() == {"accepted": 1}
    with (tmp_path / "outcomes.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "model", "value"])
        out.writerows([row["id"], DE, row["label"]] for row in rows)
    ran = house.run("labels", str(tmp_path / "outcomes.csv"))
    assert (ran.returncode, ran.stdout) == (0, "50 labels: in the log\n"), ran.stderr
    eventually(lambda: house.labelled(DE) == before + 50, "fifty labels in the log")
    eta = house.system.fleet.family(DE)
    history = house.system.log.label_history(eta, rows[0]["id"])[DE]
    assert [value for _, value in history] == [1.0, pytest.approx(rows[0]["label"])]


@pytest.mark.parametrize("kind", ["parquet", "csv", "query"])
def test_batches_are_scored_as_the_service_would(house: Fleet, tmp_path: Path, kind: str) -> None:
    """Files and queries in, files out: the same answers as over HTTP, logged as well."""
    rows = made(FR, 40, start=BEGIN - timedelta(hours=1), days=0.04, seed=6, tag=kind)
    table = pa.Table.from_pylist(rows).select([*a_row(id="")])
    given, out = tmp_path / f"rows.{kind}", tmp_path / "scored.parquet"
    if kind == "csv":
        pa_csv.write_csv(table, given)
        out = tmp_path / "scored.csv"
    else:
        given = tmp_path / "rows.parquet"
        pq.write_table(table, given)
    source = f"FROM '{given}' WHERE distance >= 0" if kind == "query" else str(given)
    ran = house.run("predict-batch", FR, source, "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    scored = pa_csv.read_csv(out) if kind == "csv" else pq.read_table(out)
    body = [{k: shown(v) for k, v in row.items() if k != "id"} for row in table.to_pylist()]
    online = house.predict(FR, {"rows": body}).json()["predictions"]
    assert scored["id"].to_pylist() == [row["id"] for row in rows]
    assert scored["prediction"].to_pylist() == pytest.approx([a["prediction"] for a in online])
    eventually(lambda: ids_logged(house, FR, rows) == sorted(scored["id"].to_pylist()), "the log")


def test_watch_runs_measure_and_decide(house: Fleet) -> None:
    """Scheduled runs appear; each model is measured and decided on once for each moment."""
    house.days(2, seed=10)
    for model in (DE, FR):
        decision = house.decided(model).decision
        assert decision.state is State.FRESH, decision.reason
        measured = house.system.ledger.facts(Measured, model=model, last=1)[0]
        assert (measured.at, measured.labels > 30) == (house.now, True)
    seen = len(house.runs("watch"))
    more = "two more watch runs"
    eventually(lambda: len(house.runs("watch")) >= seen + 2, more, so_far=house.so_far)
    moments = [fact.at for fact in house.system.ledger.facts(Decided, model=DE)]
    assert len(moments) == len(set(moments))
    assert house.messages() == []


@pytest.mark.timeout(600)  # so that whatever it waits for in vain is told as that
def test_harm_is_paged_once_mended_and_told_to_the_end(house: Fleet) -> None:
    """Worse labels: one page, one renewal, a new champion within 2 s of the move, recovery.

    Somebody keeps asking all the while, and no request of theirs fails.
    """
    with asking(house, DE) as asked:
        house.days(HARM, seed=20, worse=[DE])
        decision = house.decided(DE).decision
        assert (decision.state, decision.opens) == (State.DECAYING, True), decision.reason
        # Longer than a fit may take: what comes of that is then told in its own words.
        moved = eventually(
            lambda: second_head(house), "the head to move", within=200, so_far=house.so_far
        )
        moved_at = time.monotonic()
        assert moved.head.version == 2, moved
        eventually(lambda: any(one.version == 2 for one in asked), "version 2 to answer")
        assert next(one.at for one in asked if one.version == 2) - moved_at < 2.0
        time.sleep(1.0)
    assert [one.trouble for one in asked if one.trouble] == []
    versions = [one.version for one in asked]
    assert versions == sorted(versions)
    assert len(asked) > 50

    # What the new champion answers is near the truth again, for two days in a row.
    for seed in (30, 40):
        house.days(1, seed=seed, worse=[DE])
        decision = house.decided(DE).decision
        assert decision.state not in {State.DECAYING, State.DATA_FAULT}, decision.reason
    assert decision.resolves is not None, decision
    eventually(
        lambda: Stage.RECOVERED in [f.notice.stage for f in house.system.ledger.facts(Paged)],
        "the end of the incident told",
        so_far=house.so_far,
    )

    pages = [each for each in house.messages() if "parent_user_id" not in each]
    replies = [each for each in house.messages() if "parent_user_id" in each]
    assert len(pages) == 1, pages
    assert pages[0]["channel_name"] == "ml-logistics"
    assert {each["thread_ts"] for each in replies} == {pages[0]["ts"]}
    stages = [fact.notice.stage for fact in house.system.ledger.facts(Paged)]
    # Nobody acknowledged it: the thread says so once a day.
    assert stages.count(Stage.REMINDED) <= 2
    told = [stage for stage in stages if stage is not Stage.REMINDED]
    assert told == [Stage.OPENED, Stage.RETRAINING, Stage.PROMOTED, Stage.RECOVERED]
    assert "recovered" in replies[-1]["text"]
    (run,) = house.runs("renew")
    assert run["name"] == f"{DE}: promoted version 2"
    assert house.version(FR) == 1


def test_one_id_leads_from_a_prediction_to_its_page_and_the_next_version(house: Fleet) -> None:
    """`driftloop trace`, given a row of the harm: all that came of it, in order; and the logs."""
    ran = house.run("trace", f"{DE}-r20-00719", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    whats = [step["what"] for step in found]
    wanted = ["trained", "predicted", "labelled", "decided", "told: opened", "retraining"]
    wanted += ["trained", "let through", "told: promoted", "told: recovered"]
    left = iter(whats)
    assert all(what in left for what in wanted), whats
    key = next(step["trace"] for step in found if step["what"] == "told: opened")
    by_key = house.run("trace", key)
    assert "version 2" in by_key.stdout
    assert house.run("trace", f"{DE}#2").stdout.splitlines()[0] == by_key.stdout.splitlines()[0]
    lines = (house.settings.logs / "worker.log").read_text().splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    mine = [line["message"] for line in logged if line.get("trace") == key]
    assert any("promoted" in message for message in mine), mine
    nothing = house.run("trace", "no-such-id")
    assert (nothing.returncode, "no-such-id" in nothing.stderr) == (2, True)


def test_pages_show_the_story(house: Fleet) -> None:
    """The fleet's page and the model's tell what happened, and every link of the page opens."""
    pages = house.settings.pages_url
    fleet = httpx.get(pages, timeout=30)
    assert fleet.status_code == 200
    assert DE in fleet.text
    assert FR in fleet.text
    opened = house.system.ledger.facts(Paged)[0].notice
    for link in opened.links:
        # As a browser asks: Prefect's pages answer nobody else.
        answer = httpx.get(link.url, headers={"Accept": "text/html"}, timeout=60)
        assert answer.status_code == 200, link
    assert "DECAYING" in httpx.get(f"{pages}/models/{DE}", timeout=30).text.upper()


def test_report_is_one_whole_html_file(house: Fleet) -> None:
    """Evidently's report on the present window, where `driftloop report` says it is."""
    ran = house.run("report", DE)
    assert ran.returncode == 0, ran.stderr
    file = Path(ran.stdout.strip())
    assert file.suffix == ".html"
    assert "</html>" in file.read_text()[-200:]


def test_mlflow_has_every_version_and_the_same_champion(house: Fleet) -> None:
    """MLflow's own server shows both versions of the model; its alias is the ledger's head."""
    url = f"http://127.0.0.1:{house.settings.mlflow_port}/api/2.0/mlflow"
    eventually(lambda: answers(f"{url.removesuffix('/api/2.0/mlflow')}/health"), "MLflow up")
    shown = httpx.get(f"{url}/registered-models/get", params={"name": DE}, timeout=30).json()
    head = house.system.ledger.head(DE)
    assert head is not None
    alias = {each["alias"]: each["version"] for each in shown["registered_model"]["aliases"]}
    assert alias == {"champion": str(head.version)} == {"champion": "2"}
    found = httpx.get(
        f"{url}/model-versions/search", params={"filter": f"name='{DE}'"}, timeout=30
    ).json()["model_versions"]
    gates = {
        each["version"]: {tag["key"]: tag["value"] for tag in each["tags"]}["gate"]
        for each in found
    }
    assert gates == {"1": "passed", "2": "passed"}


def test_rollback_makes_the_version_before_answer(house: Fleet) -> None:
    """One command; online follows by itself, and so does MLflow's alias."""
    ran = house.run("rollback", DE)
    assert ran.returncode == 0, ran.stderr
    assert f"{DE}: version 1 answers from epoch 3 on" in ran.stdout
    eventually(lambda: house.version(DE) == 1, "version 1 answering")
    answer = house.predict(DE, a_row()).json()
    assert (answer["version"], answer["epoch"]) == (1, 3)
    champions = [each.version for each in house.system.registry.versions(DE) if each.champion]  # type: ignore[attr-defined]
    assert champions == [1]
    again = house.run("rollback", DE, "--to", "7")
    assert (again.returncode, "versions that answered before" in again.stderr) == (2, True)


def test_status_tells_that_all_is_well(house: Fleet) -> None:
    """Exit code 0, every service healthy, none ever restarted."""
    ran = house.run("status")
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.count("healthy") == 9
    assert "died" not in house.said.read_text()


def test_interrupt_stops_everything(house: Fleet) -> None:
    """Ctrl-C: down within 30 seconds with exit code 0, no process left, no port held."""
    mine = processes_of(house.settings)
    assert len(mine) >= 9
    house.process.send_signal(signal.SIGINT)
    assert house.process.wait(30) == 0, house.said.read_text()
    assert "everything is stopped" in house.said.read_text()
    left = eventually(lambda: not processes_of(house.settings), "no process left", within=5)
    assert left
    with pytest.raises(httpx.ConnectError):
        house.http.get("/healthz")
    assert not list(house.settings.spool.rglob("*.open"))


# -- rows -----------------------------------------------------------------------------------


def made(
    model: ModelId,
    count: int,
    *,
    start: datetime,
    days: float,
    seed: int,
    worse: bool = False,
    tag: str = "r",
) -> list[dict[str, Any]]:
    """Return rows with their outcomes; in a worse world everything takes half as long again."""
    rng = np.random.default_rng(seed)
    distance = rng.uniform(0, 1000, count)
    load = rng.uniform(0, 1, count)
    vehicle = rng.choice(["van", "truck", "bike"], count)
    minutes = 10 + distance / 20 + 20 * load + 8 * (vehicle == "bike") + rng.normal(0, 2, count)
    at = [start + timedelta(days=days) * (n / count) for n in range(count)]
    return [
        {
            "id": f"{model}-{tag}{seed}-{n:05d}",
            "model": model,
            "asked_at": at[n],
            "distance": float(distance[n]),
            "load": float(load[n]),
            "vehicle": str(vehicle[n]),
            "label": float(minutes[n] * (1.5 if worse else 1.0)),
            "observed_at": at[n] + timedelta(hours=2),
        }
        for n in range(count)
    ]


def a_row(**given: Any) -> dict[str, Any]:
    """Return a row as it is sent; anything may be added."""
    at = (BEGIN - timedelta(minutes=1)).isoformat()
    usual = {"asked_at": at, "distance": 500.0, "load": 0.5, "vehicle": "van"}
    return {**({"id": given["id"]} if "id" in given else {}), **usual}


def shown(value: object) -> object:
    """Return `value` as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else value


def ids_logged(house: Fleet, model: ModelId, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the ids among `rows` that the log has, once for each time they stand there."""
    table = house.system.fleet.family(model).table
    found = house.system.log.query(
        f"SELECT id FROM lake.{table}_predictions WHERE model = $model ORDER BY id",
        {"model": model},
    )["id"].to_pylist()
    wanted = {row["id"] for row in rows}
    return [each for each in found if each in wanted]


# -- somebody who keeps asking --------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One request: when it was answered, by which version, or what went wrong."""

    at: float
    version: int = 0
    trouble: str = ""


@contextmanager
def asking(house: Fleet, model: ModelId) -> Iterator[list[Asked]]:
    """Ask for a prediction some forty times a second until the block ends."""
    asked: list[Asked] = []
    over = threading.Event()
    rows = made(model, 200, start=BEGIN, days=1, seed=99)
    bodies = [{k: shown(v) for k, v in row.items() if k in a_row()} for row in rows]

    def ask() -> None:
        with httpx.Client(base_url=house.settings.online_url, timeout=10.0) as http:
            while not over.wait(0.025):
                body = bodies[len(asked) % len(bodies)]
                try:
                    answer = http.post(f"/v1/models/{model}/predict", json=body)
                    answer.raise_for_status()
                    asked.append(Asked(time.monotonic(), answer.json()["version"]))
                except httpx.HTTPError as error:
                    asked.append(Asked(time.monotonic(), trouble=repr(error)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def second_head(house: Fleet) -> Moved | None:
    """Return the move to the second champion; fail at once when the renewal ended without one."""
    moves = house.system.ledger.facts(Moved, model=DE)
    if len(moves) > 1:
        return moves[1]
    for failed in house.system.ledger.facts(Failed, model=DE):
        pytest.fail(f"the renewal failed: {failed.error}")
    for gated in house.system.ledger.facts(Gated, model=DE):
        if not gated.result.passed:
            pytest.fail(f"the gate refused: {gated.result.reason}")
    return None


def _ran(run: dict[str, Any]) -> str:
    """Return how a flow run went, in a line: when it was due, began and ended, and as what."""
    times = " ".join(str(run[f"{name}_time"])[11:23] for name in ("expected_start", "start", "end"))
    return f"  {times} {run['name']}: {run['state_name']}: {run['state']['message']}"[:300]


# -- the installation -----------------------------------------------------------------------


def driftloop(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    """Return what a command came to."""
    return subprocess.run(
        [sys.executable, "-m", "driftloop", *words],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def environment(settings: Settings) -> dict[str, str]:
    """Return this process's environment with the installation's settings."""
    given = {"PYTHONUNBUFFERED": "1", "COLUMNS": "150"}
    return {**os.environ, **settings.environment(), **given}


def monitors_in(folder: Path) -> Path:
    """Return a copy of the test monitors with the one family of this story."""
    shutil.copytree(MONITORS, folder, ignore=shutil.ignore_patterns("churn.toml"))
    family = folder / "eta.toml"
    family.write_text(
        f'{family.read_text()}\n[gate]\nholdout = "{POLICY["holdout"]}"\n'
        f'[retrain]\nspan = "{POLICY["span"]}"\ntime_limit = "{POLICY["time_limit"]}"\n'
    )
    return folder


def stand_at(settings: Settings, at: datetime) -> None:
    """Let the installation's clock stand still at `at`."""
    Clock(origin=at, started=STANDING, speed=1.0).write(settings.clock)
