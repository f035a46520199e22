"""MediaPipe Pose 0.10.21 (detector and full landmark model, in the wheel), image by image and mirrored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import HandloomError
from handloom.geometry.bodies import NUM_BODY_KEYPOINTS, BodyReading, differences, mean_of, mirrored
from handloom.models.packaged import PackagedFile
from handloom.models.quiet import quiet_stderr

_GRAPH = "modules/pose_landmark/pose_landmark_cpu.binarypb"
_TENSORS = "poselandmarkbyroicpu__tensorstoposelandmarksandsegmentation"
_SCORE = f"{_TENSORS}__pose_presence_score"
_PACKAGE = {"what": "the stage `body`", "module": "mediapipe", "package": "mediapipe==0.10.21", "extra": "extract"}
DETECTOR = PackagedFile(
    path="modules/pose_detection/pose_detection.tflite",
    sha256="9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    **_PACKAGE,
)
LANDMARKS = PackagedFile(
    path="modules/pose_landmark/pose_landmark_full.tflite",
    sha256="e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    **_PACKAGE,
)
LEAST_SCORE = 0.3
"""Of the detector: below it the landmark network is not asked. Presences below it are no reading, either."""


def pose_identity() -> Mapping[str, str]:
    """The weights, as a stage's key has them. Raises ConfigError: they are not installed."""
    for file in (DETECTOR, LANDMARKS):
        file.find()
    return {"pose_detection": DETECTOR.digest, "pose_landmark": LANDMARKS.digest}


class PoseNetwork:
    """The body in single images: what was in another image is not remembered, so that frames may come in any order.

    The graph is MediaPipe's own with one more output, the landmark model's presence.

    Raises:
        ConfigError: MediaPipe 0.10.21 is not installed.
    """

    def __init__(self) -> None:
        pose_identity()
        with quiet_stderr():
            self._graph = _built()
            self._graph._graph.wait_until_idle()
        self._seen = False  # MediaPipe logs to stderr at the first body

    def read(self, rgb: NDArray[np.uint8]) -> BodyReading | None:
        """The surest body of an image (h, w, 3), None without one.

        Raises HandloomError: MediaPipe failed.
        """
        try:
            if self._seen:
                found = self._graph.process(input_data={"image": np.ascontiguousarray(rgb)})
            else:
                with quiet_stderr():
                    found = self._graph.process(input_data={"image": np.ascontiguousarray(rgb)})
        except (RuntimeError, ValueError) as error:
            raise HandloomError(f"MediaPipe's pose graph failed: {str(error)[:300]}") from error
        if not found.pose_landmarks or not found.pose_world_landmarks:
            return None
        self._seen = True
        height, width = rgb.shape[:2]
        points = np.array([(one.x, one.y, one.visibility) for one in found.pose_landmarks.landmark])
        hip_m = np.array([(one.x, one.y, one.z) for one in found.pose_world_landmarks.landmark])
        # MediaPipe's coordinates are shares of the image; ours have (0, 0) at the centre of the first pixel.
        points_px = points[:, :2] * [width, height] - 0.5
        return BodyReading(
            points_px, hip_m, points[:, 2], float(getattr(found, _SCORE)), float(found.pose_detection.score[0])
        )

    def read_both(self, rgb: NDArray[np.uint8]) -> tuple[BodyReading | None, NDArray[np.float64]]:
        """The mean reading of an image and its mirror image, and (33,) `differences` of both; None and NaN without."""
        one = self.read(rgb)
        other = None if one is None else self.read(rgb[:, ::-1])
        if one is None or other is None:
            return None, np.full(NUM_BODY_KEYPOINTS, np.nan)
        other = mirrored(other, rgb.shape[1])
        return mean_of(one, other), differences(one, other)

    def close(self) -> None:
        self._graph.close()


def _built() -> Any:
    """`mediapipe.solutions.pose.Pose` for single images, with two more outputs: the detection, and the presence."""
    import mediapipe
    from mediapipe.framework import calculator_pb2
    from mediapipe.python import solution_base
    from mediapipe.python._framework_bindings import validated_graph_config
    from mediapipe.python.solutions import pose  # noqa: F401 - registers the options of the graph's calculators

    validated = validated_graph_config.ValidatedGraphConfig()
    validated.initialize(binary_graph_path=os.path.join(os.path.dirname(mediapipe.__file__), _GRAPH))
    graph = calculator_pb2.CalculatorGraphConfig.FromString(validated.binary_config)
    graph.output_stream.append(f"SCORE:{_SCORE}")
    return solution_base.SolutionBase(
        graph_config=graph,
        side_inputs={
            "model_complexity": 1,
            "smooth_landmarks": False,
            "enable_segmentation": False,
            "smooth_segmentation": False,
            "use_prev_landmarks": False,
        },
        calculator_params={
            "posedetectioncpu__TensorsToDetectionsCalculator.min_score_thresh": LEAST_SCORE,
            f"{_TENSORS}__ThresholdingCalculator.threshold": LEAST_SCORE,
        },
        outputs=["pose_landmarks", "pose_world_landmarks", "pose_detection", _SCORE],
    )
