"""The virtual camera: its exact tracks agree with its images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from handloom.bench.truth.virtual.camera import HAND, NOTHING, VirtualClip
from handloom.bench.truth.virtual.shots import SHOTS, Texture, make_clips, read_textures, still
from handloom.errors import ConfigError

SIZE = (160, 96)
BY_NAME = {shot.name: shot for shot in SHOTS}


def image(seed: int, width: int = 480, height: int = 320) -> np.ndarray:
    """Soft blobs of many sizes: smooth enough to be sampled, different everywhere."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width, 3))
    for sigma in (12, 30):
        grain = cv2.GaussianBlur(rng.normal(size=out.shape), (0, 0), sigma)
        out += grain / grain.std()
    return np.clip(128 + 40 * out, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def textures() -> list[Texture]:
    return [still(f"image{seed}", image(seed)) for seed in range(3)]


def made(textures: list[Texture], name: str, sprite=None, **changes) -> VirtualClip:
    shot = replace(BY_NAME[name], noise=0.0, **changes)
    clip = make_clips(textures, [shot], SIZE, seconds=1.0, hz=6.0, sprite=sprite)[0]
    return replace(clip, jpeg_quality=None)


def grid() -> np.ndarray:
    x, y = np.meshgrid(np.linspace(4, SIZE[0] - 5, 16), np.linspace(4, SIZE[1] - 5, 10))
    return np.rint(np.stack([x, y], axis=-1).reshape(-1, 2))


def colours(frame: np.ndarray, px: np.ndarray) -> np.ndarray:
    x, y = np.nan_to_num(px).astype(np.float32).T
    return cv2.remap(frame.astype(np.float32), x, y, cv2.INTER_LINEAR)[:, 0]


@pytest.mark.parametrize("name", ["pan", "look_around", "zoom", "pan_radial", "wall", "room", "room_radial"])
def test_a_tracked_point_keeps_its_colour(textures: list[Texture], name: str):
    clip = made(textures, name, exposure=0.0)
    frames = list(clip.frames())
    tracks = clip.follow(grid(), np.zeros(160, int))
    for t in (2, 5):
        seen = tracks.visible[t] & (tracks.kind != NOTHING)
        assert seen.mean() > 0.3
        wrong = np.abs(colours(frames[t], tracks.px[t, seen]) - colours(frames[0], tracks.px[0, seen])).max(axis=1)
        assert np.quantile(wrong, 0.9) < 6, name


def test_a_turn_is_a_homography(textures: list[Texture]):
    clip = made(textures, "pan")
    tracks = clip.follow(grid(), np.zeros(160, int))
    matrix = clip.camera(0).camera_matrix
    turn = clip.world_from_camera[5, :3, :3].T @ clip.world_from_camera[0, :3, :3]
    there = np.concatenate([grid(), np.ones((160, 1))], axis=1) @ (matrix @ turn @ np.linalg.inv(matrix)).T
    np.testing.assert_allclose(tracks.px[5], there[:, :2] / there[:, 2:], atol=1e-6)


def test_a_card_hides_what_is_behind_it_and_the_query_frame_may_be_any(textures: list[Texture]):
    clip = made(textures, "room", move_m=(0.8, 0.0, 0.0), shake_deg=0.0)
    px = clip.follow(grid(), np.zeros(160, int))
    assert set(np.unique(px.kind)) == {0, 1, 2}
    in_image = ((px.px[-1] >= 0) & (px.px[-1] < np.array(SIZE) - 1)).all(axis=1)
    assert (in_image & (px.kind == 0) & ~px.visible[-1]).any()
    seen = px.visible[-1]
    back = clip.follow(px.px[-1, seen], np.full(seen.sum(), 5))
    np.testing.assert_allclose(back.px[0], px.px[0, seen], atol=1e-6)
    assert back.visible[0].all()
    np.testing.assert_array_equal(back.kind, px.kind[seen])


def test_a_pasted_hand_hides_and_carries_its_points(textures: list[Texture]):
    alpha = np.zeros(SIZE[::-1], np.float32)
    alpha[40:, 60:100] = 1.0
    sprite = (np.full((*alpha.shape, 3), 200, np.uint8), alpha)
    clip = made(textures, "turn_hand", sprite, turn_deg=(0, 0, 0), shake_deg=0.0)
    tracks = clip.follow(grid(), np.zeros(160, int))
    on = tracks.kind == HAND
    assert on.any()
    moved = clip.hand.shift_px[4] - clip.hand.shift_px[0]
    np.testing.assert_allclose(tracks.px[4, on] - grid()[on], np.tile(moved, (on.sum(), 1)))
    assert (~tracks.visible[:, ~on]).any()  # the scene does not move: what vanishes is under the hand
    assert tracks.visible[0, ~on & (tracks.kind != NOTHING)].all()


def test_the_exposure_is_around_the_moment_of_the_pose(textures: list[Texture]):
    sharp, blurred = (made(textures, "pan", exposure=exposure) for exposure in (0.0, 0.8))
    a, b = (list(clip.frames())[3].astype(float) for clip in (sharp, blurred))
    assert np.abs(a - b).mean() > 0.3
    shift, _ = cv2.phaseCorrelate(a.mean(axis=2), b.mean(axis=2))
    assert abs(shift[0]) < 0.3


def test_gain_and_noise(textures: list[Texture]):
    clip = made(textures, "turn_lighting", shake_deg=0.0)
    levels = [frame.mean() for frame in clip.frames()]
    assert levels[2] == pytest.approx(0.45 * levels[0], rel=0.02)
    assert levels[-1] == pytest.approx(levels[0], rel=0.02)
    noisy = replace(clip, noise=4.0)
    np.testing.assert_array_equal(next(noisy.frames()), next(noisy.frames()))


def test_a_folder_of_images_and_videos(tmp_path, textures: list[Texture]):
    import av

    cv2.imwrite(str(tmp_path / "b.png"), image(1))
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    back = image(2, 160, 96)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.bit_rate = 160, 96, 4_000_000
        for t in range(10):
            shown = back.copy()
            shown[30:50, 10 + 10 * t : 30 + 10 * t] = 255 * (back[:1, :1].mean() < 128)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, "rgb24")))
        container.mux(stream.encode())
    found = read_textures(tmp_path, 1.0, 5.0)
    assert [texture.name for texture in found] == ["b", "a"]
    assert len(found[1].frames) == 5
    moving = found[1].moving
    assert moving[0, 80, 40]  # the white patch in an image twice as wide
    assert not moving[4, 80, 40]
    assert moving.mean() < 0.15
    with pytest.raises(ConfigError, match="no image or video"):
        read_textures(tmp_path / "nothing", 1.0, 5.0)
