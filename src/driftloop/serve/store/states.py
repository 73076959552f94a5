"""The state of streams: what the operators know of each key, and how far each stream was taken."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from driftloop.records import Event
from driftloop.serve.store.environment import LONGEST_KEY, Environment
from driftloop.serve.store.keys import short

if TYPE_CHECKING:
    import lmdb

POSITION = b"position"
SPANS = b"spans"
IDS = ("ids0", "ids1")
_HEAD = struct.Struct(">q")
_NUMBER = struct.Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode
_events = msgspec.msgpack.Decoder(list[Event])
_spans = msgspec.msgpack.Decoder(tuple[int, int])
_text = msgspec.msgpack.Decoder(str)


class Named(NamedTuple):
    """Whose state it is: of a source's events, those whose `field` is `key`."""

    source: str
    field: str
    key: str


class Stored(NamedTuple):
    """What is held of one key.

    `newest` is the time of its newest event, in microseconds since 1970, and `packed` the
    operator's; it may lie in the file, and then cannot be read once the view is over.
    """

    newest: int
    packed: bytes | memoryview


class Sequences(msgspec.Struct, array_like=True):
    """Which messages of a JetStream stream were taken, as ranges from first to last, both in it.

    `stream` tells the stream from another of the same name, which counts anew.
    """

    stream: str
    taken: list[tuple[int, int]]


_sequences = msgspec.msgpack.Decoder(Sequences)


class StateStore:
    """The state of the streams of one home: one process writes, any may read.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._env = Environment(folder, ("states", "meta", "outbox", *IDS), most_bytes=most_bytes)

    @contextmanager
    def reading(self) -> "Iterator[StateView]":
        """Yield the states as they are at one moment.

        Raises:
            StoreError: they cannot be read.
        """
        with self._env.reading() as txn:
            yield StateView(self._env, txn)

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


class StateView:
    """All states as they were when it was made."""

    __slots__ = ("_env", "_states", "_txn")

    def __init__(self, env: Environment, txn: "lmdb.Transaction") -> None:
        """Look at what `txn` sees."""
        self._env, self._txn = env, txn
        self._states = env["states"]

    @property
    def position(self) -> int:
        """That of the newest event taken; 0 before the first."""
        packed = self._txn.get(POSITION, db=self._env["meta"])
        return _NUMBER.unpack(packed)[0] if packed is not None else 0

    def state(self, named: Named) -> Stored | None:
        """Return what is held of one key, None where nothing is."""
        packed = self._txn.get(_state_key(named), db=self._states)
        return _stored(packed) if packed is not None else None

    def mark(self, source: str) -> str | None:
        """Return what `StateChange.set_mark` said of `source`."""
        packed = self._txn.get(b"mark\0" + source.encode(), db=self._env["meta"])
        return _text.decode(packed) if packed is not None else None

    def sequences(self, source: str) -> Sequences | None:
        """Return which messages of a JetStream stream were taken, None if none ever was."""
        packed = self._txn.get(b"nats\0" + source.encode(), db=self._env["meta"])
        return _sequences.decode(packed) if packed is not None else None

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
        super().__init__(env, txn)
        packed = txn.get(SPANS, db=env["meta"])
        self._held_spans = _spans.decode(packed) if packed is not None else (-1, -2)

    def set_position(self, position: int) -> None:
        """Say which event is the newest taken."""
        self._txn.put(POSITION, _NUMBER.pack(position), db=self._env["meta"])

    def put(self, named: Named, stored: Stored) -> None:
        """Keep the state of one key."""
        whole = b"".join((_HEAD.pack(stored.newest), stored.packed))
        self._txn.put(_state_key(named), whole, db=self._states)

    def set_mark(self, source: str, mark: str) -> None:
        """Note what the states of `source` were made for."""
        self._txn.put(b"mark\0" + source.encode(), _encode(mark), db=self._env["meta"])

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
                newest = _HEAD.unpack_from(cursor.value())[0]
                limit = older_than.get(source)
                gone = limit is None or newest < limit
                found = cursor.delete() if gone else cursor.next()
            return bytes(cursor.key()) if found else b""


def _state_key(named: Named) -> bytes:
    prefix = named.source.encode() + b"\0" + named.field.encode() + b"\0"
    return prefix + short(named.key, LONGEST_KEY - len(prefix))


def _stored(packed: bytes | memoryview) -> Stored:
    return Stored(_HEAD.unpack_from(packed)[0], memoryview(packed)[_HEAD.size :])
