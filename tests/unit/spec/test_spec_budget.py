"""Budgets of false pages in monitor files: what contradicts itself is told."""

import shutil
from pathlib import Path

import pytest
from conftest import MONITORS

from driftloop.errors import SpecError
from driftloop.spec import load_fleet

ETA, CHURN, PLATFORM = "eta.toml", "churn.toml", "platform.toml"


def told(tmp_path: Path, *said: tuple[str, str]) -> str:
    folder = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
    for file, text in said:
        with (folder / file).open("a", encoding="utf-8") as open_file:
            open_file.write(f"\n{text}\n")
    with pytest.raises(SpecError) as error:
        load_fleet(folder)
    return str(error.value)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            ((ETA, "[budget]\nmarkets = { dee = 0.1 }"),),
            "eta.toml: budget.markets.dee: is no market of the family",
        ),
        (
            ((ETA, "[budget]\nfalse_pages_per_week = 0.2\nmarkets = { de = 0.2, fr = 0.1 }"),),
            "eta.toml: budget.false_pages_per_week: its markets claim 0.3, more than the family's",
        ),
        (
            ((ETA, "[budget]\nfalse_pages_per_week = 0.2\nmarkets = { de = 0.2 }"),),
            "its markets claim all of it: nothing is left for the others",
        ),
        (
            (
                (ETA, "[budget]\nfalse_pages_per_week = 0.7"),
                (CHURN, "[budget]\nmarkets = {uk=0.7}"),
            ),
            "platform.toml: false_pages_per_week: the families claim 1.4 false pages a week",
        ),
        (
            ((ETA, "[budget]\nfalse_pages_per_week = 1.0"),),
            "nothing is left for 1 models without a budget of their own",
        ),
        (((ETA, "[budget]\nfalse_pages_per_week = 0.0"),), "should be greater than 0"),
        (((ETA, '[budget]\npage_on = ["everything"]'),), "budget.page_on.0"),
        (((PLATFORM, "false_pages_per_week = 0.0"),), "should be greater than 0"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_told(
    tmp_path: Path, said: tuple[tuple[str, str], ...], expected: str
) -> None:
    """More than there is, nothing left for others, or nobody to spend it."""
    assert expected in told(tmp_path, *said)


def test_budgets_that_use_the_whole_up_are_well(tmp_path: Path) -> None:
    """Every model has its own, and together they are the fleet's: floats may round."""
    folder = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
    for file, text in (
        (ETA, "[budget]\nfalse_pages_per_week = 0.3\nmarkets = { de = 0.1, fr = 0.2 }"),
        (CHURN, "[budget]\nfalse_pages_per_week = 0.7"),
    ):
        with (folder / file).open("a", encoding="utf-8") as open_file:
            open_file.write(f"\n{text}\n")
    assert load_fleet(folder).family_named("eta").budget.markets == {"de": 0.1, "fr": 0.2}
