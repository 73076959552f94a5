"""Which partitions are bad: what is wrong with one is found, what lasts is drift and left alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.judge.partitions import Suspect, standing, suspects, trusted
from driftloop.records import (
    Agreement,
    ColumnCounts,
    ModelId,
    Partition,
    Quarantined,
    Released,
    Task,
)
from driftloop.spec import Family, Feature

DAY = timedelta(days=1)
FIRST = datetime(2026, 2, 2, tzinfo=UTC)
NOW = FIRST + 60 * DAY
MODEL = ModelId("churn-uk")


def day(number: int, **changed: object) -> Partition:
    """A day like the others: 400 rows, all labelled, a tenth null, labels that agree."""
    rng = np.random.default_rng(number)
    rows = int(rng.poisson(400))
    made = Partition(
        model=MODEL,
        start=FIRST + number * DAY,
        end=FIRST + (number + 1) * DAY,
        rows=rows,
        slots=24,
        labels=rows,
        label_low=0.0,
        label_high=1.0,
        label_mean=0.3,
        columns=(
            ColumnCounts(
                name="age",
                nulls=int(rng.binomial(rows, 0.1)),
                low=20.0 + rng.normal(),
                high=80.0 + rng.normal(),
            ),
            ColumnCounts(name="plan", nulls=0, unseen=int(rng.binomial(rows, 0.01))),
        ),
        agreements=(agreeing(0.6 + 0.05 * rng.normal(), rows),),
    )
    return replace(made, **changed)


def agreeing(correlation: float, n: int, *, batch: int = 0) -> Agreement:
    """Sums of `n` rows whose labels and answers correlate so."""
    return Agreement(batch=batch, n=n, yy=n * 1.0, pp=n * 1.0, yp=n * correlation)


def days(changed: dict[int, Callable[[Partition], Partition]], count: int = 28) -> list[Partition]:
    made = [day(number) for number in range(count)]
    return [changed.get(number, lambda same: same)(each) for number, each in enumerate(made)]


def of_column(number: int, **changed: object) -> Callable[[Partition], Partition]:
    def change(partition: Partition) -> Partition:
        columns = list(partition.columns)
        columns[number] = replace(columns[number], **changed)
        return replace(partition, columns=tuple(columns))

    return change


def of_rows(rows: int) -> Callable[[Partition], Partition]:
    """So many rows, and as large a share of them null as ever."""

    def change(partition: Partition) -> Partition:
        made = of_column(1, unseen=0)(of_column(0, nulls=rows // 10)(partition))
        return replace(made, rows=rows, labels=rows, agreements=(agreeing(0.6, rows),))

    return change


def agreed(*correlations: float) -> Callable[[Partition], Partition]:
    def change(partition: Partition) -> Partition:
        n = partition.rows // len(correlations)
        sums = [agreeing(value, n, batch=at) for at, value in enumerate(correlations)]
        return replace(partition, agreements=tuple(sums))

    return change


def found(partitions: Sequence[Partition], family: Family) -> dict[int, Suspect]:
    seen = suspects(partitions, family, now=NOW)
    return {(each.partition.start - FIRST) // DAY: each for each in seen}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (of_column(0, nulls=250), "nulls of age"),
        (of_column(1, nulls=0, unseen=300), "levels of plan"),
        (of_column(0, outside=40), "range of age"),
        (of_column(0, low=-999.0), "range of age"),
        (of_rows(40), "volume"),
        (of_rows(4000), "volume"),
        (lambda each: replace(each, slots=8), "freshness"),
        (lambda each: replace(each, late=each.rows), "freshness"),
        (lambda each: replace(each, duplicates=90), "duplicates"),
        (lambda each: replace(each, impossible=1), "schema"),
        (lambda each: of_column(0, nulls=each.rows, low=None, high=None)(each), "schema"),
        (lambda each: replace(each, label_high=0.0), "labels"),
        (agreed(-0.6), "labels"),
        (agreed(-0.6, 0.6), "labels"),
    ],
)
def test_what_is_wrong_with_one_day_is_found_in_that_day_alone(
    churn: Family, change: Callable[[Partition], Partition], kind: str
) -> None:
    """Each fault is a reason that names it, and no other day is suspected."""
    seen = found(days({20: change}), churn)
    assert list(seen) == [20]
    assert [reason for reason in seen[20].reasons if reason.startswith(kind)]


def test_clean_days_are_left_alone(churn: Family) -> None:
    """Noise is no fault."""
    assert found(days({}, 56), churn) == {}


def test_a_relation_that_turns_and_stays_turned_is_never_kept_out(churn: Family) -> None:
    """Concept drift must train: neither while it is new nor later is it called a fault."""
    for since in range(1, 28):
        turned = days(dict.fromkeys(range(28 - since, 28), agreed(-0.6)))
        assert not [each for each in found(turned, churn).values() if each.reasons]


def test_the_newest_flip_is_doubted_and_found_once_the_relation_is_back(churn: Family) -> None:
    """At the edge nobody can tell: it is said, and judged when the days after it show."""
    edge = found(days({27: agreed(-0.6)}), churn)
    assert [(at, each.reasons, bool(each.doubts)) for at, each in edge.items()] == [(27, (), True)]
    assert list(found(days({27: agreed(-0.6)}, 30), churn)) == [27]


def test_a_flip_by_arrival_is_found_at_the_edge(churn: Family) -> None:
    """Labels of one arrival that disagree where others of the same rows agree are no drift."""
    seen = found(days({27: agreed(0.6, -0.6)}), churn)
    assert seen[27].reasons


def test_a_month_of_disagreement_is_no_fault_when_it_ends(churn: Family) -> None:
    """Four days in a row are a change of the world that passed, not a fault of a partition."""
    assert found(days(dict.fromkeys(range(18, 22), agreed(-0.6))), churn) == {}


def test_early_labels_that_are_all_the_same_are_no_fault(churn: Family) -> None:
    """The first labels to arrive may be of one kind: a day with few of its labels is not judged."""
    early = {27: lambda each: replace(each, labels=60, label_high=0.0, agreements=())}
    assert found(days(early), churn) == {}


def test_rows_that_may_still_come_are_not_missed(churn: Family) -> None:
    """Too few rows are a fault only once rows are stale."""
    few = days({27: of_rows(40)})
    end = few[-1].end
    assert suspects(few, churn, now=end) == ()
    assert suspects(few, churn, now=end + churn.quality.stale) != ()


def test_a_quiet_weekday_is_as_usual(churn: Family) -> None:
    """Sundays with a tenth of the rows are judged by Sundays."""
    quiet = dict.fromkeys(range(6, 56, 7), of_rows(45))
    assert found(days(quiet, 56), churn) == {}


def test_the_first_snow_is_news_and_no_fault(churn: Family) -> None:
    """A level that is new, and not all there is, pages and trains."""
    assert found(days({27: of_column(1, unseen=150)}), churn) == {}


def test_a_column_that_often_lacks_values_is_no_fault_when_it_does(churn: Family) -> None:
    """Nulls that come and go, as those of a sensor in storms, train; on three occasions, not."""
    storms = {at: of_column(0, nulls=250) for at in (3, 11, 12, 24, 40)}
    assert found(days(storms, 56), churn) == {}
    del storms[3]
    assert list(found(days(storms, 56), churn)) == [11, 12, 24, 40]


def test_what_the_family_says_can_be_is_never_too_far_out(churn: Family) -> None:
    """A declared range is the word of who knows: only what is beyond it may be impossible."""
    flood = days({20: of_column(0, low=20.0, high=5000.0)})
    wide = Feature(kind="numeric", range=(0.0, 9000.0))
    assert list(found(flood, churn)) == [20]
    told = churn.model_copy(update={"features": {**churn.features, "age": wide}})
    assert found(flood, told) == {}


def test_rain_after_a_dry_month_is_no_fault_and_an_ocean_is(churn: Family) -> None:
    """What is mostly 0 is judged by the days when it is not."""
    rng = np.random.default_rng(1)
    rain = {n: of_column(0, low=0.0, high=0.0) for n in range(56)}
    for number in rng.choice(55, 20, replace=False):
        rain[int(number)] = of_column(0, low=0.0, high=float(rng.lognormal(0.5, 1.2)))
    assert found(days(rain | {55: of_column(0, low=0.0, high=55.0)}, 56), churn) == {}
    assert list(found(days(rain | {55: of_column(0, low=0.0, high=9831.0)}, 56), churn)) == [55]


def test_too_short_a_past_says_nothing_is_usual(churn: Family) -> None:
    """With a week of rows only what cannot be is found."""
    assert found(days({3: of_column(0, nulls=300)}, 7), churn) == {}
    assert list(found(days({3: lambda each: replace(each, impossible=2)}, 7), churn)) == [3]


def test_a_change_of_all_that_lasts_becomes_usual(churn: Family) -> None:
    """Half of the partitions changed: that is how it is now."""
    moved = days(dict.fromkeys(range(10, 28), of_column(0, nulls=250)))
    assert found(moved, churn) == {}


def test_classes_that_were_renamed_for_a_day_are_found(colour: Family) -> None:
    """Of classes it is the share that is equal."""

    def equal(share: float) -> Callable[[Partition], Partition]:
        return lambda each: replace(
            each,
            agreements=(Agreement(batch=0, n=each.rows, equal=int(each.rows * share)),),
            label_high=3.0,
        )

    right = dict.fromkeys(range(28), equal(0.8))
    assert colour.task is Task.MULTICLASS
    assert list(found(days(right | {20: equal(0.05)}), colour)) == [20]


# -- what stands ---------------------------------------------------------------------------------


def held(first: int, last: int, *, at: int = 0, keep: int = 30) -> Quarantined:
    return Quarantined(
        model=MODEL,
        at=FIRST + at * DAY,
        start=FIRST + first * DAY,
        end=FIRST + last * DAY,
        reasons=("by hand: a test",),
        until=FIRST + (at + keep) * DAY,
    )


def free(first: int, last: int, *, at: int = 0) -> Released:
    return Released(
        model=MODEL,
        at=FIRST + at * DAY,
        start=FIRST + first * DAY,
        end=FIRST + last * DAY,
        who="ann",
        why="it is right",
    )


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 12), st.integers(1, 5)), min_size=1, max_size=8
    )
)
def test_the_last_word_on_each_day_is_what_stands(words: list[tuple[bool, int, int]]) -> None:
    """Day by day: what stands is what was last put in quarantine, and not released since."""
    facts = [
        (held if holds else free)(first, first + length, at=at)
        for at, (holds, first, length) in enumerate(words)
    ]
    spans = standing(facts, now=FIRST + 10 * DAY)
    for number in range(20):
        at = FIRST + number * DAY
        said = [holds for holds, first, length in words if first <= number < first + length]
        stands = [each for each in spans if each.start <= at < each.end]
        assert len(stands) == int(bool(said) and said[-1])
        assert trusted(facts, day(number)) == (bool(said) and not said[-1])


def test_quarantine_ends_by_itself(churn: Family) -> None:
    """Up to `until`, and not at it."""
    fact = held(3, 4, keep=30)
    assert standing([fact], now=fact.until - timedelta(seconds=1))
    assert standing([fact], now=fact.until) == ()
