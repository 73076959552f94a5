import re

import pytest

from driftloop.errors import BadRequest
from driftloop.page.clicks import Target
from driftloop.page.text import fit, link, mention_of


def test_a_cut_never_splits_an_entity() -> None:
    """At every length the text is whole characters, an ellipsis, and within the limit."""
    for limit in range(1, 30):
        cut = fit("a<b>&c" * 9, limit)
        assert len(cut) <= limit
        assert cut.endswith("…")
        assert re.fullmatch(r"([^&<>]|&(amp|lt|gt);)*", cut)


def test_what_runs_from_right_to_left_turns_nothing_that_follows() -> None:
    """It is closed off by itself, also where it is cut; nobody else may turn text around."""
    assert fit("تأخير", 20) == "\u2066تأخير\u2069"
    for limit in range(3, 9):
        cut = fit("تأخير " * 9, limit)
        assert len(cut) <= limit
        assert cut.count("\u2066") == cut.count("\u2069")
    assert fit("eta\u202e-de\u2066", 20) == "eta-de"


def test_characters_outside_the_first_plane_count_twice() -> None:
    """A limit holds even where Slack counts as its clients do."""
    assert fit("🔥" * 10, 9) == "🔥" * 4 + "…"
    assert fit("👩\u200d👧", 4) == "👩…"


def test_a_mention_cannot_carry_anything_else() -> None:
    """Only Slack's own references pass as they are."""
    assert mention_of("<!channel> <http://h|x>") == "&lt;!channel&gt; &lt;http://h|x&gt;"
    assert mention_of("@sam") == "@sam"


def test_a_link_ends_where_it_should() -> None:
    """Neither an address nor its label can close a link early."""
    assert link("a|b>", "http://h/a|b>c d&e\n") == "<http://h/a%7Cb%3Ec%20d&amp;e%20|a/b&gt;>"


@pytest.mark.parametrize(
    "value",
    ["", "[]", "{}", '{"incident": 1}', '{"incident": ""}', '{"incident": "i", "version": "8"}'],
)
def test_a_value_that_is_not_ours_is_refused(value: str) -> None:
    """Nothing is guessed from a button that does not carry what ours do."""
    with pytest.raises(BadRequest):
        Target.read(value)
