"""The same features as SQL for DuckDB: for much at once, and as the check of the operator."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import add, and_, eq, ge, gt, invert, le, lt, mul, ne, neg, or_, sub
from typing import Any

import ibis
import ibis.expr.types as ir

from driftloop.features.expressions import translated
from driftloop.features.operator import FEWEST, Layout, Windowed, layouts, windowed
from driftloop.spec import Family, Feature, Fleet

NEVER = 2**62
"""A position after all others."""
UNKNOWN = ibis.null("int64")


def bulk_sql(family: Family, fleet: Fleet, *, looked_up: Collection[str] | None = None) -> str:
    """Return a query for `row` and the features of `family` that are looked up or computed.

    It reads tables of these names, with times as microseconds since 1970 (BIGINT) called `at`:

    - `rows`: `row`, unique; `at`; `position`, up to which events had come when the row was read,
      or null where all of them count by their time alone; and the features that are sent.
    - `<source>_events` for streams, see `Source.table`: `position`, `at`, and the fields.
    - `<source>` for tables: the key, the columns, and, if the source has a `time`, `at`.

    An event is one row, whatever the number of its copies in the log; a table without a `time` has
    each key once. The cost grows with the number of events in the longest window of a row.

    Args:
        family: whose features.
        fleet: knows the sources.
        looked_up: only these are looked up, and the others are columns of `rows` too.
    """
    wanted = family.looked_up.keys() if looked_up is None else set(looked_up)
    as_given = [name for name in family.features if name not in {*wanted, *family.computed}]
    columns = {"row": "int64", "at": "int64", "position": "int64"}
    columns |= {name: _type(family.features[name].kind) for name in as_given}
    rows = ibis.table(columns, name="rows")
    whole: Any = rows
    known = layouts(fleet)
    for place, features in windowed(family).items():
        if mine := [feature for feature in features if feature.name in wanted]:
            found = _windows(rows, known[place], mine, fleet)
            whole = whole.left_join(found, "row").drop("row_right")
    for source in {str(family.looked_up[name].source) for name in wanted}:
        mine_of = {n: f for n, f in family.looked_up.items() if n in wanted and f.source == source}
        if fleet.sources[source].kind == "table":
            found = _columns(rows, mine_of, fleet)
            whole = whole.left_join(found, "row").drop("row_right")
    substitutes = {name: family.features[name].substitute for name in wanted}
    whole = whole.mutate(
        **{n: whole[n].fill_null(value) for n, value in substitutes.items() if value is not None}
    )
    for name, feature in family.computed.items():
        steps = _Steps(whole, name)
        made = translated(str(feature.expression), steps)
        whole = steps.table.mutate(**{name: steps.table[made]})
    answered = [name for name in family.features if name in {*wanted, *family.computed}]
    return str(ibis.to_sql(whole.select("row", *answered).order_by("row"), dialect="duckdb"))


def _type(kind: str) -> str:
    return "float64" if kind == "numeric" else "string"


def _windows(
    rows: ir.Table, layout: Layout, features: Sequence[Windowed], fleet: Fleet
) -> ir.Table:
    """Return `row` and its features that are made of the events of one source by one key."""
    source = fleet.sources[layout.source]
    columns = {"position": "int64", "at": "int64"}
    columns |= {name: _type(kind) for name, kind in source.fields.items()}
    events = ibis.table(columns, name=f"{source.table}_events")
    events = events.filter(events[layout.key].notnull())
    in_order = ibis.cumulative_window(group_by=layout.key, order_by="position")
    events = events.mutate(newest=events["at"].max().over(in_order))
    counted = _in_time(events, layout)
    asked = _asked(rows, events, layout)
    pairs = _paired(asked, counted, layout, max(feature.window for feature in features))
    made = pairs.group_by("row").aggregate(
        **{feature.name: _aggregate(pairs, feature) for feature in features}
    )
    joined = asked.left_join(made, "row")
    values: dict[str, Any] = {}
    for feature in features:
        value = joined[feature.name]
        if feature.aggregate not in FEWEST:
            value = value.fill_null(0.0)
        values[feature.name] = ibis.ifelse(joined["known"], value, ibis.null(value.type()))
    return joined.select("row", **values)


def _asked(rows: ir.Table, events: ir.Table, layout: Layout) -> ir.Table:
    """Return row, at, key, up to which position it counts, and whether it can have values.

    Rows stand among the events in the order of positions, so that a running maximum tells what
    was the newest of the key. (DuckDB may plan the as-of join that says the same as a loop.)
    """
    reading = rows.select(
        "row", "at", key=rows[layout.key], upto=rows["position"].fill_null(NEVER), newest=UNKNOWN
    )
    came = events.select(
        row=UNKNOWN,
        at=UNKNOWN,
        key=events[layout.key],
        upto=events["position"],
        newest=events["at"],
    )
    both = ibis.union(reading, came)
    # At one position the event comes before its readers.
    in_order = ibis.cumulative_window(
        group_by="key", order_by=["upto", both["row"].asc(nulls_first=True)]
    )
    both = both.mutate(newest=both["newest"].max().over(in_order))
    asked = both.filter(both["row"].notnull())
    soon = asked["newest"].isnull() | (asked["at"] >= asked["newest"] - layout.lateness)
    known = asked["key"].notnull() & ((asked["upto"] == NEVER) | soon)
    return asked.select("row", "at", "key", "upto", known=known)


def _in_time(events: ir.Table, layout: Layout) -> ir.Table:
    """Return the events that were not late when they came, ranked by time and position."""
    in_order = ibis.window(group_by=layout.key, order_by="position")
    earlier = events.mutate(before=events["newest"].lag(1).over(in_order))
    counted = earlier.filter(
        earlier["before"].isnull() | (earlier["at"] >= earlier["before"] - layout.lateness)
    )
    by_time = ibis.window(group_by=layout.key, order_by=["at", "position"])
    return counted.mutate(rank=ibis.row_number().over(by_time))


def _paired(asked: ir.Table, events: ir.Table, layout: Layout, longest: int) -> ir.Table:
    """Return each row beside every event of its key that is in its longest window.

    They meet in pieces of time as long as that window, so that no row meets the whole history.
    """
    fields = {f"_{name}": events[name] for name in (*layout.numeric, *layout.categorical)}
    piece = events["at"] // longest
    own = events.select(
        "rank",
        then=events["at"],
        came=events["position"],
        of=events[layout.key],
        piece=piece,
        **fields,
    )
    next_piece = own.mutate(piece=own["piece"] + 1)
    both = ibis.union(own, next_piece)
    asked = asked.mutate(piece=asked["at"] // longest)
    return asked.inner_join(
        both,
        [
            asked["key"] == both["of"],
            asked["piece"] == both["piece"],
            both["then"] <= asked["at"],
            both["then"] > asked["at"] - longest,
            both["came"] <= asked["upto"],
        ],
    )


def _aggregate(pairs: ir.Table, feature: Windowed) -> ir.Scalar:
    inside = pairs["then"] > pairs["at"] - feature.window
    if feature.of is None:
        count = pairs.count(where=inside).cast("float64")
        return count if feature.aggregate == "count" else count / (feature.window / 1e6)
    column: Any = pairs[f"_{feature.of}"]
    match feature.aggregate:
        case "sum" | "mean" | "min" | "max":
            return getattr(column, feature.aggregate)(where=inside)
        case "std":
            return column.std(where=inside, how="sample")
        case "distinct":
            return column.nunique(where=inside).cast("float64")
        case _:
            return column.argmax(pairs["rank"], where=inside & column.notnull())


def _columns(rows: ir.Table, features: Mapping[str, Feature], fleet: Fleet) -> ir.Table:
    """Return `row` and its features that are columns of one table, as of the row's time."""
    source = fleet.sources[str(next(iter(features.values())).source)]
    key = str(source.key)
    columns = {key: "string", **{str(f.of): _type(f.kind) for f in features.values()}}
    if source.time is not None:
        columns["at"] = "int64"
    table = ibis.table(columns, name=source.table)
    given = table.select(
        of=table[key],
        **{f"_{name}": table[str(f.of)] for name, f in features.items()},
        **({"since": table["at"]} if source.time is not None else {}),
    )
    asked = rows.select("row", "at", key=rows[key])
    if source.time is None:
        joined = asked.left_join(given, asked["key"] == given["of"])
    else:
        joined = asked.asof_join(given, asked["at"] >= given["since"], asked["key"] == given["of"])
    return joined.select("row", **{name: joined[f"_{name}"] for name in features})


class _Steps:
    """An expression as columns, one a step: as one piece of SQL it would grow beyond measure."""

    def __init__(self, table: ir.Table, name: str) -> None:
        self.table = table
        self._name = name
        self._count = 0

    def name(self, name: str) -> str:
        return name

    def constant(self, value: float | str) -> str:
        return self._step(ibis.literal(value, "string" if isinstance(value, str) else "float64"))

    def apply(self, operation: str, operands: Sequence[str]) -> str:
        values = [self.table[operand] for operand in operands]
        if operation == "if":
            test, body, other = values
            return self._step(ibis.cases((test, body), (~test, other), else_=None))
        if operation == "coalesce":
            return self._step(ibis.coalesce(*values))
        made = _sql(operation, values)
        if operation in ("and", "or", "min", "max"):
            # SQL's own would make something of some nulls.
            every = reduce(and_, [value.notnull() for value in values])
            made = ibis.ifelse(every, made, ibis.null(made.type()))
        step = self._step(made)
        if not made.type().is_floating():
            return step
        value = self.table[step]
        return self._step(ibis.ifelse(value.isinf() | value.isnan(), ibis.null("float64"), value))

    def _step(self, value: Any) -> str:  # noqa: ANN401 - a column
        self._count += 1
        name = f"{self._name}.{self._count}"
        self.table = self.table.mutate(**{name: value})
        return name


def _sql(operation: str, operands: Sequence[Any]) -> Any:  # noqa: ANN401 - a value
    """Return what SQL makes of operands; where it would raise an error they become null."""
    first = operands[0]
    match operation:
        case "%":
            return first - operands[1] * _floor(first / operands[1].nullif(0.0))
        case "log":
            return ibis.ifelse(first > 0.0, first, ibis.null("float64")).ln()
        case "sqrt":
            return ibis.ifelse(first >= 0.0, first, ibis.null("float64")).sqrt()
        case _:
            return _PLAIN[operation](*operands)


def _floor(value: Any) -> Any:  # noqa: ANN401 - a value
    """Return the largest whole number up to a float; very large ones are whole, and no BIGINT."""
    return ibis.ifelse(value.abs() < WHOLE, value.floor().cast("float64"), value)


WHOLE = 2.0**53
_PLAIN: Mapping[str, Callable[..., Any]] = {
    "/": lambda a, b: a / b.nullif(0.0),
    "//": lambda a, b: _floor(a / b.nullif(0.0)),
    "min": ibis.least,
    "max": ibis.greatest,
    "and": lambda *values: reduce(and_, values),
    "or": lambda *values: reduce(or_, values),
    "exp": lambda value: value.exp(),
    "abs": lambda value: value.abs(),
    "+": add,
    "-": sub,
    "*": mul,
    "**": pow,
    "negative": neg,
    "positive": lambda value: value,
    "not": invert,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
    "==": eq,
    "!=": ne,
}
