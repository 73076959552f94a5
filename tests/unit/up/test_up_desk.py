import logging
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.clicked import block_actions, form, served, signed

from driftloop.errors import LedgerError
from driftloop.page.clicks import value_of
from driftloop.page.signing import local_secret
from driftloop.settings import Settings, read_settings
from driftloop.show import warn_of_clicks
from driftloop.up import services
from driftloop.up.desk import AGAIN, HUNG, Chore, working
from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"
CLICK = form(block_actions("driftloop.ack", value_of("eta-de/1")))


def system(tmp_path: Path, **given: Any) -> System:
    return System(Settings(home=tmp_path / "home", monitors=MONITORS, tell_every=0.01, **given))


def test_one_chore_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each comes round again and again, and a failure is logged once, not twice a second."""
    done = {"well": 0, "ill": 0}
    enough = threading.Event()

    def ill() -> None:
        done["ill"] += 1
        raise LedgerError("the ledger is away")

    def well() -> None:
        done["well"] += 1
        if min(done.values()) > 3:
            enough.set()

    monkeypatch.setattr(System, "chores", {"ill": ill, "well": well})
    monkeypatch.setattr("driftloop.up.desk.SLOWLY", 0.01)
    with working(system(tmp_path)), caplog.at_level(logging.ERROR):
        assert enough.wait(5)
    assert caplog.text.count("ill failed: LedgerError: the ledger is away") == 1


def test_a_failure_is_said_again_after_a_while_and_its_end_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another failure at once, the same one each minute, and that it works again."""
    now, errors = [0.0], ["a", "a", "b", "b", None]

    def act() -> None:
        said = errors.pop(0)
        if said is not None:
            raise LedgerError(said)

    chore = Chore("telling", act, every=1.0, clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        for later in (0.0, 1.0, 1.0, AGAIN + 1.0, 1.0):
            now[0] += later
            chore.round()
    said = [one.getMessage() for one in caplog.records]
    assert said == [
        "telling failed: LedgerError: a",
        "telling failed: LedgerError: b",
        "telling failed: LedgerError: b",
        "telling works again",
    ]


def test_a_chore_that_hangs_shows_in_its_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`driftloop up` restarts what does not answer 2xx; what only takes long it lets be."""
    begun, go_on, now = threading.Event(), threading.Event(), [0.0]

    def act() -> None:
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(System, "chores", {"telling": act})
    monkeypatch.setattr(Chore.__init__, "__kwdefaults__", {"clock": lambda: now[0]})
    with working(system(tmp_path)) as app, served(app) as url:
        assert begun.wait(5)
        now[0] = HUNG - 1
        assert httpx.get(f"{url}/healthz").status_code == 200
        now[0] = HUNG + 1
        assert httpx.get(f"{url}/healthz").status_code == 503
        go_on.set()


def test_the_local_slack_is_believed_by_its_own_secret(tmp_path: Path) -> None:
    """Both read it from the home; nobody sets anything."""
    here = system(tmp_path)
    with working(here) as app, served(app) as url:
        headers = signed(CLICK, secret=local_secret(here.settings.home))
        assert httpx.post(f"{url}/slack/actions", content=CLICK, headers=headers).status_code == 200
        forged = signed(CLICK, secret="another")
        assert httpx.post(f"{url}/slack/actions", content=CLICK, headers=forged).status_code == 401


def test_without_a_secret_a_real_slack_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """401 to all, also to what the local secret signs; the log says why when it starts."""
    here = system(tmp_path, slack_api="http://127.0.0.1:1/api/", slack_token="xoxb-x")
    assert not here.settings.clicks_come
    with caplog.at_level(logging.ERROR), working(here) as app, served(app) as url:
        headers = signed(CLICK, secret=local_secret(here.settings.home))
        assert httpx.post(f"{url}/slack/actions", content=CLICK, headers=headers).status_code == 401
    assert caplog.text.count("slack_signing_secret is not set") == 1


@pytest.mark.parametrize(
    ("given", "come"),
    [
        ({}, True),
        ({"slack_token": "xoxb-x"}, False),
        ({"slack_api": "http://s/api/"}, False),
        ({"slack_token": "xoxb-x", "slack_signing_secret": "s"}, True),
        ({"slack_token": "xoxb-x", "slack_app_token": "xapp-x"}, True),
    ],
)
def test_it_is_known_whether_clicks_can_come(given: dict[str, str], *, come: bool) -> None:
    """By a signature that can be checked, or over a connection of ours."""
    assert read_settings(**given).clicks_come is come


def test_what_is_in_hand_is_done_before_it_ends(tmp_path: Path) -> None:
    """A click that Slack was answered for is not lost with the service that took it."""
    here, done = system(tmp_path), threading.Event()

    class Slow:
        def take(self, click: Any) -> Any:
            time.sleep(0.4)
            done.set()
            raise LedgerError("never mind")

    here.reception._desk = Slow()
    here.reception._patience = 0.05
    with working(here) as app, served(app) as url:
        headers = signed(CLICK, secret=local_secret(here.settings.home))
        assert httpx.post(f"{url}/slack/actions", content=CLICK, headers=headers).status_code == 200
        assert not done.is_set()
    assert done.is_set()


def test_the_desk_is_among_the_services() -> None:
    """On its own port, with health to ask for; no secret is in its command."""
    settings = read_settings(desk_port=9, slack_signing_secret="hush", slack_token="xoxb-hush")
    (desk,) = (each for each in services(settings) if each.name == "desk")
    assert (desk.port, desk.setting, desk.path, desk.url) == (9, "desk_port", "/healthz", "")
    assert "hush" not in str(desk.argv)


def test_where_no_click_can_come_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Once, with the settings to set; nothing where the local Slack is used."""
    assert warn_of_clicks(read_settings()) == 0
    assert capsys.readouterr().out == ""
    assert warn_of_clicks(read_settings(slack_token="xoxb-x")) == 1
    said = capsys.readouterr().out
    assert "slack_signing_secret" in said
    assert "slack_app_token" in said
