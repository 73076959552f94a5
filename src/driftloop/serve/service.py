"""What the online service does with a request: read, complete, answer, log, and only then tell."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

from driftloop.errors import ArtifactError, DriftloopError, LogError, ModelAway, UnknownSource
from driftloop.ports import Clock, Spool
from driftloop.records import Head, Prediction
from driftloop.serve.answer import answer
from driftloop.serve.exchange import (
    BUSY,
    CHUNK,
    GONE,
    UNAVAILABLE,
    Asked,
    Bounds,
    HungUp,
    NotLogged,
    Receive,
    Reply,
    Room,
    TooBusy,
    TooLarge,
    TooSlow,
    failure,
    read_body,
    refusal,
    told,
)
from driftloop.serve.metrics import Metrics
from driftloop.serve.peers import Peers, RefusedHead, Shown
from driftloop.serve.recent import Recent
from driftloop.serve.request import Given, Row, RowReader, parse_labels, refuse_lacking
from driftloop.serve.slot import Held, Slot, Slots
from driftloop.serve.sources import Sources
from driftloop.spec import Family, Fleet

INLINE_BYTES = 32 * 1024
"""A larger body, of some hundred rows, is worked on in a thread so that others need not wait."""
APART_BYTES = 256 * 1024
"""What waits for a model that is not asked on the loop is answered at most so much at a time."""
THREADS = 16

_log = logging.getLogger(__name__)

Complete = Callable[[Family, Sequence[Row]], Sequence[Row]]
"""Returns rows, in their order, with what is looked up for them; may raise, as `exchange` says.

A row that is `lacking` something is not to be answered.
"""


class Rollouts(Protocol):
    """Challengers that answer a share of the requests, or are only asked what they would."""

    def refresh(self) -> None:
        """Take up what the ledger says; called in a thread after the champions are refreshed."""
        ...

    def is_quick(self, slot: Slot) -> bool:
        """Return whether all that may answer for `slot` do so in microseconds."""
        ...

    def choose(self, slot: Slot, champion: Held, rows: Sequence[Row], *, key: bytes | None) -> Held:
        """Return who answers all rows of one request; `key` is what its caller routes it by."""
        ...

    def answered(
        self,
        slot: Slot,
        held: Held,
        predictions: Sequence[Prediction],
        seconds: float,
        *,
        requests: int,
    ) -> None:
        """Take note of what `held` answered to `requests`, in how many seconds, once logged."""
        ...

    def failed(self, slot: Slot, held: Held) -> None:
        """Take note that `held` could not answer a request."""
        ...


class _Request(NamedTuple):
    """What is to be answered: rows, all or none, and what its caller routes it by."""

    body: bytes
    whole: bool
    key: bytes | None


class _Waiting(NamedTuple):
    """A request that waits to be answered with others for its model."""

    request: _Request
    done: "asyncio.Future[Reply]"


class _Begun(NamedTuple):
    """What is asked of one model, read: its requests, and the rows of each."""

    slot: Slot
    champion: Held
    asked: Sequence[_Request]
    given: Sequence[Given]


class _Answered(NamedTuple):
    """What is answered to each request, by whom, and how long each of these took."""

    begun: _Begun
    by: Sequence[Held]
    predictions: Sequence[Sequence[Prediction]]
    took: Sequence[tuple[Held, Sequence[int], float]]

    def told(self) -> list[Reply]:
        """Return the reply to each request."""
        return [
            _answer_told(self.begun.slot, held, given, part)
            for held, given, part in zip(self.by, self.begun.given, self.predictions, strict=True)
        ]


class Service:
    """What the routes do; `refresh` runs in a thread of its own, the rest on the loop.

    Args:
        fleet: the models that are answered for.
        slots: where their champions are held.
        spool: what is written to before an answer is given.
        clock: the time of predictions.
        bounds: how much is taken on.
        peers: the workers beside this one.
        complete: looks up what callers do not send; None where there is nothing to look up.
        rollouts: challengers, if there are any.
        sources: takes events, and shows what is held of a key; None where none are declared.
    """

    def __init__(  # noqa: PLR0913 - what it is made of, a part each
        self,
        *,
        fleet: Fleet,
        slots: Slots,
        spool: Spool,
        clock: Clock,
        bounds: Bounds | None = None,
        peers: Peers | None = None,
        complete: Complete | None = None,
        rollouts: Rollouts | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.sources = sources
        self.fleet = fleet
        self.slots = slots
        self.bounds = bounds or Bounds()
        self.peers = peers or Peers()
        self.ready = False
        self._spool = spool
        self._clock = clock
        self._complete = complete
        self._rollouts = rollouts
        self._readers = {family.name: RowReader(family) for family in fleet.families}
        self._waiting: dict[str, list[_Waiting]] = {}
        self._turn: dict[str, str] = {}
        """The models that are asked in this turn of the loop, and their families."""
        self._turn_bytes = 0
        self._apart: dict[str, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="answers")
        self._under_way = 0
        self._room = Room(self.bounds.body)
        self._recent = Recent()
        before = self.peers.before()
        self._metrics = Metrics(before.counts if before else None)

    def refresh(self, heads: Callable[[], Sequence[Head]], *, within: float) -> None:
        """Read the heads, take up what is new, and load what waits for `within` seconds."""
        taken, refused = self.slots.refresh(heads())
        if self._rollouts is not None:
            self._rollouts.refresh()
        self.ready = True
        refused += self.slots.fill(within=within)
        self._metrics.refreshed(taken, [failure.head for failure in refused])

    def poll_failed(self) -> None:
        """Count a poll that could not read the heads."""
        self._metrics.poll_failed()
        self._recent.poll_failed()

    def shown(self) -> Shown:
        """Return what this process counted, who answers, and what it refused."""
        return Shown(
            counts=self._metrics.counts(),
            lately=self._recent.lately(),
            heads=tuple(head for slot in self.slots.all() if (head := slot.head) is not None),
            refused=tuple(
                RefusedHead(each.head.model, each.head.version, each.head.digest, _said(each.error))
                for each in self.slots.failures.values()
            ),
        )

    def close(self) -> None:
        """Wait for what still runs in threads."""
        self._threads.shutdown(cancel_futures=True)

    async def post(self, route: str, model: str, asked: Asked, receive: Receive) -> Reply:
        """Return the reply to rows ("predict") or labels of `model`, counted, and told if bad.

        Of "events" it is the source's name that stands for the model's.
        """
        began = time.perf_counter()
        if self._under_way >= self.bounds.requests:
            reply, whole = refusal(_too_busy(self._under_way)), began
        else:
            self._under_way += 1
            try:
                reply, whole = await self._worked(route, model, asked, receive)
            finally:
                self._under_way -= 1
        done = time.perf_counter()
        known = model if self._knows(route, model) else ""
        self._metrics.request(route, known, reply.status, done - began)
        if reply.status == BUSY:
            self._recent.turned_away()
        elif reply.status != GONE:
            # A caller that sends slowly makes no slow service.
            self._recent.answered(known, done - whole, failed=reply.failed)
        return reply

    def _knows(self, route: str, name: str) -> bool:
        if route != "events":
            return self.slots.knows(name)
        return self.sources is not None and self.sources.takes(name)

    async def _worked(
        self, route: str, model: str, asked: Asked, receive: Receive
    ) -> tuple[Reply, float]:
        """Return the reply, and when the body was whole."""
        try:
            body = await read_body(asked, receive, self._room)
        except HungUp:
            return Reply(GONE, b""), time.perf_counter()
        except (TooLarge, TooBusy) as error:
            return refusal(error), time.perf_counter()
        whole = time.perf_counter()
        try:
            return await self._answered(route, model, asked, body), whole
        finally:
            if len(body) > CHUNK:
                self._room.give(len(body))

    async def _answered(self, route: str, model: str, asked: Asked, body: bytes) -> Reply:
        try:
            if route == "events":
                return await self._take(model, body)
            if route == "labels":
                return await self._labelled(model, body)
            request = _Request(body, asked.whole, asked.key)
            if len(body) > INLINE_BYTES:
                return await self._in_thread(lambda: self._predict_all(model, [request])[0])
            return await self._together(model, request)
        except DriftloopError as error:
            reply = refusal(error)
            if reply.failed:
                _log.error("a request for %s: %s", model[:100], error, extra={"trace": asked.trace})
            elif reply.status == UNAVAILABLE:
                _log.info("a request for %s: %s", model[:100], error, extra={"trace": asked.trace})
            return reply
        # Else uvicorn closes the connection, and a next request on it fails.
        except Exception as error:  # noqa: BLE001 - see above
            _log.exception("a request for %s failed", model[:100], extra={"trace": asked.trace})
            return failure(error)

    async def _labelled(self, model: str, body: bytes) -> Reply:
        if len(body) > INLINE_BYTES:
            return await self._in_thread(lambda: self._label(model, body))
        return self._label(model, body)

    async def _take(self, source: str, body: bytes) -> Reply:
        if self.sources is None:
            raise UnknownSource("no source is declared", hint="sources.toml declares them")
        return await self.sources.take(source, body)

    async def _in_thread(self, work: Callable[[], Reply]) -> Reply:
        """Return what `work` does in a thread, if it does it in time.

        Raises:
            TooSlow: it did not; what has begun goes on, and counts as under way until it ends.
        """
        begun = self._threads.submit(work)
        running = asyncio.wrap_future(begun)
        done, _ = await asyncio.wait([running], timeout=self.bounds.seconds)
        if done:
            return await running
        if not begun.cancel():
            self._under_way += 1
            running.add_done_callback(self._ended_late)
        raise _too_slow(self.bounds.seconds)

    def _ended_late(self, running: "asyncio.Future[Reply]") -> None:
        self._under_way -= 1
        if not running.cancelled():
            running.exception()  # nobody is left to be told

    async def _together(self, model: str, request: _Request) -> Reply:
        """Have what asks in one turn of the loop answered together: nobody waits.

        A model answers eight rows as quickly as one, what is looked up is looked for once, and the
        spool takes the rows of a family in one write. A model that is slow, or has to be loaded,
        is asked in a thread; what comes meanwhile gathers.
        """
        slot = self.slots.slot(model)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Reply] = loop.create_future()
        self._waiting.setdefault(model, []).append(_Waiting(request, done))
        if not self._is_quick(slot):
            if model not in self._apart:
                self._apart[model] = loop.create_task(self._answer_apart(model))
            try:
                async with asyncio.timeout(self.bounds.seconds):
                    return await done
            except TimeoutError:
                raise _too_slow(self.bounds.seconds) from None
        if model not in self._apart:
            if not self._turn:
                loop.call_soon(self._answer_turn)
            self._turn[model] = slot.family.name
            self._turn_bytes += len(request.body)
            if self._turn_bytes > INLINE_BYTES:
                self._answer_turn()
        return await done

    def _is_quick(self, slot: Slot) -> bool:
        held = slot.held
        if held is None:
            # What has no champion is refused at once.
            return not slot.cold
        return held.model.inline and (self._rollouts is None or self._rollouts.is_quick(slot))

    def _answer_turn(self) -> None:
        # Without any, they were too many to wait for the end of the turn.
        turn, self._turn, self._turn_bytes = self._turn, {}, 0
        families: dict[str, list[tuple[str, list[_Waiting]]]] = {}
        for model, family in turn.items():
            if waiting := self._waiting.pop(model, []):
                families.setdefault(family, []).append((model, waiting))
        for parts in families.values():
            asked = [(model, [each.request for each in waiting]) for model, waiting in parts]
            for (_, waiting), replies in zip(parts, self._replies_of(asked), strict=True):
                _settle(waiting, replies)

    async def _answer_apart(self, model: str) -> None:
        """Answer what waits for one model in a thread until nothing waits: without a timer."""
        loop = asyncio.get_running_loop()
        try:
            while waiting := self._next_apart(model):
                asked = [each.request for each in waiting]
                replies: Sequence[Reply | Exception]
                try:
                    replies = await loop.run_in_executor(self._threads, self._replies, model, asked)
                except RuntimeError as error:  # the threads are shut down
                    replies = [error] * len(waiting)
                _settle(waiting, replies)
        finally:
            del self._apart[model]

    def _next_apart(self, model: str) -> list[_Waiting]:
        """Return the first of those that wait, as many as are answered at a time."""
        # One whose time is up does not wait any more, and nothing of it is logged.
        left = [each for each in self._waiting.pop(model, []) if not each.done.done()]
        size = count = 0
        while count < len(left) and size <= APART_BYTES:
            size += len(left[count].request.body)
            count += 1
        if left[count:]:
            self._waiting[model] = left[count:]
        return left[:count]

    def _replies(self, model: str, asked: Sequence[_Request]) -> list[Reply | Exception]:
        """Return the reply to each request, or why there is none."""
        try:
            return [*self._predict_all(model, asked)]
        except ModelAway as error:
            # It is away for each of them: to ask one by one would only wait once for each.
            return [error] * len(asked)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            if len(asked) == 1:
                return [error]
        # Nothing is logged yet. One by one: a fault of one request is none of the others'.
        return [reply for each in asked for reply in self._replies(model, [each])]

    def _replies_of(
        self, turn: Sequence[tuple[str, Sequence[_Request]]]
    ) -> list[list[Reply | Exception]]:
        """Return the replies to what asks models of one family, all logged in one write."""
        now = self._clock.now()
        whole: dict[str, _Answered] = {}
        if len(turn) > 1:
            try:
                whole = self._answered_together(turn, now)
                self._log([*whole.values()])
            except Exception:  # noqa: BLE001 - nothing is logged yet, and each is asked alone
                whole = {}
        return [
            [*whole[model].told()] if model in whole else self._replies(model, asked)
            for model, asked in turn
        ]

    def _answered_together(
        self, turn: Sequence[tuple[str, Sequence[_Request]]], now: datetime
    ) -> dict[str, _Answered]:
        """Return what answers `turn`, but of the models that are at fault."""
        begun = {}
        for model, asked in turn:
            with suppress(Exception):
                begun[model] = self._begun(model, asked, now)
        whole = self._completed([*begun.values()])
        answered: dict[str, _Answered] = {}
        for each in whole:
            with suppress(Exception):
                answered[each.slot.model] = self._answer(each, now, alone=False)
        return answered

    def _predict_all(self, model: str, asked: Sequence[_Request]) -> list[Reply]:
        """Return the reply to each request once the rows of all are logged."""
        now = self._clock.now()
        (begun,) = self._completed([self._begun(model, asked, now)])
        answered = self._answer(begun, now, alone=len(asked) == 1)
        self._log([answered])
        return answered.told()

    def _begun(self, model: str, asked: Sequence[_Request], now: datetime) -> _Begun:
        """Return what is asked of one model, read."""
        slot = self.slots.slot(model)
        champion = slot.hand()
        read = self._readers[slot.family.name].read
        given = [read(each.body, now=now, whole=each.whole) for each in asked]
        return _Begun(slot, champion, asked, given)

    def _answer(self, begun: _Begun, now: datetime, *, alone: bool) -> _Answered:
        """Return what the versions that are to answer do."""
        slot, champion, asked, given = begun
        rows = [[row for row in each.rows if row is not None] for each in given]
        if self._rollouts is None:
            by = [champion] * len(rows)
        else:
            by = [
                self._rollouts.choose(slot, champion, each, key=request.key)
                for each, request in zip(rows, asked, strict=True)
            ]
        predictions: list[list[Prediction]] = [[] for _ in rows]
        took = []
        chosen = tuple(by)
        for held in {id(each): each for each in chosen}.values():
            places = [place for place, each in enumerate(chosen) if each is held]
            asked_of_it = [rows[place] for place in places]
            answering, answers, seconds = self._asked(
                slot, champion, held, asked_of_it, now=now, alone=alone
            )
            for place in places:
                by[place] = answering
                predictions[place] = [*islice(answers, len(rows[place]))]
            took.append((answering, places, seconds))
        return _Answered(begun, by, predictions, took)

    def _log(self, answered: Sequence[_Answered]) -> None:
        """Log what models of one family answered; then, and only then, it counts."""
        if not answered:
            return
        every = [row for each in answered for part in each.predictions for row in part]
        self._keep(self._spool.predictions, answered[0].begun.slot.family.name, every)
        for (slot, _, _, given), _, predictions, took in answered:
            if self._rollouts is not None:
                for held, places, seconds in took:
                    rows = [each for place in places for each in predictions[place]]
                    self._rollouts.answered(slot, held, rows, seconds, requests=len(places))
            count = sum(map(len, predictions))
            refused = sum(len(each.rows) for each in given) - count
            self._metrics.rows(slot.model, count, refused=refused)

    def _completed(self, begun: Sequence[_Begun]) -> Sequence[_Begun]:
        """Return rows with what is looked up, all of one family, without those that lack it."""
        if self._complete is None or not begun:
            return begun
        family = begun[0].slot.family
        # All at once: each look at the online store costs as much as what is found in it.
        every = [
            row for each in begun for given in each.given for row in given.rows if row is not None
        ]
        found = iter(self._complete(family, every))
        return [
            each._replace(
                given=[
                    refuse_lacking(
                        family,
                        given,
                        [row and next(found) for row in given.rows],
                        whole=request.whole,
                    )
                    for request, given in zip(each.asked, each.given, strict=True)
                ]
            )
            for each in begun
        ]

    def _asked(
        self,
        slot: Slot,
        champion: Held,
        held: Held,
        rows: Sequence[Sequence[Row]],
        *,
        now: datetime,
        alone: bool,
    ) -> tuple[Held, Iterator[Prediction], float]:
        """Return who answered the rows of these requests, what, and in how many seconds.

        The champion answers in place of a challenger that cannot. Of several requests that fail
        together each is asked alone, before anybody is blamed; who is away is so for all of them.
        """
        every = [row for each in rows for row in each]
        began = time.perf_counter()
        try:
            answers = _answered(held, slot, every, now)
        except ArtifactError as error:
            if self._rollouts is None or not (alone or isinstance(error, ModelAway)):
                raise
            for _ in rows:
                self._rollouts.failed(slot, held)
            if held is champion:
                raise
            held, began = champion, time.perf_counter()
            answers = _answered(champion, slot, every, now)
        return held, iter(answers), time.perf_counter() - began

    def _label(self, model: str, body: bytes) -> Reply:
        slot = self.slots.slot(model)
        labels = parse_labels(slot.family, slot.model, body, now=self._clock.now())
        self._keep(self._spool.labels, slot.family.name, labels)
        self._metrics.labels(model, len(labels))
        return told(202, {"accepted": len(labels)})

    def _keep(self, write: Callable[[str, Any], None], family: str, rows: Sequence[Any]) -> None:
        try:
            write(family, rows)
        except (LogError, OSError) as error:
            raise NotLogged(
                f"the rows could not be written to the prediction log: {error}",
                where=family,
                hint="nothing was answered; send the request again later",
            ) from error


def _answered(held: Held, slot: Slot, rows: Sequence[Row], now: datetime) -> list[Prediction]:
    """Return what `answer` does; callers are told the model's name, not where its file lies."""
    try:
        return answer(held, slot.family, rows, now=now)
    except ArtifactError as error:
        kind = ModelAway if isinstance(error, ModelAway) else ArtifactError
        raise kind(error.what, where=slot.model, hint=error.hint) from error


def _answer_told(slot: Slot, held: Held, given: Given, predictions: Sequence[Prediction]) -> Reply:
    """Return the answer to one request: rows that are at fault are null in it, and named."""
    shown = slot.family.shown
    answered = [{"id": each.id, "prediction": shown(each.prediction)} for each in predictions]
    said = {"model": slot.model, "version": held.head.version, "epoch": held.head.epoch}
    if given.bad is None:
        return told(200, {**said, "predictions": answered})
    left = iter(answered)
    placed = [None if row is None else next(left) for row in given.rows]
    refused = len(placed) - len(answered)
    return told(
        200, {**said, "predictions": placed, "refused": refused, "faults": given.bad.faults}
    )


def _said(error: ArtifactError) -> str:
    """Return what is wrong with a version, without where its file lies: anybody may ask."""
    return f"{error.what} (hint: {error.hint})" if error.hint else error.what


def _settle(waiting: Sequence[_Waiting], replies: Sequence[Reply | Exception]) -> None:
    """Give each reply to who waits for it, if somebody still does."""
    for (_, done), reply in zip(waiting, replies, strict=True):
        if done.done():
            continue
        if isinstance(reply, Reply):
            done.set_result(reply)
        else:
            done.set_exception(reply)


def _too_busy(under_way: int) -> TooBusy:
    return TooBusy(
        f"{under_way} requests are under way, and no more are taken on at once",
        where="request",
        hint="send it again a little later",
    )


def _too_slow(seconds: float) -> TooSlow:
    return TooSlow(
        f"the answer was not there within {seconds:g} s",
        where="request",
        hint="send fewer rows at a time; under the same ids, rows that are logged are logged once",
    )
