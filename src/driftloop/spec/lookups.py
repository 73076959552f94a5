"""What is wrong with features that are looked up or computed, and with the sources they name."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from driftloop.errors import DriftloopError
from driftloop.spec.expression import Expression, kind_of, parse
from driftloop.spec.naming import COLUMN, NAME
from driftloop.spec.schema import OF_EVENTS, Aggregate, Source

RESERVED = frozenset({"id", "source", "position", "event_time", "received_at", "arrived_at"})
"""Columns that the log of events has of its own."""
SENT = ("numeric", "categorical", "key")


def bad_source(source: Source, *, owners: frozenset[str] = frozenset()) -> Iterator[DriftloopError]:
    """Yield what is wrong with the names in a source; `where` begins with its own.

    Where there are no `owners` at all, that is the fault of their file.
    """
    if source.owner is not None and owners and source.owner not in owners:
        yield DriftloopError(
            f"{source.owner!r} is not in owners.toml",
            where=f"{source.name}.owner",
            hint=f"known: {', '.join(sorted(owners))}",
        )
    if not NAME.fullmatch(source.name):
        yield DriftloopError("a source's name is lower case words joined by -", where=source.name)
    own = RESERVED if source.kind == "events" else frozenset[str]()
    hint = "lower case letters, digits and _"
    hint += f", but none of {', '.join(sorted(own))}" if own else ""
    for name in source.fields:
        if not COLUMN.fullmatch(name) or name in own:
            yield DriftloopError(
                "not a usable field name", where=f"{source.name}.fields.{name}", hint=hint
            )
    if source.time in source.fields:
        yield DriftloopError(f"{source.time!r} is also a field", where=f"{source.name}.time")
    if source.time is not None and source.time in ("id", "source"):
        yield DriftloopError("not a usable field name", where=f"{source.name}.time", hint=hint)


def bad_lookups(
    whole: Mapping[str, Any], sources: Mapping[str, Source | None]
) -> Iterator[DriftloopError]:
    """Yield what is wrong with the looked-up and computed features of a family's raw table.

    Values of the wrong type are the schema's fault; so is what a source, None here, says of itself.
    """
    given = whole.get("features")
    features = {
        name: feature
        for name, feature in (given.items() if isinstance(given, dict) else ())
        if isinstance(feature, dict)
    }
    made = [name for name, feature in features.items() if feature.keys() & {"from", "expression"}]
    if made and whole.get("log") is not None:
        yield DriftloopError(
            "these models are served elsewhere: their log holds every value",
            where=f"features.{made[0]}",
            hint="declare it without from or expression",
        )
    for name, feature in features.items():
        if isinstance(feature.get("from"), str):
            yield from _bad_lookup(name, features, sources)
    yield from _bad_expressions(features)


def _bad_lookup(
    name: str, features: Mapping[str, Any], sources: Mapping[str, Source | None]
) -> Iterator[DriftloopError]:
    where, feature = f"features.{name}", features[name]
    if feature["from"] not in sources:
        known = ", ".join(sources) or "none; declare it in sources.toml"
        yield DriftloopError(
            f"there is no source {feature['from']!r}",
            where=f"{where}.from",
            hint=f"known: {known}",
        )
    yield from _bad_key(where, feature.get("key"), features)
    source = sources.get(feature["from"])
    if source is None:
        return
    if source.kind == "table":
        yield from _bad_column(where, feature, source)
    else:
        yield from _bad_aggregate(where, feature, source)


def _bad_key(where: str, key: object, features: Mapping[str, Any]) -> Iterator[DriftloopError]:
    fitting = [
        name
        for name, feature in features.items()
        if feature.get("kind") in ("key", "categorical")
        and not feature.keys() & {"from", "expression"}
    ]
    if key is None:
        yield DriftloopError(
            "missing", where=f"{where}.key", hint="name the request's field it is looked up by"
        )
    elif isinstance(key, str) and key not in fitting:
        yield DriftloopError(
            f"{key!r} is no key or category that callers send",
            where=f"{where}.key",
            hint=f"fitting: {', '.join(fitting)}"
            if fitting
            else f'declare {key} = {{ kind = "key", required = true }}',
        )


def _bad_column(where: str, feature: Mapping[str, Any], source: Source) -> Iterator[DriftloopError]:
    for name in ("aggregate", "window"):
        if name in feature:
            yield DriftloopError(
                f"{source.name} is a table, and not a stream of events",
                where=f"{where}.{name}",
                hint="leave it out",
            )
    if "of" not in feature:
        yield DriftloopError("missing", where=f"{where}.of", hint="name the table's column")
    if feature.get("key") is not None and feature["key"] != source.key:
        yield DriftloopError(f"{source.name} is looked up by {source.key!r}", where=f"{where}.key")


def _bad_aggregate(
    where: str, feature: Mapping[str, Any], source: Source
) -> Iterator[DriftloopError]:
    aggregate, of, key, kind = (feature.get(n) for n in ("aggregate", "of", "key", "kind"))
    fields = f"fields of {source.name}: {', '.join(source.fields)}"
    if aggregate is None:
        hint = f"one of {', '.join(get_args(Aggregate))}"
        yield DriftloopError("missing", where=f"{where}.aggregate", hint=hint)
    if "window" not in feature:
        yield DriftloopError("missing", where=f"{where}.window", hint='as in window = "30m"')
    if "max_age" in feature:
        yield DriftloopError(
            "events grow old by their window",
            where=f"{where}.max_age",
            hint="leave it out: max_age is for tables",
        )
    if isinstance(key, str) and source.fields.get(key) != "categorical":
        what = f"{source.name} has no categorical field {key!r}"
        yield DriftloopError(what, where=f"{where}.key", hint=fields)
    if aggregate not in get_args(Aggregate):
        return
    yield from _bad_field(f"{where}.of", str(aggregate), of, source)
    made = source.fields.get(str(of), "numeric") if aggregate == "last" else "numeric"
    if kind in ("numeric", "categorical") and kind != made:
        yield DriftloopError(f"its values are {made}", where=f"{where}.kind")


def _bad_field(where: str, aggregate: str, of: object, source: Source) -> Iterator[DriftloopError]:
    fields = f"fields of {source.name}: {', '.join(source.fields)}"
    if aggregate in OF_EVENTS:
        if of is not None:
            yield DriftloopError(
                f"a {aggregate} is of the events, and of no field",
                where=where,
                hint="leave it out",
            )
    elif of is None:
        hint = f"name it, as in of = ...; {fields}"
        yield DriftloopError(f"{aggregate} needs a field", where=where, hint=hint)
    elif isinstance(of, str) and of not in source.fields:
        yield DriftloopError(f"{source.name} has no field {of!r}", where=where, hint=fields)
    elif isinstance(of, str) and (
        source.fields[of] != "numeric" and aggregate not in ("last", "distinct")
    ):
        yield DriftloopError(
            f"{aggregate} is of numbers, and {of!r} is categorical",
            where=where,
            hint="of categories there are last and distinct",
        )


def _bad_expressions(features: Mapping[str, Any]) -> Iterator[DriftloopError]:
    parsed: dict[str, Expression] = {}
    for name, feature in features.items():
        if not isinstance(feature.get("expression"), str):
            continue
        where = f"features.{name}.expression"
        try:
            parsed[name] = parse(feature["expression"])
        except ValueError as error:
            yield DriftloopError(str(error), where=where)
            continue
        usable = [n for n, f in features.items() if f.get("kind") in SENT and n != name]
        for unknown in (each for each in parsed[name].names if each not in usable):
            what = "is itself" if unknown == name else "is no feature to compute with"
            yield DriftloopError(
                f"{unknown!r} {what}", where=where, hint=f"known: {', '.join(usable)}"
            )
    yield from _bad_kinds(features, parsed)
    yield from _cycles(parsed)


def _bad_kinds(
    features: Mapping[str, Any], parsed: Mapping[str, Expression]
) -> Iterator[DriftloopError]:
    kinds = {name: f["kind"] for name, f in features.items() if f.get("kind") in SENT}
    for name, expression in parsed.items():
        if any(used not in kinds for used in expression.names):
            continue
        where, said = f"features.{name}", kinds.get(name)
        try:
            found = kind_of(expression, kinds)
        except ValueError as error:
            yield DriftloopError(str(error), where=f"{where}.expression")
            continue
        if found == "condition":
            yield DriftloopError(
                "is a condition, and no value",
                where=f"{where}.expression",
                hint="as in 1 if a > b else 0",
            )
        elif said in ("numeric", "categorical") and found != said:
            yield DriftloopError(f"its values are {found}", where=f"{where}.kind")


def _cycles(parsed: Mapping[str, Expression]) -> Iterator[DriftloopError]:
    left = {name: set(each.names) & parsed.keys() for name, each in parsed.items()}
    while ready := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in ready:
            del left[name]
    for name, needs in left.items():
        # Not those that only need one of a cycle.
        if name not in needs and name in _reached(name, left):
            yield DriftloopError(
                "needs itself, by way of others",
                where=f"features.{name}.expression",
                hint=f"the cycle is among {', '.join(sorted(left))}",
            )


def _reached(start: str, needs: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    new = set(needs[start])
    while new:
        found |= new
        new = {name for each in new for name in needs.get(each, ())} - found
    return found
