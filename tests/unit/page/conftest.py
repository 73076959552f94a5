"""A running local Slack, and a notice worth waking up for."""

import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftloop.records import Evidence, Link, ModelId, Notice, Stage

_FILE = Path(__file__).parents[2] / "fakes" / "sandbox_server.py"


@pytest.fixture
def serve() -> Any:
    """`serve(store)` runs the local Slack while its block lasts."""
    spec = importlib.util.spec_from_file_location("driftloop_fakes_sandbox_server", _FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.running


@pytest.fixture
def slack(serve: Any, tmp_path: Path) -> Iterator[Any]:
    """A local Slack with nothing in it."""
    with serve(tmp_path / "slack.db") as server:
        yield server


@pytest.fixture
def notice() -> Notice:
    """A decay with two lines of evidence."""
    return Notice(
        key="eta-de/2013-04-09/opened",
        incident="eta-de/2013-04-09",
        model=ModelId("eta-de"),
        stage=Stage.OPENED,
        at=datetime(2013, 4, 9, 6, tzinfo=UTC),
        since=datetime(2013, 4, 2, 6, tzinfo=UTC),
        channel="#ml-logistics",
        mention="@here",
        headline="eta-de predicts worse than its limit allows",
        doing="A retraining on the last eight weeks is ordered.",
        evidence=(
            Evidence(what="MAE", value="14.2 min", limit="13.0", n=312),
            Evidence(what="drift of dep_hour", value="0.31", limit="0.2", n=1312),
        ),
        links=(Link(text="Fleet page", url="http://127.0.0.1:8401/models/eta-de?a=1&b=2"),),
    )
