import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dashboards.pages import pages_app
from driftloop.records import (
    Decided,
    Decision,
    Head,
    Kind,
    Level,
    Measured,
    ModelId,
    Reading,
    State,
    Verdict,
    Window,
)
from driftloop.settings import Settings
from driftloop.wiring import System

MODEL = ModelId("eta-de")
ARGS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OVERFLOWING = """[document.documentElement, ...document.querySelectorAll('.scroll')]
    .filter(part => part.scrollWidth > part.clientWidth).length"""
HOSTILE = "<img src=https://example.org/x onerror=alert(1)>"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """Build an installation with one decaying model, on the wall clock."""
    monitors = Path(__file__).parents[1] / "monitors"
    system = System(Settings(home=tmp_path, monitors=monitors))
    now = datetime.now(UTC)
    head = Head(model=MODEL, epoch=1, version=1, digest="d" * 64, artifact="nowhere/model.onnx")
    system.ledger.move(head, at=now - timedelta(days=9), previous=None, reason="first")
    for days in range(8, -1, -1):
        at = now - timedelta(days=days)
        window = Window(model=MODEL, start=at - timedelta(days=14), end=at, known_at=at)
        value = 7.0 if days else 11.0
        reading = Reading(
            kind=Kind.DECAY, metric="mae", column=None, value=value, n=300, baseline=7.0
        )
        system.ledger.append(
            Measured(model=MODEL, at=at, window=window, rows=900, labels=300, readings=(reading,))
        )
    decision = Decision(
        version=1,
        key=f"{MODEL}/{now:%Y%m%dT%H%M%S}",
        model=MODEL,
        at=now,
        state=State.DECAYING,
        reason=f"decaying: {HOSTILE}",
        window=window,
        verdicts=(Verdict(reading=reading, level=Level.ALARM, limit=0.3, reason="57 % worse"),),
        incident=f"{MODEL}/opened",
        since=now,
        opens=True,
    )
    system.ledger.append(Decided(model=MODEL, at=now, decision=decision))
    yield system
    system.ledger.close()


@pytest.fixture
def address(system: System) -> Iterator[str]:
    """Serve the pages on a free port."""
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(pages_app(system), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.mark.browser
def test_the_pages_show_in_a_browser_and_call_nobody(address: str) -> None:
    """A browser shows the fleet, cuts nothing off, follows to the model and asks no other host."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    faults: list[str] = []
    hosts: set[str | None] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.goto(f"{address}/?still=1")
        assert page.locator("tbody tr").count() == 3
        line = page.locator("tbody tr", has_text=MODEL)
        assert line.locator(".pill.decaying").is_visible()
        assert HOSTILE in line.inner_text()
        assert line.locator("svg.spark").bounding_box() is not None
        for width in (480, 800, 1200):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(OVERFLOWING) == 0, f"something is cut at {width} px"
        line.get_by_role("link", name=MODEL).click()
        page.wait_for_url(f"{address}/models/{MODEL}")
        assert page.locator("svg.chart .dot").count() == 9
        assert page.locator("svg.chart .dot.over").count() == 1
        assert page.locator("table.verdicts .pill.alarm").is_visible()
        browser.close()
    assert faults == []
    assert hosts <= {"127.0.0.1", None}
