"""A scene frame by frame: the paths of camera and things, keypoints and flesh of both hands, and their visibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handloom.geometry.camera.world import to_camera
from handloom.schemas.values import LEFT, NUM_HANDS, NUM_KEYPOINTS, RIGHT
from handloom.synth.bystanders import place_bystanders
from handloom.synth.hand import NUM_CAPSULES, NUM_FINGERS, Capsules, as_handed
from handloom.synth.head import camera_path
from handloom.synth.objects import ObjectShape
from handloom.synth.person import place_hand, second_person
from handloom.synth.render.solids import first_hit
from handloom.synth.script.actions import ContactSpan, write_play
from handloom.synth.script.scene import SceneSpec
from handloom.synth.script.sequence import write_sequence
from handloom.synth.script.timeline import MAIN, Thing, mirrored
from handloom.synth.truth import Truth

Array = NDArray[np.float64]


def hidden_by_capsules(
    points_m: Array, start_m: Array, end_m: Array, radius_m: Array, *, own: bool
) -> NDArray[np.bool_]:
    """(T, K) true where the line of sight from the camera (the origin) to a point passes through a capsule before it.

    Args:
        points_m: (T, K, 3), camera frame. start_m, end_m: (T, C, 3). radius_m: (C, 2).
        own: the points lie inside these capsules, as keypoints inside their hand: only flesh at least a finger's
            thickness in front of a point hides it.

    Source: Ericson, Real-Time Collision Detection, section 5.1.9 (closest points of two segments).
    """
    p, a = points_m[:, :, None], start_m[:, None]
    axis = end_m[:, None] - a
    pp, ee = _dot(p, p), np.maximum(_dot(axis, axis), 1e-12)
    b, c, f = _dot(p, axis), -_dot(p, a), -_dot(axis, a)
    with np.errstate(invalid="ignore", divide="ignore"):
        u = np.clip((b * f - c * ee) / np.maximum(pp * ee - b * b, 1e-12), 0.0, 1.0)  # along the sight line
        v = np.clip((b * u + f) / ee, 0.0, 1.0)  # along the capsule
        u = np.clip((b * v - c) / pp, 0.0, 1.0)
        gap = np.linalg.norm(u[..., None] * p - a - v[..., None] * axis, axis=-1)
        radius = radius_m[:, 0] + v * (radius_m[:, 1] - radius_m[:, 0])
        in_front = (1.0 - u) * np.sqrt(pp)
        margin = np.where(own, radius + 0.008, 0.0)
        return ((gap < 0.9 * radius) & (in_front > margin)).any(axis=2)


def _dot(left: Array, right: Array) -> Array:
    return (left * right).sum(-1)


_SPARE_M = 0.012  # between moving things and those that are not touched


@dataclass(frozen=True)
class Stage:
    """truth, and per hand (0 left, 1 right) its capsules in the world or None; shapes: of the O objects; others:
    capsules of a second person's hands."""

    truth: Truth
    capsules: tuple[Capsules | None, Capsules | None]
    shapes: tuple[ObjectShape, ...]
    others: tuple[Capsules | None, ...] = ()


def build_stage(spec: SceneSpec) -> Stage:
    """The scene frame by frame; the same spec gives the same stage."""
    rng = np.random.default_rng([spec.seed, 1])
    since_s = np.arange(spec.num_frames) / spec.fps
    length_s = spec.num_frames / spec.fps
    if spec.beats:
        play = write_sequence(spec.beats, rng, length_s)
    else:
        play = write_play(spec.action, spec.noun, rng, length_s, spec.entrance, spec.hands == "both")
    changes = [at_s for thing in play.things for contact in thing.contacts for at_s in (contact.start_s, contact.end_s)]
    every_s = np.union1d(since_s, np.array([at_s for at_s in changes if at_s < since_s[-1]]))
    drawn = np.searchsorted(every_s, since_s)
    proportions = np.clip(rng.normal(1.0, 0.04, NUM_FINGERS), 0.9, 1.1)

    keypoints = np.full((spec.num_frames, NUM_HANDS, NUM_KEYPOINTS, 3), np.nan)
    capsules: list[Capsules | None] = [None, None]
    hands, grips = [], []
    for actor, hand in ((play.main, spec.main_hand), (play.helper, LEFT + RIGHT - spec.main_hand)):
        pose, points, flesh = place_hand(actor, every_s, spec.hand_scale, proportions)
        hands.append(pose if actor is play.main else mirrored(pose))
        grips.append(actor.own(actor.grip.at(every_s)))
        if hand == spec.main_hand or spec.hands == "both":
            keypoints[:, hand], capsules[hand] = as_handed(points[drawn], flesh.at(drawn), hand)

    things = play.things
    paths = [thing.path(every_s, (hands[0], hands[1]), (grips[0], grips[1]))[drawn] for thing in things]
    world_from_object = np.stack(paths, axis=1)
    if spec.main_hand == LEFT:
        world_from_object = mirrored(world_from_object)
    if spec.person is not None:
        points, theirs = second_person(spec.person, spec.seed, since_s)
        keypoints, capsules = np.concatenate([keypoints, points], axis=1), capsules + theirs
    others = _bystanders(spec, things, world_from_object, capsules)
    still = np.stack([np.eye(4)] + [thing.first_pose for thing in others])[1:]
    still = np.broadcast_to(still, (spec.num_frames, *still.shape))
    world_from_object = np.concatenate([world_from_object, still], axis=1)
    cast = [*things, *others]
    return _seen_stage(spec, since_s, keypoints, capsules, world_from_object, cast)


def _seen_stage(
    spec: SceneSpec, since_s: Array, keypoints: Array, capsules: list[Capsules | None], objects: Array,
    cast: list[Thing],
) -> Stage:  # fmt: skip
    """The stage with its camera, and what that sees. keypoints (T, P, 21, 3), capsules: P = 2 hands of the wearer, and
    those of a second person."""
    world_from_camera, lens = camera_path(spec, since_s), spec.lens()
    cam = to_camera(keypoints, world_from_camera)
    pixels = lens.project(cam)
    inside = lens.inside(pixels)
    by_others, by_itself = _hidden(cam, world_from_camera, capsules, objects, [thing.shape for thing in cast])
    bones, ends, radii = _flesh_arrays(capsules[:NUM_HANDS], len(since_s))
    seen, hand_seen = inside & ~by_others & ~by_itself, (inside & ~by_others).sum(-1) * 2 > NUM_KEYPOINTS
    own, rest = slice(NUM_HANDS), slice(NUM_HANDS, None)
    has_more = len(capsules) > NUM_HANDS
    truth = Truth(
        spec.start_s + since_s, spec.camera_matrix(), world_from_camera, pixels[:, own], cam[:, own],
        keypoints[:, own], seen[:, own], hand_seen[:, own], objects,
        np.array(spec.distortion, float), np.array([spec.width, spec.height]), bones, ends, radii,
        tuple(thing.noun for thing in cast), spec.actions, camera_model=spec.camera_model,
        contacts=_contact_spans(spec, cast),
        other_keypoints_px=pixels[:, rest] if has_more else None,
        other_hand_visible=hand_seen[:, rest] if has_more else None,
    )  # fmt: skip
    shapes = tuple(thing.shape for thing in cast)
    return Stage(truth, (capsules[0], capsules[1]), shapes, tuple(capsules[NUM_HANDS:]))


def _contact_spans(spec: SceneSpec, cast: list[Thing]) -> tuple[ContactSpan, ...]:
    """When which hand moves which thing, in order."""
    length_s, other = spec.num_frames / spec.fps, LEFT + RIGHT - spec.main_hand
    found = []
    for number, thing in enumerate(cast):
        for contact in thing.contacts:
            hand = "left" if (spec.main_hand if contact.side == MAIN else other) == LEFT else "right"
            end_s = min(contact.end_s, length_s)
            found.append(ContactSpan(number, hand, spec.start_s + contact.start_s, spec.start_s + end_s, contact.how))
    return tuple(sorted(found, key=lambda span: span.start_s))


def _bystanders(
    spec: SceneSpec, things: list[Thing], world_from_object: Array, capsules: list[Capsules | None]
) -> list[Thing]:
    """Things that are not touched, away from all that moves."""
    frames = np.unique(np.linspace(0, spec.num_frames - 1, 16).astype(int))
    flesh = [_outline(c, frames) for c in capsules if c is not None]
    taken = [(world_from_object[frames, i, :2, 3], thing.shape.radius_m) for i, thing in enumerate(things)]

    def gap_m(spot: Array, height_m: float) -> float:
        return min((_gap(points, radius, spot, height_m) for points, radius in flesh), default=np.inf)

    return place_bystanders(spec, things, taken, _SPARE_M, gap_m)


def _outline(flesh: Capsules, frames: NDArray[np.intp]) -> tuple[Array, Array]:
    """Points along all capsules of a hand (F, n, 3), and the radius there (n,)."""
    start, end = flesh.start_m[frames], flesh.end_m[frames]
    shares = np.linspace(0, 1, 5)
    points = np.concatenate([start + share * (end - start) for share in shares], axis=1)
    radius = np.concatenate([flesh.radius_m[:, 0] + share * np.diff(flesh.radius_m)[:, 0] for share in shares])
    return points, radius


def _gap(points: Array, radius: Array, spot: Array, height_m: float) -> float:
    """Smallest distance, metres, of flesh from the upright line of `height_m` at a spot; inf where it passes above."""
    beside = np.linalg.norm(points[..., :2] - spot[:2], axis=-1) - radius
    return float(np.where(points[..., 2] - radius < height_m + _SPARE_M, beside, np.inf).min())


def _flesh_arrays(capsules: list[Capsules | None], num: int) -> tuple[Array, Array, Array]:
    """Frames (T, 2, C, 4, 4), far ends (T, 2, C, 3) and radii (2, C, 2) of both hands' flesh; NaN without a hand."""
    bones = np.full((num, NUM_HANDS, NUM_CAPSULES, 4, 4), np.nan)
    ends = np.full((num, NUM_HANDS, NUM_CAPSULES, 3), np.nan)
    radii = np.full((NUM_HANDS, NUM_CAPSULES, 2), np.nan)
    for hand, flesh in enumerate(capsules):
        if flesh is not None:
            bones[:, hand], ends[:, hand], radii[hand] = flesh.frames(), flesh.end_m, flesh.radius_m
    return bones, ends, radii


def _hidden(
    cam: Array, world_from_camera: Array, capsules: list[Capsules | None], world_from_object: Array,
    shapes: list[ObjectShape],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:  # fmt: skip
    """(T, P, 21) keypoints hidden by another hand or an object, and by the hand's own flesh."""
    others, own = np.zeros(cam.shape[:-1], bool), np.zeros(cam.shape[:-1], bool)
    for hand, flesh in enumerate(capsules):
        if flesh is None:
            continue
        start_m, end_m = (to_camera(p, world_from_camera) for p in (flesh.start_m, flesh.end_m))
        for seen in range(len(capsules)):
            hidden = hidden_by_capsules(cam[:, seen], start_m, end_m, flesh.radius_m, own=hand == seen)
            (own if hand == seen else others)[:, seen] |= hidden
    flat = cam.reshape(len(cam), -1, 3)
    for i, shape in enumerate(shapes):
        object_from_camera = np.linalg.inv(world_from_object[:, i]) @ world_from_camera
        rays = np.einsum("tij,tnj->tni", object_from_camera[:, :3, :3], flat)
        origin = object_from_camera[:, None, :3, 3]
        for part in shape.parts:  # a ray reaches its keypoint at 1
            others |= (first_hit(part, origin, rays).distance < 0.98).reshape(others.shape)
    return others, own
