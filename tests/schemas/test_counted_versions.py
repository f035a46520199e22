"""The part of a version that counts: patch releases of listed packages need no new database, other changes do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handloom.schemas.settings import Settings
from handloom.schemas.version_policy import COUNTED, counted, differing_versions

NUMBERS = st.lists(st.integers(0, 99), min_size=3, max_size=3)
BY_NUMBERS = sorted(name for name, one in COUNTED.items() if one.numbers == 2)


def dotted(numbers: list[int], build: str = "") -> str:
    return ".".join(map(str, numbers)) + build


def key(versions: dict[str, str]) -> str:
    return Settings().run_key({"decode": "1", **versions})


@given(st.sampled_from(BY_NUMBERS), NUMBERS, st.integers(0, 99), st.sampled_from(["", "+cpu", "+cu126", ".post1"]))
def test_a_patch_release_keeps_the_key(name, numbers, patch, build):
    other = dotted([*numbers[:2], patch], build)
    assert key({name: dotted(numbers)}) == key({name: other})
    assert differing_versions({name: dotted(numbers)}, {name: other}) == []


@given(st.sampled_from(BY_NUMBERS), NUMBERS, st.integers(0, 1))
def test_a_larger_change_makes_another_key(name, numbers, at):
    one, other = dotted(numbers), dotted([number + (place == at) for place, number in enumerate(numbers)])
    assert key({name: one}) != key({name: other})
    assert differing_versions({name: one}, {name: other}) == [(name, one, other)]


@given(st.text("0123456789abcdef", min_size=1), st.text("0123456789abcdef", min_size=1))
def test_a_digest_counts_whole(one, two):
    for name in ("depth_model", "cotracker", "depth_folder", "mediapipe"):
        assert (key({name: one}) == key({name: two})) == (one == two)


@pytest.mark.parametrize("text", ["2.14.0.dev20261101+cpu", "2.14.0a0", "2.14.0rc1"])
def test_a_development_build_counts_whole(text):
    assert key({"torch": text}) != key({"torch": "2.14.0"})
    assert counted({"torch": text}) == {"torch": text}


def test_the_build_of_handloom_is_not_of_the_key_and_a_missing_package_is():
    assert key({"handloom": "0.4.0, sources 12"}) == key({"handloom": "0.4.1, sources 34"})
    assert key({"handloom": "0.3.0, sources 12"}) == key({"handloom": "0.4.0.dev0, sources 34"})
    assert key({"torch": "2.13.0"}) != key({})
    assert differing_versions({"torch": "2.13.0"}, {}) == [("torch", "2.13.0", None)]


def test_every_entry_says_why():
    assert all(len(one.why) > 20 for one in COUNTED.values())


def test_the_page_has_the_counting_part_of_each_package():
    page = (Path(__file__).parents[2] / "docs" / "reproducibility.md").read_text()
    lines = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    said = {name: cells[2] for cells in lines for name in re.findall(r"`([\w-]+)`", cells[1])}
    numbers = {0: "not its version", 2: "the first two numbers", 3: "the first three numbers"}
    assert all(numbers[one.numbers] in said[name] for name, one in COUNTED.items())
