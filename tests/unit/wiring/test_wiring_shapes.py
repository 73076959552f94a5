"""Families of few and of many features: monitor file, lake, a pass, and what people see of it."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dashboards.facts import page_facts
from dashboards.fleet import fleet_view
from dashboards.model import model_view
from dashboards.moment import Moment
from driftloop.loop.watch import order
from driftloop.records import (
    Candidate,
    Head,
    Kind,
    Measured,
    Metric,
    ModelId,
    State,
    Trained,
    Window,
    version_key,
)
from driftloop.spec import Family
from driftloop.wiring import System

DE = ModelId("wide-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 240
LEVELS = ["a", "b", "c"]


@pytest.fixture
def wide(place: Callable[..., Any], tmp_path: Path) -> Callable[[int], System]:
    """Make an installation with one model of so many features, one of them a text, that decays.

    In the rows of level "b" of the first category its error is twice that of all others.
    """

    def make(features: int) -> System:
        monitors = tmp_path / "monitors"
        shutil.copytree(Path(__file__).parents[2] / "monitors", monitors)
        (monitors / "churn.toml").unlink()
        (monitors / "eta.toml").rename(monitors / "wide.toml")
        text = (monitors / "wide.toml").read_text(encoding="utf-8")
        head, _, rest = text.partition("[features]")
        categories = features // 5
        numbers = [f"x{n}" for n in range(features - categories - 1)]
        names = {
            **dict.fromkeys(numbers, '{ kind = "numeric", range = [-9.0, 9.0] }'),
            **{f"c{n}": '{ kind = "categorical" }' for n in range(categories)},
            "said": '{ kind = "text" }',
        }
        declared = "\n".join(f"{name} = {kind}" for name, kind in names.items())
        decay = rest[rest.index("[decay]") :]
        (monitors / "wide.toml").write_text(
            f"{head.replace(chr(34) + 'fr' + chr(34), '').replace(', ]', ']')}"
            f'segments = ["c0"]\n[features]\n{declared}\n{decay}',
            encoding="utf-8",
        )
        made = place(monitors)
        fill(made.system, made.system.fleet.family_named("wide"))
        made.ingest()
        return made.system

    return make


def fill(system: System, family: Family) -> None:
    """Give the model a champion, its reference, and labelled rows."""
    rng = np.random.default_rng(1)
    told: dict[str, Any] = {name: rng.normal(size=ROWS) for name in family.numeric}
    told |= {name: rng.choice(LEVELS, ROWS) for name in family.categorical}
    told["said"] = rng.choice(["late again", "", "fine"], ROWS)
    wrong = rng.normal(size=ROWS) * np.where(told["c0"] == "b", 2.0, 1.0)
    label = 10.0 + rng.normal(size=ROWS)
    ids = [f"r{n}" for n in range(ROWS)]
    ones = pa.array(np.ones(ROWS, np.int32))
    at = [NOW - timedelta(days=13) * (n + 1) / ROWS for n in range(ROWS)]
    times = pa.array(at, pa.timestamp("us", "UTC"))
    values = [pa.array(each) for each in told.values()]
    rows = {
        "id": ids,
        "model": [DE] * ROWS,
        "version": ones,
        "epoch": ones,
        "event_time": times,
        "predicted_at": times,
        "prediction": label + wrong,
        "features": pa.StructArray.from_arrays(values, list(told)),
    }
    labels = {"id": ids, "model": [DE] * ROWS, "value": label, "observed_at": times}
    with system.spool("online") as spool:
        spool.checked_history(family, pa.table(rows), pa.table(labels))
    folder = system.settings.artifacts / DE / "first"
    folder.mkdir(parents=True)
    known = {"event_time": times, "prediction": label + wrong, "label": label}
    pq.write_table(pa.table(known | told), folder / "reference.parquet")
    candidate = Candidate(
        order=order(family, DE, key="first", reason="by hand", now=NOW),
        digest="0" * 64,
        folder=str(folder),
        rows=ROWS,
        holdout_rows=ROWS,
        metrics=(Metric(name="mae", value=0.5),),
        parity=0.0,
        fit_seconds=0.0,
        lower_seconds=0.0,
    )
    trained = Trained(model=DE, at=NOW, version=1, candidate=candidate)
    system.ledger.append(trained, key=version_key(DE, 1))
    head = Head(model=DE, epoch=1, version=1, digest="0" * 64, artifact=f"{folder}/model.onnx")
    system.ledger.move(head, at=NOW, previous=None, reason="by hand")


@pytest.mark.parametrize("features", [5, 500])
def test_a_family_of_any_width_is_watched_and_seen(
    wide: Callable[[int], System], features: int
) -> None:
    """Every column is measured, the decision is kept, told and drawn, with the worst segment."""
    system = wide(features)
    (watched,) = system.watcher.watch()
    assert watched.problem is None
    assert watched.decision is not None
    assert (watched.decision.state, watched.rows) == (State.DECAYING, ROWS)
    (measured,) = system.ledger.facts(Measured, model=DE)
    drift = {r.column for r in measured.readings if r.kind is Kind.DRIFT}
    # Of the text there are three numbers; and the prediction.
    assert len(drift) == features - 1 + 3 + 1
    assert all(r.value is not None for r in measured.readings if r.column != "said.non_ascii")
    assert watched.decision.worst[0].segment == "c0=b"
    family = system.fleet.family(DE)
    span = Window(model=DE, start=NOW - timedelta(days=14), end=NOW, known_at=NOW)
    counted = system.log.partitions(family, [span])[DE]
    assert sum(part.rows for part in counted) == ROWS
    for part in counted:
        assert [column.name for column in part.columns] == [*family.measured, "label"]
        assert sum(column.nulls for column in part.columns) == 0
        numbers = {column.name for column in part.columns if column.low is not None}
        assert numbers == {*family.numeric, "label"}
    evidence = watched.notices[0].evidence
    assert evidence[-1].what == "worst in c0=b: mean absolute error"
    facts = page_facts(system.ledger, DE)
    moment = Moment(clock=system.clock.clock, wall=NOW, newest=NOW, passed=NOW, watch_every=600.0)
    assert model_view(system.fleet, DE, facts, moment).worst == watched.decision.worst
    ((row,),) = (group.rows for group in fleet_view(system.fleet, {DE: facts}, moment).groups)
    assert row.last is not None
    assert (row.last.n, len(row.points)) == (ROWS, 1)
