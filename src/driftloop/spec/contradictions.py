"""What each value of a family's file alone does not show."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from os.path import normpath
from typing import Any

from driftloop.errors import DriftloopError
from driftloop.records import Task
from driftloop.spec.lookups import bad_lookups
from driftloop.spec.naming import COLUMN, NAME
from driftloop.spec.recipe import check_call, load_recipe
from driftloop.spec.retraining import bad_retraining
from driftloop.spec.schema import (
    LEANING,
    METRICS,
    MOST_CLASSES,
    QUERY,
    Family,
    Platform,
    Source,
    is_database,
)
from driftloop.spec.values import duration

ROW_COLUMNS = ("id", "model", "version", "predicted_at", "arrived_at", "prediction")
LABEL_COLUMNS = ("id", "model", "label", "observed_at")
MISSING = "missing"
ROUNDING = 1.0 + 1e-9
"""Shares that add up to the whole may be more by what floats round."""
RESERVED = frozenset(
    {"id", "rows", "model", "version", "epoch", "event_time", "predicted_at", "arrived_at"}
    | {"prediction", "label", "labelled_at", "observed_at", "value"}
)


def contradictions(
    whole: Mapping[str, Any],
    *,
    owners: frozenset[str],
    sources: Mapping[str, Source | None] | None = None,
) -> Iterator[DriftloopError]:
    """Yield what each value alone does not show; values of the wrong type are the schema's.

    Where there are no `owners` at all, that is the fault of their file, and of no family; so is a
    source that is None.
    """
    holdout, span = (_length(whole, *k) for k in (("gate", "holdout"), ("retrain", "span")))
    if holdout is not None and span is not None and holdout >= span:
        yield DriftloopError(
            "must be shorter than retrain.span, which it is taken from", where="gate.holdout"
        )
    kept = _length(whole, "retention", "log")
    for table in ("retrain", "window"):
        needed = _length(whole, table, "span")
        if kept is not None and needed is not None and kept < needed:
            yield DriftloopError(
                f"must not be shorter than {table}.span, which is read from it",
                where="retention.log",
            )
    stale, seen = (_length(whole, *k) for k in (("quality", "stale"), ("window", "span")))
    if stale is not None and seen is not None and stale >= seen:
        yield DriftloopError(
            "must be shorter than window.span: no older row is ever seen", where="quality.stale"
        )
    yield from _bad_owners(whole, owners)
    recipe, parameters = _at(whole, "retrain", "recipe"), _at(whole, "retrain", "parameters")
    if isinstance(recipe, str):
        try:
            check_call(load_recipe(recipe), parameters if isinstance(parameters, dict) else {})
        except DriftloopError as error:
            yield DriftloopError(error.what, where="retrain.recipe", hint=error.hint)
    yield from bad_retraining(whole)
    if whole.get("target") in _names(whole):
        yield DriftloopError("is also a feature: the outcome would be given away", where="target")
    yield from _bad_metric(whole)
    yield from _bad_names(whole)
    yield from _bad_segments(whole)
    yield from _bad_texts(whole)
    yield from bad_lookups(whole, sources or {})
    yield from _bad_classes(whole)
    yield from _bad_log(whole)
    yield from _bad_batch(whole)
    yield from _bad_budget(whole)
    if whole.get("task") == Task.SCORE:
        yield from _bad_score(whole)


def overdrawn(families: Iterable[Family], platform: Platform) -> Iterator[DriftloopError]:
    """Yield what families claim beyond the fleet's budget, or leave nothing of for the others."""
    whole, said = platform.false_pages_per_week, "platform.toml: false_pages_per_week"
    claimed, others = 0.0, 0
    for family in families:
        stated = family.budget.false_pages_per_week
        unstated = set(family.markets) - family.budget.markets.keys()
        claimed += sum(family.budget.markets.values()) if stated is None else stated
        others += len(unstated) if stated is None else 0
    if claimed > whole * ROUNDING:
        yield DriftloopError(
            f"the families claim {claimed:g} false pages a week, more than the fleet's {whole:g}",
            where=said,
            hint="raise it, or lower false_pages_per_week and markets in their [budget]",
        )
    elif others and claimed >= whole:
        yield DriftloopError(
            f"the families claim all of the fleet's {whole:g} false pages a week: nothing is left"
            f" for {others} models without a budget of their own",
            where=said,
            hint="raise it, or lower false_pages_per_week and markets in their [budget]",
        )


def _bad_budget(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    budget, markets = whole.get("budget"), whole.get("markets")
    stated = budget.get("markets") if isinstance(budget, dict) else None
    if not isinstance(budget, dict) or not isinstance(stated, dict):
        return
    known = markets if isinstance(markets, list) else None
    for market in stated if known is not None else ():
        if market not in (known or ()):
            yield DriftloopError(
                "is no market of the family",
                where=f"budget.markets.{market}",
                hint=f"known: {', '.join(map(str, known or ()))}",
            )
    pages = budget.get("false_pages_per_week")
    claims = [each for each in stated.values() if isinstance(each, int | float)]
    if not isinstance(pages, int | float) or len(claims) < len(stated):
        return
    if sum(claims) > pages * ROUNDING:
        yield DriftloopError(
            f"its markets claim {sum(claims):g}, more than the family's {pages:g}",
            where="budget.false_pages_per_week",
        )
    elif known is not None and set(map(str, known)) - stated.keys() and sum(claims) >= pages:
        yield DriftloopError(
            "its markets claim all of it: nothing is left for the others",
            where="budget.false_pages_per_week",
        )


def _bad_owners(whole: Mapping[str, Any], owners: frozenset[str]) -> Iterator[DriftloopError]:
    for key in ("owner", "data_owner"):
        owner = whole.get(key)
        if owners and isinstance(owner, str) and owner not in owners:
            known = ", ".join(sorted(owners))
            yield DriftloopError(
                f"{owner!r} is not in owners.toml", where=key, hint=f"known: {known}"
            )


def _bad_batch(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    out, markets = _at(whole, "batch", "out"), whole.get("markets")
    if "batch" in whole and "log" in whole:
        yield DriftloopError("these models are served elsewhere", where="batch")
    if not isinstance(out, str):
        return
    known = ("{model}", "{market}", "{date}", "{time}")
    source = _at(whole, "batch", "source")
    # A query has braces of its own.
    files = source if isinstance(source, str) and not QUERY.match(source) else ""
    for place, text in (("source", files), ("out", out)):
        for name in re.findall(r"{.*?}", text):
            if name not in known:
                hint = f"known: {', '.join(known)}"
                yield DriftloopError(f"there is no {name}", where=f"batch.{place}", hint=hint)
    if files and normpath(files) == normpath(out):
        yield DriftloopError("would overwrite its own source", where="batch.out")
    several = isinstance(markets, list) and len(markets) > 1
    if several and "{model}" not in out and "{market}" not in out:
        yield DriftloopError(
            "one model's file would replace another's", where="batch.out", hint="use {model}"
        )


def _bad_metric(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    task, metric = whole.get("task"), _at(whole, "decay", "metric")
    known_to = METRICS.get(Task(task), ()) if isinstance(task, str) and task in tuple(Task) else ()
    known_to = tuple(name for name in known_to if name not in LEANING)
    if not known_to:
        return
    if "decay" not in whole:
        hint = "give it here or in defaults.toml: metric, warn, alarm"
        yield DriftloopError(MISSING, where="decay", hint=hint)
    if isinstance(metric, str) and metric not in known_to:
        known = ", ".join(known_to)
        what = f"{metric!r} is not a metric of {task}"
        if metric in LEANING:
            what = f"{metric!r} says which way a model errs, and is worse in neither direction"
        yield DriftloopError(what, where="decay.metric", hint=f"known: {known}")


def _bad_names(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    names, time = _names(whole), whole.get("time")
    for name in (*names, *((time,) if isinstance(time, str) else ())):
        if name in RESERVED or not COLUMN.fullmatch(name):
            yield DriftloopError(
                "not a usable column name",
                where="time" if name == time else f"features.{name}",
                hint=f"lower case letters, digits and _, but none of {', '.join(sorted(RESERVED))}",
            )
    if time in names:
        yield DriftloopError(f"{time!r} is also a feature", where="time")
    given = whole.get("markets")
    markets = [m for m in given if isinstance(m, str)] if isinstance(given, list) else []
    if len(set(markets)) != len(markets):
        yield DriftloopError("one stands twice", where="markets")
    for market in markets:
        if not NAME.fullmatch(market):
            yield DriftloopError(
                f"{market!r} should be lower case words joined by -", where="markets"
            )


def _bad_classes(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    task, given = whole.get("task"), whole.get("classes")
    if task != Task.MULTICLASS:
        if given is not None and task in tuple(Task):
            yield DriftloopError(
                "only a multiclass family has classes",
                where="classes",
                hint=f'leave it out, or say task = "{Task.MULTICLASS}"',
            )
        return
    if given is None:
        hint = 'as in classes = ["red", "green", "blue"]; new ones are added at the end'
        yield DriftloopError("a multiclass family needs them", where="classes", hint=hint)
    classes = [c for c in given if isinstance(c, str)] if isinstance(given, list) else []
    if isinstance(given, list) and not 2 <= len(given) <= MOST_CLASSES:  # noqa: PLR2004 - else there is nothing to tell apart
        yield DriftloopError(
            f"should be 2 to {MOST_CLASSES} classes, got {len(given)}", where="classes"
        )
    for name in classes:
        if not name or name != name.strip() or not name.isprintable():
            yield DriftloopError(
                f"{name!r} should be a text of printable characters, and not begin or end with a"
                " space",
                where="classes",
            )
    for name in (name for name, times in Counter(classes).items() if times > 1):
        yield DriftloopError(f"{name!r} stands twice", where="classes")


def _bad_score(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    if whole.get("log") is None:
        yield DriftloopError(
            "scores are watched where they are served: driftloop trains and serves none",
            where="log",
            hint="give [log] source, the log of what was scored",
        )
    if "decay" in whole:
        yield DriftloopError(
            "no outcome proves a score right or wrong, so its performance cannot be judged",
            where="decay",
            hint="leave it out: drift and quality are what scores are judged by",
        )
    if _at(whole, "retrain", "triggers"):
        yield DriftloopError(
            "a score cannot be retrained: without labels no gate could compare two of them",
            where="retrain.triggers",
            hint="say triggers = [] in [retrain]",
        )
    if whole.get("handover") is not None:
        yield DriftloopError(
            "no version of a score is ever made to be handed over",
            where="handover",
            hint="leave it out",
        )
    if _at(whole, "log", "labels") is not None:
        yield DriftloopError("a score has no labels", where="log.labels", hint="leave it out")


def _bad_segments(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    given = whole.get("segments")
    columns = [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
    fitting = [name for name, kind in _kinds(whole) if kind == "categorical"]
    for column in dict.fromkeys(columns):
        if columns.count(column) > 1:
            yield DriftloopError(f"{column!r} stands twice", where="segments")
        if column not in fitting:
            yield DriftloopError(
                f"{column!r} is no categorical feature",
                where="segments",
                hint=f"categorical features: {', '.join(fitting) or 'none'}",
            )


def _bad_texts(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    kinds = [kind for _, kind in _kinds(whole)]
    made = whole.get("log") is None or bool(_at(whole, "retrain", "triggers"))
    if made and kinds and all(kind in ("text", "key") for kind in kinds):
        yield DriftloopError(
            "a model needs a feature that is numeric or categorical: it is not given texts or keys",
            where="features",
            hint="only what is served elsewhere and never retrained here can do with texts alone",
        )


def _bad_log(whole: Mapping[str, Any]) -> Iterator[DriftloopError]:
    log, handover = whole.get("log"), whole.get("handover")
    if log is None:
        if handover is not None:
            yield DriftloopError(
                "only what is served elsewhere is handed over",
                where="handover",
                hint="give [log] source, or leave [handover] out",
            )
        return
    if whole.get("rollout") is not None:
        yield DriftloopError(
            "what is served elsewhere is rolled out there",
            where="rollout",
            hint="leave [rollout] out: who is handed a version decides how it comes to answer",
        )
    score = whole.get("task") == Task.SCORE
    if _at(whole, "retrain", "triggers") and handover is None and not score:
        yield DriftloopError(
            "what retraining makes must be handed over to who serves it",
            where="handover",
            hint="give command or url, or say triggers = [] in [retrain] to watch only",
        )
    if not isinstance(log, dict):
        return
    labels = log.get("labels")
    outcomes = () if isinstance(labels, dict) or score else LABEL_COLUMNS
    in_rows = (*ROW_COLUMNS, *outcomes, whole.get("time"), *_names(whole))
    yield from _bad_source(log, log.get("source"), "log", in_rows)
    if isinstance(labels, dict):
        yield from _bad_source(
            labels, labels.get("source", log.get("source")), "log.labels", LABEL_COLUMNS
        )


def _bad_source(
    table: Mapping[str, Any], source: object, where: str, known: Sequence[object]
) -> Iterator[DriftloopError]:
    if isinstance(source, str) and source:
        named = table.get("table") is not None
        if is_database(source) and not named:
            yield DriftloopError(
                "a database has tables and views: say which",
                where=f"{where}.table",
                hint='as in table = "main.scored"',
            )
        elif named and not is_database(source):
            yield DriftloopError(
                "only a database has tables, and this source is a file or a query",
                where=f"{where}.table",
            )
    columns = table.get("columns")
    for name in columns if isinstance(columns, dict) else ():
        if name not in known:
            yield DriftloopError(
                "is no column of ours",
                where=f"{where}.columns.{name}",
                hint=f"known: {', '.join(dict.fromkeys(str(each) for each in known))}",
            )


def _names(whole: Mapping[str, Any]) -> tuple[str, ...]:
    features = whole.get("features")
    return tuple(features) if isinstance(features, dict) else ()


def _kinds(whole: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name in _names(whole):
        feature = whole["features"][name]
        yield name, feature.get("kind") if isinstance(feature, dict) else None


def _at(whole: Mapping[str, Any], table: str, key: str) -> object:
    inner = whole.get(table)
    return inner.get(key) if isinstance(inner, dict) else None


def _length(whole: Mapping[str, Any], table: str, key: str) -> timedelta | None:
    try:
        found = duration(_at(whole, table, key))
    except ValueError:
        return None
    return found if isinstance(found, timedelta) else None
