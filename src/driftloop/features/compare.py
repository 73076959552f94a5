"""How far values that were served lie from the same values made again."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
ODD = 1.0
"""The difference of a value from none, and of two texts."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The worst difference found, and the feature and the row (its place) it was found in."""

    size: float = 0.0
    feature: str = ""
    place: int = 0


def worst(served: pa.Table, again: pa.Table, passed_over: Mapping[str, Flags]) -> Difference:
    """Return the worst difference of two tables of the same rows in the same order.

    A number's is relative to the larger of both, or to 1 if both are smaller.

    Args:
        served: one of them.
        again: the other.
        passed_over: what is compared, and of each which rows are not, shape (rows,).
    """
    found = Difference()
    for name, flags in passed_over.items():
        sizes = np.where(flags, 0.0, _sizes(served[name], again[name]))
        if len(sizes) and sizes.max() > found.size:
            place = int(sizes.argmax())
            found = Difference(float(sizes[place]), name, place)
    return found


def _sizes(one: pa.ChunkedArray, other: pa.ChunkedArray) -> NDArray[np.float64]:
    odd = pc.xor(one.is_null(), other.is_null())
    if pa.types.is_floating(one.type):
        a, b = (column.fill_null(0.0).to_numpy() for column in (one, other))
        scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1.0)
        sizes = np.abs(a - b) / scale
    else:
        unequal = pc.not_equal(one.fill_null(""), other.fill_null(""))
        sizes = unequal.to_numpy().astype(np.float64) * ODD
    return np.where(odd.to_numpy(), ODD, sizes)
