"""The ledger: facts once, one champion at a time, one holder of an intent."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from driftloop.errors import LedgerError, StaleHead, TooNew
from driftloop.ledger import SqlLedger
from driftloop.records import (
    Advanced,
    Decided,
    Decision,
    Failed,
    Grouped,
    Head,
    Kind,
    Measured,
    ModelId,
    Moved,
    Noted,
    Notice,
    Paged,
    Phase,
    Posted,
    Reading,
    Receipt,
    Rollout,
    Stage,
    State,
    Window,
)

DE = ModelId("eta-de")
FR = ModelId("eta-fr")
AT = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)


class Wall:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(params=["sqlite", "postgresql"])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of a new database, of both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("database"))


@pytest.fixture
def wall() -> Wall:
    """A wall clock that stands still."""
    return Wall()


@pytest.fixture
def ledger(url: str, wall: Wall) -> Iterator[SqlLedger]:
    """A ledger in a new database."""
    made = SqlLedger(url, wall=wall)
    yield made
    made.close()


def head(epoch: int, *, model: ModelId = DE) -> Head:
    return Head(model=model, epoch=epoch, version=epoch, digest=f"d{epoch}", artifact=f"a{epoch}")


def fact(n: int, *, model: ModelId = DE) -> Failed:
    return Failed(model=model, at=AT + timedelta(days=n), order_key=f"o{n}", error="no")


def test_facts_come_back_as_they_were_in_order(ledger: SqlLedger) -> None:
    """What is appended is read again, equal, oldest first; filters cut it down."""
    facts = [fact(0), fact(1), fact(2, model=FR)]
    assert all(ledger.append(one) for one in facts)
    assert ledger.facts(Failed) == tuple(facts)
    assert ledger.facts(Failed, model=DE) == tuple(facts[:2])
    assert ledger.facts(Failed, since=AT + timedelta(days=1)) == tuple(facts[1:])
    assert ledger.facts(Failed, last=1) == (facts[2],)
    assert ledger.facts(Moved) == ()


def test_a_key_is_taken_once(ledger: SqlLedger) -> None:
    """The second fact under a key is not written, and the caller is told."""
    assert ledger.append(fact(0), key="k")
    assert not ledger.append(fact(1), key="k")
    assert ledger.facts(Failed) == (fact(0),)
    assert ledger.fact(Failed, key="k") == fact(0)
    assert ledger.fact(Failed, key="other") is None
    assert ledger.fact(Moved, key="k") is None


def test_many_keys_are_asked_for_at_once(ledger: SqlLedger) -> None:
    """Those of the kind asked for, and no others; of no keys there are none."""
    ledger.append(fact(0), key="k")
    ledger.append(fact(1), key="l")
    assert ledger.appended(Failed, ["k", "other", "k"]) == {"k"}
    assert ledger.appended(Moved, ["k"]) == frozenset()
    assert ledger.appended(Failed, []) == frozenset()


def test_the_champion_moves_only_from_where_it_was(ledger: SqlLedger) -> None:
    """Compare-and-set: whoever moves second from the same head is refused."""
    ledger.move(head(1), at=AT, previous=None, reason="first")
    ledger.move(head(2), at=AT, previous=head(1), reason="better")
    with pytest.raises(StaleHead, match="meanwhile"):
        ledger.move(head(2), at=AT, previous=head(1), reason="also better")
    with pytest.raises(StaleHead, match="does not follow"):
        ledger.move(head(9), at=AT, previous=head(2), reason="jump")
    assert ledger.head(DE) == head(2)
    assert [move.previous for move in ledger.facts(Moved)] == [None, 1]


def test_heads_are_the_newest_of_each_model(ledger: SqlLedger) -> None:
    """One head a model, whatever happened before."""
    ledger.move(head(1), at=AT, previous=None, reason="")
    ledger.move(head(1, model=FR), at=AT, previous=None, reason="")
    ledger.move(head(2), at=AT, previous=head(1), reason="")
    assert ledger.heads() == (head(2), head(1, model=FR))
    assert ledger.head(ModelId("eta-xx")) is None


def test_racing_movers_leave_one_champion(url: str) -> None:
    """Of eight threads that move from the same head exactly one wins."""
    with ThreadPoolExecutor(8) as pool:
        ledgers = [SqlLedger(url) for _ in range(8)]
        ledgers[0].move(head(1), at=AT, previous=None, reason="")

        def race(n: int) -> bool:
            try:
                ledgers[n].move(head(2), at=AT, previous=head(1), reason=str(n))
            except StaleHead:
                return False
            return True

        won = list(pool.map(race, range(8)))
        assert sum(won) == 1
        assert ledgers[0].facts(Moved, last=1)[0].reason == str(won.index(True))
        for ledger in ledgers:
            ledger.close()


def test_an_intent_has_one_holder_until_its_lease_ends(ledger: SqlLedger, wall: Wall) -> None:
    """Held: nobody else. Expired: taken over, and the new holder is told to reconcile."""
    assert ledger.claim("act", lease=LEASE, body="what").mine
    assert not ledger.claim("act", lease=LEASE).mine
    assert ledger.unfinished("act") == ()
    wall.seconds += 61
    assert ledger.unfinished("act") == (("act", "what"),)
    again = ledger.claim("act", lease=LEASE)
    assert (again.mine, again.retaken) == (True, True)


def test_a_clock_set_back_takes_no_act_from_its_holder(ledger: SqlLedger, wall: Wall) -> None:
    """The holder can finish or give back as before; what it gave back is free at once."""
    for key in ("one", "other"):
        assert ledger.claim(key, lease=LEASE).mine
    wall.seconds -= 900
    assert not ledger.claim("one", lease=LEASE).mine
    ledger.finish("one", "done")
    assert ledger.claim("one", lease=LEASE).outcome == "done"
    ledger.release("other")
    assert [key for key, _ in ledger.unfinished("")] == ["other"]
    assert ledger.claim("other", lease=LEASE).mine


def test_a_finished_act_is_never_claimed_again(ledger: SqlLedger, wall: Wall) -> None:
    """Neither time nor release brings a finished act back."""
    ledger.claim("act", lease=LEASE)
    ledger.finish("act", "done")
    ledger.release("act")
    wall.seconds += 1e6
    late = ledger.claim("act", lease=LEASE)
    assert (late.mine, late.outcome) == (False, "done")
    assert ledger.unfinished("") == ()


def test_unfinished_takes_its_prefix_to_the_letter(ledger: SqlLedger, wall: Wall) -> None:
    """A prefix with SQL's wildcards in it matches only itself."""
    for key in ("a_b/1", "axb/2"):
        ledger.claim(key, lease=LEASE)
        ledger.release(key)
    assert [key for key, _ in ledger.unfinished("a_b")] == ["a_b/1"]


def _append(url: str, name: int, count: int) -> None:
    ledger = SqlLedger(url)
    for n in range(count):
        ledger.append(fact(n), key=f"{name}/{n}")
    ledger.close()


def test_processes_write_at_once_and_nothing_is_lost(url: str) -> None:
    """Four processes of 50 facts each leave 200, without an error."""
    context = multiprocessing.get_context("spawn")
    SqlLedger(url).close()
    writers = [context.Process(target=_append, args=(url, name, 50)) for name in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    ledger = SqlLedger(url)
    assert len(ledger.facts(Failed)) == 200
    ledger.close()


def _move(url: str, name: str, count: int, won: "multiprocessing.Queue[tuple[str, int]]") -> None:
    ledger = SqlLedger(url)
    while (before := ledger.head(DE)) is None or before.epoch < count:
        epoch = 1 if before is None else before.epoch + 1
        try:
            ledger.move(head(epoch), at=AT, previous=before, reason=name)
        except StaleHead:
            continue
        won.put((name, epoch))
    ledger.close()


def test_a_second_mover_of_another_process_is_refused(url: str) -> None:
    """Two processes that move the same champion over and over: each epoch has one that won it."""
    context = multiprocessing.get_context("spawn")
    won: multiprocessing.Queue[tuple[str, int]] = context.Queue()
    movers = [context.Process(target=_move, args=(url, name, 30, won)) for name in ("a", "b")]
    for mover in movers:
        mover.start()
    told = dict(reversed(won.get(timeout=60)) for _ in range(30))
    for mover in movers:
        mover.join(60)
    assert [mover.exitcode for mover in movers] == [0, 0]
    ledger = SqlLedger(url)
    moves = ledger.facts(Moved)
    assert {move.head.epoch: move.reason for move in moves} == told
    assert [move.head.epoch for move in moves] == list(range(1, 31))
    ledger.close()


def test_a_newer_ledger_is_refused(url: str) -> None:
    """A ledger written by a newer driftloop is left alone, with a hint."""
    import sqlalchemy as sa

    SqlLedger(url).close()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE ledger_meta SET version = 99"))
    engine.dispose()
    with pytest.raises(TooNew, match="run the newer driftloop") as refused:
        SqlLedger(url)
    assert "s3cret" not in str(refused.value)


def test_an_address_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    """A folder that is not there is an error with the address in it."""
    with pytest.raises(LedgerError, match="cannot be read: unable to open"):
        SqlLedger(f"sqlite:///{tmp_path / 'no' / 'ledger.db'}")


def test_facts_of_before_there_were_segments_are_read(ledger: SqlLedger, url: str) -> None:
    """A reading without the field is one of all rows; a decision without it names no segment."""
    window = Window(model=DE, start=AT, end=AT, known_at=AT)
    reading = Reading(kind=Kind.DECAY, metric="mae", column=None, value=1.0, n=9)
    decision = Decision(
        key="k",
        model=DE,
        at=AT,
        state=State.FRESH,
        reason="r",
        version=1,
        window=window,
        verdicts=(),
    )
    facts = (
        Measured(model=DE, at=AT, window=window, rows=9, labels=9, readings=(reading,)),
        Decided(model=DE, at=AT, decision=decision),
    )
    for each in facts:
        ledger.append(each)
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as con:
        for id_, body in con.execute(sa.text("SELECT id, body FROM facts")).fetchall():
            older = body.replace(',"worst":[]', "")
            assert "segment" not in older
            asked = {"older": older, "id": id_}
            con.execute(sa.text("UPDATE facts SET body = :older WHERE id = :id"), asked)
    engine.dispose()
    assert (*ledger.facts(Measured), *ledger.facts(Decided)) == facts


def test_a_segment_comes_back(ledger: SqlLedger) -> None:
    """With its reading, and with the decision that it was worst in."""
    reading = Reading(
        kind=Kind.DECAY, metric="mae", column=None, value=1.0, n=9, segment="carrier=AA"
    )
    window = Window(model=DE, start=AT, end=AT, known_at=AT)
    measured = Measured(model=DE, at=AT, window=window, rows=9, labels=9, readings=(reading,))
    ledger.append(measured)
    assert ledger.facts(Measured) == (measured,)


# -- rollouts -------------------------------------------------------------------------------------


def rollout(epoch: int, phase: Phase = Phase.SHADOW, model: ModelId = DE) -> Rollout:
    return Rollout(
        model=model,
        order="o",
        epoch=epoch,
        version=2,
        digest="d2",
        artifact="/old/artifacts/eta-de/2/model.onnx",
        champion=1,
        phase=phase,
        reason="",
        begun=AT,
        since=AT,
    )


def step(epoch: int, phase: Phase = Phase.SHADOW, model: ModelId = DE) -> Advanced:
    return Advanced(model=model, at=AT, rollout=rollout(epoch, phase, model))


def test_moves_and_steps_of_a_rollout_share_one_counter(ledger: SqlLedger) -> None:
    """No epoch is taken twice, by either kind; the head is told in the newest of them."""
    first = Head(model=DE, epoch=1, version=1, digest="d", artifact="a")
    ledger.move(first, at=AT, previous=None, reason="first")
    with pytest.raises(StaleHead, match="epoch 1"):
        ledger.advance(step(1))
    ledger.advance(step(2))
    now = ledger.head(DE)
    assert now is not None
    assert (now.version, now.epoch) == (1, 2)
    assert ledger.heads() == (now,)
    late = Head(model=DE, epoch=2, version=2, digest="d2", artifact="b")
    with pytest.raises(StaleHead, match="meanwhile"):
        ledger.move(late, at=AT, previous=first, reason="late")
    assert ledger.facts(Moved)[-1].head == first


def test_a_model_has_one_open_rollout_until_its_end(ledger: SqlLedger) -> None:
    """The newest step of each model counts; one at its end is open no more."""
    for fact in (step(2), step(2, model=FR), step(3, Phase.CANARY)):
        ledger.advance(fact)
    assert ledger.rollouts() == (rollout(3, Phase.CANARY), rollout(2, model=FR))
    ledger.advance(step(4, Phase.ROLLED_BACK))
    assert ledger.rollouts() == (rollout(2, model=FR),)
    assert [fact.rollout.epoch for fact in ledger.advances()] == [4, 2]


def test_of_many_deployers_at_once_one_wins(ledger: SqlLedger) -> None:
    """Eight threads take the same step: one does, the others are told."""

    def try_(number: int) -> str:
        try:
            if number % 2:
                ledger.advance(step(2))
            else:
                head = Head(model=DE, epoch=2, version=5, digest="d", artifact="a")
                before = Head(model=DE, epoch=1, version=1, digest="d", artifact="a")
                ledger.move(head, at=AT, previous=before, reason="mine")
        except StaleHead:
            return "told"
        return "won"

    with ThreadPoolExecutor(8) as threads:
        came = list(threads.map(try_, range(8)))
    assert sorted(came) == ["told"] * 7 + ["won"]


def test_a_challengers_file_moves_with_its_home(ledger: SqlLedger) -> None:
    """As those of champions do."""
    ledger.advance(step(2))
    ledger.re_root(Path("/old"), Path("/new"))
    assert ledger.rollouts()[0].artifact == "/new/artifacts/eta-de/2/model.onnx"


def test_a_rollouts_steps_belong_to_its_order(ledger: SqlLedger) -> None:
    """One id leads from the decision to the last step."""
    ledger.advance(step(2))
    assert ledger.trace("o") == (step(2),)


def noted(alert: str, incident: str, n: int = 1) -> tuple[Noted, str]:
    """Return that a notice is to be told as part of an incident, and its key."""
    notice = Notice(
        key=f"{alert}/{n}",
        incident=alert,
        model=DE,
        stage=Stage.OPENED,
        at=AT,
        since=AT,
        channel="#c",
        mention="",
        headline="h",
        doing="d",
    )
    return Noted(model=DE, at=AT, notice=notice, incident=incident), notice.key


def test_what_lives_is_what_nobody_finished(ledger: SqlLedger) -> None:
    """Held or not; finished ones are counted, and live again if they are opened again."""
    for name in ("a/0", "a/1", "b/0"):
        ledger.claim(f"incident/{name}", lease=LEASE, body=name)
    ledger.release("incident/a/0")
    ledger.finish("incident/a/1", "told")
    assert ledger.live("incident/a/") == (("incident/a/0", "a/0"),)
    assert (ledger.finished("incident/a/"), ledger.finished("incident/b/")) == (1, 0)
    ledger.reopen("incident/a/1")
    assert [body for _, body in ledger.live("incident/a/")] == ["a/0", "a/1"]
    assert ledger.claim("incident/a/1", lease=LEASE).mine


def test_many_facts_are_appended_at_once_and_each_once(ledger: SqlLedger) -> None:
    """Those that are there already are left as they are."""
    first, second = noted("x", "x"), noted("y", "y")
    ledger.append_all([first])
    ledger.append_all([(noted("x", "another")[0], first[1]), second])
    assert [fact.incident for fact in ledger.facts(Noted)] == ["x", "y"]
    ledger.append_all([])


def test_an_incident_is_all_facts_that_name_it_in_order(ledger: SqlLedger) -> None:
    """Not those of another whose name begins likewise."""
    fact, key = noted("x", "x")
    grouped = Grouped(model=DE, at=AT, alert="x", incident="x", group="", owner="o")
    stands = Posted(
        model=DE, at=AT, incident="x", channel="#c", receipt=Receipt(channel="C", ts="1"), shown=""
    )
    other, its_key = noted("x/2", "x/2")
    ledger.append(grouped, key="x")
    ledger.append_all([(fact, key), (other, its_key)])
    ledger.append(stands)
    assert ledger.incident("x") == (grouped, fact, stands)


def test_untold_is_what_was_noted_and_not_paged(ledger: SqlLedger) -> None:
    """By the notice's key, oldest first."""
    facts = [noted("x", "x", n) for n in range(3)]
    ledger.append_all(facts)
    told = Paged(model=DE, at=AT, notice=facts[1][0].notice, receipt=Receipt(channel="C", ts="1"))
    ledger.append(told, key=facts[1][1])
    assert ledger.untold() == (facts[0][0], facts[2][0])


def test_changes_name_what_was_appended_to_since(ledger: SqlLedger) -> None:
    """Incidents by their facts, models by what answers for them; of the past nothing."""
    ledger.append_all([noted("x", "x")])
    begun = ledger.changes(-1)
    assert (begun.incidents, begun.models) == (frozenset(), frozenset())
    assert ledger.changes(begun.upto).upto == begun.upto
    ledger.append_all([noted("y", "of/y")])
    ledger.append(fact(1), key="no incident")
    head = Head(model=FR, epoch=1, version=1, digest="", artifact="")
    ledger.move(head, at=AT, previous=None, reason="r")
    later = ledger.changes(begun.upto)
    assert "of/y" in later.incidents
    assert later.models == {FR}
    assert later.upto > begun.upto
