"""Exports of many files under a process that is killed at any change of the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.dying_filesystem import DyingFilesystem, Killed

from handloom.errors import StoreError
from handloom.export.new_export import INDEX, MARK, new_export
from handloom.io.folder import Folder


def write(folder: Folder, content: bytes, num_files: int, with_claim: bool) -> None:
    with new_export(folder, overwrite=True) as export:
        if with_claim:
            export.claim("frames")
        for number in range(num_files):
            export.write(f"data/{number}", content)
            if with_claim:
                with export.open_inside(f"frames/{number}/a.jpg") as sink:
                    sink.write(content)
        export.write("meta/info.json", content)
        export.finish({"content": content.decode(), "written": export.files()}, last=["meta/info.json"])


def files_of(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def check_index(place: Path) -> None:
    """Every file of the index is there, as it was written with the index."""
    found, index = files_of(place), json.loads((place / INDEX).read_text())
    names = {name for name in found for listed in index["files"] if name == listed or name.startswith("frames/")}
    assert {name for name in index["files"] if not name.endswith("/")} <= names
    assert {found[name].decode() for name in names} == {index["content"]}


@pytest.mark.parametrize("with_claim", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_killed_export_is_whole_or_marked_and_the_next_one_replaces_it(tmp_path, with_claim, earlier):
    seen = set()
    for end in range(1000):
        place = tmp_path / f"{end}"
        if earlier:
            write(Folder.parse(place), b"old", 2, with_claim)
        try:
            write(Folder(str(place), opened=DyingFilesystem(end)), b"new", 1, with_claim)
            killed = False
        except Killed:
            killed = True
        if (place / INDEX).exists():
            check_index(place)
            seen.add(json.loads((place / INDEX).read_text())["content"])
        else:
            marked = (place / MARK).exists()
            assert marked or not [name for name in files_of(place) if not name.startswith(".")]
            seen.add("marked" if marked else "nothing")
        write(Folder.parse(place), b"next", 1, with_claim)
        check_index(place)
        claimed = ["frames/0/a.jpg"] if with_claim else []
        assert sorted(files_of(place)) == sorted([INDEX, "data/0", "meta/info.json", *claimed]), f"killed at {end}"
        if not killed:
            break
    assert not killed
    assert seen == ({"old", "marked", "new"} if earlier else {"nothing", "marked", "new"})


@pytest.mark.parametrize("with_claim", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_storage_error_at_any_change_leaves_no_part_of_the_export(tmp_path, with_claim, earlier):
    for end in range(1000):
        place = tmp_path / f"{end}"
        if earlier:
            write(Folder.parse(place), b"old", 2, with_claim)
        old = set(files_of(place))
        try:
            write(Folder(str(place), opened=DyingFilesystem(end, once=True)), b"new", 1, with_claim)
            break
        except StoreError:
            left = files_of(place)
        if INDEX in left:
            check_index(place)
        else:
            assert MARK in left or not left
            assert set(left) <= old | {MARK}
            assert set(left.values()) - {left.get(MARK)} <= {b"old"}
        write(Folder.parse(place), b"next", 1, with_claim)
        check_index(place)
        assert not [name for name in files_of(place) if "unfinished" in name or name.startswith(".")]
    assert 10 < end < 999
