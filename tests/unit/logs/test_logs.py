"""Log lines of services: JSON, one a line, whatever it is that is said."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def logged(code: str, *, out: str = "None") -> tuple[list[dict[str, Any]], str]:
    """Return what a process that runs `code` logs as JSON lines, and its stderr."""
    begin = "import logging, sys, threading, warnings\nfrom pathlib import Path\n"
    begin += f"from driftloop.logs import configure\nconfigure('worker', out={out})\n"
    argv = [sys.executable, "-c", begin + code]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    lines = ran.stderr if out == "None" else Path(eval(out)).read_text()  # noqa: S307 - ours
    return [json.loads(line) for line in lines.splitlines()], ran.stderr


def test_a_line_says_when_who_and_what_and_brings_its_trace() -> None:
    """Extras stand beside the message; times are in UTC; ours from INFO on."""
    code = "logging.getLogger('driftloop.loop').info('%s sent', 'page', extra={'trace': 'm/1'})\n"
    (line,), _ = logged(code)
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "info",
        "service": "worker",
        "logger": "driftloop.loop",
        "message": "page sent",
        "trace": "m/1",
    }


def test_libraries_speak_from_warning_on() -> None:
    """Their chatter stays out."""
    code = "logging.getLogger('uvicorn').info('a')\nlogging.getLogger('uvicorn').warning('b')\n"
    assert [line["message"] for line in logged(code)[0]] == ["b"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("try:\n  1 / 0\nexcept Exception:\n  logging.getLogger('x').exception('no')", "no"),
        ("1 / 0", "nobody caught ZeroDivisionError in MainThread"),
        (
            "threading.Thread(target=lambda: 1 / 0, name='poller').start()",
            "nobody caught ZeroDivisionError in poller",
        ),
    ],
    ids=["logged", "uncaught", "uncaught-in-a-thread"],
)
def test_a_traceback_is_a_field_of_one_line(code: str, said: str) -> None:
    """Not twenty lines that no program can put together again."""
    (line,), _ = logged(code)
    assert line["message"] == said
    assert line["error"].startswith("Traceback (most recent call last)")
    assert line["error"].endswith("ZeroDivisionError: division by zero")


def test_warnings_are_lines_too() -> None:
    """Python's own warnings come through the same door."""
    (line,), _ = logged("warnings.warn('old thing')")
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "old thing" in line["message"]


def test_what_cannot_be_encoded_is_said_in_words() -> None:
    """A line is never lost for what it brings: paths, NaN, lone surrogates."""
    code = "logging.getLogger('x').warning('a', extra={'p': Path('/p'), 'n': float('nan')})\n"
    code += r"logging.getLogger('x').warning('a\udc80\nb', extra={'trace': 'm/1'})"
    (line, odd), _ = logged(code)
    assert (line["p"], line["n"]) == ("/p", None)
    assert (odd["message"], odd["trace"]) == ("a?\nb", "m/1")


def test_a_file_is_appended_to_and_stderr_still_shows_what_nobody_caught(tmp_path: Path) -> None:
    """`driftloop up` has a person at its terminal and a file beside it."""
    out = f"Path({str(tmp_path / 'logs' / 'up.log')!r})"
    first, shown = logged("logging.getLogger('driftloop.show').info('online healthy')", out=out)
    assert ([line["message"] for line in first], shown) == (["online healthy"], "")
    both, shown = logged("1 / 0", out=out)
    assert [line["level"] for line in both] == ["info", "critical"]
    assert "ZeroDivisionError" in shown


def test_a_loggers_own_handler_speaks_json_too() -> None:
    """Prefect's loggers have handlers of their own by the time a service begins."""
    begin = (
        "import logging, sys\n"
        "own = logging.getLogger('prefect'); own.propagate = False\n"
        "own.addHandler(logging.StreamHandler())\n"
    )
    code = (
        begin + "from driftloop.logs import configure\nconfigure('worker')\nown.warning('late')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    line = json.loads(ran.stderr)
    assert (line["service"], line["logger"], line["message"]) == ("worker", "prefect", "late")
