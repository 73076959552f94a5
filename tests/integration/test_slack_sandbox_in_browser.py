import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.receiver import Receiver, receiving
from fakes.sandbox_server import SandboxServer, running
from slack_sdk import WebClient

ARGS = ["--no-sandbox", "--headless", "--disable-gpu", "--no-first-run"]
ARGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
SURE = {
    "title": {"type": "plain_text", "text": "Retrain 212 models?"},
    "text": {"type": "plain_text", "text": "This takes a while."},
    "confirm": {"type": "plain_text", "text": "Retrain them"},
    "deny": {"type": "plain_text", "text": "Leave it"},
}
MODAL = {
    "type": "modal",
    "callback_id": "why",
    "title": {"type": "plain_text", "text": "Not a problem?"},
    "submit": {"type": "plain_text", "text": "Send"},
    "blocks": [
        {
            "type": "input",
            "block_id": "why",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "why", "multiline": True},
        }
    ],
}


def button(act: str, text: str, **more: Any) -> dict[str, Any]:
    shown = {"type": "plain_text", "text": text}
    return {"type": "button", "action_id": act, "text": shown, "value": "{}", **more}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as listening:
        yield listening


@pytest.fixture
def slack(tmp_path: Path, receiver: Receiver) -> Iterator[SandboxServer]:
    with running(tmp_path / "slack.db", actions_url=receiver.url) as server:
        yield server


def _post(slack: SandboxServer, receiver: Receiver) -> None:
    """Post a message with all that can be clicked, and answer each click as an app would."""
    client = WebClient("xoxb-1", base_url=slack.api)

    def answer(payload: dict[str, Any]) -> tuple[int, Any]:
        if payload["type"] == "view_submission":
            written = payload["view"]["state"]["values"]["why"]["why"]["value"]
            if len(written) < 5:
                return 200, {"response_action": "errors", "errors": {"why": "say more"}}
        elif (act := payload["actions"][0]["action_id"]) == "why":
            client.views_open(trigger_id=payload["trigger_id"], view=MODAL)
        elif act == "retrain":
            place = {"channel": payload["channel"]["id"], "user": payload["user"]["id"]}
            client.chat_postEphemeral(text="only owners may", **place)
        return 500 if payload.get("actions", [{}])[0].get("action_id") == "broken" else 200, None

    receiver.answer = answer
    options = [{"text": {"type": "plain_text", "text": "an hour"}, "value": "1h"}]
    menu = {"type": "static_select", "action_id": "silence", "options": options}
    elements = [button("ack", "Acknowledge"), menu, button("retrain", "Retrain", confirm=SURE)]
    elements += [button("why", "Not a problem"), button("broken", "Roll back", style="danger")]
    text = {"type": "plain_text", "text": "🔴 eta-ελ " + "x" * 140}
    blocks = [{"type": "header", "text": text}, {"type": "actions", "elements": elements}]
    client.chat_postMessage(channel="#ml", text="x", blocks=blocks)


@pytest.mark.browser
def test_a_person_reads_and_clicks(slack: SandboxServer, receiver: Receiver) -> None:
    """A button, a menu, a question first, a modal with an error, an answer for one person alone."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    _post(slack, receiver)
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        page = browser.new_page(viewport={"width": 380, "height": 800})
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{slack.url}/?channel=ml")
        page.get_by_role("button", name="Acknowledge").click()
        page.wait_for_function("!document.querySelector('[aria-busy]')")
        page.locator("#messages select").select_option(label="an hour")
        page.wait_for_function("!document.querySelector('[aria-busy]')")
        page.get_by_role("button", name="Retrain").click()
        page.get_by_role("button", name="Leave it").click()
        page.get_by_role("button", name="Retrain").click()
        page.get_by_role("button", name="Retrain them").click()
        page.get_by_text("only owners may").wait_for()
        page.get_by_role("button", name="Roll back").click()
        page.get_by_text("driftloop answered with HTTP 500").wait_for()
        page.get_by_role("button", name="Not a problem").click()
        page.get_by_label("Why?").fill("no")
        page.wait_for_timeout(1500)
        page.get_by_role("button", name="Send").click()
        page.get_by_text("say more").wait_for()
        assert page.get_by_label("Why?").input_value() == "no", "what was written stays"
        page.get_by_label("Why?").fill("a holiday")
        page.get_by_role("button", name="Send").click()
        page.locator("#modal").wait_for(state="hidden")
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(wide), "it fits a phone"
        slack.call("chat.postMessage", channel="#ml", text="and one more")
        page.get_by_text("and one more").wait_for()
        page.get_by_label("you are").select_option(label="Eve")
        page.wait_for_url("**user=U0STRANGER*")
        assert page.get_by_text("only owners may").count() == 0
        page.get_by_role("button", name="Acknowledge").click()
        page.wait_for_function("!document.querySelector('[aria-busy]')")
        browser.close()
    told = [
        (one["user"]["name"], (one.get("actions") or [{"action_id": "send"}])[0]["action_id"])
        for one in receiver.payloads()
    ]
    assert told == [
        *(("ada", act) for act in ("ack", "silence", "retrain", "broken", "why", "send", "send")),
        ("eve", "ack"),
    ]
    assert faults == []
