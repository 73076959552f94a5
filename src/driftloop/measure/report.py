"""Evidently's full report of a window, as one HTML page that needs no network."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from evidently import BinaryClassification, DataDefinition, Dataset, Report
from evidently.core.metric_types import render_widgets
from evidently.core.report import Snapshot
from evidently.legacy.renderers.html_widgets import group_widget, text_widget
from evidently.presets import ClassificationPreset, DataDriftPreset, RegressionPreset

from driftloop.errors import MeasureError
from driftloop.measure.columns import (
    Codes,
    Floats,
    Unmeasurable,
    categories,
    measured_columns,
    no_class,
    numbers,
)
from driftloop.measure.door import NO_OTHERS, definition, of_names
from driftloop.measure.reference import APART, leveled
from driftloop.records import Task
from driftloop.spec import DriftPolicy, Family

FEWEST = 2
PAIR = 2
"""Classes that a binary model tells apart."""
_PERFORMANCE = {
    True: " Performance is that of the champion's own labelled rows; the reference is rows that it"
    " was fitted on, on which any model looks better than it is.",
    False: " A score has no right answer, so there is no performance to draw.",
}
OTHER = "(other)"
"""Stands for all levels that are not told apart."""


def page(
    *, family: Family, title: str, current: pa.Table, reference: pa.Table, of: int | None = None
) -> str:
    """Return the HTML of the report; `EvidentlyMeasure.report` says what it holds.

    Raises:
        MeasureError: the window or the reference is empty, or nothing can be drawn of them.
    """
    for table, side in ((current, "the window"), (reference, "the reference")):
        if not table.num_rows:
            raise MeasureError(f"{side} has no rows, so there is nothing to draw", where=title)
    notes: list[str] = []
    drift = _drift(family, current, reference, notes)
    performance = _performance(family, current, reference, notes)
    if drift is None and performance is None:
        raise MeasureError(f"nothing can be drawn: {'; '.join(notes)}", where=title)
    part = of is not None and of > current.num_rows
    sample = f" (a sample by the hash of their ids, of {of} in all)" if part else ""
    head = (
        f"{current.num_rows} rows of the window{sample} against {reference.num_rows} of the"
        " reference."
        f" Drift is called detected above {family.drift.alarm:g}, whatever its p-value;"
        f" the loop also asks for p < {family.drift.p_value:g}."
        + _PERFORMANCE[family.task is not Task.SCORE]
        + "".join(f"\n\n- Left out: {note}." for note in notes)
    )
    widgets = [text_widget(title=_plain(title), text=_plain(head))]
    widgets += [
        group_widget(title="", widgets=snapshot._widgets)  # noqa: SLF001 - Evidently gives its widgets no other way
        for snapshot in (drift, performance)
        if snapshot is not None
    ]
    return str(render_widgets(widgets))


def _drift(
    family: Family, current: pa.Table, reference: pa.Table, notes: list[str]
) -> Snapshot | None:
    cur: dict[str, pd.Series] = {}
    ref: dict[str, pd.Series] = {}
    numeric, categorical = measured_columns(family)
    columns = dict.fromkeys(numeric, _numeric)
    columns |= dict.fromkeys(categorical, partial(_categorical, family))
    for name, sides in columns.items():
        try:
            cur[name], ref[name] = sides(current, reference, name)
        except Unmeasurable as problem:
            notes.append(str(problem))
    kinds = {name: columns[name] is _numeric for name in cur}
    try:
        return _columns_drift(family.drift, cur, ref, kinds)
    except Unmeasurable:
        pass
    # One column breaks Evidently's whole report: find which by drawing each alone.
    for name in tuple(kinds):
        try:
            _columns_drift(family.drift, cur, ref, {name: kinds[name]})
        except Unmeasurable as problem:
            notes.append(f"{name}, because {problem}")
            del kinds[name]
    try:
        return _columns_drift(family.drift, cur, ref, kinds)
    except Unmeasurable as problem:
        notes.append(f"drift, because {problem}")
        return None


def _columns_drift(
    policy: DriftPolicy,
    cur: dict[str, pd.Series],
    ref: dict[str, pd.Series],
    numeric: dict[str, bool],
) -> Snapshot:
    if not numeric:
        raise Unmeasurable("no column is left")
    defined = DataDefinition(
        numerical_columns=[name for name in numeric if numeric[name]],
        categorical_columns=[name for name in numeric if not numeric[name]],
        **NO_OTHERS,
    )
    # By its own name `ks` is a p-value, and it knows no bins of equal shares.
    known = policy.numeric in ("wasserstein", "psi", "jensenshannon")
    numeric_method = policy.numeric if known else "wasserstein"
    preset = DataDriftPreset(
        num_method=numeric_method,
        cat_method=policy.categorical,
        num_threshold=policy.alarm,
        cat_threshold=policy.alarm,
        drift_share=policy.columns,
    )
    return _run(
        preset,
        {name: cur[name] for name in numeric},
        {name: ref[name] for name in numeric},
        defined,
    )


def _performance(
    family: Family, current: pa.Table, reference: pa.Table, notes: list[str]
) -> Snapshot | None:
    if family.task is Task.SCORE:
        return None
    try:
        return _labelled_performance(
            family,
            _labelled(current, family, of="the window"),
            _labelled(reference, family, of="the reference"),
        )
    except Unmeasurable as problem:
        notes.append(f"performance, because {problem}")
        return None


def _labelled_performance(
    family: Family, cur: dict[str, pd.Series], ref: dict[str, pd.Series]
) -> Snapshot:
    if family.task is Task.REGRESSION:
        return _run(RegressionPreset(), cur, ref, definition(family.task))
    if family.task is Task.MULTICLASS:
        return _run(ClassificationPreset(), cur, ref, _of_classes(family, cur, ref))
    return _run(ClassificationPreset(), cur, ref, definition(family.task))


def _of_classes(
    family: Family, cur: dict[str, pd.Series], ref: dict[str, pd.Series]
) -> DataDefinition:
    """Return what a side of two classes alone is to Evidently, or one of any other number.

    Its multiclass report breaks on two, which its binary one can draw; the second counts as yes.
    """
    seen = [{name for column in side.values() for name in column} for side in (cur, ref)]
    if all(len(side) != PAIR for side in seen):
        return definition(family.task)
    if seen[0] != seen[1]:
        raise Unmeasurable("Evidently cannot draw two classes beside another number of them")
    yes = [name for name in map(_plain, family.classes) if name in seen[0]][-1]
    return of_names(
        BinaryClassification(target="label", prediction_labels="prediction", pos_label=yes)
    )


def _run(
    preset: object, cur: dict[str, pd.Series], ref: dict[str, pd.Series], defined: DataDefinition
) -> Snapshot:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # What scikit-learn thinks of a chart's figures is nothing that a terminal should show.
            warnings.simplefilter("ignore")
            return Report([preset]).run(
                Dataset.from_pandas(pd.DataFrame(cur), data_definition=defined),
                Dataset.from_pandas(pd.DataFrame(ref), data_definition=defined),
            )
    except Exception as error:
        raise Unmeasurable(f"Evidently cannot draw it ({error!r})") from error


def _numeric(current: pa.Table, reference: pa.Table, name: str) -> tuple[pd.Series, pd.Series]:
    cur = _finite(numbers(current, name, of="the window"), name, of="the window")
    ref = _finite(numbers(reference, name, of="the reference"), name, of="the reference")
    return cur, ref


def _finite(values: Floats, name: str, *, of: str) -> pd.Series:
    # Infinity is drift to one of Evidently's metrics and not to another: it is none here.
    values = np.where(np.isfinite(values), values, np.nan)
    _enough(int(np.count_nonzero(~np.isnan(values))), name, of=of)
    return pd.Series(values)


def _categorical(
    family: Family, current: pa.Table, reference: pa.Table, name: str
) -> tuple[pd.Series, pd.Series]:
    ref = categories(family, reference, name, of="the reference")
    cur = categories(family, current, name, of="the window")
    for (codes, _), of in ((ref, "the reference"), (cur, "the window")):
        _enough(int(np.count_nonzero(codes >= 0)), name, of=of)
    levels = leveled(*ref)
    apart = levels.apart if levels.distinct > APART else None
    return _texts(*cur, apart), _texts(*ref, apart)


def _texts(codes: Codes, names: pa.Array, apart: pa.Array | None) -> pd.Series:
    if apart is not None:
        # As they are measured: a chart of thousands of levels tells nothing, and takes minutes.
        names = pc.if_else(pc.is_in(names, value_set=apart), names, OTHER)
    plain = np.array([*map(_plain, names.to_pylist()), None], dtype=object)
    return pd.Series(plain[codes], dtype="object")  # -1, for null, is the last


def _enough(n: int, name: str, *, of: str) -> None:
    if n < FEWEST:
        raise Unmeasurable(f"{name} has {n} usable values in {of}, fewer than {FEWEST}")


def _labelled(table: pa.Table, family: Family, *, of: str) -> dict[str, pd.Series]:
    label, prediction = numbers(table, "label", of=of), numbers(table, "prediction", of=of)
    usable = np.isfinite(label) & np.isfinite(prediction)
    label, prediction = label[usable], prediction[usable]
    if len(label) < FEWEST:
        raise Unmeasurable(f"{of} has {len(label)} labelled rows, fewer than {FEWEST}")
    if family.task is Task.MULTICLASS:
        if (no_class(label, family) | no_class(prediction, family)).any():
            raise Unmeasurable(f"labels or predictions in {of} are none of the classes")
        names = np.array([_plain(name) for name in family.classes], dtype=object)
        named = {"label": label, "prediction": prediction}
        return {name: pd.Series(names[side.astype(int)]) for name, side in named.items()}
    if family.task is Task.REGRESSION:
        return {"label": pd.Series(label), "prediction": pd.Series(prediction)}
    classes = set(np.unique(label).tolist())
    if classes != {0.0, 1.0}:
        raise Unmeasurable(f"labels in {of} are not both 0 and 1 but {sorted(classes)[:3]}")
    if prediction.min() < 0.0 or prediction.max() > 1.0:
        raise Unmeasurable(f"predictions in {of} are not probabilities")
    return {"label": pd.Series(label.astype(np.int64)), "prediction": pd.Series(prediction)}


def _plain(text: str) -> str:
    # Evidently writes texts into a script tag as they are: one "</script>" would end it.
    return text.replace("<", "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}")
