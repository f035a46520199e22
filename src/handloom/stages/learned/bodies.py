"""The body of a person in view: keypoints of MediaPipe's pose network, where the mirrored image agrees with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from handloom.errors import ClipError, HandloomError
from handloom.geometry.bodies import KEYPOINT_DIFFERENCE, NUM_BODY_KEYPOINTS, believed, whose_body
from handloom.models.pose import PoseNetwork, pose_identity
from handloom.stages.stage import ClipInput, FrameRequest, Stage, StageSettings, frame_field


class Body(Stage):
    """Columns of one body in each frame (docs/bodies.md): `body_visible`, `body_confidence`, `body_keypoints_px`,
    `body_keypoint_visibility`, `body_keypoints_hip_m`, and for the clip `body_person`, whose it is.
    """

    version = "1"
    columns = ("width", "height", "num_frames", "view", "hand_visible", "hand_keypoints_px")

    class Settings(StageSettings):
        source: Literal["stored", "video"] = "stored"
        """`stored`: the frames of the column `frame_jpeg`, 256 px high by default: no video is decoded for a table that
        exists. `video`: frames of the video at the working size, for people who are small in the image."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        self.frames = FrameRequest(stored=settings.source == "stored")

    def fields(self) -> Sequence[pa.Field]:
        return [
            frame_field("body_visible", pa.bool_()),
            frame_field("body_confidence", pa.float32()),
            frame_field("body_keypoints_px", pa.float32(), 2 * NUM_BODY_KEYPOINTS),
            frame_field("body_keypoint_visibility", pa.float32(), NUM_BODY_KEYPOINTS),
            frame_field("body_keypoints_hip_m", pa.float32(), 3 * NUM_BODY_KEYPOINTS),
            pa.field("body_person", pa.string()),
        ]

    def identity(self) -> Mapping[str, str]:
        return pose_identity()

    def load(self) -> None:
        self._network = PoseNetwork()

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any] | ClipError]:
        return [self._values(clip) for clip in clips]

    def close(self) -> None:
        self._network.close()

    def _values(self, clip: ClipInput) -> Mapping[str, Any] | ClipError:
        assert clip.frames is not None
        assert clip.frame_index is not None
        assert clip.frame_s is not None
        try:
            pairs = [self._network.read_both(frame) for frame in clip.frames]
        except HandloomError as error:
            hint = "look at the clip; if it is sound, report it with the message above"
            return ClipError(clip.clip.clip_id, self.name, "model_failed", error.problem, hint)
        readings = [reading for reading, _ in pairs]
        apart = np.array([differences for _, differences in pairs]).reshape(-1, NUM_BODY_KEYPOINTS)
        kept = believed(clip.frame_s, readings, apart)
        num = int(clip.row["num_frames"])
        shapes = {"points": (2,), "hip": (3,), "visibility": ()}
        found = {name: np.full((num, NUM_BODY_KEYPOINTS, *shape), np.nan, np.float32) for name, shape in shapes.items()}
        visible, confidence = np.zeros(num, bool), np.full(num, np.nan, np.float32)
        scale = np.array([clip.row["width"], clip.row["height"]]) / clip.frames.shape[2:0:-1]
        for number in np.flatnonzero(kept):
            at, reading = clip.frame_index[number], readings[number]
            assert reading is not None
            visible[at], confidence[at] = True, reading.presence
            known = apart[number] <= KEYPOINT_DIFFERENCE
            found["points"][at, known] = ((reading.points_px + 0.5) * scale - 0.5)[known]
            found["hip"][at, known], found["visibility"][at] = reading.hip_m[known], reading.visibility
        row = clip.row
        hands, hands_seen = row["hand_keypoints_px"], row["hand_visible"]
        points = found["points"].astype(np.float64)
        has_hands = hands is not None and hands_seen is not None
        person = whose_body(points, hands, hands_seen, row["view"]) if has_hands else None
        return {
            "body_visible": visible,
            "body_confidence": confidence,
            "body_keypoints_px": found["points"],
            "body_keypoint_visibility": found["visibility"],
            "body_keypoints_hip_m": found["hip"],
            "body_person": person,
        }
