"""Slices as fleets have them, of known season and noise: do readings of them hold what they say?

`python -m tests.benchmarks._slices` prints a table over all that was tried; the unit tests of
`measure` try a part of it.
"""

import sys
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any

import numpy as np

from driftloop.measure.follow import followed
from driftloop.measure.profile import profile_of

STEP = 600.0
DAY = round(86_400 / STEP)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How slices come about: rows, days learnt of, noise and its correlation, and the season.

    `season` is the amplitude over the day, `weekend` how far its two days lie below the others;
    these begin `zone` hours before midnight UTC.
    """

    rows: int
    days: int = 28
    noise: float = 0.0
    phi: float = 0.0
    season: float = 0.0
    weekend: float = 0.0
    zone: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What was seen of readings: of `z`, mean, deviation and correlation; and the mean value.

    `days` is the deviation of its sum over a day, over that of as many independent ones. `steps`
    is the root of its mean square in the hours where a weekend begins or ends, `largest` its size
    there at most.
    """

    mean: float
    sd: float
    follows: float
    days: float
    value: float
    error: float
    steps: float
    largest: float


def held(world: World, rng: np.random.Generator, *, k: int = 20, moved: float = 0.0) -> Held:
    """Return what readings of 30 days say, of `k` columns that all have `moved` after training."""
    learnt, asked = world.days * DAY, 30 * DAY
    times, means = slices(world, rng, learnt + asked, k)
    counts = np.full(len(times), float(world.rows))
    profile = profile_of(means[:learnt], counts[:learnt], times[:learnt], timedelta(seconds=STEP))
    found = followed(profile, means[learnt:] + moved, counts[learnt:], times[learnt:], seen=DAY)
    z = found.value / found.error
    hours = np.floor(times[learnt + DAY :] / 3600.0 + world.zone) % 168
    edges = z[np.isin(hours, (47, 48, 95, 96))]
    by_day = z[: len(z) // DAY * DAY].reshape(-1, DAY, k).sum(axis=1) / np.sqrt(DAY)
    return Held(
        mean=float(z.mean()),
        sd=float(z.std()),
        follows=float((z[1:] * z[:-1]).mean() / (z**2).mean()),
        days=float(by_day.std()),
        value=float(found.value.mean()),
        error=float(np.median(found.error)),
        steps=float(np.sqrt((edges**2).mean())),
        largest=float(np.abs(edges).max()),
    )


def slices(world: World, rng: np.random.Generator, count: int, k: int) -> tuple[Any, Any]:
    """Return the middles of `count` slices (from 1970 on) and their means, (count, k)."""
    times = (np.arange(count) + 0.5) * STEP
    days = times / 86_400.0
    noise = rng.normal(0.0, world.noise, (count, k))
    for at in range(1, count):
        new = np.sqrt(1.0 - world.phi**2) * noise[at]
        noise[at] = world.phi * noise[at - 1] + new
    season = world.season * np.sin(2.0 * np.pi * days)
    season -= world.weekend * np.isin(np.floor(days + world.zone / 24.0) % 7, (2, 3))
    # A rank is uniform: of few rows the mean is no normal one.
    scatter = rng.uniform(-np.sqrt(3.0), np.sqrt(3.0), (count, k))
    if world.rows > 1:
        scatter = rng.normal(0.0, 1.0, (count, k)) / np.sqrt(world.rows)
    return times, noise + scatter + season[:, None]


def main() -> None:
    """Print what holds, world by world."""
    told = "rows days noise phi season weekend | mean sd lag 1, of days | moved 0.2: value, error"
    sys.stdout.write(f"{told}\n")
    patterns = product((1, 30, 5000), (28, 56), ((0.0, 0.0), (0.1, 0.0), (0.1, 0.5), (0.1, 0.9)))
    for rows, days, (noise, phi) in patterns:
        for season, weekend in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5)):
            world = World(
                rows=rows, days=days, noise=noise, phi=phi, season=season, weekend=weekend
            )
            quiet = held(world, np.random.default_rng(1))
            moved = held(world, np.random.default_rng(1), moved=0.2)
            sys.stdout.write(
                f"{rows:5} {days:4} {noise:5} {phi:3}  {season:6} {weekend:7} |"
                f" {quiet.mean:+.3f} {quiet.sd:.3f} {quiet.follows:+.3f} {quiet.days:.2f} |"
                f" {moved.value:.3f} {moved.error:.3f}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
