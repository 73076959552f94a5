"""A fleet of 200 models with owners and routes, and what goes wrong with it in a month.

Who has to be told of each fault is said here, beside the fault: routing is not asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from tests.benchmarks._world import MONITORS

ORIGIN = datetime(2026, 3, 2, tzinfo=UTC)
"""A Monday, midnight: where the simulated time begins."""
HOUR = timedelta(hours=1)
SHARES = (("eta", 0.5), ("churn", 0.3), ("demand", 0.2))
"""Families, and which part of the models each has."""
COLUMNS = 80
"""Features of each family, besides the one that all look up in one source."""
ACK_WITHIN = timedelta(hours=4)
CHAINS = {"logistics": ("supply",), "nordics": ("supply",)}
"""Who is told next where nobody acknowledges."""
QUIET = {"growth": (22, 7)}
CHANNELS = ("logistics", "nordics", "growth", "supply", "dataeng", "weather", "platform")
OWNERS = "".join(
    f'[{name}]\nchannel = "#ml-{name}"\nmention = "@here"\n'
    + ('quiet = ["22:00-07:00"]\n' if name in QUIET else "")
    + ('members = ["U0LOCAL001"]\n' if name == "supply" else "")
    for name in CHANNELS
)
ROUTES = """
repeat = "1d"
[[routes]]
family = ["eta"]
cause = ["relation", "inputs", "unknown"]
ack_within = "4h"
escalate = ["supply"]
[[routes.routes]]
market = ["n*"]
owner = "nordics"
"""
SOURCES = """
[weather]
kind = "events"
time = "seen_at"
fields = { place = "categorical", temperature = "numeric" }
lateness = "15m"
owner = "weather"
"""
FAMILY = """
task = "regression"
target = "minutes"
unit = "min"
time = "asked_at"
owner = "{owner}"
{more}
markets = [{markets}]
[features]
place = {{ kind = "key", required = true }}
temperature = {{ kind = "numeric", from = "weather", key = "place", aggregate = "mean", \
of = "temperature", window = "30m", fallback = 0 }}
{features}
[decay]
metric = "mae"
warn = 0.15
alarm = 0.3
"""
MIXED = (
    *("decay", "data", "drift", "decay", "held", "data", "rolled-back", "quarantine"),
    *("decay", "platform", "data", "drift", "decay", "data", "rolled-back"),
)
"""Kinds of single faults, in turn."""
LASTS = {"upstream": (6, 10), "decay": (5, 40), "drift": (3, 30), "platform": (1, 3)}
"""Hours that a fault lasts, at least and at most; others 2 to 12."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that went wrong, and the truth about it: who is to be told.

    `nexts` come after the owner if nobody acknowledges. `column` is what is at fault, or of the
    platform the service. `within` says that a larger one is told at this time that explains it.
    """

    name: str
    kind: str
    models: tuple[str, ...]
    owner: str
    opens: datetime
    closes: datetime
    column: str
    nexts: tuple[str, ...] = ()
    within: bool = False

    def is_quiet(self) -> bool:
        """Say whether its owner sleeps when it opens, so that it is told later."""
        begin, end = QUIET.get(self.owner, (0, 0))
        return begin != end and (self.opens.hour >= begin or self.opens.hour < end)


@dataclass(frozen=True, slots=True)
class Month:
    """How much goes wrong, and for how long."""

    days: int
    models: int
    singles: int
    seed: int

    def markets(self) -> dict[str, tuple[str, ...]]:
        """Return the markets of each family; every tenth begins with n."""
        return {
            family: tuple(
                f"{'n' if number % 10 == 0 else 'm'}{number:03}"
                for number in range(round(self.models * share))
            )
            for family, share in SHARES
        }

    def faults(self) -> tuple[Fault, ...]:
        """Return what goes wrong, the first first: the same for the same seed."""
        random = Random(self.seed)
        markets = self.markets()
        everything = tuple(f"{family}-{m}" for family, known in markets.items() for m in known)
        half = self.days * 24 // 2
        upstream = self._fault(random, 0, "upstream", everything, ORIGIN + half * HOUR)
        singles: list[Fault] = []
        names = list(everything)
        random.shuffle(names)
        while len(singles) < self.singles:
            number = len(singles) + 1
            opens = ORIGIN + random.uniform(1.0, self.days * 24 - 3.0) * HOUR
            inside = number == self.singles and self.days > 7
            if inside:
                opens = upstream.opens + 2 * HOUR
            kind = "decay" if inside else MIXED[number % len(MIXED)]
            one = self._fault(random, number, kind, (names[number % len(names)],), opens)
            overlaps = one.opens < upstream.closes + HOUR and one.closes > upstream.opens - HOUR
            if inside:
                closes = upstream.opens + 3 * HOUR
                one = Fault(**{**_fields(one), "closes": closes, "within": True})
            elif overlaps and kind not in ("platform", "held", "rolled-back"):
                continue
            singles.append(one)
        return tuple(sorted((upstream, *singles), key=lambda each: each.opens))

    def _fault(
        self, random: Random, number: int, kind: str, models: Sequence[str], opens: datetime
    ) -> Fault:
        least, most = LASTS.get(kind, (2, 12))
        end = ORIGIN + (self.days * 24 - 1) * HOUR
        column = "temperature" if kind == "upstream" else f"x{number % COLUMNS:02}"
        owner = _right_owner(kind, models[0])
        return Fault(
            name=f"{number:02}-{kind}",
            kind=kind,
            models=("driftloop",) if kind == "platform" else tuple(models),
            owner=owner,
            opens=opens,
            closes=max(min(opens + random.uniform(least, most) * HOUR, end), opens + HOUR),
            column=f"service-{number}" if kind == "platform" else column,
            nexts=CHAINS.get(owner, ()),
        )


def _fields(fault: Fault) -> dict[str, object]:
    return {name: getattr(fault, name) for name in Fault.__dataclass_fields__}


def _right_owner(kind: str, model: str) -> str:
    """Return who has to be told, in the words of the fleet's people and not of its routes."""
    family, _, market = model.partition("-")
    of_family = owner_of_model(model)
    if kind == "upstream":
        return "weather"
    if kind == "platform":
        return "platform"
    if kind in ("data", "quarantine"):
        return "dataeng" if family == "eta" else of_family
    if family == "eta" and market.startswith("n") and kind in ("decay", "drift"):
        return "nordics"
    if family == "eta" and market.startswith("n") and kind in ("held", "rolled-back"):
        return "nordics"  # no cause is known of a rollout
    return of_family


def owner_of_model(model: str) -> str:
    """Return who owns a model, or driftloop itself, whatever its fault."""
    of = {"eta": "logistics", "churn": "growth", "demand": "supply", "driftloop": "platform"}
    return of[model.partition("-")[0]]


def write_monitors(folder: Path, month: Month) -> None:
    """Write the monitor files of the fleet."""
    folder.mkdir(parents=True)
    columns = "\n".join(f'x{n:02} = {{ kind = "numeric" }}' for n in range(COLUMNS))
    owners = {"eta": "logistics", "churn": "growth", "demand": "supply"}
    texts = MONITORS | {
        "owners": OWNERS,
        "platform": 'owner = "platform"\n',
        "routes": ROUTES,
        "sources": SOURCES,
    }
    for family, markets in month.markets().items():
        texts[family] = FAMILY.format(
            owner=owners[family],
            more='data_owner = "dataeng"' if family == "eta" else "",
            markets=", ".join(f'"{each}"' for each in markets),
            features=columns,
        )
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def times(faults: Sequence[Fault]) -> Iterator[tuple[datetime, Fault, str]]:
    """Yield when what is told of each fault: that it "opens", and that it "closes"."""
    for fault in faults:
        yield fault.opens, fault, "opens"
        yield fault.closes, fault, "closes"
