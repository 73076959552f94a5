"""From the rows of a real lake to a candidate's folder, or to an error that leaves nothing."""

import hashlib
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from driftloop.deploy import promoted
from driftloop.errors import ArtifactError, DriftloopError, ParityError, TrainingFailed
from driftloop.records import Candidate, Order
from driftloop.workshop import build_candidate, split

MONITORS = Path(__file__).parents[2] / "monitors"
FILES = {"model.onnx", "pipeline.skops", "card.json"}
FILES |= {f"{name}.parquet" for name in ("reference", "profile", "holdout")}
RECIPES = '''
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from driftloop.retrain.recipes import gradient_boosting


def raises(family, *, seed, **parameters):
    raise RuntimeError("no luck today")


def native(family, *, seed, **parameters):
    """Categories handled by the trees themselves: converts, runs, and answers otherwise."""
    pipeline = gradient_boosting(family, seed=seed, **parameters)
    pipeline.set_params(model__categorical_features=[0])
    return pipeline


def far(one, other):
    return abs(one - other).max()


def neighbours(family, *, seed, **parameters):
    """Neighbours by a distance of one's own: skl2onnx has no converter."""
    pipeline = gradient_boosting(family, seed=seed, **parameters)
    pipeline.set_params(
        model=make_pipeline(SimpleImputer(), KNeighborsRegressor(3, metric=far))
    )
    return pipeline


def nameless(family, *, seed, **parameters):
    return make_pipeline(FunctionTransformer(lambda frame: frame), neighbours(family, seed=seed))


def strict(family, *, seed, **parameters):
    pipeline = gradient_boosting(family, seed=seed, **parameters)
    pipeline.set_params(columns__categories__handle_unknown="error")
    pipeline.set_params(columns__categories__unknown_value=None)
    return pipeline


def nothing(family, *, seed, **parameters):
    return None
'''


def test_split_is_by_time_and_of_labelled_rows(place: Callable[..., Any]) -> None:
    """What is held out is newer than all that is trained on; the unlabelled are in neither."""
    here = place()
    order = here.order("k")
    rows = labelled_rows(order, days=30, a_day=10)
    rows = rows.append_column("label", label_but(rows, every=5))
    training, held_out = split(here.system.fleet.family_named("eta"), order, rows)
    assert pc.max(training["event_time"]).as_py() < order.holdout_from
    assert pc.min(held_out["event_time"]).as_py() == order.holdout_from
    assert (training.num_rows, held_out.num_rows) == (23 * 8, 7 * 8)
    assert training["label"].null_count == held_out["label"].null_count == 0


@pytest.mark.parametrize(
    ("days", "a_day", "key"), [(8, 10, "retrain.min_rows"), (60, 4, "gate.min_rows")]
)
def test_too_few_rows_on_either_side_are_refused(
    place: Callable[..., Any], days: int, a_day: int, key: str
) -> None:
    """The error names the model, the count and the key of the policy that asks for more."""
    here = place()
    order = here.order("k")
    rows = labelled_rows(order, days=days, a_day=a_day)
    rows = rows.append_column("label", label_but(rows, every=10**6))
    with pytest.raises(TrainingFailed, match=key) as caught:
        split(here.system.fleet.family_named("eta"), order, rows)
    assert caught.value.where == "eta-de"
    assert "labelled rows" in caught.value.what


def test_a_candidate_is_six_files_named_by_digest(place: Callable[..., Any]) -> None:
    """All of them, whole, in the folder that the model file's SHA-256 names; parity is small."""
    here = place()
    here.history(range(50, 0, -1))
    candidate = here.candidate(here.order("k"))
    folder = Path(candidate.folder)
    assert {file.name for file in folder.iterdir()} == FILES
    model_file = (folder / "model.onnx").read_bytes()
    assert hashlib.sha256(model_file).hexdigest() == candidate.digest
    assert folder.name == candidate.digest[:16]
    assert msgspec.json.decode((folder / "card.json").read_bytes(), type=Candidate) == candidate
    assert (candidate.rows, candidate.holdout_rows) == (43 * 20, 7 * 20)
    assert 0.0 <= candidate.parity < 1e-4
    reference = pq.read_table(folder / "reference.parquet")
    assert reference.num_rows == 43 * 20
    assert reference["prediction"].null_count == 0


def test_held_out_rows_are_answered_by_champion_and_candidate(place: Callable[..., Any]) -> None:
    """Without a champion there is no such column; with one, its own answers to the same rows.

    The inputs stand beside them, so that segments can be told apart.
    """
    here = place()
    here.history(range(50, 0, -1))
    first = here.candidate(here.order("first"))
    alone = pq.read_table(Path(first.folder) / "holdout.parquet")
    assert alone.column_names == ["id", "event_time", "label", "candidate", "features"]
    assert alone["features"].type.names == list(here.system.fleet.family_named("eta").inputs)
    champion = promoted(first, 1, champion=None)
    seeded = replace(here.order("second"), seed=8, holdout_from=here.order("k").holdout_from)
    earlier = replace(seeded, window=replace(seeded.window, start=seeded.window.start + 20 * DAY))
    second = here.candidate(earlier, champion)
    assert second.digest != first.digest
    both = pq.read_table(Path(second.folder) / "holdout.parquet")
    assert both.column_names == [*alone.column_names, "champion"]
    assert both["id"].to_pylist() == alone["id"].to_pylist()
    assert both["champion"].to_pylist() == pytest.approx(alone["candidate"].to_pylist(), rel=1e-4)
    assert both["champion"].to_pylist() != pytest.approx(both["candidate"].to_pylist(), rel=1e-4)


def test_the_same_order_twice_is_the_same_model(place: Callable[..., Any]) -> None:
    """Same rows, same seed, same digest and folder; nothing half-written is left beside it."""
    here = place()
    here.history(range(50, 0, -1))
    one, other = (here.candidate(here.order("k")) for _ in range(2))
    assert (one.digest, one.folder, one.metrics) == (other.digest, other.folder, other.metrics)
    assert {file.name for file in Path(one.folder).iterdir()} == FILES
    assert written(here) == {one.folder}


@pytest.mark.parametrize(
    ("recipe", "error", "said"),
    [
        ("raises", TrainingFailed, "no luck today"),
        ("nothing", TrainingFailed, "NoneType"),
        ("native", ParityError, "answer"),
    ],
)
def test_a_recipe_that_comes_to_nothing_leaves_nothing(
    place: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    error: type[DriftloopError],
    said: str,
) -> None:
    """An error that says what was wrong; no folder, not even half of one."""
    monkeypatch.syspath_prepend(recipes_in(tmp_path / "code"))
    here = place(monitors_with(tmp_path / "monitors", f"unlucky_recipes:{recipe}"))
    here.history(range(50, 0, -1))
    with pytest.raises(error, match=said):
        here.candidate(here.order("k"))
    assert written(here) == set()


@pytest.mark.parametrize(
    ("recipe", "serve", "why"),
    [
        ("native", "either", "the lowered model answers otherwise on"),
        ("neighbours", "either", "cannot be lowered to ONNX"),
        ("native", "sklearn", "retrain.serve is sklearn"),
    ],
)
def test_what_cannot_be_lowered_may_answer_as_it_was_fitted(
    place: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    serve: str,
    why: str,
) -> None:
    """Where the monitor allows it: pipeline.skops is what its digest names, and why is kept.

    As champion it answers the held-out rows of the next candidate.
    """
    monkeypatch.syspath_prepend(recipes_in(tmp_path / "code"))
    here = place(monitors_with(tmp_path / "monitors", f"unlucky_recipes:{recipe}", serve=serve))
    here.history(range(50, 0, -1))
    candidate = here.candidate(here.order("k"))
    folder = Path(candidate.folder)
    assert {file.name for file in folder.iterdir()} == FILES - {"model.onnx"}
    assert candidate.unlowered.startswith(why)
    assert candidate.artifact == str(folder / "pipeline.skops")
    assert hashlib.sha256((folder / "pipeline.skops").read_bytes()).hexdigest() == candidate.digest
    assert candidate.parity == 0.0
    head = promoted(candidate, 1, champion=None)
    assert not head.lowered
    again = here.candidate(here.order("again"), head)
    assert again.digest == candidate.digest
    compared = pq.read_table(Path(again.folder) / "holdout.parquet")
    assert compared["champion"].to_pylist() == compared["candidate"].to_pylist()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [("nameless", "cannot be read back from its file"), ("strict", "cannot answer rows")],
)
def test_what_could_not_answer_either_way_is_refused(
    place: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    said: str,
) -> None:
    """A pipeline with a lambda, or one that raises on rows that may be asked; nothing is left."""
    monkeypatch.syspath_prepend(recipes_in(tmp_path / "code"))
    here = place(monitors_with(tmp_path / "monitors", f"unlucky_recipes:{recipe}", serve="either"))
    here.history(range(50, 0, -1))
    with pytest.raises(TrainingFailed, match=said):
        here.candidate(here.order("k"))
    assert written(here) == set()


def test_a_damaged_champion_leaves_nothing_either(place: Callable[..., Any]) -> None:
    """The champion's file is not what its digest names: an error, and no folder half-written."""
    here = place()
    here.history(range(50, 0, -1))
    first = here.candidate(here.order("first"))
    champion = promoted(first, 1, champion=None)
    Path(champion.artifact).write_bytes(b"not a model")
    with pytest.raises(ArtifactError):
        here.candidate(replace(here.order("second"), seed=8), champion)
    assert written(here) == {first.folder}


@pytest.mark.parametrize("room", [1000, 20_000], ids=["for no file", "for some"])
def test_a_full_disk_leaves_no_half_candidate(place: Callable[..., Any], room: int) -> None:
    """Whichever file did not fit, there is no folder; with room again the same order is made."""
    here = place()
    here.history(range(50, 0, -1))
    order, family = here.order("k"), here.system.fleet.family_named("eta")
    rows, artifacts = here.system.log.rows(family, order.window), here.system.settings.artifacts
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk no file can grow beyond what it may have: EFBIG for ENOSPC.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            build_candidate(family, order, None, rows, artifacts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert written(here) == set()
    candidate = here.candidate(order)
    assert written(here) == {candidate.folder}


def test_what_a_killed_fit_left_behind_is_cleared(place: Callable[..., Any]) -> None:
    """A child that was ended while it wrote leaves a part; the next fit of the model removes it."""
    here = place()
    here.history(range(50, 0, -1))
    left = here.system.settings.artifacts / "eta-de" / "0123456789abcdef.4711.part"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    candidate = here.candidate(here.order("k"))
    assert written(here) == {candidate.folder}


# -- rows, monitors, recipes ------------------------------------------------------------------

DAY = timedelta(days=1)


def labelled_rows(order: Order, *, days: int, a_day: int) -> pa.Table:
    """Return rows spread evenly over the `days` before the order, newest first."""
    at = [order.at - n * DAY / a_day for n in range(1, days * a_day + 1)]
    return pa.table({"event_time": pa.array(at, pa.timestamp("us", tz="UTC"))})


def label_but(rows: pa.Table, *, every: int) -> pa.Array:
    """Return a label for each row but every so many-th."""
    return pa.array([None if n % every == 0 else 1.0 for n in range(rows.num_rows)])


def monitors_with(folder: Path, recipe: str, *, serve: str = "onnx") -> Path:
    """Return a copy of the test monitors in which eta has another recipe."""
    shutil.copytree(MONITORS, folder)
    with (folder / "eta.toml").open("a") as file:
        file.write(f'\n[retrain]\nrecipe = "{recipe}"\nserve = "{serve}"\n')
    return folder


def recipes_in(folder: Path) -> str:
    """Return a folder with a module of recipes that come to nothing."""
    folder.mkdir()
    (folder / "unlucky_recipes.py").write_text(RECIPES)
    return str(folder)


def written(here: Any) -> set[str]:
    """Return all that stands where artifacts are kept for eta-de."""
    folder = here.system.settings.artifacts / "eta-de"
    return {str(each) for each in folder.iterdir()} if folder.exists() else set()
