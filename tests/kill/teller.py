"""Tells the notices of a few incidents, and what earlier processes left, until all is told."""

import time
from datetime import UTC, datetime, timedelta

from kill.harness import untold
from kill.lives import bear

from driftloop.records import ModelId, Notice, Stage
from driftloop.settings import read_settings
from driftloop.wiring import System

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STAGES = (Stage.OPENED, Stage.RECOVERED)


def notices(incident: int) -> list[Notice]:
    """Return what there is to tell of an incident."""
    name = f"eta-de/{incident}"
    return [
        Notice(
            key=f"{name}/{stage}",
            incident=name,
            model=ModelId("eta-de"),
            stage=stage,
            at=NOW + timedelta(hours=incident, minutes=number),
            since=NOW,
            channel="#ml-logistics",
            mention="@here",
            headline=f"incident {incident} {stage}",
            doing="Watching.",
        )
        for number, stage in enumerate(STAGES)
    ]


def tell(incidents: str) -> None:
    """Tell as `watch` does: what is new, then what is left."""
    settings = read_settings()
    teller = System(settings).teller
    new = [notice for n in range(int(incidents)) for notice in notices(n)]
    while True:
        for notice in new:
            teller.tell(notice)
        teller.tell_unsent()
        if not untold(settings):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    bear(tell, "sqlalchemy.dialects.sqlite", "slack_sdk", "driftloop.page.slack")
