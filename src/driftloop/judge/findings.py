"""What fresh readings add up to for one model: what is found changed, and what is back. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from driftloop.judge.evidence import BETS, CERTAIN, Floats, errors, grown, kept, named
from driftloop.records import Decision, Kind, Level, Reading, Stream, Verdict
from driftloop.spec import Family

HARM, DATA, DRIFT = "harm", "data", "drift"
GROUPS: Mapping[str, str] = {
    "loss": HARM,
    "expected": HARM,
    "nulls": DATA,
    "shift": DRIFT,
    "spread": DRIFT,
    "share": DRIFT,
}
"""What each metric of fresh readings is evidence of."""
TWO_SIDED = ("shift", "spread")
"""Metrics in which less is a change too."""
SHARES: Mapping[str, float] = {HARM: 4.0, DRIFT: 3.0, DATA: 1.0}
"""How a model's weight is split over what may page, read or not: what is not read spends nothing.

Harm is what an owner must hear of, and has one or two streams; drift has two or more a column. A
tenth of the weight costs a stream log(10) = 2.3 of the 12 to 16 that a page takes as a logarithm:
half a look at 2 standard errors, so that the number of columns hardly matters.
"""
PARTS: Mapping[str, float] = {"loss": 4.0, "expected": 1.0, "shift": 2.0, "share": 2.0}
"""How a group's is split over its streams; 1 for the others. Labels are surer than guesses."""
PREDICTION = 4.0
"""So many times a feature's is the prediction's: it moves with all that matters to the model."""
BACK = "back:"
"""Begins the name of the evidence that what was found is over."""
RELAPSE = 1e-3
"""What is still changed is taken for over once in so many looks, at most."""

_B = len(BETS)
_HOEFFDING = 0.5


@dataclass(frozen=True, slots=True)
class Found:
    """What is found changed in a model, by all that was read since its champion answers.

    `names` are the streams that are found and not back yet, `verdicts` their newest readings,
    judged. `news` says that some were not found before, `over` that the last of them is back.
    """

    evidence: tuple[Stream, ...] = ()
    names: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    news: bool = False
    over: bool = False

    def of(self, group: str) -> tuple[str, ...]:
        """Return the streams that are evidence of `group`."""
        return tuple(name for name in self.names if group_of(name) == group)

    def why(self, group: str) -> list[str]:
        """Return in words what was found of `group`."""
        said = {
            stream_name(v.reading): f"{v.reading.column}: {v.reason}"
            if v.reading.column
            else v.reason
            for v in self.verdicts
        }
        return [said.get(name, f"{name} had changed when last seen") for name in self.of(group)]


def found(
    *,
    family: Family,
    readings: Sequence[Reading],
    before: Decision | None,
    version: int,
    weight: float,
) -> Found:
    """Return what fresh readings have added up to, this look's included.

    Evidence is of one champion: what was found of another is forgotten with it.

    Args:
        family: says how large a change matters.
        readings: of this look; those that are not `Kind.FRESH` are passed over.
        before: the model's last decision, which holds the evidence so far.
        version: the champion that is judged.
        weight: false pages that this look may add to what was expected of the model.
    """
    last = before if before is not None and before.version == version else None
    masses = {stream.name: stream.mass for stream in last.evidence} if last is not None else {}
    standing = last.found if last is not None else ()
    # The longest loop of all: it calls nothing.
    fresh = {
        f"{each.metric}:{each.column}" if each.column else each.metric: each
        for each in readings
        if each.kind is Kind.FRESH and each.segment is None and each.metric in GROUPS
    }
    if not fresh:
        return Found(last.evidence if last is not None else (), standing)
    look = _Look.of(family, fresh, weight)
    now, left = _searched(look, masses, standing)
    back, waiting = _returned(look, masses, standing)
    names = (*(name for name in standing if name not in back), *now)
    unseen = [Stream(name=name, mass=masses[name]) for name in masses if not look.has(name)]
    return Found(
        evidence=(*left, *waiting, *unseen),
        names=names,
        verdicts=tuple(
            _verdict(fresh[name], look.floors[fresh[name].metric])
            for name in names
            if name in fresh and fresh[name].value is not None
        ),
        news=bool(now),
        over=bool(standing) and not names,
    )


def is_fresh(reading: Reading) -> bool:
    """Say whether evidence is made of a reading."""
    return reading.kind is Kind.FRESH and reading.segment is None and reading.metric in GROUPS


def stream_name(reading: Reading) -> str:
    """Return the name of the stream that a fresh reading belongs to."""
    return f"{reading.metric}:{reading.column}" if reading.column else reading.metric


def group_of(name: str) -> str:
    """Return what the stream called `name` is evidence of."""
    return GROUPS[name.removeprefix(BACK).partition(":")[0]]


def share_of(group: str, page_on: Collection[str]) -> float:
    """Return the part of a model's weight that goes to `group`; those that may page share it all.

    >>> share_of("harm", ("harm", "drift", "data")), share_of("data", ("harm",))
    (0.5, 0.125)
    """
    among = page_on if group in page_on else SHARES
    return SHARES[group] / sum(SHARES[each] for each in among)


def harmed(decision: Decision) -> bool:
    """Say whether it is found, and not back yet, that the model predicts worse."""
    return any(group_of(name) == HARM for name in decision.found)


def begun_anew(found: Found) -> tuple[Stream, ...]:
    """Return the evidence after a page: that of changes begins anew."""
    return tuple(stream for stream in found.evidence if stream.name.startswith(BACK))


@dataclass(frozen=True, slots=True)
class Layout:
    """What follows from the names of the streams alone."""

    places: Mapping[str, int]
    """Where each stream is, by its name."""
    metrics: tuple[str, ...]
    kinds: NDArray[np.intp]
    """Which of `GROUPS` each metric is."""
    shares: Floats
    """Of a model's weight, for each direction; shape (streams, 1)."""
    two: NDArray[np.bool_]
    counts: NDArray[np.bool_]


@lru_cache(maxsize=4096)
def layout_of(names: tuple[str, ...], page_on: frozenset[str]) -> Layout:
    """Return how the weight is split: what may not page has a part too, for the state alone."""
    metrics = tuple(name.partition(":")[0] for name in names)
    parts = np.array([_part(name, metric) for name, metric in zip(names, metrics, strict=True)])
    groups = np.array([GROUPS[metric] for metric in metrics])
    shares = np.zeros(len(names))
    for group in set(groups.tolist()):
        mine = groups == group
        shares[mine] = share_of(group, page_on) * parts[mine] / parts[mine].sum()
    two = np.array([metric in TWO_SIDED for metric in metrics])
    known = tuple(GROUPS)
    return Layout(
        places={name: place for place, name in enumerate(names)},
        metrics=metrics,
        kinds=np.array([known.index(metric) for metric in metrics]),
        shares=np.where(two, shares / 2.0, shares)[:, None],
        two=two,
        counts=np.array([metric == "nulls" for metric in metrics]),
    )


@dataclass(frozen=True, slots=True)
class Sides:
    """Both directions of readings along the last axis, up and down."""

    z: Floats
    """How far beyond half the floor, in errors; NaN where nothing was read, or less is well."""
    reached: NDArray[np.bool_]
    """Where a reading is at its floor or beyond."""


def sides_of(layout: Layout, value: Floats, error: Floats, *, floor: Floats, n: Floats) -> Sides:
    """Return what readings say in each direction.

    Args:
        layout: of the streams.
        value: estimates of the change, shape (..., streams); NaN where there is none.
        error: standard errors as `errors` has them, likewise.
        floor: the changes that matter, shape (streams,).
        n: rows, shape (..., streams) or less.
    """
    # The error of a share is not what it usually is where there are far more of them.
    error = np.where(layout.counts, np.maximum(error, _HOEFFDING / np.sqrt(n)), error)
    change = np.empty((*value.shape, 2))
    change[..., 0] = value
    change[..., 1] = np.where(layout.two, -value, np.nan)
    limit = floor[:, None]
    return Sides(z=(change - CERTAIN * limit) / error[..., None], reached=change >= limit)


# -- one look ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """Fresh readings as arrays: one row for each stream, by `names`."""

    names: tuple[str, ...]
    layout: Layout
    floors: Mapping[str, float]
    weights: Floats
    """False pages for each direction; shape (streams, 1)."""
    sides: Sides
    n: Floats

    @staticmethod
    def of(family: Family, fresh: Mapping[str, Reading], weight: float) -> "_Look":
        names = tuple(fresh)
        layout = layout_of(names, frozenset(family.budget.page_on))
        numbers = np.array(
            [(each.value, each.low, each.high, each.n) for each in fresh.values()],
            dtype=np.float64,
        ).T
        n = np.maximum(numbers[3], 1.0)
        floors = _floors(family)
        floor = np.array([floors[metric] for metric in GROUPS])[layout.kinds]
        error = errors(numbers[1], numbers[2])
        return _Look(
            names=names,
            layout=layout,
            floors=floors,
            weights=weight * layout.shares,
            sides=sides_of(layout, numbers[0], error, floor=floor, n=n),
            n=n[:, None],
        )

    def has(self, name: str) -> bool:
        return name.removeprefix(BACK) in self.layout.places


def _searched(
    look: _Look, known: Mapping[str, tuple[float, ...]], standing: Collection[str]
) -> tuple[tuple[str, ...], list[Stream]]:
    """Return the streams that are found changed now, and what is left of the evidence."""
    z = look.sides.z
    masses = grown(_masses(known, look.layout.places), z, look.weights, look.n)
    if standing:
        masses[[name in standing for name in look.names]] = 0.0
    # What shows less than its floor now waits, however sure it is to be beyond the half.
    totals = (masses.sum(axis=2) * look.sides.reached).sum(axis=1)
    names: list[str] = []
    for group in SHARES if totals.sum() >= 1.0 else ():
        mine = np.flatnonzero([GROUPS[metric] == group for metric in look.layout.metrics])
        if totals[mine].sum() >= 1.0:
            names += (look.names[place] for place in mine[named(totals[mine])])
            masses[mine] = 0.0
    # What was not looked at stays as it was.
    least = np.where(np.isnan(z), 0.0, look.weights)
    return tuple(names), _streams(look.names, kept(masses, least))


def _returned(
    look: _Look, known: Mapping[str, tuple[float, ...]], standing: Collection[str]
) -> tuple[tuple[str, ...], list[Stream]]:
    """Return which of the streams that stand are back, and what speaks for the others.

    That is the same evidence the other way round, of the same half of the floor: a change that may
    open an incident cannot end it. Of a change to both sides neither may be left.
    """
    places = [place for place, name in enumerate(look.names) if name in standing]
    if not places:
        return (), []
    names = [look.names[place] for place in places]
    before = _masses(known, {f"{BACK}{name}": place for place, name in enumerate(names)})
    masses = grown(before, -look.sides.z[places], RELAPSE, look.n[places])
    two = look.layout.two[places]
    sums = masses.sum(axis=2)
    over = (sums[:, 0] >= 1.0) & ((sums[:, 1] >= 1.0) | ~two)
    # What one side has shown is not gone because the other has yet to.
    left = kept(np.minimum(masses, 2.0), RELAPSE)
    left[over] = 0.0
    back = tuple(name for name, done in zip(names, over, strict=True) if done)
    return back, _streams([f"{BACK}{name}" for name in names], left)


def _masses(known: Mapping[str, tuple[float, ...]], places: Mapping[str, int]) -> Floats:
    """Return the masses of the streams that have a place; shape (places, 2, bets)."""
    found = np.zeros((len(places), 2 * _B))
    for name, mass in known.items():
        place = places.get(name)
        if place is not None and len(mass) in (_B, 2 * _B):  # else it is of one that bet otherwise
            found[place, : len(mass)] = mass
    return found.reshape(len(places), 2, _B)


def _streams(names: Sequence[str], masses: Floats) -> list[Stream]:
    found = []
    for place in np.flatnonzero(masses.any(axis=(1, 2))).tolist():
        up, down = masses[place].tolist()
        found.append(Stream(name=names[place], mass=(*up, *down) if any(down) else tuple(up)))
    return found


def _part(name: str, metric: str) -> float:
    part = PARTS.get(metric, 1.0)
    return part * PREDICTION if name.endswith(":prediction") else part


def _floors(family: Family) -> Mapping[str, float]:
    shift = family.budget.shift
    loss = family.decay.warn if family.decay is not None else shift
    return {
        "loss": loss,
        "expected": loss,
        "nulls": family.quality.nulls,
        "shift": shift,
        "spread": shift,
        "share": shift,
    }


def _verdict(reading: Reading, floor: float) -> Verdict:
    value = reading.value or 0.0
    said = {
        "loss": f"loss of fresh rows is {value:+.0%}",
        "expected": f"expected loss of fresh rows is {value:+.0%}",
        "nulls": f"nulls of fresh rows are {value:+.0%}",
        "shift": f"shifted by {value:+.2g} sd",
        "spread": f"spread changed by {value:+.2g} sd",
        "share": f"shares changed by {value:+.2g} sd",
    }[reading.metric]
    # What stands may look well by now: it is over once that is sure, and not before.
    size = abs(value) if reading.metric in TWO_SIDED else value
    sure = "surely" if size >= floor else "which was surely"
    return Verdict(
        reading=reading,
        level=Level.ALARM,
        limit=floor,
        reason=f"{said}, n={reading.n}, limit {floor:g}, {sure} beyond half of it",
    )
