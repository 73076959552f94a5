"""The loop's own readings: limits, hysteresis, what is told and when."""

from datetime import UTC, datetime, timedelta

import pytest

from driftloop.records import Kind, Level, Reading, Stage, Verdict
from driftloop.spec import Owner, Platform
from driftloop.vitals import CALM_AFTER, OPEN_AFTER, Streak, follow, judged, resumed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLATFORM_POLICY = Platform(owner="operations")
OWNER = Owner(channel="#ops", mention="@here")


def reading(
    metric: str, value: float | None, *, n: int = 1000, column: str | None = None
) -> Reading:
    return Reading(kind=Kind.SERVICE, metric=metric, column=column, value=value, n=n)


def verdict(level: Level, metric: str = "ingest_lag") -> Verdict:
    return Verdict(reading=reading(metric, 99.0), level=level, limit=60.0, reason="r")


@pytest.mark.parametrize(
    ("metric", "value", "level"),
    [
        ("passes_missed", 2.9, Level.OK),
        ("passes_missed", 3.0, Level.ALARM),
        ("ingest_lag", 59.0, Level.OK),
        ("ingest_lag", 61.0, Level.ALARM),
        ("spool_mib", 1023.0, Level.OK),
        ("spool_mib", 1025.0, Level.ALARM),
        ("disk_free", 0.06, Level.OK),
        ("disk_free", 0.04, Level.ALARM),
        ("unhealthy", 59.0, Level.OK),
        ("unhealthy", 60.0, Level.ALARM),
        ("quarantined", 0.0, Level.OK),
        ("quarantined", 1.0, Level.ALARM),
        ("refused", 1.0, Level.ALARM),
        ("error_rate", 0.009, Level.OK),
        ("error_rate", 0.02, Level.ALARM),
        ("p99_ms", 99.0, Level.OK),
        ("p99_ms", 100.0, Level.ALARM),
        ("untold", 3.0, Level.WARN),
        ("monitors", 1.0, Level.WARN),
        ("disk_free", None, Level.BLIND),
    ],
)
def test_each_reading_has_its_limit(metric: str, value: float | None, level: Level) -> None:
    """Below its limit all is well; at it the alarm; without a value nobody can tell."""
    (found,) = judged([reading(metric, value)], PLATFORM_POLICY)
    assert found.level is level


@pytest.mark.parametrize("metric", ["error_rate", "p99_ms"])
def test_few_requests_tell_nothing(metric: str) -> None:
    """One failure of two is not an error rate."""
    (found,) = judged([reading(metric, 500.0, n=199)], PLATFORM_POLICY)
    assert found.level is Level.BLIND
    assert "199 requests" in found.reason


def looks(*levels: Level, streaks: dict[str, Streak] | None = None) -> list[tuple[Stage, str]]:
    told = []
    now, before = NOW, streaks or {}
    for level in levels:
        found = follow(before, [verdict(level)], now=now, owner=OWNER)
        before = dict(found.streaks)
        told += [(notice.stage, notice.key) for notice in found.notices]
        now += timedelta(seconds=5)
    return told


def test_one_bad_look_wakes_nobody() -> None:
    """A single alarm between calm looks is not told, however often."""
    assert looks(*([Level.ALARM, Level.OK] * 5)) == []


def test_an_incident_is_told_once_and_once_that_it_is_over() -> None:
    """However long it lasts: one opening, one end, under the same incident."""
    told = looks(*([Level.ALARM] * 20), *([Level.OK] * 10))
    assert [stage for stage, _ in told] == [Stage.OPENED, Stage.RECOVERED]
    opened, recovered = (key for _, key in told)
    assert opened.rpartition("/")[0] == recovered.rpartition("/")[0]


def test_a_short_calm_does_not_end_it() -> None:
    """It flaps: fewer calm looks than needed, then an alarm, is the same incident."""
    calm = [Level.OK] * (CALM_AFTER - 1)
    told = looks(*([Level.ALARM] * OPEN_AFTER), *calm, Level.ALARM, *calm, Level.ALARM)
    assert [stage for stage, _ in told] == [Stage.OPENED]


def test_blind_neither_opens_nor_ends() -> None:
    """Not being able to look is no news."""
    assert looks(*([Level.BLIND] * 9)) == []
    told = looks(*([Level.ALARM] * OPEN_AFTER), *([Level.BLIND] * 9))
    assert [stage for stage, _ in told] == [Stage.OPENED]


def test_an_incident_of_an_earlier_watchdog_goes_on() -> None:
    """What is open in the ledger is not opened again, and is ended under its own key."""
    incident = "driftloop/ingest_lag/20260301T000000"
    told = looks(
        *([Level.ALARM] * 3), *([Level.OK] * CALM_AFTER), streaks=resumed([(incident, NOW)])
    )
    assert told == [(Stage.RECOVERED, f"{incident}/recovered")]


def test_resumed_keeps_the_service_in_the_name() -> None:
    """The incident of one service is not taken for that of another."""
    found = resumed([("driftloop/unhealthy/mlflow/20260301T000000", NOW)])
    assert list(found) == ["unhealthy/mlflow"]


def test_the_page_says_what_is_wrong_and_what_to_do() -> None:
    """In plain words, with the figure, its limit, the service, and where to look."""
    down = Reading(
        kind=Kind.SERVICE, metric="unhealthy", column="mlflow", value=75.0, n=1, problem="dead"
    )
    before: dict[str, Streak] = {}
    for _ in range(OPEN_AFTER):
        found = follow(before, judged([down], PLATFORM_POLICY), now=NOW, owner=OWNER)
        before = dict(found.streaks)
    (notice,) = found.notices
    assert notice.headline == "driftloop: mlflow is down or does not answer (dead)"
    assert "restarts what dies" in notice.doing
    assert [(e.value, e.limit, e.n) for e in notice.evidence] == [("75", "60", None)]
    assert (notice.channel, notice.mention) == ("#ops", "@here")


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("error_rate", 0.02, "2.0% (1,000 requests)"),
        ("p99_ms", 120.0, "120 (1,000 requests)"),
        ("disk_free", 0.01, "1.0%"),
    ],
)
def test_requests_are_counted_and_never_called_rows(metric: str, value: float, said: str) -> None:
    """The platform is not measured on rows; of requests it is said how many there were."""
    verdicts = judged([reading(metric, value)], PLATFORM_POLICY)
    before = {metric: Streak(bad=OPEN_AFTER - 1, since=NOW)}
    (notice,) = follow(before, verdicts, now=NOW, owner=OWNER).notices
    assert [(e.value, e.n) for e in notice.evidence] == [(said, None)]
