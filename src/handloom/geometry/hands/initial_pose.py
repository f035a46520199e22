"""Start of the fit: candidate poses of each hand under weak perspective, and the likeliest sequence of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.hands.model import template_palm
from handloom.geometry.rotations import nearest_rotation, turn_to
from handloom.schemas.hand_topology import KNUCKLES, PALM, WRIST

Array = NDArray[np.float64]

# How much farther the knuckles are than the wrist in first-person views: fitted to the truth of eight EgoDex clips (35
# to 75 mm), five of which are those of docs/benchmarks.md.
EGO_OFFSET_M, EGO_OFFSET_SPREAD_M = 0.058, 0.014
# Chosen by hand, not fitted: more views and candidates cost time.
NUM_VIEWS = 64  # directions from which the hand may be seen: 25 degrees apart
NUM_KEPT = 10  # of them, per frame
FIT_MIN_DEPTH_M = 0.05  # of every keypoint while a hand is fitted: nearer, slopes grow without end
BLOCK = 256  # hands at a time: memory


@dataclass(frozen=True)
class Turns:
    """Candidate poses of each frame, best first. rotation (N, C, 3, 3), translation (N, C, 3): camera_from_hand;
    misfit (N, C): rms over the hand's size in the image, inf where the hand would not be in front of the camera.
    """

    rotation: Array
    translation: Array
    misfit: Array


def candidate_turns(rays: Array, weight: Array, points_m: Array) -> Turns:
    """The hand as a rigid body seen from each of `NUM_VIEWS` sides; rotation in the image, place and distance follow.

    A planar pose problem (IPPE) on the palm alone was tried first: the four knuckles lie nearly on a line, and on real
    keypoints it had no solution in a third of the frames.

    Args:
        rays: (N, 21, 2) of right hands, x/z and y/z. weight: (N, 21), 0 unknown.
        points_m: (N, 21, 3) in the hand's own frame.
    """
    blocks = range(0, len(rays), BLOCK)
    found = [_candidates(rays[i : i + BLOCK], weight[i : i + BLOCK], points_m[i : i + BLOCK]) for i in blocks]
    return Turns(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _candidates(rays: Array, weight: Array, points_m: Array) -> tuple[Array, Array, Array]:
    share = weight**2 / (weight**2).sum(axis=1, keepdims=True)
    middle = (rays * share[..., None]).sum(axis=1)
    turn = turn_to(middle)
    homogeneous = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=2)
    centred = np.einsum("nji,nkj->nki", turn, homogeneous)
    image = centred[..., 0] / centred[..., 2] + 1j * centred[..., 1] / centred[..., 2]
    views = _views()
    seen = np.einsum("vij,nkj->nvki", views, points_m)
    flat = seen[..., 0] + 1j * seen[..., 1]
    flat_mean = (flat * share[:, None]).sum(axis=2)
    image_mean = (image * share).sum(axis=1)
    flat, image = flat - flat_mean[..., None], image - image_mean[:, None]
    power = (np.abs(flat) ** 2 * share[:, None]).sum(axis=2)
    zoom = (np.conj(flat) * image[:, None] * share[:, None]).sum(axis=2) / power
    rest = (np.abs(image) ** 2 * share).sum(axis=1)[:, None] - np.abs(zoom) ** 2 * power
    misfit = np.sqrt(np.maximum(rest, 0)) / np.sqrt((np.abs(image) ** 2 * share).sum(axis=1))[:, None]
    kept = np.argsort(misfit, axis=1, kind="stable")[:, :NUM_KEPT]
    found = (zoom, misfit, flat_mean, seen)
    zoom, misfit, flat_mean, seen = (np.take_along_axis(v, _like(kept, v), axis=1) for v in found)
    depth = 1 / np.maximum(np.abs(zoom), 1e-6)
    spin = zoom * depth
    rotation = turn[:, None] @ _about_z(spin) @ views[kept]
    place = (image_mean[:, None] - zoom * flat_mean) * depth
    away = depth - (seen[..., 2] * share[:, None]).sum(axis=2)
    translation = np.einsum("nij,nvj->nvi", turn, np.stack([place.real, place.imag, away], axis=-1))
    points = np.einsum("nvij,nkj->nvki", rotation, points_m) + translation[:, :, None]
    ahead = points[..., 2].min(axis=2) > FIT_MIN_DEPTH_M
    return rotation, translation, np.where(ahead, misfit, np.inf)


def _like(index: NDArray[np.int64], values: Array) -> NDArray[np.int64]:
    return index.reshape(*index.shape, *(1,) * (values.ndim - 2))


def _about_z(spin: NDArray[np.complex128]) -> Array:
    rotation = np.zeros((*spin.shape, 3, 3))
    rotation[..., 0, 0] = rotation[..., 1, 1] = spin.real
    rotation[..., 0, 1], rotation[..., 1, 0] = -spin.imag, spin.imag
    rotation[..., 2, 2] = 1
    return rotation


def _views() -> Array:
    """(V, 3, 3) rotations that bring directions spread evenly over the sphere (Fibonacci) to the optical axis."""
    index = np.arange(NUM_VIEWS) + 0.5
    z, angle = 1 - 2 * index / NUM_VIEWS, np.pi * (1 + 5**0.5) * index
    flat = np.sqrt(1 - z**2)
    z_axis = np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)
    helper = np.where(np.abs(z_axis[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    x_axis = np.cross(helper, z_axis)
    x_axis /= np.linalg.norm(x_axis, axis=1, keepdims=True)
    return np.stack([x_axis, np.cross(z_axis, x_axis), z_axis], axis=1)


def likeliest_path(
    cost: Array, rotation: Array, translation: Array, starts: NDArray[np.bool_], spread: Array
) -> NDArray[np.int64]:
    """(N,) the candidate to take in each frame (Viterbi): its own cost, and that of turn and relative change of
    distance from frame to frame.

    Args:
        cost: (N, C), inf where there is no candidate. rotation: (N, C, 3, 3). translation: (N, C, 3).
        starts: (N,) true where frame n does not continue frame n - 1.
        spread: (N,) one standard deviation of the turn since the previous frame, radians.
    """
    num, choices = cost.shape
    best, back = np.where(np.isfinite(cost), cost, 1e3), np.zeros((num, choices), np.int64)
    distance = np.log(np.linalg.norm(translation, axis=2))
    for n in range(1, num):
        if starts[n]:
            continue
        trace = rotation[n - 1].reshape(choices, 9) @ rotation[n].reshape(choices, 9).T
        angle = np.arccos(np.clip((trace - 1) / 2, -1, 1)) / spread[n]
        away = (distance[n - 1][:, None] - distance[n]) / (0.5 * spread[n])
        step = best[n - 1][:, None] + np.log1p(0.5 * (angle**2 + away**2))
        back[n] = step.argmin(axis=0)
        best[n] += step.min(axis=0)
    choice = np.zeros(num, np.int64)
    for n in range(num - 1, -1, -1):
        last = n == num - 1 or starts[n + 1]
        choice[n] = best[n].argmin() if last else back[n + 1, choice[n + 1]]
    return choice


def knuckle_depth_offset_m(points_m: Array) -> Array:
    """How much farther from the camera the knuckles are than the wrist: (..., 21, 3) to (...), metres."""
    return points_m[..., KNUCKLES, 2].mean(axis=-1) - points_m[..., WRIST, 2]


def palm_frame(points_m: Array) -> Array:
    """Rotation (N, 3, 3) that best takes the palm of keypoints (N, 21, 3) to the hand's own frame (Kabsch)."""
    palm = template_palm()
    seen = points_m[:, PALM] - points_m[:, PALM].mean(axis=1, keepdims=True)
    return nearest_rotation(np.einsum("ki,nkj->nij", palm - palm.mean(axis=0), seen))
