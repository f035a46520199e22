"""The frames of a track between those that were measured: guessed from the motion around, carried there by optical
flow, or measured after all.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.tracklets import hand_size
from handloom.models.hands_flow import carry
from handloom.models.hands_reader import HandReader, Sighting, Track

# Chosen by hand on two EgoDex clips and rendered scenes, not fitted.
CURVED = 0.015  # motion is even if its bend in a step is less than this share of the hand's size


def fill_steps(reader: HandReader, tracks: list[Track], min_presence: float) -> None:
    """Give every frame between a track's first and last a sighting, in place.

    The middle frame of each step first: flow from both sides; where that fails the guess, if the motion is even, or
    else the network, unless it sees no hand there.
    """
    while True:
        asked = [(track, frame) for track in tracks for frame in _middles(track)]
        if not asked:
            return
        guesses = [between(track, frame, reader.seconds) for track, frame in asked]
        filled = [_carried(reader, *question, guess) for question, guess in zip(asked, guesses, strict=True)]
        left = [at for at, sighting in enumerate(filled) if sighting is None]
        measured = reader.hands([(asked[at][1], guesses[at].points) for at in left])
        for at, found in zip(left, measured, strict=True):
            filled[at] = found if found.presence >= min_presence else guesses[at]
        for (track, frame), sighting in zip(asked, filled, strict=True):
            track.seen[frame] = sighting


def between(track: Track, frame: int, seconds: NDArray[np.float64]) -> Sighting:
    """The hand in a frame that was passed over, from the sightings around; the lesser presence of the two."""
    known = sorted(track.seen)
    at = int(np.searchsorted(known, frame)) - 1
    first, last = track.seen[known[at]], track.seen[known[at + 1]]
    share = float((seconds[frame] - seconds[known[at]]) / (seconds[known[at + 1]] - seconds[known[at]]))
    bend = _bend(track, known, at, frame, seconds)
    longest = 2 * CURVED * hand_size(first.points)  # a wild cubic is no guess
    bend = bend * np.minimum(1, longest / np.maximum(np.linalg.norm(bend, axis=1, keepdims=True), 1e-9))
    return Sighting(
        (1 - share) * first.points + share * last.points + bend,
        (1 - share) * first.metric_m + share * last.metric_m,
        min(first.presence, last.presence),
        (1 - share) * first.right + share * last.right,
    )


def _middles(track: Track) -> list[int]:
    """The middle frame of each step."""
    known = sorted(track.seen)
    return [(first + last) // 2 for first, last in itertools.pairwise(known) if last - first > 1]


def _carried(reader: HandReader, track: Track, frame: int, guess: Sighting) -> Sighting | None:
    known = sorted(track.seen)
    at = int(np.searchsorted(known, frame)) - 1
    sides = [(reader.frames.rgb(each), track.seen[each].points) for each in known[at : at + 2]]
    points = carry(*sides, reader.frames.rgb(frame), guess.points)
    if points is not None:
        return replace(guess, points=points)
    bend = np.abs(_bend(track, known, at, frame, reader.seconds)).mean()
    return guess if bend < CURVED * hand_size(track.seen[known[at]].points) else None


def _bend(track: Track, known: list[int], at: int, frame: int, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """(21, 2): how far a cubic through four sightings departs from the straight line at a frame between two."""
    around = known[max(at - 1, 0) : at + 3]
    first, last = known[at], known[at + 1]
    share = (seconds[frame] - seconds[first]) / (seconds[last] - seconds[first])
    straight = (1 - share) * track.seen[first].points + share * track.seen[last].points
    weights = _lagrange(seconds[around], seconds[frame])
    return np.einsum("i,ikj->kj", weights, np.stack([track.seen[each].points for each in around])) - straight


def _lagrange(known: NDArray[np.float64], at: float) -> NDArray[np.float64]:
    """Weights of the polynomial through the known places."""
    weights = np.ones(len(known))
    for i in range(len(known)):
        for j in range(len(known)):
            if i != j:
                weights[i] *= (at - known[j]) / (known[i] - known[j])
    return weights
