import struct
import warnings
from dataclasses import replace
from datetime import timedelta
from math import inf, nan

import pytest
from fakes.incidents import OPENED_AT, charted

from driftloop.page.picture import HEIGHT, WIDTH, alt_text, draw, drawable
from driftloop.records import Chart

SINCE = OPENED_AT - timedelta(hours=6)
LONG = "departure-delay-" * 12


def size(png: bytes) -> tuple[int, int]:
    """Return width and height as the file's header has them."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def thinned(*values: float) -> Chart:
    """Return the chart with other values."""
    points = tuple((OPENED_AT + timedelta(hours=n), value) for n, value in enumerate(values))
    return replace(charted(), points=points)


@pytest.mark.parametrize(
    "chart",
    [
        charted(),
        replace(charted(), limit=None, baseline=None, unit=""),
        replace(charted(), limit=nan, baseline=inf),
        replace(charted(), title=LONG, unit=LONG),
        replace(charted(), title="到着時刻 مدينة 🔥 $x^2$ $", unit="$\\frac{"),
        thinned(),
        thinned(nan),
        thinned(14.0),
        thinned(3.0, 3.0, 3.0),
        thinned(0.0, 1e300, -1e300),
        thinned(1e-12, inf, 2e-12),
        replace(charted(), points=tuple((OPENED_AT, value) for value in (1.0, 2.0))),
        replace(
            charted(), points=tuple((OPENED_AT.replace(year=y), 1.0 * y) for y in range(1990, 2027))
        ),
    ],
    ids=[
        *("whole", "bare", "limits not finite", "long words", "other alphabets", "no points"),
        *("no finite point", "one point", "level", "huge", "tiny", "one moment", "decades"),
    ],
)
@pytest.mark.parametrize("since", [SINCE, OPENED_AT - timedelta(days=99), OPENED_AT.replace(2099)])
def test_any_chart_is_drawn(chart: Chart, since: object) -> None:
    """Always a PNG of one size, and no warning of a missing glyph or a strange span."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(draw(chart, since=since)) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MAE, eta-de", "MAE, eta-de"),
        ("Ошибка μ, eta-köln", "Ошибка μ, eta-köln"),
        ("MAE \n\t of x", "MAE of x"),
        ("loss, مدينة two", "loss, … two"),
        ("مدينة שלום", ""),
        ("", ""),
        ("a" * 60, "a" * 57 + "…"),
    ],
)
def test_words_are_drawn_as_far_as_they_can_be(text: str, expected: str) -> None:
    """What no font has, or is written from the right, is left out by the word."""
    assert drawable(text, 58) == expected


def test_what_is_drawn_is_also_said() -> None:
    """Who cannot see the picture reads the newest value, the limit and since when."""
    assert alt_text(charted(), since=SINCE) == (
        "MAE, eta-de, 27 Feb 06:00 to 1 Mar 06:00 UTC: last 15 min, limit 13 min, usually 9 min,"
        " since 1 Mar 00:00"
    )


def test_the_words_for_a_picture_are_within_slacks_limit() -> None:
    """Whatever a model is called: an image's words have at most 2,000 characters."""
    assert len(alt_text(replace(charted(), title=LONG * 20, unit="m" * 50), since=SINCE)) < 2000
