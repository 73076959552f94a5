"""A chart as PNG: small, dark on light, to be read on a phone."""

import io
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING

from driftloop.records import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DPI = 800, 320, 100
_TITLE = 58
_UNIT = 14
_FONTS = (
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC"),
    *("Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("IPAexGothic", "Noto Sans KR", "Noto Sans Devanagari", "Noto Sans Thai", "Unifont"),
)
"""What is drawn with, as far as it is installed; the first comes with matplotlib."""
_INK, _LINE, _LIMIT, _USUAL = "#1d1c1d", "#1264a3", "#c0153c", "#6b6b6b"
_DAY, _YEAR = timedelta(days=1), timedelta(days=364)
_STEPS = (
    *(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 180, 360, 720)),
    *(timedelta(days=days) for days in (1, 2, 7, 14, 28, 91, 364)),
)
_TICKS = 5
_EPOCH = datetime(2001, 1, 1, tzinfo=UTC)
_FROM_THE_RIGHT = frozenset({"R", "AL"})


def draw(chart: Chart, *, since: datetime) -> bytes:
    """Return `chart` as a PNG of 800 x 320 pixels, the time from `since` on tinted.

    Values that are not finite are left out. Characters that no installed font has, or that are
    written from the right, which is not ours to lay out, are left out of its words.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    _fill(axes, chart, since)
    _words(axes, chart)
    out = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.print_png(out)  # type: ignore[no-untyped-call]
    return out.getvalue()


def alt_text(chart: Chart, *, since: datetime) -> str:
    """Return in words what the picture of `chart` shows, for who cannot see it.

    >>> from datetime import UTC
    >>> days = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2)]
    >>> points = ((days[0], 9.5), (days[1], 14.25))
    >>> alt_text(Chart(title="eta-de: MAE", points=points, unit="min", limit=13.0), since=days[1])
    'eta-de: MAE, 1 Mar 00:00 to 2 Mar 00:00 UTC: last 14.25 min, limit 13 min, since 2 Mar 00:00'
    """
    unit = f" {chart.unit}" if chart.unit else ""
    points = _finite(chart)
    said = [f"{chart.title}"[:200]]
    if points:
        said[0] += f", {_time(points[0][0])} to {_time(points[-1][0])} UTC"
        said[0] += f": last {_number(points[-1][1])}{unit}"
    if chart.limit is not None:
        said.append(f"limit {_number(chart.limit)}{unit}")
    if chart.baseline is not None:
        said.append(f"usually {_number(chart.baseline)}{unit}")
    return ", ".join([*said, f"since {_time(since)}"])


def drawable(text: str, most: int) -> str:
    """Return the words of `text` that can be drawn, on one line of at most `most` characters.

    >>> drawable("eta-köln: Ошибка", 40), drawable("a" * 9, 5), drawable("MAE مدينة", 9)
    ('eta-köln: Ошибка', 'aaaa…', 'MAE …')
    """
    words = [word if all(map(_known, word)) else "…" for word in text.split()]
    kept = [word for at, word in enumerate(words) if word != "…" or words[at - 1 : at] != ["…"]]
    line = "" if kept == ["…"] else " ".join(kept)
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def _fill(axes: "Axes", chart: Chart, since: datetime) -> None:
    points = _finite(chart)
    if not points:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    times, values = [at for at, _ in points], [value for _, value in points]
    span = times[-1] - times[0]
    if since < times[-1] or not span:
        axes.axvspan(max(since, times[0]), times[-1], color=_LIMIT, alpha=0.08, linewidth=0)  # type: ignore[arg-type]
    if since > times[0]:
        axes.axvline(since, color=_LIMIT, alpha=0.4, linewidth=1.5)  # type: ignore[arg-type]
    few = len(points) <= 30  # noqa: PLR2004 - more of them would hide the line
    axes.plot(times, values, color=_LINE, linewidth=2.5, marker="o" if few else None, markersize=4)  # type: ignore[arg-type]
    axes.plot(times[-1:], values[-1:], "o", color=_LINE, markersize=8)  # type: ignore[arg-type]
    lines = (("usual", chart.baseline, _USUAL, ":"), ("limit", chart.limit, _LIMIT, "--"))
    beside = []
    for name, at, color, style in lines:
        if at is not None and isfinite(at):
            axes.axhline(at, color=color, linestyle=style, linewidth=2)
            beside.append((f"{name} {_number(at)}", at, color))
    _margins(axes, [*values, *(at for _, at, _ in beside)])
    _beside(axes, beside)


def _beside(axes: "Axes", labels: Sequence[tuple[str, float, str]]) -> None:
    """Write what a line is at its right end, no two over each other."""
    low, high = axes.get_ylim()
    least = (high - low) * 0.11
    taken: list[float] = []
    for text, at, color in sorted(labels, key=lambda each: each[1]):
        y = max([at, *(other + least for other in taken)])
        taken.append(y)
        axes.annotate(
            text,
            (1.01, y),
            xycoords=("axes fraction", "data"),
            color=color,
            fontsize=14,
            va="center",
            annotation_clip=False,
        )


def _margins(axes: "Axes", values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    axes.set_ylim(low - room, high + room)
    axes.margins(x=0.02)


def _words(axes: "Axes", chart: Chart) -> None:
    fonts = list(_fonts())
    title = axes.set_title(
        drawable(chart.title, _TITLE), loc="left", fontsize=16, color=_INK, family=fonts
    )
    unit = axes.set_ylabel(drawable(chart.unit, _UNIT), fontsize=14, color=_INK, family=fonts)
    for words in (title, unit):
        # A "$" in a name begins no formula.
        words.set_parse_math(False)
    if points := _finite(chart):
        ticks = _ticks(points[0][0], points[-1][0])
        axes.set_xticks([at for at, _ in ticks], [said for _, said in ticks])  # type: ignore[arg-type]
        axes.locator_params(axis="y", nbins=5)
        axes.yaxis.set_major_formatter(lambda value, _: _number(value))
        axes.annotate(
            "UTC",
            (1.0, 0.0),
            xycoords="axes fraction",
            # Beyond half of the last time's label, which stands around the end of the axis.
            xytext=(36, -6),
            textcoords="offset points",
            va="top",
            fontsize=11,
            color=_USUAL,
            annotation_clip=False,
        )
    axes.tick_params(labelsize=13, colors=_INK)
    axes.grid(visible=True, axis="y", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(start: datetime, end: datetime) -> list[tuple[datetime, str]]:
    """Return round times from `start` to `end`, few enough to be read, and how they are called."""
    span = end - start
    step = next((step for step in _STEPS if span / step <= _TICKS), span / _TICKS)
    first = _EPOCH + -((_EPOCH - start) // step) * step
    times = [first + step * number for number in range(int((end - first) / step) + 1)]
    ticks: list[tuple[datetime, str]] = []
    for number, at in enumerate(times):
        day = f"{at.day} {at:%b}" if step < _YEAR / 4 else f"{at:%b %Y}"
        new = number == 0 or at.date() != times[number - 1].date()
        hour = f"{at:%H:%M}"
        ticks.append((at, day if step >= _DAY else f"{hour}\n{day}" if new else hour))
    return ticks or [(start, _time(start))]


def _time(at: datetime) -> str:
    return f"{at.day} {at:%b %H:%M}"


def _number(value: float) -> str:
    """Return a number in few characters.

    >>> _number(0.50049), _number(1250000.0), _number(-0.0), _number(3e-7)
    ('0.5005', '1,250,000', '0', '3e-07')
    """
    whole = 1e4 <= abs(value) < 1e9  # noqa: PLR2004 - what fits beside a chart
    return f"{value:,.0f}" if whole else f"{value + 0.0:.4g}"


def _finite(chart: Chart) -> list[tuple[datetime, float]]:
    return [(at, value) for at, value in chart.points if isfinite(value)]


@cache
def _fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return tuple(name for name in _FONTS if name in there)


@cache
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = [findfont(FontProperties(family=name)) for name in _fonts()]
    return frozenset(code for file in files for code in get_font(file).get_charmap())


def _known(character: str) -> bool:
    if unicodedata.bidirectional(character) in _FROM_THE_RIGHT:
        return False
    return ord(character) in _characters()
