"""Versions of videos: touched and copied files are the same, replaced ones are not."""

import os
import shutil

import pytest
from support.rows import make_clip

from handloom.video.fetch.version import (
    HEAD_BYTES,
    VideoVersion,
    file_version,
    stored_version,
    video_versions,
    with_versions,
)


def test_a_touched_or_copied_file_is_the_same_and_a_replaced_one_is_not(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"a" * (HEAD_BYTES + 5))
    before = file_version(str(path))
    assert before.num_bytes == HEAD_BYTES + 5
    assert before.version == f"mtime:{path.stat().st_mtime_ns // 10**9}.{path.stat().st_mtime_ns % 10**9:09d}"
    os.utime(path, (1, 1))
    touched = file_version(str(path), before)
    assert (touched.version, touched.digest) == ("mtime:1.000000000", before.digest)
    assert not touched.differs(before)
    copy = shutil.copy(path, tmp_path / "copy.mp4")
    assert not file_version(copy).differs(before)
    path.write_bytes(b"b" * (HEAD_BYTES + 5))  # the same size
    assert file_version(str(path), before).differs(before)
    path.write_bytes(b"a" * (HEAD_BYTES + 6))  # the same head
    assert file_version(str(path), before).differs(before)


def test_heads_of_unchanged_files_are_not_read_again(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"a")
    known = VideoVersion(1, file_version(str(path)).version, "from before")
    assert file_version(str(path), known) == known


def test_versions_of_stores():
    assert stored_version({"size": 5, "ETag": '"abc"', "LastModified": "x"}) == VideoVersion(5, 'etag:"abc"')
    modified = {"size": 5, "Last-Modified": "Thu, 01 Jan 1970 00:01:00 GMT"}
    assert stored_version(modified) == VideoVersion(5, "mtime:60.000000000")
    assert stored_version({"size": None, "Last-Modified": "no date"}) == VideoVersion()
    assert stored_version({"size": 5}) == VideoVersion(5)


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (VideoVersion(5), VideoVersion(5), False),
        (VideoVersion(5), VideoVersion(6), True),
        (VideoVersion(5, "etag:a"), VideoVersion(5, "etag:b"), True),
        (VideoVersion(5, "mtime:1.0"), VideoVersion(5, "mtime:2.0"), True),
        (VideoVersion(5, "mtime:1.0", "d"), VideoVersion(5, "mtime:2.0", "d"), False),
        (VideoVersion(5, "mtime:1.0", "d"), VideoVersion(5, "etag:a"), False),  # moved into a store
        (VideoVersion(), VideoVersion(5, "etag:a"), False),
    ],
)
def test_what_differs(one, other, differ):
    assert one.differs(other) == other.differs(one) == differ


def test_many_at_once_and_missing_ones(tmp_path):
    for number in range(20):
        (tmp_path / f"v{number}.mp4").write_bytes(bytes([number]))
    uris = [f"{tmp_path}/v{number}.mp4" for number in range(20)]
    gone = [f"{tmp_path}/gone.mp4", "nowhere://x.mp4", "a\0b", "http://127.0.0.1:1/a.mp4"]
    found = video_versions([*uris, *gone])
    assert [found[uri].num_bytes for uri in uris] == [1] * 20
    assert len({found[uri].digest for uri in uris}) == 20
    assert {found[uri] for uri in gone} == {VideoVersion()}
    clips = with_versions([make_clip(0, video_uri=uris[3]), make_clip(1, video_uri=gone[0])])
    assert [VideoVersion.of_clip(clip) for clip in clips] == [found[uris[3]], VideoVersion()]


def test_a_version_in_words():
    assert VideoVersion(5, "mtime:60.000000001").text() == "of 5 bytes, modified 1970-01-01 00:01:00 UTC"
    assert VideoVersion(5, 'etag:"a"').text() == 'of 5 bytes, ETag "a"'
    assert VideoVersion().text() == "of unknown size"
