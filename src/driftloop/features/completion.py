"""A row made whole: fallbacks for what was not found, then what is computed."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from driftloop.features.expressions import function
from driftloop.records import FeatureValue
from driftloop.spec import Family


@dataclass(frozen=True, slots=True)
class Whole:
    """A row with every feature, and what its fallback rules were applied to.

    `refused` are those without a value that refuse the row: it must not be answered.
    """

    features: dict[str, FeatureValue]
    fallbacks: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Completion:
    """Makes rows of one family whole."""

    def __init__(self, family: Family, *, looked_up: Collection[str] | None = None) -> None:
        """Compile what is computed, once; only `looked_up` is, where that is given."""
        mine = {n: f for n, f in family.looked_up.items() if looked_up is None or n in looked_up}
        self._substitutes = {name: feature.substitute for name, feature in mine.items()}
        self._refusing = frozenset(name for name, feature in mine.items() if feature.refuses)
        self._computed: dict[str, Callable[[Mapping[str, FeatureValue]], FeatureValue]] = {
            name: function(str(feature.expression)) for name, feature in family.computed.items()
        }

    def of(self, features: Mapping[str, FeatureValue], found: Mapping[str, FeatureValue]) -> Whole:
        """Return the row.

        Args:
            features: those that were sent; they and the family's others, in the order wanted.
            found: what was looked up; what is absent or None has no value.
        """
        row = dict(features)
        fallbacks = []
        for name, substitute in self._substitutes.items():
            value = found.get(name)
            if value is None:
                fallbacks.append(name)
                value = substitute
            row[name] = value
        for name, made in self._computed.items():
            row[name] = made(row)
        refused = self._refusing.intersection(fallbacks) if self._refusing else ()
        return Whole(row, tuple(fallbacks), tuple(n for n in fallbacks if n in refused))
