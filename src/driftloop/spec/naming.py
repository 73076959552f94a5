"""How things of the monitor files may be called."""

import re

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""A family, a market, a source."""
COLUMN = re.compile(r"[a-z][a-z0-9_]*")
"""A feature, a field."""
