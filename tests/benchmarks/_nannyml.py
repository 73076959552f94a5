"""NannyML's drift calculators on rows of ours, in an environment of their own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.records import ModelId
from tests.benchmarks._world import NUMBERS, WORDS

WANTED = ("nannyml==0.13.1", "statsmodels")
"""It imports statsmodels and does not declare it."""
PLACE = Path("bench-results") / "nannyml"
"""Kept from one run to the next: 1.8 GB."""
SIDE = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import nannyml, pandas
numbers, words, models = json.load(sys.stdin)
spent = {}
for model, current, reference in models:
    current, reference = pandas.read_parquet(current), pandas.read_parquet(reference)
    found = nannyml.UnivariateDriftCalculator(
        column_names=[*numbers, "prediction", *words],
        treat_as_categorical=words,
        continuous_methods=["kolmogorov_smirnov", "wasserstein"],
        categorical_methods=["chi2", "jensen_shannon"],
        chunk_number=1,
    ).fit(reference)
    tries = []
    for _ in range(3):  # the first imports what it imports late
        began = time.process_time()
        found.calculate(current)
        tries.append(time.process_time() - began)
    spent[model] = min(tries)
print(json.dumps(spent))
"""


def nannyml_costs(
    rows: Mapping[ModelId, pa.Table], references: Mapping[ModelId, Path]
) -> dict[ModelId, float]:
    """Return the CPU seconds that fitted calculators take for each model: KS, W1, chi2 and JS.

    It is the least of three runs. Fitting, which is done once a reference, is left out, and so is
    reading the rows.

    Raises:
        subprocess.CalledProcessError: NannyML could not be installed, or broke.
    """
    python = PLACE / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *WANTED], check=True)
    with TemporaryDirectory() as folder:
        given = []
        for model, table in rows.items():
            file = Path(folder) / f"{model}.parquet"
            pq.write_table(table, file)
            given.append((model, str(file), str(references[model].absolute())))
        asked = json.dumps([NUMBERS, WORDS, given])
        said = subprocess.run(
            [python, "-c", SIDE], input=asked, capture_output=True, text=True, check=True
        )
    spent: dict[ModelId, float] = json.loads(said.stdout.splitlines()[-1])
    return spent
