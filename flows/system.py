"""The one installation that this process serves, kept warm between runs.

The process may be the worker of `driftloop up`, one of a Prefect worker's, or a Dask worker: what
tells it about the installation is its own environment, or the file that it names.
"""

from contextvars import ContextVar
from functools import lru_cache

from driftloop.errors import BadRequest
from driftloop.settings import need_dask, read_settings
from driftloop.wiring import System

CANCELLED = "cancelled in Prefect"
skipped: ContextVar[int] = ContextVar("skipped", default=0)
"""How many earlier runs of the same schedule were skipped in favour of the one under way."""


@lru_cache(maxsize=1)
def the_system() -> System:
    """Return the installation that the environment's settings describe, always the same one.

    Raises:
        BadRequest: there is none, or Dask is asked for and not installed.
    """
    settings = read_settings()
    if not settings.home.is_dir():
        raise BadRequest(
            "there is no installation here",
            where=str(settings.home.absolute()),
            hint="start this process with DRIFTLOOP_CONFIG naming the installation's file; "
            "a machine of its own needs its own home, which may be an empty folder",
        )
    if not settings.dask:
        return System(settings)
    need_dask(settings)
    from flows.fit import DaskTrainer

    return System(settings, trainer=DaskTrainer)
