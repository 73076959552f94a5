"""What the monitor files may say: strict, and every fault reported at once.

`owners.toml` names people, `platform.toml` who is told when driftloop itself is in trouble,
`sources.toml` (if there is one) declares the streams and tables that features are looked up in,
`defaults.toml` gives what every family inherits, and each other `<family>.toml` declares a
family: its features, its markets and its policy.
"""

from driftloop.spec.expression import parse
from driftloop.spec.fleet import Fleet
from driftloop.spec.judging import (
    BudgetPolicy,
    EstimatePolicy,
    QuarantinePolicy,
    SeverityPolicy,
)
from driftloop.spec.naming import NAME
from driftloop.spec.people import (
    DEFAULTS,
    OnCall,
    Override,
    Owner,
    Paging,
    Route,
    Routes,
    inherited,
)
from driftloop.spec.reading import load_fleet
from driftloop.spec.recipe import check_call, load_recipe
from driftloop.spec.retraining import CostPolicy, RetrainPolicy
from driftloop.spec.schema import (
    LEANING,
    LOSSES,
    METRICS,
    MOST_CLASSES,
    OF_EVENTS,
    QUERY,
    TOLD,
    BatchPolicy,
    DecayPolicy,
    DriftPolicy,
    Family,
    Feature,
    GatePolicy,
    HandoverPolicy,
    LabelSource,
    LogSource,
    Platform,
    RetentionPolicy,
    RolloutPolicy,
    Source,
    is_database,
)
from driftloop.spec.values import duration

__all__ = [
    "DEFAULTS",
    "LEANING",
    "LOSSES",
    "METRICS",
    "MOST_CLASSES",
    "NAME",
    "OF_EVENTS",
    "QUERY",
    "TOLD",
    "BatchPolicy",
    "BudgetPolicy",
    "CostPolicy",
    "DecayPolicy",
    "DriftPolicy",
    "EstimatePolicy",
    "Family",
    "Feature",
    "Fleet",
    "GatePolicy",
    "HandoverPolicy",
    "LabelSource",
    "LogSource",
    "OnCall",
    "Override",
    "Owner",
    "Paging",
    "Platform",
    "QuarantinePolicy",
    "RetentionPolicy",
    "RetrainPolicy",
    "RolloutPolicy",
    "Route",
    "Routes",
    "SeverityPolicy",
    "Source",
    "check_call",
    "duration",
    "inherited",
    "is_database",
    "load_fleet",
    "load_recipe",
    "parse",
]
