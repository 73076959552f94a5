from typing import Any

import pytest

from driftloop.errors import PagerError
from driftloop.page.slack import SlackPager


@pytest.fixture
def people(slack: Any) -> SlackPager:
    """Who is who at the running local Slack."""
    return SlackPager("xoxb-check", slack.api)


def test_a_groups_members_are_those_of_the_last_minute(
    slack: Any, people: SlackPager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack is asked once a minute: who joins may press buttons a minute later."""
    slack.add_person("S0TEAM0001", handle="team", users=["U0OPERATOR1"])
    assert people.members("S0TEAM0001") == {"U0OPERATOR1"}
    slack.add_person("S0TEAM0001", handle="team", users=["U0OPERATOR1", "U0OPERATOR2"])
    assert people.members("S0TEAM0001") == {"U0OPERATOR1"}
    monkeypatch.setattr("driftloop.page.people.KEPT", 0.0)
    assert people.members("S0TEAM0001") == {"U0OPERATOR1", "U0OPERATOR2"}


@pytest.mark.parametrize("error", ["missing_scope", "ratelimited", "no_such_subteam"])
def test_a_group_that_cannot_be_asked_has_no_members_to_guess(
    slack: Any, people: SlackPager, error: str
) -> None:
    """The caller refuses the click and says why; once Slack answers it is asked again."""
    slack.add_person("S0TEAM0001", handle="team", users=["U0OPERATOR1"])
    slack.control(fail_next=1, error=error, retry_after=30, method="usergroups.users.list")
    with pytest.raises(PagerError, match=error):
        people.members("S0TEAM0001")
    if error != "ratelimited":
        assert people.members("S0TEAM0001") == {"U0OPERATOR1"}


def test_people_have_names(people: SlackPager) -> None:
    """As they are called in Slack; who is unknown by the id."""
    assert people.name("U0OPERATOR1") == "ada"
    assert people.name("U0NOBODY99") == "U0NOBODY99"


def test_a_name_is_not_worth_a_wait(slack: Any, people: SlackPager) -> None:
    """Where it cannot be asked the id does, for a minute."""
    slack.control(fail_next=1, error="ratelimited", retry_after=30, method="users.info")
    assert people.name("U0OPERATOR1") == "U0OPERATOR1"
    slack.control()
    assert people.name("U0OPERATOR1") == "U0OPERATOR1"
