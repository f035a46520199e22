"""Faces: found by the networks of MediaPipe's wheel, unrecognisable to them afterwards, hands left alone."""

import cv2
import numpy as np
import pytest
from support.people import PORTRAIT, scene

from handloom.models.faces import NEIGHBOURS, FaceBlur, FaceFinder, blur_faces, one_a_face, squares
from handloom.schemas.settings import Settings
from handloom.stages.builtin.images import StoredFrames
from handloom.stages.graph import keys_of
from handloom.stages.registry import builtin_stages
from handloom.stages.versions import model_versions
from handloom.video.stored_frames import decode_jpeg

BLURS = Settings(frames={"blur_faces": True})


@pytest.fixture(scope="module")
def find() -> FaceFinder:
    return FaceFinder()


@pytest.mark.parametrize("left", [0, 250, 512])
def test_a_face_is_found_where_it_is_and_not_again_when_blurred(find, left):
    image = scene(left)
    (box,) = find(image)
    assert left + 30 < (box[0] + box[2]) / 2 < left + 100
    assert 40 < (box[1] + box[3]) / 2 < 130
    blurred = blur_faces(image, box[None])
    assert not len(find(blurred))
    changed = (blurred != image).any(-1)
    assert changed.any()
    away = np.ones_like(changed)
    away[20:200, max(left - 20, 0) : left + 148] = False
    assert not changed[away].any()
    inside = blurred[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])].astype(float)
    assert np.abs(np.diff(inside, 2, axis=1)).mean() < 3  # no detail is left


def test_a_face_of_24_pixels_is_found(find):
    whole = scene(None)
    whole[100:183, 300:370] = cv2.resize(cv2.imread(str(PORTRAIT))[..., ::-1], (70, 83), interpolation=cv2.INTER_AREA)
    (box,) = find(whole)
    assert 315 < (box[0] + box[2]) / 2 < 355


def test_nothing_is_found_where_nobody_is(find):
    assert find(scene(None)).shape == (0, 4)
    assert find(np.zeros((90, 160, 3), np.uint8)).shape == (0, 4)
    assert find(np.full((2, 3, 3), 255, np.uint8)).shape == (0, 4)


def test_a_face_that_is_missed_for_a_moment_stays_covered(find):
    there = [0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    frames = np.stack([scene(300 if one else None) for one in there])
    blur = FaceBlur()
    for chunk in (12, 1, 5):
        blur.begin()
        parts = [frames[at : at + chunk] for at in range(0, 12, chunk)]
        out = [frame for part in parts for frame in blur.feed(part)] + list(blur.finish())
        assert len(out) == 12
        near = [any(there[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS + 1]) for at in range(12)]
        assert blur.counts == [int(one) for one in near] == [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
        assert not any(len(find(frame)) for frame in out)
        assert (out[5] == frames[5]).all()
        assert (out[2] != frames[2]).any()


def test_boxes_of_one_face_are_one():
    boxes = np.array([[0.0, 0, 10, 10], [1, 1, 12, 11], [40, 0, 50, 10], [2, 2, 5, 5]])
    assert one_a_face(boxes).tolist() == [[0, 0, 12, 11], [40, 0, 50, 10]]
    assert one_a_face(np.empty((0, 4))).shape == (0, 4)
    for width, height in ((640, 360), (360, 640), (400, 360), (2000, 100)):
        covered = np.zeros(max(width, height), bool)
        for left, top, side in squares(width, height)[1:]:
            assert side == min(width, height)
            covered[int(max(left, top)) : int(np.ceil(max(left, top) + side))] = True
        assert covered.all() == (len(squares(width, height)) > 1)


class _Work:
    frame_s = np.arange(8) / 15


def stored(settings: Settings) -> dict:
    stage = StoredFrames(settings)
    stage.load()
    stage.begin(_Work())
    for _ in range(2):
        stage.feed(np.stack([scene()] * 4), np.arange(4.0))
    return stage.cells(stage.run(_Work()), _Work())


def test_the_stored_pictures_show_no_face_and_the_row_says_so(find):
    plain, blurred = stored(Settings()), stored(BLURS)
    assert plain["faces_blurred"] is None
    assert blurred["faces_blurred"] == [1] * 8
    assert len(blurred["frame_jpeg"]) == 8
    assert len(find(decode_jpeg(plain["frame_jpeg"][5]))) == 1
    for data in (*blurred["frame_jpeg"], blurred["thumbnail"]):
        assert not len(find(decode_jpeg(data)))


def test_asking_for_it_changes_the_key_and_not_asking_does_not():
    keys = [keys_of(builtin_stages(s), model_versions(s))["frames"] for s in (Settings(), BLURS)]
    assert keys[0] != keys[1]
    assert "blur_faces" not in StoredFrames(Settings()).key_settings()
    versions = model_versions(BLURS)
    assert StoredFrames(BLURS).key_identity(versions)["faces"] == versions["faces"]
    assert "faces" not in model_versions(Settings())
    assert Settings().run_key({}) != BLURS.run_key({})
