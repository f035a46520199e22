"""MediaPipe's real models on rendered scenes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from handloom.errors import ClipError
from handloom.geometry.hands.pnp import place_hands
from handloom.models.hands.mediapipe_graph import MediaPipeHands, build_graph
from handloom.models.quiet import quiet_stderr
from handloom.schemas.clip import Clip
from handloom.schemas.settings import HandsConfig
from handloom.schemas.values import RIGHT, Camera, Hands, VideoInfo
from handloom.synth.render.render import RenderedClip, render_clip
from handloom.synth.script.scene import SceneSpec
from handloom.video.decode.frame_store import FrameStore

Source = tuple[np.ndarray, np.ndarray, VideoInfo, Camera, Clip]


@pytest.fixture(scope="module")
def model() -> MediaPipeHands:
    return MediaPipeHands(HandsConfig())


@pytest.fixture(scope="module")
def rendered() -> RenderedClip:
    return render_clip(SceneSpec("pick-place", "apple", main_hand=RIGHT, seed=1, duration_s=1.0, fps=10.0))


@pytest.fixture(scope="module")
def scene(rendered) -> Source:
    frames = np.stack(list(rendered.images()))
    info = VideoInfo(frames.shape[2], frames.shape[1], 10.0, "h264", "yuv420p", 0, 0.0, 1.0, len(frames))
    return frames, rendered.truth.frame_s, info, Camera(rendered.truth.camera_matrix, "given"), clip("scene")


def clip(name: str, camera: str | None = None, view: str | None = None) -> Clip:
    return Clip(f"folder:{name}:0-1000", "folder", name, f"{name}.mp4", 0.0, 1.0, camera=camera, view=view)


def extract(model: MediaPipeHands, source: Source) -> Hands:
    frames, frame_s, info, camera, which = source
    store = FrameStore(frame_s)
    store.append(frames)
    return place_hands(model.extract(which, info, store), camera)


def as_bytes(hands: Hands) -> dict[str, bytes]:
    arrays = ("visible", "infilled", "confidence", "keypoints_px", "keypoints_cam_m")
    return {name: getattr(hands, name).tobytes() for name in arrays}


def share_correct(hands: Hands, truth_px: np.ndarray) -> tuple[float, float]:
    """Share of visible hands that match the true hand of their slot, and their median distance from it, pixels."""
    distance = np.linalg.norm(hands.keypoints_px[:, :, None] - truth_px[:, None], axis=-1).mean(-1)  # (T, slot, true)
    distance = np.where(np.isnan(distance), np.inf, distance)[hands.visible]
    slots = np.nonzero(hands.visible)[1]
    return float((distance.argmin(axis=1) == slots).mean()), float(np.median(distance.min(axis=1)))


def test_rendered_hands_are_found_where_they_are(model, scene, rendered):
    hands = extract(model, scene)
    truth = rendered.truth
    assert hands.visible.sum() >= 0.8 * truth.hand_visible.sum()
    correct, median_px = share_correct(hands, truth.keypoints_px)
    assert correct == 1.0
    assert median_px < 20
    error_m = np.linalg.norm(hands.keypoints_cam_m - truth.keypoints_cam_m, axis=-1)[hands.visible]
    assert np.isfinite(error_m).all()
    assert np.median(error_m) < 0.15


def test_hands_that_are_not_visible_are_nan(model, scene):
    hands = extract(model, scene)
    assert hands.keypoints_px.dtype == hands.keypoints_cam_m.dtype == hands.confidence.dtype == np.float32
    assert not hands.infilled.any()
    for values in (hands.confidence, hands.keypoints_px, hands.keypoints_cam_m):
        assert np.isnan(values[~hands.visible]).all()
    assert (hands.confidence[hands.visible] > HandsConfig().min_tracking_confidence).all()
    nothing = extract(model, (np.zeros((3, 90, 160, 3), np.uint8), np.arange(3) / 15, *scene[2:]))
    assert nothing.visible.shape == (3, 2)
    assert not nothing.visible.any()
    assert extract(model, (scene[0][:0], scene[1][:0], *scene[2:])).keypoints_px.shape == (0, 2, 21, 2)


def test_a_clip_has_the_same_bytes_whatever_ran_before(model, scene):
    first = as_bytes(extract(MediaPipeHands(HandsConfig()), scene))
    extract(model, (scene[0][:5], scene[1][:5], *scene[2:]))
    assert as_bytes(extract(model, scene)) == first


def test_pixels_are_the_sources(model, scene):
    frames, frame_s, info, camera, which = scene
    small = np.stack([cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in frames])
    full, shrunk = extract(model, scene), extract(model, (small, frame_s, info, camera, which))
    both = full.visible & shrunk.visible
    assert both.sum() > 5
    shift = (full.keypoints_px - shrunk.keypoints_px)[both].mean(axis=(0, 1))
    assert np.abs(shift).max() < 4  # the same place, in an image of half the size


def test_frames_of_a_wrong_shape_reject_the_clip_and_not_the_next(model, scene):
    frames, frame_s, info, camera, which = scene
    before = as_bytes(extract(model, scene))
    with pytest.raises(ClipError) as raised:
        extract(model, (frames[..., :2], frame_s, info, camera, which))
    assert raised.value.reason == "model_failed"
    assert raised.value.clip_id == which.clip_id
    assert as_bytes(extract(model, scene)) == before


def test_other_lines_on_stderr_are_kept(capfd):
    with quiet_stderr():
        os.write(2, b"W0000 inference_feedback_manager.cc:114] chatter\n")
        os.write(2, b"a message of somebody else\n")
    assert capfd.readouterr().err == "a message of somebody else\n"


def test_the_graph_starts_and_runs_quietly(capfd, scene):
    extract(MediaPipeHands(HandsConfig()), scene)
    assert capfd.readouterr().err == ""


class WrongLabels:
    """MediaPipe's graph; in two of three frames its left and right are exchanged."""

    def __init__(self, graph: object) -> None:
        self._wrapped, self._num_frames = graph, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._wrapped, name)

    def process(self, **inputs: object) -> SimpleNamespace:
        result = self._wrapped.process(**inputs)
        self._num_frames += 1
        for hand in (result.multi_handedness or []) if self._num_frames % 3 else []:
            side = hand.classification[0]
            side.label = {"Left": "Right", "Right": "Left"}[side.label]
        return result


def test_wrong_handedness_of_mediapipe_is_corrected(scene, rendered):
    """In a clip of EgoDex with device truth two thirds of MediaPipe's labels are wrong even after the swap."""
    frames, frame_s, info, camera, _ = scene
    right = extract(MediaPipeHands(HandsConfig()), (frames, frame_s, info, camera, clip("right", view="ego")))
    graph = WrongLabels(build_graph(HandsConfig()))
    hands = extract(MediaPipeHands(HandsConfig(), graph), (frames, frame_s, info, camera, clip("wrong", view="ego")))
    assert hands.visible.sum() == right.visible.sum()
    assert share_correct(hands, rendered.truth.keypoints_px)[0] == 1.0
