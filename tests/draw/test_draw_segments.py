"""The strip of segments, and the points of things on the image."""

import numpy as np
import pytest
from test_draw_show import black, images, make_row

from handloom.draw.overlay import draw_overlay
from handloom.draw.segments.listed import judged_text, segments_dict, segments_table
from handloom.draw.segments.strip import (
    BORDER_PX,
    CONTACT_COLOR,
    LANE_PX,
    MARGIN_PX,
    PHASE_COLORS,
    draw_segments,
    fitting,
    pale,
    segment_legend,
)
from handloom.draw.segments.things import THING_COLORS, moved_things
from handloom.draw.sheet import draw_legend, write_contact_sheet
from handloom.geometry.interactions.segments import BY_SHAPE
from handloom.stages.learned.rule_captions import read_out


def segment(start: int, end: int, hand: str, phase: str | None, **values):
    cell = {
        "start_s": 5.0 + start / 15, "end_s": 5.0 + end / 15, "start_frame": start, "end_frame": end, "hand": hand,
        "phase": phase, "master": "scene", "slave": f"hand_{hand}", "contact_start_s": None, "contact_end_s": None,
        "object_tracks": [], "text": None, "confidence": 0.9,
    }  # fmt: skip
    return cell | values


def row_with_segments():
    row = make_row(30)
    row["track_points_px"][:, 4], row["track_visible"][:, 4] = (320.0, 240.0), True
    held = {"master": "scene", "slave": "object_1", "object_tracks": [4], "contact_start_s": 5.8, "contact_end_s": 6.6}
    row["segments"] = [
        segment(0, 12, "right", "grasping", master="object_1"),
        segment(3, 9, "left", None),
        segment(12, 24, "right", "manipulation", text="lift object 1", **held),
    ]
    return row


def columns_with(panel, color):
    return np.flatnonzero((panel == color).all(-1).any(axis=0))


def test_the_strip_shows_time_phase_and_contact():
    row = row_with_segments()
    panel = draw_segments(row, 900)[: MARGIN_PX + 2 * (LANE_PX + 6)]
    grasping, moving, free = (columns_with(panel, PHASE_COLORS[p]) for p in ("grasping", "manipulation", None))
    contact = columns_with(panel, CONTACT_COLOR)
    assert grasping.max() < moving.min() <= contact.max()
    assert free.min() > grasping.min()
    assert abs((moving.max() - moving.min()) - (grasping.max() - grasping.min())) < 12, "both last 12 frames"
    rows = (panel == PHASE_COLORS[None]).all(-1).any(axis=1).nonzero()[0]
    assert rows.max() < (panel == PHASE_COLORS["grasping"]).all(-1).any(axis=1).nonzero()[0].min(), "a lane a hand"
    assert draw_segments(row, 40) is not None
    assert draw_segments(make_row(3), 900) is None


def test_neighbours_have_a_border_and_unsure_segments_are_pale_with_a_mark():
    row = row_with_segments()
    for one in row["segments"]:
        one["phase"] = "manipulation"
    green = PHASE_COLORS["manipulation"]
    lane = (draw_segments(row, 900) == green).all(-1)[MARGIN_PX + LANE_PX + 6 :]
    assert (np.diff(np.flatnonzero(lane.any(axis=0))) > BORDER_PX).sum() == 1, "two bars"
    assert not len(columns_with(draw_segments(row, 900), pale(green)))
    row["segments"][2]["confidence"] = float(np.float32(BY_SHAPE))
    panel = draw_segments(row, 900)
    assert columns_with(panel, pale(green)).min() > columns_with(panel, green).max()
    assert columns_with(panel, pale(CONTACT_COLOR)).size
    assert any("unsure" in words for _, words in segment_legend(row))


def test_words_are_never_cut_to_their_opposite():
    assert fitting("move without an object", "?", 80, may_cut=False) == "?"
    assert fitting("move without an object", "", 400, may_cut=False) == "move without an object"
    assert fitting("move object 12 to object 13", "?", 80, may_cut=True).endswith("?")
    assert fitting("lift object 1", "", 3, may_cut=True) == ""


def test_a_clip_without_actions_says_how_much_of_it_was_judged():
    row = make_row(50, segments=[])
    row["hand_visible"][:, 1] = True
    world = np.full((50, 2, 21, 3), np.nan, np.float32)
    world[:17, 1] = 0.5
    row["hand_keypoints_cam_m"], row["hand_keypoints_world_m"] = np.zeros((50, 2, 21, 3)), world
    assert judged_text(row) == "actions: none found; hands had a place in the world in 34 % of the frames"
    none, more = draw_segments(row, 900), row | {"hand_visible": np.ones((50, 2), bool)}
    assert len(draw_segments(more, 900)) - len(none) == LANE_PX + 6, "an empty lane a hand"
    assert segments_table(row) == judged_text(row)
    assert segments_dict(row)["hands_placed"] == pytest.approx(0.34)
    found = row | {"segments": [segment(0, 12, "right", None)]}
    assert judged_text(found).startswith("actions: 1 found; ")
    assert judged_text(found | {"hand_keypoints_world_m": np.zeros((50, 2, 21, 3))}) is None
    assert "in the camera's frame in 100 %" in judged_text(row | {"hand_keypoints_world_m": None})
    assert "not known" in segments_table(make_row(3))


def test_the_table_of_a_terminal_says_what_the_strip_shows():
    row = row_with_segments()
    row["segments"][0]["confidence"] = 0.1
    lines = segments_table(row).splitlines()
    assert lines[0].split() == ["hand", "from", "to", "action", "thing", "confidence", "contact"]
    assert lines[1].split() == [
        "right",
        "5.00",
        "s",
        "5.80",
        "s",
        "reach",
        "for",
        "object",
        "1",
        "object_1",
        "0.10",
        "?",
        "-",
    ]
    assert lines[2].split() == ["left", "5.20", "s", "5.60", "s", "move", "without", "an", "object", "-", "0.90", "-"]
    assert lines[3].split() == [
        "right",
        "5.80",
        "s",
        "6.60",
        "s",
        "lift",
        "object",
        "1",
        "object_1",
        "0.90",
        "5.80",
        "to",
        "6.60",
        "s",
    ]
    assert lines[4].startswith("?: unsure")
    row["segments"][2]["text"] = None
    assert segments_dict(row)["segments"][2]["text"] == "move object 1", "as the caption says"
    assert "move object 1" in read_out(row)[0]


def test_points_of_a_thing_are_marked_while_a_hand_moves_it():
    row = row_with_segments()
    for index, marked in ((2, False), (15, True), (26, False)):
        image = draw_overlay(black(640, 480), row, index)
        assert (image[240, 320] == THING_COLORS[0]).all() == marked
    row["track_visible"][:] = False
    assert not (draw_overlay(black(640, 480), row, 15) == THING_COLORS[0]).all(-1).any()


def path_along(axis: int, start_m: float, step_m: float, num: int):
    poses = np.tile(np.eye(4), (num, 1, 1))
    poses[:, axis, 3] = start_m + step_m * np.arange(num)
    return poses


def test_a_thing_rests_before_between_and_after_its_segments():
    row = make_row(30)
    box = {"object_box_m": [-0.1] * 3 + [0.1] * 3}
    first, second = path_along(0, 0.0, 0.01, 5), path_along(0, 0.04, 0.01, 4)
    second[-1] = np.nan
    onto = path_along(1, 0.3, 0.0, 3)
    row["segments"] = [
        segment(5, 10, "right", "manipulation", slave="object_1", trajectory=first.reshape(-1, 16), **box),
        segment(12, 15, "left", "manipulation", slave="object_2", master="object_1", trajectory=onto, **box),
        segment(20, 24, "right", "manipulation", slave="object_1", trajectory=second.reshape(-1, 16), **box),
        segment(25, 28, "right", "manipulation", slave="object_3", trajectory=[], object_box_m=None),
    ]
    one, other = moved_things(row)
    assert (one.name, other.name) == ("object_1", "object_2")
    np.testing.assert_allclose(one.poses[:20, 0, 3], [*[0.0] * 5, *first[:, 0, 3], *[0.04] * 10])
    assert np.isnan(one.poses[23:]).all(), "it was lost from sight in the hand"
    np.testing.assert_allclose(other.poses[:, :2, 3], np.tile([0.04, 0.3], (30, 1)))
    assert moved_things(make_row(3)) == []


def test_the_legend_names_what_the_strip_shows(tmp_path):
    row = row_with_segments()
    legend = [words for _, words in segment_legend(row)]
    assert legend[:3] == ["reaches for an object", "moves an object", "moves without an object"]
    assert legend[3].startswith("contact")
    assert segment_legend(make_row(3)) == []
    assert (draw_legend(row, 1200, False) == PHASE_COLORS["manipulation"]).all(-1).any()
    write_contact_sheet(images(row), row, tmp_path / "sheet.png", num_frames=4)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
