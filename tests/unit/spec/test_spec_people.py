"""owners.toml and routes.toml: each fault with its file, key and hint, and all at once."""

import shutil
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from driftloop.errors import SpecError
from driftloop.records import Origin, Severity
from driftloop.spec import load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
CALENDAR = """
[growth.on_call]
people = ["U0ADA00", "U0GRACE"]
start = 2026-03-02
overrides = [
    { who = "U0GRACE", start = 2026-03-03T09:00:00, until = 2026-03-05T09:00:00 },
    { who = "U0ADA00", start = 2026-03-12T09:00:00, until = 2026-03-13T09:00:00 },
]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tests' monitors; a test writes the routes, and adds to the owners."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def faults(folder: Path, *, owners: str = "", routes: str = "") -> str:
    file = folder / "owners.toml"
    file.write_text(f"{file.read_text(encoding='utf-8')}{owners}", encoding="utf-8")
    (folder / "routes.toml").write_text(routes, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("owners", "said"),
    [
        ('time_zone = "Europe/Berln"', "got 'Europe/Berln' (hint: did you mean 'Europe/Berlin'?)"),
        ('time_zone = "/etc/passwd"', "growth.time_zone: no such time zone, got '/etc/passwd'"),
        ('time_zone = "Europe"', "owners.toml: growth.time_zone: no such time zone"),
        ('quiet = ["22:00-22:00"]', "growth.quiet.0: begins when it ends, got '22:00-22:00'"),
        ('quiet = ["22:00-24:00"]', "growth.quiet.0: should be two times of day, got"),
        ('quiet = ["22:00-10:00", "10:00-22:00"]', "growth: is quiet at all hours: nobody would"),
        ('quiet_days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]', "quiet at all hours"),
        ('quiet_days = ["monday"]', "growth.quiet_days.0: should be a day of the week, got"),
        ('wakes = "urgent"', "growth.wakes: Input should be 'info', 'warning' or 'critical'"),
        ('members = ["ada"]', "growth.members.0: should be Slack's id of a user or user"),
        ('email = ["ada"]', "growth.email.0: should be an e-mail address"),
        ('email = ["a@b.c\\r\\nBcc: c@d.e"]', "growth.email.0: should be an e-mail"),
        ('digest = "8am"', "growth.digest: should be a time of day, got '8am' (hint: as in"),
        ('quite = ["22:00-07:00"]', "growth.quite: unknown key (hint: known: channel, mention"),
        ("[growth.on_call]\nstart = 2026-03-02\npeople = []", "on_call.people: names nothing"),
        ('[growth.on_call]\npeople = ["U0ADA00"]', "growth.on_call.start: missing"),
        (CALENDAR.replace("who =", "whom ="), "0.whom: unknown key (hint: known: who, start"),
        (CALENDAR.replace("until = 2026-03-05", "until = 2026-03-03"),
         "owners.toml: growth.on_call.overrides.0.until: ends before it begins"),
        (CALENDAR.replace("until = 2026-03-05", "until = 2026-03-12T09:00:01 #"), "not valid TOML"),
        (CALENDAR.replace("2026-03-05T09", "2026-03-12T10"),
         "growth.on_call.overrides.1: overlaps with overrides.0: two would be on call"),
        (CALENDAR.replace("2026-03-02", "2026-03-02\nweeks = 0"), "growth.on_call.weeks: Input"),
    ],
)  # fmt: skip
def test_each_fault_of_an_owner_leads_to_it(folder: Path, owners: str, said: str) -> None:
    """One fault a case."""
    assert said in faults(folder, owners=f"\n{owners}\n")


ROUTES = """
repeat = "4h"
[[routes]]
family = ["eta"]
wait = "30s"
owner = "logistics"
    [[routes.routes]]
    severity = ["critical"]
    owner = "growth"
    ack_within = "15m"
    escalate = ["logistics"]
[[routes]]
cause = ["data"]
owner = "growth"
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('owner = "logistics"', 'owner = "logistic"', "'logistic' is not in owners.toml"),
        ('["logistics"]', '["boss"]', "0.escalate: 'boss' is not in owners.toml"),
        ('["logistics"]', '["logistics", "logistics"]', "escalate: 'logistics' stands twice"),
        ('["logistics"]', '["growth"]', "routes.0.routes.0.escalate: 'growth' is told first, and"),
        ('["eta"]', '["etta"]', "routes.0.family: 'etta' is no family here (hint: did you mean"),
        ('["eta"]', '["x*"]', "routes.0.family: 'x*' is no family here (hint: known: churn"),
        ('wait = "30s"', 'market = ["uk"]', "0.market: 'uk' is no market here (hint: known: de, "),
        ('severity = ["critical"]', 'market = ["d", "fr"]', "routes.0.routes.0.market: 'd' is no"),
        ('severity = ["critical"]', 'family = ["churn"]', "routes.0.routes.0.family: 'churn' is"),
        ('wait = "30s"', 'wait = "15m"', "routes.0.routes.0.ack_within: the next would be told"),
        ('ack_within = "15m"', "", "routes.0.routes.0.escalate: says who comes next, and nothing"),
        ('escalate = ["logistics"]', "", "routes.0.routes.0.ack_within: says when the next"),
        ('repeat = "4h"', '[[routes]]\nowner = "growth"', "routes.1: is never reached"),
        ('cause = ["data"]', 'family = ["eta"]', "routes.toml: routes.1: is never reached"),
        ('repeat = "4h"', 'severity = ["info"]', "the root holds for everything"),
        ('repeat = "4h"', 'repeat = "0s"', "routes.toml: repeat: must be longer than nothing"),
        ('family = ["eta"]', "family = []", "routes.0.family: names nothing, got []"),
        ("[[routes.routes]]", "[routes.routes]", "0.routes: should be a list of tables"),
        ('["data"]', '["datum"]', "routes.1.cause.0: Input should be 'data', 'inputs'"),
        ('cause = ["data"]', 'causes = ["data"]', "routes.1.causes: unknown key (hint: known:"),
        ('repeat = "4h"', 'repeats = "4h"', "routes.toml: repeats: unknown key (hint: known: wait"),
    ],
)  # fmt: skip
def test_each_fault_of_a_route_leads_to_it(folder: Path, old: str, new: str, said: str) -> None:
    """One fault a case; the routes are counted from 0."""
    assert old in ROUTES
    assert said in faults(folder, routes=ROUTES.replace(old, new, 1))


def test_faults_of_both_files_are_told_at_once(folder: Path) -> None:
    """Nobody mends one only to hear of the next."""
    owners = '\ntime_zone = "Mars"\nquiet = ["01:00-01:00"]\n'
    routes = ROUTES.replace('"eta"', '"etta"').replace('owner = "growth"', 'owner = "grwth"')
    said = faults(folder, owners=owners, routes=routes)
    expected = ("growth.time_zone", "growth.quiet.0", "routes.0.family", "routes.1.owner")
    assert [each for each in expected if each not in said] == []


def test_sound_files_are_read_as_they_stand(folder: Path) -> None:
    """What a route does not say is None, for it inherits; no digest is the empty text."""
    members = 'digest = ""\nmembers = ["U0ADA00", "S0ONCALL01"]\ntime_zone = "Asia/Kathmandu"'
    owners = f"\n{members}\n{CALENDAR}"
    file = folder / "owners.toml"
    file.write_text(f"{file.read_text(encoding='utf-8')}{owners}", encoding="utf-8")
    (folder / "routes.toml").write_text(ROUTES, encoding="utf-8")
    fleet = load_fleet(folder)
    growth, routes = fleet.owners["growth"], fleet.routes
    assert growth.digest is None
    assert growth.members == ("U0ADA00", "S0ONCALL01")
    assert growth.on_call is not None
    first = growth.on_call.overrides[0].start
    assert growth.moment(first) == first.replace(tzinfo=UTC) - timedelta(hours=5, minutes=45)
    assert routes.routes[0].routes[0].severity == (Severity.CRITICAL,)
    assert routes.routes[1].cause == (Origin.DATA,)
    assert (routes.repeat, routes.routes[0].repeat) == (timedelta(hours=4), None)
