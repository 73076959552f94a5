"""What driftloop makes of a fleet's slices: fresh readings, and evidence of them."""

from collections import deque
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from driftloop.judge.evidence import BETS, errors, grown, kept
from driftloop.judge.findings import DATA, DRIFT, GROUPS, HARM, layout_of, sides_of
from driftloop.measure.follow import LAGS, changed, followed
from driftloop.measure.profile import Profile, Series, joined, profile_of
from driftloop.measure.season import positions
from driftloop.records import Z90
from tests.benchmarks._fleet import CADENCE, DAY, ERROR, WEEK, Slices

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
HELD_OUT = 7 * DAY
"""Slices that the champion did not see in training: its losses are learnt of them."""
CHUNK = 5
"""Models whose profiles are learnt at once: more would fill the memory."""
FLOORS = {"shift": 0.2, "spread": 0.2, "nulls": 0.3, "loss": 0.1}
"""The floors that monitor files begin with: `[budget] shift`, `[quality] nulls`, `[decay] warn`.

The loss is the share of rows that are wrong, and a tenth of it is a point. Where the family is
judged by its accuracy, of which a point is the ninetieth part, that is `warn = 0.011`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Readings of one look: estimates of a change and their standard errors, (models, streams)."""

    value: Floats
    error: Floats

    @property
    def z(self) -> Floats:
        return self.value / self.error


class Readings:
    """Readings of slices against what was usual in training, both as the library makes them."""

    def __init__(self, profile: Profile, streams: int) -> None:
        self.profile, self.streams = profile, streams
        self.loss = profile.only(range(streams - 1, len(profile.series), streams))
        """That of the losses alone: their baselines are taken for as high as they may well be."""
        self.usual = positions(times(0, WEEK)) @ self.loss.levels
        self.careful = Z90 * np.sqrt(self.loss.common)
        common = profile.common.copy()
        common[streams - 1 :: streams] = 0.0
        self.profile = replace(profile, common=common)
        self.loss = replace(self.loss, common=np.zeros_like(self.loss.common))

    @staticmethod
    def of(history: Slices) -> "Readings":
        """Return what reads slices like those of `history`, which begins with slice 0."""
        models, columns = history.means.shape[1:]
        chunks = [slice(at, at + CHUNK) for at in range(0, models, CHUNK)]
        return Readings(reduce(joined, (_learnt(history, each) for each in chunks)), 3 * columns)

    def first(self, models: int) -> "Readings":
        """Return what reads the first of the models alone."""
        some = copy(self)
        some.profile = self.profile.only(range(models * self.streams))
        some.loss = self.loss.only(range(models))
        some.usual, some.careful = self.usual[:, :models], self.careful[:models]
        return some

    def looks(self, looks: Iterable[Slices], at: int) -> Iterator[tuple[Slices, Fresh]]:
        """Yield each look with its readings, all labels at once; the first look is slice `at`."""
        before: list[Slices] = []
        looks = iter(looks)
        while block := list(islice(looks, DAY // 2)):
            whole = [*before, *block]
            changes = followed(
                self.profile,
                np.stack([_told(each).ravel() for each in whole]),
                np.full(len(whole), float(block[0].rows)),
                times(at - len(before), len(whole)),
                seen=len(before),
            )
            shape = (len(block), -1, self.streams)
            value, error = changes.value.reshape(shape), changes.error.reshape(shape)
            value[..., -1] -= self.careful
            for number, seen in enumerate(block):
                yield seen, Fresh(value=value[number], error=error[number])
            at += len(block)
            before = whole[-LAGS:]

    def late(
        self, looks: Iterable[Slices], at: int, *, lags: int, random: np.random.Generator
    ) -> Iterator[tuple[Slices, Fresh]]:
        """Yield likewise, but of each of the last `lags` slices the same share of its labels."""
        errors: deque[Floats] = deque(maxlen=lags)
        left: deque[Floats] = deque(maxlen=LAGS + 1)
        for seen, fresh in self.looks(looks, at):
            errors.append(seen.errors)
            places = np.arange(at - len(errors) + 1, at + 1)
            each = max(seen.rows // lags, 1)
            wrong = random.binomial(each, np.stack(errors)).mean(axis=0) / each / ERROR
            left.append(wrong - self.usual[places % WEEK].mean(axis=0))
            told = changed(
                self.loss,
                np.stack(left),
                np.full((len(left), len(wrong)), float(each * len(errors))),
                np.ones(len(left)),
                (positions(times(at, 1)) ** 2 @ self.loss.errors)[0],
                seen=len(left) - 1,
            )
            value, error = fresh.value.copy(), fresh.error.copy()
            value[:, -1], error[:, -1] = told.value - self.careful, told.error
            yield seen, Fresh(value=value, error=error)
            at += 1


def times(begin: int, count: int) -> Floats:
    """Return the middles of slices, in seconds since 1970; slice 0 begins on a Monday."""
    monday = 4 * 86_400.0
    return monday + (begin + np.arange(count) + 0.5) * CADENCE.total_seconds()


class Evidence:
    """Evidence of all streams of models that share a budget, added up look by look as judged.

    Args:
        models: how many; each gets an equal share.
        features: how many columns a model has beside its prediction.
        rows: that a look is made of.
        per_week: false pages of all models together.
        floor: times the changes that matter; 0 lets every change count.
    """

    def __init__(
        self, models: int, *, features: int, rows: int, per_week: float, floor: float = 1.0
    ) -> None:
        names, metrics = streams(features)
        self.floor = floor * np.array([FLOORS[metric] for metric in metrics])
        self.layout = layout_of(names, frozenset((HARM, DATA, DRIFT)))
        self.weights = per_week / WEEK / models * self.layout.shares
        groups = np.array([GROUPS[metric] for metric in metrics])
        self.groups = np.stack([groups == group for group in (HARM, DATA, DRIFT)]).astype(float)
        self.rows = np.full((1, 1), float(rows))
        self.mass = np.zeros((models, len(names), 2, len(BETS)))

    def look(self, fresh: Fresh) -> Mask:
        """Return which models page now; these begin anew."""
        error = errors(-Z90 * fresh.error, Z90 * fresh.error)
        n = self.rows[:, 0]
        sides = sides_of(self.layout, fresh.value, error, floor=self.floor, n=n)
        mass = grown(self.mass, sides.z, self.weights, self.rows)
        shown = (mass.sum(axis=3) * sides.reached).sum(axis=2)
        page: Mask = (shown @ self.groups.T >= 1.0).any(axis=1)
        mass[page] = 0.0
        self.mass = kept(mass, self.weights)
        return page


def streams(features: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a model's streams and the metric of each, as readings are told apart."""
    columns = [*(f"x{number:02}" for number in range(features)), "prediction"]
    pairs = [(metric, name) for metric in ("shift", "spread") for name in columns]
    pairs += [("nulls", name) for name in columns[:-1]]
    names = (*(f"{metric}:{name}" for metric, name in pairs), "loss")
    return names, (*(metric for metric, _ in pairs), "loss")


def _learnt(history: Slices, chunk: slice) -> Profile:
    """Return the profile of some models: that of losses is learnt of the days held out."""
    names = ("ranks", "sizes", "scatter", "nulls", "errors")
    some = replace(history, **{name: getattr(history, name)[:, chunk] for name in names})
    told = _told(some).astype(np.float64)
    length, models, count = told.shape
    scatter, skew = _scatter(some), _skew(told)
    names, metrics = streams(history.nulls.shape[-1])
    each = [Series(metric=metric, column=name) for metric, name in zip(metrics, names, strict=True)]

    def learnt(since: int, kept: slice) -> Profile:
        return profile_of(
            told[since:, :, kept].reshape(length - since, -1),
            np.full(length - since, float(history.rows)),
            times(since, length - since),
            CADENCE,
            scatter=scatter[:, kept].ravel(),
            skew=skew[:, kept].ravel(),
            series=each[kept] * models,
        )

    rows, loss = learnt(0, slice(count - 1)), learnt(length - HELD_OUT, slice(count - 1, None))
    both = joined(rows, loss)
    # Model by model, the loss after the rest.
    order = np.arange(models * (count - 1)).reshape(models, -1)
    order = np.hstack([order, models * (count - 1) + np.arange(models)[:, None]]).ravel()
    return both.only(order.tolist())


def _told(seen: Slices) -> Floats:
    """Return what the streams of readings are made of, along the last axis; the loss is last."""
    wrong = seen.errors[..., None] / ERROR
    # As `measure.scores.centred` has it, in these units.
    sizes = seen.sizes - seen.ranks**2 * np.sqrt(1.0 / 3.0)
    return np.concatenate([seen.ranks, sizes, seen.nulls, wrong], axis=-1)


def _scatter(history: Slices) -> Floats:
    """Return the variance of rows within slices, of each model and stream."""
    nulls, wrong = history.nulls.mean(axis=0), history.errors.mean(axis=0)[:, None]
    ranks, sizes = np.moveaxis(history.scatter.mean(axis=0), -1, 0)
    shares = [nulls * (1.0 - nulls), wrong * (1.0 - wrong) / ERROR**2]
    return np.concatenate([ranks, sizes, *shares], axis=-1)


def _skew(told: Floats) -> Floats:
    """Return the skew of rows: of shares alone, that is of nulls and errors."""
    found = np.zeros(told.shape[1:])
    columns = told.shape[-1] // 3
    for stream, unit in [(at, 1.0) for at in range(2 * columns, 3 * columns - 1)] + [(-1, ERROR)]:
        share = told[..., stream].mean(axis=0) * unit
        found[:, stream] = (1.0 - 2.0 * share) / np.sqrt(share * (1.0 - share))
    return found
