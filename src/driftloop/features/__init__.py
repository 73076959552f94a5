"""One definition of each feature: the operator that serves it, and the SQL that checks it.

What counts for a row with event time t that was read at stream position p: events of its key at a
position up to p, with an event time in (t - window, t], that were not late when they came. An
event is late if it is older than the newest of its key before it by more than the source's
lateness. Where t is that much older than the newest event itself, the events of the window may
have been forgotten, and the feature has no value.
"""
