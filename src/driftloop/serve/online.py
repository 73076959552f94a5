"""The fleet over HTTP: rows in, answers out, and every answer logged before it is given."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse

from driftloop.errors import BadRequest, DriftloopError, LogError, UnknownModel
from driftloop.ports import Clock, Spool
from driftloop.records import Head
from driftloop.serve import schema
from driftloop.serve.answer import answer
from driftloop.serve.docs import docs_page
from driftloop.serve.metrics import Metrics
from driftloop.serve.request import BadRows, NotJson, parse_labels, parse_rows
from driftloop.serve.slot import NoChampion, Slots
from driftloop.spec import Fleet

MOST_BYTES = 32 * 1024 * 1024
"""The largest body that is read."""
INLINE_BYTES = 32 * 1024
"""A larger body, of some hundred rows, is worked on in a thread so that others need not wait."""

UNAVAILABLE = 503
GONE = 499
"""nginx's status for a caller that hung up; nobody reads it but the metrics."""

_log = logging.getLogger(__name__)


class TooLarge(BadRequest):
    """The body is larger than `MOST_BYTES`."""


class NotLogged(LogError):
    """The spool took nothing, so nothing was answered."""


def online_app(
    *,
    fleet: Fleet,
    slots: Slots,
    spool: Spool,
    clock: Clock,
    heads: Callable[[], Sequence[Head]],
    poll_every: float,
    closing: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Return the online service of `fleet`.

    Args:
        fleet: the models that are answered for.
        slots: where their champions are held; refreshed here, from one thread.
        spool: what every prediction and label is written to before it is answered; it is called
            from several threads.
        clock: the time of predictions, and of labels that do not say when they were observed.
        heads: reads the champions; called in a thread every `poll_every` seconds.
        poll_every: seconds of wall time.
        closing: called once no request runs any more; seals the spool.
    """
    service = _Service(slots=slots, spool=spool, clock=clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(_poll(service, heads, poll_every))
        try:
            yield
        finally:
            polling.cancel()
            await asyncio.wait([polling])
            await asyncio.to_thread(closing)

    app = FastAPI(
        title="driftloop",
        summary="Predictions and labels of a fleet of models",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _no_such_page, Exception: _unexpected},
    )
    _add_routes(app, service, fleet)
    return app


class _Direct(APIRoute):
    """A route that hands over the request as it came: bodies are parsed by `request`, not here.

    FastAPI still draws the OpenAPI page from the endpoint's signature; solving its parameters as
    dependencies would cost more than the model's answer.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what calls the endpoint with the path's parameters and, if it reads, a body."""
        endpoint: Any = self.endpoint
        reads = "POST" in (self.methods or ())

        async def handle(request: Request) -> Response:
            given = {"request": request} if reads else {}
            response: Response = await endpoint(**request.path_params, **given)
            return response

        return handle


class _Service:
    """What the routes do; `refresh` runs in a thread of its own, the rest on the loop."""

    def __init__(self, *, slots: Slots, spool: Spool, clock: Clock) -> None:
        self._slots = slots
        self._spool = spool
        self._clock = clock
        self._ready = False
        self.metrics = Metrics()

    def refresh(self, heads: Callable[[], Sequence[Head]]) -> None:
        """Read the heads and take up what is new."""
        taken, refused = self._slots.refresh(heads())
        self.metrics.refreshed(taken, [failure.head for failure in refused])
        self._ready = True

    async def predict(self, model: str, request: Request) -> Response:
        return await self._timed("predict", model, request, self._predict)

    async def label(self, model: str, request: Request) -> Response:
        return await self._timed("labels", model, request, self._label)

    async def models(self) -> Response:
        held = [(slot, slot.held) for slot in self._slots.all()]
        shown = [
            {
                "model": slot.model,
                "family": slot.family.name,
                "version": each.head.version if each else None,
                "epoch": each.head.epoch if each else None,
                "digest": each.head.digest if each else None,
            }
            for slot, each in held
        ]
        return _json(200, {"models": shown})

    async def healthz(self) -> Response:
        return _json(200, {"status": "alive"})

    async def readyz(self) -> Response:
        refused = [
            {
                "model": failure.head.model,
                "version": failure.head.version,
                "digest": failure.head.digest,
                "error": str(failure.error),
            }
            for failure in self._slots.failures.values()
        ]
        empty = [slot for slot in self._slots.all() if slot.held is None]
        damaged = [slot.model for slot in empty if slot.refused is not None]
        # One damaged model is no reason to take the others away from whoever balances the load.
        shown = {
            "ready": self._ready,
            "without_champion": [slot.model for slot in empty if slot.model not in damaged],
            "only_refused_champion": damaged,
            "refused": refused,
        }
        return _json(200 if self._ready else UNAVAILABLE, shown)

    async def measured(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _timed(
        self, route: str, model: str, request: Request, work: Callable[[str, bytes], Response]
    ) -> Response:
        began = time.perf_counter()
        response = await _answered(model, request, work)
        known = model if self._slots.knows(model) else ""
        self.metrics.request(route, known, response.status_code, time.perf_counter() - began)
        return response

    def _predict(self, model: str, body: bytes) -> Response:
        slot = self._slots.slot(model)
        held = slot.hand()
        rows = parse_rows(slot.family, body)
        predictions = answer(held, slot.family, rows, now=self._clock.now())
        self._keep(self._spool.predictions, slot.family.name, predictions)
        self.metrics.rows(model, len(rows))
        shown = {
            "model": model,
            "version": held.head.version,
            "epoch": held.head.epoch,
            "predictions": [{"id": p.id, "prediction": p.prediction} for p in predictions],
        }
        return _json(200, shown)

    def _label(self, model: str, body: bytes) -> Response:
        slot = self._slots.slot(model)
        labels = parse_labels(slot.family, slot.model, body, now=self._clock.now())
        self._keep(self._spool.labels, slot.family.name, labels)
        self.metrics.labels(model, len(labels))
        return _json(202, {"accepted": len(labels)})

    def _keep(self, write: Callable[[str, Any], None], family: str, rows: Sequence[Any]) -> None:
        try:
            write(family, rows)
        except (LogError, OSError) as error:
            _log.exception("the spool did not take %d rows of %s", len(rows), family)
            raise NotLogged(
                f"the rows could not be written to the prediction log: {error}",
                where=family,
                hint="nothing was answered; send the request again later",
            ) from error


async def _poll(service: _Service, heads: Callable[[], Sequence[Head]], poll_every: float) -> None:
    """Refresh for ever, in one thread of its own so that busy request threads cannot delay it."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="heads") as thread:
        while True:
            try:
                await loop.run_in_executor(thread, service.refresh, heads)
            except Exception:  # noqa: BLE001 - a poll that died would freeze every champion without a word
                service.metrics.poll_failed()
                _log.exception("the heads could not be read; the champions in hand keep answering")
            await asyncio.sleep(poll_every)


async def _answered(
    model: str, request: Request, work: Callable[[str, bytes], Response]
) -> Response:
    try:
        body = await _body(request)
        if len(body) <= INLINE_BYTES:
            return work(model, body)
        return await asyncio.to_thread(work, model, body)
    except DriftloopError as error:
        return _refusal(error)
    except ClientDisconnect:
        return Response(status_code=GONE)
    except Exception as error:  # noqa: BLE001 - else uvicorn closes the connection, and a next request on it fails
        _log.exception("a request for %s failed", model[:100])
        return await _unexpected(request, error)


async def _body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MOST_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def _too_large() -> TooLarge:
    return TooLarge(
        f"the body is larger than {MOST_BYTES // 1024 // 1024} MiB",
        where="request",
        hint="send fewer rows at a time, or use predict-batch",
    )


def _json(status: int, shown: object) -> Response:
    return Response(msgspec.json.encode(shown), status, media_type="application/json")


def _status(error: DriftloopError) -> int:
    """Return the HTTP status of `error`.

    A model without a champion is 503, not 409: the request is right, and the same request will be
    answered once the model's first training is done, or its refused champion is mended.
    """
    statuses = (
        (NoChampion, UNAVAILABLE),
        (NotLogged, UNAVAILABLE),
        (UnknownModel, 404),
        (TooLarge, 413),
        (NotJson, 400),
        (BadRequest, 422),
    )
    return next((status for kind, status in statuses if isinstance(error, kind)), 500)


def _refusal(error: DriftloopError, status: int | None = None) -> Response:
    status = status or _status(error)
    faults = error.faults if isinstance(error, BadRows) else ()
    told = {"what": error.what, "where": error.where, "hint": error.hint, "faults": faults}
    response = _json(status, {"error": told})
    if status == UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    return response


async def _no_such_page(_: Request, error: Exception) -> Response:
    """Return starlette's own refusals (404, 405) in our shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = error.detail if isinstance(error, HTTPException) else str(error)
    response = _refusal(DriftloopError(what, hint="see /openapi.json"), status)
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response


async def _unexpected(_: Request, error: Exception) -> Response:
    """Return what the caller is told of a fault of ours; the log has its traceback."""
    return _refusal(DriftloopError(f"the service failed: {type(error).__name__}"), 500)


def _add_routes(app: FastAPI, service: _Service, fleet: Fleet) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": schema.Refusal, "description": "The body is not JSON"},
        404: {"model": schema.Refusal, "description": "No monitor declares the model"},
        413: {"model": schema.Refusal, "description": "The body is larger than 32 MiB"},
        422: {"model": schema.Refusal, "description": "Fields cannot be used; all are named"},
        503: {"model": schema.Refusal, "description": "No champion in hand, or no log to write to"},
    }
    app.router.route_class = _Direct
    post, get = app.post, app.get
    post(
        "/v1/models/{model}/predict",
        summary="Predict",
        description=schema.rows_described(fleet),
        response_model=None,
        responses={200: {"model": schema.Answer}, **refusals},
        openapi_extra=schema.rows_body(fleet),
    )(service.predict)
    post(
        "/v1/models/{model}/labels",
        summary="Tell the true outcomes",
        description="A label that comes again corrects the one before it.",
        status_code=202,
        response_model=None,
        responses={202: {"model": schema.Accepted}, **refusals},
        openapi_extra=schema.labels_body(fleet),
    )(service.label)
    unready: dict[int | str, dict[str, Any]] = {
        503: {"model": schema.Readiness, "description": "Not ready; the body says why"}
    }
    for path, does, shape, summary in (
        ("/v1/models", service.models, schema.Champions, "The fleet and its champions"),
        ("/healthz", service.healthz, schema.Alive, "Whether the process answers"),
        (
            "/readyz",
            service.readyz,
            schema.Readiness,
            "Whether every champion that there is can answer",
        ),
    ):
        responses: dict[int | str, dict[str, Any]] = {200: {"model": shape}}
        if path == "/readyz":
            responses |= unready
        get(path, summary=summary, response_model=None, responses=responses)(does)
    get("/metrics", summary="Counters for Prometheus", response_model=None)(service.measured)

    async def docs(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        return HTMLResponse(docs_page(app.openapi(), base=base))

    app.add_route("/docs", docs, include_in_schema=False)
