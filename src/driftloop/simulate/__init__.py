"""A fleet that never was: models of any shape, their rows and late labels, faults at known times.

Pure and seeded: a row is made by the plan's seed, its model and its day alone. Nothing is read or
written here but monitor files; `stage` brings rows into an installation.
"""

from driftloop.simulate.faults import SYNTAX, Fault, FaultKind, parse_fault, parse_time
from driftloop.simulate.monitors import monitors, write_monitors
from driftloop.simulate.plan import Plan, Shape
from driftloop.simulate.rows import batches, rows

__all__ = [
    "SYNTAX",
    "Fault",
    "FaultKind",
    "Plan",
    "Shape",
    "batches",
    "monitors",
    "parse_fault",
    "parse_time",
    "rows",
    "write_monitors",
]
