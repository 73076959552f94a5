"""The composition root: settings in, everything built out; it alone knows every adapter."""

from driftloop.wiring.asking import Asking
from driftloop.wiring.keeping import Keeping
from driftloop.wiring.receiving import Receiving
from driftloop.wiring.replaying import Replaying
from driftloop.wiring.scoring import Scoring
from driftloop.wiring.training import IsolatedTrainer, read_table

__all__ = ["IsolatedTrainer", "System", "read_table"]


class System(Scoring, Asking, Keeping, Replaying, Receiving):
    """One installation, built part by part as each is asked for.

    Nothing is opened before it is needed, so that a process pays for what it uses alone.
    """
