"""Fingerprints: a copy agrees with its recording, another course before the same background does not."""

import cv2
import numpy as np
import pytest

from handloom.errors import ShapeError
from handloom.video.fingerprint import course, crops
from handloom.video.fingerprint.compare import agreement
from handloom.video.fingerprint.pictures import MOST_FRAMES, Fingerprint, evened, fingerprint


def shown(seed: int, num: int = 24, room: int = 0, camera: float = 0.0) -> np.ndarray:
    """(num, 120, 160, 3): two things on smooth ways of their own in a room; `camera` pixels that it moves by."""
    around, rng = np.random.default_rng([room, 1]), np.random.default_rng([seed, 2])
    wide = cv2.GaussianBlur(around.uniform(0, 255, (200, 240, 3)).astype(np.float32), (0, 0), 5)
    wide = np.clip((wide - wide.mean()) * 5 + 128, 0, 255)
    ways, shift = rng.uniform(15, 105, (2, 4, 2)), rng.uniform(-1, 1, (3, 2)) * camera
    frames = []
    for time in np.linspace(0, 1, num):
        weights = np.array([(1 - time) ** 3, 3 * time * (1 - time) ** 2, 3 * time**2 * (1 - time), time**3])
        way = np.array([time, np.sin(3 * time), np.sin(7 * time)]) @ shift
        x, y = np.clip(40 + way, 0, 80).round().astype(int)
        frame = wide[y : y + 120, x : x + 160].astype(np.uint8).copy()
        for way, colour in zip(ways, ((235, 200, 180), (40, 60, 160)), strict=True):
            cv2.circle(frame, tuple((weights @ way + [15, 0]).astype(int).tolist()), 14, colour, -1)
        frames.append(frame)
    return np.stack(frames)


def of(frames) -> Fingerprint:
    return Fingerprint(fingerprint(frames))


def poor(frames) -> list[np.ndarray]:
    return [
        cv2.imdecode(cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], cv2.IMREAD_COLOR) for one in frames
    ]


COPIES = {
    "the same": lambda frames: frames,
    "poorly encoded": poor,
    "mirrored": lambda frames: frames[:, :, ::-1],
    "darker, another gamma": lambda frames: (255 * (frames / 255 * 0.7) ** 1.4).astype(np.uint8),
    "the last two thirds": lambda frames: frames[len(frames) // 3 :],
    "half of it": lambda frames: frames[5 : 5 + len(frames) // 2],
    "slower": lambda frames: np.repeat(frames, 2, axis=0),
    "cropped": lambda frames: frames[:, 8:101, 25:149],
    "cropped, mirrored, upright": lambda frames: frames[:, 10:100, 20:140, :][:, :, ::-1],
}


def likely(one: Fingerprint, other: Fingerprint) -> bool:
    rows = np.stack([course.course(one), course.course(other)])
    there, back = course.Courses(rows).likely(np.array([0, 1]), np.array([1, 0])).tolist()
    assert there == back
    return there


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("camera", [0.0, 25.0])
def test_a_copy_agrees(how, camera):
    for seed in range(2):
        frames = shown(seed, camera=camera)
        one, other = of(frames), of(COPIES[how](frames))
        assert agreement(one, other) > 0.9
        assert agreement(other, one) > 0.9
        assert likely(one, other)


@pytest.mark.parametrize("camera", [0.0, 25.0])
def test_another_course_in_the_same_room_does_not(camera):
    found = [agreement(of(shown(2 * n, camera=camera)), of(shown(2 * n + 1, camera=camera))) for n in range(4)]
    assert max(found) < 0.7
    assert agreement(of(shown(0)), of(shown(0, room=1))) < 0.9, "the same things, another room"


def test_what_cannot_be_told():
    frames = shown(0)
    still = np.repeat(frames[:1], 12, axis=0)
    assert np.isnan(agreement(of(frames), of(frames[:3])))
    assert np.isnan(agreement(of(still), of(still)))
    assert agreement(of(frames), of(np.full_like(frames, 128))) < 0.5


def test_a_long_clip_has_every_second_frame():
    frames = [np.full((6, 8, 3), number % 256, np.uint8) for number in range(MOST_FRAMES + 1)]
    assert of(frames).grey[:, 0, 0].tolist() == [number % 256 for number in range(0, MOST_FRAMES + 1, 2)]
    with pytest.raises(ShapeError, match="no frames"):
        fingerprint([])
    with pytest.raises(ShapeError, match="3 bytes are no fingerprint"):
        Fingerprint(b"abc")


def test_a_crop_is_that_part():
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.standard_normal((96, 128)).astype(np.float32), (0, 0), 8)

    def small(image):
        return cv2.resize(image, crops.SMALL_PX[::-1], interpolation=cv2.INTER_AREA).reshape(1, -1)

    for number, crop in enumerate(crops.FINE.crops):
        top, left = round(crop.top * 96), round(crop.left * 128)
        part = picture[top : top + round(crop.share * 96), left : left + round(crop.share * 128)]
        found = crops.FINE.of(small(picture))[0, number]
        assert crops.unit(small(part))[0] @ found > 0.97
        at = crop.pixels() @ [0, 0, 1]
        np.testing.assert_allclose(
            (at + 0.5) / [32, 24], [crop.left + crop.share / 64, crop.top + crop.share / 48], atol=1e-6
        )


def test_contrast_and_light_are_made_equal():
    picture = shown(0)[0, ..., 0].astype(np.float32)
    np.testing.assert_allclose(evened(picture), evened(2 * picture + 30), atol=0.3)
