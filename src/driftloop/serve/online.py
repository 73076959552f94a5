"""The fleet over HTTP: rows in, answers out, and every answer logged before it is given.

FastAPI describes every route and answers most. Predictions and labels are answered before it sees
them, by the same functions: its routing alone would cost as much as all the rest of an answer.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from driftloop.errors import DriftloopError, LogError
from driftloop.ports import Clock, Spool
from driftloop.records import Head
from driftloop.serve import schema
from driftloop.serve.answer import answer
from driftloop.serve.docs import docs_page
from driftloop.serve.exchange import (
    GONE,
    UNAVAILABLE,
    Asked,
    HungUp,
    NotLogged,
    Reply,
    TooLarge,
    failure,
    read_body,
    refusal,
    send_reply,
    told,
)
from driftloop.serve.metrics import Metrics
from driftloop.serve.recent import Recent
from driftloop.serve.request import RowReader, parse_labels
from driftloop.serve.slot import Slots
from driftloop.spec import Fleet

INLINE_BYTES = 32 * 1024
"""A larger body, of some hundred rows, is worked on in a thread so that others need not wait."""

_NOTHING_ASKED = Asked(0, None)
_POSTED = re.compile(r"/v1/models/([^/]+)/(predict|labels)")
_log = logging.getLogger(__name__)


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
    service = _Service(fleet=fleet, slots=slots, spool=spool, clock=clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(_poll(service, heads, poll_every))
        try:
            yield
        finally:
            polling.cancel()
            await asyncio.wait([polling])
            await asyncio.to_thread(closing)

    app = _Front(
        service,
        title="driftloop",
        summary="Predictions and labels of a fleet of models",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _no_such_page, Exception: _unexpected},
    )
    _add_routes(app, service, fleet)
    return app


class _Front(FastAPI):
    """FastAPI, but rows and labels that are posted are answered without it."""

    def __init__(self, service: "_Service", **options: Any) -> None:  # noqa: ANN401 - FastAPI's
        super().__init__(**options)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        posted = scope["type"] == "http" and scope["method"] == "POST"
        found = _POSTED.fullmatch(scope["path"]) if posted else None
        if found is None:
            await super().__call__(scope, receive, send)
            return
        asked = Asked.of(scope["headers"])
        reply = await self._service.post(found[2], found[1], asked, receive)
        await send_reply(reply, asked, send)


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

    def __init__(self, *, fleet: Fleet, slots: Slots, spool: Spool, clock: Clock) -> None:
        self._slots = slots
        self._spool = spool
        self._clock = clock
        self._readers = {family.name: RowReader(family) for family in fleet.families}
        self._work = {"predict": self._predict, "labels": self._label}
        self._waiting: dict[str, list[tuple[bytes, asyncio.Future[Reply]]]] = {}
        self._ready = False
        self._recent = Recent()
        self.metrics = Metrics()

    def refresh(self, heads: Callable[[], Sequence[Head]]) -> None:
        """Read the heads and take up what is new."""
        taken, refused = self._slots.refresh(heads())
        self.metrics.refreshed(taken, [failure.head for failure in refused])
        self._ready = True

    def poll_failed(self) -> None:
        """Count a poll that could not read the heads."""
        self.metrics.poll_failed()
        self._recent.poll_failed()

    async def post(self, route: str, model: str, asked: Asked, receive: Receive) -> Reply:
        """Return the reply to rows ("predict") or labels of `model`, counted, and told if bad."""
        began = time.perf_counter()
        try:
            body = await read_body(asked, receive)
        except HungUp:
            reply, whole = Reply(GONE, b""), began
        except TooLarge as error:
            reply, whole = refusal(error), time.perf_counter()
        else:
            whole = time.perf_counter()
            reply = await self._answered(route, model, asked, body)
        done = time.perf_counter()
        known = model if self._slots.knows(model) else ""
        self.metrics.request(route, known, reply.status, done - began)
        if reply.status != GONE:
            # A caller that sends slowly makes no slow service.
            self._recent.answered(known, done - whole, failed=reply.failed)
        return reply

    async def predict(self, model: str, request: Request) -> Response:
        return await self._through("predict", model, request)

    async def label(self, model: str, request: Request) -> Response:
        return await self._through("labels", model, request)

    async def models(self) -> Response:
        held = [(slot, slot.held) for slot in self._slots.all()]
        shown = [
            {
                "model": slot.model,
                "family": slot.family.name,
                "task": slot.family.task,
                "classes": slot.family.classes or None,
                "version": each.head.version if each else None,
                "epoch": each.head.epoch if each else None,
                "digest": each.head.digest if each else None,
            }
            for slot, each in held
        ]
        return _response(told(200, {"models": shown}))

    async def healthz(self) -> Response:
        return _response(told(200, {"status": "alive"}))

    async def recent(self) -> Response:
        return _response(told(200, {**self._recent.shown(), "refused": self._refused()}))

    async def readyz(self) -> Response:
        empty = [slot for slot in self._slots.all() if slot.held is None]
        damaged = [slot.model for slot in empty if slot.refused is not None]
        # One damaged model is no reason to take the others away from whoever balances the load;
        # one that answers for none is.
        ready = self._ready and not (damaged and len(empty) == len(self._slots.all()))
        shown = {
            "ready": ready,
            "without_champion": [slot.model for slot in empty if slot.model not in damaged],
            "only_refused_champion": damaged,
            "refused": self._refused(),
        }
        return _response(told(200 if ready else UNAVAILABLE, shown))

    async def measured(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _through(self, route: str, model: str, request: Request) -> Response:
        asked = Asked.of(request.scope["headers"])
        return _response(await self.post(route, model, asked, request.receive), asked)

    async def _answered(self, route: str, model: str, asked: Asked, body: bytes) -> Reply:
        work = self._work[route]
        try:
            if len(body) > INLINE_BYTES:
                return await asyncio.to_thread(work, model, body)
            if route == "predict":
                return await self._together(model, body)
            return work(model, body)
        except DriftloopError as error:
            reply = refusal(error)
            if reply.failed:
                _log.error("a request for %s: %s", model[:100], error, extra={"trace": asked.trace})
            elif reply.status == UNAVAILABLE:
                _log.info("a request for %s: %s", model[:100], error, extra={"trace": asked.trace})
            return reply
        # Else uvicorn closes the connection, and a next request on it fails.
        except Exception as error:  # noqa: BLE001 - see above
            _log.exception("a request for %s failed", model[:100], extra={"trace": asked.trace})
            return failure(error)

    def _refused(self) -> list[dict[str, Any]]:
        return [
            {
                "model": each.head.model,
                "version": each.head.version,
                "digest": each.head.digest,
                "error": str(each.error),
            }
            for each in self._slots.failures.values()
        ]

    async def _together(self, model: str, body: bytes) -> Reply:
        """Have what asks for one model in one turn of the loop answered together: nobody waits.

        A model answers eight rows as quickly as one, and the spool takes them in one write.
        """
        self._slots.slot(model)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Reply] = loop.create_future()
        waiting = self._waiting.setdefault(model, [])
        if not waiting:
            loop.call_soon(self._answer_waiting, model)
        waiting.append((body, done))
        if sum(len(each) for each, _ in waiting) > INLINE_BYTES:
            self._answer_waiting(model)
        return await done

    def _answer_waiting(self, model: str) -> None:
        waiting = self._waiting.pop(model, [])
        if not waiting:
            return  # they were too many to wait for the end of the turn
        try:
            replies: list[Reply] = self._predict_all(model, [body for body, _ in waiting])
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            if len(waiting) == 1:
                _settle(waiting[0][1], error)
                return
            # Nothing is logged yet. One by one: a fault of one request is none of the others'.
            for each in waiting:
                self._waiting[model] = [each]
                self._answer_waiting(model)
        else:
            for (_, done), reply in zip(waiting, replies, strict=True):
                _settle(done, reply)

    def _predict(self, model: str, body: bytes) -> Reply:
        return self._predict_all(model, [body])[0]

    def _predict_all(self, model: str, bodies: Sequence[bytes]) -> list[Reply]:
        """Return the reply to each request, all by one version, once all their rows are logged."""
        slot = self._slots.slot(model)
        held = slot.hand()
        now = self._clock.now()
        read = self._readers[slot.family.name].read
        asked = [read(body, now=now) for body in bodies]
        rows = [row for each in asked for row in each]
        predictions = answer(held, slot.family, rows, now=now)
        self._keep(self._spool.predictions, slot.family.name, predictions)
        self.metrics.rows(model, len(rows))
        head, answers, shown = held.head, iter(predictions), slot.family.shown
        return [
            told(
                200,
                {
                    "model": model,
                    "version": head.version,
                    "epoch": head.epoch,
                    "predictions": [
                        {"id": p.id, "prediction": shown(p.prediction)}
                        for p in islice(answers, len(each))
                    ],
                },
            )
            for each in asked
        ]

    def _label(self, model: str, body: bytes) -> Reply:
        slot = self._slots.slot(model)
        labels = parse_labels(slot.family, slot.model, body, now=self._clock.now())
        self._keep(self._spool.labels, slot.family.name, labels)
        self.metrics.labels(model, len(labels))
        return told(202, {"accepted": len(labels)})

    def _keep(self, write: Callable[[str, Any], None], family: str, rows: Sequence[Any]) -> None:
        try:
            write(family, rows)
        except (LogError, OSError) as error:
            raise NotLogged(
                f"the rows could not be written to the prediction log: {error}",
                where=family,
                hint="nothing was answered; send the request again later",
            ) from error


def _settle(done: "asyncio.Future[Reply]", reply: Reply | Exception) -> None:
    """Give `reply` to who waits for it, if somebody still does."""
    if done.done():
        return
    if isinstance(reply, Reply):
        done.set_result(reply)
    else:
        done.set_exception(reply)


async def _poll(service: _Service, heads: Callable[[], Sequence[Head]], poll_every: float) -> None:
    """Refresh for ever, in one thread of its own so that busy request threads cannot delay it."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="heads") as thread:
        while True:
            try:
                await loop.run_in_executor(thread, service.refresh, heads)
            except Exception:  # noqa: BLE001 - a poll that died would freeze every champion without a word
                service.poll_failed()
                _log.exception("the heads could not be read; the champions in hand keep answering")
            await asyncio.sleep(poll_every)


def _response(reply: Reply, asked: Asked = _NOTHING_ASKED) -> Response:
    """Return `reply` as FastAPI gives it on."""
    response = Response(reply.body, reply.status)
    response.raw_headers = reply.headers(asked)
    return response


async def _no_such_page(_: Request, error: Exception) -> Response:
    """Return starlette's own refusals (404, 405) in our shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = error.detail if isinstance(error, HTTPException) else str(error)
    response = _response(refusal(DriftloopError(what, hint="see /openapi.json"), status))
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response


async def _unexpected(_: Request, error: Exception) -> Response:
    """Return what the caller is told of a fault of ours; the log has its traceback."""
    return _response(failure(error))


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
        description=schema.LABELS_SAID,
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
        ("/v1/service", service.recent, schema.Recently, "How the last five minutes went"),
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
