"""Where tracked points are in relation to a hand, and when a hand carries each of them.

A point on a thing rests while the hand comes, then moves with it, then rests again; a point on the hand itself never
rests while the hand moves. This tells them apart without a detector.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.interactions.moving import PointMotion
from handloom.geometry.interactions.scene import Scene
from handloom.geometry.interactions.signals import HandMotion
from handloom.geometry.tracks.hand import on_and_beside
from handloom.schemas.hand_topology import MIDDLE, WRIST

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

REACH_M = 0.13
"""A thing's points lie within this distance of a keypoint of the hand that moves it, across the line of sight."""
MOST_ON_FLESH = 0.6
"""A point that lies on the hand's outline in more of the frames in which it moves with the hand is the hand's, unless
it rested while the hand came, and the hand was slow when it took it: the tracker also moves points of the background
onto a hand that passes over them."""
TAKES_M_S, TAKES_FRAMES = 0.06, 3
"""Slower than this, in one of so many frames before, is a hand that takes a thing."""
FOREARM_WIDTH_M, FOREARM_SPREAD = 0.045, 0.5
"""Half the width of the wedge at the wrist, and its growth: the wrist bends, and sleeves are wide."""
HAND_MOVES_M_S = 0.05
APART_SPEED, SLOW_APART_SPEED = 2.0, 1.5
"""A point that rests tells that it is not the hand's while the hand is so many times as fast; of a slow hand, the
second."""
ALIKE_SHARE, ALIKE_M_S = 0.6, 0.03
"""A point moves as the hand's nearest keypoint does if their velocities differ by less than this share of the
keypoint's speed, and this much more: things turn in the hand, and keypoints are not exact."""
CREEP_SHARE = 0.2
"""A point that creeps moves with the hand if it is not much slower than the hand's nearest keypoint."""
BESIDE_FLESH = 0.3
"""A point that comes into sight in the hand is taken for a thing's if it is on the hand's outline in fewer frames."""
MOST_EARLY = 4
"""A run that begins so many frames after its shot may be of a thing that the hand held already."""
MOST_SILENT = 6
"""Frames in which a point is hidden, or gives no sign while the hand moves, before a run ends."""
MIN_WAY_M = 0.012
BRIDGED_S, MIN_BRIDGE = 6.0, 3
"""A hand that is lost from sight for less than the first, and found again, is followed by points that move where it
must be, if there are so many. Detectors lose hands above all while they hold things."""
SURE = 3
"""So many signs in a row that a point rests while the hand moves: one alone may be an error."""


@dataclass(frozen=True)
class Beside:
    """Tracks beside a hand. apart_m: (T, N) distance from its nearest keypoint, across the line of sight. velocity: (T,
    N, 2) of that keypoint across it, m/s. on_flesh: (T, N) the point's ray meets the hand; on_arm: (T, N) it lies
    behind the wrist; both only where the hand is seen, `is_exact` (T,). NaN where it is unknown."""

    apart_m: Floats
    velocity: Floats
    on_flesh: Bools
    on_arm: Bools
    is_exact: Bools


def beside_hand(scene: Scene, hand: HandMotion) -> Beside:
    """Where the tracks are in relation to a hand."""
    num, tracks = scene.rays.shape[:2]
    apart, velocity = np.full((num, tracks), np.nan), np.full((num, tracks, 2), np.nan)
    flesh, arm = np.zeros((num, tracks), bool), np.zeros((num, tracks), bool)
    exact = np.isfinite(hand.pinch_m)
    known = np.isfinite(hand.keypoints_m).all(axis=(1, 2)) & np.isfinite(scene.poses).all(axis=(1, 2))
    for t in np.flatnonzero(known):
        seen = np.flatnonzero(np.isfinite(scene.rays[t, :, 0]))
        cam = (hand.keypoints_m[t] - scene.poses[t, :3, 3]) @ scene.poses[t, :3, :3]
        if not len(seen) or (cam[:, 2] < 0.01).any():
            continue
        image = cam[:, :2] / cam[:, 2:]
        gap = scene.rays[t, seen, None, :2] - image
        distance = np.sqrt((gap**2).sum(-1)) * cam[:, 2]
        which = distance.argmin(axis=1)
        apart[t, seen] = distance[np.arange(len(seen)), which]
        moved = hand.velocity[t] @ scene.poses[t, :3, :3]
        velocity[t, seen] = (moved[:, :2] - image * moved[:, 2:])[which]
        surface, _ = on_and_beside(scene.rays[t, seen], cam, 0.02)
        flesh[t, seen] = np.isfinite(surface) & exact[t]
        arm[t, seen] = _on_forearm(scene.rays[t, seen, :2], cam) & exact[t]
    return Beside(apart, velocity, flesh, arm, exact)


def bridge_gaps(hand: HandMotion, scene: Scene, motion: PointMotion) -> HandMotion:
    """The hand's places and speed also where it is lost from sight for a while; its frame and grip stay unknown there.

    It goes on as most points move that move where it is: points on itself, its sleeve, what it holds. What is left
    between the last place and that where it is found again is spread over the gap.
    """
    keypoints, velocity, speed, pace = (x.copy() for x in (hand.keypoints_m, hand.velocity, hand.speed, hand.pace))
    times, known = scene.frame_s, np.flatnonzero(np.isfinite(hand.speed))
    for before, after in itertools.pairwise(known.tolist()):
        is_short = times[after] - times[before] < BRIDGED_S and scene.shot[after] == scene.shot[before]
        if after == before + 1 or not is_short or not np.isfinite(scene.poses[before:after]).all():
            continue
        keypoints[before:after], steps = _across(keypoints, scene, motion, before, after)
        inside = np.arange(before + 1, after)
        moves = (steps[1:] + steps[:-1]) / (times[inside + 1] - times[inside - 1])[:, None]
        velocity[inside] = moves[:, None]
        speed[inside] = pace[inside] = np.linalg.norm(moves, axis=1)
    return replace(hand, keypoints_m=keypoints, velocity=velocity, speed=speed, pace=pace)


def _across(keypoints_m: Floats, scene: Scene, motion: PointMotion, before: int, after: int) -> tuple[Floats, Floats]:
    """(n, 21, 3) keypoints of the frames [before, after), and (n, 3) the steps from each to the next, world."""
    first, last = keypoints_m[before], keypoints_m[after]
    line = (last - first) / (after - before)
    steps = np.tile(line.mean(axis=0), (after - before, 1))
    at = first.copy()
    for number, t in enumerate(range(before, after)):
        camera = scene.poses[t]
        cam = (at - camera[:3, 3]) @ camera[:3, :3]
        gap = (scene.rays[t, :, None, :2] - cam[:, :2] / np.maximum(cam[:, 2:], 0.05)) * cam[:, 2:]
        with np.errstate(invalid="ignore"):
            near = np.flatnonzero(((gap**2).sum(-1).min(axis=1) < REACH_M**2) & motion.moves[t])
        if len(near) >= MIN_BRIDGE:
            moved = np.median(motion.velocity[t, near], axis=0) * (scene.frame_s[t + 1] - scene.frame_s[t])
            along = steps[number] @ camera[:3, 2]
            steps[number] = camera[:3, :3] @ np.array([*moved, along])
        at = at + steps[number]
    steps += ((last - first).mean(axis=0) - steps.sum(axis=0)) / len(steps)
    gone = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)[:-1]])
    turned = (last - last.mean(axis=0)) - (first - first.mean(axis=0))
    share = (np.arange(after - before) / (after - before))[:, None, None]
    return first + gone[:, None] + share * turned, steps


def _on_forearm(image: Floats, keypoints_cam_m: Floats) -> Bools:
    """(n,) whether points (n, 2) of the image may lie on the forearm or its sleeve: in a wedge behind the wrist, about
    the line from the knuckles through it."""
    wrist, knuckle = (keypoints_cam_m[k, :2] / keypoints_cam_m[k, 2] for k in (WRIST, MIDDLE[0]))
    back = wrist - knuckle
    length = max(float(np.linalg.norm(back)), 1e-6)
    z = keypoints_cam_m[WRIST, 2]
    along = (image - wrist) @ back / length * z
    across = np.abs((image - wrist) @ np.array([-back[1], back[0]])) / length * z
    return (along > -0.01) & (across < FOREARM_WIDTH_M + FOREARM_SPREAD * along)


@dataclass(frozen=True)
class Run:
    """Frames [start, end) in which a hand carries a point. rests: it is seen at rest afterwards, while the hand moves;
    else it is lost, or the clip ends. is_sure: it was seen at rest while the hand moved: before, or after what the hand
    held when the shot began. rested: it was before."""

    point: int
    start: int
    end: int
    rests: bool
    is_sure: bool
    rested: bool = False


def carried_points(scene: Scene, motion: PointMotion, beside: Beside, is_slow: bool = False) -> list[Run]:
    """When a hand carries which points, by start. is_slow: also points that rested beside a hand that moved slowly."""
    with np.errstate(invalid="ignore"):
        speed = np.linalg.norm(beside.velocity, axis=-1)
        differs = np.linalg.norm(motion.velocity - beside.velocity, axis=-1)
        near = (beside.apart_m < REACH_M) & ~beside.on_arm
        together = motion.moves & (speed > HAND_MOVES_M_S) & near & (differs < ALIKE_SHARE * speed + ALIKE_M_S)
        together |= motion.creeps & ~motion.moves & near & (motion.slow > CREEP_SHARE * speed)
        apart = motion.still & (speed > APART_SPEED * HAND_MOVES_M_S)
        rests = motion.still & (speed > SLOW_APART_SPEED * HAND_MOVES_M_S)
    together &= _twice(together) & ~scene.on_hand
    flesh = (together & beside.on_flesh).sum(axis=0) / np.maximum((together & beside.is_exact[:, None]).sum(axis=0), 1)
    way = np.nan_to_num(motion.speed * np.gradient(scene.frame_s)[:, None]) * together
    with np.errstate(invalid="ignore"):
        silent = ~together & ~((speed <= HAND_MOVES_M_S) & np.isfinite(scene.rays[..., 0]))
    runs = []
    for n in np.flatnonzero(together.sum(axis=0) >= SURE):
        rested = in_a_row(together[:, n], rests[:, n], SURE) & is_slow
        for each in carried_runs(together[:, n], apart[:, n], silent[:, n], scene.shot, int(n)):
            first = int(np.searchsorted(scene.shot, scene.shot[each.start]))
            run = replace(each, is_sure=True, rested=True) if rested[first : each.start].any() else each
            some = slice(run.start, run.end)
            unseen = scene.rays[first : max(run.start - SURE, first), n, 0]
            comes_up = flesh[n] <= BESIDE_FLESH and len(unseen) > SURE and not np.isfinite(unseen).any()
            moved = together[some, n].sum() >= SURE and way[some, n].sum() > MIN_WAY_M
            if flesh[n] > MOST_ON_FLESH:
                taken = speed[max(run.start - TAKES_FRAMES, 0) : run.start + 2, n]
                moved &= run.rested and bool((taken < TAKES_M_S).any())
            if moved and (run.is_sure or comes_up):
                runs.append(run)
    return sorted(runs, key=lambda run: (run.start, run.point))


def carried_runs(together: Bools, apart: Bools, silent: Bools, shot: NDArray[np.int64], point: int = 0) -> list[Run]:
    """When a point moves with a hand, pauses of both included.

    A run goes from one sign that it does to the last one, without signs that it does not between them, and without many
    frames in which it is hidden or rests while the hand moves.
    """
    apart = apart & in_a_row(together, apart, SURE)
    quiet = np.concatenate([[0], np.cumsum(silent)])
    runs, was_apart, begin, last = [], False, -1, -1
    for t in np.flatnonzero(together | apart).tolist():
        cut = begin >= 0 and shot[t] != shot[begin]
        lost = begin >= 0 and quiet[t] - quiet[last + 1] > MOST_SILENT
        if begin >= 0 and (apart[t] or cut or lost):
            rests = bool(apart[t]) and not cut and not lost
            early = begin <= MOST_EARLY or shot[begin - MOST_EARLY] != shot[begin]
            runs.append(Run(point, begin, last + 1, rests, was_apart or (rests and early), was_apart))
            begin = -1
            was_apart &= not cut  # where it was lost, it stays one that rests without the hand
        if apart[t]:
            was_apart = True
        elif begin < 0:
            begin = last = t
        else:
            last = t
    if begin >= 0:
        runs.append(Run(point, begin, last + 1, False, was_apart, was_apart))
    return runs


def in_a_row(together: Bools, apart: Bools, least: int) -> Bools:
    """(T,) the signs of `apart` that are among at least so many, with none of `together` between them."""
    out = np.zeros(len(apart), bool)
    signs = np.flatnonzero(together | apart)
    for part in np.split(signs, np.flatnonzero(np.diff(apart[signs].astype(int))) + 1):
        if len(part) >= least:
            out[part] = apart[part]
    return out


def _twice(signs: Bools) -> Bools:
    """Signs with another one in a neighbouring frame."""
    beside = np.zeros(signs.shape, bool)
    beside[1:] |= signs[:-1]
    beside[:-1] |= signs[1:]
    return beside
