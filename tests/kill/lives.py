"""Many short lives from one process that has imported everything: each is forked, and may die.

Imports cost a second a process; a fork costs milliseconds.
"""

import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module


def bear(live: Callable[[str], None], *modules: str) -> None:
    """Let `live` be called with each line of stdin, in a process of its own, one after another.

    Says `born <pid>` and `ended <exit code>` of each. `modules` are imported before the first:
    what is imported at its first use would else be imported in every life.
    """
    for module in modules:
        import_module(module)
    for line in sys.stdin:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os._exit(_lived(live, line.strip()))
        _say(f"born {pid}")
        _, status = os.waitpid(pid, 0)
        _say(f"ended {os.waitstatus_to_exitcode(status)}")


def _lived(live: Callable[[str], None], given: str) -> int:
    try:
        live(given)
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not read on
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
