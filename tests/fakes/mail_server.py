"""A mail server over a real socket, as far as smtplib asks one; and a receiver of webhooks."""

import base64
import json
import shutil
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Mailbox:
    """What a server took, and how it is to behave.

    `refuse` answers RCPT so; `answer` ends DATA so; `login` is who may in; `silent` never greets.
    """

    port: int = 0
    taken: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    answer: str = "250 taken"
    login: tuple[str, str] | None = None
    silent: bool = False
    tls: list[bool] = field(default_factory=list)


@contextmanager
def mail_server(
    box: Mailbox, *, certificate: Path | None = None, at_once: bool = False
) -> Iterator[Mailbox]:
    """Serve `box` while in it; with a `certificate` it offers STARTTLS, or speaks TLS `at_once`."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    class Session(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                talk = Talk(self.request, box, context)
                if at_once:
                    talk.secure()
                talk.run()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Session) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()


class Talk:
    """One client's session: a method for each command."""

    def __init__(self, sock: Any, box: Mailbox, context: ssl.SSLContext | None) -> None:
        self.sock = sock
        self.box = box
        self.context = context
        self.safe = False
        self.lines = sock.makefile("rb")
        self.to: list[str] = []

    def run(self) -> None:
        if self.box.silent:
            self.lines.readline()
            return
        self.say("220 fake ready")
        while command := self.lines.readline().decode().strip():
            self.box.commands.append(command)
            word = command.split(" ")[0].lower()
            getattr(self, word, self.other)(command)

    def say(self, line: str) -> None:
        self.sock.sendall(f"{line}\r\n".encode())

    def secure(self) -> None:
        assert self.context is not None
        self.sock, self.safe = self.context.wrap_socket(self.sock, server_side=True), True
        self.lines = self.sock.makefile("rb")

    def other(self, _: str) -> None:
        self.say("250 ok")

    def ehlo(self, _: str) -> None:
        offers = ["fake"]
        offers += ["STARTTLS"] if self.context is not None and not self.safe else []
        offers += ["AUTH PLAIN"] if self.box.login else []
        for offer in offers:
            self.say(f"250-{offer}")
        self.say("250 8BITMIME")

    def starttls(self, _: str) -> None:
        self.say("220 go on")
        self.secure()

    def auth(self, command: str) -> None:
        given = base64.b64decode(command.rsplit(" ", maxsplit=1)[-1]).decode().split("\0")[1:]
        known = tuple(given) == self.box.login
        self.say("235 welcome" if known else f"535 not you, {':'.join(given)}")

    def mail(self, _: str) -> None:
        self.to = []
        self.say("250 ok")

    def rcpt(self, command: str) -> None:
        address = command.partition("<")[2].partition(">")[0]
        if address not in self.box.refuse:
            self.to.append(address)
        self.say(self.box.refuse.get(address, "250 ok"))

    def data(self, _: str) -> None:
        self.say("354 go on")
        body = b""
        while (line := self.lines.readline()) not in {b".\r\n", b""}:
            body += line.removeprefix(b".") if line.startswith(b"..") else line
        if self.box.answer.startswith("250"):
            message = message_from_bytes(body, policy=default)
            assert isinstance(message, EmailMessage)
            self.box.taken.append((self.to, message))
            self.box.tls.append(self.safe)
        self.say(self.box.answer)

    def quit(self, _: str) -> None:
        self.say("221 bye")


def certificate(folder: Path, host: str = "localhost") -> Path | None:
    """Return a self-made certificate with its key in one file; None where openssl is missing."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    key, file = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-keyout", str(key), "-out", str(file)),
            *("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + key.read_text())
    return file


@dataclass
class Hook:
    """What a webhook was posted, and what it answers."""

    url: str = ""
    status: int = 204
    taken: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)


@contextmanager
def hook_server(hook: Hook) -> Iterator[Hook]:
    """Serve `hook` while in it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status < 300:
                hook.taken.append((dict(self.headers), json.loads(body)))
            self.send_response(hook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.url = f"http://127.0.0.1:{server.server_port}/hooks/secret-path"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()
