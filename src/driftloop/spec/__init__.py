"""What the monitor files may say: strict, and every fault reported at once.

`owners.toml` names people, `platform.toml` who is told when driftloop itself is in trouble,
`defaults.toml` gives what every family inherits, and each other `<family>.toml` declares a
family: its features, its markets and its policy.
"""

from driftloop.spec.contradictions import NAME
from driftloop.spec.fleet import Fleet
from driftloop.spec.reading import load_fleet
from driftloop.spec.recipe import check_call, load_recipe
from driftloop.spec.schema import (
    LEANING,
    LOSSES,
    METRICS,
    MOST_CLASSES,
    QUERY,
    TOLD,
    DecayPolicy,
    DriftPolicy,
    Family,
    Feature,
    GatePolicy,
    HandoverPolicy,
    LabelSource,
    LogSource,
    Owner,
    Platform,
    RetentionPolicy,
    duration,
    is_database,
)
from driftloop.spec.sources import Source

__all__ = [
    "LEANING",
    "LOSSES",
    "METRICS",
    "MOST_CLASSES",
    "NAME",
    "QUERY",
    "TOLD",
    "DecayPolicy",
    "DriftPolicy",
    "Family",
    "Feature",
    "Fleet",
    "GatePolicy",
    "HandoverPolicy",
    "LabelSource",
    "LogSource",
    "Owner",
    "Platform",
    "RetentionPolicy",
    "Source",
    "check_call",
    "duration",
    "is_database",
    "load_fleet",
    "load_recipe",
]
