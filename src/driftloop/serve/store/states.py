"""The state of streams: what the operators know of each key, and how far each stream was taken.

A state is kept whole, as it was packed. Of one that is large the newest events are kept beside it,
some at a time: writing it anew for each would cost the more the more events its window holds.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from driftloop.records import Event, FeatureValue
from driftloop.serve.store.environment import LONGEST_KEY, Environment, Reading
from driftloop.serve.store.keys import short

if TYPE_CHECKING:
    import lmdb

POSITION = b"position"
SPANS = b"spans"
IDS = ("ids0", "ids1")
LARGE = 8 * 1024
"""Bytes of a packed state from which on later events may be kept beside it."""
_HEAD = struct.Struct(">q")
_DIGEST = 16
_NUMBER = struct.Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode
_events = msgspec.msgpack.Decoder(list[Event])
_spans = msgspec.msgpack.Decoder(tuple[int, int])
_past = msgspec.msgpack.Decoder(tuple[str, int])
_text = msgspec.msgpack.Decoder(str)


class Named(NamedTuple):
    """Whose state it is: of a source's events, those whose `field` is `key`."""

    source: str
    field: str
    key: str


class Later(NamedTuple):
    """An event that came after a state was packed; `time` in microseconds since 1970."""

    time: int
    position: int
    fields: Mapping[str, FeatureValue]


class Stored(NamedTuple):
    """What is held of one key.

    `newest` is the time of its newest event, in microseconds since 1970, and `packed` the
    operator's; it may lie in the file, and then cannot be read once the view is over. `later` are
    the events that came after it was packed, as they were put beside it.
    """

    newest: int
    packed: bytes | memoryview
    later: Sequence[Sequence[Later]] = ()


class Sequences(msgspec.Struct, array_like=True):
    """Which messages of a JetStream stream were taken, as ranges from first to last, both in it.

    `stream` tells the stream from another of the same name, which counts anew.
    """

    stream: str
    taken: list[tuple[int, int]]


_later = msgspec.msgpack.Decoder(list[Later])
_sequences = msgspec.msgpack.Decoder(Sequences)


class StateStore:
    """The state of the streams of one home: one process writes, any may read.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._env = Environment(
            folder, ("states", "later", "meta", "outbox", *IDS), most_bytes=most_bytes
        )

    def reading(self) -> "StateView":
        """Return what sees the states as they are at one moment, in a `with` block.

        Raises:
            StoreError: they cannot be read; on entering.
        """
        return StateView(self._env)

    @contextmanager
    def writing(self) -> "Iterator[StateChange]":
        """Yield a change that is made whole once the block ends, durably, or not at all.

        Raises:
            StoreError: it could not be written.
        """
        with self._env.writing() as txn:
            yield StateChange(self._env, txn)

    def size(self) -> int:
        """Return how many bytes its file has."""
        return self._env.size()

    def forget_dead_readers(self) -> None:
        """Let what only readers saw that were killed be used again."""
        self._env.forget_dead_readers()

    def close(self) -> None:
        """Give it up."""
        self._env.close()


class StateView(Reading):
    """All states as they were when it was entered."""

    __slots__ = ("_states",)

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._states = env["states"]

    @property
    def position(self) -> int:
        """That of the newest event taken; 0 before the first."""
        packed = self._txn.get(POSITION, db=self._env["meta"])
        return _NUMBER.unpack(packed)[0] if packed is not None else 0

    def state(self, named: Named) -> Stored | None:
        """Return what is held of one key, None where nothing is."""
        key = _state_key(named)
        whole = self._txn.get(key, db=self._states)
        if whole is None:
            return None
        newest, packed = _HEAD.unpack_from(whole)[0], memoryview(whole)[_HEAD.size :]
        if len(packed) < LARGE:
            return Stored(newest, packed)
        later = [*self._put_beside(key)]
        times = [_HEAD.unpack_from(each)[0] for each in later]
        events = [_later.decode(memoryview(each)[_HEAD.size :]) for each in later]
        return Stored(max(newest, *times) if times else newest, packed, events)

    def mark(self, source: str) -> str | None:
        """Return what `StateChange.set_mark` said of `source`."""
        packed = self._txn.get(b"mark\0" + source.encode(), db=self._env["meta"])
        return _text.decode(packed) if packed is not None else None

    def past(self, source: str) -> tuple[str, int] | None:
        """Return what `StateChange.set_past` said of `source`."""
        packed = self._txn.get(b"past\0" + source.encode(), db=self._env["meta"])
        return _past.decode(packed) if packed is not None else None

    def sequences(self, source: str) -> Sequences | None:
        """Return which messages of a JetStream stream were taken, None if none ever was."""
        packed = self._txn.get(b"nats\0" + source.encode(), db=self._env["meta"])
        return _sequences.decode(packed) if packed is not None else None

    def _put_beside(self, key: bytes) -> "Iterator[bytes | memoryview]":
        """Yield what was put beside the state with `key`, in its order."""
        prefix = _beside(key)
        with self._txn.cursor(self._env["later"]) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()[:_DIGEST]) == prefix:
                yield cursor.value()
                found = cursor.next()

    def outbox(self) -> Iterator[tuple[int, list[Event]]]:
        """Yield what may not be in the log yet: the number it was put under, and the events."""
        with self._txn.cursor(self._env["outbox"]) as cursor:
            for number, packed in cursor:
                yield _NUMBER.unpack(number)[0], _events.decode(packed)

    def counts(self) -> Mapping[str, int]:
        """Return how many keys and ids are held, and how many batches wait for the log."""
        names = ("states", "outbox", *IDS)
        held = {name: self._txn.stat(self._env[name])["entries"] for name in names}
        return {
            "keys": held["states"],
            "ids": sum(held[name] for name in IDS),
            "outbox": held["outbox"],
        }


class StateChange(StateView):
    """A change of the states; what it reads has its own changes in it."""

    __slots__ = ("_held_spans",)

    def __init__(self, env: Environment, txn: "lmdb.Transaction") -> None:
        """Change what `txn` sees."""
        super().__init__(env)
        self._txn = txn
        packed = txn.get(SPANS, db=env["meta"])
        self._held_spans = _spans.decode(packed) if packed is not None else (-1, -2)

    def set_position(self, position: int) -> None:
        """Say which event is the newest taken."""
        self._txn.put(POSITION, _NUMBER.pack(position), db=self._env["meta"])

    def put(self, named: Named, stored: Stored) -> None:
        """Keep the state of one key in the place of what was held of it."""
        whole = b"".join((_HEAD.pack(stored.newest), stored.packed))
        old = self._txn.replace(key := _state_key(named), whole, db=self._states)
        if old is not None and len(old) >= LARGE:
            self._remove_beside(key)

    def put_beside(self, named: Named, newest: int, later: Sequence[Later]) -> None:
        """Put events beside the state of one key, which has at least `LARGE` bytes.

        `newest` is the time of the newest event of all of the key's.
        """
        key = _beside(_state_key(named)) + _NUMBER.pack(later[-1].position)
        self._txn.put(key, _HEAD.pack(newest) + _encode(later), db=self._env["later"])

    def set_mark(self, source: str, mark: str) -> None:
        """Note what the states of `source` were made for."""
        self._txn.put(b"mark\0" + source.encode(), _encode(mark), db=self._env["meta"])

    def set_past(self, source: str, mark: str, position: int) -> None:
        """Note that past events up to `mark` are in the states of `source` from `position` on."""
        self._txn.put(b"past\0" + source.encode(), _encode((mark, position)), db=self._env["meta"])

    def set_sequences(self, source: str, sequences: Sequences) -> None:
        """Note which messages of a JetStream stream were taken."""
        self._txn.put(b"nats\0" + source.encode(), _encode(sequences), db=self._env["meta"])

    def turn(self, span: int) -> None:
        """Begin to note ids under the number `span`, and forget those that were before the last.

        Spans are numbers of equal lengths of time: an id is held for one of them at least, and
        two at most.
        """
        spans = self._held_spans
        if span in spans:
            return
        # The older gives way; a clock that was set back comes to the same.
        older = spans.index(min(spans))
        self._txn.drop(self._env[IDS[older]], delete=False)
        self._held_spans = (span, spans[1]) if older == 0 else (spans[0], span)
        self._txn.put(SPANS, _encode(self._held_spans), db=self._env["meta"])
        if max(spans) < span - 1:
            self._txn.drop(self._env[IDS[1 - older]], delete=False)

    def note(self, source: str, id_: str) -> bool:
        """Return whether an event's id is new, and note it."""
        newest = self._held_spans.index(max(self._held_spans))
        prefix = source.encode() + b"\0"
        key = prefix + short(id_, LONGEST_KEY - len(prefix))
        if self._txn.get(key, db=self._env[IDS[1 - newest]]) is not None:
            return False
        return self._txn.put(key, b"", db=self._env[IDS[newest]], overwrite=False)

    def send(self, number: int, events: Sequence[Event]) -> None:
        """Put events into the outbox; what was put under the same number gives way."""
        self._txn.put(_NUMBER.pack(number), _encode(events), db=self._env["outbox"])

    def sent(self, number: int) -> None:
        """Take what was put under `number` out of the outbox: it is in the log."""
        self._txn.delete(_NUMBER.pack(number), db=self._env["outbox"])

    def forget_states(self, source: str) -> None:
        """Forget all states of `source`."""
        prefix = source.encode() + b"\0"
        with self._txn.cursor(self._states) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()).startswith(prefix):
                self._remove_beside(bytes(cursor.key()))
                found = cursor.delete()

    def sweep(self, after: bytes, older_than: Mapping[str, int], most: int) -> bytes:
        """Forget states that no event came to for long, looking at `most` of them after a place.

        Args:
            after: what the last sweep returned; empty to begin.
            older_than: for each source the time, in microseconds since 1970, that the newest
                event of a key must not be before. States of other sources are forgotten.
            most: how many are looked at.

        Returns:
            Where the next sweep goes on; empty once it came to the end.
        """
        with self._txn.cursor(self._states) as cursor:
            found = cursor.set_range(after) if after else cursor.first()
            for _ in range(most):
                if not found:
                    return b""
                # After the last one is deleted the cursor stands on nothing.
                place = bytes(cursor.key())
                if not place:
                    return b""
                source = place.partition(b"\0")[0].decode()
                limit = older_than.get(source)
                if gone := limit is None or self._newest(place, cursor.value()) < limit:
                    self._remove_beside(place)
                found = cursor.delete() if gone else cursor.next()
            return bytes(cursor.key()) if found else b""

    def _newest(self, key: bytes, whole: bytes | memoryview) -> int:
        times: list[int] = [_HEAD.unpack_from(each)[0] for each in (whole, *self._put_beside(key))]
        return max(times)

    def _remove_beside(self, key: bytes) -> None:
        prefix = _beside(key)
        with self._txn.cursor(self._env["later"]) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()[:_DIGEST]) == prefix:
                found = cursor.delete()


def _beside(key: bytes) -> bytes:
    """Return what the keys of events begin with that are kept beside the state with `key`."""
    return hashlib.blake2b(key, digest_size=_DIGEST).digest()


def _state_key(named: Named) -> bytes:
    prefix = named.source.encode() + b"\0" + named.field.encode() + b"\0"
    return prefix + short(named.key, LONGEST_KEY - len(prefix))
