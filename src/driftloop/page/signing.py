"""Whether what is posted to us comes from Slack: its signature over the body as it came."""

import re
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from slack_sdk.signature import Clock, SignatureVerifier

WINDOW: Final = 300.0
"""Seconds that a timestamp may be off from now, either way."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")


def local_secret(home: Path) -> str:
    """Return the secret that the local stand-in for Slack signs with, in one home.

    Whoever comes first makes it; the file is readable by its owner alone.

    Raises:
        OSError: it can be neither read nor made.
    """
    file = home / "run" / "slack-secret"
    with suppress(FileNotFoundError):
        return file.read_text(encoding="ascii").strip()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Made beside it, 0600, and linked: nobody ever sees it half written, the first one stands.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix="slack-secret-") as part:
        part.write(secrets.token_hex(16))
        part.flush()
        with suppress(FileExistsError):
            file.hardlink_to(part.name)
    return file.read_text(encoding="ascii").strip()


class Signatures:
    """Says of what was posted whether it is to be believed; used from any thread.

    Args:
        secret: the app's signing secret; None believes nothing.
        wall: seconds since 1970.
    """

    def __init__(self, secret: str | None, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._verifier = SignatureVerifier(secret, _Wall(wall)) if secret else None
        self._lock = Lock()
        self._seen: dict[str, float] = {}

    def doubt(self, body: bytes, *, timestamp: str | None, signature: str | None) -> str:
        """Return what speaks against believing `body`, "" for nothing.

        What is believed once is not believed again: a signature is for one request.
        """
        if self._verifier is None:
            return "there is no signing secret to check it with"
        if timestamp is None or signature is None:
            return "it is not signed"
        if not _TIMESTAMP.fullmatch(timestamp) or not _SIGNATURE.fullmatch(signature):
            return "its signature or timestamp is junk"
        if abs(self._wall() - int(timestamp)) > WINDOW:
            return "its timestamp is stale"
        try:
            genuine = self._verifier.is_valid(body, timestamp, signature)
        except UnicodeDecodeError:
            genuine = False
        if not genuine:
            return "its signature is not that of our secret"
        return "" if self._is_first(signature, int(timestamp)) else "it is a replay"

    def _is_first(self, signature: str, timestamp: float) -> bool:
        now = self._wall()
        with self._lock:
            # After its window a signature is stale, and need not be remembered.
            self._seen = {one: until for one, until in self._seen.items() if until >= now}
            if signature in self._seen:
                return False
            self._seen[signature] = timestamp + WINDOW
            return True


class _Wall(Clock):
    def __init__(self, wall: Callable[[], float]) -> None:
        self._now = wall

    def now(self) -> float:
        return self._now()
