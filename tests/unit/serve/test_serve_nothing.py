"""The online service of an installation whose models are all served elsewhere."""

from dataclasses import replace
from typing import Any

import pytest

from driftloop.spec import Fleet


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    """No family is served here."""
    return replace(fleet, families=())


def test_a_service_with_nothing_to_serve_runs(serving: Any) -> None:
    """It is ready, has no model, says so, and describes itself all the same."""
    http = serving().http
    assert http.get("/v1/models").json() == {"models": []}
    assert http.get("/readyz").status_code == 200
    assert http.get("/docs").status_code == 200
    assert http.get("/openapi.json").status_code == 200
    answer = http.post("/v1/models/eta-de/predict", json={})
    assert answer.status_code == 404
    assert "served here" in answer.text
