"""The fleet over HTTP: rows in, answers out, and every answer logged before it is given.

FastAPI describes every route and answers most. Predictions and labels are answered before it sees
them, by the same functions: its routing alone would cost as much as all the rest of an answer.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from driftloop.errors import BadRequest, DriftloopError
from driftloop.records import Head
from driftloop.serve import schema
from driftloop.serve.docs import docs_page
from driftloop.serve.exchange import (
    UNAVAILABLE,
    Asked,
    Reply,
    failure,
    refusal,
    send_reply,
    told,
)
from driftloop.serve.metrics import exposition
from driftloop.serve.peers import RefusedHead, Shown, oldest_heads
from driftloop.serve.recent import recently
from driftloop.serve.retrieval import Published, nothing_published, retrieve
from driftloop.serve.service import Service
from driftloop.serve.sources import Sources
from driftloop.serve.tokens import OPEN, Guard
from driftloop.spec import Fleet

SHOW_EVERY = 2.0
"""Seconds after which a worker shows the others anew what it counted."""
FIRST_LOOK = 5.0
"""Seconds that nothing is accepted for at a start, at most, until the heads were read once."""

_NOTHING_ASKED = Asked()
_POSTED = re.compile(r"/v1/(?:models/([^/]+)/(predict|labels)|(events)/([^/]+))")
_log = logging.getLogger(__name__)


def online_app(
    service: Service,
    *,
    heads: Callable[[], Sequence[Head]],
    poll_every: float,
    closing: Callable[[], None] = lambda: None,
    guard: Guard | None = None,
    answers: Published = nothing_published,
) -> FastAPI:
    """Return the online service as an ASGI application.

    Args:
        service: what answers.
        heads: reads the champions; called in a thread every `poll_every` seconds.
        poll_every: seconds of wall time.
        closing: called once no request runs any more; seals the spool.
        guard: lets those pass who may ask; without one, everybody may.
        answers: what batches have published; called from several threads.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        looked = asyncio.Event()
        tasks = [
            asyncio.create_task(_poll(service, heads, poll_every, looked, guard)),
            asyncio.create_task(_show(service)),
        ]
        # Whoever takes a dead worker's place must not refuse what the others answer.
        await asyncio.wait([asyncio.create_task(looked.wait())], timeout=FIRST_LOOK)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.to_thread(service.close)
            await asyncio.to_thread(closing)
            service.peers.show(service.shown())

    app = _Front(
        service,
        guard,
        title="driftloop",
        summary="Predictions and labels of a fleet of models",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            HTTPException: _no_such_page,
            BadRequest: _unusable,
            Exception: _unexpected,
        },
    )
    _add_routes(app, service, answers)
    return app


class _Front(FastAPI):
    """FastAPI, but rows and labels that are posted are answered without it."""

    def __init__(
        self,
        service: Service,
        guard: Guard | None,
        **options: Any,  # noqa: ANN401 - FastAPI's
    ) -> None:
        super().__init__(**options)
        self._service = service
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if self._guard is not None and scope["type"] != "lifespan":
            refused = self._guard.refused(scope["method"], scope["path"], scope["headers"])
            if refused is not None:
                await send_reply(refused, Asked.of(scope["headers"]), send)
                return
        posted = scope["type"] == "http" and scope["method"] == "POST"
        found = _POSTED.fullmatch(scope["path"]) if posted else None
        if found is None:
            await super().__call__(scope, receive, send)
            return
        try:
            asked = Asked.of(scope["headers"], scope["query_string"])
        except BadRequest as error:
            asked, reply = _NOTHING_ASKED, refusal(error)
        else:
            route, name = found[2] or found[3], found[1] or found[4]
            reply = await self._service.post(route, name, asked, receive)
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


class _Views:
    """What is told of the service; what counts is that of all its workers."""

    def __init__(self, service: Service, answers: Published) -> None:
        self._service = service
        self._answers = answers
        self._slots = service.slots

    async def predict(self, model: str, request: Request) -> Response:
        return await self._through("predict", model, request)

    async def label(self, model: str, request: Request) -> Response:
        return await self._through("labels", model, request)

    async def retrieved(self, model: str, id: str) -> Response:  # noqa: A002 - the path's name
        try:
            slot = self._slots.slot(model)
            reply = await asyncio.to_thread(retrieve, slot, self._answers, id)
        except DriftloopError as error:
            reply = refusal(error)
        return _response(reply)

    async def events(self, source: str, request: Request) -> Response:
        return await self._through("events", source, request)

    async def models(self) -> Response:
        heads = oldest_heads(self._shown())
        shown = [
            {
                "model": slot.model,
                "family": slot.family.name,
                "task": slot.family.task,
                "classes": slot.family.classes or None,
                "version": head.version if head else None,
                "epoch": head.epoch if head else None,
                "digest": head.digest if head else None,
            }
            for slot in self._slots.all()
            for head in (heads.get(slot.model),)
        ]
        return _response(told(200, {"models": shown}))

    async def healthz(self) -> Response:
        return _response(told(200, {"status": "alive"}))

    async def recent(self) -> Response:
        lately = recently([each.lately for each in self._shown()])
        return _response(told(200, {**lately, "refused": self._refused()}))

    async def readyz(self) -> Response:
        empty = [slot for slot in self._slots.all() if slot.head is None]
        damaged = [slot.model for slot in empty if slot.refused is not None]
        # One damaged model is no reason to take the others away from whoever balances the load;
        # one that answers for none is.
        ready = self._service.ready and not (damaged and len(empty) == len(self._slots.all()))
        shown = {
            "ready": ready,
            "without_champion": [slot.model for slot in empty if slot.model not in damaged],
            "only_refused_champion": damaged,
            "refused": self._refused(),
        }
        return _response(told(200 if ready else UNAVAILABLE, shown))

    async def measured(self) -> Response:
        shown = self._shown()
        text = exposition([each.counts for each in shown], oldest_heads(shown).values())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _through(self, route: str, model: str, request: Request) -> Response:
        asked = Asked.of(request.scope["headers"], request.scope["query_string"])
        return _response(await self._service.post(route, model, asked, request.receive), asked)

    def _shown(self) -> list[Shown]:
        return [self._service.shown(), *self._service.peers.others()]

    def _refused(self) -> list[RefusedHead]:
        """Return what a worker refused; several refuse the same."""
        found = {
            (each.model, each.version): each for all_ in self._shown() for each in all_.refused
        }
        return list(found.values())


async def _poll(
    service: Service,
    heads: Callable[[], Sequence[Head]],
    poll_every: float,
    looked: asyncio.Event,
    guard: Guard | None,
) -> None:
    """Refresh for ever, in one thread of its own so that busy request threads cannot delay it."""
    loop = asyncio.get_running_loop()

    def refresh() -> None:
        if guard is not None:
            guard.refresh()
        service.refresh(heads, within=poll_every)

    with ThreadPoolExecutor(1, thread_name_prefix="heads") as thread:
        while True:
            try:
                await loop.run_in_executor(thread, refresh)
            except Exception:  # noqa: BLE001 - a poll that died would freeze every champion without a word
                service.poll_failed()
                _log.exception("the heads could not be read; the champions in hand keep answering")
            looked.set()
            await asyncio.sleep(poll_every)


async def _show(service: Service) -> None:
    while True:
        service.peers.show(service.shown())
        await asyncio.sleep(SHOW_EVERY)


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


async def _unusable(_: Request, error: Exception) -> Response:
    """Return what the caller is told of a mistake beside the body."""
    return _response(refusal(error) if isinstance(error, DriftloopError) else failure(error))


async def _unexpected(_: Request, error: Exception) -> Response:
    """Return what the caller is told of a fault of ours; the log has its traceback."""
    return _response(failure(error))


def _add_routes(app: FastAPI, service: Service, answers: Published) -> None:
    views, fleet, bounds = _Views(service, answers), service.fleet, service.bounds
    largest = f"The body is larger than {bounds.body // 1024 // 1024} MiB"
    barred: dict[int | str, dict[str, Any]] = {
        401: {"model": schema.Refusal, "description": "A token is needed, and none that is known"},
        403: {"model": schema.Refusal, "description": "The token is not good for this"},
    }
    refusals: dict[int | str, dict[str, Any]] = {
        **barred,
        400: {"model": schema.Refusal, "description": "The body is not JSON"},
        404: {"model": schema.Refusal, "description": "No monitor declares it"},
        408: {"model": schema.Refusal, "description": "The body did not come in time"},
        413: {"model": schema.Refusal, "description": largest},
        415: {"model": schema.Refusal, "description": "The body is compressed"},
        422: {"model": schema.Refusal, "description": "Fields cannot be used; all are named"},
        429: {"model": schema.Refusal, "description": "As much as is taken on is under way"},
        503: {
            "model": schema.Refusal,
            "description": "No champion, no log to write to, or nothing to look up in",
        },
        504: {"model": schema.Refusal, "description": "The answer was not there in time"},
    }
    app.router.route_class = _Direct
    post, get = app.post, app.get
    post(
        "/v1/models/{model}/predict",
        summary="Predict",
        description=schema.rows_described(fleet),
        response_model=None,
        responses={200: {"model": schema.Answer}, **refusals},
        openapi_extra=schema.rows_body(fleet) | schema.PARAMETERS,
    )(views.predict)
    post(
        "/v1/models/{model}/labels",
        summary="Tell the true outcomes",
        description=schema.LABELS_SAID,
        status_code=202,
        response_model=None,
        responses={202: {"model": schema.Accepted}, **refusals},
        openapi_extra=schema.labels_body(fleet),
    )(views.label)
    get(
        "/v1/models/{model}/predictions/{id:path}",
        summary="What a batch answered",
        description="The newest answer to an id, of a batch that published its answers.",
        response_model=None,
        responses={
            200: {"model": schema.Retrieved},
            **barred,
            404: {"model": schema.Refusal, "description": "No such model, or no answer to the id"},
            500: {"model": schema.Refusal, "description": "The answers cannot be read"},
        },
    )(views.retrieved)
    if service.sources is not None:
        _add_source_routes(app, views, service.sources, fleet, refusals)
    unready: dict[int | str, dict[str, Any]] = {
        503: {"model": schema.Readiness, "description": "Not ready; the body says why"}
    }
    for path, does, shape, summary in (
        ("/v1/models", views.models, schema.Champions, "The fleet and its champions"),
        ("/v1/service", views.recent, schema.Recently, "How the last five minutes went"),
        ("/healthz", views.healthz, schema.Alive, "Whether the process answers"),
        (
            "/readyz",
            views.readyz,
            schema.Readiness,
            "Whether every champion that there is can answer",
        ),
    ):
        responses: dict[int | str, dict[str, Any]] = {200: {"model": shape}}
        if path not in OPEN:
            responses |= barred
        if path == "/readyz":
            responses |= unready
        get(path, summary=summary, response_model=None, responses=responses)(does)
    get(
        "/metrics",
        summary="Counters for Prometheus",
        response_model=None,
        # With a class that has a type of its own, refusals would be described in that type.
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **barred},
    )(views.measured)

    async def docs(request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        return HTMLResponse(docs_page(app.openapi(), base=base))

    app.add_route("/docs", docs, include_in_schema=False)


def _add_source_routes(
    app: FastAPI,
    views: _Views,
    sources: Sources,
    fleet: Fleet,
    refusals: dict[int | str, dict[str, Any]],
) -> None:
    async def held(source: str, key: str) -> Response:
        try:
            return _response(sources.show(source, key))
        except DriftloopError as error:
            return _response(refusal(error))

    app.post(
        "/v1/events/{source}",
        summary="Tell what happened",
        description=schema.EVENTS_SAID,
        status_code=202,
        response_model=None,
        responses={202: {"model": schema.Taken}, **refusals},
        openapi_extra=schema.events_body(fleet.sources),
    )(views.events)
    shapes: dict[int | str, dict[str, Any]] = {
        200: {"model": schema.HeldOfEvents | schema.HeldOfTable}
    }
    app.get(
        "/v1/features/{source}/{key:path}",
        summary="What the online store holds of a key, and how old it is",
        response_model=None,
        responses=shapes | {code: refusals[code] for code in (404, 503)},
    )(held)
