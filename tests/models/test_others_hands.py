"""Somebody else's hands in a rendered first-person clip: kept out of the wearer's columns, and in their own."""

from __future__ import annotations

import numpy as np
import pytest

from handloom.geometry.hands.tracklets import hand_size
from handloom.models.hands.offline import OfflineHands
from handloom.schemas.clip import Clip
from handloom.schemas.settings import HandsConfig
from handloom.schemas.tables.row import clips_schema, one_row, other_hands_cells, row_arrays
from handloom.schemas.values import LEFT, RIGHT, HandPoints, VideoInfo
from handloom.synth.render.render import render_clip
from handloom.synth.script.scene import Person, SceneSpec
from handloom.synth.truth import Truth
from handloom.video.decode.frame_store import FrameStore

HZ, NUM = 8.0, 12
SPEC = SceneSpec("reach", seed=8, hands="main", duration_s=NUM / HZ, fps=HZ, person=Person("opposite", "rotate"))
INFO = VideoInfo(SPEC.width, SPEC.height, HZ, "h264", "yuv420p", 0, 0.0, NUM / HZ, NUM)


@pytest.fixture(scope="module")
def rendered() -> tuple[np.ndarray, Truth]:
    clip = render_clip(SPEC)
    return np.stack(list(clip.images())), clip.truth


@pytest.fixture(scope="module")
def found(rendered) -> dict[str | None, HandPoints]:
    model = OfflineHands(HandsConfig())
    store = FrameStore(np.arange(NUM) / HZ)
    store.append(rendered[0])
    clips = {view: Clip("folder:x:0-1000", "folder", "x", "x.mp4", 0.0, 1.0, view=view) for view in ("ego", "exo")}
    return {view: model.extract(clip, INFO, store) for view, clip in clips.items()}


def apart(places: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) mean distance of (n, 21, 2) found hands from the nearest of (n, 2, 21, 2) true ones, in hand sizes."""
    away = np.linalg.norm(truth - places[:, None], axis=-1).mean(axis=-1)
    return np.nan_to_num(away, nan=np.inf).min(axis=1) / hand_size(places)


def test_the_wearers_columns_hold_the_wearers_hand_alone(found, rendered):
    hands, truth = found["ego"], rendered[1]
    frame, _ = np.nonzero(hands.visible)
    assert hands.visible[:, RIGHT].mean() > 0.9
    assert not hands.visible[:, LEFT].any()
    assert (apart(hands.keypoints_px[hands.visible], truth.keypoints_px[frame]) < 0.3).all()
    assert (hands.wearer_confidence[hands.visible] > 0.9).all()
    assert np.isnan(hands.wearer_confidence[~hands.visible]).all()
    assert hands.view == "ego"


def test_the_other_persons_hands_have_columns_of_their_own(found, rendered):
    others, truth = found["ego"].others, rendered[1]
    assert len(others.frame) > 0.7 * truth.other_hand_visible.sum()
    assert (apart(others.keypoints_px, truth.other_keypoints_px[others.frame]) < 0.3).all()
    assert (others.wearer_confidence < 0.1).all()
    assert set(others.hand) == {0, 1}
    assert (np.diff(others.frame) >= 0).all()
    assert len(set(zip(others.frame.tolist(), others.hand.tolist(), strict=True))) == len(others.frame)
    row = row_arrays(one_row(clips_schema(1), {"num_frames": NUM} | other_hands_cells(found["ego"])))
    assert row["other_hand_keypoints_px"].tobytes() == others.keypoints_px.tobytes()
    assert row["other_hand_number"].tolist() == others.hand.tolist()
    np.testing.assert_array_equal(row["hand_wearer_confidence"], found["ego"].wearer_confidence)


def test_from_outside_nobody_is_the_wearer(found):
    assert found["exo"].others is found["exo"].wearer_confidence is None
    cells = other_hands_cells(found["exo"])
    assert len(cells) == 7
    assert set(cells.values()) == {None}
