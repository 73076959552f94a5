"""A service's spool without the service: says each batch's ids before it writes, and after."""

import sys
import time
from datetime import UTC, datetime

from kill.lives import bear

from driftloop.records import ModelId, Prediction
from driftloop.settings import read_settings
from driftloop.wiring import System

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def write(life: str) -> None:
    """Write batches of one to seven rows until killed."""
    spool = System(read_settings()).spool("writer")
    batch = 0
    while True:
        rows = [
            Prediction(
                id=f"{life}-{batch}-{row}",
                model=ModelId("eta-de"),
                version=1,
                epoch=1,
                event_time=NOW,
                predicted_at=NOW,
                prediction=float(batch),
                features={"distance": 1.0, "load": None, "vehicle": "van"},
            )
            for row in range(1 + batch % 7)
        ]
        ids = " ".join(row.id for row in rows)
        say(f"asked {ids}")
        spool.predictions("eta", rows)
        say(f"answered {batch} {ids}")
        batch += 1
        time.sleep(0.002)


def say(line: str) -> None:
    """Say a line in one write: all of it is said, or nothing."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    bear(write, "driftloop.prediction_log")
