"""Folders to write into: files and folders that are whole or not there, wherever a process is killed."""

from __future__ import annotations

import hashlib
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from support.dying_filesystem import DyingFilesystem, Killed
from support.s3_server import s3_server

from handloom.errors import ConfigError, StoreError
from handloom.io.atomic import atomic_file, atomic_file_at, atomic_folder, draft_of
from handloom.io.folder import Crc32, Folder, local_folder
from handloom.io.reading import read_bytes
from handloom.io.remote import source_options_from
from handloom.store.location import Location, storage_options_from


@pytest.fixture(scope="module")
def server():
    with s3_server() as env:
        yield env


@pytest.fixture
def bucket(server):
    return storage_options_from(server)


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder.parse(tmp_path / "a folder" / "out")
    return Folder.parse(f"s3://bucket/{tmp_path.name}", request.getfixturevalue("bucket"))


def test_what_is_written_is_read(folder):
    folder.write("deep/er/a.txt", b"one")
    folder.write("deep/er/a.txt", b"two")
    folder.write_json("b.json", {"ä": [1]})
    assert folder.names() == ["b.json", "deep"]
    assert folder.names("deep/er") == ["a.txt"]
    assert folder.read("deep/er/a.txt") == b"two"
    assert folder.sub("deep").read("er/a.txt") == b"two"
    assert folder.read_json("b.json") == {"ä": [1]}
    assert folder.read("deep") is folder.read("none") is folder.read_json("deep/er/a.txt") is None
    folder.remove_files(["deep", "none"])
    folder.remove_folder("b.json")
    assert folder.names() == ["b.json", "deep"]
    folder.move("b.json", "deep/er/a.txt")
    assert folder.read_json("deep/er/a.txt") == {"ä": [1]}
    folder.remove("deep")
    folder.remove("none")
    assert folder.names() == folder.names("none") == []


@pytest.mark.parametrize("data", [b"abc" * 1000, memoryview(b"abc"), np.arange(5, dtype=np.float32)], ids=type)
def test_a_sink_counts_bytes_and_digests_them(tmp_path, data):
    folder = Folder.parse(tmp_path)
    crc = Crc32()
    with folder.open("a") as whole, folder.open("b", crc) as other:
        for sink in (whole, other):
            assert sink.write(data) == memoryview(data).nbytes
    content = bytes(data)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == content
    assert whole.tell() == whole.num_bytes == len(content)
    assert whole.digest.hexdigest() == hashlib.sha256(content).hexdigest()
    assert crc.hexdigest() == f"{crc.value:08x}"


def test_a_folder_goes_to_other_processes_without_its_connection_and_hides_keys(folder):
    folder.write("a", b"1")
    there = pickle.loads(pickle.dumps(folder))
    assert there == folder
    assert there.read("a") == b"1"
    assert "secret" not in repr(Folder("s3://bucket/x", {"aws_secret_access_key": "secret"}))


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("out", f"file://{tmp_path}/out", Path("out"), f"{tmp_path}/out/"):
        assert Folder.parse(given).path("a") == f"{tmp_path}/out/a"
    assert Folder.parse("s3://bucket/x/", {"aws_region": "r"}).path("a") == "bucket/x/a"
    assert Folder.parse("/").path("a") == "/a"
    with pytest.raises(ConfigError, match="--out is empty"):
        Folder.parse(" ")
    for given in ("s3://", "s3:///"):
        with pytest.raises(ConfigError, match="names no bucket"):
            Folder.parse(given)
    assert Folder.parse("~no-such-user/x").uri == f"{tmp_path}/~no-such-user/x"  # as a shell takes it
    assert Location.parse("~no-such-user/x").uri == f"{tmp_path}/~no-such-user/x"
    with pytest.raises(ConfigError, match="cannot use 'nowhere://x'") as caught:
        Folder.parse("nowhere://x").create()
    assert "s3://bucket/folder" in caught.value.hint


def test_a_place_that_refuses_says_so(tmp_path, bucket):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="is a file, expected a folder"):
        Folder.parse(tmp_path / "file").check_writable()
    with pytest.raises(StoreError, match="it is a file, expected a folder"):
        Folder.parse(tmp_path / "file").write("a", b"")
    with pytest.raises(StoreError, match="cannot write"):
        Folder.parse(tmp_path / "file" / "out").check_writable()
    with pytest.raises(StoreError, match=r"cannot write .* in 's3://absent/run'") as caught:
        Folder.parse("s3://absent/run", bucket).check_writable()
    assert "AWS_ENDPOINT_URL" in caught.value.hint
    Folder.parse("s3://bucket/run", bucket).check_writable()


def test_a_folder_of_this_machine_is_made_or_refused_before_anything_is_computed(tmp_path):
    local_folder(tmp_path / "new" / "ö x", "--out")
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "ö x"]
    (tmp_path / "file").write_text("in the way")
    for place, told in (("file", "File exists"), ("file/x", "Not a directory")):
        with pytest.raises(ConfigError, match=f"--out .*{place} is no folder that can be written: {told}"):
            local_folder(tmp_path / place, "--out")
    for uri in ("s3://bucket/run", f"file://{tmp_path}"):
        with pytest.raises(ConfigError, match=r"--video .*: this command writes into a folder of this machine"):
            local_folder(Path(uri), "--video")


def write_as_torch_does(folder: Folder) -> None:
    """What goes wrong in writing comes out as an error of the writer's own."""
    with folder.open("a") as sink:
        try:
            for _ in range(100):
                sink.write(bytes(100))
        except StoreError as error:
            raise RuntimeError("unexpected pos 64 vs 0") from error


def test_the_storages_error_is_reported_not_what_a_writer_makes_of_it(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write a in .*(too large|space)"):
            write_as_torch_does(Folder.parse(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(folder: Folder, name: str, content: bytes) -> None:
    with atomic_folder(folder, name) as place:
        place.write("a", content)
        place.write("deep/b", content)


def test_a_folder_is_whole_or_not_there_wherever_the_process_is_killed(tmp_path):
    count = DyingFilesystem(1000)
    fill(Folder(str(tmp_path / "count"), opened=count), "x", b"new")
    assert count.num_changes > 8
    outcomes = []
    for end in range(count.num_changes + 1):
        place = str(tmp_path / f"{end}")
        try:
            fill(Folder(place, opened=DyingFilesystem(end)), "x", b"new")
        except Killed:
            assert end < count.num_changes
        names = [name for name in Folder(place).names() if not name.startswith(".")]
        found = {name: Folder(f"{place}/x").read(name) for name in ("a", "deep/b")} if names else {}
        assert found in ({}, {"a": b"new", "deep/b": b"new"}), f"killed at change {end}"
        outcomes.append(bool(found))
    assert outcomes == sorted(outcomes)
    assert outcomes[-1]


def test_a_file_is_whole_or_not_there_wherever_the_process_is_killed(tmp_path):
    Folder.parse(tmp_path).write("a", b"old")
    for end in range(4):
        with pytest.raises(Killed):
            Folder(str(tmp_path), opened=DyingFilesystem(end)).write("a", b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    Folder(str(tmp_path), opened=DyingFilesystem(4)).write("a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_what_fails_leaves_nothing(folder, tmp_path):
    def failing() -> None:
        with atomic_folder(folder, "x") as place:
            place.write("a", b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert folder.names() == []
    fill(folder, "x", b"old")
    fill(folder, "x", b"new")
    assert folder.names("x") == ["a", "deep"]
    assert folder.read("x/deep/b") == b"new"


@pytest.mark.parametrize("writer", [draft_of, atomic_file])
def test_a_local_file_takes_its_place_when_it_is_whole(tmp_path, writer):
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(ValueError, match="broken"), writer(path) as draft:  # noqa: PT012
        draft.write_text("half")
        raise ValueError("broken")
    assert [found.name for found in tmp_path.iterdir()] == ["a.png"]
    assert path.read_text() == "old"
    with writer(path) as draft:
        assert (draft.parent, draft.suffix) == (path.parent, ".png")
        draft.write_text("new")
    assert path.read_text() == "new"
    with pytest.raises((StoreError, OSError), match=r"a\.png"), writer(path / "b.png") as draft:  # below a file
        draft.write_text("")


def test_folders_on_the_way_to_a_file_are_made(tmp_path):
    with atomic_file(tmp_path / "new" / "one" / "a.png") as draft:
        draft.write_text("new")
    assert (tmp_path / "new" / "one" / "a.png").read_text() == "new"


def test_a_file_at_an_address_takes_its_place_when_it_is_whole(server, tmp_path):
    options = source_options_from(server)
    for uri in (f"file://{tmp_path}/new/a.mp4", f"s3://bucket/{tmp_path.name}/new/a.mp4"):
        with atomic_file_at(uri, options) as draft:
            assert draft.suffix == ".mp4"
            draft.write_bytes(b"whole")
        with pytest.raises(KeyboardInterrupt), atomic_file_at(uri, options) as draft:  # noqa: PT012
            draft.write_bytes(b"half")
            raise KeyboardInterrupt
        assert read_bytes(uri, "video", options) == b"whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]
