from typing import Any

import pytest

from driftloop.page.asking import BURST, Line, Refused


class Time:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    """Nobody waits for it."""
    return Time()


@pytest.fixture
def line(slack: Any, time: Time) -> Line:
    """A line to the running local Slack."""
    return Line("xoxb-check", slack.api, timeout=5.0, now=time, sleep=time.sleep)


def test_a_channel_gets_a_message_a_second_after_a_burst(line: Line, time: Time) -> None:
    """The burst goes out at once, what follows a second apart, and no longer than needed."""
    for number in range(int(BURST) + 3):
        line.post("#busy", text=f"{number}")
    assert time.slept == pytest.approx([1.0, 1.0, 1.0])
    time.now += 0.25
    line.post("#busy", text="a little later")
    assert time.slept[3:] == pytest.approx([0.75])


def test_channels_do_not_wait_for_each_other(line: Line, time: Time) -> None:
    """The limit is a channel's own."""
    for channel in ("#one", "#two", "#three"):
        for number in range(int(BURST)):
            line.post(channel, text=f"{number}")
    assert time.slept == []


def test_quiet_time_fills_the_burst_again(line: Line, time: Time) -> None:
    """But no further than it goes."""
    for _ in range(2):
        for number in range(int(BURST)):
            line.post("#busy", text=f"{number}")
        time.now += 60.0
    assert time.slept == []


def test_a_short_limit_is_waited_for(line: Line, slack: Any, time: Time) -> None:
    """As long as Slack asks; then the call is taken."""
    slack.control(fail_next=1, error="ratelimited", retry_after=2)
    line.post("#busy", text="one")
    assert time.slept == pytest.approx([2.0])
    assert len(slack.messages()) == 1


def test_who_is_impatient_is_told_at_once(line: Line, slack: Any, time: Time) -> None:
    """What is merely looked up is not worth a wait."""
    slack.control(fail_next=1, error="ratelimited", retry_after=2)
    with pytest.raises(Refused) as refused:
        line.ask("auth_test", where="auth.test", patient=False)
    assert (refused.value.code, refused.value.after, time.slept) == ("ratelimited", 2.0, [])
