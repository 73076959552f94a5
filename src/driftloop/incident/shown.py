"""What an incident's message shows, in short: two that differ show something else."""

import hashlib
from dataclasses import replace

from driftloop.records import Incident


def shown(incident: Incident) -> str:
    """Return a digest of all that the message of `incident` may show.

    What only time changes is not in it, nor how many models a larger incident has come to: a
    message is edited because something happened to what it is of.
    """
    said = replace(incident, told=None, explained_as="")
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
