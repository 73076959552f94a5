"""The online service on a free port, which it prints; `--without-log` gives it a spool of air.

`--cpu N` keeps it, with all its threads, on one core.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

ASKED = argparse.ArgumentParser()
ASKED.add_argument("--without-log", action="store_true")
ASKED.add_argument("--cpu", type=int)


def main() -> None:
    asked = ASKED.parse_args()
    if asked.cpu is not None:
        # Before any library starts a thread: each has the cores of the one that started it.
        os.sched_setaffinity(0, {asked.cpu})
    _serve(without_log=asked.without_log)


def _serve(*, without_log: bool) -> None:
    import uvicorn

    from driftloop.records import Label, Prediction, Served
    from driftloop.settings import read_settings
    from driftloop.wiring import System

    class Air:
        """A spool that keeps nothing."""

        def predictions(self, family: str, rows: Sequence[Prediction]) -> None: ...

        def labels(self, family: str, rows: Sequence[Label]) -> None: ...

        def served(self, family: str, rows: Sequence[Served]) -> None: ...

        def close(self) -> None: ...

    system = System(read_settings())
    if without_log:
        system.spool = lambda _: Air()
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(system.online_app(), log_level="warning", access_log=False)
        sys.stdout.write(f"{door.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(config).run(sockets=[door])


if __name__ == "__main__":
    main()
