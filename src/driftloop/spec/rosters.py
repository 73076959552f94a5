"""What each value alone does not show of who is told: of calendars, and of the tree of routes."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from difflib import get_close_matches
from itertools import combinations, product

from driftloop.errors import DriftloopError
from driftloop.records import PLATFORM, Origin, Severity
from driftloop.spec.people import DEFAULTS, Owner, Paging, Route, Routes, fits, inherited
from driftloop.spec.schema import Family

Places = Sequence[tuple[str, str]]
"""Families with their markets, one by one; driftloop itself has the market ""."""
Path = tuple[int, ...]
"""The places of a route and of those around it, outermost first."""


def bad_owner(name: str, owner: Owner) -> Iterator[DriftloopError]:
    """Yield what is wrong with an owner's calendar; `where` begins with `name`."""
    if owner.on_call is None:
        return
    overrides = owner.on_call.overrides
    spans = [(owner.moment(each.start), owner.moment(each.until)) for each in overrides]
    for place, (start, until) in enumerate(spans):
        if until <= start:
            yield DriftloopError(
                "ends before it begins", where=f"{name}.on_call.overrides.{place}.until"
            )
    for (a, one), (b, other) in combinations(enumerate(spans), 2):
        if max(one[0], other[0]) < min(one[1], other[1]):
            yield DriftloopError(
                f"overlaps with overrides.{a}: two would be on call",
                where=f"{name}.on_call.overrides.{b}",
            )


def bad_routes(
    routes: Routes, *, owners: frozenset[str], families: Sequence[Family]
) -> Iterator[DriftloopError]:
    """Yield what is wrong with the tree of routes; `where` is as in "routes.0.owner".

    Where there are no `owners` at all, that is the fault of their file.
    """
    places = [(family.name, market) for family in families for market in family.markets]
    places.append((PLATFORM, ""))
    yield from _bad_names(routes, owners)
    yield from _bad_paging(routes, DEFAULTS)
    unmatched = list(_bad_conditions(routes, places))
    yield from unmatched
    if not unmatched:
        yield from _unreached(routes, places)


def _bad_names(routes: Routes, owners: frozenset[str]) -> Iterator[DriftloopError]:
    for path, route in _walked(routes):
        named = () if route.owner is None else (("owner", route.owner),)
        for key, name in (*named, *(("escalate", each) for each in route.escalate or ())):
            if owners and name not in owners:
                near = get_close_matches(name, sorted(owners), n=1)
                known = f"known: {', '.join(sorted(owners))}"
                yield DriftloopError(
                    f"{name!r} is not in owners.toml",
                    where=_at(path, key),
                    hint=f"did you mean {near[0]!r}?" if near else known,
                )
        chain = route.escalate or ()
        for name in sorted({each for each in chain if chain.count(each) > 1}):
            yield DriftloopError(f"{name!r} stands twice", where=_at(path, "escalate"))
        if route.owner is not None and route.owner in chain:
            yield DriftloopError(
                f"{route.owner!r} is told first, and would come after itself",
                where=_at(path, "escalate"),
            )


def _bad_paging(
    route: Route, around: Paging, path: Path = (), *, chain: bool = False
) -> Iterator[DriftloopError]:
    """Yield what cannot be kept; `chain` says that somebody comes next in the route around it."""
    here = inherited(around, route)
    said = route.wait is not None or route.ack_within is not None
    wait = here.wait or timedelta()
    if said and here.ack_within is not None and here.ack_within <= wait:
        yield DriftloopError(
            "the next would be told before the first is: must be longer than wait",
            where=_at(path, "ack_within" if route.ack_within is not None else "wait"),
        )
    timed = here.ack_within is not None or any(each.ack_within for _, each in _walked(route))
    if route.escalate and not timed:
        yield DriftloopError(
            "says who comes next, and nothing says when",
            where=_at(path, "escalate"),
            hint='add ack_within, as in ack_within = "15m"',
        )
    chain = chain or bool(route.escalate)
    if (
        route.ack_within is not None
        and not chain
        and not any(e.escalate for _, e in _walked(route))
    ):
        yield DriftloopError(
            "says when the next is told, and nothing says who",
            where=_at(path, "ack_within"),
            hint="add escalate, a list of owners",
        )
    for place, inner in enumerate(route.routes):
        yield from _bad_paging(inner, here, (*path, place), chain=chain)


def _bad_conditions(route: Route, places: Places, path: Path = ()) -> Iterator[DriftloopError]:
    """Yield names that are no family's or market's, of those that the routes around let through."""
    for pattern in route.family:
        if not any(fits(pattern, family) for family, _ in places):
            yield _unmatched(pattern, "family", (family for family, _ in places), path)
    fitting = [
        place
        for place in places
        if not route.family or any(fits(pattern, place[0]) for pattern in route.family)
    ]
    for pattern in route.market if fitting else ():
        if not any(fits(pattern, market) for _, market in fitting):
            yield _unmatched(pattern, "market", (market for _, market in fitting), path)
    inside = [
        place
        for place in fitting
        if not route.market or any(fits(pattern, place[1]) for pattern in route.market)
    ]
    for number, inner in enumerate(route.routes if inside else ()):
        yield from _bad_conditions(inner, inside, (*path, number))


def _unmatched(pattern: str, key: str, names: Iterable[str], path: Path) -> DriftloopError:
    known = sorted({name for name in names if name})
    near = get_close_matches(pattern.removesuffix("*"), known, n=1)
    return DriftloopError(
        f"{pattern!r} is no {key} here",
        where=_at(path, key),
        hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}",
    )


def _unreached(routes: Routes, places: Places) -> Iterator[DriftloopError]:
    """Yield routes that nothing comes to, since those before them take all of it."""
    every = tuple(_walked(routes))
    # Places that fit the same conditions are one.
    kinds = {
        tuple(
            (
                tuple(fits(pattern, family) for pattern in route.family),
                tuple(fits(pattern, market) for pattern in route.market),
            )
            for _, route in every
        ): (family, market)
        for family, market in places
    }
    reached: set[Path] = {()}
    for (family, market), origin, severity in product(kinds.values(), Origin, Severity):
        route: Route = routes
        path: Path = ()
        while (place := route.first(family, market, origin, severity)) is not None:
            path = (*path, place)
            route = route.routes[place]
            reached.add(path)
    for path, _ in every:
        if path not in reached and path[:-1] in reached:
            yield DriftloopError(
                "is never reached: its conditions cannot all hold, or a route before it takes all"
                " that they fit",
                where=_at(path, ""),
                hint="the first route that fits is taken: put the narrower one first",
            )


def _walked(route: Route, path: Path = ()) -> Iterator[tuple[Path, Route]]:
    """Yield a route and all those in it, each with its path."""
    yield path, route
    for place, inner in enumerate(route.routes):
        yield from _walked(inner, (*path, place))


def _at(path: Path, key: str) -> str:
    return ".".join((*(f"routes.{place}" for place in path), *((key,) if key else ())))
