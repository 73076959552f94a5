"""Events from NATS JetStream: read, handed to the stream process, and acknowledged afterwards.

Each source that names a subject has a durable pull consumer, `driftloop-<source>`, on the
JetStream stream that holds the subject; where none does one is made, a work queue in files that
refuses what it has no room for. A message is one event as JSON. It is acknowledged once its
event is durable, and the places of those that were taken are written down with their states: a
message that comes again, after a death or a lost acknowledgement, is acknowledged and no more.
One that cannot be used is set aside with its reason and never asked for again. The door to NATS.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from driftloop.errors import BadRequest, DriftloopError
from driftloop.ports import Clock
from driftloop.serve.events import EventReader, Posted
from driftloop.serve.stream import Post, Taken
from driftloop.spec import Source

AT_ONCE = 1_000
"""Messages asked for at a time."""
UNACKNOWLEDGED = 10 * AT_ONCE
ACKNOWLEDGE_WITHIN = 5.0
"""Seconds after which NATS sends a message again: what a death had in hand waits so long."""
FETCH_FOR = 1.0
PAUSE = 1.0
MOST_BYTES = 4 * 2**30
"""Of a stream that is made here; one that is full refuses what is published."""
FLOOR_EVERY = 1_000
"""After so many fetches NATS is asked up to where all is acknowledged."""

Take = Callable[[Post], Awaitable[Taken]]
_log = logging.getLogger(__name__)


class _Consumer(NamedTuple):
    stream: str
    """Name and time of making: one that is made anew counts from 1 again."""
    subscription: JetStreamContext.PullSubscription


class JetStream:
    """Reads the sources that name a subject, for ever.

    Args:
        url: of the server, or several joined by commas.
        sources: all of events, by name.
        clock: what lies too far ahead of its time is refused.
        aside: the folder that messages are set aside in.
        take: has the stream process take a post, and returns once it is durable.
    """

    def __init__(
        self, *, url: str, sources: Mapping[str, Source], clock: Clock, aside: Path, take: Take
    ) -> None:
        self._url = url
        self._sources = {name: s for name, s in sources.items() if s.nats is not None}
        self._readers = {name: EventReader(source) for name, source in self._sources.items()}
        self._clock = clock
        self._aside = aside
        self._take = take

    async def run(self) -> None:
        """Read until cancelled; what goes wrong is logged, and tried again a second later."""
        while True:
            try:
                client = await nats.connect(
                    self._url.split(","), max_reconnect_attempts=-1, error_cb=_complain
                )
            except (NatsError, OSError) as error:
                _log.warning("NATS cannot be reached: %s", error)
                await asyncio.sleep(PAUSE)
                continue
            try:
                await asyncio.gather(*(self._read(client, name) for name in self._sources))
            finally:
                await client.close()

    async def _read(self, client: Client, name: str) -> None:
        while True:
            try:
                consumer = await _consumer(client.jetstream(), self._sources[name])
                _log.info("events of %s are read from NATS", name)
                await self._consume(consumer, name)
            except (NatsError, JetStreamError, OSError, DriftloopError) as error:
                _log.warning(
                    "events of %s cannot be read from NATS: %s", name, error or repr(error)
                )
            await asyncio.sleep(PAUSE)

    async def _consume(self, consumer: _Consumer, name: str) -> None:
        fetched = 0
        while True:
            try:
                messages = await consumer.subscription.fetch(AT_ONCE, timeout=FETCH_FOR)
            except (TimeoutError, NatsTimeout):
                continue
            floor = 0
            if fetched % FLOOR_EVERY == 0:
                info = await consumer.subscription.consumer_info()
                floor = (info.ack_floor and info.ack_floor.stream_seq) or 0
            fetched += 1
            await self._one_batch(consumer, name, messages, floor)

    async def _one_batch(
        self, consumer: _Consumer, name: str, messages: Sequence[Msg], floor: int
    ) -> None:
        now = self._clock.now()
        good: list[tuple[int, Posted]] = []
        bad: list[tuple[int, Msg, str]] = []
        for message in messages:
            place = message.metadata.sequence.stream
            try:
                (event,) = self._readers[name].read(message.data, now=now)
                good.append((place, event))
            except BadRequest as error:
                bad.append((place, message, str(error)))
            except ValueError:  # there were several
                bad.append((place, message, "a message holds one event, and no more"))
        if bad:
            self._set_aside(name, bad)
        await self._take(
            Post(
                name,
                [event for _, event in good],
                stream=consumer.stream,
                sequences=[place for place, _ in good],
                done=[place for place, _, _ in bad],
                floor=floor,
            )
        )
        ended = {place for place, _, _ in bad}
        for message in messages:
            if message.metadata.sequence.stream in ended:
                await message.term()
            else:
                await message.ack()

    def _set_aside(self, name: str, bad: Sequence[tuple[int, Msg, str]]) -> None:
        """Keep messages beside their reasons; done again after a death it comes to the same."""
        _log.error("set aside of %s: %s", name, bad[0][2])
        self._aside.mkdir(parents=True, exist_ok=True)
        file = self._aside / f"nats.{name}.{bad[0][0]:016x}.messages"
        said = "".join(f"message {place}: {reason}\n" for place, _, reason in bad)
        file.with_suffix(".reason").write_text(said, encoding="utf-8")
        part = file.with_suffix(".part")
        part.write_bytes(b"".join(b"%s\n" % message.data for _, message, _ in bad))
        part.replace(file)


async def _consumer(context: JetStreamContext, source: Source) -> _Consumer:
    """Return the source's consumer; it, and the stream, are made where there is none."""
    subject, name = str(source.nats), f"driftloop-{source.name}"
    try:
        stream = await context.find_stream_name_by_subject(subject)
    except NotFoundError:
        stream = name
        await context.add_stream(
            StreamConfig(
                name=stream,
                subjects=[subject],
                storage=StorageType.FILE,
                # What was taken is in the log; what cannot be kept is refused, and not dropped.
                retention=RetentionPolicy.WORK_QUEUE,
                discard=DiscardPolicy.NEW,
                max_bytes=MOST_BYTES,
            )
        )
    info = await context.stream_info(stream)
    config = ConsumerConfig(
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=ACKNOWLEDGE_WITHIN,
        max_ack_pending=UNACKNOWLEDGED,
        filter_subject=subject,
    )
    subscription = await context.pull_subscribe(subject, durable=name, stream=stream, config=config)
    return _Consumer(f"{stream} of {info.created}", subscription)


async def _complain(error: Exception) -> None:
    _log.warning("NATS: %s", error or repr(error))
