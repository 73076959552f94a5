"""Fixtures that every room's tests share: a small fleet, and a clock that stands still."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from driftloop.records import Task
from driftloop.spec import DecayPolicy, Family, Fleet, LogSource, load_fleet

if TYPE_CHECKING:
    from stores import Postgres

NO_SKIPS = "NO_SKIPS"
"""Set in CI, where every tool is installed: a skipped test is then a failed run."""
MONITORS = Path(__file__).parent / "monitors"

# `make test` asks the same examples each time: what fails there was broken by a change. New ones
# are looked for by `make test-all`.
settings.register_profile("same", derandomize=True)
settings.register_profile("new", print_blob=True)
settings.load_profile(os.environ.get("EXAMPLES", "same"))


@dataclass
class StoppedClock:
    """A clock that shows what a test sets."""

    shown: datetime = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.shown


@pytest.fixture
def fleet() -> Fleet:
    """Two families: eta (regression, de and fr) and churn (binary, uk)."""
    return load_fleet(MONITORS)


@pytest.fixture
def eta(fleet: Fleet) -> Family:
    """The regression family."""
    return fleet.family_named("eta")


@pytest.fixture
def churn(fleet: Fleet) -> Family:
    """The binary family."""
    return fleet.family_named("churn")


@pytest.fixture
def colour(churn: Family) -> Family:
    """A family that predicts one of four classes, with the features of churn."""
    return churn.model_copy(
        update={
            "name": "colour",
            "task": Task.MULTICLASS,
            "classes": ("red", "green", "blue", "off white"),
            "decay": DecayPolicy(metric="accuracy", warn=0.1, alarm=0.2),
        }
    )


@pytest.fixture
def risk(churn: Family) -> Family:
    """A family of scores, with the features of churn, served elsewhere."""
    return churn.model_copy(
        update={
            "name": "risk",
            "task": Task.SCORE,
            "decay": None,
            "log": LogSource(source="scored.parquet"),
            "retrain": churn.retrain.model_copy(update={"triggers": ()}),
        }
    )


@pytest.fixture
def clock() -> StoppedClock:
    """A clock at 2026-03-01, settable."""
    return StoppedClock()


@pytest.fixture(scope="session")
def postgresql() -> "Iterator[Postgres]":
    """A real PostgreSQL, for all tests."""
    import stores

    with stores.postgres(stores.packaged()) as server:
        yield server


@pytest.fixture
def database(postgresql: "Postgres") -> str:
    """The address of an empty database of a real PostgreSQL."""
    return postgresql.database()


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a stand-in for S3, with the bucket `stores.BUCKET`, for all tests."""
    import stores

    with stores.s3(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let children take SIGINT as from a terminal, also where these tests run in the background.

    A shell starts what is to run there with the signal ignored, and children inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End by listing what was skipped for want of a tool, or say that nothing was."""
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.write_sep("-", f"skipped for want of a tool: {len(skipped) or 'nothing'}")
    for report in skipped:
        terminalreporter.write_line(f"{report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that may not skip and did."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return  # one of several side by side: who started it hears of its skips
    if os.environ.get(NO_SKIPS) and exitstatus == 0 and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
