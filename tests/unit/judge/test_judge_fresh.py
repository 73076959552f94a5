"""Fresh readings, judged: what they add up to pages, and only that; and it ends when it is over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from driftloop.judge import decide, window_at
from driftloop.judge.evidence import BETS, INFLATION, grown, kept
from driftloop.judge.findings import BACK
from driftloop.loop.notices import Places, opened, recovered
from driftloop.records import Z90, Decision, Head, Kind, ModelHistory, ModelId, Reading, State
from driftloop.spec import Family, Owner

DE = ModelId("eta-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
OWNER, PLACES = Owner(channel="#ml"), Places(pages="http://pages", prefect="http://prefect")
COLUMNS = ("distance", "load", "prediction")


def fresh(
    metric: str,
    value: float | None,
    column: str | None = None,
    *,
    error: float = 0.014,
    n: int = 5000,
) -> Reading:
    """A fresh reading with its standard error; without a value nothing came."""
    low, high = (None, None) if value is None else (value - Z90 * error, value + Z90 * error)
    return Reading(
        kind=Kind.FRESH, metric=metric, column=column, value=value, n=n, low=low, high=high
    )


def look(
    *,
    loss: float = 0.0,
    load: float = 0.0,
    mae: float = 10.0,
    labels: int = 100,
    errors: tuple[float, float] = (0.03, 0.014),
) -> tuple[Reading, ...]:
    """All that is read of a model at once: its window, and what is fresh.

    `errors` are those of the loss and of the columns.
    """
    of_loss, of_columns = errors
    return (
        Reading(kind=Kind.QUALITY, metric="volume", column=None, value=99.0, n=99),
        Reading(kind=Kind.DECAY, metric="mae", column=None, value=mae, n=labels, baseline=10.0),
        fresh("loss", loss, error=of_loss),
        *(
            fresh("shift", load if name == "load" else 0.0, name, error=of_columns)
            for name in COLUMNS
        ),
        fresh("nulls", 0.0, "load"),
    )


class Told:
    """A model's decisions, one a day."""

    def __init__(self, family: Family, *, version: int = 1, rate: float = 0.01) -> None:
        self.family, self.rate, self.decisions, self.looks = family, rate, (), 0
        self.head = Head(model=DE, epoch=version, version=version, digest="d", artifact="a")

    def sees(self, *readings: Reading) -> Decision:
        now = NOW + self.looks * DAY
        self.looks += 1
        made = decide(
            family=self.family,
            window=window_at(self.family, DE, now=now),
            readings=readings,
            history=ModelHistory(decisions=self.decisions, head=self.head),
            now=now,
            rate=self.rate,
        )
        self.decisions = (*self.decisions, made)
        return made

    def promotes(self) -> None:
        version = self.head.version + 1
        self.head = replace(self.head, epoch=version, version=version)


@pytest.fixture
def told(eta: Family) -> Told:
    """The regression family's first model: its loss may be worse by 0.15, columns by 0.2."""
    return Told(eta)


def with_budget(family: Family, **policy: object) -> Family:
    return family.model_copy(update={"budget": family.budget.model_copy(update=policy)})


def test_what_is_clean_stays_fresh_and_keeps_nothing(told: Told) -> None:
    """No change at 5,000 rows a look: no evidence is left to be kept."""
    for _ in range(5):
        made = told.sees(*look())
        assert (made.state, made.found, made.evidence, made.opens) == (State.FRESH, (), (), False)


def test_harm_on_fresh_rows_pages_before_its_window_shows_it(told: Told) -> None:
    """The window of two weeks is fine yet: the state is DECAYING, and retraining is ordered."""
    told.sees(*look())
    made = told.sees(*look(loss=0.5))
    assert (made.state, made.found, made.opens) == (State.DECAYING, ("loss",), True)
    assert made.retrain
    assert made.reason == (
        "decaying: loss of fresh rows is +50%, n=5000, limit 0.15, surely beyond half of it; "
        "retraining because of decay"
    )
    page = opened(made, told.family, OWNER, PLACES)
    assert page.headline == (
        "eta-de predicts worse: loss of fresh rows is +50%, n=5000, limit 0.15, "
        "surely beyond half of it"
    )
    assert [line.what for line in page.evidence] == ["loss of the newest rows"]


def test_what_stands_but_looks_well_by_now_is_said_so(told: Told) -> None:
    """Found, and not surely over: the words tell what is read now from what was sure before."""
    told.sees(*look())
    told.sees(*look(loss=0.5))
    made = told.sees(*look(loss=0.14))
    assert made.found == ("loss",)
    said = "loss of fresh rows is +14%, n=5000, limit 0.15, which was surely beyond half of it"
    assert said in made.reason


def test_a_column_that_changed_pages_as_drift(told: Told) -> None:
    """An incident in which nothing is retrained, as the policy has it."""
    made = told.sees(*look(load=-0.5))
    assert (made.state, made.found, made.opens) == (State.DRIFTING, ("shift:load",), True)
    assert not made.retrain
    page = opened(made, told.family, OWNER, PLACES)
    assert page.headline == (
        "eta-de: load has drifted: shifted by -0.5 sd, n=5000, limit 0.2, surely beyond half of it"
    )


def test_what_pages_is_the_owners_to_say(eta: Family) -> None:
    """Drift that does not page makes the state all the same; harm beside it still pages."""
    told = Told(with_budget(eta, page_on=("harm",)))
    quiet = told.sees(*look(load=0.5))
    assert (quiet.state, quiet.found, quiet.opens) == (State.DRIFTING, ("shift:load",), False)
    assert told.sees(*look(load=0.5, loss=0.5)).opens
    mute = Told(with_budget(eta, page_on=()))
    assert not mute.sees(*look(load=0.5, loss=0.5)).opens


@pytest.mark.parametrize("share", [0.49, 0.75, 0.9])
@pytest.mark.parametrize(("loss", "load"), [(0.15, 0.0), (0.0, 0.2), (0.0, -0.2)])
def test_too_small_to_matter_stays_silent_however_many_rows_show_it(
    told: Told, loss: float, load: float, share: float
) -> None:
    """5 million rows a look: nothing is found of what is steadily below its floor."""
    rng = np.random.default_rng(2)
    errors = 3.0 / np.sqrt(5e6), 1.0 / np.sqrt(5e6)
    for _ in range(60):
        noise = rng.normal(size=2) * errors
        readings = look(loss=share * loss + noise[0], load=share * load + noise[1], errors=errors)
        made = told.sees(*(replace(each, n=5_000_000) for each in readings))
        assert (made.found, made.opens) == ((), False)


@pytest.mark.parametrize("share", [-3.0, 0.0, 0.49])
def test_what_is_better_or_below_half_the_floor_leaves_no_evidence(
    told: Told, share: float
) -> None:
    """Of a loss that is known for certain: nothing is kept that a later reading could set off."""
    for _ in range(20):
        readings = look(loss=share * 0.15, errors=(3.0 / np.sqrt(5e6), 0.014))
        made = told.sees(*(replace(each, n=5_000_000) for each in readings))
        assert (made.found, made.evidence) == ((), ())


def test_beyond_half_its_floor_for_certain_it_waits_for_a_reading_at_the_floor(told: Told) -> None:
    """Then it pages at once, however long it had been waiting; on the other side it does not."""
    errors = 0.03, 0.05
    for _ in range(40):
        assert not told.sees(*look(load=0.18, errors=errors)).opens
    assert not told.sees(*look(load=-0.2, errors=errors)).opens
    assert told.sees(*look(load=0.2, errors=errors)).found == ("shift:load",)


def test_what_pages_shows_its_own_floor_now(told: Told) -> None:
    """A column that waits below its floor is not named by another's evidence, nor lends it any."""
    for _ in range(5):
        told.sees(*look(loss=0.0, load=0.18))
    readings = look(load=0.18)
    other = fresh("shift", 0.2, "distance", error=0.1)
    made = told.sees(*(other if each.column == "distance" else each for each in readings))
    assert (made.found, made.opens) == ((), False)


def test_a_weak_change_is_found_by_adding_up(told: Told) -> None:
    """1.5 errors beyond half the floor are no proof in one look, and are in some more."""
    weak = look(loss=0.15, errors=(0.075 / 1.5 / INFLATION, 0.014))
    first = told.sees(*weak)
    assert (first.state, first.opens) == (State.FRESH, False)
    assert [stream.name for stream in first.evidence] == ["loss"]
    looks = next(count for count in range(2, 40) if told.sees(*weak).opens)
    assert 4 < looks < 20


def test_a_smaller_budget_takes_more_looks(eta: Family) -> None:
    """A hundredth of it: later, and still found."""
    weak = look(loss=0.15, errors=(0.075 / 2.0 / INFLATION, 0.014))
    counts = []
    for rate in (1.0, 0.01):
        told = Told(eta, rate=rate)
        counts.append(next(count for count in range(1, 40) if told.sees(*weak).opens))
    assert counts[0] < counts[1] < 20


def test_a_window_alone_does_not_page_where_fresh_rows_tell(told: Told) -> None:
    """Its alarm makes the state in words; what is new since says that it is no news."""
    made = told.sees(*look(mae=14.0))
    assert (made.state, made.opens, made.alarms) == (State.DECAYING, False, 1)


def test_without_fresh_readings_a_window_pages_if_it_is_sure_enough(told: Told) -> None:
    """As sure as the budget wants: an interval far from the baseline pages, a nearer one not."""
    mae = Reading(kind=Kind.DECAY, metric="mae", column=None, value=14.0, n=99, baseline=10.0)
    made = [told.sees(replace(mae, low=low)) for low in (11.0, 13.0)]
    assert [each.state for each in made] == [State.DECAYING] * 2
    assert [each.opens for each in made] == [False, True]


def test_what_tells_nothing_does_not_silence_the_window(told: Told) -> None:
    """A loss that cannot be told, or is only expected, is no reason not to page."""
    mae = Reading(
        kind=Kind.DECAY, metric="mae", column=None, value=14.0, n=99, low=13.5, baseline=10.0
    )
    unknown = replace(fresh("loss", None, n=0), problem="too few held-out rows")
    assert told.sees(mae, unknown, fresh("expected", 0.0), fresh("shift", 0.0, "load")).opens


def test_nulls_of_fresh_rows_are_a_data_fault(told: Told) -> None:
    """Before the window has many of them: it pages, and blocks retraining."""
    made = told.sees(*look(loss=0.5)[:-1], fresh("nulls", 0.9, "load", error=0.001))
    assert (made.state, made.opens, made.retrain) == (State.DATA_FAULT, True, False)
    assert made.found == ("loss", "nulls:load")
    few = Told(told.family).sees(fresh("nulls", 1.0, "load", error=0.001, n=2))
    assert few.found == ()


def test_an_incident_of_drift_ends_when_the_column_is_back_for_certain(told: Told) -> None:
    """Without labels too; what is still changed keeps it open, and nothing pages again."""
    opens = told.sees(*look(load=0.5, labels=3))
    for _ in range(5):
        made = told.sees(*look(load=0.5, labels=3))
        assert (made.state, made.incident) == (State.DRIFTING, opens.incident)
        assert not made.opens
    over = told.sees(*look(labels=3))
    assert (over.found, over.resolves, over.incident) == ((), opens.incident, None)
    assert over.evidence == ()
    assert recovered(over, told.family, OWNER, PLACES).headline == "eta-de has recovered"
    assert not any(told.sees(*look(labels=3)).opens for _ in range(5))


def test_harm_is_over_when_fresh_rows_and_the_window_say_so(told: Told) -> None:
    """The fresh ones first, then as many calm windows as the policy wants."""
    sure = 0.01, 0.014
    opens = told.sees(*look(loss=0.5))
    still = told.sees(*look(loss=0.5))
    assert (still.state, still.calm) == (State.DECAYING, 0)
    warned = told.sees(*look(mae=12.0, errors=sure))
    assert (warned.found, warned.calm, warned.incident) == ((), 0, opens.incident)
    assert told.sees(*look()).calm == 1
    assert told.sees(*look()).resolves == opens.incident


@pytest.mark.parametrize("share", [0.6, 0.75, 1.0, 1.1])
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_near_its_floor_a_change_does_not_flap(told: Told, share: float, noise: float) -> None:
    """About the floor by noise: it opens an incident once, and does not end it."""
    rng = np.random.default_rng(1)
    error = noise * 0.2
    made = [
        told.sees(*look(load=0.2 * share + error * rng.normal(), errors=(0.03, error)))
        for _ in range(100)
    ]
    assert sum(each.opens for each in made) <= 1
    assert sum(each.resolves is not None for each in made) == 0
    assert made[-1].found == () or made[-1].state is State.DRIFTING


@pytest.mark.parametrize("column", [True, False])
def test_an_alternation_about_the_floor_pages_once(told: Told, *, column: bool) -> None:
    """Above and below at every other look, for columns and for the loss, and never over."""
    made, errors = [], (0.01, 0.014)
    for number in range(60):
        share = 1.1 if number % 2 else 0.8
        loss, load = (0.0, 0.2 * share) if column else (0.15 * share, 0.0)
        made.append(told.sees(*look(loss=loss, load=load, errors=errors)))
    assert [number for number, each in enumerate(made) if each.opens] == [1]
    assert made[-1].incident == made[1].incident


def test_below_half_its_floor_a_change_is_over_for_certain(told: Told) -> None:
    """What stands at 0.6 of it is not back; at 0.3 it is, and does not page again."""
    opens = told.sees(*look(load=0.5))
    waits = [told.sees(*look(load=0.12)) for _ in range(60)]
    weak = [s for each in waits for s in each.evidence if s.name == f"{BACK}shift:load"]
    assert {each.incident for each in waits} == {opens.incident}
    assert all(sum(stream.mass) < 2 * 2 * len(BETS) for stream in weak)
    after = [told.sees(*look(load=0.06)) for _ in range(10)]
    assert [each.resolves is not None for each in after].count(True) == 1
    assert not any(each.opens for each in after)


def test_a_new_champion_begins_with_no_evidence(told: Told) -> None:
    """What was found is of the version before; the incident stays until the new one is well."""
    opens = told.sees(*look(loss=0.5, load=0.5))
    assert set(opens.found) == {"loss", "shift:load"}
    told.promotes()
    made = told.sees(*look(labels=3))
    assert (made.found, made.evidence, made.state) == ((), (), State.BLIND)
    assert (made.incident, made.calm) == (opens.incident, 0)
    told.sees(*look())
    assert told.sees(*look()).resolves == opens.incident


def test_evidence_outlives_looks_at_nothing(told: Told) -> None:
    """Neither what came to nothing nor a look that failed adds or takes."""
    weak = look(loss=0.14)
    before = told.sees(*weak)
    nothing = told.sees(*look()[:2], fresh("loss", None, n=0))
    blind = told.sees()
    assert before.evidence
    assert nothing.evidence == blind.evidence == before.evidence


def test_harm_during_an_incident_of_drift_is_told_by_the_state(told: Told) -> None:
    """One incident, one page; retraining follows the harm."""
    opens = told.sees(*look(load=0.5))
    made = told.sees(*look(load=0.5, loss=0.5))
    assert (made.state, made.opens, made.incident) == (State.DECAYING, False, opens.incident)
    assert (made.found, made.retrain) == (("shift:load", "loss"), True)


def test_patience_waits_for_what_stands(eta: Family) -> None:
    """open_after = 2: found at the first look, paged at the second if it is not back."""
    hysteresis = eta.hysteresis.model_copy(update={"open_after": 2})
    told = Told(eta.model_copy(update={"hysteresis": hysteresis}))
    assert [told.sees(*look(load=0.5)).opens for _ in range(3)] == [False, True, False]


def test_what_the_ledger_keeps_is_all_that_counts(told: Told) -> None:
    """Decisions that were written and read again lead to the same ones."""
    weak = look(loss=0.15, load=0.25, errors=(0.06, 0.1))
    again = Told(told.family)
    for _ in range(6):
        first, second = told.sees(*weak), again.sees(*weak)
        assert first == second
        body = msgspec.json.encode(second)
        again.decisions = (*again.decisions[:-1], msgspec.json.decode(body, type=Decision))


def test_one_model_is_judged_as_a_fleet_is_simulated(told: Told) -> None:
    """The loop's evidence is that of the arrays a simulation uses: the whole weight, one stream."""
    rng = np.random.default_rng(3)
    mass, weight = np.zeros((1, len(BETS))), 0.01 / 7 / 2  # half of it is for harm
    for _ in range(30):
        value = 0.075 + 0.02 * (rng.normal() + 0.2)
        made = told.sees(fresh("loss", value, error=0.02))
        z = np.array([(value - 0.075) / (0.02 * INFLATION)])
        mass = kept(grown(mass, z, weight, np.array([5000.0])), weight)
        found = made.evidence[0].mass if made.evidence else (0.0,) * len(BETS)
        assert found == pytest.approx(tuple(mass[0]), rel=0.011)


def test_a_fleet_at_half_its_floors_keeps_to_its_budget(eta: Family) -> None:
    """60 models, 40 looks, half a false page a model and look allowed: decided one by one.

    Every change is as large as may be without mattering, and readings scatter to the floor and
    beyond: 1,200 pages are allowed.
    """
    rng = np.random.default_rng(5)
    pages, errors = 0, (0.075, 0.1)
    for _ in range(60):
        told = Told(eta, rate=3.5)
        for _ in range(40):
            loss, load = 0.075 + 0.075 * rng.normal(), 0.1 + 0.1 * rng.normal()
            made = told.sees(*look(loss=loss, load=load, errors=errors))
            pages += made.opens
            told.decisions = (replace(made, incident=None, found=()),)
    assert 60 < pages < 1200
