"""When a hand moves a thing, and which tracked points lie on that thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.interactions.beside import SURE, Beside, Run, beside_hand, carried_points
from handloom.geometry.interactions.grasps import find_grasps, held_until, last_stop
from handloom.geometry.interactions.moving import PointMotion
from handloom.geometry.interactions.scene import Scene
from handloom.geometry.interactions.signals import REST_M_S, HandMotion, way_m

Floats = NDArray[np.float64]

FLESH_M = 0.012
"""Of a keypoint from the surface of the hand."""
MIN_POINTS, MIN_SURE = 3, 2
"""Least number of points that make a thing; and of those among them that were seen at rest while the hand moved."""
FEW, MOST_APART = 12, 0.3
"""So few points are a thing only if they move as one: all but this share of their motion."""
RESTED_FRAMES, RESTED_SHARE, OVERTIME_FRAMES = 15, 0.5, 5
"""A contact is over when so many of its points, in relation to those that still move, have come to rest within these
frames. Points that go on with the hand for longer than the last do not belong to the thing."""
CREEPS_M_S, MOST_EARLIER = 0.012, 4
"""A contact is extended over frames in which its points move faster, and ever more slowly outwards; frames at most."""
MIN_CONTACT_S = 0.2
BEHIND, BEFORE_FRAMES = 1.5, 8
"""Points that rested, in the frames before a contact, more than so many times as far from the camera as the hand are
behind it: a hand that waves in front of them drags them along. Of things that are moved: 0.85 to 1.39 times."""
STOPS_M_S, SLOWS_TO, STOPS_FRAMES, PUT_DOWN_SHARE, MOST_DRAGGED = 0.15, 0.3, 3, 0.4, 5
"""A hand that takes a thing is slower than the first, or than the second share of the speed at which it came, in one of
so many frames before. Where it is not, and of no more points than the last, the fourth share must be seen at rest again
after the contact: the tracker also moves points of the background with the shadow of a hand that goes past, mostly
three to five, and they are lost before they rest."""
AWAY_M, CLOSES_ON_M, MOST_LEFT = 0.06, 0.04, 0.6
"""A hand that is farther from a point than the first does not hide it. It closes on what is within the second of the
grip, and has taken nothing if more than the third share of these points stay."""
CLOSING_FRAMES = 15
"""A hand has closed on a thing if it was open so many frames before."""
SHUTS_M, OPENS_M, GOES_ON_M = 0.015, 0.015, 0.025
"""A hand that has closed by the first around what it moves holds it until it opens by the second. Where points of the
thing seem to rest before, it holds it on only if it moves by more than the third."""
MOST_BEFORE = 15
"""A hand that is closed when its contact begins began to move with the thing where it last was at rest, at most so many
frames before."""
SAME_THING = 0.3
"""Share of the smaller set of points that two contacts with one thing have in common."""


@dataclass(frozen=True)
class Contact:
    """Frames [start, end) in which a hand moves a thing. points: tracks on it; none where only the hand's shape tells
    of it. released: its points came to rest at the end; else they were lost from sight. thing: its number in the clip,
    from 1. runs: when it carries which of the points."""

    hand: int
    start: int
    end: int
    points: NDArray[np.int64]
    released: bool = True
    thing: int = 0
    runs: tuple[Run, ...] = ()


def find_contacts(
    scene: Scene, motion: PointMotion, hands: tuple[HandMotion, HandMotion], contact_m: float
) -> list[Contact]:
    """All contacts, by start; one thing has one number, also in several contacts and with both hands.

    contact_m: a hand touches a thing whose points come this near to its surface.
    """
    found: list[Contact] = []
    for hand, moves in enumerate(hands):
        beside = beside_hand(scene, moves)
        some = of_hand(scene, motion, beside, hand, moves.speed, contact_m)
        slow = of_hand(scene, motion, beside, hand, moves.speed, contact_m, is_slow=True)
        some = sorted([*some, *_outside(slow, some)], key=lambda contact: contact.start)
        some = [held_on(contact, moves, scene) for contact in _merged(some)]
        some = [_from_rest(contact, moves.speed, scene.shot) for contact in _merged(some)]
        found += [*some, *_without_points(some, moves, scene, motion, beside, hand)]
    return _numbered(_one_hand_each(found, scene, motion, hands))


def _outside(contacts: list[Contact], others: list[Contact]) -> list[Contact]:
    """Those that share no frame with any of the others."""
    return [one for one in contacts if not any(other.start < one.end and one.start < other.end for other in others)]


def of_hand(
    scene: Scene, motion: PointMotion, beside: Beside, hand: int, speed: Floats, contact_m: float, is_slow: bool = False
) -> list[Contact]:
    """Contacts of one hand, by its points. speed: (T,) of the hand, m/s; the rest as in `find_contacts` and
    `carried_points`."""
    found = []
    runs = carried_points(scene, motion, beside, is_slow)
    shots = [[run for run in runs if scene.shot[run.start] == shot] for shot in np.unique(scene.shot)]
    for start, end, members, released in (one for some in shots for one in joint_runs(some, len(scene.frame_s))):
        points = np.unique([run.point for run in members])
        if scene.frame_s[end - 1] - scene.frame_s[start] < MIN_CONTACT_S:
            continue
        if len(points) <= FEW and apart_share(motion, scene, start, end, points) > MOST_APART:
            continue
        if times_as_far(motion, scene, hand, start, points) > BEHIND:
            continue
        if not touches(beside.apart_m[start:end, points], contact_m):
            continue
        contact = _at_rest_outside(Contact(hand, start, end, points, released, 0, members), motion, scene.shot)
        if put_down_share(members) >= PUT_DOWN_SHARE or (
            len(points) > MOST_DRAGGED and stops_before(speed, contact.start)
        ):
            found.append(contact)
    return found


def stops_before(speed: Floats, start: int) -> bool:
    """Whether a hand is slow enough to take something when a contact begins, or just before, or has come fast and
    slowed down to a share of that."""
    slow = speed[max(start - STOPS_FRAMES, 0) : start + 2]
    came = speed[max(start - CLOSING_FRAMES, 0) : start + 2]
    if not np.isfinite(slow).any():
        return False
    return bool(np.nanmin(slow) < max(STOPS_M_S, SLOWS_TO * np.nanmax(came)))


def touches(apart_m: Floats, contact_m: float) -> bool:
    """Whether `MIN_POINTS` of points come as near to a hand as things that it touches. apart_m: (n, P)."""
    nearest = np.nanmin(apart_m, axis=0, initial=np.inf)
    return bool((nearest < contact_m + FLESH_M).sum() >= MIN_POINTS)


def apart_share(motion: PointMotion, scene: Scene, start: int, end: int, points: NDArray[np.int64]) -> float:
    """How much of the energy of some points' motion is not that of one thing, which shifts and turns in the image: 0 to
    1; 1 where fewer than three are ever seen together."""
    left = whole = 0.0
    for t in range(start, end):
        velocity, place = motion.velocity[t, points], scene.rays[t, points, :2]
        known = np.isfinite(velocity[:, 0]) & np.isfinite(place[:, 0])
        if known.sum() < MIN_POINTS:
            continue
        velocity, place = velocity[known], place[known] - place[known].mean(axis=0)
        about = np.stack([-place[:, 1], place[:, 0]], axis=1)
        rest = velocity - velocity.mean(axis=0)
        rest = rest - about * ((rest * about).sum() / max(float((about**2).sum()), 1e-12))
        left, whole = left + float((rest**2).sum()), whole + float((velocity**2).sum())
    return left / whole if whole else 1.0


def times_as_far(motion: PointMotion, scene: Scene, hand: int, start: int, points: NDArray[np.int64]) -> float:
    """How far from the camera some points were before frame `start`, over how far the hand is then; 1 if unknown."""
    before = motion.depth_m[max(start - BEFORE_FRAMES, 0) : max(start, 1), points]
    away = np.einsum("kj,j->k", scene.hands_m[start, hand] - scene.poses[start, :3, 3], scene.poses[start, :3, 2])
    if not (np.isfinite(before).any() and np.isfinite(away).all()):
        return 1.0
    return float(np.nanmedian(before) / away.mean())


def held_on(contact: Contact, hand: HandMotion, scene: Scene) -> Contact:
    """A contact for as long as a hand that closed on the thing stays closed and moves: its points may be lost from
    sight, begin to move with it late, or rest where they only were dragged along."""
    before = hand.pinch_m[max(contact.start - CLOSING_FRAMES, 0) : contact.start + 1]
    held = hand.pinch_m[contact.start : contact.end]
    if not (np.isfinite(before).any() and np.isfinite(held).any()):
        return contact
    closed = float(np.nanmedian(held))
    if np.nanmax(before) - closed < SHUTS_M:
        return contact
    opened = 0 if contact.released else _opened(held, closed)  # what goes on with an open hand is the hand
    until, opens = held_until(hand, scene.frame_s, scene.shot, contact.end - 1 - opened, closed, OPENS_M)
    end = last_stop(hand.speed, contact.start + 2 if opened else contact.end, until)
    if contact.released and (_put_down(contact) or way_m(hand.pace, scene.frame_s, contact.end, end) < GOES_ON_M):
        end, opens = contact.end, True
    return replace(contact, start=_closed_from(contact, hand, scene, closed), end=end, released=opens)


def put_down_share(runs: Sequence[Run]) -> float:
    """Share of the points that are seen at rest after a hand has carried them."""
    return len({run.point for run in runs if run.rests}) / max(len({run.point for run in runs}), 1)


def _put_down(contact: Contact) -> bool:
    """Whether enough of a contact's points come to rest, and hardly any that rested before goes on with the hand."""
    go_on = {run.point for run in contact.runs if run.is_sure and run.end > contact.end + 1}
    return put_down_share(contact.runs) >= PUT_DOWN_SHARE and len(go_on) < MIN_POINTS


def _opened(pinch_m: Floats, closed_m: float) -> int:
    """In how many frames at the end of some a hand is open, from the first on in which it is seen to be."""
    open_ = np.flatnonzero(pinch_m >= closed_m + OPENS_M)
    shut = np.flatnonzero(pinch_m < closed_m + OPENS_M)
    last = open_[open_ > shut[-1]] if len(shut) else open_
    return len(pinch_m) - int(last[0]) if len(last) else 0


def _closed_from(contact: Contact, hand: HandMotion, scene: Scene, closed_m: float) -> int:
    """The frame in which a hand that holds a thing when a contact begins began to move with it: after it stopped, and
    had closed."""
    at = contact.start
    while at > 0 and contact.start - at < MOST_BEFORE and scene.shot[at - 1] == scene.shot[at]:
        if not (hand.pinch_m[at - 1] < closed_m + OPENS_M and hand.speed[at - 1] > REST_M_S):
            break
        at -= 1
    slow = hand.speed[at : contact.start + 1]
    stops = at > 0 and hand.speed[at - 1] <= REST_M_S
    return at if stops and np.isfinite(slow).all() else contact.start


def _without_points(
    contacts: list[Contact], hand: HandMotion, scene: Scene, motion: PointMotion, beside: Beside, number: int
) -> list[Contact]:
    """Grasps of a hand, by its shape, where no points show what it holds, and none that it has taken nothing."""
    nothing = np.empty(0, np.int64)
    grasps = find_grasps(hand, scene.frame_s, scene.shot)
    alone = [g for g in grasps if not any(c.start < g.end and g.start < c.end for c in contacts)]
    taken = [g for g in alone if not left_in_place(scene, motion, beside, hand.grip_m[g.start], g.start)]
    return [_from_rest(Contact(number, g.start, g.end, nothing), hand.speed, scene.shot) for g in taken]


def left_in_place(scene: Scene, motion: PointMotion, beside: Beside, grip_m: Floats, start: int) -> bool:
    """Whether most points that were seen where a hand closes, before it came, are seen at rest there after it left:
    then it has taken nothing."""
    with np.errstate(invalid="ignore"):
        away = ~(beside.apart_m < AWAY_M) & np.isfinite(scene.rays[..., 0]) & (scene.shot == scene.shot[start])[:, None]
    before = away[:start] & ~motion.creeps[:start]
    last = start - 1 - before[::-1].argmax(axis=0)
    points = np.flatnonzero(before.any(axis=0))
    ray, pose = scene.rays[last[points], points], scene.poses[last[points]]
    place = np.einsum("nij,nj->ni", pose[:, :3, :3], ray * motion.depth_m[last[points], points, None]) + pose[:, :3, 3]
    there = points[_across_m(place, grip_m, scene.poses[start]) < CLOSES_ON_M]
    if len(there) < MIN_POINTS:
        return False
    rests = (away[start:, there] & motion.still[start:, there]).sum(axis=0) >= SURE
    return bool(rests.mean() > MOST_LEFT)


def _across_m(places_m: Floats, point_m: Floats, world_from_camera: Floats) -> Floats:
    """(n,) distances of places (n, 3) from a point, across the line of sight."""
    ray = point_m - world_from_camera[:3, 3]
    ray = ray / np.linalg.norm(ray)
    gap = places_m - point_m
    return np.linalg.norm(gap - (gap @ ray)[:, None] * ray, axis=1)


def joint_runs(runs: Sequence[Run], num_frames: int) -> list[tuple[int, int, tuple[Run, ...], bool]]:
    """Frames [start, end) in which a hand carries `MIN_POINTS` points or more, when it carries which, and whether they
    come to rest when the contact ends.

    A contact ends where its points come to rest, even if some go on with the hand: a track that was hidden by the
    fingers may slip onto them.
    """
    found: list[tuple[int, int, tuple[Run, ...], bool]] = []
    members: list[Run] = []
    floor = begin = 0
    for t in range(num_frames + 1):
        if not members:
            now = [run for run in runs if floor <= run.start <= t < run.end]
            if len(now) >= MIN_POINTS:
                members, begin = now, sorted(run.start for run in now)[1]
            continue
        members += [run for run in runs if run.start == t]
        active = [run for run in members if t < run.end]
        rested = [run.end for run in members if run.rests and t - RESTED_FRAMES <= run.end <= t]
        is_over = len(rested) >= 2 and len(rested) >= RESTED_SHARE * len(active)
        if len(active) >= 2 and not is_over and t < num_frames:
            continue
        end = int(np.median(rested)) if is_over else max(run.end for run in members)
        begin = max(begin, _usual_start(members))
        points = {run.point for run in members if min(run.end, end) - max(run.start, begin) >= SURE - 1
                  and run.end <= end + OVERTIME_FRAMES}  # fmt: skip
        carried = tuple(run for run in members if run.point in points)
        if end > begin and len(points) >= MIN_POINTS and sum(run.is_sure for run in carried) >= MIN_SURE:
            found.append((begin, end, carried, is_over or bool(rested)))
        members, floor = [], max(end - 2, begin)
    return found


def _from_rest(contact: Contact, speed: Floats, shot: NDArray[np.int64]) -> Contact:
    """The contact, from where the hand that comes to rest at a thing begins to move it."""
    start = contact.start
    with np.errstate(invalid="ignore"):
        while start > 0 and contact.start - start < MOST_EARLIER and speed[start - 1] < speed[start]:
            if shot[start - 1] != shot[start]:
                break
            start -= 1
    return replace(contact, start=start)


def _at_rest_outside(contact: Contact, motion: PointMotion, shot: NDArray[np.int64]) -> Contact:
    """The contact, from where its points begin to move to where they rest: movements begin and end slowly."""
    speed = motion.speed[:, contact.points]
    middle = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in speed])
    start, end = contact.start, contact.end - 1
    with np.errstate(invalid="ignore"):
        while start > 0 and contact.start - start < MOST_EARLIER and middle[start - 1] > CREEPS_M_S:
            if not middle[start - 1] < middle[start] or shot[start - 1] != shot[start]:
                break
            start -= 1
        while end + 1 < len(middle) and end - contact.end < MOST_EARLIER and middle[end + 1] > CREEPS_M_S:
            if not middle[end + 1] < middle[end] or shot[end + 1] != shot[end]:
                break
            end += 1
    return replace(contact, start=start, end=end + 1)


def _usual_start(members: Sequence[Run]) -> int:
    """When a third of the points has begun to move, at least two: single ones may slip onto the hand while it comes. A
    point that is lost and found again has begun once."""
    first: dict[int, int] = {}
    for run in members:
        first[run.point] = min(run.start, first.get(run.point, run.start))
    starts = sorted(first.values())
    return starts[min(max(1, len(starts) // 3), len(starts) - 1)]


def _merged(contacts: Sequence[Contact]) -> list[Contact]:
    """Contacts of one hand with one thing that was not seen at rest between them."""
    out: list[Contact] = []
    for contact in contacts:
        last = out[-1] if out else None
        touches = last is not None and contact.start <= last.end
        if last is not None and _alike(last, contact) and (not last.released or touches):
            points = np.union1d(last.points, contact.points)
            runs = last.runs + contact.runs
            out[-1] = replace(last, end=contact.end, points=points, released=contact.released, runs=runs)
        elif last is not None and touches:  # the hand has taken something else
            out += [replace(contact, start=min(last.end, contact.end - 1))]
        else:
            out.append(contact)
    return out


def _alike(one: Contact, other: Contact) -> bool:
    shared = len(np.intersect1d(one.points, other.points, assume_unique=True))
    return shared > 0 and shared >= SAME_THING * min(len(one.points), len(other.points))


def _one_hand_each(
    contacts: list[Contact], scene: Scene, motion: PointMotion, hands: tuple[HandMotion, HandMotion]
) -> list[Contact]:
    """Of contacts of both hands with the same points at the same time, the one whose hand is nearer; both where both
    hands move."""
    kept = []
    for contact in contacts:
        rivals = [
            other
            for other in contacts
            if other.hand != contact.hand
            and min(other.end, contact.end) > max(other.start, contact.start)
            and _alike(other, contact)
        ]
        mine = _moved_m(hands[contact.hand], contact)
        if all(_moved_m(hands[other.hand], contact) < 2.0 * mine for other in rivals):
            kept.append(contact)
    return sorted(kept, key=lambda one: (one.start, one.hand))


def _moved_m(hand: HandMotion, contact: Contact) -> float:
    some = hand.speed[contact.start : contact.end]
    return float(np.nansum(some)) if np.isfinite(some).any() else 0.0


def _numbered(contacts: list[Contact]) -> list[Contact]:
    """Contacts with the number of their thing: the same points, the same thing."""
    things: list[NDArray[np.int64]] = []
    out = []
    for contact in contacts:
        shared = [len(np.intersect1d(points, contact.points)) / max(min(len(points), len(contact.points)), 1)
                  for points in things]  # fmt: skip
        if shared and max(shared) >= SAME_THING:
            thing = int(np.argmax(shared))
            things[thing] = np.union1d(things[thing], contact.points)
        else:
            thing = len(things)
            things.append(contact.points)
        out.append(replace(contact, thing=thing + 1))
    return out
