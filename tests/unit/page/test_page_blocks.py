import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.page.blocks import answered, entry, message, summary
from driftloop.page.buttons import why_view
from driftloop.page.clicks import Target
from driftloop.page.sandbox.blocks import faults_of, faults_of_view
from driftloop.records import (
    PLATFORM,
    Act,
    Acted,
    Address,
    Answer,
    Chart,
    Digest,
    Entry,
    Evidence,
    Incident,
    Link,
    Member,
    ModelId,
    Notice,
    Origin,
    Severity,
    Stage,
    Status,
)

TO = Address(channel="#ops", mention="<@U0OPERATOR1>")
AT = datetime(2013, 4, 9, 6, tzinfo=UTC)
RTL = "\u062a\u0623\u062e\u064a\u0631 "
FAMILY = "\U0001f469\u200d\U0001f467"
SAID = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(exclude_categories=()), max_size=9),
    st.builds(lambda text, times: text * times, st.text(max_size=9), st.integers(0, 400)),
    st.sampled_from(["<!channel>", "&" * 200, "*b* `c` _i_", "Verspätung 遅延 تأخير", "🔥" * 200]),
    st.sampled_from(["\u200b", "\u202e", "a\n" * 90, RTL * 40, FAMILY * 300, "\ud800"]),
)
WHEN = st.datetimes(datetime(2013, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
NAMES = SAID.map(lambda said: ModelId(f"m-{said}"))
LINKS = st.lists(
    st.builds(Link, text=SAID | st.just("drift report"), url=SAID.map("http://h/{}".format)),
    max_size=30,
).map(tuple)
VERSIONS = st.none() | st.integers(1, 10**6)
NOTICES = st.builds(
    Notice,
    key=st.just("k"),
    incident=st.sampled_from("abc"),
    model=NAMES | st.just(PLATFORM),
    stage=st.sampled_from(Stage),
    at=WHEN,
    since=WHEN,
    channel=st.just("#c"),
    mention=SAID,
    headline=SAID,
    doing=SAID,
    evidence=st.lists(
        st.builds(
            Evidence,
            what=SAID | st.just("Cause"),
            value=SAID | st.sampled_from(["0.41", "14.2 min (13 to 15)", "1e9"]),
            limit=SAID | st.sampled_from(["0.2", "30% worse than 9.1 min", "0"]),
            n=st.none() | st.integers(0, 10**9),
        ),
        max_size=14,
    ).map(tuple),
    links=LINKS,
    owner=SAID,
    origin=st.sampled_from(Origin),
    chart=st.none() | st.builds(Chart, title=SAID, points=st.just(((AT, 9.0),)), unit=SAID),
    version=VERSIONS,
    about=SAID,
    retrains=st.booleans(),
)
MEMBERS = st.builds(
    Member,
    alert=st.just("a"),
    model=NAMES,
    stage=st.sampled_from(Stage),
    since=WHEN,
    at=WHEN,
    headline=SAID,
    version=VERSIONS,
    over=st.none() | WHEN,
)
ACTS = st.builds(
    Acted,
    model=st.just("m"),
    at=WHEN,
    incident=st.just("i"),
    act=st.sampled_from(Act),
    who=SAID,
    user=st.none(),
    why=SAID,
    until=st.none(),
)
GROUPS = st.sampled_from(
    ["data/source-weather", "data/x03", "data/eta/freshness", "inputs/x", "relation/eta", "q/a/b"]
)


@st.composite
def incidents(draw: st.DrawFn) -> Incident:
    """Draw any incident: one model or several, named anything, in any state."""
    members = draw(st.lists(MEMBERS, min_size=1, max_size=5))
    members += members * draw(st.sampled_from([0, 0, 40]))
    members = [
        replace(member, model=ModelId(f"{member.model}{number}"))
        for number, member in enumerate(members)
    ]
    return Incident(
        id=draw(st.sampled_from(["eta/1", "data/source-weather/0"]) | SAID.map("i{}".format)),
        group=draw(GROUPS | SAID),
        owner=draw(SAID),
        severity=draw(st.sampled_from(Severity)),
        origin=draw(st.sampled_from(Origin)),
        status=draw(st.sampled_from(Status)),
        opened=draw(WHEN),
        since=draw(WHEN),
        members=tuple(members),
        notices=tuple(
            replace(notice, model=draw(st.sampled_from(members)).model)
            if notice.model != PLATFORM
            else notice
            for notice in draw(st.lists(NOTICES, max_size=6))
        ),
        acts=tuple(draw(st.lists(ACTS, max_size=5))),
        who=draw(st.none() | SAID),
        until=draw(st.none() | WHEN),
        until_version=draw(st.booleans()),
        level=draw(st.integers(0, 3)),
        explained_by=draw(st.none() | SAID),
        resolved=draw(st.none() | WHEN),
        asks=tuple(draw(st.lists(st.sampled_from(Act), unique=True))),
    )


DIGESTS = st.builds(
    Digest,
    key=st.just("k"),
    owner=SAID,
    at=WHEN,
    headline=SAID,
    sections=st.lists(st.tuples(SAID, st.lists(SAID, max_size=90).map(tuple)), max_size=60).map(
        tuple
    ),
    links=LINKS,
)
CONTROLS = re.compile(
    r"<(?:[@!][A-Za-z0-9_-]+|https?://[^<>|\s]+\|[^<>|]*"
    r"|!date\^\d+\^\{date_short_pretty\} \{time\}\|[^<>|]*)>"
)


def size(text: str) -> int:
    """Return how many UTF-16 units a text has: what Slack counts at most."""
    return len(text.encode("utf-16-le")) // 2


def texts(block: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each text of a block that is read, with Slack's limit for it."""
    if "text" in block:
        yield block["text"], 150 if block["type"] == "header" else 3000
    yield from ((field, 2000) for field in block.get("fields", []))
    if block["type"] == "context":
        yield from ((one, 3000) for one in block["elements"])
    for element in block["elements"] if block["type"] == "actions" else ():
        yield element.get("text") or element["placeholder"], 75
        yield from ((option["text"], 75) for option in element.get("options", ()))
        confirm = element.get("confirm", {})
        limits = {"title": 100, "text": 300, "confirm": 30, "deny": 30}
        yield from ((confirm[part], limit) for part, limit in limits.items() if confirm)


def said(blocks: list[dict[str, Any]]) -> dict[str, str]:
    """Return what each block says, by its id."""
    return {
        block["block_id"]: " | ".join(text["text"] for text, _ in texts(block)) for block in blocks
    }


def assert_slack_takes(text: str, blocks: list[dict[str, Any]]) -> None:
    """Check one message against Slack's limits, and that nothing in it is markup but ours."""
    assert list(faults_of(json.loads(json.dumps(blocks)), lambda _: True)) == []
    assert 0 < size(text) <= 1200
    assert len(blocks) <= 50
    ids = [block["block_id"] for block in blocks]
    assert len(set(ids)) == len(ids)
    actions = [e["action_id"] for b in blocks if b["type"] == "actions" for e in b["elements"]]
    assert len(set(actions)) == len(actions)
    total = 0
    for block in blocks:
        assert len(block.get("fields", [])) <= 10
        assert len(block.get("elements", [])) <= 25
        for shown, limit in texts(block):
            words = shown["text"]
            total += size(words)
            assert 0 < size(words) <= limit
            assert words.strip()
            assert shown["type"] == "plain_text" or shown["verbatim"] is True
            left = CONTROLS.sub("", words)
            assert not set("<>") & set(left)
            assert re.sub(r"&(amp|lt|gt);", "", left).count("&") == 0
            assert words.count("\u2066") == words.count("\u2069")
            assert "\u202e" not in words
        for element in block.get("elements", []):
            assert len(element.get("value", "")) <= 2000
            assert all(len(option["value"]) <= 150 for option in element.get("options", ()))
    assert total <= 13_000


@settings(max_examples=60, deadline=None)
@given(incident=incidents(), mention=SAID, picture=st.none() | st.just("F0123"))
def test_any_incident_fits_slack_and_is_escaped(
    incident: Incident, mention: str, picture: str | None
) -> None:
    """Whatever the data says: Slack's limits hold, no text is empty, no reference is made up."""
    assert_slack_takes(*message(incident, Address(channel="#c", mention=mention), picture=picture))


@settings(max_examples=40, deadline=None)
@given(notices=st.lists(NOTICES, min_size=1, max_size=14).map(tuple), mention=SAID)
def test_any_entry_fits_slack_and_is_escaped(notices: tuple[Notice, ...], mention: str) -> None:
    """So does whatever a thread is told."""
    assert_slack_takes(*entry(Entry(key="k", incident="i", notices=notices, mention=mention)))


@settings(max_examples=40, deadline=None)
@given(digest=DIGESTS)
def test_any_digest_fits_slack_and_is_escaped(digest: Digest) -> None:
    """So does a digest of however many sections and lines."""
    assert_slack_takes(*summary(digest, TO))


@pytest.fixture
def single(notice: Notice) -> Incident:
    """An incident of one model that retrains itself, with buttons."""
    return alone(replace(notice, retrains=True, owner="operations"))


def alone(notice: Notice, **changes: Any) -> Incident:
    """Return the incident of one notice."""
    member = Member(
        alert=notice.incident,
        model=notice.model,
        stage=notice.stage,
        since=notice.since,
        at=notice.at,
        headline=notice.headline,
        version=notice.version,
    )
    made = Incident(
        id=notice.incident,
        group="",
        owner="operations",
        severity=Severity.WARNING,
        origin=Origin.UNKNOWN,
        status=Status.OPEN,
        opened=notice.at,
        since=notice.since,
        members=(member,),
        notices=(notice,),
        asks=(Act.ACK, Act.SILENCE, Act.NO_PROBLEM, Act.RETRAIN, Act.ROLL_BACK),
    )
    return replace(made, **changes)


def many(notice: Notice, count: int) -> Incident:
    """Return one fault of a source over `count` models, the last the worst."""
    notices = tuple(
        replace(
            notice,
            key=f"{number}",
            incident=f"m{number:03}/1",
            model=ModelId(f"m{number:03}"),
            headline=f"m{number:03}: its data looks wrong",
            about="x03",
            evidence=(
                Evidence(what="share of nulls of x03", value=f"{number / 250}", limit="0.3", n=9),
            ),
        )
        for number in range(count)
    )
    members = tuple(alone(each).members[0] for each in notices)
    return alone(
        notice,
        id="data/source-weather/0",
        group="data/source-weather",
        origin=Origin.DATA,
        members=members,
        notices=notices,
    )


def test_the_proof_is_read_at_a_glance(single: Incident) -> None:
    """What is wrong, since when, what it needs, each figure with limit and count, where to look."""
    text, blocks = message(single, TO)
    began = "<!date^1364882400^{date_short_pretty} {time}|2 Apr 2013 06:00 UTC>"
    assert text == (
        "🔴 Open: eta-de predicts worse than its limit allows"
        " - Nothing: it retrains itself, and what comes of it is told here."
    )
    shown = said([block for block in blocks if block["type"] != "actions"])
    assert shown == {
        "headline": "eta-de predicts worse than its limit allows",
        "state": f"🔴 *Open* since {began} · <@U0OPERATOR1>",
        "needs": "*What you need to do*\nNothing: it retrains itself, and what comes of it is"
        " told here.",
        "doing": "*What the loop is doing*\nA retraining on the last eight weeks is ordered.",
        "evidence": "*MAE*\n14.2 min · limit 13.0\n312 rows"
        " | *drift of dep_hour*\n0.31 · limit 0.2\n1,312 rows",
        "footer": "`eta-de/2013-04-09` · began 2 Apr 2013 06:00 UTC · operations",
        "links": "<http://127.0.0.1:8401/models/eta-de?a=1&amp;b=2|Fleet page>",
    }


def test_what_was_not_measured_on_rows_counts_none(notice: Notice) -> None:
    """A disk has no rows."""
    disk = Evidence(what="share of the disk that is free", value="1.0%", limit="5.0%", n=None)
    _, blocks = message(alone(replace(notice, evidence=(disk,))), TO)
    assert said(blocks)["evidence"] == "*share of the disk that is free*\n1.0% · limit 5.0%"


def test_a_long_headline_is_cut_in_the_header_and_whole_below(notice: Notice) -> None:
    """A header holds 150 characters; nothing of a longer headline is lost."""
    long = "eta-de " + "drifts and " * 20 + "drifts"
    _, blocks = message(alone(replace(notice, headline=long)), TO)
    assert said(blocks)["headline"].endswith("…")
    assert said(blocks)["full-headline"] == long


def test_more_evidence_than_slack_takes_is_counted(notice: Notice) -> None:
    """Ten lines are shown; of the others one reads how many there are."""
    _, blocks = message(alone(replace(notice, evidence=notice.evidence[:1] * 14)), TO)
    by_id = {block["block_id"]: block for block in blocks}
    assert len(by_id["evidence"]["fields"]) == 10
    assert said(blocks)["more-evidence"] == "and 4 more"


def test_too_many_links_are_counted(notice: Notice) -> None:
    """No link is cut in its middle."""
    long = Link(text="x" * 100, url="http://h/" + "y" * 500)
    _, blocks = message(alone(replace(notice, links=(long,) * 5)), TO)
    assert said(blocks)["links"].endswith("and 3 more")
    assert len(CONTROLS.findall(said(blocks)["links"])) == 2


def test_two_hundred_models_are_one_line_and_the_ten_worst(notice: Notice) -> None:
    """Nobody reads two hundred names at night: what broke, how many, the worst, where the rest."""
    text, blocks = message(many(notice, 200), TO)
    shown = said(blocks)
    assert shown["headline"] == "x03 of source weather is broken: 200 models"
    rows = shown["models"].split("\n")
    assert rows[0] == "*200 models, worst first*: share of nulls of x03, limit 0.3"
    assert rows[1] == "• `m199`  0.796"
    assert rows[-1] == "and 190 more: `driftloop incidents data/source-weather/0`"
    assert len(rows) == 12
    assert "Mend x03 of source weather, or tell whoever runs the source." in text
    assert "evidence" not in shown


def test_what_is_over_is_seen_at_once(single: Incident) -> None:
    """The big letters say so, how it ended and how long it took; nobody is asked for anything."""
    after = replace(
        single.notices[0],
        stage=Stage.RECOVERED,
        at=AT,
        headline="eta-de has recovered",
        doing="Nothing more to do: fresh.",
    )
    _, blocks = message(
        replace(
            single, status=Status.RESOLVED, resolved=AT, asks=(), notices=(*single.notices, after)
        ),
        TO,
    )
    shown = said(blocks)
    assert shown["headline"] == "Resolved: eta-de predicts worse than its limit allows"
    assert shown["state"].startswith("🟢 *Resolved* <!date^1365487200^")
    assert shown["state"].endswith(", 7 days after it began")
    assert shown["doing"] == "*How it ended*\nNothing more to do: fresh."
    assert not shown.keys() & {"needs", "by-hand"}


def test_who_is_asked_nothing_is_not_called(single: Incident) -> None:
    """An incident that somebody has, that is over, silent or part of a larger calls nobody."""
    for status in Status:
        changed = replace(single, status=status, who="Ada", resolved=AT, explained_by="data/x/0")
        _, blocks = message(changed, TO)
        called = "<@U0OPERATOR1>" in said(blocks)["state"]
        assert called is (status in (Status.OPEN, Status.WAITING)), status


def test_who_did_what_is_told(notice: Notice) -> None:
    """The last three acts, with the reason; until when somebody has it."""
    acts = tuple(
        Acted(model=ModelId("m"), at=AT, incident="i", act=act, who=who, why=why)
        for act, who, why in [
            (Act.SILENCE, "Eve", ""),
            (Act.RETRAIN, "Grace", ""),
            (Act.NO_PROBLEM, "Edith", "it is <Easter>"),
            (Act.ACK, "Ada", ""),
        ]
    )
    until = AT + timedelta(hours=8)
    _, blocks = message(alone(notice, status=Status.ACKED, who="Ada", until=until, acts=acts), TO)
    shown = said(blocks)
    assert "Eve" not in shown["acts"]
    assert shown["acts"].count("\n") == 2
    assert "👤 Edith found that it is not a problem <!date^" in shown["acts"]
    assert "it is &lt;Easter&gt;" in shown["acts"]
    assert shown["state"].startswith("👀 *Ada has it* until <!date^1365516000^")
    assert shown["needs"].startswith("*What you need to do*\nAda has it. Decide:")


def test_buttons_carry_what_they_are_about(single: Incident) -> None:
    """Each says what it does, to which incident, model and version; dangerous ones ask again."""
    asks = (*single.asks, Act.PROMOTE, Act.HOLD, Act.RESOLVE)
    member = replace(single.members[0], version=8)
    report = Link(text="drift report", url="http://h/reports/1")
    notices = (replace(single.notices[0], links=(report,)),)
    _, blocks = message(replace(single, asks=asks, members=(member,), notices=notices), TO)
    elements = {e["action_id"]: e for b in blocks if b["type"] == "actions" for e in b["elements"]}
    assert list(elements) == [
        *("driftloop.ack", "driftloop.silence", "driftloop.not-a-problem", "driftloop.resolve"),
        *("driftloop.retrain", "driftloop.promote", "driftloop.hold", "driftloop.rollback"),
        "driftloop.report",
    ]
    ours = "eta-de/2013-04-09"
    assert Target.read(elements["driftloop.ack"]["value"]) == Target(incident=ours)
    assert Target.read(elements["driftloop.promote"]["value"]) == Target(
        incident=ours, model="eta-de", version=8
    )
    assert [o["text"]["text"] for o in elements["driftloop.silence"]["options"]] == [
        *("For 1 hour", "Until tomorrow", "Until the next version")
    ]
    choice = Target.read(elements["driftloop.silence"]["options"][2]["value"])
    assert choice == Target(incident=ours, silence="next-version")
    asking = {id_ for id_, element in elements.items() if "confirm" in element}
    assert asking == {"driftloop.retrain", "driftloop.promote", "driftloop.rollback"}
    assert elements["driftloop.ack"]["style"] == "primary"
    assert elements["driftloop.rollback"]["style"] == "danger"
    assert elements["driftloop.report"]["url"] == report.url


def test_without_buttons_the_command_line_is_named(single: Incident) -> None:
    """Where nobody may press anything, one reads how else to say it."""
    _, blocks = message(replace(single, asks=()), TO)
    assert not [block for block in blocks if block["type"] == "actions"]
    assert "`driftloop ack eta-de/2013-04-09`" in said(blocks)["by-hand"]


def test_a_group_is_acted_on_as_one(notice: Notice) -> None:
    """Of many models all are retrained; no rollout is touched where it is not clear which."""
    asks = (Act.RETRAIN, Act.PROMOTE, Act.ROLL_BACK)
    group = many(notice, 3)
    rolling = tuple(replace(member, version=7) for member in group.members)
    _, blocks = message(replace(group, members=rolling, asks=asks), TO)
    elements = [e for b in blocks if b["type"] == "actions" for e in b["elements"]]
    assert [element["action_id"] for element in elements] == ["driftloop.retrain"]
    assert Target.read(elements[0]["value"]) == Target(incident=group.id)
    assert "all 3 models" in elements[0]["confirm"]["text"]["text"]


def test_the_picture_is_told_to_who_cannot_see_it(single: Incident) -> None:
    """The image has words of its own: the newest value, the limit."""
    chart = Chart(title="MAE of eta-de", points=((AT, 9.1), (AT, 14.2)), unit="min", limit=13.0)
    notices = (replace(single.notices[0], chart=chart),)
    _, blocks = message(replace(single, notices=notices), TO, picture="F012")
    (image,) = (block for block in blocks if block["type"] == "image")
    assert image["slack_file"] == {"id": "F012"}
    assert "last 14.2 min, limit 13 min" in image["alt_text"]


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_has_words_of_its_own(notice: Notice, stage: Stage) -> None:
    """Whatever comes of an incident, its thread says so, and no two stages look alike."""
    told = {
        other: entry(Entry(key="k", incident="i", notices=(replace(notice, stage=other),)))[0]
        for other in Stage
    }
    assert [other for other in Stage if told[other] == told[stage]] == [stage]


@pytest.mark.parametrize("status", Status)
def test_every_status_has_words_of_its_own(single: Incident, status: Status) -> None:
    """However it stands, the message says so, and no two look alike."""
    shown = {other: message(replace(single, status=other, resolved=AT), TO) for other in Status}
    states = {other: said(blocks)["state"] for other, (_, blocks) in shown.items()}
    assert [other for other in Status if states[other] == states[status]] == [status]
    assert [other for other in Status if shown[other][0] == shown[status][0]] == [status]


def test_an_entry_wakes_whom_it_names(notice: Notice) -> None:
    """Who is to be called is said by the entry, not by the notice."""
    for mention in ("", "<@U0OPERATOR2>"):
        told = Entry(key="k", incident="i", notices=(notice,), mention=mention)
        state = said(entry(told)[1])["state"]
        assert ("<@U0OPERATOR2>" in state) is bool(mention)
        assert "<!here>" not in state


def test_an_entry_about_the_telling_names_no_model_but_the_one_that_joins(notice: Notice) -> None:
    """A reminder is of the whole incident; what is part of a larger one is called by its name."""
    remind = replace(notice, stage=Stage.REMINDED, headline="eta-de: it is still open")
    joins = replace(notice, stage=Stage.EXPLAINS)
    for one, told in ((remind, "It is still open"), (joins, notice.headline)):
        text, blocks = entry(Entry(key="k", incident="i", notices=(one,)))
        assert f"*{told}* · " in said(blocks)["state"]
        assert told in text


def test_a_line_of_a_smaller_incident_is_its_headline(notice: Notice) -> None:
    """It may be of many models: none of them is named in front of it."""
    many = "warehouse: rows of 2026-03-04 are in quarantine, 2 models"
    joins = replace(notice, stage=Stage.EXPLAINS, headline=many)
    assert f"*{many}* · " in said(entry(Entry(key="k", incident="i", notices=(joins,)))[1])["state"]


def test_a_stage_of_many_models_is_one_entry(notice: Notice) -> None:
    """What is common is said once, then the models, then how many more."""
    notices = tuple(
        replace(
            notice,
            model=ModelId(f"m{number:03}"),
            stage=Stage.RETRAINING,
            headline=f"m{number:03} is being retrained",
            doing="Training on rows from 2013-02-12 to 2013-04-04.",
        )
        for number in range(140)
    )
    text, blocks = entry(Entry(key="k", incident="i", notices=notices))
    shown = said(blocks)
    assert text.startswith("🟡 Retraining: 140 models - Training on rows")
    assert shown["state"].startswith("🟡 *Retraining: 140 models* · <!date^")
    assert shown["doing"] == "Training on rows from 2013-02-12 to 2013-04-04."
    assert shown["models"].startswith("`m000`, `m001`, ")
    assert shown["models"].endswith(", `m009` and 130 more")
    differ = tuple(replace(each, doing=f"Training {each.model}.") for each in notices)
    rows = said(entry(Entry(key="k", incident="i", notices=differ))[1])["models"].split("\n")
    assert (rows[0], rows[-1]) == ("• `m000`  Training m000.", "and 130 more")


def test_a_digest_wakes_nobody_and_counts_what_it_leaves_out() -> None:
    """Sections stand under their titles, long ones are cut at whole lines."""
    sections = (("Retrained", ("eta-de",)), ("Blind", tuple(f"m{n:03} " * 30 for n in range(99))))
    digest = Digest(key="k", owner="operations", at=AT, headline="All is well", sections=sections)
    text, blocks = summary(digest, TO)
    shown = said(blocks)
    assert text == "All is well"
    assert shown["section-0"] == "*Retrained*\n• eta-de"
    assert re.search(r"\nand \d+ more$", shown["section-1"])
    assert "<@" not in json.dumps(blocks)


def test_an_answer_says_whether_it_was_done() -> None:
    """Who clicked sees at once if something came of it."""
    assert answered(Answer(done=True, said="You have it.")) == "✅ You have it."
    assert answered(Answer(done=False, said="a < b")) == "⚠️ a &lt; b"


def test_the_window_that_asks_why_keeps_what_it_is_about() -> None:
    """Its metadata is the button's value, the reason stands where clicks look for it."""
    view = why_view('{"incident":"i"}', "x03 <is> broken")
    assert (view["callback_id"], view["private_metadata"]) == ("driftloop.why", '{"incident":"i"}')
    assert view["blocks"][0]["text"]["text"] == "*x03 &lt;is&gt; broken*"
    asked = view["blocks"][1]
    assert (asked["block_id"], asked["element"]["action_id"]) == ("why", "why")
    assert list(faults_of_view(view, lambda _: True)) == []
