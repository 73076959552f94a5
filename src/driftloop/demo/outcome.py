"""What the year came to, from log and ledger: the fleet as kept, and as if never retrained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.ports import Model
from driftloop.records import Gated, Measured, ModelId, Moved, Ordered, Paged, Stage, Task, Window
from driftloop.spec import Family
from driftloop.wiring import System

LOSSES = {
    Task.REGRESSION: "mean absolute error",
    Task.BINARY: "log loss",
    Task.MULTICLASS: "share misclassified",
}
WEEK = np.timedelta64(7, "D")
KEPT, NEVER = "#1f77b4", "#8c8c8c"
MARKS = (
    ("pages", "v", "#d62728", "triangle-down"),
    ("retrains", "|", "#ff7f0e", "line-ns-open"),
    ("swaps", "^", "#2ca02c", "triangle-up"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutcome:
    """One model's year: its error as kept and as it would have been, and what was done to it."""

    model: ModelId
    rows: int
    kept: float
    never: float
    pages: int
    retrains: int
    swaps: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyOutcome:
    """One family's year. `weeks`, `kept` and `never` run side by side, one entry a week."""

    family: Family
    loss: str
    models: tuple[ModelOutcome, ...]
    weeks: tuple[datetime, ...]
    kept: tuple[float, ...]
    never: tuple[float, ...]
    marks: Mapping[str, tuple[datetime, ...]]
    unwatched: tuple[tuple[datetime, datetime], ...]
    overall_kept: float
    overall_never: float

    @property
    def retrains_a_model(self) -> float:
        """Retrainings begun, on average over the models."""
        return sum(model.retrains for model in self.models) / max(len(self.models), 1)


def outcome(
    system: System, family: Family, *, start: datetime, end: datetime, cadence: timedelta
) -> FamilyOutcome | None:
    """Return what [start, end) came to for `family`; None when nothing of it was answered.

    The error is the mean absolute error for regression and the log loss for binary, over every
    labelled row that was answered. "Never retrained" scores the same logged rows with each
    model's first version. `cadence` is the loop time between two watch passes: longer pauses
    are `unwatched`.
    """
    models: list[ModelOutcome] = []
    event_days: list[np.ndarray] = []
    losses: list[tuple[np.ndarray, np.ndarray]] = []
    for model in family.models:
        rows = _answered(system, family, model, start, end)
        moves = system.ledger.facts(Moved, model=model)
        if not moves or rows.num_rows == 0:
            continue
        label = rows["label"].to_numpy()
        kept = loss(family.task, label, rows["prediction"].to_numpy())
        never = loss(family.task, label, _answers(_first(moves), family, rows))
        event_days.append(rows["event_time"].to_numpy().astype("datetime64[D]"))
        losses.append((kept, never))
        gated = system.ledger.facts(Gated, model=model)
        models.append(
            ModelOutcome(
                model=model,
                rows=rows.num_rows,
                kept=float(kept.mean()),
                never=float(never.mean()),
                pages=len(_pages(system, model)),
                retrains=len(_retrains(system, model)),
                swaps=len(moves) - 1,
                refused=sum(not gate.result.passed for gate in gated),
            )
        )
    if not models:
        return None
    days = np.concatenate(event_days)
    kept = np.concatenate([pair[0] for pair in losses])
    never = np.concatenate([pair[1] for pair in losses])
    week = (days - np.datetime64(start.date())) // WEEK
    counts = np.bincount(week)
    seen = np.flatnonzero(counts)
    return FamilyOutcome(
        family=family,
        loss=LOSSES[family.task],
        models=tuple(models),
        weeks=tuple(start + timedelta(days=7 * int(number)) for number in seen),
        kept=tuple((np.bincount(week, kept)[seen] / counts[seen]).tolist()),
        never=tuple((np.bincount(week, never)[seen] / counts[seen]).tolist()),
        marks={
            "pages": tuple(at for model in family.models for at in _pages(system, model)),
            "retrains": tuple(at for model in family.models for at in _retrains(system, model)),
            "swaps": tuple(
                move.at
                for model in family.models
                for move in system.ledger.facts(Moved, model=model)[1:]
            ),
        },
        unwatched=_unwatched(system, family, end, cadence),
        overall_kept=float(kept.mean()),
        overall_never=float(never.mean()),
    )


def draw(found: FamilyOutcome, folder: Path) -> tuple[Path, Path]:
    """Return the PNG and the HTML file drawn into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    png = folder / f"{found.family.name}.png"
    html = folder / f"{found.family.name}.html"
    _draw_png(found, png)
    _draw_html(found, html)
    return png, html


def loss(task: Task, label: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return each row's absolute error, for binary tasks its log loss, for classes if it is wrong.

    The shape is (n,).

    Raises:
        ValueError: the task has no right answers.
    """
    match task:
        case Task.REGRESSION:
            return np.asarray(np.abs(label - answer))
        case Task.BINARY:
            sure = np.clip(np.where(label == 1, answer, 1 - answer), 1e-15, None)
            return np.asarray(-np.log(sure))
        case Task.MULTICLASS:
            return np.asarray(label != answer, dtype=np.float64)
        case Task.SCORE:
            raise ValueError("scores have no right answers")


# -- from log and ledger --------------------------------------------------------------------


def _answered(
    system: System, family: Family, model: ModelId, start: datetime, end: datetime
) -> pa.Table:
    window = Window(model=model, start=start, end=end, known_at=end + timedelta(days=365))
    rows = system.log.rows(family, window)
    return rows.filter(pc.and_(pc.is_valid(rows["label"]), pc.is_valid(rows["prediction"])))


def _first(moves: Sequence[Moved]) -> Model:
    from driftloop.serve.model import load_model

    return load_model(Path(moves[0].head.artifact), moves[0].head.digest)


def _answers(model: Model, family: Family, rows: pa.Table) -> np.ndarray:
    columns = {name: rows[name].to_pylist() for name in family.features}
    return np.asarray(model.predict(columns), dtype=np.float64)


def _pages(system: System, model: ModelId) -> list[datetime]:
    return [
        fact.at
        for fact in system.ledger.facts(Paged, model=model)
        if fact.notice.stage is Stage.OPENED
    ]


def _retrains(system: System, model: ModelId) -> list[datetime]:
    return [
        fact.at
        for fact in system.ledger.facts(Ordered, model=model)
        if not fact.order.key.startswith("first/")
    ]


def _unwatched(
    system: System, family: Family, end: datetime, cadence: timedelta
) -> tuple[tuple[datetime, datetime], ...]:
    passes = sorted(
        {fact.at for model in family.models for fact in system.ledger.facts(Measured, model=model)}
    )
    ends = [*passes, end]
    return tuple(
        (before, after) for before, after in pairwise(ends) if after - before > 4 * cadence
    )


# -- drawing --------------------------------------------------------------------------------


def _title(found: FamilyOutcome) -> str:
    unit = f" {found.family.unit}" if found.family.unit else ""
    return (
        f"{found.family.name}: {found.loss} {found.overall_kept:.3g}{unit} kept by driftloop, "
        f"{found.overall_never:.3g}{unit} never retrained "
        f"({len(found.models)} models, {found.retrains_a_model:.1f} retrainings each)"
    )


def _draw_png(found: FamilyOutcome, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots()
    weeks = _naive(found.weeks)
    axes.plot(weeks, found.never, color=NEVER, linewidth=2, label="never retrained")
    axes.plot(weeks, found.kept, color=KEPT, linewidth=2.5, label="kept by driftloop")
    low = min(*found.kept, *found.never)
    span = max(*found.kept, *found.never) - low or 1.0
    for row, (name, marker, color, _) in enumerate(MARKS, start=1):
        at = _naive(found.marks[name])
        height = np.full(len(at), low - span * 0.07 * row)
        axes.plot(
            at, height, marker, color=color, markersize=7, alpha=0.6, label=f"{len(at)} {name}"
        )
    for number, (begin, end) in enumerate(found.unwatched):
        axes.axvspan(
            *_naive((begin, end)),
            color="#d62728",
            alpha=0.12,
            label="nobody watched" if number == 0 else None,
        )
    axes.set_ylim(top=low + span * 1.2)
    axes.set_title(_title(found), fontsize=11)
    axes.set_ylabel(f"{found.loss}, weekly" + (f" ({u})" if (u := found.family.unit) else ""))
    axes.grid(visible=True, alpha=0.25)
    axes.legend(ncols=3, fontsize=9, loc="upper right")
    figure.savefig(file, dpi=130)


def _naive(times: Sequence[datetime]) -> Any:  # noqa: ANN401 - what matplotlib takes for dates
    return np.array([at.replace(tzinfo=None) for at in times], dtype="datetime64[s]")


def _draw_html(found: FamilyOutcome, file: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, values, color in (
        ("never retrained", found.never, NEVER),
        ("kept by driftloop", found.kept, KEPT),
    ):
        figure.add_scatter(x=found.weeks, y=values, name=name, line={"color": color, "width": 3})
    low = min(*found.kept, *found.never)
    span = max(*found.kept, *found.never) - low or 1.0
    for row, (name, _, color, symbol) in enumerate(MARKS, start=1):
        at = found.marks[name]
        figure.add_scatter(
            x=at,
            y=[low - span * 0.07 * row] * len(at),
            mode="markers",
            name=f"{len(at)} {name}",
            marker={"color": color, "symbol": symbol, "size": 10, "opacity": 0.6},
        )
    for begin, end in found.unwatched:
        figure.add_vrect(x0=begin, x1=end, fillcolor="#d62728", opacity=0.12, line_width=0)
    figure.update_layout(
        title=_title(found), yaxis_title=f"{found.loss}, weekly", template="plotly_white"
    )
    figure.write_html(file, include_plotlyjs=True)
