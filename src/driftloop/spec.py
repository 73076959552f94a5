"""What the monitor files may say: strict, and every fault reported at once.

`owners.toml` names people, `platform.toml` who is told when driftloop itself is in trouble,
`defaults.toml` gives what every family inherits, and each other `<family>.toml` declares a
family: its features, its markets and its policy.
"""

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from driftloop.errors import BadRequest, DriftloopError, SpecError, UnknownModel
from driftloop.records import ModelId, Task

LOSSES = ("mae", "rmse", "log_loss")
"""Decay metrics that are better when lower; the others are better when higher."""
METRICS: Mapping[Task, tuple[str, ...]] = {
    Task.REGRESSION: ("mae", "rmse", "r2"),
    Task.BINARY: ("roc_auc", "f1", "log_loss", "accuracy"),
}
LONGEST = timedelta(days=36_500)
"""What is longer than a century is a mistake, and reaches back to before there were calendars."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
COLUMN = re.compile(r"[a-z][a-z0-9_]*")
QUERY = re.compile(r"\s*(select|from|with)\s", re.IGNORECASE)
"""How a source begins that is a DuckDB query and no file."""
ROW_COLUMNS = ("id", "model", "version", "predicted_at", "arrived_at", "prediction")
LABEL_COLUMNS = ("id", "model", "label", "observed_at")
TAKES = "a recipe takes (family, *, seed, **parameters), the last being retrain.parameters"
RESERVED = frozenset(
    {"id", "rows", "model", "version", "epoch", "event_time", "predicted_at", "arrived_at"}
    | {"prediction", "label", "observed_at", "value"}
)


def load_fleet(folder: Path) -> "Fleet":
    """Return the fleet that the TOML files of `folder` declare.

    Raises:
        SpecError: with every fault of every file: file, key, hint.
    """
    reader = _Reader(folder)
    fleet = reader.fleet()
    if reader.faults or fleet is None:
        raise SpecError(tuple(reader.faults))
    return fleet


def duration(text: object) -> object:
    """Return `text` as a timedelta: a number and one of s, m, h, d, as in "90s" or "14d".

    >>> duration("14d")
    datetime.timedelta(days=14)
    """
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text) if isinstance(text, str) else None
    if match is None:
        msg = 'should be a duration such as "90s", "10m", "6h" or "14d"'
        raise ValueError(msg)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    try:
        length = timedelta(**{unit: float(match[1])})
    except OverflowError:
        length = timedelta.max
    if length > LONGEST:
        msg = f"should be at most {LONGEST.days} days"
        raise ValueError(msg)
    return length


def is_database(source: str) -> bool:
    """Return whether a source names a DuckDB database, and neither Parquet files nor a query.

    >>> is_database("serving.duckdb"), is_database("scored/*.parquet"), is_database("FROM 'a.csv'")
    (True, False, False)
    """
    return QUERY.match(source) is None and not source.lower().endswith(".parquet")


def load_recipe(name: str) -> Any:  # noqa: ANN401 - a user's callable; its door checks what it returns
    """Return the callable that `module:function` names.

    Raises:
        DriftloopError: the module does not import, or has no such callable.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (Exception, SystemExit) as error:  # a module of recipes is anybody's code
        raise DriftloopError(
            f"recipe {name!r} cannot be loaded: {type(error).__name__}: {error}",
            hint='write it as "package.module:function", importable where driftloop runs',
        ) from error
    if not callable(found):
        raise DriftloopError(f"recipe {name!r} is not callable", hint=TAKES)
    return found


def check_call(recipe: Any, parameters: Mapping[str, object]) -> None:  # noqa: ANN401 - see `load_recipe`
    """Check that `recipe` can be called as recipes are, with `parameters`; it is not called.

    Raises:
        DriftloopError: it cannot.
    """
    try:
        taken = inspect.signature(recipe)
    except (TypeError, ValueError):
        return  # some of what is written in C does not tell: the first fit will
    try:
        taken.bind(None, seed=0, **parameters)
    except TypeError as error:
        raise DriftloopError(
            f"the recipe takes {taken}, and cannot be called as recipes are: {error}", hint=TAKES
        ) from error


# -- the schema -----------------------------------------------------------------------------


def _not_nothing(length: timedelta) -> timedelta:
    if not length:
        msg = "must be longer than nothing"
        raise ValueError(msg)
    return length


Pause = Annotated[timedelta, BeforeValidator(duration)]
Duration = Annotated[Pause, AfterValidator(_not_nothing)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Owner(_Table):
    """Who is told: a Slack channel, and whom to mention in it ("@here", "<@U123>" or "")."""

    channel: Annotated[str, Field(pattern=r"^(#[a-z0-9_-]{1,79}|[CG][A-Z0-9]{6,})$")]
    mention: str = ""


class Platform(_Table):
    """Who is told when driftloop itself is in trouble, and from when on it is."""

    owner: str
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


class Feature(_Table):
    """One column a model is given.

    `range` bounds plausible values (inclusive); `required` refuses a request without it.
    """

    kind: Literal["numeric", "categorical"]
    range: tuple[float, float] | None = Field(default=None, strict=False)
    required: bool = False

    @model_validator(mode="after")
    def _range_fits(self) -> Self:
        if self.range is not None and self.kind == "categorical":
            msg = "a categorical feature has no range"
            raise ValueError(msg)
        if self.range is not None and not self.range[0] < self.range[1]:
            msg = "range must be [low, high] with low below high"
            raise ValueError(msg)
        return self


class WindowPolicy(_Table):
    """Which rows are looked at, how often, and how few are too few."""

    span: Duration
    cadence: Duration
    min_rows: Annotated[int, Field(ge=1)]
    min_labels: Annotated[int, Field(ge=1)]
    label_expiry: Pause
    block: Duration = timedelta(days=1)
    """Rows this near in time share weather, outages and the like: certainty counts blocks."""


class _Limits(_Table):
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


class DecayPolicy(_Limits):
    """Limits on how much worse than its baseline a metric is, as a share of the baseline."""

    metric: str


class QualityPolicy(_Table):
    """Limits on faults in the data, as shares of the window's rows."""

    nulls: Share
    """More nulls than the reference has, by this share, is an alarm."""
    out_of_range: Share
    unseen: Share
    duplicates: Share
    stale: Duration
    """The newest row may be this old."""


class Hysteresis(_Table):
    """How many decisions in a row it takes to open and to resolve an incident."""

    open_after: Annotated[int, Field(ge=1)]
    resolve_after: Annotated[int, Field(ge=1)]


class RetrainPolicy(_Table):
    """When and how a candidate is made."""

    triggers: tuple[Literal["decay", "drift", "age"], ...] = Field(strict=False)
    cooldown: Pause
    span: Duration
    max_age: Duration
    """With the trigger "age": retrain when the champion was trained this long ago."""
    recipe: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    parameters: dict[str, float | int | str | bool] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    min_rows: Annotated[int, Field(ge=2)]
    time_limit: Duration
    memory_gib: Annotated[float, Field(ge=0.5, le=4096.0)]
    """Private memory a fit may have; the libraries alone take 0.35 GiB."""
    parity: Positive
    """Largest allowed difference of the lowered model, relative to max(1, |answer|)."""


class GatePolicy(_Table):
    """What a candidate must show before it answers."""

    holdout: Duration
    min_rows: Annotated[int, Field(ge=2)]
    margin: Annotated[float, Field(ge=-1.0, le=1.0)]
    """The lower bound of the relative gain must be above this."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]


class RetentionPolicy(_Table):
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


class _Source(_Table):
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


class HandoverPolicy(_Table):
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


class Family(_Table):
    """The models that share a feature schema, a recipe and a monitor file."""

    name: str
    task: Task = Field(strict=False)
    target: Annotated[str, Field(min_length=1)]
    unit: str = ""
    time: str
    owner: str
    markets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    features: Annotated[dict[str, Feature], Field(min_length=1)]
    window: WindowPolicy
    drift: DriftPolicy
    decay: DecayPolicy
    quality: QualityPolicy
    hysteresis: Hysteresis
    retrain: RetrainPolicy
    gate: GatePolicy
    retention: RetentionPolicy = RetentionPolicy()
    log: LogSource | None = None
    """A log of somebody else's: these models are served elsewhere, and never by driftloop."""
    handover: HandoverPolicy | None = None

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


NOBODY = Platform(owner="")


@dataclass(frozen=True, slots=True)
class Fleet:
    """All families and the people who own them."""

    families: tuple[Family, ...]
    owners: Mapping[str, Owner]
    platform: Platform = NOBODY
    folder: Path = Path()
    """Where the monitor files are."""

    @property
    def served(self) -> "Fleet":
        """The fleet without the families that are served elsewhere."""
        return replace(self, families=tuple(f for f in self.families if f.log is None))

    @property
    def models(self) -> tuple[ModelId, ...]:
        """Every model of every family."""
        return tuple(model for family in self.families for model in family.models)

    def family(self, model: str) -> Family:
        """Return the family of `model`.

        Raises:
            UnknownModel: no monitor declares it.
        """
        for family in self.families:
            if model in family.models:
                return family
        raise UnknownModel(
            f"no monitor declares the model {model!r}",
            hint="`driftloop check` lists the fleet",
        )

    def family_named(self, name: str) -> Family:
        """Return the family called `name`.

        Raises:
            UnknownModel: there is none.
        """
        for family in self.families:
            if family.name == name:
                return family
        known = ", ".join(family.name for family in self.families)
        raise UnknownModel(f"no monitor declares the family {name!r}", hint=f"known: {known}")

    def owner(self, model: str) -> Owner:
        """Return the owner of `model`; see `family` for errors."""
        return self.owners[self.family(model).owner]

    def only(self, models: tuple[ModelId, ...]) -> "Fleet":
        """Return the fleet cut down to `models`; families left without any are dropped.

        Raises:
            UnknownModel: one of them is not in the fleet.
        """
        for model in models:
            self.family(model)
        cut = tuple(
            family.model_copy(update={"markets": markets})
            for family in self.families
            if (
                markets := tuple(
                    market
                    for market, model in zip(family.markets, family.models, strict=True)
                    if model in models
                )
            )
        )
        return replace(self, families=cut)


# -- reading --------------------------------------------------------------------------------


class _Reader:
    """Reads a folder of monitors and gathers every fault on the way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[DriftloopError] = []
        self._owner_names: frozenset[str] = frozenset()

    def fleet(self) -> Fleet | None:
        if not self.folder.is_dir():
            self._fault(str(self.folder), "there is no such folder", hint="give --monitors")
            return None
        owners = self._owners()
        platform = self._platform()
        defaults = self._toml("defaults.toml", needed=False) or {}
        for key in sorted(defaults.keys() & {"name", "markets", "features", "target", "task"}):
            self._fault("defaults.toml", "belongs in a family's own file", key=key)
        names = {"owners.toml", "platform.toml", "defaults.toml"}
        files = sorted(path.name for path in self.folder.glob("*.toml") if path.name not in names)
        if not files:
            self._fault(str(self.folder), "no family is declared", hint="add <family>.toml")
        families = tuple(f for name in files if (f := self._family(name, defaults)))
        taken: dict[ModelId, str] = {}
        for family in families:
            for model in family.models:
                if model in taken:
                    self._fault(
                        f"{family.name}.toml", f"{model!r} is also a model of {taken[model]}.toml"
                    )
                taken[model] = family.name
        return Fleet(
            families=families, owners=owners, platform=platform, folder=self.folder.absolute()
        )

    def _owners(self) -> dict[str, Owner]:
        raw = self._toml("owners.toml", needed=True) or {}
        owners: dict[str, Owner] = {}
        for name, value in raw.items():
            owner = self._parse(Owner, value, "owners.toml", prefix=f"{name}.")
            if isinstance(owner, Owner):
                owners[name] = owner
        # An owner with a fault of its own is still one that families may name.
        self._owner_names = frozenset(raw)
        return owners

    def _platform(self) -> Platform:
        file = "platform.toml"
        raw = self._toml(file, needed=True)
        platform = None if raw is None else self._parse(Platform, raw, file)
        if not isinstance(platform, Platform):
            return Platform(owner="")
        if platform.owner not in self._owner_names:
            known = ", ".join(sorted(self._owner_names)) or "nobody"
            self._fault(
                file,
                f"{platform.owner!r} is not in owners.toml",
                key="owner",
                hint=f"known: {known}",
            )
        return platform

    def _family(self, file: str, defaults: Mapping[str, Any]) -> Family | None:
        raw = self._toml(file, needed=True)
        if raw is None:
            return None
        name = file.removesuffix(".toml")
        if not NAME.fullmatch(name):
            self._fault(file, "a family's file is lower case words joined by -")
        if "name" in raw:
            self._fault(file, "the file's name is the family's name", key="name", hint="remove it")
        whole = {**_merged(defaults, raw), "name": name}
        family = self._parse(Family, whole, file)
        # Told even where the schema has faults already: all of them at once.
        for fault in _contradictions(whole, owners=self._owner_names):
            self._fault(file, fault.what, key=fault.where, hint=fault.hint)
        return family if isinstance(family, Family) else None

    def _toml(self, name: str, *, needed: bool) -> dict[str, Any] | None:
        path = self.folder / name
        if not path.exists():
            if needed:
                self._fault(name, "the file is missing", hint=f"expected in {self.folder}")
            return None
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self._fault(name, f"not valid TOML: {error}")
            return None
        except OSError as error:
            self._fault(name, f"cannot be read: {error.strerror}")
            return None

    def _parse(
        self, kind: type[BaseModel], value: object, file: str, *, prefix: str = ""
    ) -> BaseModel | None:
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            for fault in error.errors():
                key = prefix + ".".join(str(part) for part in fault["loc"])
                what, hint = _worded(fault, kind)
                for line in what.splitlines():
                    self._fault(file, line, key=key.removesuffix("."), hint=hint)
            return None

    def _fault(self, file: str, what: str, *, key: str = "", hint: str = "") -> None:
        where = f"{file}: {key}" if key else file
        self.faults.append(DriftloopError(what, where=where, hint=hint))


def _contradictions(
    whole: Mapping[str, Any], *, owners: frozenset[str]
) -> Iterator[DriftloopError]:
    """Yield what each value alone does not show; values of the wrong type are the schema's."""
    task, metric = whole.get("task"), _at(whole, "decay", "metric")
    known_to = METRICS.get(Task(task), ()) if isinstance(task, str) and task in tuple(Task) else ()
    if known_to and isinstance(metric, str) and metric not in known_to:
        known = ", ".join(known_to)
        yield DriftloopError(
            f"{metric!r} is not a metric of {task}", where="decay.metric", hint=f"known: {known}"
        )
    holdout, span = (_length(whole, *k) for k in (("gate", "holdout"), ("retrain", "span")))
    if holdout is not None and span is not None and holdout >= span:
        yield DriftloopError(
            "must be shorter than retrain.span, which it is taken from", where="gate.holdout"
        )
    kept = _length(whole, "retention", "log")
    for table in ("retrain", "window"):
        needed = _length(whole, table, "span")
        if kept is not None and needed is not None and kept < needed:
            yield DriftloopError(
                f"must not be shorter than {table}.span, which is read from it",
                where="retention.log",
            )
    owner = whole.get("owner")
    if isinstance(owner, str) and owner not in owners:
        known = ", ".join(sorted(owners)) or "none"
        yield DriftloopError(
            f"{owner!r} is not in owners.toml", where="owner", hint=f"known: {known}"
        )
    recipe, parameters = _at(whole, "retrain", "recipe"), _at(whole, "retrain", "parameters")
    if isinstance(recipe, str):
        try:
            check_call(load_recipe(recipe), parameters if isinstance(parameters, dict) else {})
        except DriftloopError as error:
            yield DriftloopError(error.what, where="retrain.recipe", hint=error.hint)
    if whole.get("target") in _names(whole):
        yield DriftloopError("is also a feature: the outcome would be given away", where="target")
    yield from _bad_names(whole)
    yield from _bad_log(whole)


def _bad_names(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    names, time = _names(whole), whole.get("time")
    for name in (*names, *((time,) if isinstance(time, str) else ())):
        if name in RESERVED or not COLUMN.fullmatch(name):
            yield DriftloopError(
                "not a usable column name",
                where="time" if name == time else f"features.{name}",
                hint=f"lower case letters, digits and _, but none of {', '.join(sorted(RESERVED))}",
            )
    if time in names:
        yield DriftloopError(f"{time!r} is also a feature", where="time")
    given = whole.get("markets")
    markets = [m for m in given if isinstance(m, str)] if isinstance(given, list) else []
    if len(set(markets)) != len(markets):
        yield DriftloopError("one stands twice", where="markets")
    for market in markets:
        if not NAME.fullmatch(market):
            yield DriftloopError(
                f"{market!r} should be lower case words joined by -", where="markets"
            )


def _bad_log(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    log, handover = whole.get("log"), whole.get("handover")
    if log is None:
        if handover is not None:
            yield DriftloopError(
                "only what is served elsewhere is handed over",
                where="handover",
                hint="give [log] source, or leave [handover] out",
            )
        return
    if _at(whole, "retrain", "triggers") and handover is None:
        yield DriftloopError(
            "what retraining makes must be handed over to who serves it",
            where="handover",
            hint="give command or url, or say triggers = [] in [retrain] to watch only",
        )
    if not isinstance(log, dict):
        return
    labels = log.get("labels")
    outcomes = () if isinstance(labels, dict) else LABEL_COLUMNS
    in_rows = (*ROW_COLUMNS, *outcomes, whole.get("time"), *_names(whole))
    yield from _bad_source(log, log.get("source"), "log", in_rows)
    if isinstance(labels, dict):
        yield from _bad_source(
            labels, labels.get("source", log.get("source")), "log.labels", LABEL_COLUMNS
        )


def _bad_source(
    table: Mapping[str, Any], source: object, where: str, known: Sequence[object]
) -> Iterator[DriftloopError]:
    if isinstance(source, str) and source:
        named = table.get("table") is not None
        if is_database(source) and not named:
            yield DriftloopError(
                "a database has tables and views: say which",
                where=f"{where}.table",
                hint='as in table = "main.scored"',
            )
        elif named and not is_database(source):
            yield DriftloopError(
                "only a database has tables, and this source is a file or a query",
                where=f"{where}.table",
            )
    columns = table.get("columns")
    for name in columns if isinstance(columns, dict) else ():
        if name not in known:
            yield DriftloopError(
                "is no column of ours",
                where=f"{where}.columns.{name}",
                hint=f"known: {', '.join(dict.fromkeys(str(each) for each in known))}",
            )


def _names(whole: Mapping[str, Any]) -> tuple[str, ...]:
    features = whole.get("features")
    return tuple(features) if isinstance(features, dict) else ()


def _at(whole: Mapping[str, Any], table: str, key: str) -> object:
    inner = whole.get(table)
    return inner.get(key) if isinstance(inner, dict) else None


def _length(whole: Mapping[str, Any], table: str, key: str) -> timedelta | None:
    try:
        found = duration(_at(whole, table, key))
    except ValueError:
        return None
    return found if isinstance(found, timedelta) else None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], over[key])
        for key in base.keys() & over.keys()
        if isinstance(base[key], dict) and isinstance(over[key], dict)
    }
    return {**base, **over, **both}


def _worded(fault: Any, kind: type[BaseModel]) -> tuple[str, str]:  # noqa: ANN401 - pydantic's own dict
    if fault["type"] == "extra_forbidden":
        return "unknown key", _nearest(fault["loc"], kind)
    if fault["type"] == "missing":
        return "missing", "give it here or in defaults.toml" if kind is Family else "give it here"
    given = fault["input"]
    shown = "" if isinstance(given, dict) else f", got {given!r}"
    return f"{str(fault['msg']).removeprefix('Value error, ')}{shown}", ""


def _nearest(loc: tuple[Any, ...], kind: type[BaseModel]) -> str:
    table: Any = kind
    for part in loc[:-1]:
        field = getattr(table, "model_fields", {}).get(part)
        table = field.annotation if field is not None else Feature
    known = getattr(table, "model_fields", {})
    return f"known: {', '.join(n for n in known if n != 'name')}" if known else ""
