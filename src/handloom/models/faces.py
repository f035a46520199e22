"""Faces in images: found by MediaPipe's two detectors from its wheel, and made unrecognisable.

The networks run with LiteRT, without MediaPipe's graph. The full-range one sees the whole image and, as it looks at 192
x 192 pixels, squares of the image's height (or width) besides: faces that are small in a wide image. It takes hands for
faces, with scores up to 0.78 in close-ups of hands. So each place is looked at again: by the short-range one, and by
the full-range one in a square of four times the place's side and in its mirror image. What decides is the mean of these
two scores: it takes no more hands for faces than the short-range network alone did, and finds half as many faces again.
The thresholds were set on the first halves of 24 clips and on three photographs; docs/datasets.md has what was measured
on other ones. Faces that are out of focus are missed.

Sources: MediaPipe 0.10.21, modules/face_detection (face_detection_full_range.pbtxt, face_detection_short_range.pbtxt,
face_detection.pbtxt: anchors of one layer of stride 4, one a cell; pixels from -1 to 1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.hands.weights import model_path
from handloom.models.quiet import quiet_stderr

VERSION = "MediaPipe full range and short range, squares, ellipses of 5 cells 2"
FULL_FILE = "face_detection/face_detection_full_range_sparse.tflite"
SHORT_FILE = "face_detection/face_detection_short_range.tflite"
SIDE_PX, STRIDE_PX = 192, 4
SHORT_SIDE_PX = 128
MIN_SCORE = 0.3
"""Of the full-range network, to look again. MediaPipe's own is 0.6."""
SURE = 0.5
"""Places from this score on that overlap are one, around all of them; lower ones that overlap with another are left."""
MIN_SECOND = 0.4
"""Of the short-range network, in the better of two squares around the place, to look once more."""
LOOK_AGAIN = (1.5, 2.2)
"""Sides of these squares, in sides of the place."""
MIN_THIRD = 0.65
"""Of the full-range network, the mean of a square around the place and of its mirror image. On the pictures
that set it, 0.6 took 7 frames of hands for faces, 0.65 none."""
ZOOM, NEAR = 4.0, 0.3
"""Side of that square, and how far from its middle a score counts, in sides of the place."""
OVERLAP = 0.3
"""Boxes that share so much of the smaller one are one face."""
MARGIN = 0.35
"""Of the box, added on each side: it goes from the brows to the chin, and the ellipse must cover what it cuts off."""
CELLS = 5
NEIGHBOURS = 3
"""Frames before and after whose faces are blurred as well: one that is missed for a moment stays covered."""

_RANGE = ((np.arange(256) - 127.5) / 127.5).astype(np.float32)
Boxes = NDArray[np.float64]
"""(n, 4) x0, y0, x1, y1 in pixels."""


class FaceFinder:
    """The faces in an image, on one thread."""

    def __init__(self) -> None:
        """Raises ConfigError if MediaPipe's wheel or LiteRT is not installed."""
        self._full, self._short = _Network(FULL_FILE), _Network(SHORT_FILE)
        cells = SIDE_PX // STRIDE_PX
        y, x = np.mgrid[:cells, :cells] + 0.5
        self._anchors = np.stack([x, y], -1).reshape(-1, 2) / cells

    def __call__(self, image: NDArray[np.uint8]) -> Boxes:
        """(h, w, 3) RGB to the boxes of its faces, each once, the surest first."""
        found = [self._in_square(image, *square) for square in squares(*image.shape[1::-1])]
        scores, boxes = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(-scores, kind="stable")
        places = _apart(scores[order], boxes[order])
        return places[[self._is_face(image, place) for place in places]]

    def _is_face(self, image: NDArray[np.uint8], place: NDArray[np.float64]) -> bool:
        """Whether both networks say so who look at this place alone."""
        middle, side = (place[:2] + place[2:]) / 2, float((place[2:] - place[:2]).max())
        around = (((middle - side * factor / 2).tolist(), side * factor) for factor in LOOK_AGAIN)
        looks = (_shrunk(image, left, top, length, SHORT_SIDE_PX) for (left, top), length in around)
        if max(float(self._short(look)[1].max()) for look in looks) < MIN_SECOND:
            return False
        left, top = (middle - side * ZOOM / 2).tolist()
        look = _shrunk(image, left, top, side * ZOOM, SIDE_PX)
        mirrored = np.ascontiguousarray(look[:, ::-1])
        return float(np.mean([self._middle_score(one) for one in (look, mirrored)])) >= MIN_THIRD

    def _middle_score(self, look: NDArray[np.uint8]) -> float:
        """Best score of the full-range network near the middle of a square that shows a place `ZOOM` times as large."""
        boxes, scores = self._full(look)
        away = np.abs(boxes[:, :2] / SIDE_PX + self._anchors - 0.5).max(axis=1)
        return float(scores[away < NEAR / ZOOM].max(initial=0.0))

    def _in_square(
        self, image: NDArray[np.uint8], left: float, top: float, side: float
    ) -> tuple[NDArray[np.float64], Boxes]:
        """Scores and boxes, several a face."""
        boxes, scores = self._full(_shrunk(image, left, top, side, SIDE_PX))
        sure = scores >= MIN_SCORE
        raw = boxes[sure] / SIDE_PX
        centre = raw[:, :2] + self._anchors[sure]
        corners = np.concatenate([centre - raw[:, 2:] / 2, centre + raw[:, 2:] / 2], axis=1)
        return scores[sure], corners * side + [left, top, left, top]


class _Network:
    """One of the networks: an image to boxes, as numbers that anchors turn into places, and scores from 0 to 1."""

    def __init__(self, file: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with quiet_stderr():
            self._net = Interpreter(str(model_path(file)), num_threads=1)
            self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = sorted(self._net.get_output_details(), key=lambda one: -int(one["shape"][-1]))
        self._boxes, self._scores = (output["index"] for output in outputs)

    def __call__(self, image: NDArray[np.uint8]) -> tuple[Boxes, NDArray[np.float64]]:
        self._net.set_tensor(self._input, cv2.LUT(image, _RANGE)[None])
        self._net.invoke()
        raw = self._net.get_tensor(self._scores)[0, :, 0].astype(np.float64)
        return self._net.get_tensor(self._boxes)[0, :, :4].astype(np.float64), 1 / (
            1 + np.exp(-np.clip(raw, -100, 100))
        )


def squares(width: int, height: int) -> list[tuple[float, float, float]]:
    """(left, top, side) of the squares that are looked at: one around the image, and overlapping ones along it."""
    long, short = max(width, height), min(width, height)
    around = ((width - long) / 2, (height - long) / 2, float(long))
    if long < 1.2 * short:
        return [around]
    num = int(np.ceil((long - short) / (short / 2))) + 1
    starts = np.linspace(0, long - short, num).tolist()
    return [around, *((at, 0.0, float(short)) if width > height else (0.0, at, float(short)) for at in starts)]


def _apart(scores: NDArray[np.float64], boxes: Boxes) -> Boxes:
    """Boxes that do not overlap, from scores that fall: `SURE` ones joined, others where nothing is yet."""
    kept = list(one_a_face(boxes[scores >= SURE]))
    for box in boxes[scores < SURE]:
        if not any(_is_same(box, other) for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 4)


def _is_same(box: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    shared = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    smaller = min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))
    return bool((shared > 0).all() and np.prod(shared) >= OVERLAP * smaller)


def one_a_face(boxes: Boxes) -> Boxes:
    """Boxes that overlap as one, around all of them."""
    kept: list[NDArray[np.float64]] = []
    for box in boxes:
        for number, other in enumerate(kept):
            if _is_same(box, other):
                kept[number] = np.append(np.minimum(box[:2], other[:2]), np.maximum(box[2:], other[2:]))
                break
        else:
            kept.append(box)
    return np.array(kept).reshape(-1, 4)


def blur_faces(image: NDArray[np.uint8], boxes: Boxes) -> NDArray[np.uint8]:
    """A copy of (h, w, 3) in which an ellipse around each box shows `CELLS` x `CELLS` colours alone."""
    blurred = image.copy()
    height, width = image.shape[:2]
    for box in boxes:
        around = (box[2:] - box[:2]) * MARGIN
        x0, y0 = np.floor(np.maximum(box[:2] - around, 0)).astype(int)
        x1, y1 = np.ceil(np.minimum(box[2:] + around, [width, height])).astype(int)
        if x1 <= x0 or y1 <= y0:
            continue
        patch = blurred[y0:y1, x0:x1]
        cells = cv2.resize(patch, (min(CELLS, x1 - x0), min(CELLS, y1 - y0)), interpolation=cv2.INTER_AREA)
        plain = cv2.resize(cells, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 + around
        y, x = np.mgrid[y0:y1, x0:x1]
        inside = ((x + 0.5 - middle[0]) / half[0]) ** 2 + ((y + 0.5 - middle[1]) / half[1]) ** 2 <= 1
        patch[inside] = plain[inside]
    return blurred


class FaceBlur:
    """Blurs the faces of a clip's frames as they arrive, each with those of its neighbours."""

    def __init__(self) -> None:
        self._find = FaceFinder()
        self.begin()

    def begin(self) -> None:
        """Start a clip; drops everything of the clip before."""
        self._frames: deque[NDArray[np.uint8]] = deque()
        self._boxes: deque[Boxes] = deque()
        self._num_before = 0
        self.counts: list[int] = []

    def feed(self, frames: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """Take the next frames; those whose later neighbours have come, blurred."""
        for frame in frames:
            self._frames.append(frame.copy())
            self._boxes.append(self._find(frame))
            if len(self._boxes) - self._num_before > NEIGHBOURS:
                yield self._next()

    def finish(self) -> Iterator[NDArray[np.uint8]]:
        """The frames that are left. `counts` then holds the number of blurred places of each frame."""
        while self._frames:
            yield self._next()

    def _next(self) -> NDArray[np.uint8]:
        near = list(self._boxes)[: self._num_before + NEIGHBOURS + 1]
        boxes = one_a_face(np.concatenate(near))
        self.counts.append(len(boxes))
        if self._num_before == NEIGHBOURS:
            self._boxes.popleft()
        else:
            self._num_before += 1
        return blur_faces(self._frames.popleft(), boxes)


def _shrunk(image: NDArray[np.uint8], left: float, top: float, side: float, side_px: int) -> NDArray[np.uint8]:
    """A square of the image as a network takes it, black outside; averaged first where much is left out."""
    scale = side_px / side
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    factor = int(side // (2 * side_px))
    if factor > 1:
        height, width = image.shape[:2]
        image = cv2.resize(image, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA)
        move = move * [[width / image.shape[1], height / image.shape[0], 1]]
    return np.asarray(cv2.warpAffine(image, move, (side_px, side_px), flags=cv2.INTER_LINEAR), np.uint8)
