import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from driftloop.errors import BadRequest, LogError, MeasureError
from driftloop.ledger import SqlLedger
from driftloop.records import Act, Measured, ModelId, State
from driftloop.wiring import System


@pytest.fixture
def pages(storied: System, serve: Callable[[System], Any]) -> Iterator[httpx.Client]:
    """Open the pages of an installation in every state."""
    with serve(storied) as client:
        yield client


def row(client: httpx.Client, model: str) -> dict[str, Any]:
    """Return what the fleet page shows of one model."""
    view = client.get("/api/fleet").json()
    return next(r for group in view["groups"] for r in group["rows"] if r["model"] == model)


@pytest.mark.parametrize(
    ("model", "state"),
    [
        ("eta-good", "fresh"),
        ("eta-drift", "drifting"),
        ("eta-decay", "decaying"),
        ("eta-fault", "data-fault"),
        ("eta-blind", "blind"),
        ("eta-train", "retraining"),
        ("eta-none", "no champion"),
        ("churn-decay", "decaying"),
    ],
)
def test_each_state_shows_on_both_pages(pages: httpx.Client, model: str, state: str) -> None:
    """A model's pill says its state, on the fleet page as on its own."""
    assert row(pages, model)["state"] == state
    pill = f'<span class="pill {state.replace(" ", "-")}">{state}</span>'
    fleet = pages.get("/").text
    line = fleet[fleet.index(f'<td class="name"><a href="/models/{model}"') :]
    assert pill in line[: line.index("</tr>")]
    assert pill in pages.get(f"/models/{model}").text


def test_what_is_wrong_comes_first(pages: httpx.Client) -> None:
    """Harm and open incidents are listed before the tables, the gravest first."""
    urgent = [r["model"] for r in pages.get("/api/fleet").json()["urgent"]]
    assert urgent[:3] == ["eta-fault", "churn-decay", "eta-decay"]
    assert "eta-good" not in urgent
    page = pages.get("/").text
    assert page.index('class="urgent"') < page.index("<table")


def test_what_people_were_told_of_shows_with_who_has_it(
    storied: System, tell: Callable[[System, str], Any], serve: Callable[[System], Any]
) -> None:
    """Open ones on the fleet page and the model's, what is over on the page of all."""
    ledger = storied.ledger
    story = type(tell(storied, "eta-none"))(ledger, ModelId("eta-decay"), metric="mae")
    story.acted(0.5, Act.ACK)
    with serve(storied) as client:
        for path in ("/", "/models/eta-decay", "/incidents"):
            page = client.get(path).text
            assert '<span class="pill acked">acked</span>' in page
            assert "eta-decay predicts worse: &lt;script&gt;" in page
            assert "has it; open since" in page
            assert "<script>" not in page
        assert "eta-decay/opened" not in client.get("/models/eta-good").text
        story.acted(0.1, Act.RESOLVE)
        assert 'class="incidents"' not in client.get("/models/eta-decay").text
        assert '<span class="pill resolved">resolved</span>' in client.get("/incidents").text


@pytest.mark.parametrize("path", ["/", *(f"/models/eta-{m}" for m in ("decay", "fault", "stuck"))])
def test_words_from_outside_stay_words(pages: httpx.Client, path: str) -> None:
    """Nothing that a reason, an error or a name holds becomes markup; other scripts survive."""
    page = pages.get(path).text
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "größer" in page
    assert "מודל 模型" in page


def test_pages_need_nothing_from_elsewhere(pages: httpx.Client) -> None:
    """No page names another host but MLflow's link, and its policy forbids the rest."""
    for path in ("/", "/models/eta-decay"):
        answer = pages.get(path)
        assert set(re.findall(r"https?://[^\"/]+", answer.text)) <= {"http://127.0.0.1:8403"}
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_fleet_page_refreshes_unless_held(pages: httpx.Client) -> None:
    """It looks again by itself; `?still=1` holds it."""
    assert 'http-equiv="refresh"' in pages.get("/").text
    assert 'http-equiv="refresh"' not in pages.get("/?still=1").text


def test_the_loops_own_clock_shows(pages: httpx.Client) -> None:
    """Simulated time is named as such, with its speed."""
    assert re.search(r"loop time 2013-06-\d\d \d\d:\d\d UTC, speed 58,000x", pages.get("/").text)


def test_blind_is_shown_as_blind_with_its_reason(pages: httpx.Client) -> None:
    """Too few labels is neither fine nor an alarm, and the page says how few."""
    page = pages.get("/models/eta-blind").text
    assert '<span class="pill blind">blind</span></td><td>decay' in page
    assert "3 labels, at least 30 are needed" in page


def test_a_model_page_says_why_nothing_fresh_is_read(pages: httpx.Client) -> None:
    """And is silent where something is."""
    said = "Not compared with what is usual: "
    page = pages.get("/models/eta-blind").text
    assert said in page
    assert "the log does not tell when rows arrive" in page
    assert said not in pages.get("/models/eta-good").text


def test_a_model_page_tells_its_story(pages: httpx.Client) -> None:
    """Decision, page and what came of the order follow each other, newest first."""
    page = pages.get("/models/eta-decay").text
    told = re.findall(r'<span class="pill \w+">(\w+)</span></td>\n<td class="value">', page)
    assert told == ["refused", "page", "decision", "decision", "promoted"]
    assert "version 2: gain -10.0% (-20.0% to +2.0%)" in page
    assert "/reports/eta-decay/20130603T120000" in page
    assert "http://127.0.0.1:8403/#/models/eta-decay" in page
    assert 'class="mark page"' in page


def test_a_model_that_decays_says_where_it_is_worst(pages: httpx.Client) -> None:
    """In a line below its reason, escaped; a model that is well says nothing of the kind."""
    page = pages.get("/models/eta-decay").text
    (line,) = re.findall(r"Worst in carrier=&lt;script&gt;.*: (.*)</p>", page)
    assert line.startswith('mean absolute error <span class="num">14.2</span> min, n=120')
    assert "Worst in" not in pages.get("/models/eta-good").text


def test_an_incident_says_its_cause(pages: httpx.Client) -> None:
    """Why, and in which other models, escaped, beside the reason and in the timeline."""
    page = pages.get("/models/eta-fault").text
    said = "the data is wrong: &lt;script&gt;"
    assert f'<p dir="auto">Cause: {said}' in page
    assert "; the same in 1 other model (eta-decay).</p>" in page
    assert '<span class="pill bad">cause</span>' in page
    assert "Cause:" not in pages.get("/models/eta-good").text


def test_a_retraining_is_one_entry_with_its_steps(pages: httpx.Client) -> None:
    """What was ordered, trained, gated, swapped and told of one order stands together."""
    page = pages.get("/models/eta-decay").text
    folded = re.findall(r"<details>(.*?)</details>", page, flags=re.DOTALL)
    steps = [re.findall(r"<td>(\w+)</td>", one) for one in folded]
    assert steps == [
        ["ordered", "told", "trained", "gate", "told"],
        ["ordered", "trained", "gate", "swap"],
    ]
    assert "refused, in #ml-logistics" in folded[0]
    assert "52,000 rows; mean absolute error 7.1 on 6,100 held-out rows" in folded[0]
    assert "version 1 answers (epoch 1)" in folded[1]


def test_a_rollback_is_named_one(pages: httpx.Client) -> None:
    """An earlier version that answers again is a rollback, not a promotion."""
    page = pages.get("/models/eta-stuck").text
    assert "version 1 answers (epoch 3), version 2 did before" in page
    assert '<span class="pill busy">rollback</span>' in page


@pytest.mark.parametrize(
    "path",
    [
        "/models/eta-xx",
        "/models/%3Cscript%3E",
        "/reports/eta-xx",
        "/reports/eta-good/20990101T000000",
        "/reports/eta-good/..%2f..%2fledger.db",
        "/nowhere",
    ],
)
def test_what_there_is_not_is_a_readable_404(pages: httpx.Client, path: str) -> None:
    """An unknown model, decision or page answers 404 with a page, not a trace."""
    answer = pages.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "<h1>Not Found</h1>" in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MeasureError("the window holds no rows"), 422),
        (BadRequest("has no champion yet", where="eta-none"), 422),
        (LogError("the lake is locked"), 503),
    ],
)
def test_a_report_that_fails_says_why(
    storied: System,
    pages: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    """Each error of a report has its status and is shown in words."""

    def fail(model: ModelId, *, key: str | None = None) -> Path:
        raise error

    monkeypatch.setattr(storied, "report", fail)
    answer = pages.get("/reports/eta-good")
    assert answer.status_code == status
    assert str(error) in answer.text


def test_a_report_is_served_without_an_origin(
    storied: System, pages: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The decision's report comes as HTML whose scripts cannot reach the pages."""
    asked = []

    def made(model: ModelId, *, key: str | None = None) -> Path:
        asked.append((model, key))
        file = tmp_path / "report.html"
        file.write_text("<p>drift", encoding="utf-8")
        return file

    monkeypatch.setattr(storied, "report", made)
    answer = pages.get("/reports/eta-decay/20130603T120000")
    assert (answer.status_code, answer.text) == (200, "<p>drift")
    assert answer.headers["content-security-policy"].startswith("sandbox ")
    assert pages.get("/reports/eta-decay").status_code == 200
    assert asked == [("eta-decay", "eta-decay/20130603T120000"), ("eta-decay", None)]


def test_a_late_loop_is_said_at_the_top(
    installed: Callable[..., System],
    tell: Callable[[System, str], Any],
    serve: Callable[[System], Any],
) -> None:
    """When no pass came in three intervals the page warns, and each line does not."""
    system = installed(eta=("good",), churn=("none",), speed=1.0)
    system.ledger._wall = lambda: time.time() - 3 * 86_400
    tell(system, "eta-good")
    with serve(system) as client:
        page = client.get("/").text
    assert "is the worker running?" in page[: page.index('class="counts"')]
    assert "not judged for" not in page


def test_the_fleet_page_reads_little_of_a_long_past(
    installed: Callable[..., System],
    tell: Callable[[System, str], Any],
    serve: Callable[[System], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the second look one fact of each kind is read of a model, however long its past is."""
    system = installed(eta=("good", "decay"), churn=("none",))
    stories = [tell(system, "eta-good"), tell(system, "eta-decay")]
    read: list[tuple[str, int]] = []
    facts = SqlLedger.facts

    def counted(self: SqlLedger, kind: Any, **asked: Any) -> Any:
        found = facts(self, kind, **asked)
        read.append((kind.__name__, len(found)))
        return found

    monkeypatch.setattr(SqlLedger, "facts", counted)
    with serve(system) as client:
        client.get("/api/fleet")
        read.clear()
        client.get("/api/fleet")
        assert max(n for _, n in read) == 1
        assert len(read) == 7 * 3 + 1
        for story in stories:
            story.decided(-1, State.FRESH, 7.77)
            story.decided(-2, State.FRESH, 8.88)
        read.clear()
        values = [p["value"] for p in row(client, "eta-good")["points"]]
    assert sum(n for kind, n in read if kind == Measured.__name__) <= 2 * (1 + 6) + 1
    assert values[-3:] == [7.0, 7.77, 8.88]
    assert len(values) == 8


def test_the_fleet_as_json_is_what_the_page_shows(pages: httpx.Client) -> None:
    """Scripts get numbers, times and reasons, in one document."""
    answer = pages.get("/api/fleet")
    view = msgspec.json.decode(answer.content)
    assert sum(view["counts"].values()) == 10
    shown = row(pages, "eta-decay")
    assert shown["incident_since"] == "2013-06-02T14:24:00Z"
    assert shown["retrain"]["what"] == "refused"
    assert (shown["rows"], shown["labels"], shown["level"]) == (1234, 400, "alarm")
    assert shown["points"][-1]["limit"] == pytest.approx(
        7.1 * 1.3 if shown["family"] == "eta" else 7.1 * 1.2
    )


def test_health_is_told(pages: httpx.Client) -> None:
    """Whoever starts the pages can wait for them."""
    assert pages.get("/healthz").json() == {"status": "ok"}
