"""The dataset page and judging in a real browser."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.browsing import faults_of, opened, served, until
from support.gallery import gallery_clip, gallery_db
from support.rows import RUN_KEY

from handloom.api import Database
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import RunProgress, end_run

pytestmark = pytest.mark.slow

NUM, LOST = 40, 60
TRAP = "<img src=x onerror='document.title = 1'>"


@pytest.fixture
def db(tmp_path) -> Database:
    """40 clips with rows, 60 that were rejected."""
    db = gallery_db(tmp_path / "db", [gallery_clip(n, **({"verb": TRAP} if n == 2 else {})) for n in range(NUM)])
    lost = [gallery_clip(NUM + n) for n in range(LOST)]
    add_clips(db, lost)
    rejects = [Reject(clip.clip_id, "decode", "damaged", f"41 of 96 frames {TRAP}") for clip in lost]
    Committer(db, RUN_KEY, clips_schema(4)).commit([], rejects)
    return db


def state(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def ink(page: Any) -> int:
    """How many pixels of the map are drawn on."""
    return page.evaluate(
        "(() => { const map = document.querySelector('canvas.map');"
        "const bytes = map.getContext('2d').getImageData(0, 0, map.width, map.height).data;"
        "return bytes.filter((value, at) => at % 4 === 3 && value > 0).length; })()"
    )


def to_the_map(page: Any) -> dict[str, float]:
    page.locator("#part-outliers .card").first.wait_for()  # they stand above it
    page.locator("#part-map").scroll_into_view_if_needed()
    page.locator("canvas.map").wait_for()
    page.locator("canvas.map").scroll_into_view_if_needed()
    until(page, "document.querySelector('canvas.map').width > 300")
    return page.locator("canvas.map").bounding_box()


def test_a_line_on_the_map_chooses_judges_and_searches(browser, db):
    with served(db, judging=True) as address, opened(browser, address, "/dataset") as page:
        box = to_the_map(page)
        assert ink(page) > 100 * NUM / 10
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 300, y - 300)
        page.mouse.down()
        for corner in ((300, -300), (300, 300), (-300, 300), (-300, -290)):
            page.mouse.move(x + corner[0], y + corner[1], steps=6)
        page.mouse.up()
        page.get_by_text(f"{NUM} clips chosen").wait_for()
        assert len(state(page)["lasso"]) == 1
        page.get_by_role("button", name="✗ Bad").click()
        page.get_by_text(f"{NUM} clips judged bad").wait_for()
        assert len(db.judged("bad")) == NUM
        page.get_by_role("link", name="Search within them").click()
        page.get_by_text("chosen on the map").wait_for()
        until(page, "document.querySelector('.found').textContent.startsWith('40 clips')")
        page.go_back()
        page.get_by_text(f"{NUM} clips chosen").wait_for()
        page.get_by_role("button", name="None").click()
        page.get_by_text("Nothing is chosen").wait_for()
        assert "lasso" not in state(page)
        page.locator("canvas.map").focus()
        page.keyboard.press(".")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/clip/"))


def test_a_clip_is_judged_by_keys(browser, db):
    clip_id = gallery_clip(0).clip_id
    with served(db, judging=True) as address, opened(browser, address, f"/clip/{clip_id}", expected=(409,)) as page:
        page.get_by_role("button", name="Good").wait_for()
        page.keyboard.press("n")
        page.get_by_text(re.compile(r"Judged\s+bad")).wait_for()
        page.keyboard.press("w")
        page.keyboard.type("hands wrong")
        page.keyboard.press("Tab")
        page.keyboard.type(TRAP)
        page.keyboard.press("Control+Enter")
        until(page, "!document.querySelector('.judge button[type=submit]')")
        assert db.judged("bad", "hands wrong") == [clip_id]
        page.reload()
        until(page, "document.querySelector('.judge textarea')?.value.startsWith('<img')")
        page.keyboard.press("w")
        page.keyboard.press("Control+A")
        page.keyboard.type("scale wrong")
        page.locator("header a", has_text="Search").click()  # what was typed goes with the page
        page.locator(".card").first.wait_for()
        page.go_back()
        until(page, "document.querySelector('.judge input[list]')?.value === 'scale wrong'")
        assert db.judged("bad", "scale wrong") == [clip_id]
        page.locator("h1").click()
        db.judge(clip_id, "good", who="ana")  # while this page shows another
        page.keyboard.press("u")
        page.get_by_role("alert").get_by_text("was judged good by ana meanwhile").wait_for()
        page.get_by_text(re.compile(r"Judged\s+good\s+by ana")).wait_for()
        assert db.judged("good") == [clip_id]
        db.judge(clip_id, "bad", who="ben")
        page.evaluate("window.dispatchEvent(new Event('focus'))")  # as when one comes back to this window
        page.get_by_text(re.compile(r"Judged\s+bad\s+by ben")).wait_for()
        page.keyboard.press("u")
        until(page, "!document.querySelector('.judge-told')")
        assert db.judged() == []


def test_rejects_are_opened_and_put_back(browser, db):
    with served(db, judging=True) as address, opened(browser, address, "/dataset") as page:
        page.locator("summary", has_text="damaged").click()
        page.get_by_role("button", name="More (10 left)").click()
        until(page, f"document.querySelectorAll('.reason li').length === {LOST}")
        assert TRAP in page.locator(".reason .detail").first.inner_text()
        page.get_by_role("button", name="Run again").first.click()
        page.get_by_text("1 clip will be tried again").wait_for()
        until(page, f"document.querySelectorAll('.reason li').length === {LOST - 1}")
        assert db.rejects().num_rows == LOST - 1


def test_a_run_is_followed_while_it_works(browser, db):
    with served(db) as address:
        run = leased(db, RUN_KEY, settings={}, resources={}, versions={}, stage_keys={})
        with run as lease, opened(browser, address, "/dataset") as page:
            page.get_by_text(re.compile("Run .* every clip is done")).wait_for()
            lease.tell(RunProgress(8, rows=1, rejects=1, frames=90, clips_per_s=0.5, frames_per_s=15, left_s=12))
            lease.check()
            page.get_by_text("2 of 8 clips done, 1 rejected").wait_for()
            page.get_by_text("30 clips a minute, 15 frames/s").wait_for()
            living, dead = lease.run.holder, json.dumps(json.loads(lease.run.holder) | {"process_start": 1})
            db.table("runs").update({"holder": f"'{dead}'"})
            page.get_by_text(re.compile("stopped without an end: no sign for .* 2 of 8 clips were done")).wait_for()
            db.table("runs").update({"holder": f"'{living}'"})
            page.get_by_text("2 of 8 clips done, 1 rejected").wait_for()
            end_run(db, lease.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
            until(page, "!document.querySelector('.running')")
        with opened(browser, address, f"/clip/{gallery_clip(0).clip_id}") as page:
            page.get_by_text("Not judged").wait_for()
            page.keyboard.press("y")
        assert db.table("judgements") is None


PHONE = {"color_scheme": "light", "viewport": {"width": 390, "height": 800}}


@pytest.mark.parametrize("how", [{"color_scheme": "dark"}, PHONE], ids=["wide", "phone"])
def test_the_page_has_no_serious_fault_and_fits(browser, db, how):
    with served(db, judging=True) as address, opened(browser, address, "/dataset?q=blur&order=low", **how) as page:
        to_the_map(page)
        page.locator("summary", has_text="damaged").click()
        assert faults_of(page) == []
        wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the page's own part scrolls"
        page.get_by_role("button", name=re.compile("^brightness")).click()
        until(page, "document.querySelector('#part-outliers select').value === 'brightness'")
        assert state(page)["q"] == ["brightness"]
        page.reload()
        page.locator(".tiles").wait_for()
        page.keyboard.press("5")  # before what stands above the map has come
        to_the_map(page)
        gap = "document.querySelector('#part-map h2').getBoundingClientRect().top - NAV.bottom".replace(
            "NAV", "document.querySelector('.dataset-nav').getBoundingClientRect()"
        )
        until(page, f"Math.abs({gap} - 16) < 16")


def test_an_empty_database_says_what_to_do(browser, tmp_path):
    db = Database.open(tmp_path / "db", create=True)
    with served(db) as address, opened(browser, address, "/dataset") as page:
        page.get_by_text("handloom ingest folder").wait_for()
