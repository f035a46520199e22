"""Hands and tracks of one frame, drawn over its image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.draw.segments.things import draw_things
from handloom.draw.text import put_text, text_width
from handloom.geometry.bodies import BODY_BONES, SEEN_VISIBILITY
from handloom.geometry.tracks.stored_grids import window_tracks
from handloom.schemas.hand_topology import PALM_OUTLINE, PHALANGES
from handloom.schemas.tables.frame_flags import flag_bits
from handloom.schemas.values import LEFT, RIGHT

# Okabe and Ito's palette: different for every kind of colour vision, and from every skin. RGB.
HAND_COLORS = {LEFT: (86, 180, 233), RIGHT: (255, 159, 0)}
OTHER_COLOR = (110, 110, 110)  # of other people's hands
BODY_COLOR = (0, 158, 115)
HAND_LETTERS = {LEFT: "L", RIGHT: "R"}
HAND_DOUBTS = {
    hand: flag_bits([f"HAND_{doubt}_{side}" for doubt in ("SIDE_UNSURE", "UNSUPPORTED", "OFF_TRACKS")])
    for hand, side in ((LEFT, "LEFT"), (RIGHT, "RIGHT"))
}
EDGE = (15, 15, 15)
WHITE = (255, 255, 255)

SKELETON = (*PALM_OUTLINE, *PHALANGES)

TAIL_FRAMES = 8
TAIL_SHARE = 0.09  # longest tail, as a share of the image's short side: a fast camera pan must not cover the image
STILL_SHARE = 0.004  # a tail shorter than this share of the short side is drawn as a dot
SUBPIXEL_BITS = 4

Label = tuple[NDArray[np.float64], str, tuple[int, int, int]]  # the hand's points (m, 2), its text, its colour


def draw_overlay(
    image: NDArray[np.uint8],
    row: dict[str, Any],
    index: int,
    *,
    label_px: int | None = None,
    letters_only: bool = False,
) -> NDArray[np.uint8]:
    """Draw the tracks, both hands and a body of frame `index` over a copy of `image`; hands of other people in grey.

    Args:
        image: (h, w, 3) RGB, the frame at any size.
        row: what `row_arrays` gives; a null or all-NaN column draws nothing.
        index: frame of the row, 0 <= index < T.
        label_px: text height of the hands' labels; by default it follows from the image's size.
        letters_only: label hands L and R, without their confidence.
    """
    canvas = np.ascontiguousarray(image).copy()
    scale = np.array([canvas.shape[1] / row["width"], canvas.shape[0] / row["height"]])
    _draw_tracks(canvas, row, index, scale)
    draw_things(canvas, row, index, scale)
    _draw_body(canvas, row, index, scale)
    _draw_others(canvas, row, index, scale)
    labels = _draw_hands(canvas, row, index, scale, letters_only)
    _draw_labels(canvas, labels, label_px or text_px(canvas))
    return canvas


def is_doubted(row: dict[str, Any], index: int, hand: int) -> bool:
    """Whether the frame's flags doubt the handedness or the position of this hand."""
    flags = row.get("frame_flags")
    return flags is not None and bool(int(flags[index]) & HAND_DOUBTS[hand])


def to_image(points_px: NDArray[np.floating], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Source pixels (..., 2) to pixels of the drawn image; in both, (0, 0) is the centre of the top-left pixel."""
    return (points_px.astype(np.float64) + 0.5) * scale - 0.5


def stroke_px(image: NDArray[np.uint8]) -> float:
    """Unit of line width: 1 at a short side of 360 pixels."""
    return max(0.5, min(image.shape[:2]) / 360)


def text_px(image: NDArray[np.uint8]) -> int:
    """Text height for an image of this size."""
    return max(9, round(13 * min(stroke_px(image), image.shape[1] / 360)))


def track_colors(points_px: NDArray[np.floating], width: int, height: int) -> NDArray[np.uint8]:
    """(N, 3) RGB by query position: hue runs along x, brightness along y. NaN queries are grey."""
    x, y = np.nan_to_num(points_px / [width, height], nan=0.0).clip(0, 1).T
    hsv = np.stack([x * 150, np.full_like(x, 165), 255 - y * 85], axis=-1)
    colors = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0] if len(x) else np.empty((0, 3), np.uint8)
    colors[~np.isfinite(points_px).all(axis=-1)] = 128
    return colors


def _draw_tracks(canvas: NDArray[np.uint8], row: dict[str, Any], index: int, scale: NDArray[np.float64]) -> None:
    points, visible = row.get("track_points_px"), row.get("track_visible")
    if points is None or visible is None or not points.shape[1]:
        return
    some = window_tracks(row, np.arange(max(0, index - TAIL_FRAMES + 1), index + 1), judged=np.array([index]))
    shown = some["track_visible"] & np.isfinite(some["track_points_px"]).all(axis=-1)
    path = to_image(np.where(shown[..., None], some["track_points_px"], np.nan), scale)
    short_side = min(canvas.shape[:2])
    starts, lengths = _tails(path, shown, short_side * TAIL_SHARE)
    fixed = np.ascontiguousarray(_fixed(path).swapaxes(0, 1))  # (N, F, 2)
    colors = track_colors(_first_known(points), row["width"], row["height"]).tolist()
    width = max(1, round(0.8 * stroke_px(canvas)))
    under = canvas.copy()
    for n in np.flatnonzero(shown[-1] & (lengths >= short_side * STILL_SHARE)):
        cv2.polylines(canvas, [fixed[n, starts[n] :]], False, colors[n], width, cv2.LINE_AA, SUBPIXEL_BITS)
    cv2.addWeighted(canvas, 0.65, under, 0.35, 0, dst=canvas)
    radius = round(0.9 * stroke_px(canvas) * 2**SUBPIXEL_BITS)
    for n in np.flatnonzero(shown[-1]):
        cv2.circle(canvas, fixed[n, -1].tolist(), radius, colors[n], cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def _first_known(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N, 2) first known position of each track."""
    first = np.isfinite(points).all(axis=-1).argmax(axis=0)
    return points[first, np.arange(points.shape[1])]


def _tails(
    path: NDArray[np.float64], shown: NDArray[np.bool_], max_length: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where the tail of each track begins, (N,) index into `path` (F, N, 2), and how long it is, (N,) pixels.

    A tail is the newest unbroken visible run, cut to `max_length` pixels along it.
    """
    step = np.where(shown[:-1] & shown[1:], np.hypot(*np.moveaxis(np.diff(path, axis=0), -1, 0)), np.inf)
    to_end = np.concatenate([np.cumsum(step[::-1], axis=0)[::-1], np.zeros((1, path.shape[1]))])
    starts = np.argmax(to_end <= max_length, axis=0)  # to_end falls from oldest to newest
    return starts, np.take_along_axis(to_end, starts[None], axis=0)[0]


def _draw_hands(
    canvas: NDArray[np.uint8], row: dict[str, Any], index: int, scale: NDArray[np.float64], letters_only: bool
) -> list[Label]:
    """Draw both skeletons; returns the labels, which are drawn later so that no skeleton covers them."""
    labels: list[Label] = []
    keypoints, visible = row.get("hand_keypoints_px"), row.get("hand_visible")
    if keypoints is None or visible is None:
        return labels
    for hand, color in HAND_COLORS.items():
        points = to_image(keypoints[index, hand], scale)
        seen = np.isfinite(points).all(axis=-1)
        infilled = row.get("hand_infilled") is not None and bool(row["hand_infilled"][index, hand])
        if not (visible[index, hand] or infilled) or not seen.any():
            continue
        _draw_skeleton(canvas, points, seen, color, infilled)
        text = HAND_LETTERS[hand] + ("?" if is_doubted(row, index, hand) else "")
        confidence = np.nan if row.get("hand_confidence") is None else float(row["hand_confidence"][index, hand])
        if not letters_only:
            text += (f" {confidence:.2f}" if np.isfinite(confidence) else "") + (" filled" if infilled else "")
        labels.append((points[seen], text, color))
    return labels


def _draw_body(canvas: NDArray[np.uint8], row: dict[str, Any], index: int, scale: NDArray[np.float64]) -> None:
    """The body of the stage `body`: bones between keypoints that are known and in sight."""
    keypoints, visibility = row.get("body_keypoints_px"), row.get("body_keypoint_visibility")
    if keypoints is None or visibility is None:
        return
    points = to_image(keypoints[index].reshape(-1, 2), scale)
    shown = np.isfinite(points).all(axis=-1) & (visibility[index] >= SEEN_VISIBILITY)
    bones = [_fixed(points[[a, b]]) for a, b in BODY_BONES if shown[a] and shown[b]]
    for width, tint in (
        (max(2, round(3.5 * stroke_px(canvas))), EDGE),
        (max(1, round(1.8 * stroke_px(canvas))), BODY_COLOR),
    ):
        cv2.polylines(canvas, bones, False, tint, width, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_others(canvas: NDArray[np.uint8], row: dict[str, Any], index: int, scale: NDArray[np.float64]) -> None:
    """Hands that are somebody else's, without labels."""
    frame, keypoints = row.get("other_hand_frame"), row.get("other_hand_keypoints_px")
    if frame is None or keypoints is None:
        return
    for points in to_image(keypoints[np.asarray(frame) == index], scale):
        _draw_skeleton(canvas, points, np.isfinite(points).all(axis=-1), OTHER_COLOR, infilled=False)


def _draw_skeleton(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    seen: NDArray[np.bool_],
    color: tuple[int, int, int],
    infilled: bool,
) -> None:
    """Bones with a dark edge; white joints, hollow where the hand was filled in. A small hand has thinner lines."""
    hand_px = float(np.hypot(*np.ptp(points[seen], axis=0)))
    unit = min(stroke_px(canvas), max(0.35 * stroke_px(canvas), hand_px / 75))
    bones = [_fixed(points[[a, b]]) for a, b in SKELETON if seen[a] and seen[b]]
    for width, tint in ((max(2, round(4.5 * unit)), EDGE), (max(1, round(2.5 * unit)), color)):
        cv2.polylines(canvas, bones, False, tint, width, cv2.LINE_AA, SUBPIXEL_BITS)
    for radius, tint in ((3.2, EDGE), (2.6, color), (1.3, EDGE if infilled else WHITE)):
        for point in points[seen]:
            size = round(radius * unit * 2**SUBPIXEL_BITS)
            cv2.circle(canvas, _fixed(point).tolist(), size, tint, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_labels(canvas: NDArray[np.uint8], labels: list[Label], size_px: int) -> None:
    """Draw each label above its hand, or below or beside it where it overlaps less with hands and other labels."""
    taken = [(*points.min(axis=0), *points.max(axis=0)) for points, _, _ in labels]
    for number, (_, text, color) in enumerate(labels):
        low_x, low_y, high_x, high_y = taken[number]
        width, height, gap = text_width(text, size_px) + size_px / 2, size_px * 1.45, 0.3 * size_px
        middle = (low_x + high_x - width) / 2, (low_y + high_y - height) / 2
        corners = [(middle[0], low_y - height - gap), (middle[0], high_y + gap)]
        corners += [(high_x + gap, middle[1]), (low_x - width - gap, middle[1])]
        boxes = []
        for x, y in corners:
            x = min(max(x, 0), max(0, canvas.shape[1] - width))
            y = min(max(y, 0), max(0, canvas.shape[0] - height))
            boxes.append((x, y, x + width, y + height))
        box = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(box)
        put_text(canvas, text, box[:2], size_px, color, EDGE)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two boxes (x0, y0, x1, y1) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points as OpenCV's fixed-point coordinates, clipped far outside the image, where OpenCV's would overflow."""
    clipped = np.clip(np.nan_to_num(points, nan=0.0), -30_000, 30_000)
    return np.round(clipped * 2**SUBPIXEL_BITS).astype(np.int32)
