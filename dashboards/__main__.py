"""Serve the pages: `python -m dashboards`, as `driftloop up` does."""

import uvicorn

from dashboards.pages import pages_app
from driftloop.logs import configure
from driftloop.settings import read_settings
from driftloop.wiring import System

if __name__ == "__main__":
    configure("pages")
    SYSTEM = System(read_settings())
    uvicorn.run(
        pages_app(SYSTEM),
        host=SYSTEM.settings.host,
        port=SYSTEM.settings.pages_port,
        log_config=None,  # ours is set
        access_log=False,
    )
