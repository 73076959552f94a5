"""The second way: real SMTP and HTTP over sockets, and what they refuse."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.mail_server import Hook, Mailbox, certificate, hook_server, mail_server

from driftloop.errors import PagerError
from driftloop.page.second import Mail, Webhook
from driftloop.records import (
    Act,
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
from driftloop.spec import Owner

AT = datetime(2026, 3, 1, 7, 30, tzinfo=UTC)
OWNER = Owner(channel="#eta", email=("ada@example.org", "grace@example.org"))
FROM = "driftloop@ours.example"
WHY = "Slack could not be reached since 2026-03-01 07:30 UTC."


def incident(headline: str = "eta-0: errors doubled", models: int = 1) -> Incident:
    members = tuple(
        Member(
            alert=f"eta-{n}/a",
            model=ModelId(f"eta-{n}"),
            stage=Stage.OPENED,
            since=AT,
            at=AT,
            headline=headline,
        )
        for n in range(models)
    )
    notice = Notice(
        key="eta-0/a/opened",
        incident="eta-0/a",
        model=ModelId("eta-0"),
        stage=Stage.OPENED,
        at=AT,
        since=AT,
        channel="#eta",
        mention="@here",
        headline=headline,
        doing="It is being retrained.",
        evidence=(Evidence(what="mean absolute error", value="14.2", limit="12.0", n=1200),),
        links=(Link(text="model", url="http://pages/models/eta-0"),),
    )
    return Incident(
        id="eta-0/a",
        group="",
        owner="eta",
        severity=Severity.WARNING,
        origin=Origin.UNKNOWN,
        status=Status.OPEN,
        opened=AT,
        since=AT,
        members=members,
        notices=tuple(
            replace(notice, incident=each.alert, model=each.model, key=f"{each.alert}/opened")
            for each in members
        ),
        asks=(Act.ACK,),
    )


@pytest.fixture
def box() -> Iterator[Mailbox]:
    """A plain mail server, as one on this machine."""
    with mail_server(Mailbox()) as served:
        yield served


def test_an_email_says_what_a_page_would(box: Mailbox) -> None:
    """Subject and text tell what, since when, by how much, what is done, and why by e-mail."""
    Mail(f"smtp://127.0.0.1:{box.port}", FROM).send(incident(), OWNER, why=WHY)
    ((to, message),) = box.taken
    assert to == ["ada@example.org", "grace@example.org"]
    assert message["Subject"] == "[driftloop] eta-0: errors doubled"
    assert (message["From"], message["To"]) == (FROM, ", ".join(to))
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"
    said = message.get_content()
    for part in (
        WHY,
        "Since     1 Mar 2026 07:30 UTC",
        "mean absolute error: 14.2, limit 12.0 on 1,200 rows",
        "It is being retrained.",
        "driftloop ack eta-0/a",
        "model: http://pages/models/eta-0",
    ):
        assert part in said


def test_what_has_no_limit_is_told_without_one(box: Mailbox) -> None:
    """A cause has none: the word does not stand there alone."""
    told = incident()
    proof = (Evidence(what="Cause", value="x01: nulls are +100%", limit="", n=600),)
    told = replace(told, notices=(replace(told.notices[0], evidence=proof),))
    Mail(f"smtp://127.0.0.1:{box.port}", FROM).send(told, OWNER, why=WHY)
    ((_, message),) = box.taken
    assert "  Cause: x01: nulls are +100% on 600 rows" in message.get_content().splitlines()


def test_the_same_incident_has_the_same_message_id(box: Mailbox) -> None:
    """What is sent again after a crash, a reader's mailbox knows to be the same."""
    mail = Mail(f"smtp://127.0.0.1:{box.port}", FROM)
    for _ in range(2):
        mail.send(incident(), OWNER, why=WHY)
    first, second = (message["Message-ID"] for _, message in box.taken)
    assert first == second
    assert first.endswith("@ours.example>")


def test_a_headline_cannot_add_headers(box: Mailbox) -> None:
    """Line breaks in what comes from data end neither the subject nor the headers."""
    evil = "eta-0: x\r\nBcc: eve@example.org\r\n\r\n.\r\nQUIT\u2028more"
    Mail(f"smtp://127.0.0.1:{box.port}", FROM).send(incident(evil), OWNER, why=WHY)
    ((to, message),) = box.taken
    assert "eve@example.org" not in to
    assert message["Bcc"] is None
    assert message["Subject"] == "[driftloop] eta-0: x Bcc: eve@example.org . QUIT more"


def test_many_models_and_other_alphabets_arrive(box: Mailbox) -> None:
    """Two hundred models are counted and some named; no letter is lost."""
    Mail(f"smtp://127.0.0.1:{box.port}", FROM).send(
        incident("ζήτηση: 価格が3倍", models=200), OWNER, why=WHY
    )
    ((_, message),) = box.taken
    said = message.get_content()
    assert "200 models: ζήτηση: 価格が3倍" in said
    assert "200 models, worst first: mean absolute error, limit 12.0:" in said
    assert "and 180 more" in said


def test_one_refused_address_does_not_keep_the_other(box: Mailbox) -> None:
    """The e-mail counts as sent if anybody gets it."""
    box.refuse["ada@example.org"] = "550 no such mailbox"
    Mail(f"smtp://127.0.0.1:{box.port}", FROM).send(incident(), OWNER, why=WHY)
    assert [to for to, _ in box.taken] == [["grace@example.org"]]


@pytest.mark.parametrize(
    ("refuse", "answer", "retry"),
    [
        (dict.fromkeys(OWNER.email, "550 no such mailbox"), "250 taken", False),
        (dict.fromkeys(OWNER.email, "451 later"), "250 taken", True),
        ({}, "554 spam", False),
        ({}, "452 full", True),
    ],
)
def test_what_the_server_refuses_is_told(
    box: Mailbox, refuse: dict[str, str], answer: str, *, retry: bool
) -> None:
    """The error has the server's words, and says whether later may help."""
    box.refuse, box.answer = refuse, answer
    with pytest.raises(PagerError) as told:
        Mail(f"smtp://127.0.0.1:{box.port}", FROM).send(incident(), OWNER, why=WHY)
    assert told.value.retry is retry
    assert (next(iter(refuse.values()), answer)) in str(told.value)
    assert not box.taken


def test_a_refused_login_does_not_show_the_password() -> None:
    """Not even where the server repeats it."""
    with mail_server(Mailbox(login=("ours", "right"))) as box:
        mail = Mail(f"smtp://ours:hush%2Fhush@127.0.0.1:{box.port}", FROM)
        with pytest.raises(PagerError, match="535 not you") as told:
            mail.send(incident(), OWNER, why=WHY)
    assert "hush" not in str(told.value)
    assert told.value.__cause__ is None


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate of localhost that this process trusts."""
    made = certificate(tmp_path)
    if made is None:
        pytest.skip("needs openssl")
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    return made


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_password_goes_over_tls(trusted: Path, scheme: str) -> None:
    """By STARTTLS where it is offered, or from the start."""
    box = Mailbox(login=("ours", "hush/hush"))
    with mail_server(box, certificate=trusted, at_once=scheme == "smtps"):
        mail = Mail(f"{scheme}://ours:hush%2Fhush@localhost:{box.port}", FROM)
        mail.send(incident(), OWNER, why=WHY)
    assert box.tls == [True]


def test_a_certificate_that_nobody_trusts_is_not_talked_to(tmp_path: Path, trusted: Path) -> None:
    """Whoever stands in between gets neither the password nor the incident."""
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")
    box = Mailbox(login=("ours", "hush"))
    verify = pytest.raises(PagerError, match="CERTIFICATE_VERIFY_FAILED")
    with mail_server(box, certificate=other), verify:
        Mail(f"smtp://ours:hush@localhost:{box.port}", FROM).send(incident(), OWNER, why=WHY)
    assert not [each for each in box.commands if each.startswith(("AUTH", "DATA"))]


def test_a_password_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server elsewhere that offers no TLS does not get it."""
    monkeypatch.setattr("driftloop.page.second._LOCAL", frozenset())
    refused = pytest.raises(PagerError, match="no TLS")
    with mail_server(Mailbox(login=("ours", "hush"))) as box, refused:
        Mail(f"smtp://ours:hush@127.0.0.1:{box.port}", FROM).send(incident(), OWNER, why=WHY)
    assert not [each for each in box.commands if each.startswith("AUTH")]


def test_a_server_that_says_nothing_is_given_up() -> None:
    """After its timeout, as one that is not there; both may be tried again."""
    with mail_server(Mailbox(silent=True)) as box:
        with pytest.raises(PagerError) as told:
            Mail(f"smtp://127.0.0.1:{box.port}", FROM, timeout=0.2).send(incident(), OWNER, why=WHY)
        assert told.value.retry
    with pytest.raises(PagerError, match="reachable") as told:
        Mail(f"smtp://127.0.0.1:{box.port}", FROM).send(incident(), OWNER, why=WHY)
    assert told.value.away


def test_who_has_no_address_is_not_reached_by_email() -> None:
    """A webhook reaches everybody."""
    alone = Owner(channel="#eta")
    assert Mail("smtps://host", FROM).reaches(alone) == ""
    assert Mail("smtps://host", FROM).reaches(OWNER) == "ada@example.org, grace@example.org"
    assert Webhook("https://hooks.example/secret").reaches(alone) == "hooks.example"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A receiver of webhooks; no proxy stands before it."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with hook_server(Hook()) as served:
        yield served


def test_a_webhook_is_posted_the_incident(hook: Hook) -> None:
    """As JSON, with a key that is the same when it is posted again."""
    for _ in range(2):
        Webhook(hook.url).send(incident(models=2), OWNER, why=WHY)
    (headers, first), (_, second) = hook.taken
    assert first == second
    assert headers["Idempotency-Key"] == first["key"]
    assert first["models"] == ["eta-0", "eta-1"]
    assert first["since"] == "2026-03-01T07:30:00+00:00"
    assert first["evidence"][0]["value"] == "14.2"
    assert first["why"] == WHY


@pytest.mark.parametrize(("status", "retry"), [(500, True), (429, True), (404, False), (302, True)])
def test_what_a_webhook_answers_counts(hook: Hook, status: int, *, retry: bool) -> None:
    """Anything but 2xx is not taken; the error shows the host alone, as the path is a secret."""
    hook.status = status
    with pytest.raises(PagerError, match=f"answered {status}") as told:
        Webhook(hook.url).send(incident(), OWNER, why=WHY)
    assert told.value.retry is retry
    assert "secret-path" not in str(told.value)


def test_a_webhook_that_is_not_there_is_told_without_its_address() -> None:
    """The address may hold a secret."""
    with hook_server(Hook()) as gone:
        url = gone.url
    with pytest.raises(PagerError, match="ConnectError") as told:
        Webhook(url).send(incident(), OWNER, why=WHY)
    assert "secret-path" not in str(told.value)
    assert told.value.retry
