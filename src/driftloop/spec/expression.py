"""Expressions of computed features: what may stand in one, and of which kind its value is.

The syntax is Python's, and little of it: names of features, numbers and texts, `+ - * / // % **`,
comparisons, `and or not`, `a if b else c`, and the functions of `FUNCTIONS`. Null in, null out,
but for `coalesce`; what has no value, such as a division by zero, is null.
"""

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["numeric", "categorical", "condition"]

FUNCTIONS: Mapping[str, tuple[int, int | None]] = {
    "min": (2, None),
    "max": (2, None),
    "coalesce": (2, None),
    "abs": (1, 1),
    "exp": (1, 1),
    "log": (1, 1),
    "sqrt": (1, 1),
}
"""The functions, and how few and how many arguments each takes."""
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
LONGEST = 1_000
"""Characters; what is longer is a program."""
KNOWN = f"known: + - * / // % **, comparisons, and, or, not, a if b else c, {', '.join(FUNCTIONS)}"


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression, and the names in it in the order of their first use."""

    body: ast.expr
    names: tuple[str, ...]


def parse(text: str) -> Expression:
    """Return the expression that `text` is.

    Raises:
        ValueError: it is none; the message says what is wrong with it.

    >>> parse("delay / max(flights, 1)").names
    ('delay', 'flights')
    """
    if len(text) > LONGEST:
        msg = f"is longer than {LONGEST:,} characters"
        raise ValueError(msg)
    try:
        body = ast.parse(text.strip(), mode="eval").body
        _check(body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        msg = f"is no expression: {getattr(error, 'msg', 'it is nested too deeply')}"
        raise ValueError(msg) from error
    called = {id(node.func) for node in ast.walk(body) if isinstance(node, ast.Call)}
    found = [n for n in ast.walk(body) if isinstance(n, ast.Name) and id(n) not in called]
    found.sort(key=lambda node: (node.lineno, node.col_offset))
    return Expression(body, tuple(dict.fromkeys(node.id for node in found)))


def kind_of(expression: Expression, kinds: Mapping[str, str]) -> Kind:
    """Return of which kind its value is, `kinds` being those of its names.

    Raises:
        ValueError: kinds are mixed, as in the sum of a number and a text.

    >>> kind_of(parse("'late' if delay > 15 else 'well'"), {"delay": "numeric"})
    'categorical'
    """
    return _kind(expression.body, kinds)


def _check(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=value):
            _check_constant(node, value)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            fewest, most = FUNCTIONS[name]
            if len(args) < fewest or (most is not None and len(args) > most):
                msg = f"{name} takes {'one argument' if most else 'two arguments or more'}"
                raise ValueError(msg)
        case ast.Compare(ops=ops) if all(isinstance(op, COMPARISONS) for op in ops):
            pass
        case ast.BinOp(op=op) if isinstance(op, OPERATORS):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            pass
        case ast.Name() | ast.BoolOp() | ast.IfExp():
            pass
        case _:
            _refuse(node)
    for part in _parts(node):
        _check(part)


def _check_constant(node: ast.expr, value: object) -> None:
    if isinstance(value, str):
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(node)
    elif not math.isfinite(_number(value)):
        msg = f"{ast.unparse(node)[:60]} is too large"
        raise ValueError(msg)


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield from node.args
    else:
        yield from (part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))


def _refuse(node: ast.expr) -> None:
    msg = f"{ast.unparse(node)[:60]!r} may not stand in an expression ({KNOWN})"
    raise ValueError(msg)


def _kind(node: ast.expr, kinds: Mapping[str, str]) -> Kind:
    found: Kind = "numeric"
    match node:
        case ast.Name(id=name):
            found = "numeric" if kinds[name] == "numeric" else "categorical"
        case ast.Constant(value=str()):
            found = "categorical"
        case ast.Call(func=ast.Name(id="coalesce"), args=args):
            found = _same(args, kinds)
        case ast.Compare(left=left, ops=ops, comparators=others):
            ordered = not all(isinstance(op, ast.Eq | ast.NotEq) for op in ops)
            if _same([left, *others], kinds) != "numeric" and ordered:
                msg = f"texts are only equal or not: {ast.unparse(node)!r}"
                raise ValueError(msg)
            found = "condition"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            _all([test], "condition", kinds)
            found = _same([body, orelse], kinds)
        case _:
            logical = isinstance(node, ast.BoolOp) or (
                isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
            )
            found = "condition" if logical else "numeric"
            _all(list(_parts(node)), found, kinds)
    return found


def _same(nodes: list[ast.expr], kinds: Mapping[str, str]) -> Kind:
    first = _kind(nodes[0], kinds)
    if first == "condition":
        _all([nodes[0]], "numeric", kinds)
    _all(nodes[1:], first, kinds)
    return first


_WORDS = {"numeric": "a number", "categorical": "a text", "condition": "a condition"}


def _all(nodes: list[ast.expr], kind: Kind, kinds: Mapping[str, str]) -> None:
    for node in nodes:
        if (found := _kind(node, kinds)) != kind:
            msg = f"{ast.unparse(node)!r} is {_WORDS[found]} where {_WORDS[kind]} is needed"
            raise ValueError(msg)
