"""Reads a folder of monitor files, and gathers every fault on the way."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from driftloop.errors import DriftloopError, SpecError
from driftloop.records import ModelId, Task
from driftloop.spec.contradictions import MISSING, contradictions, overdrawn
from driftloop.spec.fleet import Fleet
from driftloop.spec.lookups import bad_source
from driftloop.spec.naming import NAME
from driftloop.spec.people import Owner, Routes
from driftloop.spec.rosters import bad_owner, bad_routes
from driftloop.spec.schema import Family, Feature, Platform, Source

DEFAULTS = "defaults.toml"
SOURCES = "sources.toml"
ROUTES = "routes.toml"
POLICIES = frozenset(
    {"window", "drift", "decay", "quality", "hysteresis", "retrain", "gate", "budget"}
    | {"estimate", "quarantine"}
)
"""The tables of a family that say how it is judged and renewed, and not what it is."""
AN_OWNER = 'write [operations], and below it channel = "#ml-operations"'


def load_fleet(folder: Path, *, policy: Path | None = None) -> Fleet:
    """Return the fleet that the TOML files of `folder` declare.

    With `policy`, as that file would have it: its tables go over those of every family, those
    below `[families.NAME]` over those of one, and `[platform]` over platform.toml. What a model
    is, such as its features, no policy can change.

    Raises:
        SpecError: with every fault of every file: file, key, hint.
    """
    reader = _Reader(folder, policy)
    fleet = reader.fleet()
    if reader.faults or fleet is None:
        raise SpecError(tuple(reader.faults))
    return fleet


class _Reader:
    """Reads a folder of monitors and gathers every fault on the way."""

    def __init__(self, folder: Path, policy: Path | None = None) -> None:
        self.folder = folder
        self._policy_file = policy
        self._policy: Mapping[str, Any] = {}
        self.faults: list[DriftloopError] = []
        self._owner_names: frozenset[str] = frozenset()
        self._defaults: dict[str, Any] | None = {}
        """None when they cannot be read."""
        self._sources: dict[str, Source | None] = {}
        """None for those with a fault of their own: families may name them all the same."""
        self._of_defaults: frozenset[str] = frozenset()
        """What is contradictory in the defaults alone."""

    def fleet(self) -> Fleet | None:
        if not self.folder.is_dir():
            self._fault(str(self.folder), "there is no such folder", hint="give --monitors")
            return None
        self._read_policy()
        owners = self._owners()
        platform = self._platform()
        self._read_defaults()
        self._read_sources()
        names = {"owners.toml", "platform.toml", DEFAULTS, SOURCES, ROUTES}
        files = sorted(path.name for path in self.folder.glob("*.toml") if path.name not in names)
        if not files:
            self._fault(str(self.folder), "no family is declared", hint="add <family>.toml")
        families = tuple(f for name in files if (f := self._family(name)))
        taken: dict[ModelId, str] = {}
        for family in families:
            for model in family.models:
                if model in taken:
                    self._fault(
                        f"{family.name}.toml", f"{model!r} is also a model of {taken[model]}.toml"
                    )
                taken[model] = family.name
        for fault in overdrawn(families, platform):
            self._fault(fault.where, fault.what, hint=fault.hint)
        return Fleet(
            families=families,
            owners=owners,
            platform=platform,
            folder=self.folder.absolute(),
            routes=self._routes(families),
            sources={name: source for name, source in self._sources.items() if source is not None},
        )

    def _owners(self) -> dict[str, Owner]:
        file = "owners.toml"
        raw = self._toml(file, hint=AN_OWNER)
        if raw == {}:
            self._fault(file, "declares nobody", hint=AN_OWNER)
        owners: dict[str, Owner] = {}
        for name, value in (raw or {}).items():
            owner = self._parse(Owner, value, file, prefix=f"{name}.")
            if isinstance(owner, Owner):
                owners[name] = owner
        # An owner with a fault of its own is still one that families may name.
        self._owner_names = frozenset(raw or ())
        for name, owner in owners.items():
            for fault in bad_owner(name, owner):
                self._fault(file, fault.what, key=fault.where, hint=fault.hint)
        return owners

    def _platform(self) -> Platform:
        file = "platform.toml"
        raw = self._toml(file)
        over = self._policy.get("platform", {})
        platform = None if raw is None else self._parse(Platform, _merged(raw, over), file)
        if not isinstance(platform, Platform):
            return Platform(owner="")
        if self._owner_names and platform.owner not in self._owner_names:
            known = ", ".join(sorted(self._owner_names))
            self._fault(
                file,
                f"{platform.owner!r} is not in owners.toml",
                key="owner",
                hint=f"known: {known}",
            )
        return platform

    def _routes(self, families: Sequence[Family]) -> Routes:
        if not (self.folder / ROUTES).exists():
            return Routes()
        routes = self._parse(Routes, self._toml(ROUTES) or {}, ROUTES)
        if not isinstance(routes, Routes):
            return Routes()
        for fault in bad_routes(routes, owners=self._owner_names, families=families):
            self._fault(ROUTES, fault.what, key=fault.where, hint=fault.hint)
        return routes

    def _read_policy(self) -> None:
        if self._policy_file is None:
            return
        file = self._policy_file
        try:
            self._policy = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self._fault(str(file), f"not valid TOML: {error}")
            return
        except OSError as error:
            self._fault(str(file), f"cannot be read: {error.strerror}")
            return
        if faults := list(_no_tables(self._policy)):
            for key in faults:
                self._fault(str(file), "should be a table", key=key, hint=f"as in [{key}]")
            self._policy = {}
            return
        families = self._policy.get("families", {})
        known = {path.stem for path in self.folder.glob("*.toml")}
        tables = [("", self._policy), *((f"families.{n}.", t) for n, t in families.items())]
        for name in sorted(set(families) - known):
            self._fault(str(file), "no such family", key=f"families.{name}")
        for prefix, table in tables:
            allowed = POLICIES | ({"families", "platform"} if not prefix else set())
            for key in sorted(set(table) - allowed):
                hint = f"a policy has {', '.join(sorted(allowed))}"
                self._fault(str(file), "is no part of a policy", key=prefix + key, hint=hint)

    def _read_defaults(self) -> None:
        if not (self.folder / DEFAULTS).exists():
            return
        self._defaults = self._toml(DEFAULTS)
        given = self._defaults or {}
        for key in sorted(
            given.keys() & {"name", "markets", "features", "target", "task", "classes"}
        ):
            self._fault(DEFAULTS, "belongs in a family's own file", key=key)
        alone = contradictions(given, owners=self._owner_names)
        self._of_defaults = frozenset(str(fault) for fault in alone)

    def _read_sources(self) -> None:
        if not (self.folder / SOURCES).exists():
            return
        for name, value in (self._toml(SOURCES) or {}).items():
            given = {**value, "name": name} if isinstance(value, dict) else value
            if isinstance(value, dict) and "name" in value:
                self._fault(SOURCES, "the table's name is the source's", key=f"{name}.name")
            source = self._parse(Source, given, SOURCES, prefix=f"{name}.")
            self._sources[name] = source if isinstance(source, Source) else None
            if isinstance(source, Source):
                for fault in bad_source(source, owners=self._owner_names):
                    self._fault(SOURCES, fault.what, key=fault.where, hint=fault.hint)

    def _family(self, file: str) -> Family | None:
        raw = self._toml(file)
        if raw is None:
            return None
        name = file.removesuffix(".toml")
        if not NAME.fullmatch(name):
            self._fault(file, "a family's file is lower case words joined by -")
        if "name" in raw:
            self._fault(file, "the file's name is the family's name", key="name", hint="remove it")
        whole = {**_merged(self._defaults or {}, raw), "name": name}
        if raw.get("task") == Task.SCORE and "decay" not in raw:
            # What other families inherit is none of a score's business.
            whole.pop("decay", None)
        if "log" in raw and "rollout" not in raw:
            # Likewise: who serves it rolls it out.
            whole.pop("rollout", None)
        everyones = dict(self._policy)
        if "decay" not in whole and raw.get("task") == Task.SCORE:
            everyones.pop("decay", None)
        for over in (everyones, self._policy.get("families", {}).get(name, {})):
            whole = _merged(whole, {key: over[key] for key in POLICIES & set(over)})
        family = self._parse(Family, whole, file, own=raw)
        # Told even where the schema has faults already: all of them at once.
        for fault in contradictions(whole, owners=self._owner_names, sources=self._sources):
            if fault.what == MISSING and self._defaults is None:
                continue  # as in `_parse`
            where = fault.where.split(".")
            inherited = str(fault) in self._of_defaults or self._policy_file is not None
            place = self._place(file, raw, where) if inherited else file
            self._fault(place, fault.what, key=fault.where, hint=fault.hint)
        return family if isinstance(family, Family) else None

    def _toml(self, name: str, *, hint: str = "") -> dict[str, Any] | None:
        path = self.folder / name
        if not path.exists():
            expected = f"expected in {self.folder}"
            self._fault(
                name, "the file is missing", hint=f"{expected}; {hint}" if hint else expected
            )
            return None
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self._fault(name, f"not valid TOML: {error}")
            return None
        except OSError as error:
            self._fault(name, f"cannot be read: {error.strerror}")
            return None

    def _parse(
        self,
        kind: type[BaseModel],
        value: object,
        file: str,
        *,
        prefix: str = "",
        own: Mapping[str, Any] | None = None,
    ) -> BaseModel | None:
        """Return `value` as `kind`; `own` is what `file` says of it where it inherits the rest."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            for fault in error.errors():
                if fault["type"] == "missing" and own is not None and self._defaults is None:
                    continue  # it may well stand in what cannot be read
                place = file if own is None else self._place(file, own, fault["loc"])
                key = prefix + ".".join(str(part) for part in fault["loc"])
                what, hint = _worded(fault, kind, place)
                for line in what.splitlines():
                    self._fault(place, line, key=key.removesuffix("."), hint=hint)
            return None

    def _place(self, file: str, own: Mapping[str, Any], loc: Sequence[str | int]) -> str:
        """Return the file whose fault it is: the defaults' if they say more of the key.

        A policy's, if it says all of it.
        """
        mine = self._policy.get("families", {}).get(file.removesuffix(".toml"), {})
        if any(_said(over, loc) == len(loc) > 1 for over in (self._policy, mine)):
            return str(self._policy_file)
        return DEFAULTS if _said(self._defaults, loc) > _said(own, loc) else file

    def _fault(self, file: str, what: str, *, key: str = "", hint: str = "") -> None:
        where = f"{file}: {key}" if key else file
        fault = DriftloopError(what, where=where, hint=hint)
        # A fault of the defaults is found in every family, and told once.
        if str(fault) not in map(str, self.faults):
            self.faults.append(fault)


def _no_tables(policy: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a policy under which no table stands, where one should."""
    families = policy.get("families", {})
    for key, value in policy.items():
        if not isinstance(value, dict):
            yield key
    for name, tables in families.items() if isinstance(families, dict) else ():
        if not isinstance(tables, dict):
            yield f"families.{name}"
            continue
        for key, value in tables.items():
            if not isinstance(value, dict):
                yield f"families.{name}.{key}"


def _said(table: object, loc: Sequence[str | int]) -> int:
    """Return how many parts of a key `table` has."""
    for depth, part in enumerate(loc):
        if not isinstance(table, Mapping) or part not in table:
            return depth
        table = table[part]
    return len(loc)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], over[key])
        for key in base.keys() & over.keys()
        if isinstance(base[key], dict) and isinstance(over[key], dict)
    }
    return {**base, **over, **both}


def _worded(fault: Any, kind: type[BaseModel], file: str) -> tuple[str, str]:  # noqa: ANN401 - pydantic's own dict
    if fault["type"] == "extra_forbidden":
        return "unknown key", _nearest(fault["loc"], kind)
    if fault["type"] == "missing":
        other = "the family's own file" if file == DEFAULTS else DEFAULTS
        return MISSING, f"give it here or in {other}" if kind is Family else "give it here"
    given = fault["input"]
    if fault["type"] == "tuple_type" and isinstance(given, dict):
        return "should be a list of tables", f"write [[{fault['loc'][-1]}]]"
    if fault["type"] == "tuple_type":
        return f"should be a list, got {given!r}", f"as in [{_quoted(given)}]"
    shown = "" if isinstance(given, dict) else f", got {given!r}"
    hint = fault.get("ctx", {}).get("hint", "")
    return f"{str(fault['msg']).removeprefix('Value error, ')}{shown}", hint


def _quoted(given: object) -> str:
    return json.dumps(given, ensure_ascii=False, default=str)


def _nearest(loc: tuple[Any, ...], kind: type[BaseModel]) -> str:
    table: Any = kind
    for part in loc[:-1]:
        if isinstance(part, int):
            continue  # of a list, whose tables are all of one kind
        field = getattr(table, "model_fields", {}).get(part)
        table = field.annotation if field is not None else Feature
        table = next((each for each in get_args(table) if each is not NoneType), table)
    known = getattr(table, "model_fields", {})
    listed = (field.alias or name for name, field in known.items() if name != "name")
    return f"known: {', '.join(listed)}" if known else ""
