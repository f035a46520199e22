"""The gallery's server: which address is answered by what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from python_multipart.exceptions import FormParserError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from handloom import __version__
from handloom.errors import HandloomError
from handloom.schemas.tables.arrow import QUALITY_FIELDS
from handloom.schemas.tables.embeddings import embedding_columns
from handloom.schemas.tables.robot import TABLE as EPISODES
from handloom.store.filters import stages_of
from handloom.web import dataset, judging, searching
from handloom.web.access import LOOPBACK, REPORTS, Access
from handloom.web.answers import (
    NotThere,
    blocking,
    bug,
    gone_away,
    handloom_error,
    http_error,
    json_answer,
    missing_package,
    no_form,
)
from handloom.web.catalogue import FACETS, MOST_VALUES, NUMBERS
from handloom.web.clips import facts, media, truth
from handloom.web.episodes import episodes, reports
from handloom.web.gallery import Gallery

STATIC = Path(__file__).parent / "static"
PAGES = ("/", "/clip", "/clip/{rest:path}", "/dataset", "/episodes", "/episode", "/episode/{rest:path}")
"""Addresses of pages: all are one file, whose scripts read the address."""
DATA = ("/api/", "/media/", "/download/", "/static/", REPORTS)
"""Addresses that scripts ask: their errors are JSON, whoever asks."""
PARTS: tuple[Callable[[Gallery], list[Route]], ...] = (
    *(searching.routes, facts.routes, truth.routes, media.routes),
    *(dataset.routes, judging.routes, episodes.routes, reports.routes),
)


def about(gallery: Gallery) -> dict[str, Any]:
    """What a page knows before it asks for anything."""
    catalogue = gallery.catalogue()

    def counts() -> dict[str, Any]:
        names = ("clip_list", EPISODES)
        listed, num_episodes = (gallery.db.count(name) for name in names)
        return {"num_listed": listed, "episodes": num_episodes, "num_rejects": gallery.db.rejects().num_rows}

    seconds = catalogue.rows.column("duration_s") if "duration_s" in catalogue.rows.column_names else None
    hours = (pc.sum(seconds).as_py() or 0.0) / 3600 if seconds is not None else 0.0
    return {
        "version": catalogue.version,
        "uri": gallery.db.uri,
        "num_clips": catalogue.num_clips,
        **gallery.short("counts", counts),
        "hours": hours,
        "judging": gallery.judging,
        "reports": bool(gallery.reports),
        "handloom": __version__,
        "embeddings": list(embedding_columns(catalogue.schema)),
        "recordings": find_spec("rerun") is not None,  # for downloads
        "texts": catalogue.has_words,
        "facets": catalogue.telling(gallery.known().verdicts),
        "most_values": MOST_VALUES,
        "columns": [*FACETS, *catalogue.numbers],
        "numbers": {name: {**NUMBERS, **QUALITY_FIELDS}.get(name, "") for name in catalogue.numbers},
        "stages": stages_of(catalogue.schema),
    }


def make_app(gallery: Gallery, hosts: frozenset[str] = LOOPBACK, token: str | None = None) -> Starlette:
    """The server of one gallery, which the app closes when it ends. hosts, token: see `handloom.web.access.Access`."""

    async def tell(request: Request) -> Response:
        return json_answer(request, await blocking(about, gallery))

    async def page(request: Request, status: int = 200) -> Response:
        if not (STATIC / "index.html").is_file():
            raise NotThere("the pages are not installed: static/index.html is missing", "install handloom again")
        return FileResponse(STATIC / "index.html", status_code=status, headers={"Cache-Control": "no-cache"})

    async def no_address(request: Request, error: Exception) -> Response:
        asks_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        is_404 = isinstance(error, HTTPException) and error.status_code == 404
        if is_404 and asks_page and not request.url.path.startswith(DATA):
            return await page(request, 404)  # its scripts say that there is no such page
        return http_error(request, error)

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        yield
        gallery.close()

    routes: list[BaseRoute] = [Route("/api/about", tell), *(Route(path, page) for path in PAGES)]
    for part in PARTS:
        routes += part(gallery)
    routes.append(Mount("/static", GZipMiddleware(StaticFiles(directory=STATIC), minimum_size=1400), name="static"))
    errors: dict[Any, Any] = {
        HandloomError: handloom_error,
        HTTPException: no_address,
        ModuleNotFoundError: missing_package,
        ClientDisconnect: gone_away,
        FormParserError: no_form,
        MultiPartException: no_form,
        Exception: bug,
    }
    guard = Middleware(Access, hosts=hosts, token=token)
    return Starlette(routes=routes, middleware=[guard], exception_handlers=errors, lifespan=running)
