"""Who is told, and when: the tree of routes, shifts and quiet hours. Pure."""

from driftloop.route.calendar import morning, on_call, quiet_until
from driftloop.route.tree import Routed, routed

__all__ = ["Routed", "morning", "on_call", "quiet_until", "routed"]
