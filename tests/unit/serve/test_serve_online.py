import gzip
import re
import shlex
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from driftloop.serve import schema
from driftloop.serve.docs import docs_page

ROW = {"id": "a", "asked_at": "2026-03-01T10:00:00Z", "distance": 12, "load": 0.5, "vehicle": "van"}
PREDICT = "/v1/models/eta-de/predict"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hold every promise in front of FastAPI and through it."""
    if "serving" in metafunc.fixturenames:
        metafunc.parametrize("serving", ["front", "fastapi"], indirect=True)


def counted(http: httpx.Client, name: str, **labels: str) -> float:
    """Return one sample of /metrics; 0 where there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found)


def test_a_row_is_answered_by_the_model_and_logged_first(
    serving: Any, made: Any, clock: Any
) -> None:
    """The answer is the model's, names its version, and its log row says the same."""
    service = serving(made["sloped"].head("eta-de", epoch=3, version=2))
    reply = service.http.post(PREDICT, json=ROW)
    held = service.slots.slot("eta-de").hand()
    expected = held.model.predict({"distance": [12.0], "load": [0.5], "vehicle": ["van"]})[0]
    assert reply.status_code == 200
    assert reply.json() == {
        "model": "eta-de",
        "version": 2,
        "epoch": 3,
        "predictions": [{"id": "a", "prediction": expected}],
    }
    schema.Answer.model_validate(reply.json())
    (logged,) = service.spool.kept
    assert (logged.id, logged.version, logged.epoch, logged.prediction) == ("a", 2, 3, expected)
    assert logged.features == {"distance": 12.0, "load": 0.5, "vehicle": "van"}
    assert logged.predicted_at == clock.now()


def test_many_rows_are_answered_in_order(serving: Any, made: Any) -> None:
    """Ten thousand rows, worked on in a thread, are answered in their order and all logged."""
    service = serving(made["sloped"].head("eta-de", epoch=1))
    rows = [{**ROW, "id": str(n), "distance": n / 2} for n in range(10_000)]
    predictions = service.http.post(PREDICT, json={"rows": rows}).json()["predictions"]
    assert [each["id"] for each in predictions] == [str(n) for n in range(10_000)]
    expected = (
        service.slots.slot("eta-de")
        .hand()
        .model.predict(
            {
                "distance": [row["distance"] for row in rows],
                "load": [0.5] * 10_000,
                "vehicle": ["van"] * 10_000,
            }
        )
    )
    assert [each["prediction"] for each in predictions] == expected
    assert [each.prediction for each in service.spool.kept] == expected


def test_swaps_under_load_fail_no_request(serving: Any, made: Any, until: Any) -> None:
    """Twenty swaps under four clients: none fails, and each answer is its own version's."""
    constant = ((made["ten"], 10.0), (made["twenty"], 20.0))
    service = serving(made["ten"].head("eta-de", epoch=0))
    stop = threading.Event()
    answers: list[tuple[str, int, float]] = []

    def hammer() -> None:
        with httpx.Client(base_url=service.http.base_url, timeout=30) as http:
            row = {name: value for name, value in ROW.items() if name != "id"}
            while not stop.is_set():
                reply = http.post(PREDICT, json=row)
                assert reply.status_code == 200, reply.text
                shown = reply.json()
                assert shown["version"] == shown["epoch"]
                (each,) = shown["predictions"]
                answers.append((each["id"], shown["version"], each["prediction"]))

    with ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(hammer) for _ in range(4)]
        try:
            for epoch in range(1, 21):
                service.ledger.now = (constant[epoch % 2][0].head("eta-de", epoch=epoch),)
                until(lambda epoch=epoch: answers and answers[-1][1] == epoch)
        finally:
            stop.set()
        for client in clients:
            client.result(40)
    for _, version, prediction in answers:
        assert prediction == pytest.approx(constant[version % 2][1])
    logged = {row.id: (row.version, row.prediction) for row in service.spool.kept}
    assert logged == {each: (version, prediction) for each, version, prediction in answers}
    assert counted(service.http, "driftloop_swaps_total", model="eta-de") == 21


def test_a_new_champion_answers_within_two_seconds(serving: Any, made: Any) -> None:
    """At the default pace of polling a moved head answers well within two seconds."""
    service = serving(made["ten"].head("eta-de", epoch=1), poll_every=0.5)
    assert service.http.post(PREDICT, json=ROW).json()["version"] == 1
    moved = time.monotonic()
    service.ledger.now = (made["twenty"].head("eta-de", epoch=2),)
    while service.http.post(PREDICT, json=ROW).json()["version"] != 2:
        assert time.monotonic() - moved < 2.0


def test_a_damaged_version_is_refused_and_the_old_one_answers(
    serving: Any, made: Any, tmp_path: Path, until: Any
) -> None:
    """A champion whose file was changed never answers; people can see that it was refused."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(made["twenty"].file.read_bytes()[:-1])
    head = made["twenty"].head("eta-de", epoch=2)
    service.ledger.now = (replace(head, artifact=str(damaged)),)
    until(lambda: counted(service.http, "driftloop_load_failures_total", model="eta-de") == 1)
    assert service.http.post(PREDICT, json=ROW).json()["version"] == 1
    ready = service.http.get("/readyz")
    assert ready.status_code == 200
    shown = schema.Readiness.model_validate(ready.json())
    assert [(each.model, each.version) for each in shown.refused] == [("eta-de", 2)]
    assert "digest" in shown.refused[0].error
    assert str(tmp_path) not in ready.text, "where files lie is nobody's business"


def test_a_damaged_only_champion_is_told_as_such(
    serving: Any, made: Any, tmp_path: Path, until: Any
) -> None:
    """With nothing else in hand, callers and /readyz are told of the damage until it is mended."""
    service = serving(made["ten"].head("eta-fr", epoch=1))
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(made["twenty"].file.read_bytes()[:-1])
    head = replace(made["twenty"].head("eta-de", epoch=2), artifact=str(damaged))
    service.ledger.now = (head,)
    until(lambda: service.http.get("/readyz").json()["only_refused_champion"])
    shown = schema.Readiness.model_validate(service.http.get("/readyz").json())
    assert (shown.ready, shown.only_refused_champion) == (True, ["eta-de"])
    assert shown.without_champion == ["churn-uk"]
    assert [each.version for each in shown.refused] == [2]
    reply = service.http.post(PREDICT, json=ROW)
    assert reply.status_code == 503
    assert "Retry-After" in reply.headers
    told = schema.Refusal.model_validate(reply.json()).error
    failure = service.slots.failures[head.model]
    assert told.what == f"version 2 is champion and was refused: {failure.error.what}"
    assert "not the one its digest names" in told.what
    assert (told.where, told.hint) == ("eta-de", failure.error.hint)
    assert "restore it, or roll back" in told.hint
    assert service.http.post("/v1/models/eta-fr/predict", json=ROW).status_code == 200
    service.ledger.now = (made["ten"].head("eta-de", epoch=3, version=1),)
    until(lambda: service.http.get("/readyz").json()["only_refused_champion"] == [])
    assert service.http.post(PREDICT, json=ROW).json()["version"] == 1


def test_a_service_that_can_answer_for_none_is_not_ready(
    serving: Any, made: Any, tmp_path: Path, until: Any
) -> None:
    """As after a move of the model files: whoever balances the load sends callers elsewhere."""
    service = serving()
    gone = replace(made["ten"].head("eta-de", epoch=1), artifact=str(tmp_path / "gone.onnx"))
    service.ledger.now = (gone,)
    until(lambda: service.http.get("/readyz").json()["only_refused_champion"])
    ready = service.http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    service.ledger.now = (made["twenty"].head("eta-de", epoch=2),)
    until(lambda: service.http.get("/readyz").status_code == 200)


def test_nothing_is_answered_that_is_not_logged(serving: Any, made: Any) -> None:
    """When the spool fails the caller gets an error and no prediction; afterwards all is well."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    service.spool.broken = True
    for path, body in ((PREDICT, ROW), ("/v1/models/eta-de/labels", {"id": "a", "value": 1})):
        reply = service.http.post(path, json=body)
        assert reply.status_code == 503
        told = schema.Refusal.model_validate(reply.json()).error
        assert "no space left on device" in told.what
        assert "nothing was answered" in told.hint
        assert "Retry-After" in reply.headers
    assert counted(service.http, "driftloop_rows_total") == 0
    service.spool.broken = False
    assert service.http.post(PREDICT, json=ROW).status_code == 200


def test_the_heads_being_unreadable_stops_no_answer(serving: Any, made: Any, until: Any) -> None:
    """While the ledger cannot be read the champion in hand answers; then polling goes on."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    service.ledger.broken = True
    until(lambda: counted(service.http, "driftloop_poll_failures_total") >= 2)
    assert service.http.post(PREDICT, json=ROW).json()["version"] == 1
    service.ledger.now = (made["twenty"].head("eta-de", epoch=2),)
    service.ledger.broken = False
    until(lambda: service.http.post(PREDICT, json=ROW).json()["version"] == 2)


@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        ("/v1/models/eta-es/predict", b"{}", 404, "no monitor declares the model 'eta-es'"),
        ("/v1/models/eta-fr/predict", b"{}", 503, "the model has no champion yet"),
        (PREDICT, b"not json", 400, "the body is not JSON"),
        (PREDICT, gzip.compress(b"{}", mtime=0), 415, "the body is compressed"),
        (PREDICT, b" " * (32 * 1024 * 1024 + 1), 413, "larger than 32 MiB"),
        (PREDICT, b'{"rows": []}', 422, "should be a list of at least one"),
        ("/v1/models/eta-es/labels", b"{}", 404, "no monitor declares the model"),
        ("/v1/models/eta-de/labels", b'{"id": "a", "value": "x"}', 422, "should be a number"),
        ("/nowhere", b"{}", 404, "Not Found"),
        ("/healthz", b"{}", 405, "Method Not Allowed"),
    ],
)
def test_every_refusal_has_one_shape(
    serving: Any, made: Any, path: str, content: bytes, status: int, said: str
) -> None:
    """Each error is {"error": {what, where, hint, faults}} with a fitting status."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    reply = service.http.post(path, content=content)
    assert reply.status_code == status
    assert said in schema.Refusal.model_validate(reply.json()).error.what
    assert service.spool.kept == []


def test_a_body_of_unknown_length_is_cut_off(serving: Any, made: Any) -> None:
    """A chunked body is refused once it is too large, without being kept whole."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    chunks = (b" " * 1024 * 1024 for _ in range(33))
    reply = service.http.post(PREDICT, content=chunks)
    assert reply.status_code == 413


def test_faults_are_told_by_row_and_field(serving: Any, made: Any) -> None:
    """An unknown feature and a NaN are 422, each named by row and field, and nothing is logged."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    body = b"""{"rows": [
        {"asked_at": "2026-03-01T10:00:00Z", "distance": NaN},
        {"asked_at": "2026-03-01T10:00:00Z", "distance": 1, "vehicel": "van"}]}"""
    reply = service.http.post(PREDICT, content=body)
    assert reply.status_code == 422
    assert reply.json()["error"]["faults"] == [
        {
            "row": 0,
            "field": "distance",
            "what": "is NaN",
            "hint": "it is required: give it a finite number",
        },
        {"row": 1, "field": "vehicel", "what": "unknown field", "hint": "did you mean 'vehicle'?"},
    ]
    assert service.spool.kept == []


def test_a_fault_of_ours_has_the_same_shape(
    serving: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen failure is a 500 in the usual shape, and nothing is answered."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    monkeypatch.setattr(service.spool, "kept", None)
    reply = service.http.post(PREDICT, json=ROW)
    assert reply.status_code == 500
    assert schema.Refusal.model_validate(reply.json()).error.what == (
        "the service failed: AttributeError"
    )
    assert counted(service.http, "driftloop_requests_total", status="500") == 1


def test_labels_are_accepted(serving: Any, made: Any, clock: Any) -> None:
    """Labels are written to the spool, also for a model that has no champion."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    reply = service.http.post(
        "/v1/models/churn-uk/labels",
        json={"labels": [{"id": "a", "value": 1}, {"id": "b", "value": 0}]},
    )
    assert (reply.status_code, reply.json()) == (202, {"accepted": 2})
    schema.Accepted.model_validate(reply.json())
    told = [(each.id, each.model, each.value, each.observed_at) for each in service.spool.told]
    assert told == [("a", "churn-uk", 1.0, clock.now()), ("b", "churn-uk", 0.0, clock.now())]


def test_the_fleet_is_listed(serving: Any, made: Any) -> None:
    """Every model is listed, those without a champion with nulls; alive and ready."""
    service = serving(made["ten"].head("eta-de", epoch=4, version=3))
    shown = schema.Champions.model_validate(service.http.get("/v1/models").json()).models
    assert [(each.model, each.version, each.epoch) for each in shown] == [
        ("churn-uk", None, None),
        ("eta-de", 3, 4),
        ("eta-fr", None, None),
    ]
    assert shown[1].digest == made["ten"].digest
    schema.Alive.model_validate(service.http.get("/healthz").json())
    ready = schema.Readiness.model_validate(service.http.get("/readyz").json())
    assert ready.without_champion == ["churn-uk", "eta-fr"]


def test_not_ready_until_the_heads_were_read(serving: Any, until: Any) -> None:
    """Until the heads could be read once, the service is alive but not ready."""
    service = serving(ready=False)
    until(lambda: service.http.get("/healthz").status_code == 200)
    assert service.http.get("/readyz").status_code == 503
    assert service.http.get("/readyz").json()["ready"] is False
    service.ledger.broken = False
    until(lambda: service.http.get("/readyz").status_code == 200)


def test_metrics_count_what_happened(serving: Any, made: Any) -> None:
    """Prometheus' own parser reads /metrics, and the counts are those of the requests made."""
    service = serving(made["ten"].head("eta-de", epoch=7, version=5))
    http = service.http
    for _ in range(3):
        http.post(PREDICT, json={"rows": [{**ROW, "id": "a"}, {**ROW, "id": "b"}]})
    http.post(PREDICT, content=b"x")
    http.post("/v1/models/made-up/predict", json=ROW)
    requests = {"route": "predict"}
    assert counted(http, "driftloop_requests_total", **requests, model="eta-de", status="200") == 3
    assert counted(http, "driftloop_requests_total", **requests, model="eta-de", status="400") == 1
    assert counted(http, "driftloop_requests_total", **requests, model="", status="404") == 1
    assert "made-up" not in http.get("/metrics").text
    assert counted(http, "driftloop_rows_total", model="eta-de") == 6
    assert counted(http, "driftloop_head_epoch", model="eta-de") == 7
    assert counted(http, "driftloop_head_version", model="eta-de") == 5
    assert counted(http, "driftloop_request_seconds_count", route="predict") == 5
    assert counted(http, "driftloop_request_seconds_bucket", route="predict", le="+Inf") == 5


def test_openapi_tells_every_route_field_and_example(serving: Any, made: Any) -> None:
    """OpenAPI lists the routes and each family's fields, and its examples are answered."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    shown = service.http.get("/openapi.json").json()
    assert set(shown["paths"]) == {
        "/v1/models/{model}/predict",
        "/v1/models/{model}/labels",
        "/v1/models/{model}/predictions/{id}",
        "/v1/models",
        "/v1/service",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    predict = shown["paths"]["/v1/models/{model}/predict"]["post"]
    assert "- `distance`: number, usually 0 to 5000, required" in predict["description"]
    assert set(predict["responses"]) >= {"200", "400", "404", "413", "422", "503"}
    assert predict["responses"]["422"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Refusal"
    }
    examples = predict["requestBody"]["content"]["application/json"]["examples"]
    assert service.http.post(PREDICT, json=examples["eta"]["value"]).status_code == 200


def test_docs_need_no_network_and_their_commands_work(serving: Any, made: Any) -> None:
    """/docs names every path, fetches nothing from elsewhere, and its commands are answered."""
    service = serving(made["ten"].head("eta-de", epoch=1), made["churn"].head("churn-uk", epoch=1))
    reply = service.http.get("/docs")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    described = service.http.get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert f"<code>{method.upper()} {path}</code>" in reply.text
            assert operation["summary"] in unescape(reply.text)
            assert operation.get("description", "") in unescape(reply.text)
    assert re.findall(r"(?:src|href)=[\"']?([^\"'>]*)", reply.text) == ["openapi.json"]
    assert not re.search(r"<script|@import|url\(", reply.text)
    commands = [
        shlex.split(unescape(each))
        for each in re.findall(r"<pre>(.*?)</pre>", reply.text, re.DOTALL)
    ]
    posted = [command for command in commands if "-d" in command]
    assert (len(commands), len(posted)) == (9, 3)
    for _, url, *options in commands:
        if "{" in url:  # which id a batch has answered is anybody's guess
            continue
        body = options[options.index("-d") + 1] if options else None
        answer = service.http.request("POST" if body else "GET", url, content=body)
        assert answer.is_success, (url, answer.text)


def test_docs_escape_what_they_show() -> None:
    """What a description, an example or the caller's Host says cannot become markup."""
    mark = "<script>'&\""
    example = {"summary": mark, "value": {mark: mark}, "x-model": mark}
    operation = {
        "summary": mark,
        "description": mark,
        "requestBody": {"content": {"application/json": {"examples": {mark: example}}}},
    }
    described = {
        "info": {"title": mark, "summary": mark},
        "paths": {f"/{mark}/{{model}}": {"post": operation, "get": {}}},
    }
    page = docs_page(described, base=f"http://{mark}")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10


def test_stopping_closes_the_spool(serving: Any, made: Any) -> None:
    """When the service stops, what closes the spool is called, and not before."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    assert not service.spool.closed
    service.stop()
    assert service.spool.closed


def test_the_last_minutes_are_told(serving: Any, made: Any, until: Any, tmp_path: Path) -> None:
    """/v1/service counts what the service is to blame for, and nothing that it is not."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    http = service.http
    assert http.get("/v1/service").json()["error_rate"] is None
    for _ in range(3):
        assert http.post(PREDICT, json=ROW).status_code == 200
    assert http.post(PREDICT, content=b"x").status_code == 400
    assert http.post("/v1/models/eta-fr/predict", json=ROW).status_code == 503
    assert http.post("/v1/models/eta-es/predict", json=ROW).status_code == 404
    shown = schema.Recently.model_validate(http.get("/v1/service").json())
    assert (shown.requests, shown.errors, shown.error_rate) == (6, 0, 0.0)
    assert {name: each.requests for name, each in shown.models.items()} == {
        "eta-de": 4,
        "eta-fr": 1,
    }
    assert 0 < shown.seconds < 60
    assert shown.p50_ms is not None
    assert shown.p99_ms is not None
    assert 0 < shown.p50_ms <= shown.p99_ms < 10_000
    service.spool.broken = True
    assert http.post(PREDICT, json=ROW).status_code == 503
    service.spool.broken = False
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(b"damaged")
    head = replace(made["twenty"].head("eta-fr", epoch=2), artifact=str(damaged))
    service.ledger.now = (*service.ledger.now, head)
    until(lambda: http.get("/v1/service").json()["refused"])
    assert http.post("/v1/models/eta-fr/predict", json=ROW).status_code == 503
    service.ledger.broken = True
    until(lambda: http.get("/v1/service").json()["poll_failures"])
    shown = schema.Recently.model_validate(http.get("/v1/service").json())
    assert (shown.requests, shown.errors, shown.error_rate) == (8, 2, 0.25)
    assert {name: each.errors for name, each in shown.models.items()} == {"eta-de": 1, "eta-fr": 1}
    assert [(each.model, each.version) for each in shown.refused] == [("eta-fr", 2)]


@pytest.mark.parametrize(
    ("given", "back"),
    [("job-7/row:3", "job-7/row:3"), ("x" * 129, None), ("a b", None), ("<script>", None)],
)
def test_a_request_id_comes_back(serving: Any, made: Any, given: str, back: str | None) -> None:
    """A usable X-Request-Id is given back with answers and refusals; any other is passed over."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    for path, body in (
        (PREDICT, ROW),
        (PREDICT, {}),
        ("/v1/models/eta-es/predict", ROW),
        ("/v1/models/eta-de/labels", {"id": "a", "value": 1}),
    ):
        reply = service.http.post(path, json=body, headers={"X-Request-Id": given})
        assert reply.headers.get("X-Request-Id") == back
        assert "X-Request-Id" not in service.http.post(path, json=body).headers


def test_what_failed_is_logged_with_its_request_id(
    serving: Any, made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A 5xx leaves a record that has the caller's request id as its trace; a 4xx leaves none."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    service.spool.broken = True
    service.http.post(PREDICT, json=ROW, headers={"X-Request-Id": "r-1"})
    service.http.post(PREDICT, json={}, headers={"X-Request-Id": "r-2"})
    service.spool.kept, service.spool.broken = None, False
    service.http.post(PREDICT, json=ROW, headers={"X-Request-Id": "r-3"})
    service.http.post(PREDICT, json=ROW)
    told = [
        (each.__dict__["trace"], each.levelname, each.exc_info is not None)
        for each in caplog.records
        if "trace" in each.__dict__
    ]
    assert told == [("r-1", "ERROR", False), ("r-3", "ERROR", True), (None, "ERROR", True)]
    assert "no space left on device" in caplog.text


def test_a_caller_that_hangs_up_is_counted_apart(serving: Any, made: Any, until: Any) -> None:
    """A connection that ends before its body does is a 499, logs nothing and blames nobody."""
    service = serving(made["ten"].head("eta-de", epoch=1))
    url = service.http.base_url
    with socket.create_connection((url.host, url.port)) as caller:
        caller.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        time.sleep(0.1)
    until(lambda: counted(service.http, "driftloop_requests_total", status="499") == 1)
    assert service.http.get("/v1/service").json()["requests"] == 0
    assert service.spool.kept == []
