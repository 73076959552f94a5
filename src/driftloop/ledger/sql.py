"""The ledger in an SQL database."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from driftloop.errors import LedgerError, StaleHead
from driftloop.ledger.engine import engine_of
from driftloop.ledger.migrations import bring_up
from driftloop.ledger.trace import INCIDENT, is_release, trace_of
from driftloop.ports import Changes
from driftloop.records import (
    REMEMBERED,
    Advanced,
    Decided,
    Fact,
    Head,
    Intent,
    Measured,
    ModelHistory,
    ModelId,
    Moved,
    Noted,
    Ordered,
    Paged,
    Rollout,
    Trained,
    version_key,
)

KINDS: Mapping[str, type[Fact]] = {kind.__name__: kind for kind in get_args(Fact)}
UNSAID = tuple(
    f',"{name}":null' for name in ("low", "high", "p_value", "baseline", "problem", "segment")
)
"""What most readings have not; left out, it is read as None. No text has an unescaped quote."""
LATE = 100
"""So many facts that were seen are looked at again for one between them that was written late."""
PAGE = 500
"""Facts that are read at once where there may be a million."""

ROUTED = (Moved.__name__, Advanced.__name__)
"""Kinds that change what answers: each of their facts takes an epoch of the model's one counter."""

FactT = TypeVar("FactT", bound=Fact)


class SqlLedger:
    """The ledger in an SQL database; implements `ports.Ledger`.

    Every write is one statement, so that processes that write at once wait for each other and
    never fail half way. The champion of a model is its newest `Moved` fact, and its rollout the
    newest `Advanced` one; both have keys `model#epoch`, of which no two are the same: that is the
    compare-and-set.

    Args:
        url: SQLAlchemy address, `sqlite:///file` or `postgresql://...`, which psycopg opens.
        wall: the wall clock in seconds, for leases.

    Raises:
        LedgerError: the database cannot be opened.
        TooNew: it was written by a newer driftloop.
        BadRequest: it is PostgreSQL, and psycopg is not installed.
    """

    def __init__(self, url: str, *, wall: Callable[[], float] = time.time) -> None:
        import sqlalchemy as sa

        self._sa = sa
        self._wall = wall
        self._engine = engine_of(url)
        meta = sa.MetaData()
        sa.Table("ledger_meta", meta, sa.Column("version", sa.Integer, nullable=False))
        self._facts = sa.Table(
            "facts",
            meta,
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("kind", sa.String, nullable=False),
            sa.Column("model", sa.String, nullable=False),
            sa.Column("at", sa.String, nullable=False),
            sa.Column("written", sa.Float, nullable=False),
            sa.Column("key", sa.String),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("trace", sa.String),
            sa.UniqueConstraint("kind", "key"),
            sa.Index("facts_by_model", "kind", "model", "id"),
            sa.Index("facts_by_trace", "trace", "id"),
        )
        routed = self._facts.c.kind.in_(ROUTED)
        sa.Index(
            "one_epoch",
            self._facts.c.key,
            unique=True,
            sqlite_where=routed,
            postgresql_where=routed,
        )
        self._intents = sa.Table(
            "intents",
            meta,
            sa.Column("key", sa.String, primary_key=True),
            sa.Column("body", sa.Text, nullable=False),
            sa.Column("lease_until", sa.Float, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("outcome", sa.Text),
        )
        unfinished = self._intents.c.outcome.is_(None)
        sa.Index(
            "live_intents",
            self._intents.c.key,
            sqlite_where=unfinished,
            postgresql_where=unfinished,
        )
        # Made once: a pass over a fleet asks each for every model, and making them is what costs.
        facts = self._facts
        self._appending = self._insert(facts).on_conflict_do_nothing().returning(facts.c.id)
        self._newest = (
            sa.select(facts.c.body)
            .where(facts.c.kind == sa.bindparam("kind"), facts.c.model == sa.bindparam("model"))
            .order_by(facts.c.id.desc())
            .limit(sa.bindparam("last"))
        )
        self._keyed = sa.select(facts.c.body).where(
            facts.c.kind == sa.bindparam("kind"), facts.c.key == sa.bindparam("key")
        )
        with self._told("read"):
            bring_up(self._engine, meta)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def append(self, fact: Fact, *, key: str | None = None) -> bool:
        """Append `fact`; False, and nothing written, when its kind already has `key`."""
        # Not by counting: of an insert PostgreSQL's driver does not tell how many rows it made.
        row = self._row(fact, key, self._wall())
        with self._told("written"), self._engine.begin() as connection:
            return connection.execute(self._appending, row).first() is not None

    def facts(
        self,
        kind: type[FactT],
        *,
        model: ModelId | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        last: int | None = None,
    ) -> tuple[FactT, ...]:
        """Return facts of one kind, oldest first; `last` keeps only that many newest.

        `since` and `before` bound when they were found, `since` included.
        """
        if model is not None and last is not None and since is None and before is None:
            asked = {"kind": kind.__name__, "model": model, "last": last}
            return tuple(
                reversed([_decoded(row[0], kind) for row in self._read(self._newest, asked)])
            )
        table = self._facts
        query = self._sa.select(table.c.body).where(table.c.kind == kind.__name__)
        if model is not None:
            query = query.where(table.c.model == model)
        if since is not None:
            query = query.where(table.c.at >= _text(since))
        if before is not None:
            query = query.where(table.c.at < _text(before))
        if last is not None:
            query = query.order_by(table.c.id.desc()).limit(last)
            return tuple(reversed([_decoded(row[0], kind) for row in self._read(query)]))
        return tuple(_decoded(row[0], kind) for row in self._read(query.order_by(table.c.id)))

    def passes(
        self, since: datetime, before: datetime, models: Collection[ModelId] | None = None
    ) -> Iterator[Measured | Decided]:
        """Yield what was measured of `models`, or all, in a span; in order, a page at a time.

        Of models that could not be looked at the decision that says so stands for it.
        """
        facts, sa = self._facts, self._sa
        within = (facts.c.at >= _text(since)) & (facts.c.at < _text(before))
        same = facts.alias()
        if models is not None:
            within &= facts.c.model.in_(models)
        measured = (same.c.kind == Measured.__name__) & (same.c.key == facts.c.key)
        unseen = (facts.c.kind == Decided.__name__) & ~sa.exists().where(measured)
        query = sa.select(facts.c.id, facts.c.kind, facts.c.body).where(
            facts.c.id > sa.bindparam("after"),
            within & ((facts.c.kind == Measured.__name__) | unseen),
        )
        query, after = query.order_by(facts.c.id).limit(PAGE), 0
        while page := self._read(query, {"after": after}):
            for after, kind, body in page:  # noqa: B007 - the last one's number is where to go on
                measured = kind == Measured.__name__
                yield _decoded(body, Measured) if measured else _decoded(body, Decided)

    def fact(self, kind: type[FactT], *, key: str) -> FactT | None:
        """Return the fact of one kind that was appended under `key`, None when there is none."""
        found = self._read(self._keyed, {"kind": kind.__name__, "key": key})
        return _decoded(found[0][0], kind) if found else None

    def appended(self, kind: type[Fact], keys: Collection[str]) -> frozenset[str]:
        """Return those of `keys` that a fact of one kind was appended under."""
        if not keys:
            return frozenset()
        table = self._facts
        theirs = (table.c.kind == kind.__name__) & table.c.key.in_(keys)
        return frozenset(row[0] for row in self._read(self._sa.select(table.c.key).where(theirs)))

    def trace(self, key: str) -> tuple[Fact, ...]:
        """Return every fact that belongs to one decision or order, oldest first.

        `key` is a decision's, or that of an order given by hand. Of an incident's first decision
        that is also what was told of its end; a move back to an earlier version belongs to none.
        """
        table = self._facts
        query = self._sa.select(table.c.kind, table.c.body).where(table.c.trace == key)
        found = self._read(query.order_by(table.c.id))
        return tuple(_decoded(body, KINDS[kind]) for kind, body in found)

    def incident(self, incident: str) -> tuple[Fact, ...]:
        """Return every fact of a page's incident, oldest first: noted, posted, acted, relayed."""
        return self.trace(f"{INCIDENT}{incident}")

    def written(self, kind: type[Fact]) -> float | None:
        """Return the wall-clock seconds at which the newest fact of `kind` was written."""
        table = self._facts
        query = self._sa.select(table.c.written).where(table.c.kind == kind.__name__)
        found = self._read(query.order_by(table.c.id.desc()).limit(1))
        return found[0][0] if found else None

    def history(self, model: ModelId) -> ModelHistory:
        """Return what judge and renew need of the past of `model`."""
        moves = self.facts(Moved, model=model)
        head = self.head(model)
        return ModelHistory(
            decisions=tuple(
                fact.decision for fact in self.facts(Decided, model=model, last=REMEMBERED)
            ),
            orders=tuple(fact.order for fact in self.facts(Ordered, model=model, last=REMEMBERED)),
            moves=moves,
            champion=(
                None if head is None else self.fact(Trained, key=version_key(model, head.version))
            ),
            head=head,
        )

    def head(self, model: ModelId) -> Head | None:
        """Return the champion of `model`, None when it never had one."""
        steps = self.facts(Advanced, model=model, last=1)
        # After the steps: of a move that comes in between the epoch is the newest.
        moves = self.facts(Moved, model=model, last=1)
        return _now(moves[0].head, steps[0].rollout.epoch if steps else 0) if moves else None

    def heads(self) -> tuple[Head, ...]:
        """Return every champion, in the epoch that it answers in now."""
        newest = self._newest_of(ROUTED)
        epochs = {
            model: _decoded(body, Advanced).rollout.epoch
            for kind, model, body in newest
            if kind == Advanced.__name__
        }
        return tuple(
            _now(_decoded(body, Moved).head, epochs.get(model, 0))
            for kind, model, body in newest
            if kind == Moved.__name__
        )

    def advances(self) -> tuple[Advanced, ...]:
        """Return the newest step of every model that ever had a rollout."""
        newest = self._newest_of((Advanced.__name__,))
        return tuple(_decoded(body, Advanced) for _, _, body in newest)

    def rollouts(self) -> tuple[Rollout, ...]:
        """Return every rollout that has yet to come to its end, at most one of a model."""
        return tuple(step.rollout for step in self.advances() if step.rollout.is_open)

    def advance(self, advanced: Advanced) -> None:
        """Append a rollout's step, if nothing took its epoch meanwhile.

        Raises:
            StaleHead: somebody else moved or advanced first; nothing was changed.
        """
        rollout = advanced.rollout
        if not self.append(advanced, key=f"{rollout.model}#{rollout.epoch}"):
            raise StaleHead(
                f"somebody else was first to change what answers in epoch {rollout.epoch}",
                where=rollout.model,
                hint="look at the rollout again and decide anew",
            )

    def move(self, head: Head, *, at: datetime, previous: Head | None, reason: str) -> None:
        """Make `head` champion if `previous` still is.

        Raises:
            StaleHead: somebody else moved first; nothing was changed.
        """
        expected = 1 if previous is None else previous.epoch + 1
        if head.epoch != expected:
            raise StaleHead(
                f"epoch {head.epoch} does not follow epoch {expected - 1}", where=head.model
            )
        moved = Moved(
            model=head.model,
            at=at,
            head=head,
            previous=None if previous is None else previous.version,
            reason=reason,
        )
        if not self.append(moved, key=f"{head.model}#{head.epoch}"):
            raise StaleHead(
                f"the champion moved to epoch {head.epoch} meanwhile",
                where=head.model,
                hint="look at the model again and decide anew",
            )

    def claim(self, key: str, *, lease: timedelta, body: str = "") -> Intent:
        """Claim an act for `lease` of wall time; `body` is kept for whoever must redo it."""
        now = self._wall()
        table = self._intents
        insert = self._insert(table).values(
            key=key, body=body, lease_until=now + lease.total_seconds(), attempts=1, outcome=None
        )
        claim = insert.on_conflict_do_update(
            index_elements=[table.c.key],
            set_={
                "lease_until": now + lease.total_seconds(),
                "attempts": table.c.attempts + 1,
            },
            where=table.c.outcome.is_(None) & (table.c.lease_until <= now),
        ).returning(table.c.attempts)
        with self._told("written"), self._engine.begin() as connection:
            won = connection.execute(claim).first()
        if won is not None:
            return Intent(key=key, mine=True, retaken=won[0] > 1)
        found = self._read(self._sa.select(table.c.outcome).where(table.c.key == key))
        return Intent(key=key, mine=False, outcome=found[0][0] if found else None)

    def finish(self, key: str, outcome: str) -> None:
        """Record that the act happened."""
        table = self._intents
        self._write(self._sa.update(table).where(table.c.key == key).values(outcome=outcome))

    def release(self, key: str) -> None:
        """Give a claim back without a known outcome: the next claim gets it at once."""
        table = self._intents
        open_one = (table.c.key == key) & table.c.outcome.is_(None)
        self._write(self._sa.update(table).where(open_one).values(lease_until=0.0))

    def unfinished(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """Return (key, body) of claims under `prefix` that nobody holds and nobody finished."""
        table = self._intents
        query = self._sa.select(table.c.key, table.c.body).where(
            self._under(prefix) & table.c.outcome.is_(None) & (table.c.lease_until <= self._wall())
        )
        return tuple((row[0], row[1]) for row in self._read(query.order_by(table.c.key)))

    def live(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """Return (key, body) of claims under `prefix` that nobody finished, held or not."""
        table = self._intents
        query = self._sa.select(table.c.key, table.c.body).where(
            self._under(prefix) & table.c.outcome.is_(None)
        )
        return tuple((row[0], row[1]) for row in self._read(query.order_by(table.c.key)))

    def finished(self, prefix: str) -> int:
        """Return how many claims under `prefix` are finished."""
        table = self._intents
        theirs = self._under(prefix) & table.c.outcome.is_not(None)
        query = self._sa.select(self._sa.func.count()).select_from(table).where(theirs)
        return int(self._read(query)[0][0])

    def reopen(self, key: str) -> None:
        """Let what was finished be claimed again."""
        table = self._intents
        values = {"outcome": None, "lease_until": 0.0}
        self._write(self._sa.update(table).where(table.c.key == key).values(values))

    def append_all(self, facts: Sequence[tuple[Fact, str]]) -> None:
        """Append each fact under its key, all at once; those whose kind has the key are left."""
        now = self._wall()
        rows = [self._row(fact, key, now) for fact, key in facts]
        if rows:
            add = self._insert(self._facts).on_conflict_do_nothing()
            with self._told("written"), self._engine.begin() as connection:
                connection.execute(add, rows)

    def untold(self) -> tuple[Noted, ...]:
        """Return what was noted and not told yet, oldest first."""
        sa, facts = self._sa, self._facts
        told = facts.alias()
        same = sa.exists().where((told.c.kind == Paged.__name__) & (told.c.key == facts.c.key))
        query = sa.select(facts.c.body).where(facts.c.kind == Noted.__name__, ~same)
        return tuple(_decoded(row[0], Noted) for row in self._read(query.order_by(facts.c.id)))

    def changes(self, after: int) -> Changes:
        """Return what of incidents, and of what answers, changed since `after`; -1: from now on.

        PostgreSQL may show a fact after a later one: the newest are looked at again each time.
        """
        sa, facts = self._sa, self._facts
        newest = self._read(sa.select(sa.func.max(facts.c.id)))[0][0] or 0
        if newest == after or after < 0:
            return Changes(newest)
        again = after - LATE if self._engine.dialect.name == "postgresql" else after
        query = sa.select(facts.c.trace, facts.c.kind, facts.c.model).where(
            facts.c.id > again,
            facts.c.id <= newest,
            facts.c.trace.startswith(INCIDENT, autoescape=True) | facts.c.kind.in_(ROUTED),
        )
        found = self._read(query)
        return Changes(
            newest,
            frozenset(
                trace.removeprefix(INCIDENT) for trace, kind, _ in found if kind not in ROUTED
            ),
            frozenset(ModelId(model) for _, kind, model in found if kind in ROUTED),
        )

    def thin(self, *, model: ModelId, before: datetime, dry_run: bool = False) -> int:
        """Return how many old measurements of `model` were removed, or would be.

        Of those before `before` the last of each day stays, and what a page or an order rests on.
        """
        sa, table = self._sa, self._facts
        old = (
            (table.c.kind == Measured.__name__)
            & (table.c.model == model)
            & (table.c.at < _text(before))
        )
        daily = (
            sa.select(sa.func.max(table.c.id))
            .where(old)
            .group_by(sa.func.substr(table.c.at, 1, 10))
        )
        acted_on = sa.select(table.c.trace).where(
            table.c.kind.in_([Ordered.__name__, Paged.__name__])
            & (table.c.model == model)
            & table.c.trace.is_not(None)
        )
        # What has no trace is not known to be of no use.
        going = old & table.c.id.not_in(daily) & table.c.trace.not_in(acted_on)
        if dry_run:
            return int(self._read(sa.select(sa.func.count()).where(going))[0][0])
        return self._write(sa.delete(table).where(going))

    def re_root(self, old: Path, new: Path) -> None:
        """Let every path of a model file under `old` lie under `new`: a home that has moved."""
        table = self._facts
        moving = table.c.kind.in_([*ROUTED, Trained.__name__])
        changed = []
        for id_, kind, body in self._read(
            self._sa.select(table.c.id, table.c.kind, table.c.body).where(moving)
        ):
            fact: Moved | Advanced | Trained
            if kind == Moved.__name__:
                move = _decoded(body, Moved)
                path = _re_rooted(move.head.artifact, old, new)
                fact = replace(move, head=replace(move.head, artifact=path))
            elif kind == Advanced.__name__:
                step = _decoded(body, Advanced)
                path = _re_rooted(step.rollout.artifact, old, new)
                fact = replace(step, rollout=replace(step.rollout, artifact=path))
            else:
                made = _decoded(body, Trained)
                path = _re_rooted(made.candidate.folder, old, new)
                fact = replace(made, candidate=replace(made.candidate, folder=path))
            changed.append({"row": id_, "text": msgspec.json.encode(fact).decode()})
        if changed:
            bind = self._sa.bindparam
            update = self._sa.update(table).where(table.c.id == bind("row"))
            with self._told("written"), self._engine.begin() as connection:
                connection.execute(update.values(body=bind("text")), changed)

    def count(self) -> int:
        """Return how many facts there are."""
        return int(self._read(self._sa.select(self._sa.func.count(self._facts.c.id)))[0][0])

    def _row(self, fact: Fact, key: str | None, now: float) -> dict[str, object]:
        return {
            "kind": type(fact).__name__,
            "model": fact.model,
            "at": _text(fact.at),
            "written": now,
            "key": key,
            "body": _encoded(fact),
            "trace": self._trace(fact, key),
        }

    def _under(self, prefix: str) -> Any:  # noqa: ANN401 - SQLAlchemy's condition
        """Return the condition that a claim's key begins with `prefix`."""
        key = self._intents.c.key
        if self._engine.dialect.name == "postgresql":
            # In the order of its texts, which is not that of their bytes, there is no range.
            return key.startswith(prefix, autoescape=True)
        return (key >= prefix) & (key < f"{prefix}\U0010ffff")

    def _newest_of(self, kinds: Collection[str]) -> list[Any]:
        """Return (kind, model, body) of each model's newest fact of each of `kinds`."""
        table = self._facts
        newest = (
            self._sa.select(self._sa.func.max(table.c.id))
            .where(table.c.kind.in_(kinds))
            .group_by(table.c.kind, table.c.model)
        )
        query = self._sa.select(table.c.kind, table.c.model, table.c.body)
        return self._read(query.where(table.c.id.in_(newest)).order_by(table.c.model))

    def _insert(self, table: Any) -> Any:  # noqa: ANN401 - SQLAlchemy's table and statement
        if self._engine.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as insert_postgresql

            return insert_postgresql(table)
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite(table)

    def _trace(self, fact: Fact, key: str | None) -> str | None:
        if not isinstance(fact, Moved):
            return trace_of(fact, key=key)
        if not is_release(fact, self.facts(Moved, model=fact.model)):
            return None
        released = version_key(fact.model, fact.head.version)
        table = self._facts
        mine = (table.c.kind == Trained.__name__) & (table.c.key == released)
        found = self._read(self._sa.select(table.c.trace).where(mine))
        return found[0][0] if found else None

    def _read(self, query: Any, asked: Mapping[str, object] | None = None) -> list[Any]:  # noqa: ANN401 - SQLAlchemy's statement and rows
        with self._told("read"), self._engine.connect() as connection:
            return list(connection.execute(query, asked).all())

    def _write(self, statement: Any) -> int:  # noqa: ANN401 - SQLAlchemy's statement
        with self._told("written"), self._engine.begin() as connection:
            return int(connection.execute(statement).rowcount)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._sa.exc.DBAPIError as error:
            raise LedgerError(
                f"the ledger cannot be {what}: {error.orig}",
                where=self._engine.url.render_as_string(),
                hint="is the disk full, or the file damaged or read-only?"
                if self._engine.dialect.name == "sqlite"
                else "is PostgreSQL running there, and may this user in?",
            ) from error


def _encoded(fact: Fact) -> str:
    body = msgspec.json.encode(fact).decode()
    if isinstance(fact, Measured | Decided):
        # Of what a fleet's ledger holds nearly all is readings: a third less.
        for each in UNSAID:
            body = body.replace(each, "")
    return body


def _decoded(body: str, kind: type[FactT]) -> FactT:
    return msgspec.json.decode(body, type=kind)


def _now(head: Head, epoch: int) -> Head:
    """Return a champion in the newest epoch: a rollout's steps take epochs too."""
    return replace(head, epoch=max(head.epoch, epoch))


def _re_rooted(path: str, old: Path, new: Path) -> str:
    return str(new / Path(path).relative_to(old)) if Path(path).is_relative_to(old) else path


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
