"""What is simulated: a family's shape, its models, their rows and their faults."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from driftloop.errors import BadRequest
from driftloop.records import ModelId, Task
from driftloop.simulate.faults import CATEGORICAL, EARLIEST, LATEST, NUMERIC, WHOLE, Fault
from driftloop.spec import MOST_CLASSES, NAME

DAY = timedelta(days=1)
SHORTEST, LONGEST = timedelta(days=4), timedelta(days=365)
"""Of the history: a quarter of it is held out, and retraining never reads further back."""

SHARED = ("defaults", "owners", "platform")
"""Monitor files that are of no family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model is given: numbers `x00`, `x01`..., and categories `c00`... of `levels` each.

    `nulls` is the share of null cells, in every column. A multiclass model predicts one of
    `classes` classes, which are as frequent as one another.

    Raises:
        BadRequest: there is no column, or a number is out of its range, or it is for scores.
    """

    task: Task = Task.REGRESSION
    numeric: int = 5
    categorical: int = 1
    levels: int = 8
    nulls: float = 0.0
    classes: int = 3

    def __post_init__(self) -> None:
        """Check every number."""
        _least("numeric", self.numeric, 0)
        _least("categorical", self.categorical, 0)
        _least("levels", self.levels, 2)
        _share("nulls", self.nulls)
        _least("classes", self.classes, 2)
        if self.classes > MOST_CLASSES:
            raise BadRequest(
                f"should be at most {MOST_CLASSES}, got {self.classes}", where="classes"
            )
        if self.task is Task.SCORE:
            raise BadRequest(
                "scores are served elsewhere, and what is simulated goes into driftloop's own log",
                where="task",
                hint=f"simulate {Task.REGRESSION}, {Task.BINARY} or {Task.MULTICLASS}",
            )
        if not self.numeric + self.categorical:
            raise BadRequest("a model needs at least one feature", where="numeric, categorical")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numeric columns."""
        return tuple(f"x{number:02}" for number in range(self.numeric))

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categorical columns."""
        return tuple(f"c{number:02}" for number in range(self.categorical))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes of a multiclass model; of any other there are none."""
        if self.task is not Task.MULTICLASS:
            return ()
        return tuple(f"class-{number}" for number in range(self.classes))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, numeric ones first."""
        return self.numbers + self.categories


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A family of `models` models (markets `m000`, `m001`...) in [start, end), and what was before.

    Each has `rows` rows a day (UTC). Those of the `history` before `start` were predicted by
    nobody; no fault falls into them. A label is known `label_delay` after its row happened, but
    for a share `unlabelled` of the rows, never.

    Raises:
        BadRequest: a value is out of its range, or a fault names a column, a market or a time
            that the plan has not.
    """

    start: datetime
    end: datetime
    models: int = 3
    shape: Shape = field(default_factory=Shape)
    rows: int = 400
    history: timedelta = timedelta(days=28)
    label_delay: timedelta = timedelta(0)
    unlabelled: float = 0.0
    seed: int = 1
    family: str = "simulated"
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Check every value, and each fault against the rest."""
        if not NAME.fullmatch(self.family) or self.family in SHARED:
            raise BadRequest(
                f"{self.family!r} should be lower case words joined by -, and none of"
                f" {', '.join(SHARED)}",
                where="family",
            )
        if self.start.utcoffset() is None or self.end.utcoffset() is None:
            raise BadRequest("start and end need a zone", where="start, end")
        if self.end <= self.start:
            raise BadRequest("it ends before it begins", where="start, end")
        _least("models", self.models, 1)
        _least("rows", self.rows, 1)
        _least("seed", self.seed, 0)
        _share("unlabelled", self.unlabelled)
        if not SHORTEST <= self.history <= LONGEST:
            raise BadRequest(f"should be {SHORTEST.days} to {LONGEST.days} days", where="history")
        if not timedelta(0) <= self.label_delay <= LONGEST:
            raise BadRequest(f"should be at most {LONGEST.days} days", where="label_delay")
        if not EARLIEST <= self.start.year <= LATEST:
            raise BadRequest(f"should be in {EARLIEST} to {LATEST}", where="start")
        for fault in self.faults:
            self._check(fault)

    @property
    def began(self) -> datetime:
        """When the history begins."""
        return self.start - self.history

    @property
    def markets(self) -> tuple[str, ...]:
        """The models' markets."""
        return tuple(f"m{number:03}" for number in range(self.models))

    @property
    def ids(self) -> tuple[ModelId, ...]:
        """The models, as the log calls them."""
        return tuple(ModelId(f"{self.family}-{market}") for market in self.markets)

    def faults_of(self, model: ModelId) -> Iterator[Fault]:
        """Yield the faults that `model` has, in the plan's order."""
        market = model.removeprefix(f"{self.family}-")
        for fault in self.faults:
            if not fault.markets or market in fault.markets:
                yield fault

    def _check(self, fault: Fault) -> None:
        if strange := sorted(set(fault.markets) - set(self.markets)):
            raise BadRequest(
                f"there is no market {', '.join(strange)}",
                where=str(fault),
                hint=f"there are {self.markets[0]} to {self.markets[-1]}",
            )
        if not self.start <= fault.at < self.end:
            raise BadRequest(
                "it begins outside the plan's time",
                where=str(fault),
                hint=f"that is {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC",
            )
        if fault.kind in WHOLE:
            return
        known = self.shape.columns
        if fault.kind in NUMERIC:
            known = self.shape.numbers
        elif fault.kind in CATEGORICAL:
            known = self.shape.categories
        if fault.column not in known:
            raise BadRequest(
                f"{fault.column!r} is no column that can have a {fault.kind}",
                where=str(fault),
                hint=f"there are {known[0]} to {known[-1]}" if known else "there is none",
            )


def _least(name: str, value: int, least: int) -> None:
    if value < least:
        raise BadRequest(f"should be at least {least}, got {value}", where=name)


def _share(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise BadRequest(f"should be a share from 0 to below 1, got {value:g}", where=name)
