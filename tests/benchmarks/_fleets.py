"""The simulated fleets: of each weather its false pages, then its delays."""

from collections.abc import Sequence

from tests.benchmarks import _delays, _false_pages
from tests.benchmarks._fleet import Weather
from tests.benchmarks._raw import Figure, Line, Plan, Raw

SHARES = tuple(weather.value for weather in Weather)
"""What is measured one by one."""


def measure(raw: Raw, plan: Plan, share: str) -> None:
    """Write raw lines: those of `_false_pages` and `_delays`, of one weather."""
    weather = Weather(share)
    _false_pages.measure(raw, plan, weather)
    _delays.measure(raw, plan, weather)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return the figures of both."""
    return {**_false_pages.figures(lines), **_delays.figures(lines)}
