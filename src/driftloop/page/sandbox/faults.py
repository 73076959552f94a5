"""What goes wrong at the stand-in when it is told to, and how much it takes before it says no."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_SERVER = {"internal_error": 503, "fatal_error": 500, "service_unavailable": 503}
_RATELIMITED = 429
_WRITES = frozenset(
    {"chat.postMessage", "chat.update", "chat.delete", "chat.postEphemeral"}
    | {"files.completeUploadExternal", "views.open"}
)


class Faults(BaseModel):
    """What goes wrong next; tests set it by `POST /control`.

    The next `fail_next` calls are refused with `error` and nothing is kept; or all of them for
    `for_seconds`. `status` is the HTTP status, by itself the one that Slack has for the error.
    `outage` says that there is no Slack at all for so long: it cuts connections, answers 500 or
    hangs. Of the next `lose_reply_next` calls that write, the message is kept and the reply lost:
    `drop` cuts the connection, `error` answers 500, `delay` holds it back for `delay` seconds.
    `method` limits all of this to one method of the API, `channel` to one channel's id or name.
    """

    model_config = ConfigDict(extra="forbid")

    fail_next: int = Field(default=0, ge=0)
    for_seconds: float = Field(default=0.0, ge=0.0)
    error: str = "internal_error"
    status: int | None = None
    retry_after: int = Field(default=1, ge=0)
    outage: Literal["", "cut", "error", "hang"] = ""
    lose_reply_next: int = Field(default=0, ge=0)
    lose_by: Literal["drop", "error", "delay"] = "drop"
    delay: float = Field(default=10.0, ge=0.0)
    method: str = ""
    channel: str = ""

    @property
    def answered(self) -> int:
        """The HTTP status of the refusal."""
        if self.error in {"ratelimited", "rate_limited"}:
            return _RATELIMITED
        return self.status or _SERVER.get(self.error, 200)


class FaultBox:
    """The faults still to come, shared by the server's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: tuple[tuple[Faults, float], ...] = ()

    def set(self, wanted: Sequence[Faults]) -> None:
        """Let these go wrong from now on, and nothing that was set before."""
        now = time.monotonic()
        with self._lock:
            self._faults = tuple((one.model_copy(), now + one.for_seconds) for one in wanted)

    def out(self) -> Faults | None:
        """Return the outage there is, if there is one."""
        now = time.monotonic()
        with self._lock:
            return next((one for one, end in self._faults if one.outage and now < end), None)

    def refusing(self, method: str, channel: Sequence[str]) -> Faults | None:
        """Return the fault that this call is refused by, and count it."""
        return self._take("fail_next", method, channel)

    def losing(self, method: str, channel: Sequence[str]) -> Faults | None:
        """Return the fault that this call's reply is lost by, and count it."""
        return self._take("lose_reply_next", method, channel) if method in _WRITES else None

    def _take(self, count: str, method: str, channel: Sequence[str]) -> Faults | None:
        now = time.monotonic()
        with self._lock:
            for one, end in self._faults:
                meant = one.method in {"", method}
                meant = meant and (not one.channel or one.channel.removeprefix("#") in channel)
                if not meant or one.outage:
                    continue
                if count == "fail_next" and now < end:
                    return one
                if left := getattr(one, count):
                    setattr(one, count, left - 1)
                    return one
        return None


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls are taken: messages in each channel, and each method in a minute.

    Slack promises one message a second and bears "short bursts", here `burst` of them.
    """

    every: float = 1.0
    burst: int = 4
    tiers: Mapping[str, int] = field(
        default_factory=lambda: {
            "apps.connections.open": 10,  # tier 1, whose bursts are small
            "chat.delete": 50,
            "chat.postEphemeral": 100,
            "chat.update": 50,
            "conversations.history": 50,
            "conversations.info": 50,
            "conversations.join": 50,
            "conversations.list": 20,
            "conversations.replies": 50,
            "files.completeUploadExternal": 100,
            "files.getUploadURLExternal": 100,
            "files.info": 100,
            "usergroups.list": 20,
            "usergroups.users.list": 20,
            "users.info": 100,
            "users.list": 20,
            "views.open": 100,
            "views.update": 100,
        }
    )


class Meter:
    """Counts the calls against `limits`, as leaking buckets do."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._full: dict[tuple[str, str], float] = {}

    def wait(self, method: str, channel: str) -> int:
        """Return 0 for a call that is taken, else in how many seconds to come again."""
        if method == "chat.postMessage":
            return self._take((method, channel), self._limits.every, self._limits.burst)
        if (rate := self._limits.tiers.get(method)) is None:
            return 0
        return self._take((method, ""), 60.0 / rate, rate)

    def _take(self, bucket: tuple[str, str], every: float, size: int) -> int:
        now = time.monotonic()
        with self._lock:
            # The moment at which the bucket has leaked all it holds.
            empty = max(now, self._full.get(bucket, 0.0))
            late = empty + every - (now + every * size)
            if late > 0:
                return max(1, math.ceil(late))
            self._full[bucket] = empty + every
            return 0
