"""Whatever is posted to the desk's door is answered, and never by a fault of ours."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
import schemathesis
from fakes.clicked import SECRET, FakeDesk, Listener, block_actions, form, served, signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from driftloop.page.clicks import value_of
from driftloop.page.interactive import FORM, actions_app
from driftloop.page.reception import Reception
from driftloop.page.signing import Signatures

TEXT = {"type": "string"}
DESCRIBED = {
    "openapi": "3.1.0",
    "info": {"title": "the desk's door", "version": "1"},
    "paths": {
        "/slack/actions": {
            "post": {
                "parameters": [
                    {"name": name, "in": "header", "schema": TEXT}
                    for name in ("X-Slack-Signature", "X-Slack-Request-Timestamp")
                ],
                "requestBody": {
                    "content": {
                        kind: {
                            "schema": {
                                "type": "object",
                                "properties": {"payload": TEXT, "ssl_check": TEXT},
                            }
                        }
                        for kind in (
                            "application/x-www-form-urlencoded",
                            "application/json",
                            "multipart/form-data",
                        )
                    }
                },
                "responses": {
                    str(status): {"description": "."} for status in (200, 400, 401, 408, 413)
                },
            }
        }
    },
}
MANY = pytest.mark.parametrize(
    "examples", [40, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
GENTLY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=15,
)


@pytest.fixture
def app() -> Iterator[Any]:
    """The door, with a desk behind it, and nobody's Slack."""
    with closing(Listener()) as slack:
        reception = Reception(FakeDesk(), token="xoxb-x", base_url=slack.api)
        yield actions_app(reception, Signatures(SECRET))
        reception.close()


@MANY
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_what_is_not_signed_is_never_a_fault_of_ours(
    app: Any, mode: GenerationMode, examples: int
) -> None:
    """Forms, JSON and junk, with headers of all kinds: turned away, as nobody signed it."""
    schema = schemathesis.openapi.from_dict(DESCRIBED)
    schema.app = app
    (operation,) = (found.ok() for found in schema.get_all_operations())
    seen: Counter[int] = Counter()

    @settings(max_examples=examples, derandomize=True, **GENTLY)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        seen[case.call(app=app).status_code] += 1

    ask()
    assert seen[401]
    # A look at the certificate asks for nothing, and is answered.
    assert seen.keys() <= {200, 400, 401, 413}


@MANY
def test_what_is_signed_is_never_a_fault_of_ours(app: Any, examples: int) -> None:
    """Whatever Slack, or who has its secret, may post: taken, or 400 with words."""
    click = block_actions("driftloop.ack", value_of("eta-de/1"))
    places = st.sampled_from([*click, *click["actions"][0]])
    seen: Counter[int] = Counter()

    @settings(max_examples=examples, derandomize=True, **GENTLY)
    @given(
        body=st.binary(max_size=60)
        | JSON.map(form)
        | st.text(max_size=60).map(form)
        | st.tuples(places, JSON | st.text()).map(lambda pair: form(_with(click, *pair)))
        | st.text("0123456789", min_size=1, max_size=9).map(
            lambda at: form(_with(click, "action_ts", f"{at}.1"))
        ),
        kind=st.sampled_from([*8 * [FORM], "text/plain", "x; charset=\xff"]),
    )
    def ask(body: bytes, kind: str) -> None:
        try:
            headers = signed(body)
        except UnicodeDecodeError:
            headers = signed(b"x")
        headers["Content-Type"] = kind
        answer = client.post(
            "/slack/actions",
            content=body,
            headers=[(name, value.encode("latin-1")) for name, value in headers.items()],
        )
        seen[answer.status_code] += 1
        assert answer.status_code in {200, 400, 401}
        assert answer.text or answer.status_code == 200

    with served(app) as url, httpx.Client(base_url=url) as client:
        ask()
    assert seen[200]
    assert seen[400]


def _with(click: dict[str, Any], place: str, said: object) -> dict[str, Any]:
    """Return a click with something else in one place of it."""
    if place in click:
        return click | {place: said}
    return click | {"actions": [click["actions"][0] | {place: said}]}
