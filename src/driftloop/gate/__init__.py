"""Champion against candidate on the same held-out rows: better for certain, or refused. Pure."""

from driftloop.gate.compare import Beside, as_found, compare
from driftloop.gate.uses import Span, Uses, uses

__all__ = ["Beside", "Span", "Uses", "as_found", "compare", "uses"]
