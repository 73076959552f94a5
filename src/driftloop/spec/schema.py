"""The tables of the monitor files, as pydantic holds them to their types."""

import re
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from math import isfinite
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from driftloop.errors import BadRequest
from driftloop.records import FeatureValue, ModelId, Task
from driftloop.spec.expression import parse
from driftloop.spec.judging import (
    BudgetPolicy,
    EstimatePolicy,
    QuarantinePolicy,
    SeverityPolicy,
)
from driftloop.spec.retraining import RetrainPolicy
from driftloop.spec.values import Duration, Pause, Positive, Share, Table

LOSSES = ("mae", "rmse", "mape", "mape_abs", "abs_max_error", "log_loss", "fpr", "fnr")
"""Decay metrics that are better when lower; the others are better when higher."""
LEANING = ("mean_error",)
"""Metrics that say which way a model errs: neither more nor less of it is worse."""
METRICS: Mapping[Task, tuple[str, ...]] = {
    Task.REGRESSION: ("mae", "rmse", "r2", "mean_error", "mape", "mape_abs", "abs_max_error"),
    Task.BINARY: (
        *("roc_auc", "f1", "log_loss", "accuracy", "precision", "recall"),
        *("tpr", "tnr", "fpr", "fnr"),
    ),
    Task.MULTICLASS: ("accuracy", "f1", "precision", "recall"),
    Task.SCORE: (),
}
"""What is measured of performance."""
IN_UNIT = ("mae", "rmse", "mean_error", "abs_max_error")
"""Metrics in the target's unit."""
TOLD = ("length", "words", "non_ascii")
"""What is told of a text in numbers; see `measure.columns`."""
MOST_FEATURES = 1500
"""The log's catalog, in SQLite, takes no table of 2,000 columns."""
MOST_CLASSES = 1000
QUERY = re.compile(r"\s*(select|from|with)\s", re.IGNORECASE)
"""How a source begins that is a DuckDB query and no file."""


def is_database(source: str) -> bool:
    """Return whether a source names a DuckDB database, and neither Parquet files nor a query.

    >>> is_database("serving.duckdb"), is_database("scored/*.parquet"), is_database("FROM 'a.csv'")
    (True, False, False)
    """
    return QUERY.match(source) is None and not source.lower().endswith(".parquet")


def _fallback(given: object) -> object:
    """Return what may stand for a value: of the kinds that a fallback has, one fault tells all."""
    fits = given is None or isinstance(given, str | int | float)
    if not fits or isinstance(given, bool) or (isinstance(given, float) and not isfinite(given)):
        msg = f'should be a finite number, a word, "{NULL}" or "{REFUSE}"'
        raise ValueError(msg)
    return given


class Platform(Table):
    """Who is told when driftloop itself is in trouble, and from when on it is."""

    owner: str
    false_pages_per_week: Positive = 1.0
    """So many pages about models may be wrong, in the whole fleet and on average.

    See [budget] in monitor files for the part of a family, or of a model."""
    compute_per_day: Duration | None = None
    """So long may the fits of the whole fleet take in any 24 hours; None for no limit."""
    missed_cadences: Annotated[int, Field(ge=1)] = 3
    """So many times `watch_every` since a pass over the fleet came to its end."""
    ingest_lag: Duration = timedelta(seconds=60)
    """So long a sealed segment may wait for the ingester."""
    spool_mib: Positive = 1024.0
    disk_free: Share = 0.05
    """Less of the disk that `home` is on may not be free."""
    unhealthy: Duration = timedelta(seconds=60)
    """So long a service may be dead, or not answer."""
    error_rate: Share = 0.01
    p99_ms: Positive = 100.0
    min_requests: Annotated[int, Field(ge=1)] = 200
    """With fewer requests neither of the two is judged."""


Aggregate = Literal["count", "sum", "mean", "min", "max", "last", "distinct", "rate", "std"]
"""What is made of the events of a window. `count` and `rate` (events a second) are of the events,
the others of a field, whose nulls they pass over; `std` is the sample's. Without anything to
aggregate `count`, `sum`, `rate` and `distinct` are 0, and the others have no value."""
OF_EVENTS = ("count", "rate")
"""Aggregates of the events themselves, and of no field."""
REFUSE = "refuse"
NULL = "null"


class Source(Table):
    """Where looked-up features come from: a stream of events, or a table in a file or a query.

    An event has a `time` and `fields`; one that is older than the newest of its key by more than
    `lateness` is not aggregated. It is posted, or read from the JetStream subject `nats` too. Of a
    table (`source`: a Parquet or CSV file, looked for from the folder of the monitor files, or a
    DuckDB query) the row of each `key` is looked up, the newest by `time` if there is one; the
    online store reads it every `refresh`.
    """

    name: str
    kind: Literal["events", "table"]
    time: str | None = None
    fields: dict[str, Literal["numeric", "categorical"]] = Field(default_factory=dict)
    lateness: Pause | None = None
    nats: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")] | None = None
    source: Annotated[str, Field(min_length=1)] | None = None
    key: str | None = None
    refresh: Duration | None = None
    owner: str | None = None
    """Who is told when what comes from it is wrong, of `owners.toml`; else who owns the data of the
    family."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        events = {"fields": self.fields or None, "lateness": self.lateness, "nats": self.nats}
        table = {"source": self.source, "key": self.key, "refresh": self.refresh}
        needed = ("fields",) if self.kind == "events" else ("source", "key", "refresh")
        mine, other = (events, table) if self.kind == "events" else (table, events)
        lacks = [name for name in needed if mine[name] is None]
        if self.kind == "events" and self.time is None:
            lacks.insert(0, "time")
        said = [f"needs {', '.join(lacks)}"] if lacks else []
        if odd := [name for name, value in other.items() if value is not None]:
            said.append(f"has no {', '.join(odd)}")
        if said:
            msg = f"a source of kind {self.kind!r} {' and '.join(said)}"
            raise ValueError(msg)
        return self

    @property
    def table(self) -> str:
        """The source's name as an SQL identifier."""
        return self.name.replace("-", "_")

    @property
    def late_after(self) -> timedelta:
        """How much older than the newest of its key an event may be; nothing by default."""
        return self.lateness or timedelta()


class Feature(Table):
    """One column of a model's rows: sent by the caller, looked up, or computed of others.

    `range` bounds plausible values (inclusive); `required` refuses a request without it. A text
    is logged and watched by what can be told of it in numbers; models are not given it. A key is
    logged too, and neither watched nor given to models.

    With `from` it is looked up in that source by the request's field `key`: of a table its column
    `of`, of events their `aggregate` in the `window` that ends with the row's event time. Where
    there is no value `fallback` stands for it; "refuse" refuses the row. A table whose copy in the
    online store is older than `max_age` has no values. With `expression` it is computed of other
    features.
    """

    kind: Literal["numeric", "categorical", "text", "key"]
    range: tuple[float, float] | None = Field(default=None, strict=False)
    required: bool = False
    source: str | None = Field(default=None, alias="from")
    key: str | None = None
    aggregate: Aggregate | None = None
    of: str | None = None
    window: Duration | None = None
    max_age: Duration | None = None
    fallback: Annotated[float | str | None, BeforeValidator(_fallback)] = None
    expression: str | None = None

    @model_validator(mode="after")
    def _range_fits(self) -> Self:
        if self.range is not None and self.kind != "numeric":
            msg = f"a {self.kind} feature has no range"
            raise ValueError(msg)
        if self.range is not None and not self.range[0] < self.range[1]:
            msg = "range must be [low, high] with low below high"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        lookup = {
            name: getattr(self, name)
            for name in ("key", "aggregate", "of", "window", "max_age", "fallback")
        }
        said = [name for name, value in lookup.items() if value is not None]
        msg = ""
        if self.source is not None and self.expression is not None:
            msg = "is either looked up (from) or computed (expression)"
        elif self.source is None and said:
            msg = f"has {', '.join(said)}, and no source: say from which"
        elif not self.requested and self.kind not in ("numeric", "categorical"):
            msg = f"a {self.kind} is sent by callers: it is neither looked up nor computed"
        elif not self.requested and self.required:
            msg = "is not sent by callers, so it cannot be required of them"
            msg += f'; fallback = "{REFUSE}" refuses rows without it' if self.source else ""
        elif isinstance(self.fallback, str) and self.kind == "numeric" and not self._rule:
            msg = f'the fallback of a number is a number, "{NULL}" or "{REFUSE}"'
        elif isinstance(self.fallback, float) and self.kind != "numeric":
            msg = f'the fallback of a category is a word, "{NULL}" or "{REFUSE}"'
        if msg:
            raise ValueError(msg)
        return self

    @property
    def requested(self) -> bool:
        """Whether callers send it: it is neither looked up nor computed."""
        return self.source is None and self.expression is None

    @property
    def needs(self) -> tuple[str, ...]:
        """The features that it is computed of."""
        return () if self.expression is None else parse(self.expression).names

    @property
    def refuses(self) -> bool:
        """Whether a row is refused for which this has no value."""
        return self.fallback == REFUSE

    @property
    def substitute(self) -> FeatureValue:
        """What stands for a value that is not there; null unless a fallback names one."""
        return None if self._rule else self.fallback

    @property
    def _rule(self) -> bool:
        return self.fallback in (NULL, REFUSE)


class WindowPolicy(Table):
    """Which rows are looked at, how often, and how few are too few."""

    span: Duration
    cadence: Duration
    min_rows: Annotated[int, Field(ge=1)]
    min_labels: Annotated[int, Field(ge=1)]
    label_expiry: Pause
    block: Duration = timedelta(days=1)
    """Rows this near in time share weather, outages and the like: certainty counts blocks."""


class _Limits(Table):
    warn: Positive
    alarm: Positive

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.warn > self.alarm:
            msg = "warn must not be above alarm"
            raise ValueError(msg)
        return self


class DriftPolicy(_Limits):
    """Limits on the distance of a column from its reference.

    A column counts only when the distance is over its limit AND a two-sample test's p-value is
    below `p_value`: the size of a shift and the certainty that it is one.
    """

    p_value: Annotated[float, Field(gt=0.0, lt=1.0)]
    columns: Share
    """Share of the columns that must be over the alarm limit before the model is DRIFTING."""
    numeric: Literal["wasserstein", "ks", "psi", "jensenshannon", "psi_quantile"] = "wasserstein"
    """The distance that numeric columns are judged by; the others are measured beside it."""
    categorical: Literal["jensenshannon", "psi"] = "jensenshannon"
    """Likewise for categorical columns."""


class DecayPolicy(_Limits):
    """Limits on how much worse than its baseline a metric is, as a share of the baseline."""

    metric: str


class QualityPolicy(Table):
    """Limits on faults in the data, as shares of the window's rows."""

    nulls: Share
    """More nulls than the reference has, by this share, is an alarm."""
    out_of_range: Share
    unseen: Share
    duplicates: Share
    stale: Duration
    """The newest row may be this old."""


class Hysteresis(Table):
    """How many decisions in a row it takes to open and to resolve an incident."""

    open_after: Annotated[int, Field(ge=1)]
    resolve_after: Annotated[int, Field(ge=1)]


class GatePolicy(Table):
    """What a candidate must show before it answers."""

    holdout: Duration
    min_rows: Annotated[int, Field(ge=2)]
    margin: Annotated[float, Field(ge=-1.0, le=1.0)]
    """The lower bound of the relative gain must be above this."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    """Of the gain's two-sided interval. It is asked to be surer the more often the rows were used:
    1 - confidence is what all attempts on a holdout's worth of rows together may err."""
    segment_margin: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.1
    """No segment's loss may be larger than the champion's by more than this share, for certain."""


class RolloutPolicy(Table):
    """How a version that passed its gate comes to answer: beside the champion, then for a part.

    What is compared is held to `errors`, `latency`, `scores` and `quality`. For certain beyond a
    limit, and the champion answers alone again; not certainly within it, and the challenger goes
    no further. Durations are loop time.
    """

    shadow: Pause = timedelta(hours=1)
    """So long at least it answers the same rows, unseen; "0s" for not at all."""
    shares: tuple[Share, ...] = Field(default=(0.05, 0.25, 0.5), strict=False)
    """Then it answers these shares of the requests, one after the other."""
    step: Duration = timedelta(hours=1)
    """Each share for so long at least."""
    min_rows: Annotated[int, Field(ge=1)] = 1000
    """So many rows it must have answered in a phase before it goes on."""
    patience: Duration = timedelta(days=1)
    """What a phase could not show within so long ends in rolling back."""
    labels: Pause = timedelta(0)
    """So much longer a phase waits for late labels; then it goes on with what the gate saw."""
    min_labels: Annotated[int, Field(ge=2)] = 100
    """With fewer labelled rows quality is not judged."""
    watch: Pause = timedelta(hours=1)
    """So long it is compared with its predecessor after it became champion."""
    held: Duration = timedelta(days=1)
    """Held longer than this by a person, the owner is told."""
    errors: Share = 0.01
    """It may fail on more requests than the champion by this share."""
    latency: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] = 2.0
    """Its median may be this many times the champion's, and so may p99, or the highest percentile
    that so many requests can tell."""
    scores: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    """Its answers may be this far from the champion's: the largest difference of the two
    distributions, 0 to 1; of classes, of one class's share."""
    quality: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Its loss on labelled rows may be larger than the champion's by this share."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of each comparison, over all the times that it is looked at."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        rising = all(a < b for a, b in pairwise((0.0, *self.shares, 1.0)))
        if not rising:
            msg = "shares must grow, each above 0 and below 1"
            raise ValueError(msg)
        if not self.shadow and not self.shares:
            msg = "give shadow or shares, or no [rollout] at all"
            raise ValueError(msg)
        if self.patience < max(self.shadow, self.step):
            msg = "patience must not be shorter than shadow or step"
            raise ValueError(msg)
        return self


class RetentionPolicy(Table):
    """How long things are kept, in loop time.

    What a kept version was trained on, and what an open incident was decided on, stays longer.
    """

    log: Duration = timedelta(days=400)
    """Rows that happened and arrived longer ago leave the log, and their labels with them."""
    measured: Duration = timedelta(days=90)
    """Of older measurements one a day stays, and what was paged or acted on."""
    refused: Duration = timedelta(days=7)
    """The files of candidates that never answered stay this long."""
    reports: Duration = timedelta(days=7)
    """Rendered reports, by the wall clock; they can be made again."""
    versions: Annotated[int, Field(ge=2)] = 10
    """This many of the newest versions that answered can be rolled back to; the first too."""


class _Source(Table):
    columns: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    """Ours = theirs, where a column is called otherwise than it is here."""
    table: str | None = None
    """Which table or view of a database, as in "main.scored"."""


class LabelSource(_Source):
    """Where the labels are, if not in the rows; without `source`, in the log's own database."""

    source: Annotated[str, Field(min_length=1)] | None = None


class LogSource(_Source):
    """A prediction log that somebody else writes; it is read and never written.

    `source` is a DuckDB database (then `table` names a table or view of it), Parquet files
    ("scored/*.parquet"), or a DuckDB query that begins with SELECT, FROM or WITH. Files are
    looked for from the folder of the monitor files.
    """

    source: Annotated[str, Field(min_length=1)]
    labels: LabelSource | None = None


class BatchPolicy(Table):
    """What is scored by every model of a family, and how often.

    In `source` and `out` stand {model} and {market}, and {date} (2026-03-01) and {time}
    (20260301T000000) for when the turn began, in UTC. Files are looked for from the folder of the
    monitor files. `publish` lets the online service give the answers by id.
    """

    source: Annotated[str, Field(min_length=1)]
    out: Annotated[str, Field(pattern=r"(?i)\.(parquet|csv)$")]
    every: Duration
    publish: bool = False


class HandoverPolicy(Table):
    """Who is told of a new version of a model that is served elsewhere.

    `command` is run in the folder of the monitor files with the version as JSON on its standard
    input, and must exit with 0; to `url` the same JSON is posted, and the answer must be 2xx.
    """

    command: Annotated[tuple[str, ...], Field(strict=False)] = ()
    url: Annotated[str, Field(pattern=r"^https?://[^/\s]+")] | None = None
    time_limit: Duration = timedelta(minutes=5)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == (self.url is not None):
            msg = "give either command or url"
            raise ValueError(msg)
        return self


class Family(Table):
    """The models that share a feature schema, a recipe and a monitor file."""

    name: str
    task: Task = Field(strict=False)
    classes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """What a multiclass family predicts one of. The log keeps a class's place in this list: their
    order stays, and new ones are added at the end."""
    target: Annotated[str, Field(min_length=1)]
    unit: str = ""
    time: str
    owner: str
    data_owner: str | None = None
    """Who is told when the data is at fault, where that is not `owner`."""
    markets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    features: Annotated[dict[str, Feature], Field(min_length=1, max_length=MOST_FEATURES)]
    window: WindowPolicy
    drift: DriftPolicy
    decay: DecayPolicy | None = None
    """None for scores alone."""
    quality: QualityPolicy
    hysteresis: Hysteresis
    retrain: RetrainPolicy
    gate: GatePolicy
    retention: RetentionPolicy = RetentionPolicy()
    budget: BudgetPolicy = BudgetPolicy()
    estimate: EstimatePolicy = EstimatePolicy()
    quarantine: QuarantinePolicy = QuarantinePolicy()
    severity: SeverityPolicy = SeverityPolicy()
    log: LogSource | None = None
    """A log of somebody else's: these models are served elsewhere, and never by driftloop."""
    segments: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Categorical features by whose levels the judged metric is measured too."""
    handover: HandoverPolicy | None = None
    batch: BatchPolicy | None = None
    rollout: RolloutPolicy | None = None
    """None: what passed its gate answers at once."""

    def need_own_log(self) -> None:
        """Refuse what would write to a log that is only read, or answer for who serves it.

        Raises:
            BadRequest: the family is served elsewhere.
        """
        if self.log is not None:
            raise BadRequest(
                "these models are served elsewhere, and their log is only read",
                where=self.name,
                hint=f"rows and labels go where [log] of {self.name}.toml says",
            )

    def need_handover(self) -> None:
        """Refuse what would make a version that nobody takes: the family is watched only.

        A new version of scores is another reference, and nobody has to take it.

        Raises:
            BadRequest: it is served elsewhere, and nobody is named to hand a version to.
        """
        if self.log is not None and self.handover is None and self.task is not Task.SCORE:
            raise BadRequest(
                "nobody is named to hand a version to: these models are watched only",
                where=f"{self.name}.toml: handover",
                hint="give command or url in [handover]",
            )

    def shown(self, value: float) -> float | str:
        """Return a prediction or a label as people are told it: of a multiclass family the class.

        An index that no class has is shown as the number it is.
        """
        known = 0 <= value < len(self.classes) and value == int(value)
        return self.classes[int(value)] if known else value

    @property
    def table(self) -> str:
        """The family's name as an SQL identifier."""
        return self.name.replace("-", "_")

    @property
    def models(self) -> tuple[ModelId, ...]:
        """The family's models, in the order of its markets."""
        return tuple(ModelId(f"{self.name}-{market}") for market in self.markets)

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric features, in the file's order."""
        return tuple(n for n, f in self.features.items() if f.kind == "numeric")

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical features, in the file's order."""
        return tuple(n for n, f in self.features.items() if f.kind == "categorical")

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the text features, in the file's order."""
        return tuple(n for n, f in self.features.items() if f.kind == "text")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of what is watched as a number: numeric features, and what is told of texts."""
        told = (f"{name}.{said}" for name in self.texts for said in TOLD)
        return (*self.numeric, *told)

    @property
    def inputs(self) -> "dict[str, Feature]":
        """The features that a model is given: all but texts and keys."""
        given = ("numeric", "categorical")
        return {name: feature for name, feature in self.features.items() if feature.kind in given}

    @property
    def measured(self) -> "dict[str, Feature]":
        """The features that are watched: all but keys."""
        return {name: feature for name, feature in self.features.items() if feature.kind != "key"}

    @property
    def requested(self) -> "dict[str, Feature]":
        """The features that callers send, keys among them."""
        return {name: feature for name, feature in self.features.items() if feature.requested}

    @property
    def looked_up(self) -> "dict[str, Feature]":
        """The features that are looked up in a source."""
        return {n: feature for n, feature in self.features.items() if feature.source is not None}

    @property
    def computed(self) -> "dict[str, Feature]":
        """The features that are computed of others, each after those that it needs."""
        found: dict[str, Feature] = {}
        left = {n: f for n, f in self.features.items() if f.expression is not None}
        while left:
            found |= {n: f for n, f in left.items() if not left.keys() & set(f.needs)}
            left = {n: f for n, f in left.items() if n not in found}
        return found

    def unit_of(self, metric: str) -> str:
        """Return the unit of a metric of performance, "" where it has none."""
        if metric in ("mape", "mape_abs"):
            return "%"
        return self.unit if metric in IN_UNIT else ""
