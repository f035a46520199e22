"""The hands of the people in a scene: one hand of an actor with its arm, and all of a second person's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.schemas.values import LEFT, NUM_HANDS, NUM_KEYPOINTS, RIGHT
from handloom.synth.hand import FOREARM, NUM_FINGERS, Capsules, as_handed, forward_kinematics, hand_capsules
from handloom.synth.script.actions import write_play
from handloom.synth.script.scene import Person
from handloom.synth.script.timeline import Actor, about_z

Array = NDArray[np.float64]

_CLEARANCE_M = 0.002
_SHOULDER = np.array([0.19, -0.40, 0.20])  # of the right arm

# Where a second person sits: heading about the upright axis in degrees (0 looks as the wearer does), and the place on
# the table of what is 0.10 m in front of the wearer's own middle, from and to.
_SEATS: dict[str, tuple[float, tuple[float, float], tuple[float, float]]] = {
    "opposite": (180.0, (-0.15, 0.24), (0.15, 0.36)),
    "left": (-90.0, (-0.28, 0.14), (-0.16, 0.28)),
    "right": (90.0, (0.16, 0.14), (0.28, 0.28)),
    "beside": (0.0, (0.30, 0.10), (0.38, 0.20)),  # to the wearer's right, or mirrored to the left
}


def place_hand(actor: Actor, since_s: Array, scale: float, proportions: Array) -> tuple[Array, Array, Capsules]:
    """Pose (T, 4, 4), keypoints (T, 21, 3) and flesh of a right hand, in the actor's own frame."""
    wrist, rotation, elbow = actor.path(since_s, _SHOULDER)
    local, lateral, dorsal = forward_kinematics(actor.fingers.at(since_s), scale, proportions)

    def flesh_at(wrist_m: Array) -> Capsules:
        bent, top = (np.einsum("tji,tj->ti", rotation, joint - wrist_m) for joint in (elbow, _SHOULDER))
        return hand_capsules(local, lateral, dorsal, bent, top, scale).moved(rotation, wrist_m)

    wrist = wrist + _lift_m(flesh_at(wrist))
    pose = np.tile(np.eye(4), (len(since_s), 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotation, wrist
    return pose, np.einsum("tij,tkj->tki", rotation, local) + wrist[:, None], flesh_at(wrist)


def _lift_m(flesh: Capsules) -> Array:
    """(T, 3) upward displacement that keeps the hand out of the table."""
    hand = flesh.kind < FOREARM
    ends = np.stack([flesh.start_m[..., 2], flesh.end_m[..., 2]], axis=2)[:, hand]
    lowest = (ends - flesh.radius_m[hand]).min(axis=(1, 2))
    return np.maximum(_CLEARANCE_M - lowest, 0.0)[:, None] * np.array([0.0, 0.0, 1.0])


def second_person(person: Person, seed: int, since_s: Array) -> tuple[Array, list[Capsules | None]]:
    """A second person's hands: keypoints (T, 2, 21, 3) in the world, NaN for one that is not there, and flesh.

    They do what the wearer's would do in that action, without its things, from another seat. seed: of the scene.
    """
    rng = np.random.default_rng([seed, 11])
    length_s = float(since_s[-1] - since_s[0]) + 1e-3
    play = write_play(person.action, "cup", rng, length_s, person.entrance, person.hands == "both")
    proportions = np.clip(rng.normal(1.0, 0.04, NUM_FINGERS), 0.9, 1.1)
    rotation, origin = _seat(person.seat, rng)
    keypoints = np.full((len(since_s), NUM_HANDS, NUM_KEYPOINTS, 3), np.nan)
    capsules: list[Capsules | None] = [None, None]
    for actor, hand in ((play.main, person.main_hand), (play.helper, LEFT + RIGHT - person.main_hand)):
        if hand == person.main_hand or person.hands == "both":
            _, points, flesh = place_hand(actor, since_s, person.hand_scale, proportions)
            points, flesh = as_handed(points, flesh, hand)
            keypoints[:, hand] = points @ rotation.T + origin
            capsules[hand] = flesh.moved(np.tile(rotation, (len(since_s), 1, 1)), np.tile(origin, (len(since_s), 1)))
    return keypoints, capsules


def _seat(name: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Rotation (3, 3) and origin (3,) that take the wearer's own place to another one."""
    heading, low, high = _SEATS[name]
    rotation = about_z(np.radians(heading + rng.uniform(-12.0, 12.0)))
    spot = rng.uniform(low, high)
    if name == "beside" and rng.random() < 0.5:
        spot = spot * [-1.0, 1.0]
    return rotation, np.array([*spot, 0.0]) - rotation @ [0.0, 0.10, 0.0]
