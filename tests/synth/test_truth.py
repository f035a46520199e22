"""The truth of rendered clips: surface points that move with their surface, maps, boundaries, lenses, files."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

import handloom.synth
from handloom.errors import ConfigError, ShapeError
from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.follow import LEFT_HAND, NOTHING, OBJECT, RIGHT_HAND, STILL, follow, follow_drawn
from handloom.synth.render.lens import LENSES, Lens
from handloom.synth.render.render import render_all, render_clip
from handloom.synth.script.actions import ACTIONS
from handloom.synth.script.demo import through_lens
from handloom.synth.script.scene import SceneSpec
from handloom.synth.truth import Truth

TINY = {"width": 160, "height": 120, "fps": 5.0}
LENS = (-0.25, 0.06, 0.002, -0.001)


@pytest.fixture(scope="module")
def truth() -> Truth:
    """A can is picked up and placed beside another thing; both hands are there."""
    return render_all(SceneSpec("pick-place", "can", seed=5, duration_s=2.4, distractors=2, **TINY))[1]


def grid(step: int = 6) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(3, 157, step), np.arange(3, 117, step)), -1).reshape(-1, 2).astype(float)


def queries(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """A grid on the first, a middle and the last frame."""
    last = len(truth.frame_s) - 1
    return np.tile(grid(), (3, 1)), np.repeat([0, last // 2, last], len(grid()))


def test_a_point_lies_at_its_query_and_is_seen_there(truth):
    px, frame = queries(truth)
    tracks = follow(truth, px, frame)
    at = (frame, np.arange(len(frame)))
    assert {STILL, LEFT_HAND, RIGHT_HAND, OBJECT} <= set(tracks.kind.tolist())
    assert tracks.visible[at].all()
    assert tracks.px[at] == pytest.approx(px)
    pixel = px.astype(int)
    assert tracks.cam_m[at][:, 2] == pytest.approx(truth.depth_m[frame, pixel[:, 1], pixel[:, 0]], abs=1e-4)


def test_followed_points_agree_with_the_camera_and_with_rigid_motion(truth):
    tracks = follow(truth, *queries(truth))
    pose = truth.world_from_camera
    world = np.einsum("tij,tnj->tni", pose[:, :3, :3], tracks.cam_m) + pose[:, None, :3, 3]
    assert world == pytest.approx(tracks.world_m)
    projected = tracks.cam_m @ truth.camera_matrix.T
    assert tracks.px == pytest.approx(projected[..., :2] / projected[..., 2:])
    still = tracks.world_m[:, tracks.kind == STILL]
    assert still == pytest.approx(np.broadcast_to(still[0], still.shape))
    bodies = [(tracks.kind == OBJECT + i, truth.world_from_object[:, i]) for i in range(len(truth.object_nouns))]
    for on, body in bodies:
        here = tracks.world_m[:, on] - body[:, None, :3, 3]
        local = np.einsum("tji,tnj->tni", body[:, :3, :3], here)
        assert local == pytest.approx(np.broadcast_to(local[0], local.shape))
    assert np.ptp(tracks.world_m[:, tracks.kind == OBJECT], axis=0).max() > 0.05  # the can was moved


def test_points_of_a_hand_keep_their_place_on_their_bone(truth):
    tracks = follow(truth, *queries(truth))
    for hand, kind in ((LEFT, LEFT_HAND), (RIGHT, RIGHT_HAND)):
        here = tracks.world_m[:, tracks.kind == kind]
        bones = truth.world_from_bone[:, hand]
        local = np.einsum("tcji,tncj->tnci", bones[..., :3, :3], here[:, :, None] - bones[:, None, :, :3, 3])
        spread = np.ptp(local, axis=0).max(-1).min(-1)  # on the bone where each point moves least
        assert len(spread) > 20
        assert spread.max() < 1e-9
        length = np.linalg.norm(truth.bone_end_m[:, hand] - bones[..., :3, 3], axis=-1)
        assert np.ptp(length, axis=0)[:15].max() < 1e-9  # fifteen phalanges


def test_visible_points_lie_on_what_the_maps_show_and_hidden_ones_behind_it(truth):
    tracks = follow(truth, *queries(truth))
    depth_m, ids = truth.depth_m, truth.maps()[1]
    inside = truth.lens.inside(tracks.px) & (tracks.cam_m[..., 2] > 0)
    x, y = np.rint(np.where(inside[..., None], tracks.px, 0)).astype(int).transpose(2, 0, 1)
    frame = np.arange(len(depth_m))[:, None]
    behind_m = tracks.cam_m[..., 2] - depth_m[frame, y, x]
    assert not tracks.visible[~inside].any()
    assert np.median(np.abs(behind_m[tracks.visible])) < 2e-3
    assert (ids[frame, y, x] == tracks.kind)[tracks.visible].mean() > 0.97
    hidden = inside & ~tracks.visible
    assert hidden.sum() > 100
    farthest_m = np.stack([cv2.dilate(depth, np.ones((3, 3))) for depth in depth_m])[frame, y, x]
    covered = inside & (tracks.cam_m[..., 2] > farthest_m + 0.03)
    assert covered.sum() > 50
    assert not tracks.visible[covered].any()
    under_hand = inside & (tracks.kind == STILL) & np.isin(ids[frame, y, x], (LEFT_HAND, RIGHT_HAND))
    grown = np.stack([cv2.erode(np.isin(i, (LEFT_HAND, RIGHT_HAND)).astype(np.uint8), np.ones((3, 3))) for i in ids])
    assert not tracks.visible[under_hand & (grown[frame, y, x] > 0)].any()


def test_points_that_were_found_again_are_the_same_points(truth):
    """A query of the same point in another frame gives the same path."""
    first = follow(truth, grid(), np.zeros(len(grid()), int))
    last = len(truth.frame_s) - 1
    seen = np.flatnonzero(first.visible[last] & (first.kind != NOTHING))
    again = follow(truth, first.px[last, seen], np.full(len(seen), last))
    same = again.kind == first.kind[seen]
    assert same.mean() > 0.97
    apart_m = np.linalg.norm(again.world_m - first.world_m[:, seen], axis=-1).max(0)[same]
    assert np.median(apart_m) < 2e-3
    assert (apart_m < 0.02).mean() > 0.95


def test_a_query_without_a_surface_stays_unknown(truth):
    tracks = follow(truth, np.array([[-5.0, 3.0], [20.0, 500.0]]), np.array([0, 1]))
    assert tracks.kind.tolist() == [NOTHING, NOTHING]
    assert not tracks.visible.any()
    assert np.isnan(tracks.world_m).all()
    with pytest.raises(ShapeError, match="queries"):
        follow(truth, np.zeros((2, 2)), np.array([0, 99]))


def test_a_default_sample_holds_hands_objects_and_the_still_scene(truth):
    tracks = follow_drawn(truth, 100, seed=2)
    assert tracks.px.shape == (len(truth.frame_s), 100, 2)
    counts = [(tracks.kind == STILL).sum(), np.isin(tracks.kind, (1, 2)).sum(), (tracks.kind >= OBJECT).sum()]
    assert min(counts) >= 20
    np.testing.assert_array_equal(tracks.px, follow_drawn(truth, 100, seed=2).px)


def test_a_loaded_truth_equals_the_saved_one(truth, tmp_path):
    truth.save(tmp_path / "a.truth.npz")
    loaded = Truth.load(tmp_path / "a.truth.npz")
    for field in dataclasses.fields(Truth):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(truth, field.name), err_msg=field.name)
    px, frame = queries(truth)
    before, after = follow(truth, px, frame), follow(loaded, px, frame)
    for field in dataclasses.fields(before):
        np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))
    bare = render_clip(SceneSpec("reach", seed=1, duration_s=0.4, **TINY)).truth
    bare.save(tmp_path / "b.truth.npz")
    with pytest.raises(ConfigError, match="no depth and id maps"):
        follow_drawn(Truth.load(tmp_path / "b.truth.npz"))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_renders_and_its_boundaries_tile_the_clip(action):
    spec = SceneSpec(action, ACTIONS[action].nouns[0], seed=2, duration_s=3.0, start_s=1.5, shutter=0.4,
                     entrance="helper", **TINY | {"fps": 2.0})  # fmt: skip
    images, truth = render_all(spec)
    assert images.shape == (6, 120, 160, 3)
    assert images.std() > 20
    edges = [(span.start_s, span.end_s) for span in truth.actions]
    assert edges[0][0] == 1.5
    assert edges[-1][1] == pytest.approx(1.5 + 3.0)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
    assert all(begin < end for begin, end in edges)
    assert [span.verb for span in truth.actions] == [step.verb for step in ACTIONS[action].steps]
    assert len(truth.object_nouns) == truth.world_from_object.shape[1] >= 2
    acted = {span.noun for span in truth.actions if span.verb not in ("reach", "wave", "cross")}
    for i, noun in enumerate(truth.object_nouns):
        path_m = np.ptp(truth.world_from_object[:, i], axis=0).max()
        assert (path_m > 0.02) == (noun in acted), noun
    assert (truth.world_from_object[:, :, 2, 3] > -1e-6).all()


def test_hands_come_late_leave_early_and_cross():
    late = render_clip(SceneSpec("push", "box", seed=3, duration_s=4.0, entrance="helper", **TINY)).truth
    seen = late.hand_visible[:, LEFT]
    assert not seen[0]
    assert seen[len(seen) // 2 - 3 : len(seen) // 2 + 3].any()
    assert not seen[-1]
    crossed = render_clip(SceneSpec("cross", seed=3, duration_s=3.0, **TINY)).truth
    wrists = crossed.keypoints_world_m[:, :, 0, 0]
    assert (wrists[:, RIGHT] < wrists[:, LEFT] - 0.05).any()
    assert wrists[0, RIGHT] > wrists[0, LEFT]
    assert (crossed.keypoint_visible.sum((1, 2)) < 30).any()  # one hides the other


def test_a_lens_projects_back_to_its_rays():
    lens = SceneSpec("wave", distortion=LENS).lens()
    px = np.stack(np.meshgrid(np.arange(0, 480, 13.7), np.arange(0, 360, 13.7)), -1)
    assert lens.project(lens.rays(px) * 0.7) == pytest.approx(px, abs=1e-5)
    points = lens.rays(px).reshape(-1, 3)
    matrix = lens.camera_matrix
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array(LENS))[0].reshape(px.shape)
    assert lens.project(points).reshape(px.shape) == pytest.approx(expected, abs=1e-9)
    straight = Lens(matrix, np.zeros(0), 480, 360)
    assert straight.project(straight.rays(px) * 3.0) == pytest.approx(px)


def test_a_distorted_image_is_the_straight_one_bent():
    spec = SceneSpec("reach", "can", seed=5, duration_s=0.4, **TINY)
    straight, bent = render_all(spec)[1], render_all(dataclasses.replace(spec, distortion=LENS))[1]
    np.testing.assert_array_equal(straight.keypoints_cam_m, bent.keypoints_cam_m)
    px = grid()
    seen, frame = follow(bent, px, np.zeros(len(px), int)), np.zeros(len(px), int)
    there = straight.lens.project(seen.cam_m[0])
    inside = straight.lens.inside(there)
    found = follow(straight, there[inside], frame[inside])
    assert inside.sum() > 200
    assert (found.kind == seen.kind[inside]).mean() > 0.95
    apart_m = np.linalg.norm(found.world_m[0] - seen.world_m[0, inside], axis=-1)
    assert np.median(apart_m) < 2e-3


@pytest.fixture(scope="module", params=sorted(LENSES))
def wide(request) -> tuple[np.ndarray, Truth]:
    """Both hands before a wide lens."""
    spec = SceneSpec("pick-place", "can", seed=5, duration_s=0.6, shutter=0.3, **TINY | {"width": 200, "height": 150})
    return render_all(through_lens(spec, request.param))


def test_every_pixel_of_a_wide_lens_shows_what_the_truth_has_there(wide):
    """Depth and ray give points on the room's planes or the hands' flesh, also where faces of the cube meet."""
    truth = wide[1]
    depth_m, ids = truth.depth_m, truth.maps()[1]
    pixels = np.stack(np.meshgrid(np.arange(200.0), np.arange(150.0)), -1)
    sight = truth.lens.rays(pixels)
    for t, pose in enumerate(truth.world_from_camera):
        world = (sight * depth_m[t][..., None]) @ pose[:3, :3].T + pose[:3, 3]
        seen = np.isfinite(world).all(-1)
        assert not (seen & np.isnan(sight[..., 0])).any()
        assert seen[40:].mean() > 0.9  # above is the open ceiling
        still = world[seen & (ids[t] == STILL)]
        to_planes = [still[:, 2], still[:, 2] + 0.75, still[:, 1] - 1.4, still[:, 0] - 1.8, still[:, 0] + 1.8]
        # A step of the depth map along a ray that leaves at 80 degrees is a millimetre of its length.
        assert np.quantile(np.abs(to_planes).min(0), 0.98) < 2e-3
        for hand, kind in ((LEFT, LEFT_HAND), (RIGHT, RIGHT_HAND)):
            flesh = world[seen & (ids[t] == kind)]
            start = truth.world_from_bone[t, hand, :, :3, 3]
            axis, radius = truth.bone_end_m[t, hand] - start, truth.bone_radius_m[hand]
            along = np.einsum("ncj,cj->nc", flesh[:, None] - start, axis) / (axis * axis).sum(-1)
            along = np.clip(along, 0, 1)
            gap = np.linalg.norm(flesh[:, None] - start - along[..., None] * axis, axis=-1)
            gap -= radius[:, 0] + along * (radius[:, 1] - radius[:, 0])
            assert len(flesh) > 100
            assert np.quantile(np.abs(gap.min(1)), 0.95) < 5e-3


def test_keypoints_and_points_land_where_the_wide_lens_shows_them(wide):
    truth = wide[1]
    px, frame = np.stack(np.meshgrid(np.arange(4.0, 200, 8), np.arange(4.0, 150, 8)), -1).reshape(-1, 2), 0
    tracks = follow(truth, px, np.full(len(px), frame))
    known = tracks.kind != NOTHING
    assert known.sum() > 300
    assert truth.lens.project(tracks.cam_m[0, known]) == pytest.approx(px[known], abs=1e-6)
    assert tracks.visible[:, known].mean() > 0.7
    ids = truth.maps()[1]
    for hand, kind in ((LEFT, LEFT_HAND), (RIGHT, RIGHT_HAND)):
        t, k = np.nonzero(truth.keypoint_visible[:, hand])
        x, y = np.rint(truth.keypoints_px[t, hand, k]).astype(int).T
        assert len(t) > 10
        assert (ids[t, y, x] == kind).mean() > 0.9


def test_a_wide_image_has_no_seams(wide):
    """Undistorted, it is the image of a pinhole up to noise and blur, across the faces' edges, too."""
    images, truth = wide
    spec = SceneSpec(
        "pick-place", "can", seed=5, duration_s=0.6, **TINY | {"width": 240, "height": 180, "fov_deg": 110}
    )
    plain, straight = render_all(spec)
    pixels = np.stack(np.meshgrid(np.arange(240.0), np.arange(180.0)), -1)
    there = truth.lens.project(straight.lens.rays(pixels)).astype(np.float32)
    inside = truth.lens.inside(there)
    bent = cv2.remap(images[0], there[..., 0], there[..., 1], cv2.INTER_LINEAR)
    off = np.abs(cv2.blur(bent, (3, 3)).astype(float) - cv2.blur(plain[0], (3, 3))).mean(-1)
    slope = np.abs(straight.lens.rays(pixels)[..., :2]).max(-1)
    seam = inside & (np.abs(slope - 1) < 0.04)
    assert inside.sum() > 20_000
    assert seam.sum() > 300
    assert np.median(off[inside]) < 6
    assert np.median(off[seam]) < 1.5 * np.median(off[inside]) + 1


def test_an_impossible_lens_is_refused():
    with pytest.raises(ConfigError, match="lens 'monocle' is not known"):
        through_lens(SceneSpec("wave"), "monocle")
    with pytest.raises(ConfigError, match="no such lens: camera model 'fisheye' has 2 coefficients"):
        SceneSpec("wave", camera_model="fisheye", distortion=(0.1, 0.0))
    with pytest.raises(ConfigError, match="fov_deg is 150"):
        SceneSpec("wave", camera_model="fisheye", distortion=(-0.33, 0.0, 0.0, 0.0), fov_deg=150)


def test_the_shutter_blurs_along_the_motion_only():
    sharp, blurred = (
        render_all(SceneSpec("wave", seed=4, duration_s=1.6, camera_motion=0.0, shutter=s, **TINY)) for s in (0.0, 1.0)
    )
    np.testing.assert_array_equal(sharp[1].maps()[0], blurred[1].maps()[0])
    hands = np.isin(sharp[1].maps()[1], (LEFT_HAND, RIGHT_HAND))
    near = np.stack([cv2.dilate(h.astype(np.uint8), np.ones((25, 25))) for h in hands]) > 0
    changed = np.abs(sharp[0].astype(int) - blurred[0]).max(-1)
    assert changed[hands].mean() > 3
    assert changed[~near].max() <= 1  # rounding


def test_the_camera_moves_like_a_head_or_not_at_all():
    poses = [render_clip(SceneSpec("reach", seed=s, duration_s=5.0, **TINY)).truth.world_from_camera for s in range(4)]
    for pose in poses:
        assert 0.05 < np.linalg.norm(np.ptp(pose[:, :3, 3], axis=0)) < 0.3
        turned = np.degrees(np.arccos(np.clip((np.einsum("tij,sij->ts", *[pose[:, :3, :3]] * 2) - 1) / 2, -1, 1)))
        assert 9 < turned.max() < 40
    still = render_clip(SceneSpec("reach", camera_motion=0.0, **TINY)).truth.world_from_camera
    np.testing.assert_array_equal(still, np.broadcast_to(still[0], still.shape))
    turning = render_clip(SceneSpec("reach", camera_path="turn", **TINY)).truth.world_from_camera
    assert np.ptp(turning[:, :3, 3], axis=0).max() == 0
    assert np.ptp(turning[:, :3, :3], axis=0).max() > 0.05


def test_a_held_thing_is_rigid_with_the_hand_and_a_pushed_one_stays_level():
    held = render_clip(SceneSpec("lift", "can", seed=6, duration_s=3.0, **TINY)).truth
    taken = len(held.frame_s) // 2 + 1
    palm_from_object = np.linalg.inv(held.world_from_bone[taken:, RIGHT, 15]) @ held.world_from_object[taken:, 0]
    assert palm_from_object == pytest.approx(np.broadcast_to(palm_from_object[0], palm_from_object.shape))
    assert np.ptp(held.world_from_object[taken:, 0, 2, 3]) > 0.05
    still = held.world_from_object[: taken - 2, 0]
    np.testing.assert_array_equal(still, np.broadcast_to(still[0], still.shape))
    placed = render_clip(SceneSpec("pick-place", "can", seed=6, duration_s=3.0, **TINY)).truth.world_from_object[:, 0]
    assert placed[-1, :3, 2] == pytest.approx([0, 0, 1])
    assert placed[-1, 2, 3] == pytest.approx(placed[0, 2, 3])
    pushed = render_clip(SceneSpec("push", "box", seed=6, duration_s=3.0, **TINY)).truth.world_from_object[:, 0]
    assert pushed[:, 2] == pytest.approx(np.broadcast_to(pushed[0, 2], (len(pushed), 4)))


def test_the_name_of_before_is_found_with_a_warning():
    with pytest.warns(FutureWarning, match=r"handloom\.synth\.truth\.Truth since"):
        assert handloom.synth.Truth is Truth
    with pytest.raises(AttributeError, match="no attribute 'Untruth'"):
        _ = handloom.synth.Untruth
