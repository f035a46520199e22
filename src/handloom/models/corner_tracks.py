"""Corners of the static scene, followed through a clip: the input of the camera's path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.protocols import ClipFrames
from handloom.schemas.hand_topology import INDEX, KNUCKLES, LITTLE, MIDDLE, WRIST
from handloom.schemas.values import FeatureTracks, HandPoints, VideoInfo

VERSION = "corners-klt 5"

CELL_PX = 32
"""One corner per cell of the working frame: about 200 at 640 x 360, spread over all of it."""
WINDOW_PX = 21
LEVELS = 3  # a head turns up to 60 px a frame at 15 Hz; blur leaves only coarse levels to follow
KEY_FRAMES = 6
"""Frames between key frames. Every frame is matched against the last key frame, so that errors do not add up in
between."""
MIN_ALIKE = 0.75
"""Share of the corners that must look as in the key frame; if fewer do, another key frame is taken. At 7 px a frame a
quarter was lost in every frame: a turning head left 72 corners a frame, now 202 (Ego4D, wide lenses)."""
AGED_PX = 4.0  # least median motion since the key frame for that; without motion the differences are noise
MAX_DISAGREEMENT_PX = 0.8  # between the place followed frame by frame and the place matched from the key frame
BLOCK_PX = 11  # about the window that matches a corner; with 5 px, corners on wood slide along the grain
MIN_EIGENVALUE = 2e-5  # of cornerMinEigenVal; plain walls and tables have little more
NOISE_EIGENVALUE = 1.3e-5  # times the variance of the noise in grey levels; noise alone has 0.8e-5
MIN_DISTANCE_PX = 12.0
BORDER_PX = 8
WRIST_HALF = 0.65  # palms; half a wrist, with its sleeve
FOREARM_RAD = np.radians(18)  # either side of the line from the knuckles through the wrist
OVERLAY_GREY, OVERLAY_PX = 16, 16
"""An overlay is a logo, bar or frame laid over the image: its pixels change over a clip by no more than this, grey
levels. Corners within the second, pixels, are dropped."""
EDGE_GREY, EDGE_STEP_PX = 12.0, 2.0
"""Least gradient of the clip's mean image at the edge of an overlay, grey levels per pixel: edges of a moving scene
leave less, a bare wall has none. The images averaged are at least the second, pixels, of motion apart, so that a head
at rest does not count more. Without this EgoDex's walls were taken for bars: of 97 and 87 corners a frame 8 and 19 were
left, and four of five clips lost their path."""
MIN_MOTION_PX = 24.0
"""Of the image over the clip, to look for overlays: if it moves less, much of the scene stays in place, too."""
THUMBNAIL = (32, 18)
EXPOSURE_STEP = 0.08
"""A larger change of the logarithm of the light between frames is a step of the exposure, if one factor for the whole
image removes more than half of the difference."""
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02)

Points = NDArray[np.float32]
Grey = NDArray[np.uint8]
FrameCorners = tuple[NDArray[np.int32], NDArray[np.int32], Points]  # of one frame's corners: frame, track, place


class CornerTracks:
    """Follows Shi-Tomasi corners from frame to frame, and finds new ones where a cell of the image has none.

    A key frame is taken every `KEY_FRAMES`, and as soon as the camera has moved so far that corners look different.
    Every frame is first followed from the one before it, then measured against the last key frame; a corner is lost
    where the two disagree, where it leaves the image, and where a hand or a forearm covers it. At a key frame it must
    also lead back to where it was in the one before (forward-backward). A lost corner does not come back: what is found
    there later is another track. A step of the exposure ends no track (`_with_exposure_of`). If the image moves by
    `min_motion_px` or more, edges that never change are laid over it: a clock, a line of text, black bars. A track ends
    where it comes near one: on rendered clips the corners of a picture in picture pulled the path of a head by 2.3
    degrees (0.01 without them), those of black bars by 0.28 (0.02).

    Source: Shi and Tomasi, Good Features to Track (CVPR 1994); Bouguet, Pyramidal Implementation of the Lucas Kanade
    Feature Tracker (2001); Kalal et al., Forward-Backward Error (ICPR 2010).
    """

    def __init__(self, min_motion_px: float = MIN_MOTION_PX) -> None:
        self._min_motion_px = min_motion_px

    def track(
        self, info: VideoInfo, frames: ClipFrames, hands: HandPoints | None, cuts: Iterable[int] = ()
    ) -> FeatureTracks:
        """All corners of the clip.

        Args:
            hands: both hands over the same frames, source pixels; None masks nothing.
            cuts: first frames of the second and later shots; no track crosses one.
        """
        if not len(frames):
            return _concatenate([], np.ones(2))
        grey = frames.grey(0)
        scale = np.array([info.width / grey.shape[1], info.height / grey.shape[0]])
        state, seen, age, cuts = _State.start(grey), [], KEY_FRAMES, set(cuts)
        darkest, brightest, motion = grey.copy(), grey.copy(), [np.zeros(2)]
        total, num_added, last_added = np.zeros(grey.shape, np.float32), 0, None
        for t in range(len(frames)):
            grey = grey if t == 0 else frames.grey(t)
            free = _scene_mask((grey.shape[0], grey.shape[1]), t, hands, scale)
            if t in cuts:
                state, age = replace(_State.start(grey), num_tracks=state.num_tracks), KEY_FRAMES
            elif t > 0:
                state, aged = _follow(_with_exposure_of(state, grey), grey, free)
                age = KEY_FRAMES if aged else age + 1
                if age == KEY_FRAMES and not aged:
                    state = _checked_with_key_frame(state)
            if age == KEY_FRAMES:
                state, age = _with_new(state, grey, free), 0
            seen.append((np.full(len(state.tracks), t, np.int32), state.tracks, state.points))
            cv2.min(darkest, grey, darkest)
            cv2.max(brightest, grey, brightest)
            motion.append(motion[-1] + _median_step(*seen[-2:]) if t > 0 else motion[-1])
            if last_added is None or np.linalg.norm(motion[-1] - last_added) >= EDGE_STEP_PX:
                cv2.accumulate(grey, total)
                last_added, num_added = motion[-1], num_added + 1
        if np.linalg.norm(np.ptp(motion, axis=0)) >= self._min_motion_px:
            edges = _edges(total / num_added) & (brightest - darkest <= OVERLAY_GREY)
            seen = _end_at_overlays(seen, _near(edges), state.num_tracks)
        return _concatenate(seen, scale)


@dataclass(frozen=True)
class _State:
    """Live corners. tracks: (n,) int32 identities. points: (n, 2) in the last frame, key_points: in the key frame."""

    before: Grey
    key: Grey
    tracks: NDArray[np.int32]
    points: Points
    key_points: Points
    num_tracks: int

    @staticmethod
    def start(grey: Grey) -> _State:
        none = np.zeros((0, 2), np.float32)
        return _State(grey, grey, np.zeros(0, np.int32), none, none, 0)

    def kept(self, keep: NDArray[np.bool_]) -> _State:
        return _State(
            self.before, self.key, self.tracks[keep], self.points[keep], self.key_points[keep], self.num_tracks
        )


def _with_exposure_of(state: _State, grey: Grey) -> _State:
    """The stored images brought to the light of the next frame, if the exposure makes a step.

    Corners are matched by grey levels: without this, after a factor of 1.5 or 0.6, few or none of 75 to 255 tracks
    continued.
    """
    lights = [max(cv2.mean(one)[0], 1.0) for one in (state.before, grey)]
    if abs(np.log(lights[1] / lights[0])) < EXPOSURE_STEP / 2:
        return state
    small = (cv2.resize(one, THUMBNAIL, interpolation=cv2.INTER_AREA) for one in (state.before, grey))
    old, new = (one.astype(np.float64) for one in small)
    usable = (old > 8) & (old < 240) & (new > 8) & (new < 240)
    if not usable.any():
        return state
    gain = float(np.median(new[usable] / old[usable]))
    left = float(np.median(np.abs(gain * old - new)[usable]))
    if abs(np.log(gain)) < EXPOSURE_STEP or left > 0.5 * float(np.median(np.abs(old - new)[usable])):
        return state
    table = np.clip(np.rint(gain * np.arange(256)), 0, 255).astype(np.uint8)
    return replace(state, before=cv2.LUT(state.before, table), key=cv2.LUT(state.key, table))


def _match(source: Grey, target: Grey, points: Points, guess: Points | None = None) -> tuple[Points, NDArray[np.bool_]]:
    """The points' places in the target (n, 2), and whether they were found (n,); searched from `guess` if given."""
    flags, levels = (cv2.OPTFLOW_USE_INITIAL_FLOW, 1) if guess is not None else (0, LEVELS)
    options = {"winSize": (WINDOW_PX, WINDOW_PX), "maxLevel": levels, "criteria": _CRITERIA, "flags": flags}
    start = None if guess is None else guess.copy()
    moved, status, _ = cv2.calcOpticalFlowPyrLK(source, target, points, start, minEigThreshold=1e-4, **options)
    return moved, status[:, 0] == 1


def _follow(state: _State, grey: Grey, free: NDArray[np.bool_]) -> tuple[_State, bool]:
    """The corners in the next frame, and whether the key frame has aged: too few corners look as they did in it.

    If so, they are followed from frame to frame instead, with a forward-backward check.
    """
    if not len(state.points):
        return replace(state, before=grey), True
    guess, found = _match(state.before, grey, state.points)
    points, straight = _match(state.key, grey, state.key_points, guess)
    near = np.linalg.norm(points - guess, axis=1) <= MAX_DISAGREEMENT_PX
    inside = found & _inside_mask(free, guess)
    good = inside & straight & near
    moved_px = np.median(np.linalg.norm(guess - state.key_points, axis=1))
    aged = good.sum() < MIN_ALIKE * inside.sum() and moved_px >= AGED_PX
    if aged:
        points, good = guess, inside & _passes_backward(state.before, grey, state.points, guess)
    moved = replace(state, before=grey, points=points)
    return moved.kept(good & _inside_mask(free, points)), bool(aged)


def _passes_backward(before: Grey, after: Grey, points: Points, moved: Points) -> NDArray[np.bool_]:
    """(n,) whether moved points lead back to their places."""
    back, led = _match(after, before, moved, points)
    return led & (np.linalg.norm(back - points, axis=1) <= MAX_DISAGREEMENT_PX)


def _checked_with_key_frame(state: _State) -> _State:
    """The corners that lead back to their places in the key frame."""
    if not len(state.points):
        return state
    back, found = _match(state.before, state.key, state.points, state.key_points)
    return state.kept(found & (np.linalg.norm(back - state.key_points, axis=1) <= MAX_DISAGREEMENT_PX))


def _with_new(state: _State, grey: NDArray[np.uint8], free: NDArray[np.bool_]) -> _State:
    """This frame becomes the key frame; every cell without a corner gets its best one."""
    strength = cv2.cornerMinEigenVal(grey, BLOCK_PX) * free
    enough = max(MIN_EIGENVALUE, NOISE_EIGENVALUE * _noise(grey) ** 2)
    cells = _cells_of(state.points, (grey.shape[0], grey.shape[1]))
    strength[: grey.shape[0] // CELL_PX * CELL_PX, : grey.shape[1] // CELL_PX * CELL_PX] *= ~cells.repeat(
        CELL_PX, axis=0
    ).repeat(CELL_PX, axis=1)
    corners = _best_of_cells(strength, enough)
    if len(state.points) and len(corners):
        distance = np.linalg.norm(corners[:, None] - state.points, axis=2).min(axis=1)
        corners = corners[distance >= MIN_DISTANCE_PX]
    if len(corners):
        corners = cv2.cornerSubPix(grey, corners.copy(), (3, 3), (-1, -1), _CRITERIA)
    points = np.concatenate([state.points, corners])
    names = np.arange(state.num_tracks, state.num_tracks + len(corners), dtype=np.int32)
    tracks = np.concatenate([state.tracks, names])
    return _State(state.before, state.before, tracks, points, points, state.num_tracks + len(corners))


def _cells_of(points: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which whole cells of the image hold a point."""
    cells = np.zeros((shape[0] // CELL_PX, shape[1] // CELL_PX), bool)
    index = (points // CELL_PX).astype(int)
    inside = (index[:, 0] < cells.shape[1]) & (index[:, 1] < cells.shape[0])
    cells[index[inside, 1], index[inside, 0]] = True
    return cells


def _best_of_cells(strength: NDArray[np.float32], enough: float) -> Points:
    """(n, 2) strongest pixel of every whole cell, where it is strong enough."""
    rows, columns = strength.shape[0] // CELL_PX, strength.shape[1] // CELL_PX
    tiles = strength[: rows * CELL_PX, : columns * CELL_PX].reshape(rows, CELL_PX, columns, CELL_PX)
    tiles = tiles.transpose(0, 2, 1, 3).reshape(rows * columns, CELL_PX * CELL_PX)
    best = tiles.argmax(axis=1)
    good = np.flatnonzero(tiles[np.arange(len(tiles)), best] > enough)
    y = good // columns * CELL_PX + best[good] // CELL_PX
    x = good % columns * CELL_PX + best[good] % CELL_PX
    return np.stack([x, y], axis=1).astype(np.float32)


def _noise(grey: Grey) -> float:
    """Standard deviation of the image's noise, grey levels, by a filter that removes planes.

    Source: Immerkaer, Fast Noise Variance Estimation (CVIU 1996), with a median, so that texture counts little.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    left = cv2.filter2D(grey, cv2.CV_16S, mask)[1:-1:2, 1:-1:2]
    return float(np.median(np.abs(left))) / (0.6745 * 6)


def _inside_mask(mask: NDArray[np.bool_], points: Points) -> NDArray[np.bool_]:
    """(n,) mask at the points; False outside the image."""
    x, y = np.round(np.nan_to_num(points, nan=-1.0)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return inside & mask[np.where(inside, y, 0), np.where(inside, x, 0)]


def _median_step(before: FrameCorners, after: FrameCorners) -> NDArray[np.float64]:
    """(2,) median motion of the corners that are in both frames."""
    _, mine, same = np.intersect1d(before[1], after[1], assume_unique=True, return_indices=True)
    return np.median(after[2][same] - before[2][mine], axis=0) if len(mine) else np.zeros(2)


def _end_at_overlays(seen: list[FrameCorners], overlay: NDArray[np.bool_], num_tracks: int) -> list[FrameCorners]:
    """Tracks, ended where they come near an overlay."""
    gone, kept = np.zeros(num_tracks, bool), []
    for frame, tracks, points in seen:
        gone[tracks[_inside_mask(overlay, points)]] = True
        stays = ~gone[tracks]
        kept.append((frame[stays], tracks[stays], points[stays]))
    return kept


def _edges(mean: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels at or beside an edge."""
    across, down = cv2.Sobel(mean, cv2.CV_32F, 1, 0), cv2.Sobel(mean, cv2.CV_32F, 0, 1)
    steep = (cv2.magnitude(across, down) >= 8 * EDGE_GREY).astype(np.uint8)  # Sobel's weights sum to 8
    return cv2.dilate(steep, np.ones((3, 3), np.uint8)) > 0


def _near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels within OVERLAY_PX of the mask, without the mask's single pixels."""
    solid = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return cv2.dilate(solid, np.ones((2 * OVERLAY_PX + 1,) * 2, np.uint8)) > 0


def _scene_mask(
    shape: tuple[int, int], t: int, hands: HandPoints | None, scale: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(h, w) False on hands, forearms and the image's border."""
    mask = np.zeros(shape, np.uint8)
    mask[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = 1
    if hands is not None:
        for hand in np.flatnonzero(hands.visible[t]):
            keypoints = (hands.keypoints_px[t, hand].astype(np.float64) + 0.5) / scale - 0.5
            if np.isfinite(keypoints).all():
                _mask_hand(mask, keypoints)
    return mask.astype(bool)


def _mask_hand(mask: NDArray[np.uint8], keypoints: NDArray[np.float64]) -> None:
    """Mask out a hand, half a palm wider than its hull, and its forearm from the wrist to the border."""
    across, along = keypoints[INDEX[0]] - keypoints[LITTLE[0]], keypoints[MIDDLE[0]] - keypoints[WRIST]
    palm = float(np.linalg.norm(across) + np.linalg.norm(along)) / 2
    palm = float(np.clip(palm, 4.0, max(mask.shape)))
    shape = np.clip(keypoints, -4.0 * max(mask.shape), 5.0 * max(mask.shape))  # OpenCV draws with 16-bit fractions
    hull = cv2.convexHull(shape.astype(np.float32)).astype(np.int32)
    cv2.fillPoly(mask, [hull], 0)
    cv2.polylines(mask, [hull], True, 0, thickness=max(int(palm), 1))
    away = keypoints[WRIST] - keypoints[list(KNUCKLES)].mean(axis=0)
    length = float(np.linalg.norm(away))
    if length > 1e-6:
        _mask_forearm(mask, shape[0], away / length, palm)


def _mask_forearm(mask: NDArray[np.uint8], wrist: NDArray[np.float64], away: NDArray[np.float64], palm: float) -> None:
    """Mask out a wedge, since a wrist bends, from the wrist to beyond the border."""
    across, reach = np.array([-away[1], away[0]]), 1.5 * max(mask.shape)
    near, far = WRIST_HALF * palm, WRIST_HALF * palm + np.tan(FOREARM_RAD) * reach
    edge = np.array([wrist + near * across, wrist + reach * away + far * across])
    other = np.array([wrist + reach * away - far * across, wrist - near * across])
    cv2.fillPoly(mask, [np.vstack([edge, other]).astype(np.int32)], 0)


def _concatenate(seen: list[tuple[NDArray[np.int32], NDArray[np.int32], Points]], scale: NDArray) -> FeatureTracks:
    if not seen:
        return FeatureTracks(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 2), np.float32))
    frame, track, points = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    points_px = ((points.astype(np.float64) + 0.5) * scale - 0.5).astype(np.float32)
    return FeatureTracks(frame, track, points_px)
