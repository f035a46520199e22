"""The search page in a real browser: find, filter, move by keys; every state is in the address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.browsing import faults_of, opened, served, until
from support.gallery import add, gallery_clip, gallery_db, jpeg

from handloom.store.search.index import build_indexes

pytestmark = pytest.mark.slow

NUM = 130
TRAP = '<img src="x" onerror="document.title = 1"> <b>bold</b>'


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    clips = [gallery_clip(number, **({"narration": TRAP} if number == 2 else {})) for number in range(NUM)]
    db = gallery_db(tmp_path_factory.mktemp("gallery") / "db", clips)
    build_indexes(db)
    with served(db) as at:
        yield at


def state(page: Any) -> dict[str, list[str]]:
    """What the address says."""
    return parse_qs(urlsplit(page.url).query)


def wait_found(page: Any, words: str) -> None:
    until(page, "words => document.querySelector('.found')?.textContent.startsWith(words)", words)
    page.wait_for_selector(".search-hits:not(.old)")


def selected(page: Any) -> str:
    return page.locator(".card.selected .card-title").inner_text()


def test_words_filters_and_ranges_are_in_the_address(browser, address):
    with opened(browser, address) as page:
        wait_found(page, f"{NUM} clips")
        page.locator(".card a").first.wait_for()
        page.get_by_role("checkbox", name=re.compile("^cut")).check()
        until(page, "document.querySelectorAll('.chip').length === 1")
        page.wait_for_selector(".search-hits:not(.old)")
        cut = page.locator(".found b").inner_text()
        assert cut != f"{NUM} clips"
        page.locator(".range summary", has_text="blur").click()
        page.get_by_role("spinbutton", name="blur, at least").fill("40")
        page.keyboard.press("Tab")
        until(page, "document.querySelectorAll('.chips .chip').length === 2")
        assert state(page) == {"verb": ["cut"], "q.blur": ["40:"]}
        page.wait_for_selector(".search-hits:not(.old)")
        both = page.locator(".found b").inner_text()
        titles = page.locator(".card-title").all_inner_texts()
        page.reload()
        page.locator(".card a").first.wait_for()
        assert page.locator(".card-title").all_inner_texts() == titles
        assert page.locator(".found b").inner_text() == both
        page.go_back()
        wait_found(page, cut)
        page.keyboard.press("c")
        wait_found(page, f"{NUM} clips")
        assert state(page) == {}


def test_a_narration_is_text(browser, address):
    with opened(browser, address) as page:
        page.locator(".card-title", has_text="onerror").wait_for()
        assert page.title() != "1"
        assert page.locator(".card-title b, .card-title img").count() == 0


def test_the_grid_by_keys_to_its_last_clip_and_back(browser, address):
    with opened(browser, address) as page:
        page.locator(".card a").first.wait_for()
        assert page.locator(".card").count() < 60
        page.keyboard.press("End")
        until(page, "n => document.querySelector('.card.selected')?.ariaPosInSet === String(n)", NUM)
        page.locator(".card.selected img").wait_for()
        last = selected(page)
        until(page, "n => location.search === `?at=${n}`", NUM - 1)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_url("**/clip/**")
        page.go_back()
        page.locator(".card.selected a").wait_for()
        assert selected(page) == last
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        until(page, "document.querySelector('.card.selected')?.ariaPosInSet === '2'")
        until(page, "location.search === '?at=1'")


def test_keys_that_come_faster_than_the_page_is_drawn_mean_the_new_clip(browser, address):
    """All in one turn of the page's loop: it is not drawn between them, as on a busy machine."""
    with opened(browser, address) as page:
        page.locator(".card a").first.wait_for()
        third = page.locator(".card-title").nth(2).inner_text()
        page.evaluate(
            """keys => keys.forEach(key => document.body.dispatchEvent(
              new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })))""",
            ["End", "Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "Enter"],
        )
        page.wait_for_url("**/clip/**")
        page.go_back()
        page.locator(".card.selected a").wait_for()
        assert (selected(page), state(page)["at"]) == (third, ["2"])


def test_words_search_while_they_are_typed(browser, address):
    with opened(browser, address) as page:
        page.locator(".card a").first.wait_for()
        page.keyboard.press("/")
        page.keyboard.type("drawer 77")
        until(page, "document.querySelector('.card-title')?.textContent === 'open drawer 77'")
        assert state(page) == {"text": ["drawer 77"]}
        assert "#1" in page.locator(".card-why").first.inner_text()
        page.keyboard.press("?")
        assert page.locator("dialog").count() == 0, "in the box a key is a letter"
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.locator("dialog kbd").first.wait_for()
        page.keyboard.press("Escape")
        assert page.locator("dialog").count() == 0


def test_a_wrong_filter_is_told_and_nothing_found_says_what_to_do(browser, address):
    with opened(browser, address, "/?where=nothere%20%3D%201", expected=(400,)) as page:
        page.get_by_role("alert").first.wait_for()
        assert "nothere" in page.locator(".search-hits").inner_text()
        page.locator(".state.failed").get_by_role("button", name="Clear filters").click()
        wait_found(page, f"{NUM} clips")
    with opened(browser, address, "/?q.blur=1e9:") as page:
        page.get_by_role("button", name="Clear filters").last.click()
        wait_found(page, f"{NUM} clips")


def test_an_image_is_chosen_or_dropped(browser, address):
    with opened(browser, address, expected=(400,)) as page:
        page.locator(".card a").first.wait_for()
        image = {"name": "cup.jpg", "mimeType": "image/jpeg", "buffer": jpeg((64, 36), 1)}
        page.set_input_files("input[type=file]", image)
        until(page, "location.search.includes('query=')")
        page.locator(".query-clip", has_text="cup.jpg").wait_for()
        until(page, "document.querySelector('.query-clip img')?.naturalWidth === 64")  # the file itself
        assert state(page)["by"] == ["look"]
        held = page.evaluate_handle(
            """bytes => {
              const held = new DataTransfer();
              held.items.add(new File([new Uint8Array(bytes)], "bowl.jpg", { type: "image/jpeg" }));
              return held;
            }""",
            list(image["buffer"]),
        )
        page.dispatch_event("main", "dragenter", {"dataTransfer": held})
        page.locator(".drop-here").wait_for()
        page.dispatch_event("main", "drop", {"dataTransfer": held})
        page.locator(".query-clip", has_text="bowl.jpg").wait_for()
        assert page.locator(".drop-here").count() == 0
        page.set_input_files("input[type=file]", {**image, "name": "notes.txt", "buffer": b"words"})
        page.locator(".problem", has_text="notes.txt").wait_for()


def test_a_video_that_is_read_can_be_left(browser, address):
    """The server's answer never comes: what it does is told, and the search before is one click away."""
    with opened(browser, address, "/?verb=cut") as page:
        page.locator(".card a").first.wait_for()
        page.route(re.compile("/api/search.*query="), lambda route: None)
        file = {"name": "pour.mp4", "mimeType": "video/mp4", "buffer": b"x" * 1000}
        page.set_input_files("input[type=file]", file)
        page.locator(".reading", has_text="Reading the video: it begins").wait_for()
        assert state(page)["name"] == ["pour.mp4"]
        page.get_by_role("button", name="Cancel").click()
        until(page, "!document.querySelector('.reading')")
        assert state(page) == {"verb": ["cut"]}
        page.wait_for_selector(".search-hits:not(.old)")


def test_many_clips_are_chosen_and_judged_at_once(browser, tmp_path):
    db = gallery_db(tmp_path / "db", range(NUM))
    with served(db, judging=True) as at, opened(browser, at) as page:
        page.locator(".card a").first.wait_for()
        page.locator(".card").nth(1).hover()
        page.locator(".card-choose input").nth(1).check()
        page.locator(".card a").nth(4).click(modifiers=["Shift"])
        page.get_by_text("4 clips chosen").wait_for()
        page.keyboard.press("Shift+ArrowRight")
        page.get_by_text("5 clips chosen").wait_for()
        page.get_by_label("Why").fill("blurred")
        page.get_by_role("button", name="✗ Bad").click()
        page.get_by_text("5 clips judged bad").wait_for()
        assert sorted(db.judged("bad", "blurred")) == sorted(gallery_clip(number).clip_id for number in range(1, 6))
        page.locator("fieldset[aria-label=Judged] .choice", has_text="bad").get_by_text("5").wait_for()
        page.keyboard.press("Escape")  # out of the reason
        page.keyboard.press("Escape")
        until(page, "!document.querySelector('.chosen')")
        page.keyboard.press("a")
        page.get_by_text(f"{NUM} clips chosen").wait_for()
        page.locator(".card a").first.click()
        page.go_back()
        page.get_by_text(f"{NUM} clips chosen").wait_for()
        page.keyboard.press("u")
        until(page, "!document.querySelector('.flag.bad')")
        assert db.judged() == []


def test_a_step_back_finds_the_place_and_so_does_a_new_load(browser, address):
    with opened(browser, address) as page:
        page.locator(".card a").first.wait_for()
        page.locator(".grid").evaluate("grid => { grid.scrollTop = 1500 }")
        until(page, "history.state?.start > 10")
        first = "[...document.querySelectorAll('.card a')].find(a => a.getBoundingClientRect().top > 100)?.title"
        seen = page.evaluate(first)
        page.get_by_role("checkbox", name=re.compile("^cut")).check()
        page.wait_for_selector(".search-hits:not(.old) .card img")
        page.go_back()
        until(page, f"title => {first} === title", seen)
        page.reload()
        until(page, f"title => {first} === title", seen)


def test_thumbnails_play_under_the_pointer_unless_motion_is_unwanted(browser, address):
    for wanted, seen in (("no-preference", 1), ("reduce", 0)):
        with opened(browser, address, reduced_motion=wanted) as page:
            page.locator(".card img").first.hover()
            if seen:
                page.locator(".strip").wait_for()
                before = page.locator(".strip").evaluate("strip => strip.style.backgroundPosition")
                until(page, "before => document.querySelector('.strip').style.backgroundPosition !== before", before)
                page.locator("canvas.moving:not([hidden])").wait_for()
            else:
                page.wait_for_timeout(800)
            assert page.locator(".strip").count() == page.locator("canvas.moving").count() == seen


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_and_can_be_read(browser, address, scheme, width):
    window = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    with opened(browser, address, "/?text=drawer&verb=open&q.blur=1:&at=1", **window) as page:
        page.locator(".card.selected").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert faults_of(page) == []
        if width < 900:
            page.get_by_role("button", name=re.compile("^Filters")).click()
            page.locator("dialog input").first.wait_for()
            assert faults_of(page) == []
            page.evaluate("document.querySelector('dialog').scrollTo(0, 1e6)")
            page.get_by_role("button", name="Close Filters").click(trial=True)  # it stays in reach
            page.get_by_role("button", name=re.compile("^Show")).click()
            assert page.evaluate("document.activeElement.textContent").startswith("Filters")
        red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        assert (int(red) < 100) == (scheme == "dark")
        page.keyboard.press("t")
        other = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        assert (int(other) < 100) != (scheme == "dark")


def test_a_database_without_clips_says_so_and_newer_rows_are_offered(browser, tmp_path):
    with served(gallery_db(tmp_path / "db", [])) as at, opened(browser, at) as page:
        page.get_by_text("no clips yet").wait_for()
        for rows in ([0, 1], [2]):
            words = f"{rows[-1] + 1} clips"
            add(tmp_path / "db", rows, first=rows[0])
            told = (
                "words => (dispatchEvent(new Event('focus')), document.querySelector('.top').innerText.includes(words))"
            )
            until(page, told, words)
            page.get_by_role("button", name="Newer rows: show them").click()
            wait_found(page, words)
