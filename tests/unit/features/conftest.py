"""A family whose features are made of events in every way there is."""

import shutil
from pathlib import Path

import pytest

from driftloop.spec import Family, Fleet, load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
SOURCES = """
[departures]
kind = "events"
time = "departed_at"
fields = { origin = "categorical", delay = "numeric", carrier = "categorical" }
lateness = "10m"

[planes]
kind = "table"
source = "planes.parquet"
key = "tailnum"
time = "valid_from"
refresh = "1h"
"""
AGGREGATES = {
    **dict.fromkeys(("count", "rate"), None),
    **dict.fromkeys(("sum", "mean", "min", "max", "last", "distinct", "std"), "delay"),
}
LOOKUPS = "\n".join(
    [
        'origin = { kind = "key" }',
        'tailnum = { kind = "key" }',
        'age = { kind = "numeric", from = "planes", key = "tailnum", of = "age", fallback = 1.5 }',
        'share = { kind = "numeric", expression = "delay_sum_30m / delay_count_60m" }',
        *(
            f'delay_{aggregate}_{window} = {{ kind = "numeric", from = "departures",'
            f' key = "origin", aggregate = "{aggregate}", window = "{window}"'
            + (f', of = "{of}" }}' if of else " }")
            for aggregate, of in AGGREGATES.items()
            for window in ("30m", "60m")
        ),
        *(
            f'carrier_{aggregate} = {{ kind = "{kind}", from = "departures", key = "origin",'
            f' aggregate = "{aggregate}", of = "carrier", window = "45m", fallback = {fallback} }}'
            for aggregate, kind, fallback in (
                ("last", "categorical", '"none"'),
                ("distinct", "numeric", "-1"),
            )
        ),
    ]
)


@pytest.fixture(scope="session")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The tests' fleet, in which eta looks features up."""
    folder = Path(shutil.copytree(MONITORS, tmp_path_factory.mktemp("looking") / "monitors"))
    (folder / "sources.toml").write_text(SOURCES, encoding="utf-8")
    file = folder / "eta.toml"
    declared = file.read_text(encoding="utf-8")
    file.write_text(declared.replace("[features]", f"[features]\n{LOOKUPS}"), encoding="utf-8")
    return load_fleet(folder)


@pytest.fixture(scope="session")
def eta(looking: Fleet) -> Family:
    """The family that looks features up."""
    return looking.family_named("eta")
