"""Held things: their points in a frame of their own, and that frame's pose over time, without a detector.

While a thing rests, its points are triangulated from the camera's motion, or put at the depth of the hand that takes
it. While a hand moves it, each frame's pose is the rigid motion that puts the points on their rays; the hand says
how far away it is. Points are then triangulated again over all frames, in the frame of the thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.interactions.beside import SURE
from handloom.geometry.interactions.contacts import MIN_POINTS, Contact
from handloom.geometry.interactions.moving import PointMotion
from handloom.geometry.interactions.rigid import inverse, pose_from_rays, triangulate
from handloom.geometry.interactions.scene import Scene
from handloom.geometry.interactions.signals import HandMotion

Floats = NDArray[np.float64]

RAY_NOISE = 0.0025
"""Standard deviation of a ray, in slopes: one pixel at a focal length of 400."""
DEPTH_SIGMA_M, HAND_DEPTH_SIGMA_M = 0.02, 0.04
"""Of a point's own depth while it rests; of the hand's depth in place of it."""
CARRIED = (0.12, 0.05, 0.012)
"""Prior of a pose: its rotation is that of the frame before (radians), its place follows the hand (across the line of
sight and along it, metres)."""
MIN_INLIERS = 0.4
SLIPS_M = 0.06
"""A thing that is farther from where the hand takes it has lost its points to things that rest."""
FOLLOW_ROUNDS, FOLLOWS_FRAMES, FOLLOWS_SHARE, FOLLOWS_M, FOLLOWS_WAY_M = 2, 5, 0.7, 0.06, 0.03
"""A track follows a thing if it is seen in so many frames of contact, in this share of them where the thing's pose puts
it, lies this near to its points, and moves by the last. With more of them the pose is known in more frames, in which
still more are found: so many times."""
BESIDE_M, FLAT_M, FLAT_SHARE, STEEP_SIGHT, MOST_OFF_M = 0.1, 0.015, 0.6, 0.3, 0.2
"""A thing that is let go where the third share of what rests within the first of it, across the surface that it lay on,
is within the second of that surface, is as high above it as before: it was wrongly placed along the line of sight.
Nothing is told where that runs along the surface (cosine to its normal below the fourth), or it were off by more than
the last."""
UNDER_M = 0.05
"""A thing stands on another one if points of that lie within so much of its middle, across the surface, as high as it
was raised."""
_TABLE_M, _TABLE_REACH_M, _MIN_TABLE = 0.012, 0.45, 20


@dataclass(frozen=True)
class Thing:
    """A thing that was moved. number: in the clip, from 1. points: (n,) its tracks; local_m: (n, 3) in its frame.

    poses: (T, 4, 4) world_from_object, NaN unknown. Its frame: origin in the middle of its points; while it rested
    before its first contact, z was up (away from the surface it lay on, or up in the image), y away from the person.
    """

    number: int
    points: NDArray[np.int64]
    local_m: Floats
    poses: Floats

    @property
    def box_m(self) -> Floats:
        """(6,) least and largest x, y, z of its points; NaN without."""
        known = self.local_m[np.isfinite(self.local_m).all(axis=1)]
        if not len(known):
            return np.full(6, np.nan)
        return np.concatenate([np.quantile(known, 0.02, axis=0), np.quantile(known, 0.98, axis=0)])


def find_things(
    scene: Scene, motion: PointMotion, hands: tuple[HandMotion, HandMotion], contacts: Sequence[Contact]
) -> dict[int, Thing]:
    """Every thing of the contacts, by number."""
    out = {}
    for number in sorted({contact.thing for contact in contacts}):
        mine = [contact for contact in contacts if contact.thing == number]
        found = _follow(scene, motion, hands, mine)
        if found is not None:
            out[number] = found
    return out


def _follow(
    scene: Scene, motion: PointMotion, hands: tuple[HandMotion, HandMotion], contacts: list[Contact]
) -> Thing | None:
    first = contacts[0]
    points = np.unique(np.concatenate([contact.points for contact in contacts]))
    if len(points) < MIN_POINTS:
        return None
    rest = _rest_frames(scene, contacts)
    place = _placed(scene, motion, hands[first.hand], points, rest, first.start)
    if np.isfinite(place).all(axis=1).sum() < MIN_POINTS:
        return None
    start = np.eye(4)
    middle = np.nanmean(place, axis=0)
    surface = surface_around(scene, motion, first.start, middle)
    start[:3, :3] = upright_axes(scene, first.start, surface, middle)
    start[:3, 3] = start[:3, :3] @ np.nanmedian(place @ start[:3, :3], axis=0)
    local = (place - start[:3, 3]) @ start[:3, :3]
    rays, held = held_rays(scene, contacts, points)
    carrying = _Carrying(scene, motion, hands, contacts, start, surface)
    poses = carrying.poses(rays, local)
    for _ in range(2):
        local, good = _refined(scene, rays, held, local, poses)
        points, local, rays = points[good], local[good], rays[:, good]
        if len(points) < MIN_POINTS:
            return None
        poses = carrying.poses(rays, local)
    for number in range(FOLLOW_ROUNDS):
        more, place = _followers(scene, motion, contacts, points, local, poses)
        hidden = held & (np.isfinite(rays[..., 0]).sum(axis=1) < MIN_POINTS)
        every = np.concatenate([rays, _only(scene.rays[:, more], hidden)], axis=1)
        poses = carrying.poses(every, np.concatenate([local, place]), settles=number == FOLLOW_ROUNDS - 1)
    return Thing(first.thing, points, local, poses)


def held_rays(scene: Scene, contacts: Sequence[Contact], points: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """(T, n, 3) rays of some points, NaN in frames of a contact in which the hand does not carry them: they may be
    other things then, or dragged along; and (T,) the frames of contacts."""
    rays, held = scene.rays[:, points].copy(), np.zeros(len(scene.frame_s), bool)
    for contact in contacts:
        carried = np.full((contact.end - contact.start, len(points)), not contact.runs)
        for run in contact.runs:
            at = np.searchsorted(points, run.point)
            carried[max(run.start - 1 - contact.start, 0) : max(run.end + 1 - contact.start, 0), at] = True
        rays[contact.start : contact.end][~carried] = np.nan
        held[contact.start : contact.end] = True
    return rays, held


def _only(rays: Floats, frames: NDArray[np.bool_]) -> Floats:
    return np.where(frames[:, None, None], rays, np.nan)


def _followers(
    scene: Scene, motion: PointMotion, contacts: Sequence[Contact], points: NDArray[np.int64], local: Floats,
    poses: Floats,
) -> tuple[NDArray[np.int64], Floats]:  # fmt: skip
    """(m,) other tracks that move as the thing does while a hand moves it, and (m, 3) where they are in its frame.

    They lie on parts of it that the hand covered when it came, or on the fingers that hold it: they tell its pose where
    its own points are hidden, and nothing else.
    """
    frames = np.concatenate([np.arange(one.start, one.end) for one in contacts])
    frames = frames[np.isfinite(poses[frames]).all(axis=(1, 2)) & np.isfinite(scene.poses[frames]).all(axis=(1, 2))]
    seen = np.isfinite(scene.rays[frames, :, 0])
    many = (seen.sum(axis=0) >= FOLLOWS_FRAMES) & (motion.creeps[frames].sum(axis=0) >= SURE)
    many[points] = False
    more = np.flatnonzero(many)
    if not len(more):
        return more, np.empty((0, 3))
    body_from_camera = inverse(poses[frames]) @ scene.poses[frames]
    camera_from_body = inverse(body_from_camera)
    rays = scene.rays[np.ix_(frames, more)]
    z = np.broadcast_to(camera_from_body[:, 2, 3, None], rays.shape[:2])
    place, _ = triangulate(rays, body_from_camera, z, HAND_DEPTH_SIGMA_M, RAY_NOISE)
    cam = np.einsum("tij,nj->tni", camera_from_body[:, :3, :3], place) + camera_from_body[:, None, :3, 3]
    with np.errstate(invalid="ignore"):
        off = np.linalg.norm(cam[..., :2] / np.maximum(cam[..., 2:], 1e-3) - rays[..., :2], axis=-1)
        follows = (off < 3 * RAY_NOISE).sum(axis=0) >= FOLLOWS_SHARE * np.isfinite(off).sum(axis=0)
        low, high = np.nanmin(local, axis=0) - FOLLOWS_M, np.nanmax(local, axis=0) + FOLLOWS_M
        follows &= ((place > low) & (place < high)).all(axis=1)
    follows &= _moved_m(poses[frames], place, seen[:, more]) > FOLLOWS_WAY_M
    return more[follows], place[follows]


def _moved_m(poses: Floats, place: Floats, seen: NDArray[np.bool_]) -> Floats:
    """(n,) how far points of a thing's frame move with it over the frames (T, n) in which they are seen."""
    world = np.einsum("tij,nj->tni", poses[:, :3, :3], place) + poses[:, None, :3, 3]
    world = np.where(seen[..., None], world, np.nan)
    return np.linalg.norm(np.nanmax(world, axis=0) - np.nanmin(world, axis=0), axis=1)


def _rest_frames(scene: Scene, contacts: list[Contact]) -> NDArray[np.int64]:
    """Frames before the first contact, in its shot; its first frame if there are none."""
    start, shot = contacts[0].start, scene.shot
    frames = np.flatnonzero((np.arange(len(shot)) <= start) & (shot == shot[start]))
    posed = np.isfinite(scene.poses[frames]).all(axis=(1, 2))
    return frames[posed]


def _placed(
    scene: Scene, motion: PointMotion, hand: HandMotion, points: NDArray[np.int64], rest: NDArray[np.int64], start: int
) -> Floats:
    """(n, 3) places of the points while they rest, world."""
    if not len(rest):
        return np.full((len(points), 3), np.nan)
    rays = scene.rays[np.ix_(rest, points)].copy()
    rays[motion.moves[np.ix_(rest, points)] & (rest < start)[:, None]] = np.nan
    own = scene.depth_m[np.ix_(rest, points)]
    grip = hand.grip_m[min(start, len(hand.grip_m) - 1)]
    z = ((grip - scene.poses[rest, :3, 3]) * scene.poses[rest, :3, 2]).sum(axis=1)
    guess = np.where(np.isfinite(own), own, z[:, None])
    sigma = np.where(np.isfinite(own).any(axis=0), DEPTH_SIGMA_M, HAND_DEPTH_SIGMA_M)
    place, _ = triangulate(rays, scene.poses[rest], guess, sigma, RAY_NOISE)
    return place


def upright_axes(scene: Scene, t: int, surface: Surface | None, place_m: Floats) -> Floats:
    """(3, 3) columns x, y, z: z away from the surface around a place, or up in the image where there is none; y
    away from the person. They turn with the world, whatever its axes are."""
    camera = scene.poses[t]
    up = -camera[:3, 1]
    if surface is not None:
        up = surface.normal if surface.normal @ (camera[:3, 3] - place_m) > 0 else -surface.normal
    ahead = scene.ahead(t, up)
    return np.stack([np.cross(ahead, up), ahead, up], axis=1)


@dataclass(frozen=True)
class Surface:
    """A plane. normal: (3,) of length 1; middle: (3,) metres, world."""

    normal: Floats
    middle: Floats

    def heights_m(self, points_m: Floats) -> Floats:
        """(...) of points (..., 3)."""
        return (points_m - self.middle) @ self.normal


def places_at_rest(scene: Scene, motion: PointMotion, t: int, since: int | None = None) -> Floats:
    """(n, 3) places of points of the first grid that rest in a frame, and did so since another one, world."""
    camera, ray, depth = scene.poses[t], scene.rays[t], scene.depth_m[t]
    moves = motion.moves[t] if since is None else motion.creeps[since : t + 1].any(axis=0)
    seen = np.flatnonzero(np.isfinite(depth) & np.isfinite(ray[:, 0]) & ~moves & ~scene.on_hand & ~scene.later)
    return (ray[seen] * depth[seen, None]) @ camera[:3, :3].T + camera[:3, 3]


def surface_around(scene: Scene, motion: PointMotion, t: int, place_m: Floats) -> Surface | None:
    """The plane through most points around a place; None where less than half of them lie in one."""
    points = places_at_rest(scene, motion, t)
    points = points[np.linalg.norm(points - place_m, axis=1) < _TABLE_REACH_M]
    if len(points) < _MIN_TABLE:
        return None
    weight = np.ones(len(points))
    for _ in range(12):
        middle = weight @ points / weight.sum()
        spread = (points - middle).T @ (weight[:, None] * (points - middle))
        normal = np.linalg.eigh(spread)[1][:, 0]
        off = np.abs((points - middle) @ normal)
        weight = 1 / (1 + (off / _TABLE_M) ** 2) ** 2
    return Surface(normal, middle) if (off < 2 * _TABLE_M).mean() > 0.5 else None


def settled(scene: Scene, motion: PointMotion, surface: Surface, contact: Contact, poses: Floats) -> None:
    """Shift the poses of a contact along the lines of sight, from nothing at its start, so that the thing is as high
    above the surface at its end as it was, if it was let go on it."""
    start, end = contact.start, contact.end - 1
    place, camera = poses[end, :3, 3], scene.poses[end, :3, 3]
    sight = (place - camera) / np.linalg.norm(place - camera)
    steep = float(sight @ surface.normal)
    rises = float(surface.heights_m(place) - surface.heights_m(poses[start, :3, 3]))
    if abs(steep) < STEEP_SIGHT or abs(rises) > MOST_OFF_M * abs(steep):
        return
    rests = places_at_rest(scene, motion, end, start)
    gap = rests - (place - rises / steep * sight)
    across = np.linalg.norm(gap - (gap @ surface.normal)[:, None] * surface.normal, axis=1)
    heights = surface.heights_m(rests[across < BESIDE_M])
    if len(heights) < MIN_POINTS or (np.abs(heights) < FLAT_M).mean() < FLAT_SHARE:
        return
    under = rests - place
    under_m = np.linalg.norm(under - (under @ surface.normal)[:, None] * surface.normal, axis=1)
    raised = surface.heights_m(rests[under_m < UNDER_M])
    if ((raised > FLAT_M) & (np.abs(raised - rises) < FLAT_M)).sum() >= MIN_POINTS:  # it stands on another thing
        return
    known = np.flatnonzero(np.isfinite(poses[start : end + 1, 0, 0])) + start
    steps = np.linalg.norm(np.diff(poses[known, :3, 3], axis=0), axis=1)
    share = np.concatenate([[0.0], np.cumsum(steps)]) / max(float(steps.sum()), 1e-9)
    away = poses[known, :3, 3] - scene.poses[known, :3, 3]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    poses[known, :3, 3] -= (share * rises / steep)[:, None] * away


@dataclass(frozen=True)
class _Carrying:
    """The contacts with one thing, in order; start: (4, 4) its pose before them; surface: that it lay on, if known."""

    scene: Scene
    motion: PointMotion
    hands: tuple[HandMotion, HandMotion]
    contacts: Sequence[Contact]
    start: Floats
    surface: Surface | None

    def poses(self, rays: Floats, local: Floats, settles: bool = False) -> Floats:
        """(T, 4, 4) world_from_object: constant while it rests, from the rays (T, n, 3) of its points local (n, 3)
        while a hand moves it. settles: what is let go on the surface that it lay on is as high as before."""
        num, shot = len(self.scene.frame_s), self.scene.shot
        poses = np.full((num, 4, 4), np.nan)
        now, since, rests = self.start, 0, True
        for contact in self.contacts:
            before = slice(since, contact.start + 1)
            if rests:  # else it was lost from sight in a hand: nobody knows where it is
                poses[before][shot[before] == shot[contact.start]] = now
            now = self._carried(contact, rays, local, now, poses)
            since, rests = contact.end, contact.released and bool(np.isfinite(poses[contact.end - 1]).all())
            if settles and rests and self.surface is not None:
                settled(self.scene, self.motion, self.surface, contact, poses)
                now = poses[contact.end - 1]
        after = slice(since, num)
        if rests:
            poses[after][shot[after] == shot[self.contacts[-1].end - 1]] = now
        return poses

    def _carried(self, contact: Contact, rays: Floats, local: Floats, now: Floats, poses: Floats) -> Floats:
        """Fill the poses of one contact; returns the last one that is known."""
        hand = self.hands[contact.hand]
        begin, grip0 = now.copy(), hand.grip_m[contact.start]
        poses[contact.start] = now
        ready = np.isfinite(local).all(axis=1)
        for t in range(contact.start + 1, contact.end):
            camera = self.scene.poses[t]
            seen = np.flatnonzero(np.isfinite(rays[t, :, 0]) & ready)
            poses[t] = np.nan
            if len(seen) < MIN_POINTS or not np.isfinite(camera).all():
                continue
            expected = now.copy()
            moved = hand.grip_m[t] - grip0
            if np.isfinite(moved).all():
                expected[:3, 3] = begin[:3, 3] + moved
            in_camera = inverse(camera) @ expected
            pose, off = pose_from_rays(local[seen], rays[t, seen], in_camera, RAY_NOISE, CARRIED)
            good = off < 4 * RAY_NOISE
            if good.sum() < MIN_POINTS or good.mean() < MIN_INLIERS:
                continue
            if not _in_hand(camera @ pose, begin, expected, hand.frame[contact.start], hand.frame[t], camera):
                continue
            now = camera @ pose
            poses[t] = now
        return now


def _in_hand(pose: Floats, begin: Floats, expected: Floats, frame0: Floats, frame: Floats, camera: Floats) -> bool:
    """Whether a pose is, across the line of sight, near to where the hand has shifted the thing, or shifted and turned
    it; True where that is unknown."""
    with_hand = frame @ inverse(frame0) @ begin
    sight = pose[:3, 3] - camera[:3, 3]
    sight = sight / np.linalg.norm(sight)
    off = np.stack([expected[:3, 3], with_hand[:3, 3]]) - pose[:3, 3]
    across = np.linalg.norm(off - (off @ sight)[:, None] * sight, axis=1)
    return not np.isfinite(across).any() or float(np.nanmin(across)) < SLIPS_M


def _refined(
    scene: Scene, rays: Floats, held: NDArray[np.bool_], local: Floats, poses: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """The points triangulated in the thing's frame over all frames with its pose; and those that move with it."""
    frames = np.flatnonzero(np.isfinite(poses).all(axis=(1, 2)) & np.isfinite(scene.poses).all(axis=(1, 2)))
    body_from_camera = inverse(poses[frames]) @ scene.poses[frames]
    rays = rays[frames]
    camera_from_body = inverse(body_from_camera)
    known = np.where(np.isfinite(local).all(axis=1)[:, None], local, 0.0)  # the middle of the thing
    z = np.einsum("tj,nj->tn", camera_from_body[:, 2, :3], known) + camera_from_body[:, 2, 3, None]
    sigma = np.where(np.isfinite(local).all(axis=1), DEPTH_SIGMA_M, HAND_DEPTH_SIGMA_M)
    place, _ = triangulate(rays, body_from_camera, z, sigma, RAY_NOISE)
    cam = np.einsum("tij,nj->tni", camera_from_body[:, :3, :3], place) + camera_from_body[:, None, :3, 3]
    with np.errstate(invalid="ignore"):
        off = np.linalg.norm(cam[..., :2] / np.maximum(cam[..., 2:], 1e-3) - rays[..., :2], axis=-1)
        seen = np.isfinite(off)
        good = (off < 4 * RAY_NOISE).sum(axis=0) >= 0.5 * np.maximum(seen.sum(axis=0), 1)
        good &= (off < 4 * RAY_NOISE)[held[frames]].sum(axis=0) >= 0.5 * seen[held[frames]].sum(axis=0)
    return place, good & np.isfinite(place).all(axis=1)
