from datetime import UTC, datetime, timedelta
from pathlib import Path

from driftloop.batch import turns
from driftloop.spec import BatchPolicy, Family

NOW = datetime(2026, 3, 1, 14, 30, tzinfo=UTC)


def test_each_model_has_a_turn_of_its_own(eta: Family, churn: Family, tmp_path: Path) -> None:
    """Named by when it began; what stands in braces is filled in, and SQL's own left alone."""
    policy = BatchPolicy(
        source="SELECT *, {'a': 1} FROM 'in/{market}-{time}.csv'",
        out="out/{model}/{date}.parquet",
        every=timedelta(hours=6),
        publish=True,
    )
    asked = eta.model_copy(update={"batch": policy})
    found = turns((asked, churn), now=NOW, folder=tmp_path)
    assert [each.key for each in found] == [
        "batch/eta-de/20260301T120000",
        "batch/eta-fr/20260301T120000",
    ]
    first = found[0].job
    assert first.source == "SELECT *, {'a': 1} FROM 'in/de-20260301T120000.csv'"
    assert first.out == tmp_path / "out/eta-de/2026-03-01.parquet"
    assert (first.folder, first.publish, first.turn) == (tmp_path, True, found[0].key)
    assert found[0].lease == timedelta(hours=6)


def test_a_turn_lasts_until_the_next_begins(eta: Family, tmp_path: Path) -> None:
    """Turns that were missed are not made up for."""
    policy = BatchPolicy(source="a.csv", out="{model}.csv", every=timedelta(days=1))
    family = eta.model_copy(update={"batch": policy})
    keys = {
        turns((family,), now=NOW + timedelta(hours=n), folder=tmp_path)[0].key for n in (0, 9, 200)
    }
    assert keys == {"batch/eta-de/20260301T000000", "batch/eta-de/20260309T000000"}
