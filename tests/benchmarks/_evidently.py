"""Evidently as it comes: what a pass is compared with."""

import warnings
from collections.abc import Sequence

import pandas as pd

from tests.benchmarks._world import NUMBERS, WORDS


def presets(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    numbers: Sequence[str] = NUMBERS,
    words: Sequence[str] = WORDS,
) -> None:
    """Run the presets for drift and regression over these columns, `label` and `prediction`."""
    from evidently import DataDefinition, Dataset, Regression, Report
    from evidently.presets import DataDriftPreset, RegressionPreset

    defined = DataDefinition(
        numerical_columns=list(numbers),
        categorical_columns=list(words),
        datetime_columns=[],
        text_columns=[],
        unknown_columns=[],
        list_columns=[],
        regression=[Regression(target="label", prediction="prediction")],
    )
    with warnings.catch_warnings(action="ignore"):  # it asks for R2 of bins with one row
        Report([DataDriftPreset(), RegressionPreset()]).run(
            Dataset.from_pandas(current, data_definition=defined),
            Dataset.from_pandas(reference, data_definition=defined),
        )
