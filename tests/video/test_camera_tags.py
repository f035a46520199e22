"""Camera tags of video files: read from boxes as cameras write them; nothing from any other bytes."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.range_server import range_server
from support.tagged_video import android, box, file_of, gopro, gpmf, iphone, keys

from handloom.video.container import boxes as boxes_module
from handloom.video.container.boxes import Boxes
from handloom.video.container.camera_tags import CameraTags, read_camera_tags, tags_of

WHOLE = file_of(gopro(diagonal_deg=137.4) + iphone(lens="iPhone 13 back camera 5.1mm f/1.6") + android(model="Pixel 8"))


def tags(data: bytes) -> CameraTags:
    return tags_of(Boxes(io.BytesIO(data), len(data)))


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (gopro(), CameraTags("GoPro", "HERO7 Black", fov_setting="W")),
        (gopro(setting=None), CameraTags("GoPro")),
        (gopro(setting=b"L", diagonal_deg=100.0), CameraTags("GoPro", "HERO7 Black", None, None, "L", 100.0)),
        (box(b"udta", box(b"FOV\x00", b"Wide"), box(b"CAME", bytes(16))), CameraTags("GoPro", fov_setting="W")),
        (iphone(), CameraTags("Apple", "iPhone 13", focal_35mm=27)),
        (iphone(focal_mm="26.5mm"), CameraTags("Apple", "iPhone 13", focal_35mm=26.5)),
        (iphone(focal_mm=None, lens="front camera"), CameraTags("Apple", "iPhone 13", "front camera")),
        (android(), CameraTags(is_android=True)),
        (android(manufacturer="Google", model="Pixel 8"), CameraTags("Google", "Pixel 8", is_android=True)),
        (box(b"udta", box(b"\xa9mak", struct.pack(">HH", 3, 0), b"DJI")), CameraTags("DJI")),
        (box(b"udta", box(b"\xa9mdl", b"Osmo\x00")), CameraTags(None, "Osmo")),
        (box(b"udta", keys({"com.apple.quicktime.make": "Apple"}, True)), CameraTags("Apple")),
        (keys({"com.apple.quicktime.camera.focal_length.35mm_equivalent": 24.0}), CameraTags(focal_35mm=24)),
        (b"", CameraTags()),
    ],
)
def test_tags_of_each_maker(inside, expected):
    assert tags(file_of(inside)) == expected


@pytest.mark.parametrize(
    "inside",
    [
        gopro(diagonal_deg=float("nan"), setting=None),
        gopro(diagonal_deg=1e9, setting=None),
        box(b"udta", box(b"GPMF", gpmf(b"DEVC", "", gpmf(b"ZFOV", "f", bytes(6), 2)))),
        box(b"udta", box(b"GPMF", gpmf(b"DEVC", "", gpmf(b"ZFOV", "f", b"", 4)))),
    ],
)
def test_an_impossible_number_is_left_out(inside):
    assert tags(file_of(inside)).diagonal_fov_deg is None


def test_control_characters_and_long_names_are_cut():
    found = tags(file_of(keys({"com.apple.quicktime.make": "A\x1b[31m\n", "com.apple.quicktime.model": "x" * 9000})))
    assert found.make == "A[31m"
    assert len(found.model) == 80


def test_a_missing_file_or_another_format_has_no_tags(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"\x1aE\xdf\xa3" + WHOLE)
    for path in (tmp_path / "a.mkv", tmp_path / "b.mp4", tmp_path, Path("nowhere://x/y.mp4")):
        assert read_camera_tags(str(path)) == CameraTags()


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_never_raise_or_hang(data):
    """Cut, changed and inserted bytes, sizes of boxes above all."""
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    tags(bytes(damaged))


@given(st.binary(max_size=200))
def test_any_bytes_inside_never_raise_or_hang(noise):
    tags(file_of(noise))
    tags(file_of(box(b"udta", box(b"GPMF", noise), box(b"meta", noise), noise)))


def test_the_number_of_boxes_that_are_read_is_bounded():
    """A box can have eight bytes: a GB of them, or boxes in boxes, must not take longer than other files."""
    reads = 0

    class Counting(io.BytesIO):
        def read(self, size=-1):
            nonlocal reads
            reads += 1
            return super().read(size)

    nested = b""
    for _ in range(40):
        nested = box(b"udta", nested, box(b"meta", bytes(12)))
    many = file_of(box(b"udta", box(b"\x00\x00\x00\x00") * 50_000) + nested)
    tags_of(Boxes(Counting(many), len(many)))
    assert reads < 3 * boxes_module.MAX_BOXES


def test_a_huge_box_is_not_read_whole():
    big = file_of(box(b"udta", box(b"GPMF", bytes(3 << 20))))
    parts = Boxes(io.BytesIO(big), len(big))
    movie = next(b for b in parts.top() if b.kind == b"moov")
    inner = next(iter(parts.children(next(iter(parts.children(movie))))))
    assert len(parts.read(inner)) == boxes_module.MAX_BYTES


def test_of_a_remote_file_no_image_data_is_fetched(tmp_path):
    (tmp_path / "a.mp4").write_bytes(
        box(b"ftyp", b"mp42", bytes(4)) + box(b"mdat", bytes(8 << 20)) + box(b"moov", gopro(setting=b"L"))
    )
    with range_server(tmp_path) as server:
        assert read_camera_tags(f"{server.url}/a.mp4").fov_setting == "L"
        assert server.num_bytes < 1 << 20
        assert read_camera_tags(f"{server.url}/absent.mp4") == CameraTags()
        server.has_ranges = False
        assert read_camera_tags(f"{server.url}/a.mp4").make in (None, "GoPro")
