"""Every error driftloop raises on purpose: what was wrong, where, and a hint."""

from pathlib import Path
from typing import Self

MOST_SAID = 500
"""Characters that are repeated of what somebody else's code says: it may be megabytes."""


class DriftloopError(Exception):
    """Base of all our errors; `str()` is a line (or a few) that a person can act on.

    Args:
        what: what was wrong, in one sentence without the final full stop.
        where: file, key, model, row or address concerned; empty when there is none.
        hint: what to do about it; empty when there is nothing useful to say.

    >>> str(DriftloopError("the port is taken", where="127.0.0.1:8080", hint="set online_port"))
    '127.0.0.1:8080: the port is taken (hint: set online_port)'
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Keep the three parts; the message is made of them."""
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(f"{where}: {what}" if where else what)

    def __str__(self) -> str:
        """Return `where: what (hint: ...)`."""
        said = super().__str__()
        return f"{said} (hint: {self.hint})" if self.hint else said


def named(error: BaseException) -> str:
    """Return the kind of an error of somebody else's code, and the beginning of what it says.

    >>> named(ValueError("x" * 1000))[:20], named(SystemExit())
    ('ValueError: xxxxxxxx', 'SystemExit')
    """
    said = " ".join(str(error).split())
    shown = said if len(said) <= MOST_SAID else f"{said[:MOST_SAID]}..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


class SpecError(DriftloopError):
    """A monitor file is wrong; holds one line per fault, all faults at once."""

    def __init__(self, faults: tuple[DriftloopError, ...]) -> None:
        """Gather `faults`; the message is one line for each."""
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


class BadRequest(DriftloopError):
    """What a caller sent cannot be used (4xx over HTTP, exit code 2 on the command line)."""


class UnknownModel(BadRequest):
    """No monitor declares this model, or it has no champion yet."""


class UnknownSource(BadRequest):
    """No source of this name is declared, or none of its kind."""


class TooNew(BadRequest):
    """What is kept here was written by a newer driftloop; it was left as it is."""


class LogError(DriftloopError):
    """The prediction log could not be written or read."""


class MeasureError(DriftloopError):
    """A measurement could not be made at all (one bad column is a reading, not an error)."""


class PagerError(DriftloopError):
    """The pager did not take a message; `retry` says whether trying again can help.

    `away` says that it cannot be reached at all, whatever the channel; `gone` that the message
    which was to be changed is not there any more; `after` how many seconds it wants to be left in
    peace. `lost` says that what was asked may have happened all the same.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        hint: str = "",
        retry: bool,
        away: bool = False,
        gone: bool = False,
        lost: bool = False,
        after: float = 0.0,
    ) -> None:
        """Keep what a caller may do about it."""
        self.retry = retry
        self.away = away
        self.gone = gone
        self.lost = lost
        self.after = after
        super().__init__(what, where=where, hint=hint)


class TrainingFailed(DriftloopError):
    """No candidate came of an order: too few rows, a recipe that raised, hung or ate memory."""


class CalledOff(TrainingFailed):
    """Somebody called the training off while it was under way."""


class ParityError(TrainingFailed):
    """The lowered model does not answer as the fitted one does on real rows."""


class HandoverFailed(DriftloopError):
    """Who serves a model elsewhere did not take a new version of it."""


class RegistryError(DriftloopError):
    """The model registry did not take or give a version."""


class StaleHead(DriftloopError):
    """Somebody moved the champion since it was read: nothing was changed."""


class ArtifactError(DriftloopError):
    """A model file is missing, damaged, or not the one its digest names."""

    @classmethod
    def unreadable(cls, file: Path, error: Exception) -> Self:
        """Return the error for a table beside a model that could not be read for `error`."""
        gone = isinstance(error, FileNotFoundError)
        return cls(
            "there is no such file" if gone else f"it cannot be read: {error}",
            where=str(file),
            hint="a backup has it; `driftloop train MODEL` makes another version, which answers in"
            " its place if it is better",
        )


class ModelAway(ArtifactError):
    """Who answers for a model is away, too busy or too slow: the same may be asked again later."""


class LedgerError(DriftloopError):
    """The ledger could not be written or read."""


class ServiceError(DriftloopError):
    """A service did not start, or did not become healthy."""


class CannotListen(ServiceError, BadRequest):
    """A port is taken, or may not be had, or the host is not this machine: see the settings."""
