"""Hands and tracks are drawn where they are, nothing is drawn that was not seen, and every row can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from handloom.draw.certainty import scale_text
from handloom.draw.frame import draw_frame, draw_header, quality_words
from handloom.draw.frames import frames_from_row
from handloom.draw.overlay import HAND_COLORS, OTHER_COLOR, draw_overlay
from handloom.draw.sheet import draw_legend, write_contact_sheet
from handloom.draw.show import check_suffix, write_overlay_video, write_show
from handloom.draw.text import fit_text, put_text, text_width
from handloom.errors import ConfigError, StoreError
from handloom.schemas.settings import FramesConfig
from handloom.schemas.tables.frame_flags import FrameFlag
from handloom.schemas.tables.later_grids import grid_columns
from handloom.schemas.values import LEFT, RIGHT, LaterGrid
from handloom.video.stored_frames import FrameKeeper

SOURCE = (640, 480)


def make_row(num_frames: int = 6, num_tracks: int = 9, **changes: Any) -> dict[str, Any]:
    """A row as `row_arrays` gives it: no hand seen, every track lost."""
    row: dict[str, Any] = {
        "clip_id": "t:kitchen:0-400",
        "narration": None,
        "width": SOURCE[0],
        "height": SOURCE[1],
        "frame_s": 5.0 + np.arange(num_frames) / 15,
        "hand_visible": np.zeros((num_frames, 2), bool),
        "hand_infilled": np.zeros((num_frames, 2), bool),
        "hand_confidence": np.full((num_frames, 2), np.nan, np.float32),
        "hand_keypoints_px": np.full((num_frames, 2, 21, 2), np.nan, np.float32),
        "track_points_px": np.full((num_frames, num_tracks, 2), np.nan, np.float32),
        "track_visible": np.zeros((num_frames, num_tracks), bool),
        "quality": {"hand_coverage_left": 0.5, "track_survival": 0.25, "blur": None},
        "frame_jpeg": None,
    }
    return {**row, **changes}


def show_hand(row: dict[str, Any], hand: int, centre_px: tuple[float, float], size_px: float = 60.0) -> dict[str, Any]:
    ring = np.stack([np.cos(np.arange(21)), np.sin(np.arange(21))], axis=-1) * size_px
    row["hand_keypoints_px"][:, hand] = ring + centre_px
    row["hand_visible"][:, hand] = True
    row["hand_confidence"][:, hand] = 0.9
    return row


def black(width: int = 320, height: int = 240) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), np.uint8)


def images(row: dict[str, Any], width: int = 320, height: int = 240) -> list[tuple[float, NDArray[np.uint8]]]:
    return [(float(s), black(width, height)) for s in row["frame_s"]]


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(40, 600), y=st.floats(40, 440), scale=st.sampled_from([0.5, 1.0, 1.5, 2.0]), stretch=st.floats(0.7, 1.4)
)
def test_a_track_is_drawn_where_its_source_pixel_is(x: float, y: float, scale: float, stretch: float) -> None:
    row = make_row(num_tracks=1)
    row["track_points_px"][2, 0] = x, y
    row["track_visible"][2, 0] = True
    width, height = round(SOURCE[0] * scale * stretch), round(SOURCE[1] * scale)
    weights = draw_overlay(black(width, height), row, 2).sum(axis=-1).astype(float)
    rows, columns = np.mgrid[:height, :width]
    found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    expected = (np.array([x, y]) + 0.5) * [width / SOURCE[0], height / SOURCE[1]] - 0.5
    assert np.abs(found - expected).max() < 0.35


def test_only_the_visible_is_drawn() -> None:
    row = make_row()
    row["hand_keypoints_px"][:] = 100.0  # values that are not `visible` are not drawn
    row["track_points_px"][:] = 100.0
    assert not draw_overlay(black(), row, 3).any()


@pytest.mark.parametrize("missing", ["hand_visible", "hand_keypoints_px", "track_points_px", "track_visible"])
def test_a_column_that_was_not_computed_draws_nothing(missing: str) -> None:
    full = show_hand(make_row(), LEFT, (300, 200))
    full["track_points_px"][:], full["track_visible"][:] = 440.0, True
    absent = "hand" if "hand" in missing else "track"
    without = {name: None if name.startswith(absent) else value for name, value in full.items()}
    image = draw_overlay(black(), {**full, missing: None}, 0)
    assert image.any()
    np.testing.assert_array_equal(image, draw_overlay(black(), without, 0))
    assert not np.array_equal(image, draw_overlay(black(), full, 0))


def test_hands_of_others_are_grey() -> None:
    places = np.random.default_rng(0).uniform(200, 260, (1, 21, 2)).astype(np.float32)
    row = make_row() | {"other_hand_frame": np.array([2], np.int32), "other_hand_keypoints_px": places}
    image = draw_overlay(black(*SOURCE), row, 2)
    assert (image == OTHER_COLOR).all(axis=-1).sum() > 100
    assert (np.ptp(image.astype(int), axis=-1) == 0).all()
    assert not draw_overlay(black(*SOURCE), row, 3).any()
    assert (draw_legend(row, 1200, False) == OTHER_COLOR).all(axis=-1).any()
    assert not (draw_legend(make_row(), 1200, False) == OTHER_COLOR).all(axis=-1).any()


def test_the_hands_have_their_own_colours_and_places() -> None:
    row = show_hand(show_hand(make_row(), LEFT, (450, 240)), RIGHT, (150, 240))
    image = draw_overlay(black(*SOURCE), row, 0)
    for hand, centre in ((LEFT, 450), (RIGHT, 150)):
        columns = np.nonzero((image == HAND_COLORS[hand]).all(axis=-1))[1]
        assert len(columns) > 100
        assert np.abs(columns - centre).max() < 75


def test_a_tail_follows_a_moving_track_and_breaks_where_it_was_lost() -> None:
    row = make_row(num_frames=12, num_tracks=1)
    row["track_points_px"][:, 0] = np.stack([200 + 4.0 * np.arange(12), np.full(12, 240.0)], axis=-1)
    row["track_visible"][:, 0] = True
    assert np.nonzero(draw_overlay(black(*SOURCE), row, 11))[1].min() == pytest.approx(200 + 4 * 4, abs=3)
    row["track_visible"][8, 0] = False
    assert np.nonzero(draw_overlay(black(*SOURCE), row, 11))[1].min() == pytest.approx(200 + 4 * 9, abs=3)


@settings(max_examples=20, deadline=None)
@given(
    value=st.sampled_from([np.nan, np.inf, -1e9, 1e9, -50.0, 0.0, 700.0]),
    num_tracks=st.integers(0, 3),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_odd_values_and_sizes_are_drawn_without_harm(value: float, num_tracks: int, size: tuple[int, int]) -> None:
    row = make_row(num_frames=4, num_tracks=num_tracks)
    row["hand_keypoints_px"][:] = value
    row["hand_keypoints_px"][:, :, ::2] = 50.0
    row["hand_visible"][:] = True
    row["track_points_px"][1:] = value
    row["track_visible"][:] = True
    assert draw_overlay(black(*size), row, 3).shape == (size[1], size[0], 3)


def test_the_header_covers_no_image_and_never_changes_height() -> None:
    row = show_hand(make_row(narration="öffnet die Schublade " * 30), LEFT, (100, 100))
    drawn = [draw_frame(black(640, 480), row, index) for index in range(6)]
    assert len({image.shape for image in drawn}) == 1
    for index, image in enumerate(drawn):
        np.testing.assert_array_equal(image[-480:], draw_overlay(black(640, 480), row, index))


def test_without_a_narration_the_header_shows_verb_and_noun() -> None:
    told, named, silent = (
        draw_header(make_row() | words, 640, 16, "")
        for words in ({"narration": "open drawer"}, {"narration": None, "verb": "open", "noun": "drawer"}, {})
    )
    np.testing.assert_array_equal(named, told)
    assert silent.shape[0] < told.shape[0]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200), width=st.integers(1, 400), size_px=st.integers(6, 30))
def test_any_text_fits_its_place(text: str, width: int, size_px: int) -> None:
    short = fit_text(text, size_px, width)
    assert text_width(short, size_px) <= max(width, text_width("...", size_px))
    put_text(black(), short, (-3.0, 230.5), size_px, (255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize("words", [("Schlüssel", "Schlossel"), ("œuf à la coque", "... a la coque")])
def test_letters_beyond_ascii_are_drawn(words: tuple[str, str]) -> None:
    images = [black() for _ in words]
    for image, word in zip(images, words, strict=True):
        put_text(image, word, (5, 5), 20, (255, 255, 255))
    assert images[0].any()
    assert not np.array_equal(*images)


@pytest.mark.parametrize("name", ["out.gif", "out", "out.mp4.txt"])
def test_another_suffix_is_refused_with_what_is_possible(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.png .*\.mp4"):
        check_suffix(name)


@pytest.mark.parametrize("num_frames", [1, 5, 13])
@pytest.mark.parametrize("size", [(320, 240), (90, 160), (641, 361)])
def test_a_contact_sheet_of_any_clip(tmp_path: Path, num_frames: int, size: tuple[int, int]) -> None:
    row = show_hand(make_row(num_frames), RIGHT, (300, 200))
    write_show(images(row, *size), row, tmp_path / "sheet.PNG")
    image = cv2.imread(str(tmp_path / "sheet.PNG"))
    tiles = min(num_frames, 12)
    assert image.size / 3 > 0.8 * tiles * 270 * 270 * max(size) / min(size)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.PNG"]


@pytest.mark.parametrize("name", ["HAND_UNSUPPORTED_RIGHT", "HAND_SIDE_UNSURE_RIGHT"])
def test_a_doubted_hand_has_a_question_mark_and_the_legend_says_why(name: str) -> None:
    row = show_hand(make_row(3), RIGHT, (300, 200))
    flagged = row | {"frame_flags": np.array([0, FrameFlag[name], FrameFlag.HAND_UNSUPPORTED_LEFT], np.int32)}
    image = np.zeros((480, 640, 3), np.uint8)
    for index, differs in ((0, False), (1, True), (2, False)):
        drawn, plain = (draw_overlay(image, each, index, letters_only=True) for each in (flagged, row))
        assert (drawn != plain).any() == differs
    assert draw_legend(flagged, 300, False).shape[0] > draw_legend(row, 300, False).shape[0]


def test_the_head_says_what_is_odd_of_the_clip() -> None:
    row = make_row(3) | {"quality": {"num_cuts": 2.0}, "view": "ego", "hand_view": "exo"}
    assert [text for text, _ in quality_words(row)][:2] == ["2 cuts", "view exo, not ego"]
    plain = make_row(3) | {"quality": {"num_cuts": 0.0}, "view": None, "hand_view": "exo"}
    assert not [text for text, _ in quality_words(plain) if "cut" in text or "view" in text]


def test_the_legend_explains_what_the_sheet_shows() -> None:
    row = show_hand(make_row(3), RIGHT, (300, 200))
    full, bare = draw_legend(row, 1200, True), draw_legend({"world_scale": "none"}, 1200, False)
    for color in (HAND_COLORS[LEFT], HAND_COLORS[RIGHT]):
        assert (full == color).all(-1).any()
        assert not (bare == color).all(-1).any()
    assert (bare.max(axis=(1, 2)) > 100).any()  # it still has words
    assert len(draw_legend(row, 300, True)) > len(full) > len(bare)
    draw_legend(row, 40, True)  # narrower than any word
    assert [scale_text({"world_scale": scale}).split(":")[0] for scale in ("metric", "arbitrary", "none", None)] == [
        "world in metres, to scale", "path's scale unknown", "no world", "no world",
    ]  # fmt: skip
    assert "(pure_rotation)" in scale_text({"world_scale": "none", "camera_path_reason": "pure_rotation"})


def test_a_contact_sheet_reads_no_more_frames_than_it_shows(tmp_path: Path) -> None:
    row = make_row(100)
    frames = iter(images(row))
    write_contact_sheet(frames, row, tmp_path / "sheet.png", columns=2, num_frames=4)
    assert len(list(frames)) == 100 - 88  # the middle of the last quarter is frame 87
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 2 * (360 + 6) + 6


@pytest.mark.parametrize(("num_frames", "size"), [(1, (320, 240)), (7, (641, 361)), (4, (91, 161))])
def test_a_video_of_any_clip(tmp_path: Path, num_frames: int, size: tuple[int, int]) -> None:
    row = show_hand(make_row(num_frames, narration="режет 野菜"), LEFT, (300, 200))
    write_show(images(row, *size), row, tmp_path / "out.mp4")
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    read = []
    while (frame := video.read())[0]:
        read.append(frame[1])
    height, width = draw_frame(black(*size), row, 0).shape[:2]
    assert [image.shape for image in read] == [(height + height % 2, width + width % 2, 3)] * num_frames
    assert num_frames == 1 or video.get(cv2.CAP_PROP_FPS) == pytest.approx(15, rel=0.01)


def test_stored_frames_stand_in_for_the_video(tmp_path: Path) -> None:
    row = make_row(5)
    keeper = FrameKeeper(FramesConfig())
    keeper.begin(5)
    frames = np.stack([np.full((120, 160, 3), (200, 40 * n, 30), np.uint8) for n in range(5)])
    keeper.feed(frames, row["frame_s"])
    row["frame_jpeg"], _ = keeper.finish()
    back = list(frames_from_row(row))
    assert [time_s for time_s, _ in back] == row["frame_s"].tolist()
    assert np.abs(np.stack([image for _, image in back]).astype(int) - frames).max() < 6
    write_show(frames_from_row(row), row, tmp_path / "sheet.png")
    row["frame_jpeg"][3] = b"no image"
    with pytest.raises(StoreError, match=r"stored frame 3 of clip t:kitchen:0-400 is no JPEG"):
        list(frames_from_row(row))


def test_a_row_without_stored_frames_says_so() -> None:
    with pytest.raises(ConfigError, match="no stored frames"):
        frames_from_row(make_row())


@pytest.mark.parametrize("name", ["out.png", "out.mp4"])
def test_frames_of_another_video_are_refused(tmp_path: Path, name: str) -> None:
    row = make_row()
    with pytest.raises(ConfigError, match=r"found 0 of the 6 frames .*kitchen"):
        write_show([(s + 0.03, image) for s, image in images(row)], row, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_video_with_frames_missing_is_refused(tmp_path: Path) -> None:
    row = make_row()
    with pytest.raises(ConfigError, match="found 4 of the 6 frames"):
        write_overlay_video(images(row)[:4], row, tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.lists(st.floats(0, 6), max_size=5))
def test_frames_between_the_rows_own_are_passed_over(tmp_path: Path, extra: list[float]) -> None:
    row = make_row()
    own = {float(s) for s in row["frame_s"]}
    others = [(s, black()[:, ::2]) for s in extra if min(abs(s - o) for o in own) > 0.01]
    frames = sorted([*images(row), *others], key=lambda frame: frame[0])
    write_overlay_video(frames, row, tmp_path / "out.mp4")
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 6


@pytest.mark.parametrize("name", ["out.png", "out.mp4"])
def test_folders_are_made_and_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, name: str) -> None:
    write_show(images(make_row()), make_row(), tmp_path / "a" / "b" / name)
    assert [one.name for one in (tmp_path / "a" / "b").iterdir()] == [name]
    (tmp_path / "taken").touch()
    with pytest.raises(StoreError, match=r"cannot write .*taken.*File exists"):
        write_show(images(make_row()), make_row(), tmp_path / "taken" / name)


def test_the_grid_in_force_is_drawn_and_its_tail_begins_with_it() -> None:
    row = make_row(num_frames=12, num_tracks=1, track_query_frame=np.zeros(1, np.int32))
    row["track_points_px"][:6, 0], row["track_visible"][:6, 0] = (100.0, 240.0), True
    points = np.stack([400 + 4.0 * np.arange(5), np.full(5, 240.0)], axis=-1)[:, None].astype(np.float32)
    row |= grid_columns((LaterGrid(7, points, np.ones((5, 1), bool)),), None, 1)
    drawn = [np.nonzero(draw_overlay(black(*SOURCE), row, index))[1] for index in (3, 6, 8, 11)]
    assert np.abs(drawn[0] - 100).max() < 5
    assert not len(drawn[1])
    assert (drawn[2].min(), drawn[2].max()) == (pytest.approx(400, abs=3), pytest.approx(404, abs=3))
    assert (drawn[3].min(), drawn[3].max()) == (pytest.approx(400, abs=3), pytest.approx(416, abs=3))
