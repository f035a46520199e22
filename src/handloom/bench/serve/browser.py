"""The gallery in Chromium, as a user has it: what is pressed, and how long until it is seen.

Times are taken inside the page: from the event of the key (or the call that clicks) to the first animation frame after
the picture is decoded. So they hold the request, the server's work, the picture, and the drawing.
"""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from handloom.errors import ConfigError

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu-compositing", "--disable-gpu-rasterization",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
"""As root in a container. Pages are drawn as on a machine without a graphics card, 3D views by SwiftShader: if it drew
whole pages, as Debian's flags would have it, a frame took 100 ms and not 17."""
SIZE = {"width": 1440, "height": 900}
CARD = ".search-hits:not(.old) .card:not(.waiting)"
TIMEOUT_MS = 60_000
_SCRIPT = Path(__file__).with_name("page.js")


def find_chromium() -> str | None:
    """The path of Chromium or Chrome; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium of Playwright. Raises ConfigError where one is missing, or Playwright does not start."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError as error:
        raise ConfigError("the package playwright is not installed", "pip install playwright") from error
    path = find_chromium()
    if path is None:
        raise ConfigError("there is no Chromium on this machine", "Debian and Ubuntu: apt-get install chromium")
    with ExitStack() as started:
        try:
            playwright = started.enter_context(sync_playwright())
        except Error as error:  # the node that it brings is for another system
            raise ConfigError(f"Playwright does not start: {error.message}", "pip install playwright again") from error
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        started.callback(opened.close)
        yield opened


class Visitor:
    """One window of the gallery at `address`, with nothing in its cache."""

    def __init__(self, opened: Any, address: str) -> None:
        self._address = address.rstrip("/")
        self._context = opened.new_context(viewport=SIZE)
        self._context.add_init_script(path=_SCRIPT)
        self.page = self._context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)

    def close(self) -> None:
        self._context.close()

    def open(self, path: str = "/") -> dict[str, Any]:
        """Load a page of hits; `ms` from the navigation to the first card."""
        self.page.goto(self._address + path, wait_until="commit")
        return self.page.evaluate("card => bench.hit(0, card, false)", CARD)

    def words(self, text: str) -> dict[str, Any]:
        """Type words and press Enter; `ms` from the key, or from the request where it was sent while typing."""
        self._wait_for_counts()
        box = self.page.locator("form[role=search] input[type=search]")
        box.fill("")
        self.page.evaluate("bench.ready()")
        box.focus()
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Enter")
        return self.page.evaluate("card => bench.hit(bench.pressed, card)", CARD)

    def more_like(self, but: Container[str]) -> dict[str, Any]:
        """Press `like this` on the first card after the best whose clip is none of these, whose hits the page keeps;
        `ms` from the click, `like` the clip."""
        cards = self.page.locator(f"{CARD}:has(.card-more)").evaluate_all(
            "cards => cards.map((card) => [card.getAttribute('aria-posinset'), card.querySelector('a').title])"
        )
        place, clip_id = next((place, clip_id) for place, clip_id in cards[1:] if clip_id not in but)
        return self._click(f".card[aria-posinset='{place}'] .card-more") | {"like": clip_id}

    def filter(self, facet: str, choice: int) -> dict[str, Any]:
        """Tick a known value of a facet; `ms` from the click."""
        mark = "data-bench"
        self._wait_for_counts()
        self.page.evaluate(
            """([facet, choice, mark]) => {
              document.querySelectorAll(`[${mark}]`).forEach((one) => one.removeAttribute(mark));
              const sets = [...document.querySelectorAll(".filters details")];
              const set = sets.find((one) => one.querySelector("summary").textContent.startsWith(facet));
              const known = ".choice:not(.none):not(:has(.soft.choice-text)) input:not(:checked)";
              set.querySelectorAll(known)[choice].setAttribute(mark, "");
            }""",
            [facet, choice, mark],
        )
        return self._click(f"[{mark}]")

    def _wait_for_counts(self) -> None:
        """As a reader does: what is pressed next is not in the way of the counts of the search before."""
        self.page.wait_for_selector(".search-side[aria-busy=false]")
        self.page.wait_for_load_state("networkidle")

    def _click(self, selector: str) -> dict[str, Any]:
        self._wait_for_counts()
        return self.page.evaluate("([selector, card]) => bench.click(selector, card)", [selector, CARD])

    def open_clip(self, clip_id: str) -> float:
        """Load the page of a clip; milliseconds from the navigation to its first stored frame on the canvas."""
        self.page.goto(f"{self._address}/clip/{quote(clip_id, safe='')}?source=frames", wait_until="commit")
        self.page.wait_for_selector(".clip-stage[data-image]")
        return float(self.page.evaluate("performance.now()"))

    def scrub(self, key: str, times: int) -> list[float]:
        """Press a key that steps through the frames; milliseconds from each press to the frame on the canvas."""
        found = []
        for _ in range(times):
            waiting = self.page.evaluate_handle("({ drawn: bench.drawn() })")
            self.page.keyboard.press(key)
            found.append(float(waiting.evaluate("one => one.drawn")))
        return found

    def scroll(self, cards: int, step_px: int) -> dict[str, Any]:
        """Scroll the grid by some pixels each animation frame until so many cards have passed."""
        return self.page.evaluate(
            "([selector, cards, step]) => bench.scroll(selector, cards, step)", [".grid", cards, step_px]
        )

    def memory(self) -> dict[str, float]:
        """After a garbage collection: `js_heap_bytes`, `dom_nodes`, `listeners`."""
        session = self._context.new_cdp_session(self.page)
        session.send("HeapProfiler.collectGarbage")
        session.send("Performance.enable")
        found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        session.detach()
        return {
            "js_heap_bytes": int(found["JSHeapUsedSize"]),
            "dom_nodes": int(found["Nodes"]),
            "listeners": int(found["JSEventListeners"]),
        }


def ids_of(hits: Sequence[dict[str, Any]]) -> list[str]:
    """Ids of the first cards."""
    return [unquote(hit["id"]) for hit in hits]
