"""Hostile camera files and annotations: one message and little memory, whatever their size and form."""

from __future__ import annotations

import contextlib
import json
import resource
from pathlib import Path

import pytest

from handloom.errors import ConfigError
from handloom.geometry.camera.given_path import parse_poses
from handloom.geometry.camera.intrinsics import parse_camera
from handloom.ingest.camera.file import read_camera_file
from handloom.io.reading import read_json
from handloom.schemas.bounded_json import CAMERA, DESCRIPTION, Bounds, parse

MATRIX = [500, 0, 320, 0, 500, 240, 0, 0, 1]
POSE = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
HUGE = 10**299


def text_of(**more: object) -> str:
    return json.dumps({"camera_matrix": MATRIX, **more})


CONTENTS = {
    "5000 digits": ('{"camera_matrix": [' + "9" * 5000 + "]}", "number that cannot be read"),
    "deep lists": ("[" * 200_000, "nested too deeply"),
    "deep objects": ('{"a":' * 100_000, "nested too deeply"),
    "NaN": (text_of(camera_matrix=[float("nan"), *MATRIX[1:]]), "finite numbers"),
    "Infinity": (text_of(world_from_camera=[{"frame_s": float("inf"), "matrix": POSE}]), "finite number of seconds"),
    "1e999": (text_of().replace("500", "1e999"), "finite numbers"),
    "a huge integer": (text_of().replace("500", "9" * 400), "finite numbers"),
    "huge integers": (
        text_of(world_from_camera=[{"frame_s": 0, "matrix": [HUGE, 0.5, HUGE, 0, HUGE, HUGE, 0.5, *POSE[7:]]}]),
        "a rotation",
    ),
    "twice a key": ('{"camera_matrix": 1, "camera_matrix": 2}', "9 finite numbers"),
    "a number": ("7", "an object"),
    "empty": ("", "is empty, expected JSON"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_hostile_camera_file_is_one_message(tmp_path, name):
    content, expected = CONTENTS[name]
    path = tmp_path / "v.camera.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        read_camera_file(str(path))
    assert str(path) in caught.value.problem
    assert len(caught.value.problem) < 600
    for parsed in (lambda: parse_camera(content, 640, 480), lambda: parse_poses(content)):  # a clip list from elsewhere
        with contextlib.suppress(ValueError):
            parsed()


def test_too_much_is_refused_before_it_is_parsed(tmp_path):
    """78 MiB of poses took 805 MiB; short lists take twenty times their text."""
    large = tmp_path / "large.camera.json"
    with large.open("wb") as file:
        file.truncate(10 << 30)  # a file with a hole: no disk
    dense = tmp_path / "dense.camera.json"
    dense.write_bytes(b'{"camera_matrix":[' + b"[]," * 4_000_000 + b"0]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match="larger than 48 MiB"):
        read_camera_file(str(large))
    with pytest.raises(ConfigError, match="holds 8000002 values, expected at most 4000000"):
        read_camera_file(str(dense))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 << 10  # kB
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        read_json(str(large), "LeRobot dataset description", None, DESCRIPTION)


def test_an_hour_of_poses_is_within_the_bounds():
    """At 30 Hz with 17 digits; the bounds are checked on the text, which is not parsed here."""
    number = "-0.12345678901234567"
    pose = f'{{"frame_s": 3599.9666666666667, "matrix": [{", ".join([number] * 12)}, 0, 0, 0, 1]}}, '
    num_bytes, num_values = 108_000 * len(pose), 108_000 * sum(pose.count(mark) for mark in ",[{")
    assert num_bytes < CAMERA.max_bytes
    assert num_values < CAMERA.max_values


def test_annotations_are_checked_the_same_way(tmp_path: Path):
    path = tmp_path / "narration.json"
    path.write_text('{"a": ' + "1" * 5000 + "}")
    with pytest.raises(ConfigError, match=r"narration file .*narration\.json cannot be used: it holds a number"):
        read_json(str(path), "narration file")
    assert parse(b'\xef\xbb\xbf{"a": 1}', Bounds(100)) == {"a": 1}
    assert parse('{"a": 1}', Bounds(100)) == {"a": 1}
