"""A hidden command of driftloop, in life after life.

Usage: python command.py _ingest
"""

import sys

from kill.lives import bear

from driftloop import cli

IMPORTED = (
    *("driftloop.wiring", "driftloop.prediction_log", "driftloop.page.sandbox", "uvicorn"),
    *("driftloop.serve.process", "driftloop.serve.jetstream"),
)


def run(_: str) -> None:
    """Run the command as `driftloop` would."""
    cli.app([sys.argv[1]])


if __name__ == "__main__":
    bear(run, *IMPORTED)
