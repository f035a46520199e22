"""Cameras and hands that a command gives: their priority, videos that they do not fit, and errors."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.geometry.camera.intrinsics import camera_of
from handloom.ingest.camera.devices import device_camera
from handloom.ingest.camera.file import OLD_SIZE, read_camera_file
from handloom.ingest.camera.requested import RequestedCamera, has_lost_its_file, keep_listed, requested_camera
from handloom.ingest.human.folder import ingest_folder
from handloom.pipelines.ingest import human
from handloom.schemas.calibrated import Calibrated, before_calibration, with_calibration
from handloom.schemas.camera_presets import PRESETS
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import HandSize, parse_hand
from handloom.schemas.values import VideoInfo
from handloom.store.clips.clip_list import read_clips
from handloom.video.container.camera_tags import CameraTags

HD = VideoInfo(1920, 1080, 30.0, "h264", "yuv420p", 0, 0.0, 2.0, 60)
INTRINSICS = {"camera_matrix": [900.0, 0, 639.5, 0, 900, 359.5, 0, 0, 1], "image_size": [1280, 720]}


def write(path: Path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def folder_of(tmp_path: Path, *names: str) -> str:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    return str(tmp_path)


def cameras_of(result) -> list[dict | None]:
    return [None if clip.camera is None else json.loads(clip.camera) for clip in result.clips]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "gopro"} | {"fov_deg": 90}, "--camera-preset gopro and --fov-deg 90 are given, expected one"),
        ({"preset": "gopro-wid"}, "there is no camera preset 'gopro-wid', expected one of gopro-wide, .*gopro-wide or"),
        ({"preset": ""}, "no camera preset ''"),
        ({"fov_deg": 0.0}, "--fov-deg 0, expected 1 to 170 degrees"),
        ({"fov_deg": 200.0}, "--fov-deg 200, expected.*fisheye model"),
        ({"fov_deg": math.nan}, "--fov-deg nan, expected"),
        ({"hand_length_m": 18.5}, "--hand-length-m 18.5, expected 0.08 to 0.26 metres; is it in centimetres?"),
        ({"hand_length_m": math.nan}, "--hand-length-m nan, expected"),
    ],
)
def test_impossible_options_are_refused(options, says):
    with pytest.raises(ConfigError) as caught:
        requested_camera(**options)
    assert re.search(says, str(caught.value).replace("\n", " "))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty, expected JSON"),
        ("{,}", "is no valid JSON"),
        ([1], "the top level"),
        ({"distortion": {"model": "opencv", "params": [0.1, 0, 0, 0]}}, "camera_matrix is missing"),
        (INTRINSICS | {"image_size": [0, 720]}, "image_size"),
        (INTRINSICS | {"distortion": {"model": "mirror", "params": [1]}}, "'mirror' is not known"),
        (INTRINSICS | {"distortion": {"model": "fisheye", "params": [1]}}, "expected 4"),
        (INTRINSICS | {"world_scale": "metric"}, "has world_scale, expected what holds for every video"),
        ({"fov_deg": 0.2}, "fov_deg is 0.2, expected 1 to 170"),
        ({"preset": "gopro-x"}, "there is no camera preset 'gopro-x'"),
        ({"preset": 5}, "preset is 5, expected the name of a lens"),
    ],
)
def test_an_intrinsics_file_that_cannot_be_used_is_refused(tmp_path, content, says):
    path = write(tmp_path / "lens.json", content)
    with pytest.raises(ConfigError, match=says) as caught:
        requested_camera(intrinsics=path)
    assert path in caught.value.problem
    assert caught.value.hint


def test_a_folder_or_nothing_is_no_intrinsics_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(ConfigError, match=str(path)) as caught:
            requested_camera(intrinsics=str(path))
        assert caught.value.hint


def test_options_become_the_json_of_clips(tmp_path):
    preset = requested_camera(preset="EgoDex", hand_length_m=0.175)
    assert json.loads(preset.camera)["preset"] == "egodex"
    assert parse_hand(preset.hand) == HandSize(0.175, 0.02, 0.75, "given", keypoint_scale_sigma=0.08)
    fov = requested_camera(fov_deg=92.5)
    assert json.loads(fov.camera) == {"fov_deg": 92.5, "focal_sigma": 0.05, "source": "assumed"}
    assert fov.hand is None
    given = requested_camera(intrinsics=write(tmp_path / "lens.json", INTRINSICS))
    camera = camera_of(given.camera, HD)
    assert (camera.source, camera.camera_matrix[0, 0]) == ("given", 1350)
    assert requested_camera() == RequestedCamera()
    named = requested_camera(intrinsics=write(tmp_path / "named.json", {"preset": "aria"}))
    assert camera_of(named.camera, HD).preset == "aria"


def test_the_name_of_a_preset_stays_only_with_its_own_numbers(tmp_path):
    wide = PRESETS["gopro-wide"].camera()
    of = lambda content: camera_of(requested_camera(intrinsics=write(tmp_path / "lens.json", content)).camera, HD)
    bent = of({"preset": "GoPro-Wide", "fov_deg": 100})
    assert (bent.preset, bent.source, bent.focal_sigma, bent.model) == (None, "assumed", 0.05, "fisheye")
    np.testing.assert_array_equal(bent.distortion, wide["distortion"]["params"])
    matrix = of({"preset": "gopro-wide", "camera_matrix": [950.0, 0, 959.5, 0, 950, 539.5, 0, 0, 1]})
    assert (matrix.preset, matrix.source, matrix.focal_sigma, matrix.model) == (None, "given", None, "fisheye")
    straight = of({"preset": "gopro-wide", "distortion": {"model": "none", "params": []}})
    assert (straight.preset, straight.focal_sigma, straight.model) == (None, wide["focal_sigma"], "opencv")


def test_the_camera_file_of_the_docs_can_be_used(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    given = read_camera_file(write(tmp_path / "a.camera.json", example))
    given.check(HD)
    assert camera_of(given.text(0.0, 2.0), HD).source == "given"


def test_a_field_of_view_in_a_file_has_the_sigma_of_the_option(tmp_path):
    path = write(tmp_path / "view.json", {"fov_deg": 92.5})
    for text in (requested_camera(intrinsics=path).camera, Path(path).read_text()):
        camera = camera_of(text, HD)
        assert (camera.source, camera.focal_sigma) == ("assumed", 0.05)
    assert camera_of('{"fov_deg": 92.5, "source": "given"}', HD).focal_sigma is None
    matrix = '{"camera_matrix": [1500, 0, 960, 0, 1500, 540, 0, 0, 1], "source": "assumed"}'
    assert camera_of(matrix, HD).focal_sigma == 0.05  # not as exact as a given one


def test_a_preset_in_a_file_gives_the_keypoint_scale(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    root = folder_of(folder, "a.mp4", "b.mp4")
    path = write(folder / "a.camera.json", {"preset": "egodex"})
    requested = requested_camera(intrinsics=path, hand_length_m=0.175)
    assert parse_hand(requested.hand) == HandSize(0.175, 0.02, 0.75, "given", keypoint_scale_sigma=0.08)
    beside, other = ingest_folder(root, probe=lambda uri: HD, requested=requested_camera(hand_length_m=0.175)).clips
    assert (parse_hand(beside.hand).keypoint_scale, parse_hand(other.hand).keypoint_scale) == (0.75, None)
    assert parse_hand(beside.hand).length_m == parse_hand(other.hand).length_m == 0.175


def test_a_file_beside_the_video_overrides_options_and_these_override_the_videos_tags(tmp_path):
    root = folder_of(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "a.camera.json", {"camera_matrix": [1500.0, 0, 960, 0, 1500, 540, 0, 0, 1]})
    tags = {"tags": lambda uri: CameraTags("GoPro", "HERO7 Black", fov_setting="L"), "probe": lambda uri: HD}
    beside, requested = cameras_of(ingest_folder(root, **tags, requested=requested_camera(preset="gopro-wide")))
    assert beside["camera_matrix"][0] == 1500
    assert requested["preset"] == "gopro-wide"
    result = ingest_folder(root, **tags)
    assert cameras_of(result)[1]["preset"] == "gopro-linear"
    assert cameras_of(result)[1]["device"] == "GoPro HERO7 Black"
    assert result.notes == (
        "1 video by GoPro HERO7 Black, field of view linear; preset gopro-linear: 87.3 degrees, focal length known to "
        "10%",
    )
    assert result.counts["cameras_of_device"] == 1
    requested, note = ingest_folder(root, **tags, requested=requested_camera(preset="aria")).notes
    assert requested == "1 video has preset aria: 112.5 degrees, focal length known to 1%"
    assert "that lens is of square images, 1 video is 1920 x 1080" in note


def test_intrinsics_are_scaled_with_a_note_and_a_video_of_another_shape_is_left_out(tmp_path):
    root = folder_of(tmp_path, "a.mp4", "b.mp4")
    requested = requested_camera(intrinsics=write(tmp_path / "lens.json", INTRINSICS))
    portrait = VideoInfo(1080, 1920, 30.0, "h264", "yuv420p", 90, 0.0, 2.0, 60)
    result = ingest_folder(root, probe=lambda uri: portrait if uri.endswith("b.mp4") else HD, requested=requested)
    assert [clip.video_id for clip in result.clips] == ["a"]
    assert result.counts["bad_cameras"] == result.num_left_out == 1
    (problem,) = result.problems
    assert problem.startswith("b.mp4: the intrinsics of ")
    assert "image_size is 1280 x 720, the video 1080 x 1920" in problem
    assert "intrinsics of 1280 x 720 are scaled to 1920 x 1080: 1 video" in result.notes
    with pytest.raises(ConfigError, match=r"no video of .* can be used; the first: a\.mp4"):
        ingest_folder(root, probe=lambda uri: portrait, requested=requested)
    write(tmp_path / "a.camera.json", INTRINSICS)  # as much of a file beside a video
    write(tmp_path / "b.camera.json", INTRINSICS | {"image_size": None})
    result = ingest_folder(root, probe=lambda uri: HD)
    assert [clip.video_id for clip in result.clips] == ["a"]
    assert result.notes == ("1 camera file is for images of another size, and scaled to the video beside",)
    (problem,) = result.problems
    assert problem.startswith("b.mp4: the camera file beside it cannot be used: the principal point is (639.5, 359.5)")


def test_the_old_name_of_the_image_size_gives_the_same_clips_with_a_note(tmp_path):
    root, new, old = folder_of(tmp_path, "a.mp4"), "image_size", "picture_size"
    found = {}
    for name in (new, old):
        content = {name if key == new else key: value for key, value in INTRINSICS.items()}
        path = write(tmp_path / "a.camera.json", content)
        found[name] = ingest_folder(root, probe=lambda uri: HD), requested_camera(intrinsics=path)
    assert found[new][0].clips == found[old][0].clips
    assert found[new][1].camera == found[old][1].camera
    assert "1 camera file: `picture_size` is called `image_size` now; the old name is still read" in found[old][0].notes
    assert (OLD_SIZE in found[old][1].description, OLD_SIZE in str(found[new])) == (True, False)
    write(tmp_path / "a.camera.json", INTRINSICS | {old: [640, 360]})
    with pytest.raises(
        ConfigError, match=r"image_size \[1280, 720\] and picture_size \[640, 360\], expected image_size"
    ):
        ingest_folder(root, probe=lambda uri: HD)


@pytest.mark.parametrize(
    ("tags", "preset", "fov_deg"),
    [
        (CameraTags("GoPro", "HERO7 Black", fov_setting="W"), "gopro-wide", 108.7),
        (CameraTags("GoPro", "HERO8 Black", fov_setting="N"), "gopro-narrow", 67.5),
        (CameraTags("GoPro"), "gopro", 89.0),
        (CameraTags("GoPro", "GoPro Max", fov_setting="W", diagonal_fov_deg=137.39), "gopro-wide", 123.8),
        (CameraTags("GoPro", "HERO11 Black", fov_setting="L", diagonal_fov_deg=95.0), "gopro-linear", 87.1),
        (CameraTags("GoPro", "HERO7 Black", fov_setting="W", diagonal_fov_deg=12.0), "gopro-wide", 108.7),
        (CameraTags("GoPro", "HERO11 Black", fov_setting="S"), None, None),
        (CameraTags("Apple", "iPhone 13", focal_35mm=27), None, 59.7),
        (CameraTags("Apple", "iPhone 6s"), "iphone-main", 60.9),
        (CameraTags("Apple", "iPhone 13", "iPhone 13 front TrueDepth camera 2.71mm f/2.2"), None, None),
        (CameraTags(is_android=True), "android-main", 65.0),
        (CameraTags("DJI", "Osmo Action", is_android=True), None, None),
        (CameraTags("Canon", "EOS R5", focal_35mm=35), None, 56.7),
    ],
)
def test_the_tags_of_a_video_file_give_its_camera(tags, preset, fov_deg):
    found = device_camera(tags, HD)
    assert tags.device in found.description
    if fov_deg is None:
        assert found.camera is None
        return
    content = json.loads(found.camera)
    assert (content.get("preset"), content["fov_deg"]) == (preset, pytest.approx(fov_deg, abs=0.15))
    camera = camera_of(found.camera, HD)
    assert (camera.source, camera.focal_sigma) == ("assumed", content["focal_sigma"])


def test_a_file_that_names_no_camera_gives_none():
    assert device_camera(CameraTags(), HD) is None


def test_options_that_are_not_given_stay_and_the_keypoint_scale_goes_with_its_lens(tmp_path):
    def clip(requested: RequestedCamera, camera: str | None = None) -> Clip:
        return Clip("d:v:0-1", "d", "v", "v.mp4", 0.0, 1.0, camera=camera or requested.camera, hand=requested.hand)

    nothing, length, wide = (
        RequestedCamera(),
        requested_camera(hand_length_m=0.17),
        requested_camera(preset="gopro-wide"),
    )
    before = keep_listed(clip(length), clip(requested_camera(preset="egodex")), length)
    assert json.loads(before.camera)["preset"] == "egodex"
    assert parse_hand(before.hand) == HandSize(0.17, 0.02, 0.75, "given", keypoint_scale_sigma=0.08)
    assert keep_listed(clip(nothing), before, nothing) == before
    other = keep_listed(clip(wide), before, wide)
    assert json.loads(other.camera)["preset"] == "gopro-wide"
    assert parse_hand(other.hand) == HandSize(0.17, 0.02, None, "given")
    assert keep_listed(clip(wide), clip(requested_camera(preset="egodex")), wide).hand is None
    device, beside = '{"device":"GoPro","source":"assumed"}', '{"camera_matrix":[]}'
    assert keep_listed(clip(nothing, device), before, nothing).camera == before.camera
    assert keep_listed(clip(nothing, device), clip(nothing, beside), nothing).camera == device
    assert keep_listed(clip(nothing), clip(nothing, beside), nothing).camera is None  # the file has gone
    assert keep_listed(clip(nothing), clip(nothing, beside), nothing, any_camera=True).camera == beside
    beside = read_camera_file(write(tmp_path / "a.camera.json", {"preset": "egodex"}))
    was = replace(clip(nothing, beside.text(0, 1)), hand=beside.hand())
    gone = keep_listed(clip(nothing), was, nothing)
    assert (gone.camera, gone.hand, has_lost_its_file(gone, was)) == (None, None, True)
    assert not has_lost_its_file(was, was)
    assert not has_lost_its_file(gone, before)
    beside = beside.text(0, 1)
    assert keep_listed(clip(nothing, beside), before, nothing).camera == beside


def test_a_hand_of_a_list_from_before_reads_the_same_and_stays():
    """`seen_size` and `seen_sigma` are called keypoint_scale and keypoint_scale_sigma since 0.4."""
    requested = requested_camera(preset="egodex", hand_length_m=0.17)
    old = requested.hand.replace("keypoint_scale", "seen_size")
    assert old != requested.hand
    assert parse_hand(old) == parse_hand(requested.hand)
    assert parse_hand('{"seen_size":0.8,"seen_sigma":0.1}') == HandSize(keypoint_scale=0.8, keypoint_scale_sigma=0.1)
    assert parse_hand('{"seen_size":0.8,"keypoint_scale":0.9}').keypoint_scale == 0.9
    now = Clip("d:v:0-1", "d", "v", "v.mp4", 0.0, 1.0, camera=requested.camera, hand=requested.hand)
    listed = replace(now, hand=old)
    assert keep_listed(now, listed, requested) == listed  # no clip changes because a key was renamed
    length = requested_camera(hand_length_m=0.18)
    given = keep_listed(replace(now, camera=None, hand=length.hand), listed, length)
    assert json.loads(given.hand) == json.loads(length.hand) | {"keypoint_scale": 0.75}
    wide = requested_camera(preset="gopro-wide")
    other = keep_listed(replace(now, camera=wide.camera, hand=None), listed, wide)
    assert parse_hand(other.hand) == HandSize(0.17, 0.02, None, "given")


def test_a_calibration_stays_until_another_camera_is_given():
    """Also for a video whose file names its camera, and with a hand length that is given later."""
    device, said = '{"device":"GoPro","fov_deg":89,"source":"assumed"}', Calibrated("video", "d:v", 4, 0.45, 0.05)
    found = with_calibration(device, {"fov_deg": 96.0, "source": "estimated"}, said)
    hand = with_calibration('{"keypoint_scale":0.75}', {"length_m": 0.17, "keypoint_scale": 0.75}, said)
    before = Clip("d:v:0-1", "d", "v", "v.mp4", 0.0, 1.0, camera=found, hand=hand)
    assert keep_listed(replace(before, camera=device, hand=None), before, RequestedCamera()) == before
    assert before_calibration(found) == device
    again = requested_camera(preset="egodex")
    shared = with_calibration(again.camera, {"fov_deg": 104.0, "source": "estimated"}, said)
    drawn = with_calibration(again.hand, {"length_m": 0.17}, said)
    listed = replace(before, camera=shared, hand=drawn)
    assert keep_listed(replace(before, camera=again.camera, hand=again.hand), listed, again) == listed
    wide, length = requested_camera(preset="gopro-wide"), requested_camera(hand_length_m=0.19)
    other = keep_listed(replace(before, camera=wide.camera, hand=None), before, wide)
    assert (other.camera, other.hand) == (wide.camera, None)
    given = keep_listed(replace(before, camera=device, hand=length.hand), before, length)
    assert given.camera == found
    assert json.loads(given.hand) == {"length_m": 0.19, "sigma": 0.02, "keypoint_scale": 0.75, "source": "given"}


HEADER = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,narration,verb,noun\n"


def test_epic_and_ego4d_take_their_own_preset_with_a_note(tmp_path):
    """Options of an earlier command stay until another one gives them, or `--replace`."""
    (tmp_path / "videos").mkdir()
    csv = write(tmp_path / "a.csv", HEADER + "P01_01_0,P01,P01_01,00:00:01.00,00:00:02.50,take cup,take,cup\n")
    db = Database.open_or_new(str(tmp_path / "db"))

    def epic(**options):
        summary = human.epic(db, [csv], str(tmp_path / "videos"), **options)
        (clip,) = read_clips(db)
        return summary, json.loads(clip.camera), clip.hand

    summary, camera, hand = epic()
    assert (camera["preset"], hand) == ("epic", None)
    assert summary.notes == ("1 clip has preset epic: 85 degrees, focal length known to 4%",)
    assert summary.counts["cameras_of_preset"] == 1
    _, camera, hand = epic(requested=requested_camera(fov_deg=92, hand_length_m=0.19))
    assert (camera["fov_deg"], parse_hand(hand).length_m) == (92, 0.19)
    summary, camera, hand = epic()
    assert (camera["fov_deg"], parse_hand(hand).length_m, summary.notes) == (92, 0.19, ())
    _, camera, hand = epic(replace_others=True)
    assert (camera["preset"], hand) == ("epic", None)
    manifest = {"videos": [{"video_uid": "u", "duration_sec": 5.0, "video_metadata": {"fps": 30, "num_frames": 150}}]}
    other = Database.open_or_new(str(tmp_path / "other"))
    ego4d = write(tmp_path / "ego4d.json", manifest)
    human.ego4d(other, ego4d, str(tmp_path / "videos"), requested=requested_camera(hand_length_m=0.18))
    (clip,) = read_clips(other)
    assert json.loads(clip.camera)["preset"] == "ego4d"
    assert parse_hand(clip.hand) == HandSize(0.18, 0.02, None, "given")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[1]", r"the top level is \[1\], expected an object"),
        ('{"length_m": 18}', "length_m is 18"),
        ('{"keypoint_scale": "x"}', "keypoint_scale"),
    ],
)
def test_an_impossible_hand_size_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_hand(text)


def test_clips_csv_names_the_lens_of_each_video(tmp_path):
    """A preset, or an intrinsics file of the folder; above the command's, below the file beside the video."""
    root = folder_of(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (tmp_path / "lenses").mkdir()
    write(tmp_path / "lenses" / "Head.json", INTRINSICS)
    write(tmp_path / "d.camera.json", {"camera_matrix": [1500.0, 0, 960, 0, 1500, 540, 0, 0, 1]})
    lines = ["a.mp4,lenses/head.json,0,1", "a.mp4,,1,2", "b.mp4,EgoDex,,", "c.mp4,,,", "d.mp4,aria,,"]
    (tmp_path / "clips.csv").write_text("\n".join(["video,camera,start_s,end_s", *lines]))
    asked = requested_camera(preset="gopro-wide", hand_length_m=0.175)
    result = ingest_folder(root, probe=lambda uri: HD, requested=asked)
    cameras = {clip.clip_id: json.loads(clip.camera) for clip in result.clips}
    assert [camera.get("preset") for camera in cameras.values()] == [None, None, "egodex", "gopro-wide", None]
    first, second, *_, last = cameras.values()
    assert first == second == json.loads(requested_camera(intrinsics=str(tmp_path / "lenses/Head.json")).camera)
    assert last["camera_matrix"][0] == 1500
    hands = [parse_hand(clip.hand) for clip in result.clips]
    assert {hand.length_m for hand in hands} == {0.175}
    assert [hand.keypoint_scale for hand in hands] == [None, None, 0.75, None, None]
    assert (result.counts["cameras_asked"], result.counts["cameras_scaled"], list(result.problems)) == (3, 1, [])
    assert [note.split(" has ")[-1][:18] for note in result.notes[:3]] == [
        "the intrinsics of ",
        "preset egodex: 105",
        "preset gopro-wide:",
    ]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["gopro-wid"], "a.mp4: camera gopro-wid (clips.csv row 1 (line 2)) cannot be used: there is no camera preset"),
        (
            ["lens.json"],
            "a.mp4: camera lens.json (clips.csv row 1 (line 2)) cannot be used: there is no file lens.json",
        ),
        (["../lens.json"], "there is no file ../lens.json; give its path below the folder"),
        (
            ["aria", "egodex"],
            "a.mp4: it has the cameras aria (clips.csv row 1 (line 2)) and egodex (clips.csv row 2 (line 3))",
        ),
        (["poses.json"], "poses are one video's own"),
        (["portrait.json"], "portrait.json cannot be used: image_size is 720 x 1280, the video 1920 x 1080"),
    ],
)
def test_a_video_whose_named_lens_cannot_be_used_is_left_out(tmp_path, cells, says):
    folder = tmp_path / "videos"
    folder.mkdir()
    write(tmp_path / "lens.json", INTRINSICS)
    pose = {"frame_s": 0.0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}
    write(folder / "poses.json", INTRINSICS | {"world_from_camera": [pose]})
    write(folder / "portrait.json", INTRINSICS | {"image_size": [720, 1280]})
    root = folder_of(folder, "a.mp4", "b.mp4")
    lines = [f"a.mp4,{cell},{number},{number + 1}" for number, cell in enumerate(cells)]
    (folder / "clips.csv").write_text("\n".join(["video,camera,start_s,end_s", *lines, "b.mp4,aria,,"]))
    result = ingest_folder(root, probe=lambda uri: HD)
    assert [clip.video_id for clip in result.clips] == ["b"]
    (problem,) = result.problems
    assert says in problem
    assert "the video is left out" in problem
    assert result.counts["bad_cameras"] == 1
