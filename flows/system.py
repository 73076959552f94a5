"""The one installation that this process serves, kept warm between runs."""

from contextvars import ContextVar
from functools import lru_cache

from driftloop.settings import read_settings
from driftloop.wiring import System

skipped: ContextVar[int] = ContextVar("skipped", default=0)
"""How many earlier runs of the same schedule were skipped in favour of the one under way."""


@lru_cache(maxsize=1)
def the_system() -> System:
    """Return the installation that the environment's settings describe, always the same one."""
    return System(read_settings())
