"""The gallery in a real browser: a server in a thread, and pages that fail on what a reader's console would show."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from handloom.api import Database
from handloom.bench.serve.browser import browser
from handloom.errors import ConfigError
from handloom.web.app import make_app
from handloom.web.gallery import Gallery

WAIT_MS = 30_000  # on a machine that others use as well


@contextmanager
def served(db: Database, *, judging: bool = False, token: str | None = None, port: int = 0) -> Iterator[str]:
    """The address of a gallery of this database, while the block runs; with a token any name of the host is served.

    port: 0: any.
    """
    app = make_app(Gallery(db, judging), *(() if token is None else (frozenset(), token)))
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # as `web.serving` does, and why
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(128)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser. Skips the test where one of the two is missing."""
    with ExitStack() as started:
        try:
            found = started.enter_context(browser())
        except ConfigError as error:
            pytest.skip(f"{error.problem}: {error.hint}")
        yield found


@dataclass
class Watch:
    """What went wrong on a page."""

    address: str
    faults: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)
    """Answers that the test provokes, by status: the browser's console shows each as an error."""

    def of(self, page: Any) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._said)
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        provoked = any(f"status of {status} " in message.text for status in self.expected)
        provoked |= "GPU stall due to ReadPixels" in message.text  # 3D on a page that is drawn without a graphics card
        if message.type in ("error", "warning") and not provoked:
            self.faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.faults.append(f"outside: {request.url}")


@contextmanager
def opened(browser: Any, address: str, path: str = "/", *, expected: tuple[int, ...] = (), **how: Any) -> Iterator[Any]:
    """A page of the gallery in a window of its own. Fails if its console shows an error or it asks anybody else.

    expected: statuses of answers that the test provokes. how: of the window: `viewport`, `color_scheme`,
    `reduced_motion`, `has_touch`.
    """
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **how})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    watch = Watch(address, expected=set(expected))
    watch.of(page)
    page.goto(address + path)
    yield page
    context.close()
    assert not watch.faults, watch.faults


def until(page: Any, condition: str, arg: Any = None) -> None:
    """Wait until a JavaScript expression, or a function of `arg`, holds. Playwright's own way needs `eval`, which the
    pages' content-security policy refuses."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(condition, arg):
        assert time.monotonic() < end, f"never: {condition} ({arg}) at {page.url}: {page.inner_text('main')[:2000]}"
        page.wait_for_timeout(30)


def faults_of(page: Any) -> list[str]:
    """What axe-core finds on a page as it is now, except what it calls minor or moderate."""
    axe = pytest.importorskip("axe_playwright_python", reason="needs axe (pip install 'handloom[dev]')")
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert page.evaluate("axe.version")
    return [
        f"{one['id']}: {one['help']} at {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
