"""Where one movement of a hand ends and the next begins: at rest, at a clear minimum of its speed, and where a contact
begins or ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handloom.geometry.interactions.contacts import Contact
from handloom.geometry.interactions.signals import REST_M_S, HandMotion, way_m

Floats = NDArray[np.float64]

MOVING_M_S = 0.09
"""A movement begins and ends where the speed passes `REST_M_S`, and reaches this between."""
SLOW_M_S = 0.045
"""From there on the edges of a movement are moved outwards down to this speed, or to a minimum."""
DIP = 0.75
"""A minimum divides a movement where the speed falls below this share of the lower of the two maxima beside it."""
MIN_PIECE_S = 0.2
MAX_GAP_S = 0.25
"""A hand that is unknown for longer ends its movement."""
PAUSE_S, REST_S, COMES_M = 0.6, 0.25, 0.04
"""A hand that rests for longer than the first before a contact has not come for it; for less than the second, it comes
to the thing until the contact begins. It comes over this distance at least."""
HELD_PATH_M = 0.025
"""Shorter movements of a held thing belong to the next one."""
TURN_RAD, COMES_BACK, TIPPED_S = 0.35, 0.45, 0.6
"""A turn by more than this, and the turn back that leaves no more than this share of the way, are one action if the
pause between them is no longer than this."""
SWING = -0.5
"""Cosine between displacements of a hand that goes to and fro."""


@dataclass(frozen=True)
class Piece:
    """A movement of one hand in frames [start, end). contact: with a thing that it moves; comes_to: the contact that
    begins at its end."""

    hand: int
    start: int
    end: int
    contact: Contact | None = None
    comes_to: Contact | None = None


def cut_movements(
    motion: HandMotion, frame_s: Floats, shot: NDArray[np.int64], hand: int, contacts: Sequence[Contact],
    min_path_m: float,
) -> list[Piece]:  # fmt: skip
    """The movements of a hand, in order, without overlap. Those without a thing are at least `min_path_m` long."""
    mine = [contact for contact in contacts if contact.hand == hand]
    edges = sorted({edge for contact in mine for edge in (contact.start, contact.end)})
    free, held = [], []
    for start, end in known_stretches(motion.speed, frame_s, shot):
        bounds = [start, *(edge for edge in edges if start < edge < end), end]
        for a, b in itertools.pairwise(bounds):
            contact = next((one for one in mine if one.start <= a and b <= one.end), None)
            pieces = [Piece(hand, x, y, contact) for x, y in speed_pieces(motion.speed, frame_s, a, b)]
            if contact is None:
                free += swings_joined(pieces, motion, frame_s)
            else:
                held += pieces
    pieces = [*_held(held, mine, motion, frame_s), *_free(free, mine, motion, frame_s, shot, min_path_m)]
    return sorted(pieces, key=lambda piece: piece.start)


def known_stretches(speed: Floats, frame_s: Floats, shot: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Frames [start, end) in which a hand is known, short gaps included."""
    known = np.flatnonzero(np.isfinite(speed))
    if not len(known):
        return []
    breaks = np.flatnonzero((np.diff(frame_s[known]) > MAX_GAP_S) | (np.diff(shot[known]) != 0)) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(known, breaks)]


def speed_pieces(speed: Floats, frame_s: Floats, start: int, end: int) -> list[tuple[int, int]]:
    """Movements [a, b) within frames [start, end): between rests, divided at clear minima."""
    known = np.arange(start, end)[np.isfinite(speed[start:end])]
    if len(known) < 2:
        return []
    values = np.interp(np.arange(start, end), known, speed[known])
    found: list[tuple[int, int]] = []
    stretches = _above(values)
    for number, (a, b) in enumerate(stretches):
        low = found[-1][1] - start if found else 0
        high = stretches[number + 1][0] if number + 1 < len(stretches) else len(values)
        a, b = downhill(values, a, low, -1), downhill(values, b - 1, high - 1, 1)
        b += b == len(values) - 1  # else the last frame is the first one of what follows
        for x, y in _divided(values, frame_s[start:end], a, b):
            found.append((start + x, start + y))
    return found


def downhill(values: Floats, at: int, limit: int, step: int) -> int:
    """From a frame on, the last one before a speed rises again or is `SLOW_M_S`: a movement begins slowly."""
    while at != limit and values[at] > SLOW_M_S and values[at + step] < values[at]:
        at += step
    return at


def _above(values: Floats) -> list[tuple[int, int]]:
    """Stretches above `REST_M_S` that reach `MOVING_M_S`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], values > REST_M_S, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if values[a:b].max() > MOVING_M_S]


def _divided(values: Floats, times: Floats, a: int, b: int) -> list[tuple[int, int]]:
    """[a, b) at its deepest clear minimum, and so on in both parts."""
    best, at = DIP, -1
    for t in range(a + 1, b - 1):
        if times[t] - times[a] < MIN_PIECE_S or times[b - 1] - times[t] < MIN_PIECE_S:
            continue
        depth = values[t] / max(min(values[a:t].max(), values[t + 1 : b].max()), 1e-9)
        if depth < best and values[t] <= values[t - 1] and values[t] <= values[t + 1]:
            best, at = depth, t
    if at < 0:
        return [(a, b)]
    return [*_divided(values, times, a, at), *_divided(values, times, at, b)]


def swings_joined(pieces: list[Piece], motion: HandMotion, frame_s: Floats) -> list[Piece]:
    """Three or more movements to and fro, one after the other, as one: waving, wiping, stirring. Two or more and the
    movements before and after them are one, too, if the hand then is where it came from: it is raised, waves, and is
    lowered."""
    out: list[Piece] = []
    at = 0
    while at < len(pieces):
        last = _swings_until(pieces, at, motion, frame_s)
        inner = _swings_until(pieces, at + 1, motion, frame_s) if at + 1 < len(pieces) else at
        whole = [end for end in (inner + 1, inner) if end - at >= 3 and _returns(pieces, at, end, motion, frame_s)]
        if whole:
            last = whole[0]
        joined = last - at >= 2
        out.append(replace(pieces[at], end=pieces[last].end) if joined else pieces[at])
        at = last + 1 if joined else at + 1
    return out


def _swings_until(pieces: list[Piece], at: int, motion: HandMotion, frame_s: Floats) -> int:
    """The last of the movements to and fro that begin with one of them; `at` where there is none."""
    last = at
    while last + 1 < len(pieces) and _swings(pieces[last], pieces[last + 1], motion, frame_s):
        if last - at >= 1 and not _alike(pieces[last - 1], pieces[last + 1], motion):
            break
        last += 1
    return last


def _returns(pieces: list[Piece], at: int, end: int, motion: HandMotion, frame_s: Floats) -> bool:
    """Whether a hand without a thing that makes the movements from `at` to `end` without a rest is then where it came
    from."""
    if end >= len(pieces) or pieces[at].contact is not None:  # a thing that is put back was lifted and put down
        return False
    some = pieces[at : end + 1]
    rests = [frame_s[b.start] - frame_s[a.end - 1] > MAX_GAP_S for a, b in itertools.pairwise(some)]
    whole = _displacement(motion, Piece(some[0].hand, some[0].start, some[-1].end))
    ways = [float(np.linalg.norm(_displacement(motion, piece))) for piece in (some[0], some[-1])]
    return not any(rests) and bool(np.linalg.norm(whole) < COMES_BACK * max(ways))


def _swings(one: Piece, other: Piece, motion: HandMotion, frame_s: Floats) -> bool:
    if frame_s[other.start] - frame_s[one.end - 1] > MAX_GAP_S:
        return False
    first, second = _displacement(motion, one), _displacement(motion, other)
    sizes = np.linalg.norm(first), np.linalg.norm(second)
    if not min(sizes) > 0.3 * max(sizes):
        return False
    return bool(first @ second < SWING * sizes[0] * sizes[1])


def _alike(one: Piece, other: Piece, motion: HandMotion) -> bool:
    """Whether two movements go the same way."""
    first, second = _displacement(motion, one), _displacement(motion, other)
    return bool(first @ second > -SWING * np.linalg.norm(first) * np.linalg.norm(second))


def _displacement(motion: HandMotion, piece: Piece) -> Floats:
    some = motion.keypoints_m[piece.start : piece.end].mean(axis=1)
    some = some[np.isfinite(some).all(axis=1)]
    return some[-1] - some[0] if len(some) else np.full(3, np.nan)


def _held(pieces: list[Piece], contacts: list[Contact], motion: HandMotion, frame_s: Floats) -> list[Piece]:
    """The movements of each contact; the contact as a whole where its speed shows none."""
    out: list[Piece] = []
    for contact in contacts:
        some = [piece for piece in pieces if piece.contact is contact]
        some = swings_joined(_turns_joined(_joined_short(some, motion, frame_s), motion, frame_s), motion, frame_s)
        if not some:
            some = [Piece(contact.hand, contact.start, contact.end, contact)]
        some[0] = replace(some[0], start=contact.start)
        some[-1] = replace(some[-1], end=contact.end)
        out += some
    return out


def _joined_short(pieces: list[Piece], motion: HandMotion, frame_s: Floats) -> list[Piece]:
    """Movements that are too short alone become part of their neighbour."""

    def is_short(piece: Piece) -> bool:
        return way_m(motion.speed, frame_s, piece.start, piece.end) < HELD_PATH_M

    out: list[Piece] = []
    for piece in pieces:
        if out and (is_short(piece) or is_short(out[-1])):
            out[-1] = replace(out[-1], end=piece.end)
        else:
            out.append(piece)
    return out


def _turns_joined(pieces: list[Piece], motion: HandMotion, frame_s: Floats) -> list[Piece]:
    """A turn and the turn back, with a short pause between, are one: pouring."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if (
            last is not None
            and frame_s[piece.start] - frame_s[last.end - 1] < TIPPED_S
            and _comes_back(motion, last, piece)
        ):
            out[-1] = replace(last, end=piece.end)
        else:
            out.append(piece)
    return out


def _comes_back(motion: HandMotion, one: Piece, other: Piece) -> bool:
    """Whether the hand turns, turns back, and is then nearly where it was."""
    ends = [one.start, one.end - 1, other.start, other.end - 1]
    turn = motion.frame[ends, :3, :3]
    if not np.isfinite(turn).all():
        return False
    first, second = Rotation.from_matrix(turn[1] @ turn[0].T), Rotation.from_matrix(turn[3] @ turn[2].T)
    if min(first.magnitude(), second.magnitude()) < TURN_RAD or first.as_rotvec() @ second.as_rotvec() > 0:
        return False
    points = motion.keypoints_m[ends]
    way, back, left = (np.linalg.norm(points[a] - points[b]) for a, b in ((1, 0), (3, 2), (3, 0)))
    return bool(left < COMES_BACK * max(way, back))


def _free(
    pieces: list[Piece], contacts: list[Contact], motion: HandMotion, frame_s: Floats, shot: NDArray[np.int64],
    min_path_m: float,
) -> list[Piece]:  # fmt: skip
    """Movements without a thing. The last one before a contact comes to its thing, however short it is; it goes on
    until the contact begins if the hand hardly rests between."""
    comes_to: dict[int, Contact] = {}
    for contact in contacts:
        before = [
            at for at, piece in enumerate(pieces)
            if piece.end <= contact.start and shot[piece.start] == shot[contact.start]
            and way_m(motion.pace, frame_s, piece.start, piece.end) >= min(min_path_m, COMES_M)
        ]  # fmt: skip
        if not before or frame_s[contact.start] - frame_s[pieces[before[-1]].end - 1] > PAUSE_S:
            continue
        if not any(pieces[before[-1]].end < other.end <= contact.start for other in contacts):
            comes_to[before[-1]] = contact
    kept = []
    for at, piece in enumerate(pieces):
        if at in comes_to:
            start = comes_to[at].start
            rests_s = frame_s[start] - frame_s[piece.end - 1]
            kept.append(replace(piece, end=start if rests_s < REST_S else piece.end, comes_to=comes_to[at]))
        elif way_m(motion.pace, frame_s, piece.start, piece.end) >= min_path_m:
            kept.append(piece)
    return kept
