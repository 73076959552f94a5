"""The demo: 2013's departures from New York, replayed through the whole loop."""

from driftloop.demo.run import run_demo

__all__ = ["run_demo"]
