"""What the demo shows while it runs: time, services, models, and what just happened."""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from driftloop.demo.replay import Tally
from driftloop.records import (
    Decided,
    Fact,
    Failed,
    Gated,
    Kind,
    ModelId,
    Moved,
    Ordered,
    Paged,
    Stage,
    State,
    metric_name,
)
from driftloop.wiring import System

COLOURS = {
    State.FRESH: "green",
    State.DRIFTING: "yellow",
    State.DECAYING: "red",
    State.DATA_FAULT: "magenta",
    State.BLIND: "dim",
}
LINES = 12
FIRST = "first/"
"""What the keys of orders for a first version begin with."""
NEWEST = 40
"""Facts of a kind that are looked at each time; more cannot happen between two looks."""


class Display:
    """The demo's live picture, made of what the ledger says; `refresh` looks again."""

    def __init__(self, system: System, *, start: datetime, end: datetime) -> None:
        """Show nothing yet."""
        self.tally = Tally()
        self.watching = False
        self.over = False
        self._system = system
        self._start, self._end = start, end
        self._services: dict[str, str] = {}
        self._lines: deque[tuple[str, str]] = deque(maxlen=LINES)
        self._seen: set[tuple[str, str]] = set()
        self._counts = {"pages": 0, "retrained": 0, "passed": 0, "refused": 0, "failed": 0}
        self._decided: dict[ModelId, Decided] = {}
        self._gated: dict[ModelId, Gated] = {}
        self._versions: dict[ModelId, int] = {}
        self._began = time.monotonic()

    def service(self, name: str, event: str, detail: str) -> None:
        """Take note of what a service did."""
        self._services[name] = event
        if event in {"died", "restarting"}:
            self.say(f"{name}: {detail or event}", style="bold red")

    def say(self, line: str, *, style: str = "") -> None:
        """Add a line to what happened."""
        stamp = f"{self._system.clock.now():%b %d}" if self.watching else "      "
        self._lines.append((style, f"{stamp}  {line}"))

    def refresh(self) -> None:
        """Look into the ledger for what is new."""
        for kind, tell in (
            (Decided, self._decision),
            (Paged, self._page),
            (Ordered, self._order),
            (Gated, self._gate),
            (Failed, self._failure),
            (Moved, self._move),
        ):
            self._news(kind, tell)  # type: ignore[arg-type]

    def __rich__(self) -> RenderableType:
        """Return the picture as it is now."""
        return Group(self._head(), self._table(), self._happened())

    # -- what is new ------------------------------------------------------------------------

    def _news(self, kind: type[Fact], tell: Callable[[Fact], None]) -> None:
        for fact in self._system.ledger.facts(kind, last=NEWEST):
            key = (kind.__name__, f"{fact.model} {fact.at} {getattr(fact, 'version', '')}")
            if isinstance(fact, Paged):
                key = (kind.__name__, fact.notice.key)
            if key not in self._seen:
                self._seen.add(key)
                tell(fact)

    def _decision(self, fact: Decided) -> None:
        before = self._decided.get(fact.model)
        self._decided[fact.model] = fact
        state = fact.decision.state
        changed = before is None or before.decision.state is not state
        if changed and state in {State.DRIFTING, State.DATA_FAULT}:
            self.say(f"{fact.model} {fact.decision.reason}"[:150], style=COLOURS[state])

    def _page(self, fact: Paged) -> None:
        if fact.notice.stage is Stage.OPENED:
            self._counts["pages"] += 1
            self.say(f"paged {fact.notice.channel}: {fact.notice.headline}", style="red")
        elif fact.notice.stage is Stage.RECOVERED:
            self.say(f"{fact.model} has recovered", style="green")

    def _order(self, fact: Ordered) -> None:
        if not fact.order.key.startswith(FIRST):
            self._counts["retrained"] += 1

    def _gate(self, fact: Gated) -> None:
        self._gated[fact.model] = fact
        if fact.order_key.startswith(FIRST):
            return
        result = fact.result
        self._counts["passed" if result.passed else "refused"] += 1
        if not result.passed:
            gain = f"{result.gain:+.1%}" if result.gain is not None else "no gain"
            self.say(f"{fact.model} v{fact.version} refused by the gate ({gain})", style="yellow")

    def _failure(self, fact: Failed) -> None:
        self._counts["failed"] += 1
        self.say(f"{fact.model} could not be retrained: {fact.error}"[:150], style="bold red")

    def _move(self, fact: Moved) -> None:
        self._versions[fact.model] = fact.head.version
        gate = self._gated.get(fact.model)
        if gate is None or gate.result.champion_loss is None:
            return
        result = gate.result
        self.say(
            f"{fact.model} v{fact.head.version} answers now: {metric_name(result.loss)} "
            f"{result.champion_loss:.3g} before, {result.candidate_loss or 0:.3g} after, "
            f"on {result.n} held-out rows",
            style="cyan",
        )

    # -- the picture ------------------------------------------------------------------------

    def _head(self) -> RenderableType:
        now = self._system.clock.now()
        grid = Table.grid(padding=(0, 2))
        done = (now - self._start) / (self._end - self._start)
        grid.add_row(
            Text(f"{now:%a %d %b %Y}", style="bold"),
            ProgressBar(total=1.0, completed=min(done, 1.0), width=40),
            f"{time.monotonic() - self._began:4.0f} s",
            f"{self.tally.rows:,} predictions  {self.tally.labels:,} labels"
            + (f"  {self.tally.events:,} events" if self.tally.events else ""),
            Text(
                f"{len(self.tally.failures)} failed",
                style="bold red" if self.tally.failures else "green",
            ),
        )
        marks = Text()
        for name, event in self._services.items():
            marks.append(f"{name} ", style="green" if event == "healthy" else "yellow")
        marks.append("   ")
        marks.append("  ".join(f"{n} {what}" for what, n in self._counts.items()), style="bold")
        return Group(grid, marks)

    def _table(self) -> RenderableType:
        table = Table(
            "model", "state", "version", "error", "when released", box=None, padding=(0, 2)
        )
        for model in self._system.fleet.models:
            fact = self._decided.get(model)
            if fact is None:
                table.add_row(model, "", "", "", "")
                continue
            state = fact.decision.state
            version = self._versions.get(model, fact.decision.version)
            error, usual = _readings(fact) if fact.decision.version == version else ("", "")
            table.add_row(
                model,
                Text(state.value, style=COLOURS[state]),
                f"v{version}",
                error,
                usual,
            )
        return table

    def _happened(self) -> RenderableType:
        text = Text("\n").join(Text(line, style=style) for style, line in self._lines)
        return Panel(text, title="what happened", title_align="left", height=LINES + 2)


def _readings(fact: Decided) -> tuple[str, str]:
    for verdict in fact.decision.verdicts:
        reading = verdict.reading
        if reading.kind is Kind.DECAY:
            value = f"{reading.value:.3g}" if reading.value is not None else "?"
            usual = f"{reading.baseline:.3g}" if reading.baseline is not None else ""
            return f"{value} (n={reading.n})", usual
    return "", ""
