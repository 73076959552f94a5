"""Every type that crosses a doorway between rooms. Read it and you know the system.

All records are frozen, slotted and hold aware UTC times and tuples. Times named `*_at` and
the ends of windows are in the loop's clock (see `clock.py`); leases alone are wall time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

ModelId = NewType("ModelId", str)
"""`<family>-<market>`, as in `air-time-ewr-ua`."""

PLATFORM = ModelId("driftloop")
"""Stands where a fact, a reading or a notice is about the loop itself and no model."""

FeatureValue = float | str | None

MODEL_FILE = "model.onnx"
PIPELINE_FILE = "pipeline.skops"
REFERENCE_FILE = "reference.parquet"
HOLDOUT_FILE = "holdout.parquet"

REMEMBERED = 20
"""How many decisions and orders a model's history holds."""
Z90 = 1.6448536269514722
"""A 90 % interval reaches so many standard errors to each side."""

DOUBTED = "doubted"
"""The reading of an estimate that labels which came since, or do not come, speak against."""
PROFILE_FILE = "profile.parquet"

_METRICS = {
    DOUBTED: "share of rows without labels whose performance is in doubt",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R2",
    "mean_error": "mean error",
    "mape": "mean absolute percentage error",
    "mape_abs": "mean absolute percentage error, by the size of the label",
    "abs_max_error": "largest absolute error",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "tpr": "true positive rate",
    "tnr": "true negative rate",
    "fpr": "false positive rate",
    "fnr": "false negative rate",
    "misclassified": "share misclassified",
    "wasserstein": "Wasserstein distance",
    "jensenshannon": "Jensen-Shannon distance",
    "ks": "Kolmogorov-Smirnov statistic",
    "psi": "PSI",
    "psi_quantile": "PSI on tenths of the reference",
    "chisquare": "one-sample chi-square p-value",
    "consistency": "difference of features as served from the same made again",
    "expected": "loss expected before labels",
    "null_share": "share of nulls",
    "empty_share": "share of empty texts",
    "out_of_range": "share out of range",
    "unseen": "share of unseen categories",
    "duplicates": "share of duplicates",
    "freshness": "age in hours",
    "passes_missed": "cadences without a finished pass",
    "unwatched": "models that no pass could look at",
    "ingest_lag": "seconds a segment waits for the ingester",
    "spool_mib": "MiB in the spool",
    "disk_free": "share of the disk that is free",
    "unhealthy": "seconds without health",
    "quarantined": "files in quarantine",
    "refused": "champions that could not be loaded",
    "error_rate": "share of requests that failed",
    "p99_ms": "milliseconds within which 99 % are answered",
    "untold": "notices not told yet",
    "monitors": "monitor files changed since the start",
}


def metric_name(metric: str) -> str:
    """Return what people call a metric; one without a name in words is called what it is.

    >>> metric_name("log_loss"), metric_name("volume")
    ('log loss', 'volume')
    """
    return _METRICS.get(metric, metric)


class Task(StrEnum):
    """What a model predicts: a number, yes or no, one of a family's classes, or a score.

    A score is a number that no outcome proves right or wrong, as of an anomaly or a similarity:
    it has no labels, and drift and quality are all that is measured of it.
    """

    REGRESSION = "regression"
    BINARY = "binary"
    MULTICLASS = "multiclass"
    SCORE = "score"


class Kind(StrEnum):
    """What a reading is evidence of."""

    DRIFT = "drift"
    DECAY = "decay"
    QUALITY = "quality"
    FRESH = "fresh"
    """Of what came since the last look alone: evidence that is added up, look by look."""
    ESTIMATE = "estimate"
    """Performance as it is believed to be, labels that are still to come included."""
    SERVICE = "service"


class Level(StrEnum):
    """A reading judged. BLIND is neither OK nor ALARM: too little was seen to tell."""

    OK = "ok"
    WARN = "warn"
    ALARM = "alarm"
    BLIND = "blind"


class State(StrEnum):
    """What a model is, in one word, after a decision."""

    FRESH = "fresh"
    DRIFTING = "drifting"
    DECAYING = "decaying"
    DATA_FAULT = "data-fault"
    BLIND = "blind"


# -- the prediction log ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answered row.

    `prediction` is the target's unit for regression, the probability of 1 for binary, the index
    of the class in `Family.classes` for multiclass (one type of column serves every family; names
    are for people, at the doors), and the score itself for scores.

    `fallbacks` are the features that could not be looked up and have what their declaration says
    instead. `position` is that of the newest event that the features from streams knew of; None
    where no feature comes from one.
    """

    id: str
    model: ModelId
    version: int
    epoch: int
    event_time: datetime
    predicted_at: datetime
    prediction: float
    features: Mapping[str, FeatureValue]
    fallbacks: tuple[str, ...] = ()
    position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The true outcome of one prediction; a later arrival for the same id corrects it.

    `value` is in the unit of `Prediction.prediction`: of a multiclass model the class's index.
    """

    id: str
    model: ModelId
    value: float
    observed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, as the stream process took it.

    `position` counts the events of all sources of an installation in the order they were taken:
    what was answered at a position knew all events up to it, and none after. `event_time` is when
    it happened, `received_at` when it was taken; both are the loop's time.
    """

    id: str
    source: str
    position: int
    event_time: datetime
    received_at: datetime
    fields: Mapping[str, FeatureValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What a challenger in shadow would have answered to one row; None where it failed to.

    `id` and `event_time` are those of the champion's `Prediction`, `version` and `epoch` the
    challenger's.
    """

    id: str
    model: ModelId
    version: int
    epoch: int
    event_time: datetime
    predicted_at: datetime
    prediction: float | None


class Role(StrEnum):
    """What a version was to the requests that it was asked."""

    CHAMPION = "champion"
    SHADOW = "shadow"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How one version of one model did in one serving process, between two moments.

    `seconds` counts its requests by how long each took, in the bins of `latencies`; `start`
    and `end` are the loop's time.
    """

    model: ModelId
    version: int
    role: Role
    start: datetime
    end: datetime
    requests: int
    errors: int
    seconds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests that one version answered or failed on, summed; `seconds` as in `Served`."""

    requests: int = 0
    errors: int = 0
    seconds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What a model answered to some rows when it was made: `answers[i]` to row i of `columns`."""

    columns: dict[str, list[FeatureValue]]
    answers: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows of one model with events in [start, end), and how many they were when counted."""

    start: datetime
    end: datetime
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A described span of the log, never the data: events in [start, end) known by `known_at`.

    `version` keeps the rows that version predicted; None keeps all, history included. What arrived
    after `since` is fresh: no look has seen it yet. Rows in `left_out` are in quarantine, and are
    read by nobody who trains.
    `snapshot` is the lake's snapshot it was first read at, kept only to read it again quickly.
    """

    model: ModelId
    start: datetime
    end: datetime
    known_at: datetime
    version: int | None = None
    snapshot: int | None = None
    since: datetime | None = None
    left_out: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """Counts of a window that no longer show in its rows, which are one for each id."""

    rows: int
    duplicates: int
    labels: int
    newest_event: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnCounts:
    """One column of a partition, counted.

    `outside` are values out of the declared range, `unseen` those of levels that no earlier
    partition but the newest few had. `low` and `high` cut off the share of values that may be out
    of range at either end; None where there are no numbers.
    """

    name: str
    nulls: int
    outside: int = 0
    unseen: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How labels of a partition that arrived in one block of time agree with the answers.

    `batch` counts blocks since 1970. The sums are of label y and answer p, over `n` rows that have
    both; of classes `equal` counts the rows in which they are one.
    """

    batch: int
    n: int
    equal: int = 0
    y: float = 0.0
    p: float = 0.0
    yy: float = 0.0
    pp: float = 0.0
    yp: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """The rows of one model with events in one block of time, [start, end), counted.

    `rows` has each id once and `duplicates` those that came again. `late` are the rows that
    arrived later after they were predicted than data may be old; `slots` is in how many of the
    block's 24 equal parts there is a row. `impossible` are labels and answers that no log of ours
    would take. Of the labels there are how many, the lowest, the highest and the mean.
    """

    model: ModelId
    start: datetime
    end: datetime
    rows: int
    duplicates: int = 0
    late: int = 0
    slots: int = 0
    impossible: int = 0
    labels: int = 0
    label_low: float | None = None
    label_high: float | None = None
    label_mean: float | None = None
    columns: tuple[ColumnCounts, ...] = ()
    agreements: tuple[Agreement, ...] = ()


# -- measure and judge ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One measured number with its sample size.

    `column` is a feature, what is told of a text ("comment.length"), "prediction", "label", or
    None for the model as a whole. `value` is None when it could not be measured, and `problem`
    says why. `low` and `high` bound a 90 % interval where one is known. `p_value` is that of a
    two-sample test of no change. `baseline` is the champion's value of the same metric when it
    passed its gate. `segment` is the part of the rows that was measured, as in "carrier=AA";
    None for all of them.
    """

    kind: Kind
    metric: str
    column: str | None
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    baseline: float | None = None
    problem: str | None = None
    segment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A reading judged, and in words why."""

    reading: Reading
    level: Level
    limit: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Evidence that one kind of fresh readings of a model has changed, as far as it has added up.

    `name` is the reading's metric, and its column after a colon. `mass` is in false pages: where
    its sum reaches 1, as many pages were to be expected had nothing changed as the budget allows.
    """

    name: str
    mass: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done about one model now; `key` makes every outward act safe to repeat.

    `version` is the champion that was judged.
    `incident` is the key of the incident that is open after this decision. `opens` and
    `resolves` say that this decision opened or resolved one. `alarms` and `calm` count the
    decisions in a row that did or did not see an alarm: hysteresis without state elsewhere.
    `evidence` is what fresh readings have added up to, and `found` names the streams of it that
    are sure enough to page.
    `worst` are the segments that the judged metric is worst in, worst first, while the model
    decays: a hint where to look, on which nothing rests.
    """

    key: str
    model: ModelId
    at: datetime
    state: State
    reason: str
    version: int
    window: Window
    verdicts: tuple[Verdict, ...]
    retrain: bool = False
    blocked: str | None = None
    incident: str | None = None
    opens: bool = False
    resolves: str | None = None
    since: datetime | None = None
    alarms: int = 0
    calm: int = 0
    worst: tuple[Reading, ...] = ()
    evidence: tuple[Stream, ...] = ()
    found: tuple[str, ...] = ()


class Origin(StrEnum):
    """Where a change comes from: data that are wrong, other inputs, or another relation."""

    DATA = "data"
    INPUTS = "inputs"
    RELATION = "relation"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """A feature, or a segment as in "carrier=AA", and the share of a change that it carries."""

    name: str
    share: float
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a model decays.

    `inputs` and `relation` are the parts of the metric's worsening, in the metric's unit, that
    come of other inputs and of another relation of label to inputs; None where that is unknown.
    `carriers` come largest first. `shared` are other models that have the same at this time.
    """

    origin: Origin
    said: str
    inputs: float | None = None
    relation: float | None = None
    carriers: tuple[Carrier, ...] = ()
    shared: tuple[ModelId, ...] = ()


# -- page -----------------------------------------------------------------------------------


class Severity(StrEnum):
    """How urgent it is that somebody looks, least first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Stage(StrEnum):
    """How far an incident has come; each is told once.

    From ACTED on they are about the telling itself: what people did, and who was called again.
    EXPLAINS is that a smaller incident is told as part of this one; AGAIN that its message was
    deleted, or refused where it belongs, and stands here now.
    """

    OPENED = "opened"
    WORSENED = "worsened"
    BLOCKED = "blocked"
    RETRAINING = "retraining"
    PROMOTED = "promoted"
    REFUSED = "refused"
    FAILED = "failed"
    HELD = "held"
    STUCK = "stuck"
    ROLLED_BACK = "rolled-back"
    RECOVERED = "recovered"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    DOUBTED = "doubted"
    ACTED = "acted"
    REMINDED = "reminded"
    ESCALATED = "escalated"
    EXPIRED = "expired"
    RELAYED = "relayed"
    EXPLAINS = "explains"
    AGAIN = "again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One line of proof: what was measured, against which limit, on how many rows.

    `n` is None for what is not measured on rows.
    """

    what: str
    value: str
    limit: str
    n: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A place to look further."""

    text: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A metric over time, to be drawn: `points` oldest first, in `unit`, against its `limit`."""

    title: str
    points: tuple[tuple[datetime, float], ...]
    unit: str = ""
    limit: float | None = None
    baseline: float | None = None
    """What it was when the model was new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell an owner once: `incident` is the model's, `key` identifies.

    `owner` is a name of `owners.toml`. Incidents of one `group`, if it is not empty, and of one
    owner have one cause and are told as one.
    """

    key: str
    incident: str
    model: ModelId
    stage: Stage
    at: datetime
    since: datetime
    channel: str
    mention: str
    headline: str
    doing: str
    evidence: tuple[Evidence, ...] = ()
    links: tuple[Link, ...] = ()
    owner: str = ""
    severity: Severity = Severity.WARNING
    origin: Origin = Origin.UNKNOWN
    group: str = ""
    chart: Chart | None = None
    version: int | None = None
    """The challenger that it is about."""
    until: datetime | None = None
    """It is over by itself then."""
    about: str = ""
    """What is at fault, where that has a name: a column, as in "x03"."""
    retrains: bool = False
    """The loop helps itself: it has a retraining begun for this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Where a message stands: Slack's channel id and the message's timestamp.

    `blind` says that it was posted although nobody could look whether it stood already.
    """

    channel: str
    ts: str
    blind: bool = False


class Act(StrEnum):
    """What a person may do about an incident, by a button or on the command line."""

    ACK = "ack"
    SILENCE = "silence"
    RESOLVE = "resolve"
    NO_PROBLEM = "not-a-problem"
    RETRAIN = "retrain"
    HOLD = "hold"
    RESUME = "resume"
    PROMOTE = "promote"
    ROLL_BACK = "rollback"


class Status(StrEnum):
    """How an incident stands with the people who are told of it.

    WAITING is not to be told yet: it gathers, or it is quiet hours. EXPLAINED is told as part of a
    larger one.
    """

    WAITING = "waiting"
    OPEN = "open"
    ACKED = "acked"
    SILENCED = "silenced"
    EXPLAINED = "explained"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model's part in an incident; `alert` is the model's own incident.

    `stage` is the newest that was noted, at `at`; `over` is when it had recovered. `version` is
    the challenger of an open rollout that it is about.
    """

    alert: str
    model: ModelId
    stage: Stage
    since: datetime
    at: datetime
    headline: str
    version: int | None = None
    over: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Everything that is known of an incident as a person should see it: one cause, one message.

    It is made of facts alone. `notices` come in the order in which they were noted, and `acts`
    likewise. `opened` is when it was noted first; `since` when what it is about began. `until` is
    when the acknowledgement or the silence ends, and `until_version` says that the silence ends
    with the next version. `level` counts the escalations so far. `explained_by` is a larger
    incident that this one is part of, and `explained_as` its headline. `told` is when its message
    was posted first. `asks` are what a person may do now.
    """

    id: str
    group: str
    owner: str
    severity: Severity
    origin: Origin
    status: Status
    opened: datetime
    since: datetime
    members: tuple[Member, ...]
    notices: tuple[Notice, ...]
    acts: tuple["Acted", ...] = ()
    who: str | None = None
    until: datetime | None = None
    until_version: bool = False
    level: int = 0
    explained_by: str | None = None
    explained_as: str = ""
    told: datetime | None = None
    resolved: datetime | None = None
    asks: tuple[Act, ...] = ()

    @property
    def models(self) -> tuple[ModelId, ...]:
        """Return its models, each once, in the order in which they joined."""
        return tuple(dict.fromkeys(member.model for member in self.members))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is added to an incident's thread at once: notices of one stage.

    `mention` is who is called to it, "" where nobody need look now; with `broadcast` it shows in
    the channel too.
    """

    key: str
    incident: str
    notices: tuple[Notice, ...]
    mention: str = ""
    broadcast: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A day of an owner's models, for them to read: sections of lines, each with its title."""

    key: str
    owner: str
    at: datetime
    headline: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to tell something, and whom to call to it; see `Owner` in `spec`."""

    channel: str
    mention: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Click:
    """Somebody wants `act` done about an incident; the same `key` again is the same click.

    `user` is Slack's id of who clicked, or on the command line None; `who` is how they are named.
    `model` is one of the incident's models where the act is about one. `silence` says until when:
    a duration as in "1h", "tomorrow", or "next-version".
    """

    key: str
    act: Act
    incident: str
    who: str
    user: str | None = None
    model: ModelId | None = None
    version: int | None = None
    why: str = ""
    silence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a click: `done`, or not; `said` is told to who clicked."""

    done: bool
    said: str


# -- retrain, gate, registry, deploy --------------------------------------------------------


class Memory(StrEnum):
    """Which rows a candidate is made of: the recent ones, all, or all with the older counting less.

    The window of its order says how far back they reach.
    """

    RECENT = "recent"
    ALL = "all"
    DECAYED = "decayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Make a candidate for this model of the rows of `window`; the newest are held out."""

    key: str
    model: ModelId
    at: datetime
    reason: str
    window: Window
    holdout_from: datetime
    seed: int
    incident: str | None = None
    memory: Memory = Memory.RECENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A named figure of a candidate on its held-out rows."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A trained and lowered model that is not yet gated.

    `folder` holds `model.onnx` (whose SHA-256 is `digest`), `pipeline.skops`,
    `reference.parquet` (training rows, sampled, with the candidate's predictions),
    `profile.parquet` (what is usual of all training rows, hour by hour of the week),
    `holdout.parquet` (id, event_time, label, candidate, champion, and the inputs as the struct
    `features`) and `card.json`.
    `metrics` are on the held-out rows: the baseline that decay is judged against.

    One that is not lowered answers as it was fitted, in the sidecar: `unlowered` says why, there is
    no `model.onnx`, and `digest` is that of `pipeline.skops`.

    One that is `found` was not trained: it answers already, where we do not serve. Of it there
    are the rows that it answered and no model file; `digest` is that of `reference.parquet`.
    """

    order: Order
    digest: str
    folder: str
    rows: int
    holdout_rows: int
    metrics: tuple[Metric, ...]
    parity: float
    fit_seconds: float
    lower_seconds: float
    found: bool = False
    unlowered: str = ""

    @property
    def artifact(self) -> str:
        """Path of the file whose SHA-256 is `digest`."""
        if self.found:
            return f"{self.folder}/{REFERENCE_FILE}"
        return f"{self.folder}/{PIPELINE_FILE if self.unlowered else MODEL_FILE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Champion against candidate on the same rows, paired.

    `gain` is the relative reduction of the mean loss, with its interval at `confidence`. What
    could not be computed is None.
    """

    passed: bool
    reason: str
    loss: str
    n: int
    champion_loss: float | None
    candidate_loss: float | None
    gain: float | None
    low: float | None
    high: float | None
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Who is champion: the truth that serving reads.

    `epoch` counts the changes of what answers: it grows by one at each move, and at each step of
    a rollout.
    """

    model: ModelId
    epoch: int
    version: int
    digest: str
    artifact: str

    @property
    def found(self) -> bool:
        """Whether it was found answering elsewhere: there is no model file of it."""
        return self.artifact.endswith(REFERENCE_FILE)

    @property
    def lowered(self) -> bool:
        """Whether a service answers with its file itself; if not, the sidecar answers for it."""
        return not self.artifact.endswith(PIPELINE_FILE)


class Phase(StrEnum):
    """How far a challenger has come on its way to be champion.

    WATCHED answers already, and is still compared with the champion before it; CHAMPION and
    ROLLED_BACK are the two ends. STUCK is a promotion that failed half way.
    """

    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTING = "promoting"
    WATCHED = "watched"
    CHAMPION = "champion"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A challenger of one model, as far as it has come, and why.

    `order` is the key of the order that it was made for, `champion` the version that answered
    when it began. `epoch` is of the one counter of the model: each step takes the next. `share`
    of the requests is answered by the challenger; `since` is when this phase, or this share,
    began. `held` is who holds it where it is.
    """

    model: ModelId
    order: str
    epoch: int
    version: int
    digest: str
    artifact: str
    champion: int
    phase: Phase
    reason: str
    begun: datetime
    since: datetime
    share: float = 0.0
    held: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has yet to come to one of its two ends."""
        return self.phase not in {Phase.CHAMPION, Phase.ROLLED_BACK}

    @property
    def shadows(self) -> bool:
        """Whether the challenger answers the champion's rows too, unseen."""
        return not self.share and self.phase in {Phase.SHADOW, Phase.PROMOTING, Phase.STUCK}

    @property
    def head(self) -> Head:
        """The challenger as serving loads it."""
        return Head(
            model=self.model,
            epoch=self.epoch,
            version=self.version,
            digest=self.digest,
            artifact=self.artifact,
        )

    @property
    def named(self) -> str:
        """Phase and share in words, as in "canary 25%"."""
        return f"canary {self.share:.0%}" if self.phase is Phase.CANARY else str(self.phase)


class Harm(StrEnum):
    """What a comparison of challenger and champion says, for certain or not yet."""

    NONE = "none"
    UNSURE = "unsure"
    CERTAIN = "certain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Challenger against champion in one respect, with its noise.

    `value` in [`low`, `high`] is what is held to `limit`; they are None where nothing can be
    said yet. `n` and `of` are what it rests on: the challenger's rows or requests, and the
    champion's. `said` is all of it in words.
    """

    what: str
    harm: Harm
    limit: float
    n: int
    of: int
    said: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


# -- facts: what the ledger keeps -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A window of one model was measured."""

    model: ModelId
    at: datetime
    window: Window
    rows: int
    labels: int
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision was taken."""

    model: ModelId
    at: datetime
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    """A notice was told."""

    model: ModelId
    at: datetime
    notice: Notice
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A notice is to be told, as part of `incident`; kept under the notice's key before it is."""

    model: ModelId
    at: datetime
    notice: Notice
    incident: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """A model's incident `alert` is told as part of `incident`; kept under `alert`."""

    model: ModelId
    at: datetime
    alert: str
    incident: str
    group: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """An incident's message stands in `channel`, and shows what `shown` is the digest of."""

    model: ModelId
    at: datetime
    incident: str
    channel: str
    receipt: Receipt
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """Somebody did something about an incident; kept under the click's key.

    `until` is when an acknowledgement or a silence ends; `version` is the challenger that a
    rollout's act was about, or the champion at which a silence until the next version began.
    `models` are those that are to be retrained, or whose page somebody found to be none. `key` is
    the click's.
    """

    model: ModelId
    at: datetime
    incident: str
    act: Act
    who: str
    user: str | None = None
    why: str = ""
    until: datetime | None = None
    until_version: bool = False
    version: int | None = None
    models: tuple[ModelId, ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """An incident could not be told in `channel` at first, at `wall` seconds since 1970.

    `away` says that the pager could not be reached at all. Kept once, under incident and channel.
    """

    model: ModelId
    at: datetime
    incident: str
    channel: str
    error: str
    away: bool
    wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """Slack was out of reach, so an incident was told another way; kept under incident and way."""

    model: ModelId
    at: datetime
    incident: str
    way: str
    to: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A retraining was begun."""

    model: ModelId
    at: datetime
    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a fit with one memory came to: its mean loss on the held-out rows, or the `problem`."""

    memory: Memory
    loss: float | None
    rows: int = 0
    fit_seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A candidate was made and registered as `version`.

    It was the best of those `tried`; empty where there was nothing to choose from.
    """

    model: ModelId
    at: datetime
    version: int
    candidate: Candidate
    tried: tuple[Tried, ...] = ()

    @property
    def fit_seconds(self) -> float:
        """What all fits took of which this is the best."""
        return sum(each.fit_seconds for each in self.tried) or self.candidate.fit_seconds


def version_key(model: ModelId, version: int) -> str:
    """Return the key that a `Trained` fact is kept under.

    >>> version_key(ModelId("eta-de"), 3)
    'eta-de#3'
    """
    return f"{model}#{version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """A candidate was let through or refused.

    `start` and `end` are the first and the last event of the labelled rows that it was compared
    with a champion on: they are used. None where no comparison was made.
    """

    model: ModelId
    at: datetime
    order_key: str
    version: int
    result: GateResult
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An order came to nothing; no champion changed."""

    model: ModelId
    at: datetime
    order_key: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The champion changed, and why."""

    model: ModelId
    at: datetime
    head: Head
    previous: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """A rollout went on, or back; `who` is the person that wanted it, None for the policy.

    It is kept under the key of a `Moved`, `model#epoch`: no two steps have one epoch.
    """

    model: ModelId
    at: datetime
    rollout: Rollout
    findings: tuple[Finding, ...] = ()
    who: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A pass over the fleet came to its end: the loop's heartbeat.

    `looked` counts the models that were due, `seconds` is wall time, and `problems` says what
    prevented a decision.
    """

    at: datetime
    looked: int
    seconds: float
    problems: tuple[str, ...] = ()
    model: ModelId = PLATFORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensed:
    """The loop looked at itself; kept when the level of one of the readings changed."""

    at: datetime
    readings: tuple[Reading, ...]
    model: ModelId = PLATFORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Disputed:
    """Evidently gave other numbers than those that a decision rests on; `said` has both."""

    model: ModelId
    at: datetime
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Features as they were served were made again: one reading for each family.

    Rows that were predicted up to `until`, the loop's time, have been compared.
    """

    at: datetime
    until: datetime
    readings: tuple[Reading, ...]
    model: ModelId = PLATFORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Why a model does worse, as found when the decision `decision` was taken."""

    model: ModelId
    at: datetime
    decision: str
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Rows of one model with events in [start, end) train nothing, for `reasons`, up to `until`.

    `rows` is how many there were. `who` is the person that wanted it, None for the checks.
    `continues` says that the partition before it is in quarantine for the same: it is told once.
    """

    model: ModelId
    at: datetime
    start: datetime
    end: datetime
    reasons: tuple[str, ...]
    until: datetime
    rows: int = 0
    who: str | None = None
    continues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Somebody found that rows in quarantine are right, and may train again."""

    model: ModelId
    at: datetime
    start: datetime
    end: datetime
    who: str
    why: str


Fact = (
    Measured
    | Decided
    | Paged
    | Ordered
    | Trained
    | Gated
    | Failed
    | Moved
    | Advanced
    | Passed
    | Sensed
    | Disputed
    | Compared
    | Explained
    | Quarantined
    | Released
    | Noted
    | Grouped
    | Posted
    | Acted
    | Unsent
    | Relayed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A claim on an outward act: whoever holds it acts; `outcome` is set once done.

    `retaken` says that an earlier holder's lease ran out, so that the act may already have
    happened: reconcile before acting again.
    """

    key: str
    mine: bool
    outcome: str | None = None
    retaken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHistory:
    """What judge and renew need of a model's past, newest last."""

    decisions: tuple[Decision, ...] = ()
    orders: tuple[Order, ...] = ()
    moves: tuple[Moved, ...] = ()
    champion: Trained | None = None
    head: Head | None = field(default=None)
