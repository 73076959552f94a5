"""A fitted pipeline that answers rows, as the sidecar has it."""

from driftloop.errors import ArtifactError, TrainingFailed, named
from driftloop.records import FeatureValue
from driftloop.retrain.file import samples_in, unpack
from driftloop.retrain.fit import answer


class FittedModel:
    """A pipeline from its file; safe to call from several threads, as estimators are.

    Args:
        content: of the file; see `pack`. Its digest must have been compared.
        digest: its SHA-256.
        where: what errors call it; kept.

    Raises:
        ArtifactError: it is damaged, or holds a type that it does not list.
    """

    def __init__(self, content: bytes, *, digest: str, where: str) -> None:
        self._fitted = unpack(content, where=where)
        self.samples = samples_in(content, where=where)
        self.digest = digest
        self.size = len(content)
        self.inline = False
        self.where = where

    @property
    def classes(self) -> tuple[str, ...]:
        """What it was trained to tell apart, in its order."""
        return self._fitted.classes

    @property
    def inputs(self) -> tuple[str, ...]:
        """The features that it is given."""
        return tuple(name for name, _ in self._fitted.columns)

    def predict(self, columns: dict[str, list[FeatureValue]]) -> list[float]:
        """Return one answer a row, NaN included: the target, the probability of 1, or the class.

        Raises:
            ArtifactError: a feature it needs is not in `columns`, or it failed.
        """
        if lacking := [name for name in self.inputs if name not in columns]:
            raise ArtifactError(
                f"the model needs features it is not given: {', '.join(sorted(lacking))}",
                where=self.where,
            )
        try:
            answers: list[float] = answer(self._fitted, columns).tolist()
        except TrainingFailed as error:
            raise ArtifactError(error.what, where=self.where) from error
        except (Exception, SystemExit) as error:  # an estimator is anybody's code
            raise ArtifactError(
                f"the model failed to answer: {named(error)}", where=self.where
            ) from error
        return answers
