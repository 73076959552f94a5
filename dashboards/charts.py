"""SVG of a metric over time, as strings. Pure; every text is escaped; colours come from CSS."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise

from dashboards.points import Point
from dashboards.timeline import Marker
from dashboards.words import figure, when

WIDTH, HEIGHT = 1360, 330
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 48, 26
LANES = {"page": 10, "retrain": 24, "swap": 38}
"""Each kind of mark has a height of its own, so that none covers another."""
SHAPES = {
    "page": "M-5 -5 L5 -5 L0 4 Z",
    "retrain": "M-4 -4 H4 V4 H-4 Z",
    "swap": "M0 -5.5 L5.5 0 L0 5.5 L-5.5 0 Z",
}
"""Marks differ in shape as well as in colour."""


def sparkline(points: Sequence[Point], *, title: str, width: int = 132, height: int = 30) -> str:
    """Return a small SVG of `points` with the baseline and the line that alarms.

    Windows that could not be measured are gaps. Empty when no point has a value.
    """
    valued = [p for p in points if p.value is not None]
    if not valued:
        return ""
    frame = _frame(points, box=(3, 3, width - 5, height - 3), intervals=False)
    last = valued[-1]
    return (
        f'<svg class="spark" role="img" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><title>{escape(title)}</title>'
        f"{_steps(points, frame, 'baseline')}{_steps(points, frame, 'limit')}"
        f"{_runs(points, frame)}"
        f'<circle class="end{" over" if last.over else ""}" cx="{frame.x(last.at):.1f}" '
        f'cy="{frame.y(last.value or 0.0):.1f}" r="2.4"/></svg>'
    )


def chart(points: Sequence[Point], markers: Sequence[Marker], *, title: str, unit: str) -> str:
    """Return a large SVG: the metric with its interval, baseline, alarm line and what happened.

    Hollow dots are windows with too few labels to be judged. Empty when no point has a value.
    """
    if not any(p.value is not None for p in points):
        return ""
    box = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    frame = _frame(points, box=box, intervals=True)
    shown = [m for m in markers if frame.start <= m.at <= frame.end]
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"<title>{escape(title)}</title>"
        f'<clipPath id="inside"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
        f"{_grid(frame, unit)}"
        f'<g clip-path="url(#inside)">{_band(points, frame)}{_steps(points, frame, "baseline")}'
        f"{_steps(points, frame, 'limit')}{_runs(points, frame)}</g>"
        f"{_dots(points, frame, unit)}{_marks(shown, frame)}</svg>"
    )


# -- the frame ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Frame:
    start: datetime
    end: datetime
    low: float
    high: float
    box: tuple[float, float, float, float]

    def x(self, at: datetime) -> float:
        left, _, right, _ = self.box
        share = (at - self.start) / (self.end - self.start)
        return left + share * (right - left)

    def y(self, value: float) -> float:
        _, top, _, bottom = self.box
        share = (value - self.low) / (self.high - self.low)
        # Intervals may run far out; the clip hides them, and the digits stay few.
        return bottom - min(max(share, -1.0), 2.0) * (bottom - top)


def _frame(
    points: Sequence[Point], *, box: tuple[float, float, float, float], intervals: bool
) -> _Frame:
    start, end = points[0].at, points[-1].at
    if end <= start:
        start, end = start - timedelta(days=1), end + timedelta(days=1)
    values = [v for p in points for v in (p.value, p.baseline, p.limit) if v is not None]
    low, high = min(values), max(values)
    if intervals:
        # A wide interval on few labels must not flatten what is known well.
        reach = (high - low) / 2 or abs(high) / 2
        ends = [v for p in points if not p.blind for v in (p.low, p.high) if v is not None]
        low = max(min([low, *ends]), low - reach)
        high = min(max([high, *ends]), high + reach)
    room = (high - low) * 0.08 or max(abs(high) * 0.1, 1e-9)
    return _Frame(start, end, low - room, high + room, box)


# -- its parts ------------------------------------------------------------------------------


def _runs(points: Sequence[Point], frame: _Frame) -> str:
    """Draw the line of values, broken where there is none."""
    return "".join(
        f'<polyline class="value" points="{_path(run, frame, lambda p: p.value)}"/>'
        for run in _unbroken(points, lambda p: p.value is not None)
        if len(run) > 1
    )


def _band(points: Sequence[Point], frame: _Frame) -> str:
    drawn = []
    for run in _unbroken(points, lambda p: p.low is not None and p.high is not None):
        upper = _path(run, frame, lambda p: p.high)
        lower = _path(run[::-1], frame, lambda p: p.low)
        drawn.append(f'<polygon class="band" points="{upper} {lower}"/>')
    return "".join(drawn)


def _steps(points: Sequence[Point], frame: _Frame, what: str) -> str:
    """Draw a level that jumps when the champion changes."""
    drawn = []
    for run in _unbroken(points, lambda p: getattr(p, what) is not None):
        left, _, right, _ = frame.box
        first = left if run[0] is points[0] else frame.x(run[0].at)
        level = frame.y(getattr(run[0], what))
        path = [f"M{first:.1f} {level:.1f}"]
        for before, after in pairwise(run):
            if getattr(before, what) != getattr(after, what):
                path.append(f"H{frame.x(after.at):.1f}V{frame.y(getattr(after, what)):.1f}")
        path.append(f"H{right if run[-1] is points[-1] else frame.x(run[-1].at):.1f}")
        drawn.append(f'<path class="{what}" d="{"".join(path)}"/>')
    return "".join(drawn)


def _unbroken(points: Sequence[Point], known: Callable[[Point], bool]) -> list[list[Point]]:
    runs: list[list[Point]] = [[]]
    for point in points:
        if known(point):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _path(run: Sequence[Point], frame: _Frame, get: Callable[[Point], float | None]) -> str:
    return " ".join(f"{frame.x(p.at):.1f},{frame.y(get(p) or 0.0):.1f}" for p in run)


def _dots(points: Sequence[Point], frame: _Frame, unit: str) -> str:
    drawn = []
    for p in points:
        if p.value is None:
            continue
        kind = "blind" if p.blind else "over" if p.over else "seen"
        interval = (
            f" ({figure(p.low)} to {figure(p.high)})"
            if p.low is not None and p.high is not None
            else ""
        )
        said = (
            f"{when(p.at)}: {figure(p.value)} {unit}{interval}, "
            f"{_sample(p)}{', too few to judge' if p.blind else ''}"
        )
        drawn.append(
            f'<circle class="dot {kind}" cx="{frame.x(p.at):.1f}" cy="{frame.y(p.value):.1f}" '
            f'r="{2.6 if len(points) < 150 else 1.6}"><title>{escape(said)}</title></circle>'  # noqa: PLR2004 - where dots would touch
        )
    return "".join(drawn)


def _sample(p: Point) -> str:
    if p.baseline is None:
        return f"{p.n:,} rows"
    return f"{p.n:,} labels, baseline {figure(p.baseline)}"


def _marks(markers: Sequence[Marker], frame: _Frame) -> str:
    return "".join(
        f'<g class="mark {escape(m.what)}"><line x1="{frame.x(m.at):.1f}" y1="{LANES[m.what]}" '
        f'x2="{frame.x(m.at):.1f}" y2="{HEIGHT - BOTTOM}"/>'
        f'<path transform="translate({frame.x(m.at):.1f} {LANES[m.what]})" '
        f'd="{SHAPES[m.what]}"/>'
        f"<title>{escape(f'{when(m.at)} {m.label}')}</title></g>"
        for m in markers
    )


def _grid(frame: _Frame, unit: str) -> str:
    left, _, right, bottom = frame.box
    drawn = []
    for value in _ticks(frame.low, frame.high):
        y = frame.y(value)
        drawn.append(
            f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(figure(value))}</text>"
        )
    days = (frame.end - frame.start) > timedelta(days=3)
    count = 6
    for i in range(count + 1):
        at = frame.start + (frame.end - frame.start) * i / count
        anchor = "start" if i == 0 else "end" if i == count else "middle"
        drawn.append(
            f'<text class="tick" x="{frame.x(at):.1f}" y="{bottom + 17}" text-anchor="{anchor}">'
            f"{at:{'%Y-%m-%d' if days else '%m-%d %H:%M'}}</text>"
        )
    if unit:
        drawn.append(
            f'<text class="tick" x="{left - 6}" y="{TOP - 12}" text-anchor="end">'
            f"{escape(unit)}</text>"
        )
    return "".join(drawn)


def _ticks(low: float, high: float) -> list[float]:
    """Return a few round values between `low` and `high`."""
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]
