"""The desk: who may do what in which state, what is said, and that it is done once."""

import multiprocessing
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from fakes.desk import ADA, DE, EDITH, EVE, FR, GRACE, TURN, Killed, Office, Wall

from driftloop.errors import ArtifactError, LedgerError, StaleHead
from driftloop.ledger import SqlLedger
from driftloop.loop import desk
from driftloop.loop.watch import order
from driftloop.records import (
    Act,
    Acted,
    Advanced,
    Answer,
    ModelId,
    Ordered,
    Phase,
    Stage,
    Status,
)
from driftloop.spec import Fleet

if TYPE_CHECKING:
    from conftest import StoppedClock

UK = ModelId("churn-uk")
HOUR = timedelta(hours=1)
LATER = 2.0 * desk.LEASE.total_seconds()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def office(
    fleet: Fleet,
    clock: "StoppedClock",
    wall: Wall,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Office:
    monkeypatch.setattr(desk, "PATIENCE", 60.0)
    return Office(fleet, SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}", wall=wall), clock)


def nothing_came_of(office: Office, answer: Answer, *words: str) -> None:
    """Check that it was refused in words, and that nothing is different for it."""
    assert not answer.done
    for word in words:
        assert word in answer.said
    assert office.teller.told == []
    assert office.steps.done == []


# -- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [ADA, GRACE, TURN, None], ids=["member", "group", "duty", "cli"])
def test_who_belongs_to_the_owner_may(office: Office, user: str | None) -> None:
    """A member, one of a user group, who is on call; and whoever can run the command line."""
    id_ = office.opened(DE)
    assert office.take(Act.ACK, id_, user).done
    assert office.incident(id_).status is Status.ACKED


def test_who_does_not_belong_to_the_owner_may_nothing(office: Office) -> None:
    """Whatever the act, it is said whose it is, and nothing is done."""
    office.rolled_out(DE, 5)
    id_ = office.opened(DE)
    given: dict[str, Any] = {"why": "I say so", "silence": "1h", "version": 5}
    for act in Act:
        answer = office.take(act, id_, EVE, **given)
        nothing_came_of(office, answer, "logistics", "owners.toml")
    assert office.acts() == ()


def test_the_next_in_the_chain_may_once_it_was_escalated(office: Office) -> None:
    """Edith, whose turn is next, may not before it is hers too, and then may."""
    id_ = office.opened(DE)
    assert not office.take(Act.ACK, id_, EDITH).done
    office.escalated(id_)
    assert office.take(Act.ACK, id_, EDITH).done


def test_a_right_is_that_of_the_moment(office: Office) -> None:
    """Who leaves the group, or whose shift is over, may no longer."""
    id_ = office.opened(DE)
    office.people.group = frozenset()
    assert not office.take(Act.ACK, id_, GRACE).done
    duty = office.fleet.owners["logistics"].on_call
    assert duty is not None
    later = duty.model_copy(update={"start": datetime(2026, 9, 1, tzinfo=UTC).date()})
    owner = office.fleet.owners["logistics"].model_copy(update={"on_call": later})
    office.fleet = replace(office.fleet, owners={**office.fleet.owners, "logistics": owner})
    assert not office.take(Act.ACK, id_, TURN).done


def test_a_right_that_cannot_be_checked_is_none(office: Office) -> None:
    """Where Slack does not say who is in the group nothing is done; who is named may all the same.

    Nor is it done later, when Slack is back: who clicked was told that it was not.
    """
    id_ = office.opened(DE)
    office.people.broken = True
    click = office.click(Act.ACK, id_, GRACE)
    nothing_came_of(office, office.desk.take(click), "cannot be told now", "Slack does not answer")
    office.people.broken = False
    assert not office.desk.take(click).done
    assert office.desk.finish_left() == ()
    office.people.broken = True
    assert office.take(Act.ACK, id_, ADA).done


def test_where_nobody_is_listed_buttons_say_so(office: Office) -> None:
    """An owner without members has buttons for nobody; the command line is named instead."""
    id_ = office.opened(UK, owner="nobody")
    nothing_came_of(office, office.take(Act.ACK, id_), "lists no members", f"incidents {id_}")
    assert office.take(Act.ACK, id_, None).done


# -- acts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "given", "words", "status", "until"),
    [
        (Act.ACK, {}, "acknowledged it until 2026-03-01 04:00 UTC", Status.ACKED, 4 * HOUR),
        (Act.SILENCE, {"silence": "1h"}, "until 2026-03-01 01:00 UTC", Status.SILENCED, HOUR),
        # 09:00 of the next day in Berlin, where it is one o'clock already.
        (
            Act.SILENCE,
            {"silence": "tomorrow"},
            "until 2026-03-02 08:00",
            Status.SILENCED,
            32 * HOUR,
        ),
        (Act.SILENCE, {"silence": "90m"}, "until 2026-03-01 01:30", Status.SILENCED, 1.5 * HOUR),
        (Act.SILENCE, {"silence": "next-version"}, "until the next v", Status.SILENCED, None),
        (Act.RESOLVE, {"why": "seen"}, 'by hand: "seen"', Status.RESOLVED, None),
        (Act.NO_PROBLEM, {"why": "a feast"}, 'a problem: "a feast"', Status.RESOLVED, None),
    ],
)
def test_what_is_said_is_kept_told_and_answered(
    office: Office,
    act: Act,
    given: dict[str, Any],
    words: str,
    status: Status,
    until: timedelta | None,
) -> None:
    """Who, what, until when and why are in the answer, the ledger, the thread and the message."""
    office.served(DE, 3)
    id_ = office.opened(DE)
    answer = office.take(act, id_, **given)
    assert answer.done
    assert answer.said.startswith("Ada ")
    assert words in answer.said
    (fact,) = office.acts()
    assert (fact.who, fact.user, fact.incident, fact.act) == ("Ada", ADA, id_, act)
    assert fact.until == (None if until is None else office.clock.now() + until)
    incident = office.incident(id_)
    assert (incident.status, incident.acts) == (status, (fact,))
    (notice,) = office.teller.told
    assert (notice.stage, notice.headline) == (Stage.ACTED, answer.said)
    assert notice.key == f"{id_}/acted/click-1"


def test_a_silence_until_the_next_version_ends_with_the_champion(office: Office) -> None:
    """It holds while the version answers at which it began, and no longer."""
    office.served(DE, 3)
    id_ = office.opened(DE)
    office.take(Act.SILENCE, id_, silence="next-version")
    office.clock.shown += 100 * HOUR
    assert office.incident(id_).status is Status.SILENCED
    office.served(DE, 4)
    assert office.incident(id_).status is Status.OPEN


@pytest.mark.parametrize(
    ("act", "given", "words"),
    [
        (Act.SILENCE, {"silence": ""}, "For how long?"),
        (Act.SILENCE, {"silence": "for ever"}, "For how long?"),
        (Act.SILENCE, {"silence": "0s"}, "For how long?"),
        (Act.SILENCE, {"silence": "9999d"}, "For how long?"),
        (Act.SILENCE, {"silence": "next-version"}, "no version yet"),
        (Act.NO_PROBLEM, {"why": "  \n "}, "Say why"),
        (Act.ACK, {"model": FR}, "eta-fr is not part of it"),
        (Act.PROMOTE, {"version": 5}, "No rollout of eta-de is under way"),
        (Act.HOLD, {}, "No rollout of eta-de is under way"),
        (Act.ROLL_BACK, {}, "No rollout of eta-de is under way"),
    ],
)
def test_what_makes_no_sense_is_said(
    office: Office, act: Act, given: dict[str, Any], words: str
) -> None:
    """Nothing is done, and why is told to who asked."""
    nothing_came_of(office, office.take(act, office.opened(DE), **given), words)


def test_nothing_is_done_about_what_is_over(office: Office) -> None:
    """A button of a message that nobody has looked at for days says that it is over."""
    office.rolled_out(DE, 5)
    id_ = office.opened(DE)
    office.note(id_, DE, f"{DE}/20260301T000000", Stage.RECOVERED)
    given: dict[str, Any] = {"why": "late", "silence": "1h", "version": 5}
    for act in Act:
        answer = office.take(act, id_, **given)
        nothing_came_of(office, answer, "It is over since 2026-03-01 00:00 UTC")


def test_an_incident_that_nobody_knows_is_said_to_be_none(office: Office) -> None:
    """As of a message of another installation."""
    nothing_came_of(office, office.take(Act.ACK, "eta-de/never"), "There is no incident")


def test_the_second_to_acknowledge_is_told_who_has_it(office: Office) -> None:
    """Nothing changes for a second person; the same one may take it for longer; then another."""
    id_ = office.opened(DE)
    office.take(Act.ACK, id_, ADA)
    second = office.take(Act.ACK, id_, GRACE)
    assert second == Answer(
        done=False, said="Ada has it until 2026-03-01 04:00 UTC: nothing was changed."
    )
    office.clock.shown += HOUR
    assert office.take(Act.ACK, id_, ADA).said.endswith("05:00 UTC")
    office.clock.shown += 4 * HOUR
    assert office.take(Act.ACK, id_, GRACE).done
    assert [act.who for act in office.acts()] == ["Ada", "Ada", "Grace"]


def test_only_what_evidence_has_paged_counts_as_a_false_page(office: Office) -> None:
    """A rollout's or a quarantine's page that is no problem has no part in the budget."""
    one = office.opened(DE, FR, group="data/weather")
    two = office.opened(UK, alert="quarantine/churn-uk/1", stage=Stage.QUARANTINED)
    for each in (one, two):
        assert office.take(Act.NO_PROBLEM, each, None, why="a feast").done
    assert [act.models for act in office.acts()] == [(DE, FR), ()]
    assert [act.why for act in office.incidents.denied()] == ["a feast", "a feast"]


# -- rollouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "step", "words"),
    [
        (Act.HOLD, "hold", "Ada held the rollout (eta-de, version 5)"),
        (Act.RESUME, "resume", "Ada let the rollout go on (eta-de, version 5)"),
        (Act.PROMOTE, "promote", "Ada promoted the challenger (eta-de, version 5)"),
        (Act.ROLL_BACK, "rollback", "Ada rolled it back (eta-de, version 5)"),
    ],
)
def test_a_rollout_is_acted_upon_once(office: Office, act: Act, step: str, words: str) -> None:
    """The releaser does it in the name of who clicked; the same click again changes nothing."""
    office.rolled_out(DE, 5)
    click = office.click(act, office.opened(DE), version=5)
    answers = {office.desk.take(click) for _ in range(3)}
    assert answers == {Answer(done=True, said=words)}
    assert office.steps.done == [(step, DE, "Ada")]
    assert [(fact.version, fact.key) for fact in office.acts()] == [(5, click.key)]


def test_a_button_of_an_earlier_challenger_does_nothing(office: Office) -> None:
    """Version 5 was rolled back, version 6 is on its way: who meant 5 does not promote 6."""
    id_ = office.opened(DE)
    office.rolled_out(DE, 6)
    answer = office.take(Act.PROMOTE, id_, version=5)
    nothing_came_of(office, answer, "version 5", "version 6 is under way")


def test_a_second_click_does_not_end_the_watch_of_what_was_promoted(office: Office) -> None:
    """Somebody clicks twice, or two people do: the challenger answers, and stays watched."""
    office.rolled_out(DE, 5)
    id_ = office.opened(DE)
    assert office.take(Act.PROMOTE, id_, version=5).done
    again = office.take(Act.PROMOTE, id_, GRACE, version=5)
    assert again.said.startswith("Version 5 of eta-de answers already, and is watched")
    assert len(office.steps.done) == 1
    assert Act.PROMOTE not in office.incident(id_).asks
    assert office.take(Act.ROLL_BACK, id_, GRACE, version=5).done


def test_rolling_back_what_answers_already_needs_the_same_version(office: Office) -> None:
    """Of a rollout that is over the champion goes back; if it is still that version."""
    office.served(DE, 4)
    office.served(DE, 5)
    id_ = office.opened(DE)
    assert not office.take(Act.ROLL_BACK, id_, version=4).done
    assert office.take(Act.ROLL_BACK, id_, version=5).done
    assert office.steps.done == [("move-back", DE, "Ada")]


def test_of_many_models_the_one_with_a_rollout_is_meant(office: Office) -> None:
    """Without it the act says that it takes one."""
    id_ = office.opened(DE, FR, group="data/weather")
    assert "say which one" in office.take(Act.HOLD, id_).said
    office.rolled_out(FR, 5)
    assert office.take(Act.HOLD, id_).done
    assert office.steps.done == [("hold", FR, "Ada")]


@pytest.mark.parametrize(
    "error",
    [StaleHead("somebody else was first; look again", where=DE), ArtifactError("is gone")],
)
def test_what_the_releaser_refuses_is_said(office: Office, error: Exception) -> None:
    """Nothing is kept as done that was not."""
    office.rolled_out(DE, 5)
    id_ = office.opened(DE)
    office.steps.fails = error
    nothing_came_of(
        office, office.take(Act.PROMOTE, id_, version=5), "Nothing was done", str(error)
    )
    assert office.acts() == ()


def test_what_is_held_already_is_said_to_be(office: Office) -> None:
    """With who holds it."""
    office.rolled_out(DE, 5)
    id_ = office.opened(DE)
    assert office.take(Act.HOLD, id_, ADA).done
    assert "held already, by Ada" in office.take(Act.HOLD, id_, GRACE).said


def test_what_has_begun_and_goes_on_by_itself_is_done(office: Office) -> None:
    """A champion that cannot be loaded now is tried again by the next pass: it is said."""
    office.rolled_out(DE, 5)
    id_ = office.opened(DE)
    office.steps.fails, office.steps.after = ArtifactError("the file is gone"), True
    answer = office.take(Act.ROLL_BACK, id_, version=5)
    assert answer.done
    assert answer.said.endswith("it has begun, and goes on by itself: the file is gone")
    assert len(office.acts()) == 1


# -- once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [Act.PROMOTE, Act.ROLL_BACK, Act.HOLD])
@pytest.mark.parametrize("died", ["before", "after"])
def test_a_process_that_dies_at_an_act_leaves_it_to_the_next(
    office: Office, wall: Wall, act: Act, died: str
) -> None:
    """Killed before or after the rollout's step: it is done once, kept once and told once."""
    office.rolled_out(DE, 5)
    click = office.click(act, office.opened(DE), version=5)
    office.steps.fails, office.steps.after = Killed(), died == "after"
    with pytest.raises(Killed):
        office.desk.take(click)
    assert office.acts() == ()
    assert office.desk.finish_left() == ()
    wall.ahead = LATER
    (answer,) = office.desk.finish_left()
    assert answer.done
    assert (len(office.steps.done), len(office.acts()), len(office.teller.told)) == (1, 1, 1)
    assert office.desk.take(click) == answer
    assert office.desk.finish_left() == ()


def test_an_act_that_was_kept_and_not_told_is_told_by_the_next(
    office: Office, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the fact and its notice: the same click again, or the service, tells it."""
    click = office.click(Act.ACK, office.opened(DE))
    with monkeypatch.context() as patched:
        patched.setattr(office.teller, "tell", _killed)
        with pytest.raises(Killed):
            office.desk.take(click)
    wall.ahead = LATER
    office.people.broken = True
    assert office.desk.take(click).said == "Ada acknowledged it until 2026-03-01 04:00 UTC"
    assert (len(office.acts()), len(office.teller.told)) == (1, 1)


def _killed(*_: object) -> None:
    raise Killed


def test_a_click_that_came_twice_at_once_is_done_once(office: Office) -> None:
    """As from HTTP and Socket Mode: all say the same."""
    office.rolled_out(DE, 5)
    click = office.click(Act.PROMOTE, office.opened(DE), version=5)
    answers = _at_once(lambda: office.desk.take(click), 6)
    assert len(set(answers)) == 1
    assert answers[0].done
    assert (len(office.steps.done), len(office.acts())) == (1, 1)


def test_a_click_that_came_to_two_processes_at_once_is_done_once(
    office: Office, tmp_path: Path
) -> None:
    """Each has a ledger of its own to open, and both say the same."""
    office.rolled_out(DE, 5)
    click = office.click(Act.PROMOTE, office.opened(DE), version=5)

    def one(said: Path) -> None:
        said.write_bytes(msgspec.json.encode(_elsewhere(office, tmp_path).desk.take(click)))

    said = [tmp_path / "first", tmp_path / "second"]
    assert _forked(*(partial(one, each) for each in said)) == [0, 0]
    assert len({each.read_bytes() for each in said}) == 1
    assert b"promoted the challenger" in said[0].read_bytes()
    assert len(office.acts()) == 1
    assert [step.who for step in office.ledger.facts(Advanced)] == [None, "Ada"]


def test_a_process_that_is_killed_at_an_act_leaves_it_to_the_next(
    office: Office, wall: Wall, tmp_path: Path
) -> None:
    """SIGKILL after the rollout's step and before it is kept: another keeps it, and tells it."""
    office.rolled_out(DE, 5)
    click = office.click(Act.PROMOTE, office.opened(DE), version=5)

    def one() -> None:
        elsewhere = _elsewhere(office, tmp_path)
        elsewhere.steps.after = True
        elsewhere.steps.dies = True
        elsewhere.desk.take(click)

    assert _forked(one) == [-signal.SIGKILL]
    assert office.acts() == ()
    wall.ahead = LATER
    (answer,) = office.desk.finish_left()
    assert answer == Answer(done=True, said="Ada promoted the challenger (eta-de, version 5)")
    assert office.steps.done == []
    assert [step.who for step in office.ledger.facts(Advanced)] == [None, "Ada"]


def _elsewhere(office: Office, tmp_path: Path) -> Office:
    """Return the same office as another process opens it."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    return Office(office.fleet, ledger, office.clock)


def _forked(*acts: Callable[[], None]) -> list[int | None]:
    """Return how the processes ended that did each of `acts`, all at once."""
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=act) for act in acts]
    for each in started:
        each.start()
    for each in started:
        each.join(60)
    return [each.exitcode for each in started]


def test_of_two_people_who_acknowledge_at_once_one_has_it(office: Office) -> None:
    """The other is told who."""
    id_ = office.opened(DE)
    people = iter([ADA, GRACE, TURN])
    answers = _at_once(lambda: office.take(Act.ACK, id_, next(people)), 3)
    assert sorted(answer.done for answer in answers) == [False, False, True]
    (fact,) = office.acts()
    assert all(fact.who in answer.said for answer in answers)


def _at_once(act: Callable[[], Answer], n: int) -> list[Answer]:
    answers: list[Answer] = []
    begun = threading.Barrier(n)

    def one() -> None:
        begun.wait()
        answers.append(act())

    threads = [threading.Thread(target=one) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_slack_that_is_away_is_said_and_nothing_is_lost(office: Office) -> None:
    """The act is done and kept; that it is told later stands in the answer."""
    id_ = office.opened(DE)
    office.teller.away = "Slack does not answer"
    answer = office.take(Act.ACK, id_, None)
    assert answer.done
    assert answer.said.endswith("; Slack shows it later: Slack does not answer")


def test_a_ledger_that_is_down_is_no_answer(
    office: Office, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised, and the click is done when the ledger is back."""
    id_ = office.opened(DE)
    click = office.click(Act.ACK, id_)

    def down(*_: object, **__: object) -> None:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(office.ledger, "append", down)
        with pytest.raises(LedgerError):
            office.desk.take(click)
    wall.ahead = LATER
    (answer,) = office.desk.finish_left()
    assert answer.done


def test_a_fault_of_ours_is_told_and_not_tried_for_ever(office: Office, wall: Wall) -> None:
    """Who clicked hears of it; the next look finds nothing left to do."""
    office.rolled_out(DE, 5)
    click = office.click(Act.HOLD, office.opened(DE), version=5)
    office.steps.fails = ZeroDivisionError("of ours")
    assert "It broke on ZeroDivisionError" in office.desk.take(click).said
    wall.ahead = LATER
    assert office.desk.finish_left() == ()


# -- retrain now ------------------------------------------------------------------------------


def test_retrain_asks_for_each_model_that_is_open_and_can(office: Office) -> None:
    """One whose rollout is under way, one being retrained, one that recovered: not those."""
    office.rolled_out(FR, 5)
    id_ = office.opened(DE, FR, group="data/weather")
    answer = office.take(Act.RETRAIN, id_)
    assert answer == Answer(done=True, said="Ada asked for a retraining (eta-de)")
    (fact,) = office.acts()
    assert fact.models == (DE,)
    again = office.take(Act.RETRAIN, id_, GRACE)
    assert again.said == (
        "Nothing was ordered. eta-de: its retraining was asked for already, and begins within a"
        " minute."
    )


def test_a_retraining_that_is_under_way_is_enough(office: Office) -> None:
    """Who asks for another is told since when it is."""
    id_ = office.opened(DE)
    now, family = office.clock.now(), office.fleet.family(DE)
    made = order(family, DE, key="decision", reason="decay", now=now)
    office.ledger.append(Ordered(model=DE, at=now, order=made), key=made.key)
    answer = office.take(Act.RETRAIN, id_)
    nothing_came_of(office, answer, "a retraining is under way since 2026-03-01 00:00 UTC")


def test_a_rollout_that_is_stuck_is_said_to_be(office: Office) -> None:
    """Promoted by hand and stuck: it is done, and the reason is in the answer."""
    office.rolled_out(DE, 5)
    id_ = office.opened(DE)
    stuck = office.steps.promote

    def promote(model: ModelId, *, who: str) -> Any:
        return replace(stuck(model, who=who), phase=Phase.STUCK, reason="the file is gone")

    office.steps.promote = promote  # type: ignore[method-assign]
    assert office.take(Act.PROMOTE, id_, version=5).said.endswith("version 5): the file is gone")
    assert isinstance(office.acts()[0], Acted)


def test_what_stands_is_the_same_by_itself_and_among_all(office: Office) -> None:
    """A smaller incident is part of the larger one, whichever way it is read."""
    larger = office.opened(DE, FR, group="data/weather")
    smaller = office.opened(DE, alert="eta-de/20260301T000001")
    own = office.opened(UK, owner="growth", told=False)
    listed = {each.id: each for each in office.incidents.live()}
    assert listed == {id_: office.incident(id_) for id_ in (larger, smaller, own)}
    assert listed[smaller].status is Status.EXPLAINED
    assert listed[smaller].explained_by == larger


def test_a_model_means_the_incident_that_asks_something(office: Office) -> None:
    """What a larger one explains does not make its model's name ambiguous; its own id finds it."""
    larger = office.opened(DE, FR, group="data/weather")
    smaller = office.opened(DE, alert="eta-de/20260301T000001")
    assert office.incidents.find(DE).id == larger
    assert office.incidents.find(smaller).id == smaller
