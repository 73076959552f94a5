from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.deploy import (
    Seen,
    advance,
    begun,
    failed,
    gone_back,
    held,
    promoted_by,
    resumed,
    rolled_back_by,
    taken,
    to_be_moved_back,
)
from driftloop.errors import BadRequest
from driftloop.records import (
    Candidate,
    Finding,
    Harm,
    Head,
    ModelId,
    Order,
    Phase,
    Rollout,
    Window,
)
from driftloop.spec import RolloutPolicy

DE = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CHAMPION = Head(model=DE, epoch=7, version=3, digest="c", artifact="a/3/model.onnx")
POLICY = RolloutPolicy(
    shadow="1h", shares=(0.1, 0.5), step="2h", min_rows=100, patience="6h", labels="3h", watch="1h"
)
CANDIDATE = Candidate(
    order=Order(
        key="o",
        model=DE,
        at=AT,
        reason="worse",
        window=Window(model=DE, start=AT, end=AT, known_at=AT),
        holdout_from=AT,
        seed=1,
    ),
    digest="d",
    folder="a/4",
    rows=1,
    holdout_rows=1,
    metrics=(),
    parity=0.0,
    fit_seconds=0.0,
    lower_seconds=0.0,
)
OPEN = [phase for phase in Phase if phase not in {Phase.CHAMPION, Phase.ROLLED_BACK}]


def finding(what: str, harm: Harm) -> Finding:
    return Finding(what=what, harm=harm, limit=0.1, n=100, of=100, said=f"{what} is {harm}")


def started(policy: RolloutPolicy = POLICY) -> Rollout:
    return begun(CANDIDATE, 4, champion=CHAMPION, policy=policy, now=AT)


def in_phase(phase: Phase, share: float = 0.1) -> Rollout:
    return replace(started(), phase=phase, share=share)


FINE = Seen(
    champion=3,
    rows=1000,
    labels=1000,
    findings=(finding("errors", Harm.NONE), finding("quality", Harm.NONE)),
)


def run(rollout: Rollout, seen: Seen, now: datetime, policy: RolloutPolicy = POLICY) -> Rollout:
    """One pass of a world in which acting succeeds."""
    champion = rollout.version if rollout.phase is Phase.WATCHED else rollout.champion
    gone = advance(rollout, replace(seen, champion=champion), policy, now).rollout
    if gone.phase is Phase.PROMOTING and gone.held is None:
        return taken(gone, policy, now)
    if gone.phase is Phase.ROLLING_BACK and gone.held is None:
        return gone_back(gone, now)
    return gone


def test_a_good_challenger_comes_to_the_front_share_by_share() -> None:
    """Shadow, each share for its time, promoted, watched, champion; the head is asked for once."""
    rollout, seen = started(), []
    for hour in range(12):
        now = AT + hour * HOUR
        rollout = run(rollout, FINE, now)
        seen.append((hour, rollout.named))
    changes = [seen[0], *(now for before, now in pairwise(seen) if before[1] != now[1])]
    assert changes == [
        (0, "shadow"),
        (1, "canary 10%"),
        (3, "canary 50%"),
        (5, "watched"),
        (6, "champion"),
    ]


@pytest.mark.parametrize("phase", [p for p in OPEN if p is not Phase.ROLLING_BACK])
@pytest.mark.parametrize("by", ["", "anna"])
def test_certain_harm_rolls_back_from_every_phase(phase: Phase, by: str) -> None:
    """Held by a person or not, before any time is over, and the reason says what it was."""
    rollout = replace(in_phase(phase), held=by or None)
    bad = replace(FINE, findings=(*FINE.findings, finding("p99", Harm.CERTAIN)))
    gone = advance(rollout, bad, POLICY, AT).rollout
    assert (gone.phase, gone.share, gone.held) == (Phase.ROLLING_BACK, 0.0, None)
    assert gone.reason == "p99 is certain"


@pytest.mark.parametrize("phase", OPEN)
def test_a_person_can_hold_promote_and_roll_back_in_every_phase(phase: Phase) -> None:
    """And what is held stays, however long, while there is no certain harm."""
    rollout = in_phase(phase)
    stands = held(rollout, "anna")
    later = advance(stands, replace(FINE, champion=rollout.champion), POLICY, AT + 1000 * HOUR)
    if phase is Phase.WATCHED:
        later = advance(stands, replace(FINE, champion=4), POLICY, AT + 1000 * HOUR)
    assert later.rollout is stands
    assert later.reason == "held by anna"
    with pytest.raises(BadRequest, match="held already, by anna"):
        held(stands, "bert")
    assert promoted_by(stands, "anna", AT).phase in {Phase.PROMOTING, Phase.CHAMPION}
    back = rolled_back_by(stands, "anna", AT)
    assert (back.phase, back.share, back.held) == (Phase.ROLLING_BACK, 0.0, None)
    assert resumed(stands, "anna", AT).held is None


def test_only_what_is_held_or_stuck_is_resumed() -> None:
    """A stuck promotion is tried again."""
    with pytest.raises(BadRequest, match="is not held"):
        resumed(started(), "anna", AT)
    stuck = failed(in_phase(Phase.PROMOTING), "no such file", AT)
    assert (stuck.phase, stuck.share, stuck.reason) == (Phase.STUCK, 0.1, "no such file")
    assert resumed(stuck, "anna", AT).phase is Phase.PROMOTING


def test_a_stuck_promotion_keeps_its_share_and_ends_by_its_limit() -> None:
    """A person has the policy's patience to mend it; then the champion answers alone."""
    stuck = failed(in_phase(Phase.PROMOTING), "no such file", AT)
    assert advance(stuck, FINE, POLICY, AT + 5 * HOUR).rollout is stuck
    assert advance(stuck, FINE, POLICY, AT + 6 * HOUR).rollout.phase is Phase.ROLLING_BACK


def test_a_promotion_that_never_ends_is_stuck() -> None:
    """As when the ledger takes no move for hours."""
    late = advance(in_phase(Phase.PROMOTING), FINE, POLICY, AT + 6 * HOUR).rollout
    assert late.phase is Phase.STUCK


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (replace(FINE, rows=99), "99 of 100 rows"),
        (replace(FINE, findings=(finding("scores", Harm.UNSURE),)), "scores is unsure"),
    ],
)
def test_what_could_not_be_shown_harmless_in_time_is_rolled_back(seen: Seen, why: str) -> None:
    """It waits for its limit, and never goes forward on too little."""
    rollout = started()
    waiting = advance(rollout, seen, POLICY, AT + 5 * HOUR)
    assert waiting.rollout is rollout
    assert why in waiting.reason
    assert waiting.until == AT + 6 * HOUR
    gone = advance(rollout, seen, POLICY, AT + 6 * HOUR).rollout
    assert gone.phase is Phase.ROLLING_BACK
    assert why in gone.reason


def test_late_labels_are_awaited_up_to_a_limit() -> None:
    """Beyond it the gate's word stands, and the reason says so."""
    unlabelled = replace(FINE, labels=5, findings=(finding("errors", Harm.NONE),))
    rollout = started()
    waits = advance(rollout, unlabelled, POLICY, AT + 3.9 * HOUR)
    assert waits.rollout is rollout
    assert waits.reason == "late labels are awaited: 5 of 100 rows labelled"
    gone = advance(rollout, unlabelled, POLICY, AT + 4 * HOUR).rollout
    assert gone.phase is Phase.CANARY
    assert "the gate's word stands" in gone.reason


def test_a_champion_moved_by_somebody_else_ends_the_rollout() -> None:
    """What it was compared with no longer answers."""
    gone = advance(started(), replace(FINE, champion=2), POLICY, AT).rollout
    assert gone.phase is Phase.ROLLING_BACK
    assert "version 2 was made champion" in gone.reason


def test_only_a_challenger_that_answers_alone_is_moved_back() -> None:
    """Before its promotion there is nothing to move."""
    back = rolled_back_by(in_phase(Phase.WATCHED), "anna", AT)
    assert to_be_moved_back(back, replace(CHAMPION, version=4))
    assert not to_be_moved_back(back, CHAMPION)


def test_without_shadow_or_shares_the_rest_of_the_way_is_gone() -> None:
    """Shares alone begin with the first; shadow alone ends in the promotion."""
    shares = POLICY.model_copy(update={"shadow": timedelta(0)})
    assert started(shares).named == "canary 10%"
    shadow = POLICY.model_copy(update={"shares": ()})
    assert advance(started(shadow), FINE, shadow, AT + HOUR).rollout.phase is Phase.PROMOTING


HARMS = st.sampled_from(list(Harm))
SEEN = st.builds(
    Seen,
    champion=st.just(3),
    rows=st.integers(0, 300),
    labels=st.integers(0, 300),
    findings=st.tuples(
        st.builds(finding, st.just("errors"), HARMS),
        st.builds(finding, st.just("quality"), HARMS),
    ),
)
PASSES = st.lists(st.tuples(SEEN, st.integers(0, 5)), min_size=1, max_size=40)


@given(PASSES)
def test_no_path_lets_a_harmful_challenger_become_champion(
    passes: list[tuple[Seen, int]],
) -> None:
    """Whatever is seen when: it goes forward only on passes that show no harm, on enough rows."""
    rollout, now = started(), AT
    for seen, hours in passes:
        now += hours * HOUR
        before, rollout = rollout, run(rollout, seen, now)
        if not rollout.is_open:
            break
        forward = before.phase is not rollout.phase or before.share < rollout.share
        if forward and rollout.phase in {Phase.CANARY, Phase.WATCHED}:
            assert seen.harm is None
            assert seen.rows >= POLICY.min_rows
            assert seen.findings[0].harm is Harm.NONE
    if rollout.phase is Phase.CHAMPION:
        assert seen.harm is None


@settings(max_examples=25)
@given(st.lists(SEEN, min_size=60, max_size=60))
def test_a_rollout_that_nobody_holds_comes_to_its_end(passes: list[Seen]) -> None:
    """Each phase has its limit: at the latest after the sum of them it is over."""
    rollout = started()
    for hour, seen in enumerate(passes):
        rollout = run(rollout, seen, AT + hour * HOUR)
    assert not rollout.is_open


@given(PASSES)
def test_shares_only_grow_until_it_goes_back(passes: list[tuple[Seen, int]]) -> None:
    """Who was answered by the challenger stays with it, or nobody is: no flapping to and fro."""
    rollout, now = started(), AT
    for seen, hours in passes:
        now += hours * HOUR
        before, rollout = rollout, run(rollout, seen, now)
        assert rollout.share >= before.share or not rollout.is_open
