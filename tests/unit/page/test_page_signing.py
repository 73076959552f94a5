import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from slack_sdk.signature import SignatureVerifier

from driftloop.page.signing import Signatures, local_secret

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
NOW = 1_531_420_618
BODY = b"payload=%7B%7D"


def signature(at: int = NOW, body: bytes = BODY, secret: str = SECRET) -> str:
    """What Slack would sign it with, as its own SDK has it."""
    made = SignatureVerifier(secret).generate_signature(timestamp=str(at), body=body)
    assert made is not None
    return made


@pytest.fixture
def signatures() -> Signatures:
    return Signatures(SECRET, wall=lambda: NOW + 0.5)


def test_what_slack_signed_is_believed_once(signatures: Signatures) -> None:
    """The same signature again is a replay; another one over the same body is not."""
    assert not signatures.doubt(BODY, timestamp=str(NOW), signature=signature())
    again = signatures.doubt(BODY, timestamp=str(NOW), signature=signature())
    assert again == "it is a replay"
    later = NOW + 1
    assert not signatures.doubt(BODY, timestamp=str(later), signature=signature(later))


@pytest.mark.parametrize(
    ("at", "stale"), [(NOW - 299, False), (NOW - 300, True), (NOW + 300, False), (NOW + 301, True)]
)
def test_five_minutes_are_the_window(signatures: Signatures, at: int, *, stale: bool) -> None:
    """Either way: a timestamp from the future would be good for a replay later."""
    said = signatures.doubt(BODY, timestamp=str(at), signature=signature(at))
    assert said == ("its timestamp is stale" if stale else "")


@pytest.mark.parametrize(
    ("timestamp", "signed"),
    [
        (None, signature()),
        (str(NOW), None),
        ("", signature()),
        ("now", signature()),
        ("1e9", signature()),
        (f" {NOW}", signature()),
        ("1_531_420_618", signature()),
        (f"-{NOW}", signature()),
        ("9" * 5000, signature()),
        ("\u0661\u0665\u0663\u0661\u0664\u0662\u0660\u0666\u0661\u0668", signature()),
        ("\xb2", signature()),
        (str(NOW), ""),
        (str(NOW), "v0="),
        (str(NOW), "v0=" + "\xe9" * 64),
        (str(NOW), signature().replace("v0=", "v1=")),
        (str(NOW), signature().upper()),
        (str(NOW), signature() + "\n"),
        (str(NOW), signature()[:-1]),
        (str(NOW), signature(secret="another")),
        (str(NOW), signature(body=BODY + b" ")),
        (str(NOW - 1), signature()),
    ],
)
def test_junk_and_forgeries_are_doubted(
    signatures: Signatures, timestamp: str | None, signed: str | None
) -> None:
    """Whatever is in the headers: never a fault of ours."""
    assert signatures.doubt(BODY, timestamp=timestamp, signature=signed)


def test_a_body_that_is_not_text_is_doubted(signatures: Signatures) -> None:
    """Slack's is always UTF-8."""
    assert signatures.doubt(b"\xff\xfe", timestamp=str(NOW), signature=signature())


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_nothing_is_believed(secret: str | None) -> None:
    """Not even what an empty one would sign."""
    said = Signatures(secret, wall=lambda: NOW).doubt(
        BODY, timestamp=str(NOW), signature=signature()
    )
    assert "no signing secret" in said


def test_signatures_are_forgotten_after_their_window() -> None:
    """Memory is for what could still be replayed."""
    now = [float(NOW)]
    signatures = Signatures(SECRET, wall=lambda: now[0])
    for second in range(50):
        now[0] = NOW + second * 20
        at = int(now[0])
        assert not signatures.doubt(BODY, timestamp=str(at), signature=signature(at))
    assert len(signatures._seen) == 16


def test_everybody_has_the_same_local_secret(tmp_path: Path) -> None:
    """Whoever comes first makes it, for its owner's eyes alone; nothing else is left behind."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: local_secret(tmp_path), range(40)))
    assert len(found) == 1
    assert len(found.pop()) == 32
    (file,) = (tmp_path / "run").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert local_secret(tmp_path / "other") != local_secret(tmp_path)
