import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftloop.errors import BadRequest
from driftloop.records import Label, ModelId
from driftloop.serve import request
from driftloop.serve.request import (
    LONGEST_TEXT,
    LONGEST_WORD,
    BadRows,
    Fault,
    Given,
    NotJson,
    RowReader,
    parse_labels,
    parse_rows,
)
from driftloop.spec import Family, Feature, load_fleet

ETA = load_fleet(Path(__file__).parents[2] / "monitors").family_named("eta")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROW = {"id": "a", "asked_at": "2026-03-01T10:00:00Z", "distance": 12, "load": 0.5, "vehicle": "van"}


def faults(family: Family, body: object) -> list[tuple[int | None, str, str]]:
    """Return row, field and what of each fault that `body` is refused for."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(BadRows) as raised:
        parse_rows(family, sent, now=NOW, whole=True)
    return [(fault.row, fault.field, fault.what) for fault in raised.value.faults]


def test_one_row_and_many_read_alike(eta: Family) -> None:
    """A bare row and a list of one are the same request; times come out in UTC."""
    one = parse_rows(eta, json.dumps(ROW).encode(), now=NOW).rows
    assert one == parse_rows(eta, json.dumps({"rows": [ROW]}).encode(), now=NOW).rows
    assert one[0].id == "a"
    assert one[0].event_time == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert one[0].features == {"distance": 12.0, "load": 0.5, "vehicle": "van"}
    assert isinstance(one[0].features["distance"], float)


def looking(eta: Family) -> Family:
    """Return the family with a key, and with features that callers do not send."""
    more = {
        "town": {"kind": "key", "required": True},
        "busy": {"kind": "numeric", "from": "towns", "key": "town", "of": "busy"},
        "twice": {"kind": "numeric", "expression": "load * 2"},
    }
    made = {name: Feature.model_validate(each) for name, each in more.items()}
    return eta.model_copy(update={"features": {**made, **eta.features}})


def test_rows_have_room_for_what_is_not_sent(eta: Family) -> None:
    """Each feature stands in the family's order, null until it is looked up or computed."""
    body = json.dumps({**ROW, "town": "Ulm"}).encode()
    family = looking(eta)
    (careful,) = parse_rows(family, body, now=NOW).rows
    (quick,) = RowReader(family).read(body, now=NOW).rows
    assert careful == quick
    assert list(quick.features) == list(family.features)
    assert (quick.features["town"], quick.features["busy"]) == ("Ulm", None)


def test_what_is_looked_up_or_computed_is_refused(eta: Family) -> None:
    """It is not the caller's to send; a key that is required is."""
    assert faults(looking(eta), {**ROW, "busy": 1.0, "twice": 2.0}) == [
        (0, "busy", "is looked up"),
        (0, "twice", "is computed"),
        (0, "town", "is required"),
    ]


def test_what_is_absent_is_null_and_ids_are_made(eta: Family) -> None:
    """An optional feature that is absent, null or an empty category is null; ids are unlike."""
    row = {"asked_at": "2026-03-01T10:00:00+01:00", "distance": 1}
    rows = parse_rows(
        eta, json.dumps({"rows": [row, {**row, "load": None, "vehicle": ""}]}).encode(), now=NOW
    ).rows
    assert [each.features for each in rows] == [
        {"distance": 1.0, "load": None, "vehicle": None}
    ] * 2
    assert rows[0].event_time == datetime(2026, 3, 1, 9, tzinfo=UTC)
    assert len({each.id for each in rows}) == 2


def test_a_value_outside_its_range_is_answered(eta: Family) -> None:
    """A range is a quality limit: the row is read, and the reading will say so."""
    (row,) = parse_rows(eta, json.dumps({**ROW, "distance": -4e9}).encode(), now=NOW).rows
    assert row.features["distance"] == pytest.approx(-4e9)


@pytest.mark.parametrize(
    ("change", "field", "what"),
    [
        ({"distnace": 1}, "distnace", "unknown field"),
        ({"distance": "12"}, "distance", "should be a number, got the string '12'"),
        ({"distance": ""}, "distance", "should be a number, got the string ''"),
        ({"distance": True}, "distance", "should be a number, got True"),
        ({"distance": float("nan")}, "distance", "is NaN"),
        ({"distance": float("-inf")}, "distance", "is infinite, or too large for"),
        ({"distance": 1e39}, "distance", "is infinite, or too large for"),
        ({"distance": 10**400}, "distance", "is infinite, or too large for"),
        ({"distance": None}, "distance", "is required"),
        ({"distance": [1]}, "distance", "should be a number, got a list of 1"),
        ({"vehicle": 3}, "vehicle", "should be a string, got 3"),
        ({"asked_at": "2026-03-01T10:00:00"}, "asked_at", "should have a time zone"),
        ({"asked_at": "yesterday"}, "asked_at", "should be an ISO 8601 time"),
        ({"asked_at": 1772359200}, "asked_at", "should be an ISO 8601 time"),
        ({"asked_at": "0001-01-01T00:00:00+14:00"}, "asked_at", "is outside the calendar"),
        ({"asked_at": None}, "asked_at", "is required"),
        ({"asked_at": "2027-03-02T00:00:01Z"}, "asked_at", "is more than 366 days after the ser"),
        ({"asked_at": "9999-12-31T23:59:59Z"}, "asked_at", "is more than 366 days after the ser"),
        ({"asked_at": "1899-12-31T23:59:59Z"}, "asked_at", "is before the year 1900"),
        ({"id": 7}, "id", "should be a string of 1 to 200 characters, got 7"),
        ({"id": ""}, "id", "should be a string of 1 to 200 characters"),
    ],
)
def test_one_fault_is_named_by_row_and_field(
    eta: Family, change: dict[str, Any], field: str, what: str
) -> None:
    """Each kind of fault names its row and field and says what was wrong; it is the only one."""
    found = faults(eta, {"rows": [{**ROW, "id": "b"}, {**ROW, **change}]})
    assert [(row, name) for row, name, _ in found] == [(1, field)]
    assert found[0][2].startswith(what)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e39])
def test_advice_is_to_send_what_will_be_taken(eta: Family, value: float) -> None:
    """Null where a value may be missing, and never where it would be refused as well."""
    body = json.dumps({**ROW, "distance": value, "load": value}).encode()
    with pytest.raises(BadRows) as raised:
        parse_rows(eta, body, now=NOW)
    assert [(fault.field, fault.hint) for fault in raised.value.faults] == [
        ("distance", "it is required: give it a finite number"),
        ("load", "if it is not known send null, or leave it out"),
    ]


def test_a_misspelt_field_is_answered_with_the_nearest_name(eta: Family) -> None:
    """The hint of an unknown field is the name that was probably meant."""
    with pytest.raises(BadRows) as raised:
        parse_rows(eta, json.dumps({**ROW, "distnace": 1}).encode(), now=NOW)
    assert raised.value.faults == (
        Fault(0, "distnace", "unknown field", "did you mean 'distance'?"),
    )
    assert str(raised.value) == "rows[0], distnace: unknown field (hint: did you mean 'distance'?)"


def test_every_fault_is_told_at_once(eta: Family) -> None:
    """All faults of all rows come in one answer, in the order of the rows."""
    found = faults(eta, {"rows": [{"distance": "x"}, 3, {**ROW, "load": "y", "speed": 1}]})
    assert [each[:2] for each in found] == [
        (0, "distance"),
        (0, "asked_at"),
        (1, ""),
        (2, "load"),
        (2, "speed"),
    ]


def test_many_faults_are_counted_and_the_first_told(eta: Family) -> None:
    """Twenty faults are told, the others counted."""
    with pytest.raises(BadRows) as raised:
        parse_rows(
            eta,
            json.dumps({"rows": [{**ROW, "id": str(n), "x": 1} for n in range(500)]}).encode(),
            now=NOW,
        )
    assert (len(raised.value.faults), raised.value.total) == (20, 500)


def test_an_id_may_stand_only_once(eta: Family) -> None:
    """The second row with an id is the one at fault, also beside a faulty row."""
    rows = [{"id": "z"}, ROW, {**ROW, "id": "b"}, ROW]
    assert (3, "id", "the string 'a' stands twice in the request") in faults(eta, {"rows": rows})


def test_of_several_rows_those_without_fault_are_read(eta: Family) -> None:
    """Rows at fault are None in their places and named; all of them are one refusal."""
    rows = [ROW, {**ROW, "id": "b", "load": "x"}, 3, {**ROW, "id": "c"}, ROW]
    given = parse_rows(eta, json.dumps({"rows": rows}).encode(), now=NOW)
    assert [each and each.id for each in given.rows] == ["a", None, None, "c", None]
    assert [(fault.row, fault.field) for fault in given.bad.faults] == [
        (1, "load"),
        (2, ""),
        (4, "id"),
    ]
    with pytest.raises(BadRows, match="should be a number"):
        parse_rows(eta, json.dumps({"rows": rows[1:3]}).encode(), now=NOW)
    with pytest.raises(BadRows, match="3 faults in all"):
        parse_rows(eta, json.dumps({"rows": rows}).encode(), now=NOW, whole=True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rows": []}, "rows"),
        ({"rows": 3}, "rows"),
        ({"rows": [ROW], "distance": 3}, "distance"),
        ({"rows": [{}] * 10_001}, "rows"),
        ([ROW], ""),
        (3, ""),
    ],
)
def test_a_request_at_fault_is_named_without_a_row(eta: Family, body: object, field: str) -> None:
    """What is wrong with the request as a whole has no row."""
    assert [each[:2] for each in faults(eta, body)] == [(None, field)]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"id": "\\ud800"}', b"a=1"])
def test_what_is_not_json_is_told_apart(eta: Family, body: bytes) -> None:
    """A body that is not JSON is not a matter of fields; a lone surrogate in a usable row too."""
    sent = body.replace(b'"}', b'", "asked_at": "2026-03-01T10:00Z", "distance": 1}')
    with pytest.raises(NotJson, match="the body is not JSON"):
        parse_rows(eta, sent, now=NOW)


def test_labels_are_read(churn: Family) -> None:
    """One label or many; a label without a time was observed now."""
    model = ModelId("churn-uk")
    at = "2026-02-01T00:00:00Z"
    many = {"labels": [{"id": "a", "value": 1}, {"id": "b", "value": 0.0, "observed_at": at}]}
    assert parse_labels(churn, model, json.dumps(many).encode(), now=NOW) == [
        Label(id="a", model=model, value=1.0, observed_at=NOW),
        Label(id="b", model=model, value=0.0, observed_at=datetime(2026, 2, 1, tzinfo=UTC)),
    ]
    one = parse_labels(churn, model, b'{"id": "a", "value": 1}', now=NOW)
    assert one == [Label(id="a", model=model, value=1.0, observed_at=NOW)]


def test_labels_at_fault_are_named(churn: Family, eta: Family) -> None:
    """A binary label is 0 or 1, a label is finite, and needs its id; each fault has its row."""
    labels = [
        {"id": "a", "value": 0.5},
        {"id": "b", "value": True},
        {"value": 1},
        {"id": "c"},
        {"id": "d", "value": 1, "observed_at": "2026-02-01"},
        {"id": "e", "value": 1, "vlaue": 1},
        {"id": "a", "value": 1},
        {"id": "f", "value": 1, "observed_at": "2026-03-02T00:00:01Z"},
        {"id": "g", "value": 1, "observed_at": "1899-12-31T23:59:59Z"},
    ]
    with pytest.raises(BadRows, match=r"^labels\[0\], value: should be 0 or 1") as raised:
        parse_labels(churn, ModelId("churn-uk"), json.dumps({"labels": labels}).encode(), now=NOW)
    assert [(fault.row, fault.field) for fault in raised.value.faults] == [
        (0, "value"),
        (1, "value"),
        (2, "id"),
        (3, "value"),
        (4, "observed_at"),
        (5, "vlaue"),
        (7, "observed_at"),
        (8, "observed_at"),
        (6, "id"),
    ]
    with pytest.raises(BadRows, match=r"is NaN \(hint: send it once it is known\)"):
        parse_labels(eta, ModelId("eta-de"), b'{"id": "a", "value": NaN}', now=NOW)
    assert parse_labels(eta, ModelId("eta-de"), b'{"id": "a", "value": -3.5}', now=NOW)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes().map(datetime.isoformat)
    | st.just("2026-03-01T10:00:00Z"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(
    ["id", "asked_at", "distance", "load", "vehicle", "rows", "value", "labels"]
)
row = st.dictionaries(names | st.text(max_size=5), anything, max_size=7)
bodies = st.one_of(
    row, st.fixed_dictionaries({"rows": st.lists(row | anything, max_size=4)}), anything
).map(lambda body: json.dumps(body).encode())


@settings(max_examples=300, deadline=None)
@given(body=bodies | st.binary(max_size=60))
@example(body=b'{"\\ud800": 1}')
@example(body=b'{"distance": 1e999}')
@example(body=b'{"asked_at": "2026-W09-7T10:00:00Z", "distance": 1, "id": "\\ud83d"}')
def test_whatever_is_sent_is_read_or_refused(body: bytes) -> None:
    """Any body gives usable rows or labels, or a BadRequest that can be told in JSON."""
    reads = (
        lambda: [
            (r.id, r.event_time, r.features["distance"])
            for r in parse_rows(ETA, body, now=NOW).rows
            if r is not None
        ],
        lambda: [
            (label.id, label.observed_at, label.value)
            for label in parse_labels(ETA, ModelId("eta-de"), body, now=NOW)
        ],
    )
    for read in reads:
        try:
            got = read()
        except BadRequest as error:
            told = json.dumps([error.what, error.where, error.hint])
            told.encode()
            str(error).encode()
        else:
            assert got
            for each, time, number in got:
                assert each.encode()
                assert time.utcoffset() == timedelta(0)
                assert abs(float(number)) < 3.5e38


GOOD = st.fixed_dictionaries(
    {
        "asked_at": st.datetimes(max_value=NOW.replace(tzinfo=None), timezones=st.just(UTC)).map(
            datetime.isoformat
        )
        | st.sampled_from(["2026-02-01T10:00:00.1234567Z", "20260201T10Z", "2026-02-01 10:00+05"]),
        "distance": st.integers() | st.floats() | st.just(10**400),
    },
    optional={
        "id": st.text(max_size=3) | st.none() | st.just("i" * 201),
        "load": st.floats(allow_nan=False) | st.none() | st.booleans(),
        "vehicle": st.text(max_size=3) | st.none() | st.just("\ud83d"),
        "x": st.none(),
    },
)


@settings(max_examples=400, deadline=None)
@given(
    body=bodies
    | st.one_of(GOOD, st.lists(GOOD, max_size=3).map(lambda r: {"rows": r})).map(
        lambda body: json.dumps(body).encode()
    )
)
@example(body=b'{"distance": 1, "distance": 2, "asked_at": "2026-03-01T10:00:00Z", "id": "a"}')
@example(body=b'{"rows": [], "rows": [{"distance": 2, "asked_at": "2026-03-01T10:00:00Z"}]}')
def test_the_quick_reader_reads_what_the_careful_one_does(body: bytes) -> None:
    """Whatever is sent, the quick way gives the rows, or the faults, of the careful one."""
    assert _read(RowReader(ETA).read, body) == _read(partial(parse_rows, ETA), body)


def test_what_is_without_fault_is_read_quickly(
    eta: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good row, or many, never reach the careful reader."""
    monkeypatch.setattr(request, "parse_rows", None)
    reader = RowReader(eta)
    assert reader.read(json.dumps(ROW).encode(), now=NOW).rows[0].features == {
        "distance": 12.0,
        "load": 0.5,
        "vehicle": "van",
    }
    many = {"rows": [{**ROW, "id": str(n), "load": None} for n in range(50)]}
    assert len(reader.read(json.dumps(many).encode(), now=NOW).rows) == 50


def _read(read: Callable[..., Given], body: bytes) -> object:
    """Return rows, those without an id called so, or what was told."""
    try:
        rows = read(body, now=NOW, whole=True).rows
    except BadRequest as error:
        return type(error), str(error), getattr(error, "faults", None)
    given = json.loads(body)
    listed = given.get("rows", [given])
    return [
        (row.id if one.get("id") else "made", row.event_time, list(row.features.items()))
        for row, one in zip(rows, listed, strict=True)
    ]


def test_a_text_is_read_as_it_is_up_to_its_length(eta: Family) -> None:
    """An empty text is one, unlike an empty category; quick reader and careful one agree."""
    family = telling(eta)
    for said in ("größe 北京", "", "x" * LONGEST_TEXT):
        body = json.dumps({**ROW, "said": said}).encode()
        (row,) = parse_rows(family, body, now=NOW).rows
        assert row.features["said"] == said
        assert RowReader(family).read(body, now=NOW).rows == [row]
    body = json.dumps(ROW).encode()
    assert RowReader(family).read(body, now=NOW).rows[0].features["said"] is None


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("x" * (LONGEST_TEXT + 1), "has 10,001 characters, at most 10,000 are taken"),
        (3, "should be a string, got 3"),
    ],
)
def test_a_text_that_cannot_be_taken_is_refused(eta: Family, said: object, what: str) -> None:
    """With its row and its field; the quick reader refuses it alike."""
    body = json.dumps({**ROW, "said": said}).encode()
    assert faults(telling(eta), body) == [(0, "said", what)]
    with pytest.raises(BadRows):
        RowReader(telling(eta)).read(body, now=NOW)


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("kind", ["categorical", "key"])
def test_a_category_and_a_key_have_a_longest_length(
    eta: Family, kind: str, *, required: bool
) -> None:
    """Up to it both readers agree; beyond it both refuse it, with its field."""
    word = Feature(kind=kind, required=required)
    family = eta.model_copy(update={"features": {**eta.features, "word": word}})
    body = json.dumps({**ROW, "word": "x" * LONGEST_WORD}).encode()
    assert RowReader(family).read(body, now=NOW).rows == parse_rows(family, body, now=NOW).rows
    body = json.dumps({**ROW, "word": "x" * (LONGEST_WORD + 1)}).encode()
    assert faults(family, body) == [(0, "word", "has 501 characters, at most 500 are taken")]
    with pytest.raises(BadRows, match="has 501 characters"):
        RowReader(family).read(body, now=NOW)


def test_a_required_text_may_be_empty_and_not_absent(eta: Family) -> None:
    """Null is no text."""
    family = telling(eta, required=True)
    assert parse_rows(family, json.dumps({**ROW, "said": ""}).encode(), now=NOW)
    assert faults(family, ROW) == [(0, "said", "is required")]


def telling(eta: Family, *, required: bool = False) -> Family:
    text = Feature(kind="text", required=required)
    return eta.model_copy(update={"features": {**eta.features, "said": text}})
