"""A hidden command of driftloop, in life after life.

Usage: python command.py _ingest
"""

import sys

import uvicorn  # noqa: F401 - imported for every life at once
from kill.lives import bear

from driftloop import cli, prediction_log, wiring  # noqa: F401 - as above
from driftloop.page import sandbox  # noqa: F401 - as above


def run(given: str) -> None:
    """Run the command as `driftloop` would."""
    cli.app([given])


if __name__ == "__main__":
    bear(lambda _: run(sys.argv[1]))
