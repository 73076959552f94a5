import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.page.blocks import fit, mention_of, opening, reply, updated
from driftloop.records import Evidence, Link, ModelId, Notice, Stage

SAID = st.one_of(
    st.text(max_size=30),
    st.builds(lambda text, times: text * times, st.text(max_size=9), st.integers(0, 400)),
    st.sampled_from(["<!channel>", "&" * 200, "*b* `c` _i_", "Verspätung 遅延 تأخير", "🔥" * 200]),
)
WHEN = st.datetimes(datetime(2013, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
NOTICES = st.builds(
    Notice,
    key=st.just("k"),
    incident=st.just("i"),
    model=SAID.map(lambda said: ModelId(f"m-{said}")),
    stage=st.sampled_from(Stage),
    at=WHEN,
    since=WHEN,
    channel=st.just("#c"),
    mention=st.one_of(SAID, st.sampled_from(["@here", "<@U0123>", "<!subteam^S1>"])),
    headline=SAID,
    doing=SAID,
    evidence=st.lists(
        st.builds(Evidence, what=SAID, value=SAID, limit=SAID, n=st.none() | st.integers(0, 10**9)),
        max_size=14,
    ).map(tuple),
    links=st.lists(st.builds(Link, text=SAID, url=SAID.map("http://h/{}".format)), max_size=30).map(
        tuple
    ),
)
CONTROLS = re.compile(r"<(?:[@!][A-Za-z0-9^|_.-]+|https?://[^<>|]+\|[^<>]*)>")


def texts(block: dict[str, Any]) -> list[tuple[str, int]]:
    """Return each text of a block with Slack's limit for it."""
    limit = 150 if block["type"] == "header" else 3000
    fields = [(field["text"], 2000) for field in block.get("fields", [])]
    elements = [(one["text"], 3000) for one in block.get("elements", [])]
    return ([(block["text"]["text"], limit)] if "text" in block else []) + fields + elements


@settings(max_examples=60, deadline=None)
@given(first=NOTICES, second=NOTICES)
def test_any_notice_fits_slack_and_is_escaped(first: Notice, second: Notice) -> None:
    """Whatever the data says: Slack's limits hold, no text is empty, no reference is made up."""
    opened = opening(first)
    for text, blocks in (opened, updated(second, opened[1]), reply(second, opened[1])):
        assert 0 < len(text) <= 40_000
        assert len(blocks) <= 50
        ids = [block["block_id"] for block in blocks]
        assert len(set(ids)) == len(ids)
        for block in blocks:
            assert len(block.get("fields", [])) <= 10
            assert texts(block)
            for said, limit in texts(block):
                assert 0 < len(said) <= limit
                left = CONTROLS.sub("", said)
                assert "<" not in left
                assert ">" not in left
                assert re.sub(r"&(amp|lt|gt);", "", left).count("&") == 0


def test_the_proof_is_read_at_a_glance(notice: Notice) -> None:
    """Model, state, since when, each figure with limit and count, what is done, where to look."""
    text, blocks = opening(notice)
    said = {block["block_id"]: [one for one, _ in texts(block)] for block in blocks}
    assert text == (
        "🔴 Open: eta-de predicts worse than its limit allows"
        " - A retraining on the last eight weeks is ordered."
    )
    assert said == {
        "headline": ["eta-de predicts worse than its limit allows"],
        "state": ["🔴 *Open* · `eta-de` · since 2 Apr 2013 06:00 UTC · <!here>"],
        "evidence": [
            "*MAE*\n14.2 min · limit 13.0\n312 rows",
            "*drift of dep_hour*\n0.31 · limit 0.2\n1,312 rows",
        ],
        "doing": [
            "*What the loop is doing*\nA retraining on the last eight weeks is ordered.",
        ],
        "links": ["<http://127.0.0.1:8401/models/eta-de?a=1&amp;b=2|Fleet page>"],
    }


def test_what_was_not_measured_on_rows_counts_none(notice: Notice) -> None:
    """A disk has no rows."""
    disk = Evidence(what="share of the disk that is free", value="1.0%", limit="5.0%", n=None)
    _, blocks = opening(replace(notice, evidence=(disk,)))
    (evidence,) = (block for block in blocks if block["block_id"] == "evidence")
    assert texts(evidence)[0][0] == "*share of the disk that is free*\n1.0% · limit 5.0%"


def test_a_headline_without_the_model_is_given_it(notice: Notice) -> None:
    """Nobody has to guess which model a headline is about."""
    _, blocks = opening(replace(notice, headline="predictions are off"))
    assert blocks[0]["text"]["text"] == "eta-de: predictions are off"


def test_a_long_headline_is_cut_in_the_header_and_whole_below(notice: Notice) -> None:
    """A header holds 150 characters; nothing of a longer headline is lost."""
    long = "eta-de " + "drifts and " * 20 + "drifts"
    _, blocks = opening(replace(notice, headline=long))
    assert blocks[0]["text"]["text"].endswith("…")
    assert long in [text for block in blocks for text, _ in texts(block)]


def test_more_evidence_than_slack_takes_is_counted(notice: Notice) -> None:
    """Ten lines are shown; of the others one reads how many there are."""
    one = notice.evidence[0]
    _, blocks = opening(replace(notice, evidence=(one,) * 14))
    by_id = {block["block_id"]: block for block in blocks}
    assert len(by_id["evidence"]["fields"]) == 10
    assert texts(by_id["more-evidence"]) == [("and 4 more", 3000)]


def test_too_many_links_are_counted(notice: Notice) -> None:
    """No link is cut in its middle."""
    link = Link(text="x" * 100, url="http://h/" + "y" * 500)
    _, blocks = opening(replace(notice, links=(link,) * 5))
    ((said, _),) = texts(blocks[-1])
    assert said.endswith("and 2 more")
    assert len(CONTROLS.findall(said)) == 3


def test_an_update_keeps_the_facts_and_replaces_the_state(notice: Notice) -> None:
    """Slack gives emoji back as :names:; headline and evidence stay as they stand."""
    _, standing = opening(notice)
    standing[0]["text"]["text"] = ":fire: eta-de as Slack gives it back"
    after = replace(
        notice,
        stage=Stage.RECOVERED,
        at=notice.since + timedelta(days=9),
        headline="eta-de is fresh",
        doing="Nothing more.",
        evidence=(),
    )
    text, blocks = updated(after, standing)
    by_id = {block["block_id"]: block for block in blocks}
    assert text.startswith("🟢 Recovered: :fire: eta-de as Slack gives it back")
    assert (by_id["headline"], by_id["evidence"]) == (standing[0], standing[2])
    assert by_id["doing"]["text"]["text"] == "*What the loop is doing*\nNothing more."
    assert by_id["state"]["text"]["text"] == (
        "🟢 *Recovered* · `eta-de` · 2 Apr 2013 06:00 UTC to 11 Apr 2013 06:00 UTC (9 days)"
        " · <!here>"
    )


def test_a_reply_says_only_what_is_new(notice: Notice) -> None:
    """What stands in the message above is not repeated, what is being done always told."""
    _, standing = opening(notice)
    _, same = reply(replace(notice, stage=Stage.RETRAINING), standing)
    assert [block["block_id"] for block in same] == ["state", "doing"]
    gate = (Evidence(what="MAE, challenger", value="8.1 min", limit="", n=500),)
    _, new = reply(replace(notice, headline="eta-de has v8", evidence=gate), standing)
    assert [block["block_id"] for block in new] == ["state", "headline", "doing", "evidence"]


@pytest.mark.parametrize(
    ("stage", "mentioned"),
    [
        (Stage.RETRAINING, False),
        (Stage.PROMOTED, False),
        (Stage.RECOVERED, False),
        (Stage.WORSENED, True),
        (Stage.BLOCKED, True),
        (Stage.REFUSED, True),
        (Stage.FAILED, True),
    ],
)
def test_a_reply_wakes_only_whom_it_must(notice: Notice, stage: Stage, *, mentioned: bool) -> None:
    """The owner is mentioned again when the loop could not help itself, and only then."""
    _, blocks = reply(replace(notice, stage=stage))
    assert ("<!here>" in blocks[0]["text"]["text"]) is mentioned


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_has_words_of_its_own(notice: Notice, stage: Stage) -> None:
    """Whatever comes of an incident, its message says so, and no two stages look alike."""
    said = {other: reply(replace(notice, stage=other))[0] for other in Stage}
    assert [other for other in Stage if said[other] == said[stage]] == [stage]


def test_bad_data_in_an_open_incident_is_told_as_such(notice: Notice) -> None:
    """The message of a blocked incident names the data, not the model, as what is wrong."""
    text, _ = updated(replace(notice, stage=Stage.BLOCKED), opening(notice)[1])
    assert text.startswith("⛔ Blocked: bad data: eta-de")


def test_a_cut_never_splits_an_entity() -> None:
    """At every length the text is whole characters, an ellipsis, and within the limit."""
    for limit in range(1, 30):
        cut = fit("a<b>&c" * 9, limit)
        assert len(cut) <= limit
        assert cut.endswith("…")
        assert re.fullmatch(r"([^&<>]|&(amp|lt|gt);)*", cut)


def test_a_mention_cannot_carry_anything_else() -> None:
    """Only Slack's own references pass as they are."""
    assert mention_of("<!channel> <http://h|x>") == "&lt;!channel&gt; &lt;http://h|x&gt;"
    assert mention_of("@sam") == "@sam"
