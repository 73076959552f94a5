"""What serving looks up: rows of batch tables, and the state of streams, in files of this home.

Two LMDB environments, for their writers differ: a refresh of a large table must not keep the
stream process waiting. Whoever reads sees one moment, whole, and never waits for a writer. The
door to LMDB. Nothing in here is the only copy: tables are read again, and the state of streams is
made again of the log (`serve.stream`), so a backup may leave it out.
"""

from driftloop.serve.store.environment import StoreError
from driftloop.serve.store.states import (
    Later,
    Named,
    Sequences,
    StateChange,
    StateStore,
    StateView,
    Stored,
)
from driftloop.serve.store.tables import Loaded, TableStore, TableView

__all__ = [
    "Later",
    "Loaded",
    "Named",
    "Sequences",
    "StateChange",
    "StateStore",
    "StateView",
    "StoreError",
    "Stored",
    "TableStore",
    "TableView",
]
