import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.errors import BadRequest
from driftloop.page.clicks import LONGEST_OPTION, option_of, value_of
from driftloop.page.payloads import Asked, Asks, Nothing, Pressed, Unclear, parsed, read
from driftloop.records import Act, Click, ModelId

INCIDENT = "eta-de/2013-04-09"
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)


def actions(**action: Any) -> dict[str, Any]:
    """A click as Slack posts it, with much that nobody asks for."""
    said = {
        "type": "button",
        "action_id": "driftloop.ack",
        "block_id": "b",
        "action_ts": "1365487200.000100",
        "value": value_of(INCIDENT),
        "text": {"type": "plain_text", "text": "Acknowledge", "emoji": True},
    }
    return {
        "type": "block_actions",
        "user": {"id": "U0OPERATOR1", "username": "ada", "name": "ada", "team_id": "T0"},
        "api_app_id": "A0",
        "token": "deprecated",
        "container": {"type": "message", "message_ts": "1.2", "channel_id": "C0CHANNEL1"},
        "trigger_id": "1.2.abc",
        "team": {"id": "T0", "domain": "d"},
        "enterprise": None,
        "is_enterprise_install": False,
        "channel": {"id": "C0CHANNEL1", "name": "ml"},
        "message": {
            "ts": "1.2",
            "metadata": {"event_type": "driftloop_notice", "event_payload": {"key": INCIDENT}},
        },
        "state": {"values": {}},
        "response_url": "https://hooks.slack.com/actions/T0/1/x",
        "actions": [said | action],
    }


def submission(why: object = "known to be a holiday", **view: Any) -> dict[str, Any]:
    """The modal that asks why, as Slack posts it."""
    said = {
        "id": "V0VIEW1",
        "type": "modal",
        "callback_id": "driftloop.why",
        "private_metadata": json.dumps({"incident": INCIDENT, "channel": "C0CHANNEL1"}),
        "state": {"values": {"why": {"why": {"type": "plain_text_input", "value": why}}}},
        "hash": "1.x",
    }
    return {
        "type": "view_submission",
        "user": {"id": "U0OPERATOR1", "username": "ada"},
        "view": said | view,
    }


@pytest.mark.parametrize("act", [act for act in Act if act not in {Act.SILENCE, Act.NO_PROBLEM}])
def test_a_button_is_a_click(act: Act) -> None:
    """Who, what and about what; over and over the same key, which another click has not."""
    value = value_of(INCIDENT, ModelId("eta-de"), 7)
    said = actions(action_id=f"driftloop.{act}", value=value)
    asked = parsed(json.dumps(said))
    assert asked == read(said)
    assert asked == Pressed(
        click=Click(
            key=f"U0OPERATOR1/1365487200.000100/driftloop.{act}",
            act=act,
            incident=INCIDENT,
            who="ada",
            user="U0OPERATOR1",
            model=ModelId("eta-de"),
            version=7,
        ),
        channel="C0CHANNEL1",
        response_url="https://hooks.slack.com/actions/T0/1/x",
    )


@pytest.mark.parametrize("incident", [INCIDENT, "source/" + "weather-" * 30 + "/0"])
def test_a_choice_says_how_long_to_be_silent(incident: str) -> None:
    """The incident is named by the choice or, where its name is too long for one, the message."""
    value = option_of(incident, "next-version")
    assert len(value) <= LONGEST_OPTION
    said = actions(action_id="driftloop.silence", value=None, selected_option={"value": value})
    said["message"]["metadata"]["event_payload"]["key"] = incident
    asked = read(said)
    assert isinstance(asked, Pressed)
    assert (asked.click.incident, asked.click.silence) == (incident, "next-version")


def test_no_problem_is_asked_why_first() -> None:
    """The modal brings back what the button was about, and from where; its reason is the click."""
    asked = read(actions(action_id="driftloop.not-a-problem"))
    assert isinstance(asked, Asks)
    assert asked.trigger == "1.2.abc"
    pressed = read(submission(private_metadata=asked.metadata))
    assert isinstance(pressed, Pressed)
    assert pressed.submits
    assert pressed.channel == "C0CHANNEL1"
    click = pressed.click
    assert (click.act, click.incident, click.why) == (
        Act.NO_PROBLEM,
        INCIDENT,
        "known to be a holiday",
    )
    assert click.key == "U0OPERATOR1/V0VIEW1/driftloop.why"


@pytest.mark.parametrize("why", [None, "", " \n\t "])
def test_no_reason_is_asked_for_again(why: object) -> None:
    """The form shows it; nothing is handed on."""
    asked = read(submission(why))
    assert isinstance(asked, Unclear)
    assert asked.field


@pytest.mark.parametrize(
    "action",
    [
        {"action_id": "driftloop.explode"},
        {"action_id": "ack"},
        {"action_id": "driftloop."},
        {"value": None},
        {"value": "{}"},
        {"value": "[" * 1000},
        {"value": '{"incident":"a\\u0000b"}'},
        {"value": '{"incident":"a","version":99999999999999999999}'},
        {"value": '{"incident":"a","version":0}'},
        {"action_id": "driftloop.silence"},
        {"action_id": "driftloop.silence", "selected_option": {"value": '{"incident":"a"}'}},
        {"action_id": "driftloop.silence", "selected_option": {"value": "1h"}},
    ],
    ids=str,
)
def test_a_button_that_we_do_not_know_is_told_so(action: dict[str, Any]) -> None:
    """It may be of another version of ours: who clicked hears that nothing was done."""
    asked = read(actions(**action))
    assert isinstance(asked, Unclear)
    assert (asked.user, asked.channel) == ("U0OPERATOR1", "C0CHANNEL1")
    assert asked.response_url


def test_a_link_asks_nothing() -> None:
    """Slack tells of it all the same, as it does of a modal that was closed."""
    assert read(actions(action_id="driftloop.report", value=None)) == Nothing()
    assert read(actions(action_id="x", url="https://example.org")) == Nothing()
    assert read({"type": "view_closed", "view": {}}) == Nothing()


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"type":' + "9" * 100_000 + "}", "not JSON"),
        ('{"type":NaN}', "not JSON"),
        ('{"type":"block_actions","user":{"id":"\\ud800"}}', "not JSON"),
        ("[]", "type that is not known"),
        ('{"type":"shortcut"}', "type that is not known"),
        ('{"type":["block_actions"]}', "type that is not known"),
        ('{"type":"block_actions"}', "user: Field required"),
        (json.dumps(actions(action_ts="now")), "action_ts"),
        (json.dumps(actions(action_id=["driftloop.ack"])), "action_id"),
        (json.dumps(actions() | {"user": {"id": "ada"}}), "user.id"),
        (json.dumps(actions() | {"actions": []}), "actions"),
        (json.dumps(actions() | {"response_url": "file:///etc/passwd"}), "response_url"),
    ],
)
def test_what_slack_never_sends_is_a_bad_request(payload: str, said: str) -> None:
    """It says what is wrong, in one line, and not what was given."""
    with pytest.raises(BadRequest, match=said) as refused:
        parsed(payload)
    assert len(str(refused.value)) < 500


@given(JUNK, st.sampled_from(["actions", "view", "user", "message", "state", "channel"]))
def test_no_payload_is_a_fault_of_ours(junk: object, place: str) -> None:
    """Junk in any place is refused, or passed over where it is not used."""
    for said in (actions(), submission(), {"type": junk}, junk):
        given_ = {**said, place: junk} if isinstance(said, dict) else said
        with suppress(BadRequest):
            assert isinstance(read(given_), Asked)
