"""Calls of Prefect's API that wait while it is down: what they say must not be lost with it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import httpx

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE = 1800.0
"""Seconds for which a call is tried again."""
PAUSE = 1.0


async def patiently(call: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
    """Return what `call` returns, called again for as long as Prefect's API is away.

    What is called must be safe to repeat: an answer that was lost on its way looks like none.

    Raises:
        Exception: what the last call raised, at once when the API was there to refuse it.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return await call(*args, **options)
        except Exception as error:
            if not is_away(error) or time.monotonic() > until:
                raise
        await asyncio.sleep(PAUSE)


def is_away(error: BaseException | None) -> bool:
    """Return whether `error` is, or comes from, a server that did not answer or is in trouble."""
    while error is not None:
        if isinstance(error, httpx.TransportError):
            return True
        if isinstance(error, httpx.HTTPStatusError):
            return error.response.is_server_error
        error = error.__cause__ or error.__context__
    return False
