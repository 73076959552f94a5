"""Numbers, times and names as people read them. Pure."""

from datetime import datetime

from driftloop.records import Decision, GateResult


def why(decision: Decision) -> str:
    """Return the reason of `decision` in words, without the state that stands beside it."""
    return decision.reason.removeprefix(f"{decision.state}: ")


def gain(result: GateResult) -> str:
    """Return what a candidate gained over the champion, to follow a name; empty if unknown."""
    if result.gain is None:
        return ""
    known = result.low is not None and result.high is not None
    interval = f" ({result.low:+.1%} to {result.high:+.1%})" if known else ""
    return f": gain {result.gain:+.1%}{interval}"


def figure(value: float | None) -> str:
    """Return a value in three figures, or a dash.

    >>> figure(0.012345), figure(12345.6), figure(None)
    ('0.0123', '12,346', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - to whole numbers


def when(at: datetime | None) -> str:
    """Return a time to the minute, or a dash."""
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M}"


def span(seconds: float) -> str:
    """Return a length of time in its largest fitting unit.

    >>> span(4.2), span(90), span(7200), span(1e6)
    ('4 s', '90 s', '2 h', '12 d')
    """
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
