"""Expressions of computed features: one reading of them, made into Python and into SQL."""

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from driftloop.records import FeatureValue
from driftloop.spec import parse

Value = FeatureValue | bool
Row = Mapping[str, FeatureValue]
T = TypeVar("T")


class Algebra(Protocol[T]):
    """What an expression is made of in one language."""

    def name(self, name: str) -> T:
        """Return the feature called `name`."""
        ...

    def constant(self, value: float | str) -> T:
        """Return a number or a text."""
        ...

    def apply(self, operation: str, operands: Sequence[T]) -> T:
        """Return what one of `OPERATIONS` makes of its operands."""
        ...


def function(text: str) -> Callable[[Row], FeatureValue]:
    """Return the expression `text` as a function of a row's features.

    Raises:
        ValueError: it is no expression; see `driftloop.spec`.

    >>> ratio = function("delay / max(flights, 1)")
    >>> ratio({"delay": 30.0, "flights": 4.0}), ratio({"delay": 30.0, "flights": None})
    (7.5, None)
    """
    made = translated(text, _PYTHON)

    def value(row: Row) -> FeatureValue:
        found = made(row)
        return float(found) if isinstance(found, bool | int) else found

    return value


def translated(text: str, algebra: Algebra[T]) -> T:
    """Return the expression `text` in the language of `algebra`.

    Raises:
        ValueError: it is no expression.
    """
    return _translated(parse(text).body, algebra)


_OPERATORS: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.USub: "negative",
    ast.UAdd: "positive",
    ast.Not: "not",
    ast.And: "and",
    ast.Or: "or",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
OPERATIONS = (
    *_OPERATORS.values(),
    *("if", "coalesce", "min", "max", "abs", "exp", "log", "sqrt"),
)
"""`if` takes a condition and two values."""


def _translated(node: ast.expr, algebra: Algebra[T]) -> T:
    operation, parts = "", [p for p in ast.iter_child_nodes(node) if isinstance(p, ast.expr)]
    match node:
        case ast.Name(id=name):
            return algebra.name(name)
        case ast.Constant(value=str() | int() | float() as value):
            return algebra.constant(value if isinstance(value, str) else float(value))
        case ast.Compare(ops=ops):
            sides = [_translated(part, algebra) for part in parts]
            each = [
                algebra.apply(_OPERATORS[type(op)], sides[n : n + 2]) for n, op in enumerate(ops)
            ]
            return each[0] if len(each) == 1 else algebra.apply("and", each)
        case ast.IfExp():
            operation = "if"
        case ast.Call(func=ast.Name(id=name), args=args):
            operation, parts = name, args
        case ast.BinOp(op=op) | ast.UnaryOp(op=op) | ast.BoolOp(op=op):
            operation = _OPERATORS[type(op)]
    return algebra.apply(operation, [_translated(part, algebra) for part in parts])


def _remainder(a: float, b: float) -> float:
    return a - b * math.floor(a / b)


def _all(*conditions: bool) -> bool:
    return all(conditions)


def _any(*conditions: bool) -> bool:
    return any(conditions)


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": lambda a, b: float(math.floor(a / b)),
    "%": _remainder,
    "**": math.pow,
    "negative": operator.neg,
    "positive": operator.pos,
    "not": operator.not_,
    "and": _all,
    "or": _any,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "min": min,
    "max": max,
    "abs": abs,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
}

_Made = Callable[[Row], Value]


class _Python:
    """Functions of a row; each gives null where one of its operands is, or it has no value."""

    def name(self, name: str) -> _Made:
        return lambda row: row[name]

    def constant(self, value: float | str) -> _Made:
        return lambda _: value

    def apply(self, operation: str, operands: Sequence[_Made]) -> _Made:
        if operation == "if":
            test, body, other = operands
            return lambda row: None if (at := test(row)) is None else (body if at else other)(row)
        if operation == "coalesce":
            return lambda row: next((v for o in operands if (v := o(row)) is not None), None)
        made = _FUNCTIONS[operation]

        def value(row: Row) -> Value:
            values = [operand(row) for operand in operands]
            if None in values:
                return None
            try:
                found = made(*values)
            except (ArithmeticError, ValueError):
                return None
            return None if isinstance(found, float) and not math.isfinite(found) else found

        return value


_PYTHON: Algebra[_Made] = _Python()
