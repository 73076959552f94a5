"""What labels say of a column that may be in another unit, and whether they are in one themselves.

The model cannot be asked again with other values: its file is not this room's. Labels can be
foretold from bins of the columns by a ridge regression (Hoerl and Kennard 1970) that was fitted
on rows of before; where that does better with a column's values as they would have been, they
are wrong as they are.
"""

import numpy as np

from driftloop.measure.bins import Bins, Column
from driftloop.measure.columns import Codes, Floats
from driftloop.measure.faults import AT, FAR, Better, Fault, Side, fault_of
from driftloop.measure.parts import design, ridges
from driftloop.measure.sides import Answered, Sides

LEAST = 50
"""With fewer labels nothing is said."""
ROWS = 3000
WITH = 12
"""So many columns foretell the labels: those that they vary most with, and the one in question."""


def foretells(seen: Sides) -> Better:
    """Return how to ask by how many standard errors other values of a column do better."""

    def better(name: str, instead: Floats) -> float:
        before, now = seen.before.labelled, seen.changed
        labelled = np.flatnonzero(np.isfinite(now.label))
        if before.size < LEAST or len(labelled) < LEAST:
            return 0.0
        before = before.part(np.unique(np.linspace(0, before.size - 1, ROWS).astype(np.int64)))
        names = _telling(seen, before, name)
        told = [(before.columns[each], before.columns[each]) for each in names]
        made = _made(seen, names, [column for column, _ in told], told)
        ridge = ridges(made)
        x = design(made)
        y = before.label - before.label.mean()
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += ridge
        beta = np.linalg.solve(gram, x.T @ y)
        now, instead = now.part(labelled), instead[labelled]
        target = now.label - before.label.mean()
        off = []
        for values in (None, instead):
            columns = [
                now.columns[each]
                if each != name or values is None
                else Column(seen.bins[each].coded(values), values, now.columns[each].unseen)
                for each in names
            ]
            off.append((target - design(_made(seen, names, columns, told)) @ beta) ** 2)
        gain = off[0] - off[1]
        return float(gain.mean() / (gain.std() / np.sqrt(len(gain)) + 1e-12))

    return better


def label_fault(seen: Sides) -> Fault | None:
    """Return that labels, which are numbers, are stuck or in another unit.

    Whether they would fit the answers better otherwise is asked of the answers themselves.
    """
    before, now = seen.before.labelled, seen.worse
    if min(before.size, now.size) < LEAST:
        return None
    cuts = np.unique(np.quantile(before.label, AT))
    bins = Bins("label", tuple(str(each) for each in range(len(cuts) + 2)), cuts=cuts)

    def better(_: str, instead: Floats) -> float:
        gain = (now.label - now.answer) ** 2 - (instead - now.answer) ** 2
        return float(gain.mean() / (gain.std() / np.sqrt(len(gain)) + 1e-12))

    columns = _column(bins, before.label), _column(bins, now.label)
    side = Side(bins, *columns, swing=np.zeros(bins.size), moved=np.inf)
    # What a changed relation does to labels is a line, too, and growth may be any small factor.
    fault = fault_of(side, nulls=1.0, unseen=1.0, better=better, lines=False)
    grown = float(np.median(np.abs(now.label))) / max(float(np.median(np.abs(before.label))), 1e-12)
    return fault if fault is not None and not 1.0 / FAR < grown < FAR else None


def _column(bins: Bins, values: Floats) -> Column:
    return Column(bins.coded(values), values, np.zeros(len(values), dtype=np.int64))


def _telling(seen: Sides, before: Answered, name: str) -> list[str]:
    def told(each: str) -> float:
        codes = before.columns[each].codes
        rows = np.bincount(codes)
        means = np.bincount(codes, weights=before.label)[rows > 0] / rows[rows > 0]
        return float(np.sum(rows[rows > 0] * (means - before.label.mean()) ** 2))

    others = sorted((each for each in seen.bins if each != name), key=told, reverse=True)
    return [name, *others[: WITH - 1]]


def _made(
    seen: Sides, names: list[str], columns: list[Column], told: list[tuple[Column, Column]]
) -> list[tuple[Codes, Floats | None, int]]:
    made = []
    for name, column, (usual, _) in zip(names, columns, told, strict=True):
        values = None
        if column.values is not None and usual.values is not None:
            finite = usual.values[np.isfinite(usual.values)]
            if len(finite):
                values = (column.values - finite.mean()) / (finite.std() or 1.0)
        made.append((column.codes, values, seen.bins[name].size))
    return made
