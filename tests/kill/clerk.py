"""Does what the service `desk` does: takes clicks, tells the second way, and what is left of both.

Each line of stdin is the work of one life: "click NUMBER", "relay NUMBER" or "rest".
"""

import time
from dataclasses import replace
from datetime import timedelta

from kill.harness import untold
from kill.lives import bear
from kill.teller import notices

from driftloop.records import Act, Click, Notice
from driftloop.settings import read_settings
from driftloop.wiring import System

LEASE = timedelta(seconds=0.4)


def work(given: str) -> None:
    """Do the work of one life."""
    what, _, number = given.partition(" ")
    system = System(read_settings())
    if what == "relay":
        system.teller.tell(opened(int(number)))
        while not system.relay.relay():
            time.sleep(0.02)
        return
    if what == "click":
        click = Click(
            key=f"click/{number}",
            act=Act.ACK,
            incident=opened(int(number)).incident,
            who="Ada",
        )
        replace(system.desk, lease=LEASE).take(click)
    _finish(system)


def opened(number: int) -> Notice:
    """Return what there is to tell of an incident."""
    return notices(number)[0]


def _finish(system: System) -> None:
    while untold(system.settings) or system.ledger.live("act/"):
        replace(system.desk, lease=LEASE).finish_left()
        system.relay.relay()
        system.teller.tell_unsent()
        time.sleep(0.02)


if __name__ == "__main__":
    bear(work, "sqlalchemy.dialects.sqlite", "slack_sdk", "driftloop.page.slack", "httpx")
