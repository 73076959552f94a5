"""Where looked-up features come from: streams of events, and batch tables."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from driftloop.spec.schema import Duration, Pause, StrictTable


class Source(StrictTable):
    """One source of `sources.toml`: events that happen, or a table that is loaded as a whole."""

    name: str
    kind: Literal["events", "table"]
    time: str | None = None
    """Of events, which they must have; of a table since when a row is true."""
    fields: dict[str, Literal["numeric", "categorical"]] = Field(default_factory=dict)
    """What an event holds beside its time and its id."""
    lateness: Pause = timedelta(0)
    """An event that is older than the newest of its key by more is logged and not aggregated."""
    nats: str | None = None
    """The JetStream subject that events are read from too."""
    source: Annotated[str, Field(min_length=1)] | None = None
    """Of a table: a Parquet or CSV file, or a DuckDB query."""
    key: str | None = None
    """Of a table: the column that its rows are looked up by."""
    refresh: Duration = timedelta(hours=1)
    """How often a table is loaded anew."""

    @property
    def table(self) -> str:
        """The source's name as an SQL identifier."""
        return self.name.replace("-", "_")
