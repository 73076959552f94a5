"""The monitor files of a plan: a family that `driftloop check` takes and `train` can train."""

import json
import math
from datetime import timedelta
from pathlib import Path

from driftloop.errors import BadRequest
from driftloop.records import Task
from driftloop.simulate.plan import DAY, Plan

OWNER = "simulation"
TIME = "happened_at"
METRIC = {Task.REGRESSION: "mae", Task.BINARY: "log_loss", Task.MULTICLASS: "accuracy"}
_WINDOW = 7 * DAY
_SHARED = {
    "owners.toml": f'[{OWNER}]\nchannel = "#{OWNER}"\n',
    "platform.toml": f'owner = "{OWNER}"\n',
    "defaults.toml": """\
[drift]
warn = 0.2
alarm = 0.5
p_value = 1e-5
columns = 0.5

[quality]
nulls = 0.3
out_of_range = 0.02
unseen = 0.1
duplicates = 0.02
stale = "2d"

[hysteresis]
open_after = 1
resolve_after = 2

[retrain]
triggers = ["decay"]
cooldown = "1d"
max_age = "365d"
recipe = "driftloop.retrain.recipes:gradient_boosting"
seed = 1
time_limit = "10m"
memory_gib = 4.0
parity = 1e-4

[gate]
margin = 0.0
confidence = 0.8
""",
}
_FAMILY = """\
# A simulated family, made by `driftloop simulate`.
task = "{task}"
{classes}target = "outcome"
time = "{time}"
owner = "{owner}"
markets = {markets}

[features]
{features}

[window]
span = "{window}"
cadence = "1h"
min_rows = {watched}
min_labels = {watched}
label_expiry = "{expiry}"

[decay]
metric = "{metric}"
warn = 0.1
alarm = 0.25

[retrain]
span = "{span}"
min_rows = {trained}

[gate]
holdout = "{holdout}"
min_rows = {gated}
"""


def monitors(plan: Plan, *, owner: str = OWNER) -> dict[str, str]:
    """Return the text of each monitor file by its name, those that families share included.

    The family's file is the same whatever the plan's faults, its times and its seed are. A quarter
    of the history is held out by the gate. `owner` is one of `owners.toml`.
    """
    shape, holdout = plan.shape, plan.history / 4
    features = [
        f'{name} = {{ kind = "numeric", range = [-100.0, 100.0] }}' for name in shape.numbers
    ]
    features += [f'{name} = {{ kind = "categorical" }}' for name in shape.categories]
    family = _FAMILY.format(
        task=shape.task,
        classes=f"classes = {json.dumps(shape.names)}\n" if shape.names else "",
        time=TIME,
        owner=owner,
        markets=json.dumps(plan.markets),
        features="\n".join(features),
        window=_text(_WINDOW),
        watched=_enough(plan, _WINDOW, most=100),
        expiry=_text(max(2 * plan.label_delay, DAY)),
        metric=METRIC[shape.task],
        span=_text(plan.history),
        trained=max(_enough(plan, plan.history - holdout, most=200), 2),
        holdout=_text(holdout),
        gated=max(_enough(plan, holdout, most=50), 2),
    )
    return {f"{plan.family}.toml": family, **_SHARED}


def write_monitors(plan: Plan, folder: Path) -> tuple[Path, ...]:
    """Return the files written into `folder`, which is made if need be; none if all are there.

    What families share is written only where it is missing, and the family is then of the
    owner that `platform.toml` names.

    Raises:
        BadRequest: the family's file is there and says something else.
        OSError: a file cannot be read or written.
    """
    own = folder / f"{plan.family}.toml"
    # Who owns the family stays, whoever owns the platform by now.
    owner = _owner(own) if own.exists() else _owner(folder / "platform.toml")
    texts = monitors(plan, owner=owner)
    if own.exists() and own.read_text(encoding="utf-8") != texts[own.name]:
        raise BadRequest(
            "already there, and not what these options make; nothing is overwritten",
            where=str(own),
            hint="give the options it was made with, or another --family; a policy of your own"
            " may stand in defaults.toml",
        )
    folder.mkdir(parents=True, exist_ok=True)
    missing = tuple(folder / name for name in texts if not (folder / name).exists())
    for file in missing:
        file.write_text(texts[file.name], encoding="utf-8")
    return missing


def _owner(file: Path) -> str:
    import tomllib

    try:
        said = tomllib.loads(file.read_text(encoding="utf-8")).get("owner")
    except FileNotFoundError:
        return OWNER
    except ValueError as error:
        raise BadRequest(f"not valid TOML: {error}", where=str(file)) from error
    return said if isinstance(said, str) else OWNER


def _enough(plan: Plan, span: timedelta, *, most: int) -> int:
    """Return half the labelled rows to be expected in `span`, and at most `most`."""
    rows = plan.rows * (span / DAY) * (1.0 - plan.unlabelled) / 2
    return max(1, min(most, math.floor(rows)))


def _text(length: timedelta) -> str:
    seconds = length.total_seconds()
    return f"{seconds / 86400:g}d" if seconds % 86400 == 0 else f"{seconds:.0f}s"
