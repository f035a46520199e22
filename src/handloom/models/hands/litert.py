"""The hand networks on the CPU: LiteRT (XNNPACK), one thread."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.hands.weights import HAND_FILES, PALM_FILES, model_path
from handloom.models.quiet import quiet_stderr

_SHARES = np.arange(256, dtype=np.float32) * np.float32(1 / 255)  # of white, by grey level


class LiteRtHandNetworks:
    """Palm and hand network on one thread, since an actor has one core; results do not depend on it.

    batch: images per call; on one thread larger batches are not faster.
    """

    batch = 1

    def __init__(self, complexity: int) -> None:
        self._palm = _Runner(model_path(PALM_FILES[complexity]))
        self._hand = _Runner(model_path(HAND_FILES[complexity]))

    def palms(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """(n, 192, 192, 3) to boxes (n, 2016, 18) and raw scores (n, 2016, 1)."""
        return self._palm(images)

    def hands(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """(n, 224, 224, 3) to keypoints (n, 63), presence (n, 1), handedness (n, 1), metric keypoints (n, 63)."""
        return self._hand(images)


class _Runner:
    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with quiet_stderr():
            self._net = Interpreter(str(path), num_threads=1)
            self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._net.get_output_details()]

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        rows = []
        for image in images:
            self._net.set_tensor(self._input, cv2.LUT(image, _SHARES)[None])  # a third of a product's time
            self._net.invoke()
            rows.append([self._net.get_tensor(output)[0] for output in self._outputs])
        return tuple(np.stack(column) for column in zip(*rows, strict=True))
