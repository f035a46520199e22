"""The stage `body`: the real network on a photograph, and what is believed of its readings."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest
from support.people import PORTRAIT, scene
from support.rows import make_clip

from handloom.draw.overlay import BODY_COLOR, draw_overlay
from handloom.draw.sheet import draw_legend
from handloom.geometry.bodies import (
    BODY_BONES,
    BODY_KEYPOINTS,
    MIN_SURE,
    MIRROR,
    NUM_BODY_KEYPOINTS,
    WRISTS,
    BodyReading,
    believed,
    mirrored,
    whose_body,
)
from handloom.models.pose import PoseNetwork
from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import row_arrays
from handloom.stages.own import compute_own
from handloom.stages.registry import stage_graph
from handloom.stages.stage import ClipInput

AT = {name: number for number, name in enumerate(BODY_KEYPOINTS)}


def portrait(left: int = 160, width: int = 455) -> np.ndarray:
    """(256, width, 3): a room, with a woman from the waist up, 200 px wide, from `left` on."""
    image = scene(None, width)[:256].copy()
    person = cv2.resize(cv2.imread(str(PORTRAIT))[..., ::-1], (200, 235), interpolation=cv2.INTER_AREA)
    image[21:256, left : left + 200] = person
    return image


@pytest.fixture(scope="module")
def network():
    found = PoseNetwork()
    yield found
    found.close()


@pytest.fixture(scope="module")
def own():
    declared = stage_graph(Settings(stages={"body": {"class": "handloom.stages.learned:Body"}}))["body"]
    declared.stage.load()
    yield declared
    declared.stage.close()


def row_of(own, frames: np.ndarray, **more) -> dict:
    """The stage's columns for a clip of these frames, whose video is twice as large."""
    num = len(frames)
    row = {
        "width": 2 * frames.shape[2],
        "height": 2 * frames.shape[1],
        "num_frames": num,
        "frame_s": np.arange(num) / 10,
        "view": None,
        "hand_visible": np.zeros((num, 2), bool),
        "hand_keypoints_px": np.full((num, 2, 21, 2), np.nan, np.float32),
    }
    given = ClipInput(make_clip(0), row | more, frames, np.arange(num), np.arange(num) / 10)
    (cells,) = compute_own(own, [given])
    assert isinstance(cells, dict), cells
    columns = {field.name: cells[field.name] for field in own.fields}
    return row_arrays(pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(own.fields)))


def test_keypoints_of_the_other_side():
    assert len(set(BODY_KEYPOINTS)) == NUM_BODY_KEYPOINTS == 33
    assert np.array_equal(MIRROR[MIRROR], np.arange(33))
    assert [BODY_KEYPOINTS[n] for n in MIRROR[[0, 2, 9, 15, 31]]] == [
        *("nose", "right_eye", "mouth_right", "right_wrist", "right_foot_index"),
    ]
    assert all(BODY_KEYPOINTS[a].split("_")[0] for a, _ in BODY_BONES)


def test_a_person_is_found_where_she_is(own):
    """In pixels of the video, her own left at the image's right, and moved with her."""
    frames = np.stack([portrait(160), portrait(170), portrait(190)])
    row = row_of(own, frames)
    assert row["body_visible"].all()
    points = row["body_keypoints_px"].reshape(3, 33, 2)
    nose, left, right = (points[:, AT[name]] for name in ("nose", "left_shoulder", "right_shoulder"))
    assert np.abs(nose[0] - [2 * 253, 2 * 98]).max() < 30, "the nose, looked up in the picture"
    assert (left[:, 0] > nose[:, 0]).all()
    assert (right[:, 0] < nose[:, 0]).all()
    moved = points[1:, :11] - points[:1, :11]
    assert np.abs(np.nanmedian(moved, axis=1) - [[20, 0], [60, 0]]).max() < 8
    hip_m = row["body_keypoints_hip_m"].reshape(3, 33, 3)
    hips = (hip_m[:, AT["left_hip"]] + hip_m[:, AT["right_hip"]]) / 2
    assert np.nanmax(np.abs(hips), initial=0) < 0.02
    shoulders = np.linalg.norm(hip_m[:, AT["left_shoulder"]] - hip_m[:, AT["right_shoulder"]], axis=-1)
    assert ((shoulders > 0.2) & (shoulders < 0.5)).all()
    assert (hip_m[:, AT["nose"], 1] < -0.3).all(), "y is down: the nose is above the hips"
    assert (row["body_confidence"] > 0.9).all()
    assert (row["body_keypoint_visibility"][:, AT["nose"]] > 0.9).all()
    assert row["body_person"] is None, "no hand tells whose it is"
    assert row_of(own, frames, view="ego")["body_person"] == "other"


def test_where_nobody_is_all_is_unknown(own):
    """Nor in one frame of three: a body that is there for a moment is not believed."""
    for frames in (np.stack([scene(None, 455)[:256]] * 3), np.stack([portrait(), *[scene(None, 455)[:256]] * 2])):
        row = row_of(own, frames, view="ego")
        assert not row["body_visible"].any()
        for name in ("body_confidence", "body_keypoints_px", "body_keypoint_visibility", "body_keypoints_hip_m"):
            assert np.isnan(row[name]).all(), name
        assert row["body_person"] is None


def test_the_mirrored_image_has_the_mirrored_body(network):
    """Exactly, left and right changed: both images are read for each."""
    image = portrait()
    (one, apart), (other, _) = network.read_both(image), network.read_both(np.ascontiguousarray(image[:, ::-1]))
    assert one is not None
    assert other is not None
    assert np.quantile(apart, 0.75) < 0.1
    back = mirrored(other, image.shape[1])
    assert np.allclose(back.points_px, one.points_px, atol=1e-9)
    assert np.allclose(back.hip_m, one.hip_m, atol=1e-9)
    assert back.presence == one.presence


def reading(shift: float = 0.0, presence: float = 1.0, detection: float = 0.9) -> BodyReading:
    points = np.stack([np.arange(33.0) * 3 + shift, np.arange(33.0)], axis=1)
    return BodyReading(points, np.zeros((33, 3)), np.ones(33), presence, detection)


def kept(readings: list, apart: list[float], hz: float = 10.0) -> list[int]:
    spread = np.repeat(np.array(apart)[:, None], 33, axis=1)
    return np.flatnonzero(believed(np.arange(len(readings)) / hz, readings, spread)).tolist()


def test_a_run_with_sure_frames_is_believed():
    sure, fair, none = (reading(), 0.05), (reading(detection=0.4), 0.12), (None, np.nan)

    def of(*frames):
        return kept([one for one, _ in frames], [apart for _, apart in frames])

    assert of(*[fair] * 8) == []
    assert of(*[sure] * (MIN_SURE - 1), *[none] * 6) == []
    assert of(fair, sure, sure, none, sure, fair, none) == [0, 1, 2, 4, 5]
    assert of(sure, sure, none, none, none, sure, sure) == [], "0.4 s apart: two runs of two"
    assert of(sure) == [0], "a clip of one frame"
    assert kept([reading()] * 4, [0.05] * 4, hz=1.0) == [0, 1, 2, 3], "frames a second apart follow each other"
    assert of(*[(reading(presence=0.4), 0.05)] * 4) == []
    jumps = [reading(), reading(900), reading(), reading(900)]
    assert kept(jumps, [0.05] * 4) == [], "another body in each frame"


def test_whose_body_it_is():
    """The hands' wrists are at its wrists, or they are not; a forearm is 40 px."""
    bodies = np.full((5, 33, 2), np.nan)
    bodies[:, WRISTS[0]], bodies[:, AT["left_elbow"]] = (100, 100), (100, 60)
    hands, seen = np.full((5, 2, 21, 2), np.nan), np.zeros((5, 2), bool)
    assert whose_body(bodies, hands, seen, None) is None
    hands[:, 1], seen[:, 1] = (115, 100), True
    assert whose_body(bodies, hands, seen, None) == "actor"
    assert whose_body(bodies, hands, seen, "ego") == "other"
    hands[:, 1] = (130, 100)
    assert whose_body(bodies, hands, seen, "exo") is None
    assert whose_body(np.full_like(bodies, np.nan), hands, seen, "ego") is None


def test_what_is_known_is_drawn():
    """Not a keypoint that is out of sight, or unknown; the legend says whose it is."""
    points = np.full((1, 33, 2), np.nan, np.float32)
    points[0, [AT["left_shoulder"], AT["right_shoulder"], AT["left_hip"]]] = [[100, 20], [20, 20], [100, 90]]
    visibility = np.ones((1, 33), np.float32)
    row = {"width": 120, "height": 100, "frame_s": np.zeros(1), "body_visible": np.ones(1, bool)}
    row |= {"body_keypoints_px": points.reshape(1, 66), "body_keypoint_visibility": visibility}
    image = draw_overlay(np.zeros((100, 120, 3), np.uint8), row, 0)
    assert np.abs(image[20, 60].astype(int) - BODY_COLOR).max() < 30
    assert image[20:90, 100].max(axis=1).all()
    visibility[0, AT["left_hip"]] = 0.2
    image = draw_overlay(np.zeros((100, 120, 3), np.uint8), row, 0)
    assert not image[60:, 100].any()
    legend = {person: draw_legend(row | {"body_person": person}, 600, False) for person in ("actor", "other", None)}
    assert not np.array_equal(legend["actor"], legend["other"])
    assert (legend[None] == BODY_COLOR).all(axis=-1).any()
