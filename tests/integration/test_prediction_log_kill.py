"""Writer and ingester are killed at random: every acknowledged row is in the lake, once."""

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from driftloop.ports import Clock
from driftloop.prediction_log import Ingester, Lake
from driftloop.spec import Fleet

MONITORS = Path(__file__).parents[1] / "monitors"

WRITER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from driftloop.prediction_log import SegmentSpool
from driftloop.records import Label, Prediction

folder, life = Path(sys.argv[1]), sys.argv[2]
now = datetime(2026, 3, 1, tzinfo=UTC)
spool = SegmentSpool(folder, seal_rows=40, seal_every=0.02)
i = 0
while True:
    rows = [
        Prediction(id=f"{life}-{i}-{n}", model="eta-de", version=1, epoch=1, event_time=now,
                   predicted_at=now, prediction=1.0,
                   features={"distance": 1.0, "load": None, "vehicle": "x" * 300})
        for n in range(1 + i % 7)
    ]
    spool.predictions("eta", rows)
    spool.labels("eta", [Label(id=r.id, model=r.model, value=2.0, observed_at=now) for r in rows])
    print(*(r.id for r in rows), flush=True)
    i += 1
    time.sleep(0.002)
"""

INGESTER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from driftloop.prediction_log import Ingester, Lake
from driftloop.spec import load_fleet

class Clock:
    def now(self):
        return datetime(2026, 3, 1, tzinfo=UTC)

home = Path(sys.argv[1])
lake = Lake(home / "lake", load_fleet(Path(sys.argv[2])), read_only=False)
ingester = Ingester(home / "spool", lake, Clock())
turn = 0
while True:
    print("turn", flush=True)
    ingester.ingest()
    turn += 1
    if turn % 3 == 0:
        ingester.maintain()
    time.sleep(0.005)
"""


class Victim:
    """A process whose words are heard until it is killed."""

    def __init__(self, code: str, *arguments: object) -> None:
        self.said: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def wait_for(self, lines: int) -> None:
        """Wait until it has said so many lines."""
        end = time.monotonic() + 120
        while len(self.said) < lines:
            assert self._process.poll() is None, "it died by itself"
            assert time.monotonic() < end, "it hangs"
            time.sleep(0.002)

    def kill(self) -> None:
        """Kill it with -9 and hear its last words."""
        self._process.kill()
        self._process.wait(10)
        self._listener.join(10)
        self._process.stdout.close()

    def _listen(self) -> None:
        # A line cut off in the middle was not said: nobody was promised anything by it.
        for line in self._process.stdout:
            if line.endswith("\n"):
                self.said.append(line)


def test_every_acknowledged_row_is_in_the_lake_once(
    tmp_path: Path, fleet: Fleet, clock: Clock
) -> None:
    """Whenever writer and ingester die by kill -9, no promised row is lost or doubled."""
    chance = random.Random(20260301)
    promised: list[str] = []
    for life in range(3):
        # The second life takes its folder over from the first; the ingester clears the rest.
        writer = Victim(WRITER, tmp_path / "spool" / f"w{life // 2}", life)
        writer.wait_for(20)
        for _ in range(2 if life == 0 else 1):
            ingester = Victim(INGESTER, tmp_path, MONITORS)
            ingester.wait_for(chance.randint(1, 5))
            time.sleep(chance.uniform(0.0, 0.1))
            ingester.kill()
        writer.kill()
        promised += " ".join(writer.said).split()
    with (
        Lake(tmp_path / "lake", fleet, read_only=False) as lake,
        Ingester(tmp_path / "spool", lake, clock) as last,
    ):
        entered = lake.query("SELECT name FROM lake.segments").num_rows
        assert last.ingest().bad == 0
        assert last.ingest().segments == 0
        for table in ("eta_predictions", "eta_labels"):
            found = lake.query(f"SELECT id FROM lake.{table}").column("id").to_pylist()
            assert len(found) == len(set(found))
            assert set(promised) <= set(found)
    assert len(promised) > 500
    assert entered > 0, "no ingester was killed in its work"
    left = sorted(path.name for path in (tmp_path / "spool").iterdir())
    assert left == ["identity", "ingester.lock"]
