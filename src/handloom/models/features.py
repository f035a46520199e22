"""Corners of the still scene, followed through a clip: what the camera's path is estimated from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.protocols import ClipFrames
from handloom.schemas.values import FeatureTracks, HandPoints, VideoInfo

VERSION = "corners-klt 5"

CELL_PX = 32
"""One corner per cell of the working frame: about 200 at 640 x 360, spread over all of it."""
WINDOW_PX = 21
LEVELS = 3  # a head turns up to 60 px a frame at 15 Hz; blur leaves only coarse levels to follow
KEY_FRAMES = 6
"""A corner's appearance is taken every so many frames, and every frame is measured against it: no drift in between."""
MIN_ALIKE = 0.75
"""Of the corners, those that must still look as in the key frame. At 7 px a frame a quarter was lost in every frame:
a head that turns left 72 corners a frame, now 202 (Ego4D, wide lenses)."""
AGED_PX = 4.0  # median way since the key frame; where nothing moved, what looks different is noise
MAX_DISAGREEMENT_PX = 0.8  # between the way frame by frame and the way straight from the key frame
BLOCK_PX = 11  # a corner is judged by about what it is matched by; by 5 px, one on a grain of wood slides along it
MIN_EIGENVALUE = 2e-5  # of cornerMinEigenVal: plain walls and tables have little more
NOISE_EIGENVALUE = 1.3e-5  # times the variance of the noise in grey levels; noise alone has 0.8e-5
MIN_DISTANCE_PX = 12.0
BORDER_PX = 8
WRIST_HALF = 0.65  # palms; half a wrist, with its sleeve
FOREARM_RAD = np.radians(18)  # either side of the line from the knuckles through the wrist
LAID_OVER_GREY, LAID_OVER_PX = 16, 16
"""Most that a pixel of a logo, a bar or a frame that is laid over the picture changes in a clip; and how far from one a
corner is not the scene's alone."""
EDGE_GREY, EDGE_WAY_PX = 12.0, 2.0
"""Slope of the mean picture, grey levels a pixel, at what is laid over: edges of the scene pass and leave less, a bare
wall has none. The mean is of pictures so far apart, so that a head that rests does not count for more. Without this
EgoDex's walls were taken for bars: of 97 and 87 corners a frame 8 and 19 were left, and four of five clips lost
their path."""
PASSED_PX = 24.0  # of the picture's way: where less passes, much of the scene stays in its place, too
SMALL = (32, 18)
STEP = 0.08
"""Of the logarithm of the light, from one frame to the next: more is a step of the exposure, if a factor for the whole
picture leaves less than half of what changed."""
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02)

Points = NDArray[np.float32]
Grey = NDArray[np.uint8]
Seen = tuple[NDArray[np.int32], NDArray[np.int32], Points]  # frame, track, place of a frame's corners


class CornerTracks:
    """Follows Shi-Tomasi corners from frame to frame, and finds new ones where a cell of the picture has none.

    A key frame is taken every `KEY_FRAMES`, and as soon as the camera has moved so far that corners look different.
    Every frame is first followed from the one before it, then measured against the last key frame; a corner is lost
    where the two disagree, where it leaves the picture, and where a hand or a forearm covers it. At a key frame it must
    also lead back to where it was in the one before (forward-backward). A lost corner does not come back: what is found
    there later is another track. A step of the exposure ends none (`_relit`). Where the picture moves, what never
    changes lies on it: a clock, a line of text, black bars. Corners are told of until they come near it: rendered, a
    picture in the picture took the path of a head along
    by 2.3 degrees, 0.01 without its corners; black bars by 0.28, 0.02.

    Source: Shi and Tomasi, Good Features to Track (CVPR 1994); Bouguet, Pyramidal Implementation of the Lucas Kanade
    Feature Tracker (2001); Kalal et al., Forward-Backward Error (ICPR 2010).
    """

    def track(
        self, info: VideoInfo, frames: ClipFrames, hands: HandPoints | None, cuts: Iterable[int] = ()
    ) -> FeatureTracks:
        """All corners of the clip.

        Args:
            hands: both hands over the same frames, source pixels, or None: nothing masked.
            cuts: first frames of other shots; no corner goes on across one.
        """
        if not len(frames):
            return _joined([], np.ones(2))
        grey = frames.grey(0)
        scale = np.array([info.width / grey.shape[1], info.height / grey.shape[0]])
        state, seen, age, cuts = _State.start(grey), [], KEY_FRAMES, set(cuts)
        darkest, brightest, way = grey.copy(), grey.copy(), [np.zeros(2)]
        total, num_told, told = np.zeros(grey.shape, np.float32), 0, None
        for t in range(len(frames)):
            grey = grey if t == 0 else frames.grey(t)
            free = _free(grey.shape, t, hands, scale)
            if t in cuts:
                state, age = replace(_State.start(grey), num_tracks=state.num_tracks), KEY_FRAMES
            elif t > 0:
                state, aged = _follow(_relit(state, grey), grey, free)
                age = KEY_FRAMES if aged else age + 1
                if age == KEY_FRAMES and not aged:
                    state = _verified_back(state)
            if age == KEY_FRAMES:
                state, age = _with_new(state, grey, free), 0
            seen.append((np.full(len(state.tracks), t, np.int32), state.tracks, state.points))
            cv2.min(darkest, grey, darkest)
            cv2.max(brightest, grey, brightest)
            way.append(way[-1] + _step(*seen[-2:]) if t > 0 else way[-1])
            if told is None or np.linalg.norm(way[-1] - told) >= EDGE_WAY_PX:
                cv2.accumulate(grey, total)
                told, num_told = way[-1], num_told + 1
        if np.linalg.norm(np.ptp(way, axis=0)) >= PASSED_PX:
            edges = _edges(total / num_told) & (brightest - darkest <= LAID_OVER_GREY)
            seen = _in_the_scene(seen, _near(edges), state.num_tracks)
        return _joined(seen, scale)


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


def _relit(state: _State, grey: Grey) -> _State:
    """The pictures that are kept, in the light of the next frame, where the exposure makes a step.

    Corners are matched by their grey levels: after a step of 1.5 or 0.6 none or few of 75 to 255 went on.
    """
    lights = [max(cv2.mean(one)[0], 1.0) for one in (state.before, grey)]
    if abs(np.log(lights[1] / lights[0])) < STEP / 2:
        return state
    old, new = (cv2.resize(one, SMALL, interpolation=cv2.INTER_AREA).astype(np.float64) for one in (state.before, grey))
    told = (old > 8) & (old < 240) & (new > 8) & (new < 240)
    if not told.any():
        return state
    gain = float(np.median(new[told] / old[told]))
    left = float(np.median(np.abs(gain * old - new)[told]))
    if abs(np.log(gain)) < STEP or left > 0.5 * float(np.median(np.abs(old - new)[told])):
        return state
    table = np.clip(np.rint(gain * np.arange(256)), 0, 255).astype(np.uint8)
    return replace(state, before=cv2.LUT(state.before, table), key=cv2.LUT(state.key, table))


def _match(source: Grey, target: Grey, points: Points, guess: Points | None = None) -> tuple[Points, NDArray[np.bool_]]:
    """Where the points are in the target (n, 2), and whether they were found (n,); near `guess`, or anywhere near."""
    flags, levels = (cv2.OPTFLOW_USE_INITIAL_FLOW, 1) if guess is not None else (0, LEVELS)
    options = {"winSize": (WINDOW_PX, WINDOW_PX), "maxLevel": levels, "criteria": _CRITERIA, "flags": flags}
    start = None if guess is None else guess.copy()
    moved, status, _ = cv2.calcOpticalFlowPyrLK(source, target, points, start, minEigThreshold=1e-4, **options)
    return moved, status[:, 0] == 1


def _follow(state: _State, grey: Grey, free: NDArray[np.bool_]) -> tuple[_State, bool]:
    """The corners in the next frame, and whether the key frame has aged: too few of them look as they did there.

    Those of an aged key frame are followed from frame to frame instead, there and back.
    """
    if not len(state.points):
        return replace(state, before=grey), True
    guess, found = _match(state.before, grey, state.points)
    points, straight = _match(state.key, grey, state.key_points, guess)
    near = np.linalg.norm(points - guess, axis=1) <= MAX_DISAGREEMENT_PX
    inside = found & _at(free, guess)
    good = inside & straight & near
    moved_px = np.median(np.linalg.norm(guess - state.key_points, axis=1))
    aged = good.sum() < MIN_ALIKE * inside.sum() and moved_px >= AGED_PX
    if aged:
        points, good = guess, inside & _led_back(state.before, grey, state.points, guess)
    moved = replace(state, before=grey, points=points)
    return moved.kept(good & _at(free, points)), bool(aged)


def _led_back(before: Grey, after: Grey, points: Points, moved: Points) -> NDArray[np.bool_]:
    """(n,) whether what moved leads back to where it was."""
    back, led = _match(after, before, moved, points)
    return led & (np.linalg.norm(back - points, axis=1) <= MAX_DISAGREEMENT_PX)


def _verified_back(state: _State) -> _State:
    """Those that lead back to their place in the key frame."""
    if not len(state.points):
        return state
    back, found = _match(state.before, state.key, state.points, state.key_points)
    return state.kept(found & (np.linalg.norm(back - state.key_points, axis=1) <= MAX_DISAGREEMENT_PX))


def _with_new(state: _State, grey: NDArray[np.uint8], free: NDArray[np.bool_]) -> _State:
    """This frame becomes the key frame; every cell without a corner gets its best one."""
    strength = cv2.cornerMinEigenVal(grey, BLOCK_PX) * free
    enough = max(MIN_EIGENVALUE, NOISE_EIGENVALUE * _noise(grey) ** 2)
    cells = _cells_of(state.points, grey.shape)
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
    """Which whole cells of the picture hold a point."""
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
    """Standard deviation of the picture's noise, grey levels: the median of what a mask blind to planes leaves over.

    Source: Immerkaer, Fast Noise Variance Estimation (CVIU 1996); the median, so that texture counts little.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    left = cv2.filter2D(grey, cv2.CV_16S, mask)[1:-1:2, 1:-1:2]
    return float(np.median(np.abs(left))) / (0.6745 * 6)


def _at(mask: NDArray[np.bool_], points: Points) -> NDArray[np.bool_]:
    """(n,) mask at the points; False outside the picture."""
    x, y = np.round(np.nan_to_num(points, nan=-1.0)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    return inside & mask[np.where(inside, y, 0), np.where(inside, x, 0)]


def _step(before: Seen, after: Seen) -> NDArray[np.float64]:
    """(2,) median way of the corners that are in both frames."""
    _, mine, same = np.intersect1d(before[1], after[1], assume_unique=True, return_indices=True)
    return np.median(after[2][same] - before[2][mine], axis=0) if len(mine) else np.zeros(2)


def _in_the_scene(seen: list[Seen], laid_over: NDArray[np.bool_], num_tracks: int) -> list[Seen]:
    """Corners until they come near what is laid over the picture."""
    gone, kept = np.zeros(num_tracks, bool), []
    for frame, tracks, points in seen:
        gone[tracks[_at(laid_over, points)]] = True
        stays = ~gone[tracks]
        kept.append((frame[stays], tracks[stays], points[stays]))
    return kept


def _edges(mean: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels at an edge of a picture, and beside one."""
    across, down = cv2.Sobel(mean, cv2.CV_32F, 1, 0), cv2.Sobel(mean, cv2.CV_32F, 0, 1)
    steep = (cv2.magnitude(across, down) >= 8 * EDGE_GREY).astype(np.uint8)  # Sobel's sum of weights: 8 of one slope
    return cv2.dilate(steep, np.ones((3, 3), np.uint8)) > 0


def _near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and what is no further than LAID_OVER_PX from it; single pixels of it do not count."""
    solid = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return cv2.dilate(solid, np.ones((2 * LAID_OVER_PX + 1,) * 2, np.uint8)) > 0


def _free(shape: tuple[int, int], t: int, hands: HandPoints | None, scale: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(h, w) True where no hand, no forearm and no border is."""
    mask = np.zeros(shape, np.uint8)
    mask[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = 1
    if hands is not None:
        for hand in np.flatnonzero(hands.visible[t]):
            keypoints = (hands.keypoints_px[t, hand].astype(np.float64) + 0.5) / scale - 0.5
            if np.isfinite(keypoints).all():
                _cover(mask, keypoints)
    return mask.astype(bool)


def _cover(mask: NDArray[np.uint8], keypoints: NDArray[np.float64]) -> None:
    """Blank a hand, half a palm wider than its hull, and its forearm: from the wrist to the border."""
    palm = float(np.linalg.norm(keypoints[5] - keypoints[17]) + np.linalg.norm(keypoints[9] - keypoints[0])) / 2
    palm = float(np.clip(palm, 4.0, max(mask.shape)))
    shape = np.clip(keypoints, -4.0 * max(mask.shape), 5.0 * max(mask.shape))  # OpenCV draws with 16-bit fractions
    hull = cv2.convexHull(shape.astype(np.float32)).astype(np.int32)
    cv2.fillPoly(mask, [hull], 0)
    cv2.polylines(mask, [hull], True, 0, thickness=max(int(palm), 1))
    away = keypoints[0] - keypoints[[5, 9, 13, 17]].mean(axis=0)
    length = float(np.linalg.norm(away))
    if length > 1e-6:
        _cover_forearm(mask, shape[0], away / length, palm)


def _cover_forearm(mask: NDArray[np.uint8], wrist: NDArray[np.float64], away: NDArray[np.float64], palm: float) -> None:
    """A wedge, since a wrist bends: from the wrist to beyond the border."""
    across, reach = np.array([-away[1], away[0]]), 1.5 * max(mask.shape)
    near, far = WRIST_HALF * palm, WRIST_HALF * palm + np.tan(FOREARM_RAD) * reach
    edge = np.array([wrist + near * across, wrist + reach * away + far * across])
    other = np.array([wrist + reach * away - far * across, wrist - near * across])
    cv2.fillPoly(mask, [np.vstack([edge, other]).astype(np.int32)], 0)


def _joined(seen: list[tuple[NDArray[np.int32], NDArray[np.int32], Points]], scale: NDArray) -> FeatureTracks:
    if not seen:
        return FeatureTracks(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 2), np.float32))
    frame, track, points = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    points_px = ((points.astype(np.float64) + 0.5) * scale - 0.5).astype(np.float32)
    return FeatureTracks(frame, track, points_px)
