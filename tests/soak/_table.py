"""A table of cycles and a list of what held, from raw lines alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

Line = Mapping[str, Any]
COLUMNS = (
    *("cycle", "due", "late s", "pass s", "looked", "orders", "promoted", "refused", "failed"),
    *("to answer s", "worst", "requests", "not ok", "p99 ms", "CPU s", "MiB"),
)
GROWTH, GROWTH_OF_ONE = 1.15, 1.33
"""Memory is flat when its median in the last cycle is within this of the second's: that of all
services together, and of each."""
BEGUN_WITHIN = 30.0
"""Seconds after its time within which a run must have begun."""


@dataclass(frozen=True, slots=True)
class Held:
    """One promise, whether it held, and the figures."""

    promise: str
    held: bool
    figures: str


def cycles(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """Return a row for each cycle, from its scheduled time to the next one's."""
    # A pass may begin a moment before its time.
    early = _one(lines, "plan")["every"] / 10
    return [
        _cycle(number, run, (run["due"] - early, end - early), lines)
        for number, (run, end) in enumerate(_spans(lines), 1)
    ]


def promises(lines: Sequence[Line]) -> list[Held]:
    """Return what was promised of the whole run, and whether it held."""
    spans = _spans(lines)
    runs = [run for run, _ in spans]
    wanted = _one(lines, "plan")["cycles"]
    ran = [run for run in runs if run["state"] == "COMPLETED" and run["late_s"] < BEGUN_WITHIN]
    failures = [line for line in lines if line["what"] == "failure"]
    requests = sum(line["what"] == "request" for line in lines)
    end = _one(lines, "end")
    sampled = [found for span in spans if (found := _within(lines, "sample", *_times(span)))]
    memory = [median(line["mib"] for line in samples) for samples in sampled]
    of_each = {
        service: [
            median(line["by_service"].get(service, 0.0) for line in samples) for samples in sampled
        ]
        for service in sampled[0][0]["by_service"]
    }
    grew = {service: _grown(mib) for service, mib in of_each.items() if _grown(mib) > GROWTH_OF_ONE}
    orders = _within(lines, "renewal", spans[0][0]["due"], spans[-1][1])
    ended = [line for line in orders if line["outcome"] in ("promoted", "refused", "withdrawn")]
    return [
        Held(
            "every run that was due ran at its time",
            len(ran) == wanted,
            f"{len(ran)} of {wanted}, latest by {max(run['late_s'] for run in runs):.1f} s",
        ),
        Held("no request failed", not failures, f"{len(failures)} of {requests}"),
        Held(
            "memory is flat",
            _grown(memory) <= GROWTH and not grew,
            " -> ".join(f"{each:.0f}" for each in memory)
            + " MiB, median of each cycle; "
            + ", ".join(f"{service} {mib[-1]:.0f}" for service, mib in of_each.items())
            + "".join(f"; {service} grew x {by:.2f}" for service, by in grew.items()),
        ),
        Held(
            "every answer is in the log once, as it was given",
            end["answered"] == end["in_log"] and not end["twice"] and not end["different"],
            f"{end['answered']} answered, {end['in_log']} in the log, {end['twice']} twice, "
            f"{end['different']} different",
        ),
        Held(
            "no answer of an older version after a newer one",
            not end["mixed"],
            f"{end['mixed']} of {end['answered']}",
        ),
        Held(
            "every order came to its end",
            len(ended) == len(orders) > 0,
            f"{len(ended)} of {len(orders)}: "
            + ", ".join(
                f"{sum(line['outcome'] == outcome for line in orders)} {outcome}"
                for outcome in sorted({line["outcome"] for line in orders})
            ),
        ),
        Held("no service died", not end["restarts"], f"{end['restarts']} restarts"),
        Held(
            "no page was repeated",
            end["pages"] == end["distinct_pages"],
            f"{end['pages']} messages, {end['distinct_pages']} distinct",
        ),
    ]


def _grown(mib: Sequence[float]) -> float:
    """Return the last cycle beside the second, by when all that is imported is."""
    return mib[-1] / (mib[1] if len(mib) > 1 else mib[0])


def _times(span: tuple[Line, float]) -> tuple[float, float]:
    run, until = span
    return run["due"], until


def _spans(lines: Sequence[Line]) -> list[tuple[Line, float]]:
    plan = _one(lines, "plan")
    runs = sorted((line for line in lines if line["what"] == "watch"), key=lambda run: run["due"])
    runs = [run for run in runs if run["due"] >= plan["first"]][: plan["cycles"]]
    ends = [following["due"] for _, following in pairwise(runs)]
    return list(zip(runs, [*ends, plan["first"] + plan["cycles"] * plan["every"]], strict=False))


def _cycle(
    number: int, run: Line, span: tuple[float, float], lines: Sequence[Line]
) -> tuple[str, ...]:
    due, end = span
    renewals = _within(lines, "renewal", due, end)
    waits = [line["answers_s"] for line in renewals if line["answers_s"] is not None]
    requests = sorted(line["s"] for line in _within(lines, "request", due, end))
    samples = _within(lines, "sample", due, end)
    looked = sum(line["looked"] for line in _within(lines, "passed", due, end))

    def came(outcome: str) -> str:
        return str(sum(line["outcome"] == outcome for line in renewals))

    return (
        str(number),
        run["due_text"],
        f"{run['late_s']:.1f}",
        f"{run['took_s']:.1f}",
        str(looked),
        str(len(renewals)),
        came("promoted"),
        came("refused"),
        came("failed"),
        f"{median(waits):.1f}" if waits else "-",
        f"{max(waits):.1f}" if waits else "-",
        str(len(requests)),
        str(len(_within(lines, "failure", due, end))),
        f"{requests[int(len(requests) * 0.99)] * 1e3:.1f}" if requests else "-",
        f"{samples[-1]['cpu_s'] - samples[0]['cpu_s']:.0f}" if samples else "-",
        f"{median(line['mib'] for line in samples):.0f}" if samples else "-",
    )


def _within(lines: Sequence[Line], what: str, start: float, end: float) -> list[Line]:
    return [line for line in lines if line["what"] == what and start <= line["at"] < end]


def _one(lines: Sequence[Line], what: str) -> Line:
    return next(line for line in lines if line["what"] == what)
