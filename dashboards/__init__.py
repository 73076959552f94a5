"""Read-only pages over the log and the ledger."""
