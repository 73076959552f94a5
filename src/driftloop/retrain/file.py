"""A fitted pipeline and its file: by skops, never as a pickle; the same bytes each time."""

import io
import re
import zipfile

import msgspec

from driftloop.errors import ArtifactError, TrainingFailed, named
from driftloop.records import Samples, Task
from driftloop.retrain.fit import Fitted

TRUSTED = ("numpy.dtype", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")
"""What a file of our recipes holds beyond the types that skops trusts by itself."""
ABOUT = "driftloop.json"
"""The entry of a file that says what skops does not: see `_About`."""

_IDS = re.compile(r'("__id__": |"file": ")(\d+)')
_SAME_DAY = (1980, 1, 1, 0, 0, 0)


class _About(msgspec.Struct, frozen=True):
    """The types that were in the pipeline when it was fitted, and what it answered to some rows."""

    types: tuple[str, ...] = ()
    samples: Samples | None = None


def pack(fitted: Fitted, samples: Samples | None = None) -> bytes:
    """Return `fitted` as the content of a file, with a list of the types that are in it.

    So the file's digest covers them, and the `samples`: what it answers to some rows.

    Raises:
        TrainingFailed: the pipeline holds what skops cannot write, such as a lambda.
    """
    import skops.io

    try:
        dumped = skops.io.dumps(
            {
                "pipeline": fitted.pipeline,
                "task": str(fitted.task),
                "columns": [list(column) for column in fitted.columns],
                "classes": list(fitted.classes),
            }
        )
        types = skops.io.get_untrusted_types(data=dumped)
    except Exception as error:  # an estimator is anybody's code
        raise TrainingFailed(
            f"the fitted pipeline cannot be written to a file: {named(error)}",
            hint="skops writes estimators, arrays and functions that have a module and a name",
        ) from error
    return _canonical(dumped, _About(tuple(types), samples))


def unpack(content: bytes, *, where: str, trusted: tuple[str, ...] = ()) -> Fitted:
    """Return the pipeline in `content`, which `pack` made, trusting the types listed in it alone.

    A list in a file is no barrier against another file in its place: compare the digest first.

    Args:
        content: of the file.
        where: what errors call it.
        trusted: further types.

    Raises:
        ArtifactError: it is damaged, or holds a type that is not trusted.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        types = _about(content).types
        kept = skops.io.loads(content, trusted=[*TRUSTED, *types, *trusted])
        return Fitted(
            pipeline=kept["pipeline"],
            task=Task(kept["task"]),
            columns=tuple((name, kind) for name, kind in kept["columns"]),
            classes=tuple(kept.get("classes", ())),
        )
    except UntrustedTypesFoundException as error:
        raise ArtifactError(
            f"holds types that are not trusted: {error}",
            where=where,
            hint="name them in `trusted` if the recipe needs them",
        ) from error
    except Exception as error:  # a damaged file fails in many ways
        raise ArtifactError(
            f"cannot be read as a pipeline: {named(error)}",
            where=where,
            hint="a recipe's own types must be importable: is its folder on PYTHONPATH?"
            if isinstance(error, ImportError)
            else "",
        ) from error


def samples_in(content: bytes, *, where: str) -> Samples | None:
    """Return what the pipeline in `content` answered to some rows, if it says so.

    Raises:
        ArtifactError: it is damaged; `where` is what errors call it.
    """
    try:
        return _about(content).samples
    except Exception as error:  # a damaged file fails in many ways
        raise ArtifactError(f"cannot be read as a pipeline: {named(error)}", where=where) from error


def _about(content: bytes) -> _About:
    with zipfile.ZipFile(io.BytesIO(content)) as held:
        if ABOUT not in held.namelist():
            return _About()
        return msgspec.json.decode(held.read(ABOUT), type=_About)


def _canonical(dumped: bytes, about: _About) -> bytes:
    """Return `dumped` with what is said about it, and nothing of this process or day in it.

    skops names parts after their addresses in memory: here they are counted instead.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(dumped)) as old, zipfile.ZipFile(content, "w") as new:
        numbers: dict[str, str] = {}

        def counted(found: re.Match[str]) -> str:
            return found[1] + numbers.setdefault(found[2], str(len(numbers)))

        schema = _IDS.sub(counted, old.read("schema.json").decode())
        for name in old.namelist():
            stem, dot, kind = name.partition(".")
            body = schema.encode() if name == "schema.json" else old.read(name)
            renamed = f"{numbers.get(stem, stem)}{dot}{kind}"
            new.writestr(zipfile.ZipInfo(renamed, _SAME_DAY), body)
        new.writestr(zipfile.ZipInfo(ABOUT, _SAME_DAY), msgspec.json.encode(about))
    return content.getvalue()
