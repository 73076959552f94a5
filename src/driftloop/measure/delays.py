"""How long labels take to arrive, and how likely each of those that are here was to be here now.

Labels that are here early are no random sample. Where the delay depends on the outcome, as where
"it was bought" is known at once and "it was not" a week later, the early ones say little of the
rest (Chapelle 2014, "Modeling delayed feedback in display advertising"). So the delay is learnt
for each outcome apart, of labels that are here: how many of those that ever come within the
window come by an age. Each label then counts for all that are like it and not here yet.

What cannot be corrected: rows that will never have a label are taken to be like the rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftloop.measure.columns import Codes, Floats, Unmeasurable

SEEN = 50
"""Beyond the age that so many labelled rows have, at least, the delay is not looked at."""
STRATA = 5
"""Labels that are numbers are told apart by fifths."""
FEWEST = 100
"""An outcome with fewer labels has no delay of its own."""
OPEN = 0.4
"""Where of some outcome fewer labels than this share are here, the early ones are not used: those
of the other outcomes would stand for them, and each for many."""
AGES = 24
"""In so many groups of like age the labels that are here stand for all rows."""
ARRIVALS = 3
"""Of labels that arrived at fewer times it cannot be told when the next are due."""
PAUSE = 1.5
"""Without labels for so many times the longest pause before, they have stopped."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Curve:
    """A share that grows with age: 0 before `ages[0]`, then `shares[i]` from `ages[i]` on."""

    ages: Floats
    shares: Floats

    def at(self, age: Floats) -> Floats:
        """Return the share at each age."""
        place = np.searchsorted(self.ages, age, side="right")
        found: Floats = np.concatenate([[0.0], self.shares])[place]
        return found


@dataclass(frozen=True, slots=True)
class Delays:
    """Of one model's labels: how many come at all, and how soon, for each outcome.

    `ever` is the share of rows that have a label within `horizon` seconds, `whole` how many of
    these come by an age, and `outcomes` likewise of each. `median` is the age, in seconds, by which
    half of them are here.
    """

    ever: float
    horizon: float
    whole: Curve
    outcomes: tuple[Curve, ...]
    median: float

    def known(self, age: Floats, outcome: Codes) -> Floats:
        """Return the probability that a row of each age and outcome has its label by now."""
        shares = np.stack([curve.at(age) for curve in self.outcomes])
        found: Floats = self.ever * shares[outcome, np.arange(len(age))]
        return found

    def told(self, age: Floats) -> Mask:
        """Return at which ages `OPEN` of the slowest outcome's labels are here."""
        found: Mask = np.min([curve.at(age) for curve in self.outcomes], axis=0) >= OPEN
        return found


def learnt(delay: Floats, age: Floats, outcome: Codes, expiry: float) -> Delays:
    """Return the delays of labels, in seconds.

    How many come at all is told by the estimator of Kaplan and Meier (1958), rows without a label
    censored at their age or at `expiry`. How soon those of one outcome come is told by labels
    that are here, each of which is seen because it took no longer than its row is old: the
    product-limit estimator with time reversed (Lagakos, Barraj and De Gruttola 1988).

    Args:
        delay: shape (rows,), from the row to its label; NaN where none is here.
        age: shape (rows,), of each row, the largest delay that could be seen.
        outcome: shape (rows,), of rows with a label their outcome, numbered from 0.
        expiry: after which no label is expected.

    Of fewer than `SEEN` labels nothing is learnt: no label tells of any row, at any age.

    Raises:
        Unmeasurable: there are so few, although `SEEN` rows are older than `expiry`.

    >>> delays = learnt(np.tile([1.0, 2.0], 50), np.full(100, 9.0), np.zeros(100, int), 9.0)
    >>> delays.ever, delays.median, delays.known(np.array([0.5, 1.0, 3.0]), np.zeros(3, int))
    (1.0, 1.0, array([0. , 0.5, 1. ]))
    """
    here = np.isfinite(delay)
    n = int(np.count_nonzero(here))
    if n < SEEN:
        if (old := int(np.count_nonzero(age > expiry))) >= SEEN:
            raise Unmeasurable(f"{n} labels, though {old} rows are older than a label may be", n=n)
        never = Curve(np.array([np.inf]), np.ones(1))
        return Delays(1.0, 0.0, never, (never,), np.inf)
    took = np.clip(delay, 0.0, np.minimum(age, expiry))
    horizon = min(float(np.sort(age[here])[-SEEN]), expiry)
    ends = np.minimum(np.where(here, took, age), horizon)
    ever = kaplan_meier(ends, here & (took <= horizon))
    within = here & (took <= horizon)
    limit = np.minimum(age, horizon)
    whole = reversed_time(took[within], limit[within])
    outcomes = []
    for each in range(int(outcome[here].max()) + 1):
        of = within & (outcome == each)
        few = np.count_nonzero(of) < FEWEST
        outcomes.append(whole if few else reversed_time(took[of], limit[of]))
    half = np.searchsorted(whole.shares, 0.5)
    share, median = float(ever.shares[-1]), float(whole.ages[half])
    return Delays(share, horizon, whole, tuple(outcomes), median)


def overdue(delays: Delays, delay: Floats, age: Floats) -> tuple[int, int]:
    """Return how many labels are here, and how many were to be expected, of the newest rows.

    These are a tenth of all, the youngest of those that labels tell of. Where labels come in bulk,
    as every night, none is late before the next bulk is: a pause is one if it is half as long
    again as the longest between two arrivals. Of fewer than three arrivals nothing is expected.

    Args:
        delays: as learnt.
        delay: as for `learnt`.
        age: likewise.
    """
    here = np.isfinite(delay)
    arrived = np.unique(np.floor(age[here] - delay[here]))
    if len(arrived) < ARRIVALS:
        return 0, 0
    pause = float(arrived[0])
    if pause <= PAUSE * float(np.diff(arrived).max()):
        age = age - pause
    told = np.flatnonzero(delays.told(age))
    newest = told[np.argsort(age[told], kind="stable")][: len(age) // 10]
    expected = delays.ever * float(delays.whole.at(age[newest]).sum())
    return int(np.count_nonzero(here[newest])), round(expected)


def kaplan_meier(ends: Floats, here: Mask) -> Curve:
    """Return the share whose label is here by an age; `ends` is when a row was last looked at."""
    times, counts = np.unique(ends[here], return_counts=True)
    at_risk = len(ends) - np.searchsorted(np.sort(ends), times, side="left")
    known: Floats = 1.0 - np.cumprod(1.0 - counts / at_risk, dtype=np.float64)
    return Curve(times, known)


def reversed_time(took: Floats, limit: Floats) -> Curve:
    """Return the share that took no longer than an age, of delays each seen as it is <= `limit`."""
    times, counts = np.unique(took, return_counts=True)
    at_risk = np.cumsum(counts) - np.searchsorted(np.sort(limit), times, side="left")
    # Going back in time: what is left before a delay is what did not end at it.
    left = np.cumprod((1.0 - counts / np.maximum(at_risk, counts))[::-1])[::-1]
    return Curve(times, np.append(left[1:], 1.0))


def strata(label: Floats, *, classes: bool) -> Codes:
    """Return the outcome of each row, by which its delay is learnt: its class, or fifth of numbers.

    NaN, where no label is here, has the outcome 0.
    """
    here = np.isfinite(label)
    found = np.zeros(len(label), dtype=np.int64)
    if classes:
        found[here] = np.unique(label[here], return_inverse=True)[1]
        return found
    if here.any():
        cuts = np.unique(np.quantile(label[here], np.arange(1, STRATA) / STRATA))
        found[here] = np.searchsorted(cuts, label[here], side="left")
    return found


def weights(delays: Delays, here: Mask, age: Floats, outcome: Codes) -> Floats:
    """Return for how many rows each label stands: 0 where it is not here, or is not to be used.

    It is the inverse of the probability that it is here, brought to scale within groups of like
    age, in each of which the weights sum to the rows (Hajek 1971). Where all labels of a group are
    here it is 1. Early labels, of an age that `Delays.told` is false of, are not used.
    """
    found = np.zeros(len(age))
    if not len(age):
        return found
    told = delays.told(age)
    usable = here & told
    chance = delays.known(age[usable], outcome[usable])
    found[usable] = 1.0 / np.maximum(chance, OPEN * delays.ever)
    group = _like(age)
    rows, labels = np.bincount(group), np.bincount(group, weights=here)
    sums = np.bincount(group, weights=found)
    # A group that is only partly old enough keeps its weights: the rest is not theirs to stand for.
    whole = (np.bincount(group, weights=told) == rows) & (sums > 0.0)
    scale = np.divide(rows, sums, out=np.ones(len(rows)), where=whole)
    found *= np.clip(scale, 0.5, 2.0)[group]
    found[(labels == rows)[group]] = 1.0
    return found


def _like(age: Floats) -> Codes:
    """Return groups of like age, each with as many rows."""
    place = np.empty(len(age), dtype=np.int64)
    place[np.argsort(age, kind="stable")] = np.arange(len(age))
    return place * AGES // len(age)
