"""The fleet page, a page for each model, and Evidently's reports, over HTTP."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException

from dashboards import charts
from dashboards.facts import RowFacts, last_pass, page_facts
from dashboards.fleet import FleetView, fleet_view
from dashboards.incidents import told
from dashboards.model import ModelView, model_view
from dashboards.moment import Moment
from dashboards.words import figure, span, when
from driftloop.errors import BadRequest, DriftloopError, MeasureError, UnknownModel
from driftloop.records import ModelId, Moved, metric_name
from driftloop.trace import in_words
from driftloop.up import vitals
from driftloop.wiring import System

REFRESH = 5
"""Seconds between two looks at the fleet page."""
SHOWN = 12
"""Incidents on the fleet page."""
LISTED = 200
"""Incidents on the page of those that are over, too."""
NOTABLE = ("alarm", "warn")
"""Levels of the loop's own readings that are shown."""
OWN = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
REPORT = "sandbox allow-scripts allow-downloads; connect-src 'none'; form-action 'none'"
"""A report runs scripts over names and categories that came from outside: it gets no origin."""
STAMP = re.compile(r"\d{8}T\d{6}")


def pages_app(system: System) -> FastAPI:
    """Return the pages of one installation as an ASGI app; they read and never write.

    Routes: `/`, `/incidents`, `/models/{model}`, `/reports/{model}`, `/reports/{model}/{stamp}`,
    `/api/fleet` and `/healthz`.

    Raises:
        LedgerError: the ledger cannot be opened.
        SpecError: the monitor files are wrong.
    """
    pages = _Pages(system)
    app = FastAPI(title="driftloop", docs_url=None, redoc_url=None, openapi_url=None)
    app.get("/", response_class=HTMLResponse)(pages.fleet)
    app.get("/incidents", response_class=HTMLResponse)(pages.incidents)
    app.get("/models/{model}", response_class=HTMLResponse)(pages.model)
    app.get("/reports/{model}", response_class=FileResponse)(pages.report_now)
    app.get("/reports/{model}/{stamp}", response_class=FileResponse)(pages.report_then)
    app.get("/api/fleet")(pages.fleet_json)
    app.get("/healthz")(pages.health)
    app.add_exception_handler(DriftloopError, pages.refuse)
    app.add_exception_handler(HTTPException, pages.refuse)
    app.middleware("http")(_guard)
    return app


class _Pages:
    def __init__(self, system: System) -> None:
        # Both are opened here, so that no two requests open them at once.
        self._system, self._fleet, self._ledger = system, system.fleet, system.ledger
        self._rows = RowFacts(self._ledger)
        self._reporting = asyncio.Lock()
        self._templates = _templates()

    def fleet(self, *, still: bool = False) -> str:
        return self._drawn(
            "fleet.html",
            view=self._view(),
            incidents=told(self._system.incidents.live()),
            most=SHOWN,
            vitals=[v for v in vitals(self._system.settings.home) if v["level"] in NOTABLE],
            refresh=None if still else REFRESH,
        )

    def incidents(self) -> str:
        found = self._system.incidents.all(last=LISTED)
        return self._drawn("incidents.html", incidents=told(found), most=LISTED)

    def fleet_json(self) -> Response:
        return Response(msgspec.json.encode(self._view()), media_type="application/json")

    def model(self, model: str) -> str:
        self._fleet.family(model)
        name = ModelId(model)
        view = model_view(self._fleet, name, page_facts(self._ledger, name), self._moment())
        settings = self._system.settings
        return self._drawn(
            "model.html",
            view=view,
            incidents=told(i for i in self._system.incidents.live() if name in i.models),
            drawing=_chart(view),
            mlflow=f"{settings.mlflow_page}/#/models/{quote(model)}",
        )

    async def report_now(self, model: str) -> FileResponse:
        return await self._report(ModelId(model), None)

    async def report_then(self, model: str, stamp: str) -> FileResponse:
        self._fleet.family(model)
        if not STAMP.fullmatch(stamp):
            raise HTTPException(404, f"there is no decision {model}/{stamp}")
        key = f"{model}/{stamp}"
        try:
            await run_in_threadpool(self._system.decision, key)
        except BadRequest as error:
            raise HTTPException(404, str(error)) from error
        return await self._report(ModelId(model), key)

    def health(self) -> dict[str, str]:
        self._ledger.facts(Moved, model=self._fleet.models[0], last=1)
        return {"status": "ok"}

    def refuse(self, request: Request, error: Exception) -> Response:
        status = _status(error)
        said = error.detail if isinstance(error, HTTPException) else str(error)
        if request.url.path.startswith(("/api/", "/healthz")):
            return JSONResponse({"error": said}, status_code=status)
        title = HTTPStatus(status).phrase
        page = self._drawn("error.html", status=status, title=title, said=said)
        return HTMLResponse(page, status_code=status)

    async def _report(self, model: ModelId, key: str | None) -> FileResponse:
        # One at a time: a report takes seconds of a core and hundreds of megabytes.
        async with self._reporting:
            file: Path = await run_in_threadpool(self._system.report, model, key=key)
        return FileResponse(
            file, media_type="text/html", headers={"Content-Security-Policy": REPORT}
        )

    def _moment(self) -> Moment:
        newest, passed = last_pass(self._ledger)
        return Moment(
            clock=self._system.clock.clock,
            wall=datetime.now(UTC),
            newest=newest,
            passed=passed,
            watch_every=self._system.settings.watch_every,
        )

    def _view(self) -> FleetView:
        facts = {model: self._rows.of(model) for model in self._fleet.models}
        return fleet_view(self._fleet, facts, self._moment())

    def _drawn(self, template: str, **shown: Any) -> str:  # noqa: ANN401 - jinja takes anything
        return self._templates.get_template(template).render(**shown)


def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("dashboards"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {f.__name__: f for f in (figure, in_words, metric_name, span, when)}
    made.globals["sparkline"] = lambda points, title: Markup(charts.sparkline(points, title=title))  # noqa: S704 - charts escape every text
    return made


def _chart(view: ModelView) -> Markup:
    row = view.row
    title = f"{row.metric} of {row.model} over time"
    return Markup(charts.chart(row.points, view.markers, title=title, unit=row.unit))  # noqa: S704 - charts escape every text


def _status(error: Exception) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, UnknownModel):
        return 404
    # What is asked for is understood, but there are no rows, or no champion, to tell of.
    return 422 if isinstance(error, BadRequest | MeasureError) else 503


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.setdefault("Content-Security-Policy", OWN)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
