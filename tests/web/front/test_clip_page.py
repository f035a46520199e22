"""The clip page in a real browser: image, layers, 3D and timeline on one clock; two clips beside each other."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from support.browsing import faults_of, opened, served
from support.gallery import jpeg
from support.rows import later_grid, make_clip, make_row

from handloom.api import Database
from handloom.bench.serve.browser import find_chromium
from handloom.draw.overlay import HAND_COLORS
from handloom.geometry.tracks.stored_grids import window_tracks
from handloom.schemas.clip import Clip
from handloom.schemas.tables.row import cell_to_arrow, row_arrays
from handloom.schemas.tables.segments import SEGMENT
from handloom.schemas.values import LEFT
from handloom.store.clips.clip_list import add_clips
from handloom.synth.render.render import render_clip
from handloom.synth.script.scene import SceneSpec
from handloom.synth.truth import Truth
from handloom.video.write import write_video

pytestmark = pytest.mark.slow

NUM, GRID = 12, 4
TRAP = '<img src="x" onerror="document.title = 1"> <b>bold</b>'
FULL, BARE, PLAYED, TRUE = (make_clip(number, video_id=f"film{number}") for number in range(4))


@pytest.fixture(scope="module")
def db(tmp_path_factory) -> Database:
    """A clip with all there is, whose video is gone; one without images, hands and path; one with its video."""
    folder = tmp_path_factory.mktemp("clip_page")
    film = folder / "film.mp4"
    write_video(film, (np.full((360, 640, 3), 20 + 18 * n, np.uint8) for n in range(NUM)), np.arange(NUM) / 15)
    clips = [
        replace(FULL, narration=TRAP, licence="CC0-1.0"),
        BARE,
        replace(PLAYED, video_uri=str(film), start_s=0.0, end_s=NUM / 15),
        replace(TRUE, video_uri=str(folder / "true.mp4"), start_s=0.0, end_s=NUM / 15),
    ]
    scene().save(folder / "true.truth.npz")
    later = (later_grid(4, 2, 8, grid=GRID), later_grid(9, 7, NUM - 1, grid=GRID, seed=1))
    how = {"num_frames": NUM, "grid": GRID, "quality": {"brightness": 0.4}}
    images = [jpeg((320, 180), n) for n in range(NUM)]
    rows = [
        _with(
            make_row(clips[0], hands_seen=(True, True), frame_jpeg=images, later=later, **how),
            world_from_camera=_path(),
            world_scale="metric",
            world_unit_m=1.0,
            hand_keypoints_world_m=_hands_m(),
            hand_keypoints_px=_hands_px(),
            frame_flags=[0, 0, 2, 2, 2, *[0] * (NUM - 5)],
            segments=[_segment(0, 5, "grasping"), _segment(5, NUM, "manipulation")],
        ),
        _with(make_row(clips[1], hands_seen=(False, False), later=(), **how), hand_keypoints_cam_m=None),
        _with(
            make_row(clips[3], hands_seen=(True, True), frame_jpeg=images, later=(), **how),
            frame_s=list(scene().frame_s),
            hand_keypoints_px=np.where(
                np.arange(NUM)[:, None, None, None] == 3, np.nan, true_hands_px() + np.array([0, 12])
            ),
            hand_keypoints_cam_m=scene().keypoints_cam_m,
        ),
        _with(make_row(clips[2], frame_jpeg=images, later=(), **how), frame_s=list(np.arange(NUM) / 15)),
    ]
    add_clips(Database.open(folder / "db", create=True), clips)
    lance.write_dataset(pa.Table.from_batches(rows), str(folder / "db" / "clips.lance"))
    return Database.open(folder / "db")


@cache
def scene() -> Truth:
    """Both hands of a rendered scene whose images are not drawn."""
    spec = SceneSpec("wave", seed=2, duration_s=NUM / 15, fps=15.0, width=640, height=360)
    return render_clip(spec).truth


def true_hands_px() -> np.ndarray:
    return scene().keypoints_px


def _with(row: pa.RecordBatch, segments: list[dict[str, Any]] | None = None, **cells: Any) -> pa.RecordBatch:
    for name, value in ({"thumbnail": jpeg((32, 18), 1, tiles=6)} | cells).items():
        at = row.schema.get_field_index(name)
        row = row.set_column(at, row.schema.field(at), cell_to_arrow(value, row.schema.field(at)))
    return row.append_column("segments", pa.array([segments], pa.list_(SEGMENT)))


def _path() -> np.ndarray:
    poses = np.tile(np.eye(4, dtype=np.float32), (NUM, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 0.1, NUM)
    poses[5] = np.nan
    return poses


def _hands_m() -> np.ndarray:
    """(T, 2, 21, 3) m: open hands half a metre ahead that move to the right."""
    k = np.arange(21)
    hand = np.stack([(k % 4) * 0.025, (k // 4) * 0.02 - 0.04, np.full(21, 0.5)], axis=-1)
    moved = np.linspace(0, 0.1, NUM)[:, None, None, None] * np.array([1.0, 0, 0])
    apart = np.array([-0.15, 0.05])[:, None, None] * np.array([1.0, 0, 0])
    return (hand + apart + moved).astype(np.float32)


def _hands_px() -> np.ndarray:
    x, y, z = np.moveaxis(_hands_m(), -1, 0)
    return np.stack([500 * x / z + 320, 500 * y / z + 180], axis=-1).astype(np.float32)


def _segment(start: int, end: int, phase: str) -> dict[str, Any]:
    roles = ("object_1", "hand_left") if phase == "grasping" else ("scene", "object_1")
    return {
        **dict.fromkeys(field.name for field in SEGMENT),
        **{"start_frame": start, "end_frame": end, "start_s": start / 15, "end_s": end / 15, "hand": "left"},
        **{"phase": phase, "master": roles[0], "slave": roles[1], "object_tracks": [0, 1, 2], "keyframes": []},
        **{"confidence": 0.9, "trajectory": [], "text": f"{phase} <i>it</i>"},
    }


@pytest.fixture(scope="module")
def address(db) -> Iterator[str]:
    with served(db) as at:
        yield at


def path_of(clip: Clip, **params: str) -> str:
    return f"/clip/{quote(clip.clip_id, safe='')}?{urlencode(params)}"


def wait_frame(page: Any, frame: int, of: str = ".clip-stage", name: str = "frame") -> None:
    page.wait_for_function(
        """([of, name, n]) => {
          const all = [...document.querySelectorAll(of)];
          return all.length > 0 && all.every(one => one.dataset[name] === n);
        }""",
        arg=[of, name, str(frame)],
    )


def wait_blank(page: Any, selector: str) -> None:
    """Until nothing is drawn on a canvas."""
    page.wait_for_function(
        """of => {
          const canvas = document.querySelector(of);
          const image = canvas?.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return image && image.data.every(value => value === 0);
        }""",
        arg=selector,
    )


def pixels(page: Any, selector: str) -> np.ndarray:
    """(h, w, 4) of a canvas as it is."""
    address = page.locator(selector).evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA"))


def test_image_layers_3d_and_timeline_are_on_one_clock(browser, address):
    with opened(browser, address, path_of(FULL)) as page:
        wait_frame(page, 0, name="image")
        wait_frame(page, 0, ".clip-space canvas")
        steps = (("ArrowRight", 1), ("Shift+ArrowRight", 11), ("ArrowLeft", 10), ("Home", 0), ("]", 5), ("]", 11))
        for key, frame in (*steps, ("[", 5)):
            page.keyboard.press(key)
            wait_frame(page, frame)
            wait_frame(page, frame, name="image")
            wait_frame(page, frame, ".clip-space canvas")
            assert page.get_by_role("slider", name="Time").get_attribute("aria-valuenow") == str(frame + 1)
        page.wait_for_function("() => location.search === '?t=0.333'")
        box = page.locator(".clip-plane").bounding_box()
        page.mouse.move(box["x"] + 1, box["y"] + 4)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 8.5 / NUM, box["y"] + 4, steps=3)
        page.mouse.up()
        wait_frame(page, 8, name="image")
        page.keyboard.press("Home")
        page.keyboard.press(" ")
        page.wait_for_function("() => Number(document.querySelector('.clip-stage').dataset.frame) > 2")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Play").wait_for()


def test_hands_are_drawn_where_they_are_and_layers_go_off(browser, address):
    with opened(browser, address, path_of(FULL, t="0.2")) as page:
        wait_frame(page, 3, name="image")
        page.locator(".clip-space canvas[data-frame='3']").wait_for()
        drawn = pixels(page, ".clip-overlay")
        scale = np.array(drawn.shape[1::-1]) / [640, 360]
        for x, y in ((_hands_px()[3] + 0.5) * scale).reshape(-1, 2).astype(int):
            assert drawn[y, x, 3] == 255
            assert drawn[y - 1 : y + 2, x - 1 : x + 2, :3].max() > 200
        space = Image.open(io.BytesIO(page.locator(".clip-space canvas").screenshot())).convert("RGB")
        near = np.abs(np.asarray(space, int) - HAND_COLORS[LEFT]).max(axis=-1) < 12
        assert near.sum() > 30, "no left hand in 3D"
        for key in "1234":
            page.keyboard.press(key)
        page.wait_for_function("() => location.search.includes('off=hands%2Ctracks%2Cthings%2Cothers')")
        wait_blank(page, ".clip-overlay")
        page.reload()
        wait_frame(page, 3, name="image")
        wait_blank(page, ".clip-overlay")
        page.keyboard.press("5")
        wait_blank(page, ".clip-image")


def test_tracks_are_those_that_show_draws(browser, address, db):
    row = row_arrays(db.row(FULL.clip_id))
    assert len(set(row["regrid_query_frame"])) == 2
    with opened(browser, address, path_of(FULL)) as page:
        page.locator(".clip-overlay").wait_for()
        shown = page.evaluate(
            """async ([id, num]) => {
              const { Clip, TRACK_ARRAYS } = await import("/static/js/row.js");
              const api = await import("/static/js/api.js");
              const facts = await api.get("/api/clip", { id });
              const clip = new Clip(facts);
              clip.add(await api.arrays(id, TRACK_ARRAYS.filter((name) => facts.arrays.includes(name))));
              const { tracks } = clip;
              const at = (frame, grid) => [...tracks.at(frame, grid).xy].map((value) => (isNaN(value) ? null : value));
              const two = (n) => [Math.max(n - 1, 0), n].map((frame) => at(frame, tracks.best(n)));
              return Array.from({ length: num }, (_, n) => two(n));
            }""",
            [FULL.clip_id, NUM],
        )
    for frame in range(NUM):
        two = window_tracks(row, np.array([max(frame - 1, 0), frame]), judged=np.array([frame]))
        known = np.where(two["track_visible"][..., None], two["track_points_px"], np.nan)
        found = np.array(shown[frame], float).reshape(2, -1, 2)
        np.testing.assert_allclose(found, known, rtol=1e-6, err_msg=str(frame))


def test_texts_are_texts_and_what_is_missing_is_told(browser, address):
    with opened(browser, address, path_of(FULL)) as page:
        page.get_by_role("heading", level=1).filter(has_text="onerror").wait_for()
        page.get_by_text("grasping <i>it</i>").wait_for()
        assert page.title() != "1"
        assert page.locator("h1 img, .clip-segment i").count() == 0
        assert "the video is gone" in page.locator(".clip-source").inner_text()
        assert "CC0-1.0" in page.locator(".clip-facts").first.inner_text()
        assert FULL.clip_id in page.locator("pre", has_text="import handloom").inner_text()
        with page.expect_download() as loaded:
            page.get_by_role("link", name=re.compile("parquet")).click()
        assert Path(loaded.value.path()).stat().st_size > 1000
    with opened(browser, address, path_of(BARE)) as page:
        page.get_by_text("No images of this clip are stored").wait_for()
        page.get_by_text("No position in 3D is known").wait_for()
        page.get_by_text("No actions are known").wait_for()
        page.keyboard.press("ArrowRight")
        wait_frame(page, 1)
    with opened(browser, address, "/clip/nothing%3A1", expected=(404,)) as page:
        page.get_by_role("alert").first.wait_for()
        assert "nothing:1" in page.locator("main").inner_text()


def test_a_video_and_what_is_drawn_over_it_are_in_step(browser, address):
    """The film's brightness tells which of its frames the browser shows."""
    with opened(browser, address, path_of(PLAYED, source="video")) as page:
        page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
        for frame in (3, 4, 9, 2):
            page.keyboard.press("Home")
            for _ in range(frame):
                page.keyboard.press("ArrowRight")
            wait_frame(page, frame)
            page.wait_for_function("() => !document.querySelector('video').seeking")
            level = page.locator("video").evaluate(
                """video => {
                  const small = new OffscreenCanvas(8, 8).getContext("2d");
                  small.drawImage(video, 0, 0, 8, 8);
                  return small.getImageData(4, 4, 1, 1).data[1];
                }"""
            )
            assert abs(level - (20 + 18 * frame)) < 8, (frame, level)
        page.keyboard.press("Home")
        page.keyboard.press(" ")
        page.wait_for_function("() => Number(document.querySelector('.clip-stage').dataset.frame) > 4")
        page.get_by_role("button", name="Stored frames").click()
        page.wait_for_selector(".clip-stage[data-image]")
        assert "source" not in parse_qs(urlsplit(page.url).query)


def test_two_clips_run_on_one_clock(browser, address):
    with opened(browser, address, path_of(FULL, **{"with": PLAYED.clip_id})) as page:
        page.locator(".clip-stage[data-image]").nth(1).wait_for()
        page.keyboard.press("Shift+ArrowRight")
        wait_frame(page, 10, name="image")
        page.get_by_text("Quality of both").wait_for()
        made = page.locator(".clip-panel", has=page.get_by_text("How they were made")).inner_text()
        assert "settings of A and B are not known" in made
        assert "estimated" in made or "none" in made
        page.get_by_role("button", name="Close the comparison").click()
        page.get_by_role("heading", name="Similar clips").wait_for()
        assert page.locator(".clip-stage").count() == 1
    lost = f"/clip/nothing%3A1?with={quote(PLAYED.clip_id)}"
    with opened(browser, address, lost, expected=(404,)) as page:
        page.get_by_role("alert").first.wait_for()
        wait_frame(page, 0, name="image")
        page.keyboard.press("End")
        wait_frame(page, NUM - 1, name="image")


@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_and_can_be_read(browser, address, width):
    for scheme in ("dark", "light"):
        for params in ({}, {"with": PLAYED.clip_id}):
            window = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
            with opened(browser, address, path_of(FULL, **params), **window) as page:
                page.locator(".clip-stage[data-image]").last.wait_for()
                page.locator(".clip-space canvas[data-frame]").last.wait_for()
                for part in ("html", "main"):
                    assert page.locator(part).evaluate("one => one.scrollWidth <= one.clientWidth"), part
                assert faults_of(page) == []


def test_a_page_that_is_left_gives_its_3d_back(browser, address):
    """Browsers have 16 such contexts: of more, the oldest is taken away with a warning, which fails this test."""
    with opened(browser, address, f"/clip/{quote(FULL.clip_id, safe='')}") as page:
        for _ in range(10):
            for words in ("dataset", "search"):
                page.locator(".clip-space canvas[data-frame]").wait_for()
                page.get_by_role("link", name=words, exact=False).first.click()
                page.locator(".clip-page").wait_for(state="detached")
                page.go_back()


def test_the_truth_is_found_and_drawn(browser, address):
    """The row's hands are the true ones, 12 pixels lower: dashes where they truly are, and an error of 12 pixels."""
    with opened(browser, address, path_of(TRUE, off="hands,tracks,things,others,image,body")) as page:
        wait_frame(page, 0)
        wait_blank(page, ".clip-overlay")
        page.get_by_role("button", name="Compare with the truth").click()
        page.get_by_role("heading", name="Against the truth").wait_for()
        assert "truth=1" in page.url
        page.wait_for_function(
            """() => {
              const canvas = document.querySelector(".clip-overlay");
              const image = canvas?.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              return image && image.data.some(value => value > 0);
            }"""
        )
        drawn = pixels(page, ".clip-overlay")
        scale = np.array(drawn.shape[1::-1]) / [640, 360]
        wrists = ((true_hands_px()[0, :, 0] + 0.5) * scale).astype(int)
        for x, y in wrists:
            assert drawn[y - 2 : y + 3, x - 2 : x + 3, 3].max() == 255
        panel = page.locator(".clip-panel", has=page.get_by_text("Against the truth")).inner_text()
        assert re.search(r"median error in the image\s+12 px", panel), panel
        page.get_by_role("img", name=re.compile("Error, image: ")).wait_for()
        page.keyboard.press("7")
        wait_blank(page, ".clip-overlay")


def test_without_webgl_a_sentence_stands_there_and_the_rest_works(browser, address):
    flags = ["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer", "--disable-3d-apis"]
    bare = browser.browser_type.launch(executable_path=find_chromium(), args=flags)
    with opened(bare, address, path_of(FULL)) as page:
        page.get_by_text("This browser draws no 3D here").wait_for()
        page.keyboard.press("ArrowRight")
        wait_frame(page, 1, name="image")
    bare.close()
