"""Whatever OpenAPI allows, and much that it does not, is answered as it says: never by a fault."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from driftloop.records import Label, Prediction
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.spec import Fleet

UNTRAINED = "eta-fr"
HELD = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
)


class Spool:
    """Takes all, and keeps nothing."""

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None: ...

    def labels(self, family: str, rows: Sequence[Label]) -> None: ...


@pytest.fixture
def described(fleet: Fleet, clock: Any, made: Any) -> Iterator[Any]:
    """What the service of a fleet with two champions says of itself."""
    slots = Slots(fleet)
    slots.refresh([made["sloped"].head("eta-de", epoch=1), made["churn"].head("churn-uk", epoch=1)])
    service = Service(fleet=fleet, slots=slots, spool=Spool(), clock=clock)
    service.ready = True
    app = online_app(service, heads=lambda: (), poll_every=60)
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    service.close()


@pytest.mark.parametrize(
    "examples", [8, pytest.param(400, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_is_asked_is_answered_as_described(
    described: Any, mode: GenerationMode, examples: int
) -> None:
    """No 5xx that is not declared, and every status, header and body as OpenAPI says."""
    seen: Counter[int] = Counter()
    for operation in (found.ok() for found in described.get_all_operations()):
        posted = operation.method == "post"
        if mode is GenerationMode.NEGATIVE and not posted:
            continue  # nothing is sent that could be wrong
        # Of any model, which is hardly ever one of ours, and of ours.
        for model in (None, "eta-de", "churn-uk", UNTRAINED) if posted else (None,):
            seen += _asked(operation.as_strategy(generation_mode=mode), model, examples)
    assert seen[404]
    assert seen[422]
    if mode is GenerationMode.POSITIVE:
        assert seen[200]


def _asked(cases: SearchStrategy[Any], model: str | None, examples: int) -> Counter[int]:
    """Return how many of `cases`, of one model if it is named, were answered with what status."""
    load_all_checks()
    checks = CHECKS.get_by_names(HELD)
    seen: Counter[int] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        if model is not None:
            case.path_parameters["model"] = model
        status = case.call_and_validate(checks=checks).status_code
        assert status < 500 or (status, model) == (503, UNTRAINED)
        seen[status] += 1

    ask()
    return seen
