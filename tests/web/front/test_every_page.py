"""Every page of the gallery in a real browser, at two widths, light and dark: no error, outside request or fault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from support.browsing import faults_of, opened, served, until
from support.gallery import add, gallery_clip, gallery_db, gallery_episode

from handloom.api import Database
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
def db(tmp_path_factory) -> Database:
    clips = [CLIP if number == 1 else gallery_clip(number) for number in range(NUM)]
    db = gallery_db(tmp_path_factory.mktemp("every_page") / "db", clips)
    build_indexes(db)
    write_episodes(db, [episode_row(gallery_episode(number, task=TRAP)) for number in range(3)])
    return db


@pytest.fixture(scope="module")
def address(db) -> Iterator[str]:
    with served(db) as at:
        yield at


@pytest.fixture(scope="module")
def judged_address(db) -> Iterator[str]:
    with served(db, judging=True) as at:
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


PRESS = """async ([name, where]) => {
  const parts = name === "+" ? ["+"] : name.split("+");
  const [key, held] = [parts.pop(), parts];
  const target = where ? document.querySelector(where) : document.body;
  if (!target) return false;
  where ? target.focus() : document.activeElement?.blur();
  const shiftKey = held.includes("Shift"), ctrlKey = held.includes("Ctrl");
  const event = new KeyboardEvent("keydown", { key, shiftKey, ctrlKey, bubbles: true, cancelable: true });
  target.dispatchEvent(event);
  return event.defaultPrevented;
}"""
LISTED = """async () => {
  const { tables } = await import("/static/js/keys.js");
  return tables.value.filter((table) => !table.modal).flatMap((table) => table.live()).flatMap((key) => key.keys);
}"""
PLACES = ("", "canvas.map", ".box input", "details.filter textarea", ".judge textarea")
WITH_KEYS = {
    "search": "/?verb=cut&at=0",
    "clip": PAGES["clip"][0],
    "dataset": "/dataset?lasso=motion%3A-9%2C-9%3B9%2C-9%3B9%2C9%3B-9%2C9",
    "episodes": "/episodes?at=0",
    "episode": "/episode/arm%3A1",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_KEYS)
def test_every_key_that_help_shows_works(browser, judged_address, name):
    """In the page, or in the part of it that the table names. `u` comes after `y`, Escape where something is chosen."""
    path, there = WITH_KEYS[name], PAGES[name][1]
    with opened(browser, judged_address, path) as page:

        def begin():
            page.goto(judged_address + path)
            page.locator(there).first.wait_for()
            page.wait_for_timeout(500)

        begin()
        keys = page.evaluate(LISTED)
        assert len(keys) > 8
        for key in keys:
            end = time.monotonic() + 20
            while not any(page.evaluate(PRESS, [key, where]) for where in PLACES):
                assert time.monotonic() < end, f"{key!r} does nothing on {path}, of {keys}"
                begin()
                page.keyboard.press("x")
            if page.locator("dialog").count():
                page.keyboard.press("Escape")
            if page.evaluate("location.pathname") != urlsplit(path).path:
                begin()


@pytest.mark.slow
def test_the_printed_address_and_one_of_a_clip_open_from_a_link_elsewhere(browser, db):
    """As in a chat in the browser: a page of another site has the links."""
    token = "secret-of-the-test"
    with served(db, token=token) as address:
        page = browser.new_context().new_page()
        clip = address + PAGES["clip"][0]
        links = f"<a id=first href='{address}/?token={token}'>1</a> <a id=clip href='{clip}'>2</a>"
        page.route("http://chat.example/", lambda route: route.fulfill(body=links, content_type="text/html"))
        page.goto("http://chat.example/")
        page.locator("#clip").click()
        page.get_by_text("a token is needed").wait_for()
        page.goto("http://chat.example/")
        page.locator("#first").click()
        page.locator(".card img").first.wait_for()
        assert token not in page.url
        page.goto("http://chat.example/")
        page.locator("#clip").click()
        page.locator(PAGES["clip"][1]).first.wait_for()
        asked = page.evaluate("address => fetch(address).then(answer => answer.status)", f"{address}/api/about")
        assert asked == 200
        page.context.close()


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


ODD = (
    "a/b:0-1",
    "?x=1&y#z",
    "100%25 %2F",
    'it\'s "quoted"',
    "<b>id</b>",
    "שלום 🙂\u202eabc",
    "a+b c",
    "x..",
    "é" * 120,
)


@pytest.mark.slow
def test_links_lead_to_clips_with_any_id_and_any_text(browser, tmp_path):
    """The address opens the same clip again, and long words leave the page as wide as the window."""
    words = "\u202e" + "long " * 2000 + "\t\x1b[31m <i>x</i> 🙂"
    clips = [gallery_clip(n, clip_id=one, narration=words, verb=one, noun=one) for n, one in enumerate(ODD)]
    with served(gallery_db(tmp_path / "db", clips)) as at, opened(browser, at) as page:
        page.locator(".card").nth(len(ODD) - 1).wait_for()
        links = page.eval_on_selector_all(
            ".card a[href^='/clip/']", "all => [...new Set(all.map((one) => one.getAttribute('href')))]"
        )
        assert len(links) == len(ODD)
        seen = set()
        for link in links:
            page.locator(f'.card a[href="{link}"]').first.click()
            page.locator(".clip-top .mono").first.wait_for()
            seen.add(page.locator(".clip-top .mono").first.text_content())
            page.reload()
            page.locator(".clip-top .mono").first.wait_for()
            assert page.locator(".clip-top .mono").first.text_content() in seen
            until(page, "document.documentElement.scrollWidth <= innerWidth")
            page.goto(at)
            page.locator(".card").first.wait_for()
        assert seen == set(ODD)


@pytest.mark.slow
def test_a_server_that_was_ended_and_started_again(browser, tmp_path):
    """The page says that it is away, goes on by itself with the newest version, and what was typed is still there."""
    path, clip_id = tmp_path / "db", gallery_clip(2).clip_id
    db = gallery_db(path, range(3))
    db.judge(clip_id, "bad", "blurred", note="an earlier note")
    with served(db, judging=True) as at:
        context = browser.new_context()
        page = context.new_page()
        page.on("dialog", lambda dialog: dialog.accept())  # whether it may be left
        page.goto(f"{at}/clip/{quote(clip_id, safe='')}")
        note = page.get_by_label("Note")
        until(page, "document.querySelector('textarea')?.value === 'an earlier note'")
        note.fill("half a sentence")
    page.get_by_role("button", name="Good").click()
    page.locator(".trouble", has_text="does not answer").wait_for()
    add(path, range(3, 5), first=3)
    with served(db, judging=True, port=int(at.rpartition(":")[2])):
        page.locator(".trouble").wait_for(state="detached")
        until(page, "document.querySelector('.top-facts').textContent.includes('5 clips')")
        assert note.input_value() == "half a sentence"
        page.reload()
        until(page, "document.querySelector('textarea')?.value === 'half a sentence'")
        page.get_by_role("button", name="Save why and note").click()
        page.get_by_role("button", name="Save why and note").wait_for(state="detached")
        assert db.judgements().to_pylist()[0]["note"] == "half a sentence"
        page.reload()
        until(page, "document.querySelector('textarea')?.value === 'half a sentence'")
        assert page.evaluate("sessionStorage.length") == 0
    context.close()
