from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftloop.incident.lines import badness, common, plain, worst
from driftloop.incident.words import doing, headline, needs, standing, stands
from driftloop.records import (
    PLATFORM,
    Act,
    Acted,
    Evidence,
    Incident,
    Member,
    ModelId,
    Notice,
    Origin,
    Severity,
    Stage,
    Status,
)

AT = datetime(2026, 3, 2, 3, tzinfo=UTC)
BLANK = Notice(
    key="k",
    incident="i",
    model=ModelId("eta-de"),
    stage=Stage.OPENED,
    at=AT,
    since=AT - timedelta(hours=4),
    channel="#c",
    mention="",
    headline="eta-de predicts worse",
    doing="Watching.",
)


def note(model: str, stage: Stage = Stage.OPENED, **changes: Any) -> Notice:
    """Return a notice of a model."""
    given = {"headline": f"{model}: its data looks wrong", "incident": f"{model}/1", **changes}
    return replace(BLANK, model=ModelId(model), stage=stage, **given)


def made(*notices: Notice, **changes: Any) -> Incident:
    """Return the incident that notices make, each alert in the stage of its newest one."""
    members: dict[str, Member] = {}
    for each in notices:
        over = each.at if each.stage is Stage.RECOVERED else None
        members[each.incident] = Member(
            alert=each.incident,
            model=each.model,
            stage=each.stage,
            since=each.since,
            at=each.at,
            headline=each.headline,
            over=over,
        )
    incident = Incident(
        id="the/id",
        group=notices[0].group,
        owner="ops",
        severity=Severity.WARNING,
        origin=notices[0].origin,
        status=Status.OPEN,
        opened=AT,
        since=notices[0].since,
        members=tuple(members.values()),
        notices=notices,
    )
    return replace(incident, **changes)


@pytest.mark.parametrize(
    ("group", "about", "said"),
    [
        ("data/source-weather", ("x03",), "x03 of source weather is broken: 2 models"),
        ("data/source-weather", ("x03", "x04"), "x03, x04 of source weather are broken: 2 models"),
        ("data/source-weather", (), "source weather is broken: 2 models"),
        ("data/x03", ("x03",), "x03 is broken: 2 models"),
        ("data/eta/freshness", (), "age in hours of eta is not as it should be: 2 models"),
        ("inputs/source-weather", ("x03",), "x03 of source weather has changed: 2 models"),
        ("inputs/x03", (), "x03 has changed: 2 models"),
        ("relation/eta", (), "eta: the world has changed, 2 models predict worse"),
        (
            "quarantine/eta/2026-03-01/nulls-of-x03",
            (),
            "eta: rows of 2026-03-01 are in quarantine, 2 models",
        ),
        ("", (), "2 models: its data looks wrong"),
        ("something/new", (), "2 models: its data looks wrong"),
    ],
)
def test_many_models_have_one_headline(group: str, about: tuple[str, ...], said: str) -> None:
    """What they share is named, and how many they are; never one of them for all."""
    names = about or ("",)
    notices = [
        note(f"m{number}", about=names[number % len(names)], group=group) for number in range(2)
    ]
    assert headline(made(*notices)) == said


def test_models_that_share_no_words_are_told_by_the_worst() -> None:
    """The worst is named, the others are counted."""
    numbers = {"a": "0.3", "b": "0.9", "c": "0.4"}
    notices = [
        note(
            name,
            headline=f"{name} has drifted to {value}",
            evidence=(Evidence(what="PSI", value=value, limit="0.2", n=9),),
        )
        for name, value in numbers.items()
    ]
    assert headline(made(*notices)) == "b: has drifted to 0.9, and 2 more models"


def test_a_headline_names_its_model_and_says_what_is_wrong() -> None:
    """Whatever came after it: it is the newest that says what is wrong."""
    first = note("eta-de", headline="its data looks wrong")
    worse = note("eta-de", Stage.WORSENED, headline="eta-de predicts worse")
    later = note("eta-de", Stage.RETRAINING, headline="eta-de is being retrained")
    assert headline(made(first)) == "eta-de: its data looks wrong"
    assert headline(made(first, worse, later)) == "eta-de predicts worse"
    assert headline(made(later)) == "eta-de is being retrained"


@pytest.mark.parametrize(
    ("notices", "said"),
    [
        ((note("m", retrains=True),), "Nothing: it retrains itself"),
        ((note("m"),), "Decide: retrain now, or say that it is no problem."),
        (
            (note("m", origin=Origin.DATA, group="data/source-weather", about="x03"),),
            "Mend x03 of source weather, or tell whoever runs the source. It does not retrain",
        ),
        (
            (note("m", origin=Origin.DATA, about="x03"),),
            "Mend the data (x03), or tell whoever makes them.",
        ),
        ((note("m", retrains=True), note("m", Stage.HELD, version=8)), "Decide: promote version 8"),
        ((note("m"), note("m", Stage.RETRAINING)), "Nothing: it is being retrained"),
        ((note("m"), note("m", Stage.REMINDED, incident="the/id")), "Decide: retrain now"),
        (
            (note("a"), note("b"), note("a", Stage.RETRAINING), note("b", Stage.STUCK, version=3)),
            "b: mend what stopped version 3",
        ),
        ((note("m", Stage.REFUSED),), "Nothing yet: it tries again."),
        (
            (note("m", Stage.REFUSED), note("m", Stage.RETRAINING), note("m", Stage.REFUSED)),
            "Look at data and recipe: 2 candidates were refused.",
        ),
        ((note("m"), note("m", Stage.RECOVERED)), "Nothing yet."),
        (
            (note(PLATFORM, doing="Look at logs/online.log."),),
            "Mend it. Look at logs/online.log.",
        ),
    ],
)
def test_what_is_needed_is_said_in_a_sentence(notices: tuple[Notice, ...], said: str) -> None:
    """The most demanding of what goes on, and of whom; nothing where the loop helps itself."""
    assert needs(made(*notices)).startswith(said)


@pytest.mark.parametrize("stage", sorted({*Stage} - {Stage.RECOVERED, Stage.RELEASED}))
def test_every_stage_says_what_it_needs(stage: Stage) -> None:
    """No stage leaves a person to guess, and none says a name that is not filled in."""
    said = needs(made(note("m", stage)))
    assert said.endswith(".")
    assert "{" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Open since 1 Mar 2026 23:00 UTC"),
        (
            {"status": Status.ACKED, "who": "Ada", "until": AT},
            "Ada has it until 2 Mar 2026 03:00 UTC; open since 1 Mar 2026 23:00 UTC",
        ),
        (
            {"status": Status.SILENCED, "who": "Ada", "until_version": True},
            "Silenced by Ada until the next version; open since 1 Mar 2026 23:00 UTC",
        ),
        (
            {"status": Status.EXPLAINED, "explained_by": "data/x/0"},
            "Part of data/x/0, which is told instead; open since 1 Mar 2026 23:00 UTC",
        ),
        (
            {"status": Status.RESOLVED, "resolved": AT},
            "Resolved 2 Mar 2026 03:00 UTC, 4 hours after it began",
        ),
        ({"status": Status.WAITING}, "To be told soon; began 1 Mar 2026 23:00 UTC"),
        ({"level": 1}, "Open since 1 Mar 2026 23:00 UTC; nobody acknowledged it"),
    ],
)
def test_how_it_stands(changes: dict[str, Any], said: str) -> None:
    """Since when, who has it until when, how it ended."""
    assert plain(stands(made(note("m"), **changes))) == said


def test_how_it_stands_says_how_far_it_has_come() -> None:
    """One model's stage, or how many of several are left; open again where nobody has it now."""
    going = made(note("m"), note("m", Stage.RETRAINING))
    assert plain(stands(going)).startswith("Open: retraining since")
    some = made(note("a"), note("b"), note("a", Stage.RECOVERED))
    assert plain(stands(some)).startswith("Open, 1 of 2 models since")
    again = made(note("m"), note("m", Stage.EXPIRED, incident="the/id"))
    assert plain(stands(again)).startswith("Open again since")
    assert standing(made(note("m", Stage.RECOVERED))) is None


def test_what_the_loop_does_for_many_is_counted() -> None:
    """One sentence where all say the same, else how many are how far."""
    same = [note(m, Stage.RETRAINING, doing="Training.") for m in "ab"]
    assert doing(made(*same)) == "Training."
    differ = (*same, note("b", Stage.REFUSED, doing="Refused."), note("c", Stage.REFUSED))
    assert doing(made(*differ)) == "1 model: retraining; 2 models: candidate refused."
    assert doing(made(note(PLATFORM))) == ""


def test_what_people_closed_says_who_and_why() -> None:
    """Not what the loop was doing when somebody ended it."""
    act = Acted(
        key="k",
        model=ModelId("m"),
        at=AT,
        incident="i",
        act=Act.NO_PROBLEM,
        who="Ada",
        why="Easter",
    )
    closed = made(note("m"), status=Status.RESOLVED, resolved=AT, acts=(act,))
    assert doing(closed) == "Ada found that it is not a problem: Easter"
    over = made(note("m"), note("m", Stage.RECOVERED, doing="Fresh."), status=Status.RESOLVED)
    assert doing(replace(over, acts=(act,))) == "Fresh."


def test_the_worst_come_first_and_the_recovered_last() -> None:
    """Ordered by how far each is over its limit; each says its own numbers and how far it is."""

    def psi(name: str, value: str, **more: Any) -> Notice:
        return note(name, evidence=(Evidence(what="PSI", value=value, limit="0.2", n=9),), **more)

    incident = made(
        psi("a", "0.3"),
        psi("b", "0.9"),
        psi("c", "0.5"),
        note("b", Stage.RECOVERED),
        note("a", Stage.RETRAINING),
    )
    assert common(incident) == "PSI, limit 0.2"
    assert worst(incident) == (
        ("c", "0.5"),
        ("a", "retraining; 0.3"),
        ("b", "recovered; was: 0.9"),
    )


@pytest.mark.parametrize(
    ("value", "limit", "times"),
    [
        ("14 min (13 to 15)", "50% worse than 10 min", 0.8),
        ("0.4", "0.2", 2.0),
        ("unknown", "0.2", 0.0),
        ("12 %", "", 0.0),
    ],
)
def test_how_bad_it_is_is_measured_in_limits(value: str, limit: str, times: float) -> None:
    """Numbers of different metrics compare by their limits; what has none comes last."""
    evidence = (Evidence(what="MAE", value=value, limit=limit, n=9),)
    assert badness(note("m", evidence=evidence)) == pytest.approx(times)
