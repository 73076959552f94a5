from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftloop.page.sandbox.blocks import faults_of, faults_of_view

KINDS = ["actions", "context", "header", "image", "input", "section", "button", "static_select"]
KINDS += ["plain_text_input", "plain_text", "mrkdwn", "modal"]
NAMES = ["type", "text", "elements", "element", "fields", "accessory", "options", "option_groups"]
NAMES += ["confirm", "label", "value", "action_id", "block_id", "slack_file", "alt_text", "blocks"]
NAMES += ["title", "min_length", "placeholder", "hint", "submit", "private_metadata"]
SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from(KINDS) | st.text(max_size=4)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(block=st.dictionaries(st.sampled_from(NAMES), JUNK), kind=st.sampled_from(KINDS))
@example(block={"fields": 3}, kind="section")
@example(block={"elements": [{"type": "static_select", "option_groups": 1}]}, kind="actions")
@example(block={"element": {"type": "plain_text_input", "min_length": "x"}}, kind="input")
def test_junk_is_a_fault_and_no_crash(block: dict[str, Any], kind: str) -> None:
    """Whatever stands in a block or a modal, Slack points at it; so does the stand-in."""
    junk = [block | {"type": kind}]
    told = [*faults_of(junk, lambda _: True), *faults_of_view({"blocks": junk}, lambda _: True)]
    assert all("[json-pointer:" in fault for fault in told)
    assert told, "a modal without a type is none"
