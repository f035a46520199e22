"""Every page of the gallery in a real browser, at two widths, light and dark: no error, outside request or fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from support.browsing import chromium, faults_of, opened, served, until
from support.gallery import gallery_clip, gallery_db, gallery_episode

from handloom.schemas.tables.robot import episode_row
from handloom.store.episodes import write_episodes
from handloom.store.search.index import build_indexes

NUM = 9
TRAP = '<img src="x" onerror="document.title = 1"> <b>bold</b>'
CLIP = gallery_clip(1, narration=TRAP)
WINDOWS = (({"width": 1440, "height": 900}, "light"), ({"width": 390, "height": 844}, "dark"))
PAGES = {
    "search": ("/", ".card img"),
    "words": ("/?text=open+drawer", ".card img"),
    "clip": (f"/clip/{quote(CLIP.clip_id, safe='')}", ".clip-stage[data-image]"),
    "dataset": ("/dataset", "main h1, main h2"),
    "episodes": ("/episodes", ".card img"),
    "episode": ("/episode/arm%3A0", ".episode-camera canvas[data-frame]"),
    "nowhere": ("/clip/nowhere", "main [role=alert]"),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    clips = [CLIP if number == 1 else gallery_clip(number) for number in range(NUM)]
    db = gallery_db(tmp_path_factory.mktemp("every_page") / "db", clips)
    build_indexes(db)
    write_episodes(db, [episode_row(gallery_episode(number, task=TRAP)) for number in range(2)])
    with served(db) as at:
        yield at


SLOW = ("words", "episodes", "nowhere")
"""Like others of the pages: left to `make test-all`."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PAGES]
)
def test_a_page_without_faults(browser, address, name):
    path, there = PAGES[name]
    with opened(browser, address, path, expected=(404,) if name == "nowhere" else ()) as page:
        page.locator(there).first.wait_for()
        for size, scheme in WINDOWS:
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            page.locator(there).first.wait_for()
            until(page, "document.documentElement.scrollWidth <= innerWidth")
            assert faults_of(page) == [], (size, scheme)
        assert page.title() != "1"


def test_help_and_words(browser, address):
    with opened(browser, address) as page:
        page.locator(".card-title", has_text="onerror").wait_for()
        assert page.locator(".card-title b").count() == 0
        page.keyboard.press("?")
        page.locator("dialog kbd").first.wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type("drawer 4")
        until(page, "document.querySelector('.card-title')?.textContent === 'open drawer 4'")
