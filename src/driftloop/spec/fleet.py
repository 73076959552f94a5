"""All families, and the people who own them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from driftloop.errors import UnknownModel
from driftloop.records import ModelId
from driftloop.spec.people import Owner, Routes
from driftloop.spec.schema import Family, Platform, Source

NOBODY = Platform(owner="")


@dataclass(frozen=True, slots=True)
class Fleet:
    """All families and the people who own them."""

    families: tuple[Family, ...]
    owners: Mapping[str, Owner]
    platform: Platform = NOBODY
    folder: Path = Path()
    """Where the monitor files are."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Where looked-up features come from, by name."""
    routes: Routes = field(default_factory=Routes)
    """Who is told what, where it is not simply the owner."""
    left_out: tuple[ModelId, ...] = ()
    """Models that are declared, and that the fleet was cut down by."""

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

    def market(self, model: str) -> str:
        """Return the market of `model`; see `family` for errors."""
        family = self.family(model)
        return dict(zip(family.models, family.markets, strict=True))[ModelId(model)]

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

    def data_owner(self, model: str, feature: str | None = None) -> Owner:
        """Return who owns the data of `model`, and of `feature` if it is named.

        That is the owner of the source that the feature is looked up in, if one is named there;
        else the family's `data_owner`, else its owner. See `family` for errors.
        """
        return self.owners[self.data_owner_name(model, feature)]

    def data_owner_name(self, model: str, feature: str | None = None) -> str:
        """Return what `data_owner` is called in owners.toml."""
        family = self.family(model)
        declared = family.features.get(feature or "")
        source = self.sources.get(declared.source or "") if declared is not None else None
        if source is not None and source.owner is not None:
            return source.owner
        return family.data_owner or family.owner

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
        left_out = tuple(model for model in self.models if model not in models)
        return replace(self, families=cut, left_out=(*self.left_out, *left_out))
