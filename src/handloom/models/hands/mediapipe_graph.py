"""MediaPipe Hands 0.10.21 (palm detector and hand landmarks, in the wheel) as a HandExtractor."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, field
from typing import Any

import mediapipe
import numpy as np
from mediapipe.framework import calculator_pb2
from mediapipe.python import solution_base
from mediapipe.python._framework_bindings import validated_graph_config
from numpy.typing import NDArray

from handloom.errors import ClipError
from handloom.geometry.hands.handedness import assign
from handloom.geometry.hands.tracklets import Detections, keep_hands, link
from handloom.models.hands.hand_points import to_hand_points
from handloom.models.protocols import ClipFrames
from handloom.models.quiet import quiet_stderr
from handloom.schemas.clip import Clip
from handloom.schemas.settings import HandsConfig
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, HandPoints, VideoInfo

log = logging.getLogger(__name__)

STAGE = "hands"
GRAPH = "modules/hand_landmark/hand_landmark_tracking_cpu.binarypb"
OUTPUTS = ["multi_hand_landmarks", "multi_hand_world_landmarks", "multi_handedness", "multi_hand_presence"]


@dataclass
class _Found:
    """Detections of the frames processed so far, one entry each."""

    frame: list[int] = field(default_factory=list)
    landmarks: list[NDArray[np.float64]] = field(default_factory=list)  # (21, 2), shares of width and height
    world_m: list[NDArray[np.float64]] = field(default_factory=list)  # (21, 3)
    right: list[float] = field(default_factory=list)
    presence: list[float] = field(default_factory=list)


class MediaPipeHands:
    """MediaPipe's hand graph in tracking mode, at most two hands, frame by frame.

    The graph is MediaPipe's own with one more output, the landmark model's hand presence. It is built once per worker
    and reset for each clip (1 to 3 ms), which makes it forget the hands it was tracking.

    `confidence` in the result is the hand presence: the landmark model's probability that its crop holds a hand. It is
    above `min_tracking_confidence` for every visible hand, and does not depend on left and right.

    MediaPipe expects mirrored images, so its handedness is swapped here. Left and right are then decided over the whole
    clip (`geometry.hands.handedness`).
    """

    def __init__(self, config: HandsConfig, graph: solution_base.SolutionBase | None = None) -> None:
        self._config = config
        self._graph = graph  # None: MediaPipe's own is built
        self._fresh = False  # started, no frame processed yet
        self._seen_hand = False  # since construction: MediaPipe logs to stderr at the first hand
        self._start_graph()

    def extract(self, clip: Clip, info: VideoInfo, frames: ClipFrames) -> HandPoints:
        """Both hands of the clip: duplicates dropped, left and right assigned.

        Raises:
            ClipError: `model_failed`.
        """
        raw, at = _Found(), 0
        try:
            graph = self._graph if self._fresh and self._graph is not None else self._start_graph()
            for at in range(len(frames)):
                self._fresh = False
                with contextlib.nullcontext() if self._seen_hand else quiet_stderr():
                    result = graph.process(input_data={"image": np.ascontiguousarray(frames.rgb(at))})
                self._collect(raw, at, result)
        except (RuntimeError, ValueError) as error:
            self._graph, self._fresh = None, False  # the next clip gets a new graph
            problem = f"MediaPipe failed at frame {at} of the clip: {str(error)[:300]}"
            hint = "look at the clip; if it is sound, report it with the message above"
            raise ClipError(clip.clip_id, STAGE, "model_failed", problem, hint) from error
        return _assigned(clip, info, frames.frame_s, raw)

    def _start_graph(self) -> Any:
        with quiet_stderr():
            if self._graph is None:
                self._graph = build_graph(self._config)
            else:
                self._graph.reset()
            self._graph._graph.wait_until_idle()  # the models are loaded and have logged what they log
        self._fresh = True
        return self._graph

    def _collect(self, raw: _Found, frame: int, result: Any) -> None:
        if not result.multi_hand_landmarks:
            return
        self._seen_hand = True
        found = (result.multi_hand_landmarks, result.multi_hand_world_landmarks, result.multi_handedness)
        presence = _passed(result.multi_hand_presence, self._config, len(found[0]))
        for landmarks, world, handedness, score in zip(*found, presence, strict=True):
            side = handedness.classification[0]
            raw.frame.append(frame)
            raw.landmarks.append(np.array([(point.x, point.y) for point in landmarks.landmark]))
            raw.world_m.append(np.array([(point.x, point.y, point.z) for point in world.landmark]))
            # "Left" is the label of a mirrored image: the person's own right hand.
            raw.right.append(side.score if side.label == "Left" else 1 - side.score)
            raw.presence.append(score)


def _assigned(clip: Clip, info: VideoInfo, frame_s: NDArray[np.float64], raw: _Found) -> HandPoints:
    found = Detections(
        np.array(raw.frame, np.int64),
        # MediaPipe's coordinates are shares of the image; ours have (0, 0) at the centre of the first pixel.
        np.array(raw.landmarks, np.float64).reshape(-1, NUM_KEYPOINTS, 2) * [info.width, info.height] - 0.5,
        np.array(raw.right, np.float64),
        np.array(raw.presence, np.float64),
    )
    kept, crowded = keep_hands(found)
    detections = found.take(kept)
    tracklet = link(detections)
    sides = assign(detections, tracklet, frame_s, info.width, clip.view)
    log.debug(
        "clip_id=%s stage=%s detections=%d kept=%d tracklets=%d view=%s ego=%s ego_log_odds=%.2f",
        *(clip.clip_id, STAGE, len(found), len(kept), len(np.unique(tracklet)), clip.view),
        *(sides.ego, sides.ego_log_odds),
    )
    model_m = np.array(raw.world_m, np.float64).reshape(-1, NUM_KEYPOINTS, 3)[kept]
    return to_hand_points(len(frame_s), detections, sides, crowded, model_m, clip.view)


def _passed(presence: list[float], config: HandsConfig, num_hands: int) -> list[float]:
    """Presence of the hands that the graph returned: it scores every crop, and drops those below its threshold."""
    threshold = np.float32(config.min_tracking_confidence)
    passed = [score for score in presence if np.float32(score) > threshold]
    if len(passed) != num_hands:
        raise ValueError(f"{len(passed)} presence scores above {threshold} for {num_hands} hands: {presence}")
    return passed


def build_graph(config: HandsConfig) -> solution_base.SolutionBase:
    """`mediapipe.solutions.hands.Hands` with hand presence as one more output."""
    validated = validated_graph_config.ValidatedGraphConfig()
    validated.initialize(binary_graph_path=os.path.join(os.path.dirname(mediapipe.__file__), GRAPH))
    graph = calculator_pb2.CalculatorGraphConfig.FromString(validated.binary_config)
    graph.node.add(
        calculator="EndLoopFloatCalculator",
        input_stream=["ITEM:handlandmarkcpu__hand_presence_score", "BATCH_END:hand_rects_timestamp"],
        output_stream=["ITERABLE:multi_hand_presence"],
    )
    graph.output_stream.append("PRESENCE:multi_hand_presence")
    return solution_base.SolutionBase(
        graph_config=graph,
        side_inputs={
            "model_complexity": config.model_complexity,
            "num_hands": NUM_HANDS,
            "use_prev_landmarks": True,
        },
        calculator_params={
            "palmdetectioncpu__TensorsToDetectionsCalculator.min_score_thresh": config.min_detection_confidence,
            "handlandmarkcpu__ThresholdingCalculator.threshold": config.min_tracking_confidence,
        },
        outputs=OUTPUTS,
    )
