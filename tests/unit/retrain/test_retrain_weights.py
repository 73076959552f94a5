"""Weights of rows: they reach the last step of a pipeline, and make it forget what is old."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from driftloop.errors import TrainingFailed
from driftloop.records import Memory, ModelId, Order, Window
from driftloop.retrain import fit, predict, weight_name
from driftloop.spec import Family
from driftloop.workshop import weights

END = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 400


def neighbours(family: Family, *, seed: int) -> Any:
    """A recipe whose estimator takes no weights."""
    return Pipeline([("numbers", StandardScaler()), ("model", KNeighborsRegressor())])


def changed(family: Family, **policy: Any) -> Family:
    return family.model_copy(update={"retrain": family.retrain.model_copy(update=policy)})


def history(family: Family) -> pa.Table:
    """Rows of 400 days whose label was 0, and is 10 since the last 40 of them."""
    at = [END - timedelta(days=DAYS - day) for day in range(DAYS)]
    columns: dict[str, Any] = {name: np.zeros(DAYS) for name in family.numeric}
    columns |= {name: ["van"] * DAYS for name in family.categorical}
    label = np.where(np.arange(DAYS) < DAYS - 40, 0.0, 10.0)
    times = pa.array(at, pa.timestamp("us", tz="UTC"))
    return pa.table({"event_time": times, "label": label, **columns})


def order(memory: Memory) -> Order:
    model = ModelId("eta-de")
    window = Window(model=model, start=END - timedelta(days=DAYS), end=END, known_at=END)
    return Order(
        key="k",
        model=model,
        at=END,
        reason="r",
        window=window,
        holdout_from=END,
        seed=1,
        memory=memory,
    )


def test_a_row_one_half_life_older_counts_half(eta: Family) -> None:
    """The newest counts 1; without a half life of its own that is the recent span."""
    counted = weights(eta, order(Memory.DECAYED), history(eta))
    assert counted is not None
    assert counted[-1] == 1.0
    assert counted[-1 - 56] == pytest.approx(0.5)
    quick = weights(changed(eta, half_life=timedelta(days=7)), order(Memory.DECAYED), history(eta))
    assert quick is not None
    assert quick[-1 - 14] == pytest.approx(0.25)
    assert (quick > 0.0).all()


@pytest.mark.parametrize("memory", [Memory.RECENT, Memory.ALL])
def test_other_memories_weigh_nothing(eta: Family, memory: Memory) -> None:
    """They differ in how far back their rows reach."""
    assert weights(eta, order(memory), history(eta)) is None


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
def test_weights_reach_the_fit(eta: Family, recipe: str) -> None:
    """All history says 1, as the mean of its labels; with a half life of ten days it says 9.4."""
    rows = history(eta)
    family = changed(
        eta,
        recipe=f"driftloop.retrain.recipes:{recipe}",
        parameters={},
        half_life=timedelta(days=10),
    )
    plain = predict(fit(family, rows, seed=1), rows)
    weighted = fit(family, rows, seed=1, weights=weights(family, order(Memory.DECAYED), rows))
    assert plain[-1] == pytest.approx(1.0, abs=0.1)
    assert predict(weighted, rows)[-1] == pytest.approx(10 * (1 - 2**-4), abs=0.2)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        pytest.param(Ridge(), "sample_weight", id="an-estimator"),
        pytest.param(make_pipeline(StandardScaler(), Ridge()), "ridge__sample_weight", id="a-step"),
        pytest.param(
            make_pipeline(make_pipeline(StandardScaler(), Ridge())),
            "pipeline__ridge__sample_weight",
            id="a-step-of-a-step",
        ),
        pytest.param(
            TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge())),
            "ridge__sample_weight",
            id="wrapped",
        ),
    ],
)
def test_what_weights_are_called(eta: Family, estimator: Any, name: str) -> None:
    """As scikit-learn wants them named, and so that its fit takes them."""
    assert weight_name(eta, estimator) == name
    rows = np.random.default_rng(0).normal(size=(50, 2))
    estimator.fit(rows, rows[:, 0], **{name: np.ones(50)})


def test_a_recipe_that_takes_no_weights_is_told(eta: Family) -> None:
    """Before its fit, by name, and with what to do."""
    family = changed(eta, recipe=f"{__name__}:neighbours", parameters={})
    rows = history(eta)
    with pytest.raises(TrainingFailed, match="Pipeline takes no weights of rows") as caught:
        fit(family, rows, seed=1, weights=np.ones(DAYS))
    assert "leave the memory out" in caught.value.hint
