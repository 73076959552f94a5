"""The second way to reach people, for when Slack is out of reach: e-mail, and a webhook.

Both may be told of one incident twice, where a process died before it could record that it had
told it: the e-mail has the same Message-ID then, and what is posted the same key.
"""

import hashlib
import logging
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import quote, unquote, urlsplit

from driftloop.errors import MOST_SAID, PagerError
from driftloop.incident.lines import common, utc, worst
from driftloop.incident.stages import OF_TELLING
from driftloop.incident.words import doing, headline, needs
from driftloop.records import Incident, Notice
from driftloop.spec import Owner

SUBJECT = 200
"""Characters of an e-mail's subject."""
NAMED = 20
"""Models that are named; the others are counted."""
OK = range(200, 300)
_PASSING = range(400, 500)
"""Of SMTP: what may be taken later."""
_REFUSALS = range(400, 500)
"""Of HTTP: what will not be taken later either, but for those of `_AGAIN`."""
_AGAIN = frozenset({408, 425, 429})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"smtp": 587, "smtps": 465}
_log = logging.getLogger(__name__)


class Mail:
    """A `ports.SecondWay` by e-mail: plain text, to every address of an owner.

    Args:
        address: of the server, as smtp://user:password@host:587 (TLS from STARTTLS on, where it
            is offered) or smtps://host (TLS at once). A password is sent over TLS alone, or to
            this machine.
        sender: who it is from.
        timeout: seconds that each answer of the server may take.
    """

    name = "e-mail"

    def __init__(self, address: str, sender: str, *, timeout: float = 10.0) -> None:
        parts = urlsplit(address)
        self._at_once = parts.scheme == "smtps"
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._sender = sender
        self._timeout = timeout

    def reaches(self, owner: Owner) -> str:
        """Return the owner's addresses, "" where there are none."""
        return ", ".join(owner.email)

    def send(self, incident: Incident, owner: Owner, *, why: str) -> None:
        """Send the incident as it is.

        Raises:
            PagerError: no address was taken; says nothing of the password.
        """
        message = self._message(incident, owner, why)
        try:
            with self._server() as server:
                refused = server.send_message(message, self._sender, list(owner.email))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise self._refusal(error) from None  # what it was made of may hold the password
        for address, (code, said) in refused.items():
            _log.warning("%s was not written to: %s", address, self._plain(code, said))

    def _message(self, incident: Incident, owner: Owner, why: str) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = _line(f"[driftloop] {headline(incident)}")[:SUBJECT]
        message["From"] = self._sender
        message["To"] = ", ".join(owner.email)
        message["Date"] = formatdate()
        message["Message-ID"] = message_id(incident.id, self._sender)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content("\n".join(text(incident, why=why)) + "\n")
        return message

    def _server(self) -> smtplib.SMTP:
        """Return a server that was greeted, over TLS where there is any, and that knows us."""
        tls = ssl.create_default_context()
        if self._at_once:
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host, self._port, timeout=self._timeout, context=tls
            )
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        try:
            self._introduce(server, tls)
        except BaseException:
            with suppress(OSError):
                server.close()
            raise
        return server

    def _introduce(self, server: smtplib.SMTP, tls: ssl.SSLContext) -> None:
        server.ehlo_or_helo_if_needed()
        safe = self._at_once
        if not safe and server.has_extn("starttls"):
            server.starttls(context=tls)
            server.ehlo()
            safe = True
        if self._user and not safe and self._host not in _LOCAL:
            raise smtplib.SMTPNotSupportedError("it offers no TLS to send a password over")
        if self._user:
            server.login(self._user, self._password)

    def _refusal(self, error: Exception) -> PagerError:
        where = f"mail server {self._host}:{self._port}"
        match error:
            case smtplib.SMTPRecipientsRefused():
                said = "; ".join(
                    f"{address}: {self._plain(code, words)}"
                    for address, (code, words) in error.recipients.items()
                )
                codes = [code for code, _ in error.recipients.values()]
                hint = "are these addresses in owners.toml right?"
            case smtplib.SMTPResponseException():
                said = self._plain(error.smtp_code, error.smtp_error)
                codes, hint = [error.smtp_code], "see smtp and smtp_from in the settings"
            case _:
                said = f"{type(error).__name__}: {self._without_secrets(str(error))}"
                codes, hint = [], "see smtp in the settings; is it reachable from here?"
        retry = not codes or any(code in _PASSING for code in codes)
        return PagerError(
            f"no e-mail was taken: {said}", where=where, hint=hint, retry=retry, away=not codes
        )

    def _plain(self, code: int, said: bytes | str) -> str:
        words = said.decode(errors="replace") if isinstance(said, bytes) else said
        return f"{code} {self._without_secrets(words)}"

    def _without_secrets(self, said: str) -> str:
        if self._password:
            said = said.replace(self._password, "***")
        return _line(said)[:MOST_SAID]


class Webhook:
    """A `ports.SecondWay` by HTTP: posts each incident as one JSON object.

    What is posted: `key` (the same whenever the same incident is posted again; `Idempotency-Key`
    carries it too), `incident`, `headline`, `why`, `needs`, `doing`, `owner`, `channel`,
    `severity`, `origin`, `status`, `opened` and `since` (ISO 8601), `models`, `evidence` (objects
    of `what`, `value`, `limit`, `n`) and `links` (objects of `text` and `url`).

    Args:
        address: posted to; never shown but for its host.
        timeout: seconds that the answer may take.
    """

    name = "webhook"

    def __init__(self, address: str, *, timeout: float = 10.0) -> None:
        self._address = address
        self._host = urlsplit(address).hostname or ""
        self._timeout = timeout

    def reaches(self, owner: Owner) -> str:  # noqa: ARG002 - whoever listens there knows the owners
        """Return the host that is posted to: it reaches every owner."""
        return self._host

    def send(self, incident: Incident, owner: Owner, *, why: str) -> None:
        """Post the incident as it is.

        Raises:
            PagerError: it was answered otherwise than with 2xx, or not at all.
        """
        import httpx

        where = f"webhook at {self._host}"
        key = quote(f"{incident.id}/{owner.channel}", safe="/#")
        told = {"key": key, **_posted(incident, owner, why)}
        try:
            answer = httpx.post(
                self._address, json=told, headers={"Idempotency-Key": key}, timeout=self._timeout
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise PagerError(
                f"it does not answer: {type(error).__name__}",
                where=where,
                hint="see webhook in the settings; is it reachable from here?",
                retry=True,
                away=True,
            ) from None  # it may say the address
        if answer.status_code not in OK:
            raise PagerError(
                f"it answered {answer.status_code}",
                where=where,
                hint="whatever begins with 2 says that it was taken",
                retry=answer.status_code in _AGAIN or answer.status_code not in _REFUSALS,
            )


def message_id(incident: str, sender: str) -> str:
    """Return the Message-ID of an incident's e-mail: the same for the same incident.

    >>> message_id("data/source-weather/3", "driftloop@example.org")
    '<4b13c30308c06ac88a34d02f2f703061@example.org>'
    """
    return f"<{hashlib.sha256(incident.encode()).hexdigest()[:32]}@{sender.rpartition('@')[2]}>"


def text(incident: Incident, *, why: str) -> Iterator[str]:
    """Yield the lines of an incident as plain text, with `why` it is told so."""
    newest, does = _telling(incident), doing(incident)
    yield _line(headline(incident))
    yield ""
    yield _line(why)
    yield ""
    yield f"Since     {utc(incident.since)}"
    yield f"Severity  {incident.severity}"
    yield f"Incident  {_line(incident.id)}"
    models = incident.models
    if len(models) > 1:
        yield ""
        shared = common(incident)
        yield _line(f"{len(models)} models, worst first{f': {shared}' if shared else ''}:")
        yield from (_line(f"  {model}: {said}") for model, said in worst(incident)[:NAMED])
        if len(models) > NAMED:
            yield f"  and {len(models) - NAMED} more"
    if newest is not None and newest.evidence:
        yield ""
        yield "Evidence:"
        for each in newest.evidence:
            rows = f" on {each.n:,} rows" if each.n is not None else ""
            limit = f", limit {each.limit}" if each.limit else ""
            yield _line(f"  {each.what}: {each.value}{limit}{rows}")
    if does:
        yield ""
        yield _line(does)
    yield ""
    yield _line(needs(incident))
    if incident.asks:
        yield f"By hand: driftloop ack {_line(incident.id)}"
    if newest is not None and newest.links:
        yield ""
        yield from (_line(f"{link.text}: {link.url}") for link in newest.links)


def _posted(incident: Incident, owner: Owner, why: str) -> dict[str, object]:
    newest = _telling(incident)
    evidence = newest.evidence if newest is not None else ()
    return {
        "incident": incident.id,
        "headline": headline(incident),
        "why": why,
        "needs": needs(incident),
        "doing": doing(incident),
        "owner": incident.owner,
        "channel": owner.channel,
        "severity": incident.severity.value,
        "origin": incident.origin.value,
        "status": incident.status.value,
        "opened": incident.opened.isoformat(),
        "since": incident.since.isoformat(),
        "models": list(incident.models),
        "evidence": [
            {"what": each.what, "value": each.value, "limit": each.limit, "n": each.n}
            for each in evidence
        ],
        "links": [
            {"text": link.text, "url": link.url} for link in (newest.links if newest else ())
        ],
    }


def _telling(incident: Incident) -> Notice | None:
    """Return the newest notice about the matter itself that has evidence, else the newest."""
    about = [each for each in incident.notices if each.stage not in OF_TELLING]
    proven = [each for each in about if each.evidence]
    return next(reversed(proven or about), None)


def _line(said: str) -> str:
    """Return text in one line, without what would end a header or hide in a terminal."""
    kept = "".join(c if c.isprintable() else " " for c in said)
    lead = kept[: len(kept) - len(kept.lstrip())]
    return lead + " ".join(kept.split())
