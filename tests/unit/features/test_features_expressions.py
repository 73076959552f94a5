"""Computed features: null in, null out, and the same in Python as in SQL."""

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.features.bulk import bulk_sql
from driftloop.features.completion import Completion
from driftloop.features.expressions import function
from driftloop.spec import Family, Feature, Fleet


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + 2 * b", 5.0),
        ("(a - b) / b", -0.5),
        ("-a // 2", -1.0),
        ("-a % 3", 2.0),
        ("b ** 3 + abs(-a)", 9.0),
        ("min(a, b, 0) + max(a, b)", 2.0),
        ("sqrt(b * 8) + exp(0) + log(1)", 5.0),
        ("1 if a < b <= 2 and not a == b else 0", 1.0),
        ("coalesce(missing, a)", 1.0),
        ("'one' if word == 'x' or a > b else 'other'", "one"),
        ("a / 0", None),
        ("a % 0", None),
        ("log(0)", None),
        ("sqrt(-a)", None),
        ("exp(1e6)", None),
        ("1e308 * 10 - 1e308", None),
        ("(-8) ** 0.5", None),
        ("0 ** -1", None),
        ("min(a, missing)", None),
        ("1 if missing > 0 else 2", None),
        ("1 if a > 0 or missing > 0 else 2", None),
        ("coalesce(a / 0, missing, 5)", 5.0),
        ("b if a > 0 else missing", 2.0),
    ],
)
def test_what_an_expression_gives(text: str, expected: object) -> None:
    """What has no value is null, and null comes of null, but for coalesce."""
    assert function(text)({"a": 1.0, "b": 2.0, "missing": None, "word": "x"}) == expected


NUMBERS = st.one_of(
    st.sampled_from(["a", "b", "c", "0", "1", "2.5", "1e200"]),
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    conditions = st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["<", "<=", "==", "!="]), inner),
        st.builds("({0} > {1} and {1} > 0 or not {0} >= 1)".format, inner, inner),
    )
    return st.one_of(
        st.builds(
            "({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner
        ),
        st.builds("({} ** {})".format, inner, st.sampled_from(["2", "0.5", "-1", "a"])),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max", "coalesce"]), inner, inner),
        st.builds("{}({})".format, st.sampled_from(["abs", "sqrt", "log", "exp", "-"]), inner),
        st.builds("({} if {} else {})".format, inner, conditions, inner),
    )


VALUES = (None, 0.0, 1.0, -1.0, 0.3, -2.75, 1e6)


@settings(
    max_examples=30, deadline=None, derandomize=True
)  # a rounding under a // is a whole number
@given(text=st.recursive(NUMBERS, _larger, max_leaves=8))
def test_python_and_sql_compute_the_same(eta: Family, looking: Fleet, text: str) -> None:
    """Whatever the expression, and whatever of its features is null, zero or negative."""
    numeric = Feature(kind="numeric")
    computed = Feature(kind="numeric", expression=text)
    family = eta.model_copy(
        update={"features": {"a": numeric, "b": numeric, "c": numeric, "made": computed}}
    )
    triples = [(a, b, c) for a in VALUES for b in VALUES for c in (None, 2.0)]
    count = len(triples)
    rows = pa.table(
        {
            "row": range(count),
            "at": [0] * count,
            "position": pa.nulls(count, pa.int64()),
            **{n: pa.array([t[i] for t in triples], pa.float64()) for i, n in enumerate("abc")},
        }
    )
    with duckdb.connect() as con:
        con.register("rows", rows)
        found = con.execute(bulk_sql(family, looking)).to_arrow_table()["made"].to_pylist()
    made = function(text)
    for triple, in_sql in zip(triples, found, strict=True):
        in_python = made(dict(zip("abc", triple, strict=True)))
        if in_python is None:
            assert in_sql is None, triple
        else:
            assert in_sql == pytest.approx(in_python, rel=1e-9, abs=1e-300), triple


def test_a_row_is_made_whole(eta: Family) -> None:
    """Fallbacks stand for what was not found and are told; what is computed comes after them."""
    sent = dict.fromkeys(eta.features)
    whole = Completion(eta).of(sent, {"age": None, "delay_sum_30m": 6.0, "delay_count_60m": 4.0})
    assert (whole.features["age"], whole.features["share"]) == (1.5, 1.5)
    assert whole.features["carrier_last"] == "none"
    assert "age" in whole.fallbacks
    assert "delay_sum_30m" not in whole.fallbacks
    assert tuple(whole.features) == tuple(eta.features)
    assert whole.refused == ()


def test_a_row_may_be_refused_for_what_was_not_found(eta: Family) -> None:
    """Where the declaration says so, and then only for these."""
    age = eta.features["age"].model_copy(update={"fallback": "refuse"})
    strict = eta.model_copy(update={"features": {**eta.features, "age": age}})
    completion = Completion(strict)
    assert completion.of({}, {}).refused == ("age",)
    assert completion.of({}, {"age": 2.0}).refused == ()
