"""The inputs and outputs of MediaPipe's hand networks: crops of an image, and palms and hands in the image.

Points are in pixels with (0, 0) at the image's corner, as MediaPipe counts: shares of the image times its size. A
region is (centre x, centre y, side, rotation): a square, turned clockwise by radians so that the fingers point up in
its crop.

Sources: MediaPipe 0.10.21, modules/palm_detection (palm_detection_cpu.pbtxt, its anchors and non-maximum suppression),
modules/hand_landmark (palm_detection_detection_to_roi.pbtxt, hand_landmark_landmarks_to_roi.pbtxt,
calculators/hand_landmarks_to_rect_calculator.cc), calculators/tensor/image_to_tensor_converter_opencv.cc.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.hands.weights import HAND_PX, PALM_PX

STRIDES = (8, 16, 16, 16)  # of the detector's layers; each has two anchors per cell
SUPPRESSION_OVERLAP = 0.3
SCORE_CLIP = 100.0
PALM_SCALE, PALM_SHIFT = 2.6, -0.5
HAND_SCALE, HAND_SHIFT = 2.0, -0.1
# The keypoints that give a hand's region: without finger tips, which move most.
STEADY_KEYPOINTS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


@dataclass(frozen=True)
class Palms:
    """n palms of one image, best first. score: (n,). box: (n, 4) x0, y0, x1, y1. points: (n, 7, 2), 0 the wrist, 2
    the middle finger's knuckle.
    """

    score: NDArray[np.float64]
    box: NDArray[np.float64]
    points: NDArray[np.float64]


@dataclass(frozen=True)
class HandReading:
    """The hand network's output for n regions.

    points: (n, 21, 2) in the image. metric_m: (n, 21, 3) with the image's axes, origin near the middle of the hand.
    presence, right: (n,) probability that there is a hand, and that it is a right hand.
    """

    points: NDArray[np.float64]
    metric_m: NDArray[np.float64]
    presence: NDArray[np.float64]
    right: NDArray[np.float64]


@lru_cache
def anchors() -> NDArray[np.float64]:
    """(2016, 2) centres in shares of the square image."""
    layers: list[NDArray[np.float64]] = []
    at = 0
    while at < len(STRIDES):
        same = sum(1 for stride in STRIDES[at:] if stride == STRIDES[at])  # equal strides are one layer
        cells = PALM_PX // STRIDES[at]
        y, x = np.mgrid[:cells, :cells] + 0.5
        layers.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2) / cells, 2 * same, axis=0))
        at += same
    return np.concatenate(layers)


def palm_image(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) to (192, 192, 3): the image in the middle of a black square."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    return _warp(rgb, np.array([width / 2, height / 2, side, 0.0]), PALM_PX, cv2.BORDER_CONSTANT)


def read_palms(
    boxes: NDArray[np.float32], raw: NDArray[np.float32], width: int, height: int, min_score: float
) -> Palms:
    """Palms of one image from the network's (2016, 18) and (2016, 1); overlapping ones are averaged by score."""
    score = 1 / (1 + np.exp(-np.clip(raw[:, 0].astype(np.float64), -SCORE_CLIP, SCORE_CLIP)))
    kept = np.flatnonzero(score >= min_score)
    kept = kept[np.argsort(-score[kept], kind="stable")]
    score, values = score[kept], boxes[kept].astype(np.float64).reshape(-1, 9, 2) / PALM_PX
    centre = anchors()[kept][:, None]
    points = values + centre
    half = values[:, 1] / 2
    corners = np.concatenate([points[:, 0] - half, points[:, 0] + half], axis=1)
    score, corners, points = _suppress(score, corners, points[:, 2:])
    side = max(height, width)
    offset = np.array([(side - width) / 2, (side - height) / 2])
    return Palms(score, corners * side - np.tile(offset, 2), points * side - offset)


def _suppress(
    score: NDArray[np.float64], corners: NDArray[np.float64], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weighted non-maximum suppression; inputs sorted by descending score."""
    left = np.arange(len(score))
    out: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = []
    while len(left):
        near = _overlap(corners[left[0]], corners[left]) > SUPPRESSION_OVERLAP
        near[0] = True
        group, weight = left[near], score[left[near]] / score[left[near]].sum()
        out.append((score[left[0]], weight @ corners[group], np.einsum("i,ikj->kj", weight, points[group])))
        left = left[~near]
    if not out:
        return np.empty(0), np.empty((0, 4)), np.empty((0, 7, 2))
    best, boxes, places = zip(*out, strict=True)
    return np.array(best), np.stack(boxes), np.stack(places)


def _overlap(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,), (n, 4) to (n,): intersection over union."""
    size = np.maximum(np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2]), 0).prod(axis=1)
    union = (one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - size
    return size / np.maximum(union, 1e-12)


def palm_regions(palms: Palms) -> NDArray[np.float64]:
    """(n, 4) regions of the palms' hands."""
    rotation = _rotation_to_upright(palms.points[:, 0], palms.points[:, 2])
    centre = (palms.box[:, :2] + palms.box[:, 2:]) / 2
    size = palms.box[:, 2:] - palms.box[:, :2]
    return _region(centre, size, rotation, PALM_SCALE, PALM_SHIFT)


def hand_regions(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 21, 2) keypoints to (n, 4): the region in which each hand is measured in the next frame."""
    middle = ((points[:, 5] + points[:, 13]) / 2 + points[:, 9]) / 2
    rotation = _rotation_to_upright(points[:, 0], middle)
    steady = points[:, STEADY_KEYPOINTS]
    origin = (steady.min(axis=1) + steady.max(axis=1)) / 2
    turned = _rotate(steady - origin[:, None], -rotation[:, None])
    low, high = turned.min(axis=1), turned.max(axis=1)
    centre = _rotate((low + high) / 2, rotation) + origin
    return _region(centre, high - low, rotation, HAND_SCALE, HAND_SHIFT)


def _region(
    centre: NDArray[np.float64], size: NDArray[np.float64], rotation: NDArray[np.float64], scale: float, shift: float
) -> NDArray[np.float64]:
    """A box shifted along its upward axis by a share of its height, made square by its long side, then scaled."""
    up = np.stack([np.zeros(len(size)), size[:, 1] * shift], axis=1)
    return np.column_stack([centre + _rotate(up, rotation), size.max(axis=1) * scale, rotation])


def _rotation_to_upright(wrist: NDArray[np.float64], knuckle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation that brings the direction from wrist to knuckle to upwards, in [-pi, pi)."""
    along = knuckle - wrist
    rotation = np.pi / 2 - np.arctan2(-along[:, 1], np.ascontiguousarray(along[:, 0]))
    return rotation - 2 * np.pi * np.floor((rotation + np.pi) / (2 * np.pi))


def _rotate(points: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clockwise on the screen (y is down)."""
    sin, cos = np.sin(angle), np.cos(angle)
    return np.stack([points[..., 0] * cos - points[..., 1] * sin, points[..., 0] * sin + points[..., 1] * cos], -1)


def hand_image(rgb: NDArray[np.uint8], region: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(224, 224, 3) crop of the region, fingers up; outside the image its edge is repeated."""
    return _warp(rgb, region, HAND_PX, cv2.BORDER_REPLICATE)


def _warp(rgb: NDArray[np.uint8], region: NDArray[np.float64], size: int, border: int) -> NDArray[np.uint8]:
    x, y, side, rotation = (float(value) for value in region)
    step = side / size
    cos, sin = np.cos(rotation) * step, np.sin(rotation) * step
    middle = size / 2
    image_from_crop = np.array([[cos, -sin, x - middle * (cos - sin)], [sin, cos, y - middle * (sin + cos)]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(rgb, image_from_crop, (size, size), flags=flags, borderMode=border)


def read_hands(outputs: tuple[NDArray[np.float32], ...], regions: NDArray[np.float64]) -> HandReading:
    """Hands in the image from the network's four outputs for n crops, and the crops' regions.

    The third output is the probability of what MediaPipe calls a left hand. It expects mirrored images, so this is the
    person's own right hand.
    """
    points, presence, right, metric = (np.asarray(output, np.float64) for output in outputs)
    crop = points.reshape(-1, 21, 3)[..., :2] / HAND_PX - 0.5
    placed = _rotate(crop * regions[:, None, 2:3], regions[:, None, 3]) + regions[:, None, :2]
    metric = metric.reshape(-1, 21, 3).copy()
    metric[..., :2] = _rotate(metric[..., :2], regions[:, None, 3])
    return HandReading(placed, metric, presence[:, 0], right[:, 0])
