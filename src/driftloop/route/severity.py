"""How urgent it is that somebody looks at what was found."""

from collections.abc import Mapping

from driftloop.judge import expected_gain, harmed
from driftloop.records import Decision, Kind, Level, Severity, Stage, State
from driftloop.spec import Family

FAR = 2.0
"""Worse by so many times what alarms is critical."""
OF_STAGES: Mapping[Stage, Severity] = {
    Stage.STUCK: Severity.CRITICAL,
    Stage.ROLLED_BACK: Severity.CRITICAL,
    Stage.HELD: Severity.WARNING,
    Stage.REFUSED: Severity.WARNING,
    Stage.FAILED: Severity.WARNING,
}
"""Of what comes of retraining and of rollouts; any other stage is for the record."""


def rank(severity: Severity) -> int:
    """Return the place of a severity, the least urgent first: as texts they do not compare.

    >>> max(Severity, key=rank)
    <Severity.CRITICAL: 'critical'>
    """
    return list(Severity).index(severity)


def severity_of(decision: Decision, family: Family) -> Severity:
    """Return how urgent it is to look at a model after `decision`.

    | what was found | |
    |---|---|
    | the data is at fault, and the model predicts worse for certain | critical |
    | it predicts worse for certain, by twice `decay.alarm` or more | critical |
    | it predicts worse | warning |
    | the data is at fault | warning |
    | what its callers are answered has changed, and no label tells | warning |
    | columns have changed | info |
    | anything else, as that it is well again | info |

    `[severity]` of the family says otherwise.
    """
    said, worse = family.severity, _worse(decision)
    if decision.state is State.DATA_FAULT:
        return said.data or (Severity.CRITICAL if worse else Severity.WARNING)
    if decision.state is State.DECAYING:
        return said.harm or (Severity.CRITICAL if _far(decision, family) else Severity.WARNING)
    if decision.state is State.DRIFTING:
        blindly = family.decay is None and _moved(decision)
        return said.drift or (Severity.WARNING if blindly else Severity.INFO)
    return Severity.INFO


def severity_of_stage(stage: Stage, family: Family) -> Severity:
    """Return how urgent what follows a decision is: a rollout that is stuck, a refused candidate.

    Stuck and rolled back are critical; held, refused and failed a warning; the rest is for the
    record, rows in quarantine too: they train nothing, and nobody is answered otherwise for them.
    `rollout` in the family's `[severity]` says otherwise of rollouts.
    """
    usual = OF_STAGES.get(stage, Severity.INFO)
    of_rollout = stage in (Stage.STUCK, Stage.ROLLED_BACK, Stage.HELD)
    return (family.severity.rollout or usual) if of_rollout else usual


def _worse(decision: Decision) -> bool:
    return harmed(decision) or any(
        verdict.level is Level.ALARM and verdict.reading.kind in (Kind.DECAY, Kind.ESTIMATE)
        for verdict in decision.verdicts
    )


def _far(decision: Decision, family: Family) -> bool:
    limits = family.decay
    return limits is not None and expected_gain(decision) >= FAR * limits.alarm and _worse(decision)


def _moved(decision: Decision) -> bool:
    return any(
        verdict.level is Level.ALARM and verdict.reading.column == "prediction"
        for verdict in decision.verdicts
    )
