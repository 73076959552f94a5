"""A process of the simulated month, in life after life: it is killed, and goes on.

Usage: python _paging_process.py _noter|_teller DAYS MODELS SINGLES SEED JOURNAL

The noter does what `flows/watch.py` does with decisions once they are taken: it tells them. The
teller does what the service `desk` does all the time. Each lives as often as a line comes on stdin.
"""

import json
import sys
import threading
import time
from pathlib import Path

from driftloop.errors import DriftloopError
from driftloop.records import Passed
from driftloop.settings import read_settings
from driftloop.up.desk import Chore
from driftloop.wiring import System
from tests.benchmarks._paging_notices import notices_at
from tests.benchmarks._paging_world import Month, times
from tests.kill.lives import bear

IMPORTED = (
    *("sqlalchemy.dialects.sqlite", "slack_sdk", "driftloop.page.slack", "driftloop.page.second"),
    *("driftloop.page.picture", "driftloop.loop.relay", "driftloop.loop.digest", "httpx"),
)
EVERY = 0.05


def note(month: Month, journal: Path) -> None:
    """Tell what becomes due by the loop's clock; what was not told to its end is told again."""
    system = System(read_settings())
    steps = sorted(times(month.faults()), key=lambda each: each[0])
    done = {line["step"] for line in _read(journal) if line["what"] == "done"}
    decided = {line["step"] for line in _read(journal) if line["what"] == "decided"}
    while True:
        now = system.clock.now()
        for at, fault, turn in steps:
            step = f"{fault.name}/{turn}"
            if at > now:
                break
            if step in done:
                continue
            made = notices_at(system, fault, turn)
            alerts = list(dict.fromkeys(each.incident for each in made))
            if step not in decided:
                _write(journal, "decided", step=step, fault=fault.name, turn=turn, alerts=alerts)
                decided.add(step)
            if made:
                system.teller.tell_all(made)
            # That a pass came to its end: without one there are no digests.
            system.ledger.append(Passed(at=now, looked=month.models, seconds=1.0))
            _write(journal, "done", step=step)
            done.add(step)
        time.sleep(EVERY)


def tell() -> None:
    """Do the chores of `desk` until the end of this life."""
    system = System(read_settings())
    every = system.settings.tell_every
    stop = threading.Event()
    chores = [Chore(name, act, every=every) for name, act in system.chores.items()]
    threads = [threading.Thread(target=each.run, args=(stop,), daemon=True) for each in chores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _write(journal: Path, what: str, **more: object) -> None:
    line = json.dumps({"what": what, "wall": time.time(), **more})
    with journal.open("a", encoding="utf-8") as out:
        out.write(f"{line}\n")


def _read(journal: Path) -> list[dict[str, str]]:
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    what, days, models, singles, seed, journal = sys.argv[1:]
    month = Month(int(days), int(models), int(singles), int(seed))

    def live(_: str) -> None:
        try:
            note(month, Path(journal)) if what == "_noter" else tell()
        except DriftloopError as error:
            sys.stderr.write(f"{what}: {error}\n")
            raise

    bear(live, *IMPORTED)


if __name__ == "__main__":
    main()
