"""The online service on a free port, which it prints; `--without-log` gives it a spool of air."""

import socket
import sys
from collections.abc import Sequence

import uvicorn

from driftloop.records import Label, Prediction
from driftloop.settings import read_settings
from driftloop.wiring import System


class Air:
    """A spool that keeps nothing."""

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None: ...

    def labels(self, family: str, rows: Sequence[Label]) -> None: ...

    def close(self) -> None: ...


def main() -> None:
    system = System(read_settings())
    if "--without-log" in sys.argv:
        system.spool = lambda _: Air()
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(system.online_app(), log_level="warning", access_log=False)
        sys.stdout.write(f"{door.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(config).run(sockets=[door])


if __name__ == "__main__":
    main()
