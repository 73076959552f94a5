"""The gate over thousands of attempts whose rows overlap: how often equal models take turns.

Simulated, against the gate as it was: each attempt judged as if nobody had used its rows before.
Errors have a part that both models share, a part of their own, and good and bad days of their own.
Three fleets of candidates: the same two models again and again (`twins`), a new one of equal worth
at each attempt (`refits`), and a new one that is better by so much (`gain`), after as many
attempts of equal ones that no row is fresh to the gate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
import numpy.typing as npt

from driftloop.gate import Beside, Span, compare, uses
from driftloop.records import GateResult, Task
from driftloop.spec import GatePolicy
from tests.benchmarks._raw import Figure, Line, Plan, Raw

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOLDOUT = 7 * DAY
POLICY = GatePolicy(holdout="7d", min_rows=50, margin=0.0, confidence=0.8)
EVERY = {"10 min": timedelta(minutes=10), "hour": timedelta(hours=1), "day": DAY}
GAINS = (0.02, 0.05, 0.1)
LONGEST = 4 * HOLDOUT
"""A better model that was not let through within so long is counted as never."""

Floats = npt.NDArray[np.float64]


@dataclass
class Stream:
    """Rows at even steps, and what each model, by its number, errs on them; made as asked for."""

    seed: int
    a_day: int
    better: float = 0.0
    """By what share the models from 1 on err less than model 0."""
    _days: dict[tuple[int, int], Floats] = field(default_factory=dict)

    def errors(self, model: int, first: int, last: int) -> Floats:
        """Errors on the rows from `first` to before `last`."""
        days = range(first // self.a_day, (last - 1) // self.a_day + 1)
        whole = np.concatenate([self._day(-1, day) + self._day(model, day) for day in days])
        size = 1.0 - self.better if model else 1.0
        at = first - days.start * self.a_day
        return size * whole[at : at + last - first]

    def _day(self, model: int, day: int) -> Floats:
        found = self._days.get((model, day))
        if found is None:
            rng = np.random.default_rng((self.seed, model + 1, day + 100))
            noise, shock = (6.0, 0.0) if model < 0 else (4.0, 1.0)
            found = rng.normal(0.0, noise, self.a_day) + rng.normal(0.0, shock)
            self._days[model, day] = found
        return found

    def forget(self, model: int, before: int) -> None:
        """Drop a model that is not asked for again, and days that are over."""
        gone = [key for key in self._days if key[0] == model or key[1] < before]
        for key in gone:
            del self._days[key]


def measure(raw: Raw, plan: Plan) -> None:
    """Note the promotions of equal models, and when a better one is let through, of both gates."""
    a_day = 48 if plan.quick else 144
    cycles = max(round((200 if plan.quick else 3000) * plan.size), 20)
    repeats = max(round((3 if plan.quick else 24) * plan.size), 1)
    streams = 1 if plan.quick else 6
    for name, every in EVERY.items():
        for kind in ("twins", "refits"):
            for number in range(streams):
                for gate in ("old", "new"):
                    stream = Stream(plan.seed + number, a_day)
                    flaps = promotions(stream, every, cycles, kind=kind, remembers=gate == "new")
                    raw.note(
                        "equal",
                        every=name,
                        kind=kind,
                        gate=gate,
                        cycles=cycles,
                        # What the first attempt had counts.
                        spans=1.0 + (cycles - 1) * every / HOLDOUT,
                        promotions=flaps,
                    )
    for name in ("hour", "day") if plan.quick else EVERY:
        for gain in GAINS:
            # Four weeks of ten-minute attempts are many.
            for number in range(math.ceil(repeats / 4) if name == "10 min" else repeats):
                for gate in ("old", "new"):
                    stream = Stream(plan.seed * 1000 + number, a_day, better=gain)
                    after = let_through(stream, EVERY[name], remembers=gate == "new")
                    raw.note("better", every=name, gain=gain, gate=gate, cycles=after)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return promotions of equal models for each holdout's worth of time, and delays."""
    found: dict[str, Figure] = {}
    equal = [line for line in lines if line["what"] == "equal"]
    for gate in ("old", "new"):
        for kind in ("twins", "refits"):
            found[f"gate_flaps_{kind}_{gate}"] = Figure(
                {
                    every: _rate(
                        [
                            line
                            for line in equal
                            if (line["gate"], line["kind"], line["every"]) == (gate, kind, every)
                        ]
                    )
                    for every in EVERY
                },
                "a holdout",
                f"promotions of equal models ({kind}), attempt every ..., {gate} gate",
            )
    better = [line for line in lines if line["what"] == "better"]
    for gate in ("old", "new"):
        delays: dict[str, float] = {}
        for line in better:
            key = f"{line['gain']:.0%} every {line['every']}"
            delays[key] = _median([one for one in better if _same(one, line, gate)])
        found[f"gate_cycles_{gate}"] = Figure(
            delays,
            "attempts",
            f"median until a better model is let through, {gate} gate; -1: not in 4 weeks",
        )
    return found


def promotions(stream: Stream, every: timedelta, cycles: int, *, kind: str, remembers: bool) -> int:
    """Return how often a model of equal worth became champion in so many attempts."""
    champion, flaps, spans = 0, 0, []
    for cycle in range(cycles):
        candidate = 1 - champion if kind == "twins" else cycle + 1
        now = START + HOLDOUT + cycle * every
        result, span = attempt(stream, now, champion, candidate, spans if remembers else [])
        spans = [one for one in [*spans, span] if one.end >= now - HOLDOUT]
        gone = candidate
        if result.passed:
            champion, gone, flaps = candidate, champion, flaps + 1
        stream.forget(-2 if kind == "twins" else gone, (now - HOLDOUT - START) // DAY)
    return flaps


def let_through(stream: Stream, every: timedelta, *, remembers: bool) -> int | None:
    """Return how many attempts a better model takes, None if it is never let through.

    Before it, equal ones were tried as often for so long as a holdout lasts.
    """
    begin = START + 2 * HOLDOUT
    moments = [begin - n * every for n in range(1, HOLDOUT // every + 1)]
    spans = [Span(start=now - HOLDOUT, end=now) for now in moments]
    for cycle in range(LONGEST // every):
        now = begin + cycle * every
        result, span = attempt(stream, now, 0, cycle + 1, spans if remembers else [])
        if result.passed:
            return cycle + 1
        spans = [one for one in [*spans, span] if one.end >= now - HOLDOUT]
        stream.forget(cycle + 1, (now - HOLDOUT - START) // DAY)
    return None


def attempt(
    stream: Stream, now: datetime, champion: int, candidate: int, earlier: Sequence[Span]
) -> tuple[GateResult, Span]:
    """Return the gate's word on the holdout that ends `now`, and what it used."""
    length = DAY / stream.a_day
    first, last = ((moment - START) // length for moment in (now - HOLDOUT, now))
    at = np.arange(first, last)
    moments = np.datetime64(START.replace(tzinfo=None), "us") + at * np.timedelta64(length)
    result = compare(
        label=np.zeros(at.size),
        champion=stream.errors(champion, first, last),
        candidate=stream.errors(candidate, first, last),
        block=at // stream.a_day,
        task=Task.REGRESSION,
        policy=POLICY,
        beside=Beside(uses=uses(moments, earlier, block=DAY)),
    )
    ends = (START + int(at[0]) * length, START + int(at[-1]) * length)
    return result, Span(start=ends[0], end=ends[1])


def _rate(lines: Sequence[Line]) -> float:
    spans = sum(line["spans"] for line in lines)
    return round(sum(line["promotions"] for line in lines) / spans, 4) if spans else 0.0


def _same(one: Line, other: Line, gate: str) -> bool:
    return (one["every"], one["gain"], one["gate"]) == (other["every"], other["gain"], gate)


def _median(lines: Sequence[Line]) -> float:
    delays = [float("inf") if line["cycles"] is None else line["cycles"] for line in lines]
    middle = median(delays)
    return -1.0 if middle == float("inf") else float(middle)
