"""The order of a hand's keypoints, and that it is written down once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import handloom
from handloom.schemas import hand_topology as hand
from handloom.schemas.values import NUM_KEYPOINTS

PACKAGE = Path(handloom.__file__).parent
GROUPS = {
    *(*hand.FINGERS, *hand.CHAINS, hand.BASES, hand.KNUCKLES, hand.TIPS, hand.MIDDLE_JOINTS),
    *(hand.PALM, hand.PALM_TRIANGLE, hand.PALM_DETECTION),
}


def written(node: ast.AST) -> tuple:
    """The numbers of a tuple or list that is written out, and of those within it."""
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(written(part) for part in node.elts)
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def copies(source: str) -> Iterator[int]:
    """Lines with a group of keypoints, or with three bones and more."""
    for node in ast.walk(ast.parse(source)):
        found = written(node)
        if isinstance(found, tuple) and (found in GROUPS or (len(found) > 2 and {*found} <= {*hand.BONES})):
            yield node.lineno


def test_every_keypoint_is_of_one_finger_or_the_wrist():
    assert [hand.WRIST, *(keypoint for finger in hand.FINGERS for keypoint in finger)] == list(range(NUM_KEYPOINTS))
    assert len(set(hand.KEYPOINT_NAMES)) == NUM_KEYPOINTS
    assert (hand.KEYPOINT_NAMES[hand.THUMB[0]], hand.KEYPOINT_NAMES[hand.LITTLE[-1]]) == ("thumb_1", "little_4")
    named = {hand.KEYPOINT_NAMES[tip] for tip in hand.TIPS}
    assert named == {f"{finger}_4" for finger in hand.FINGER_NAMES}


def test_bones_join_a_hand():
    parents = {end: start for start, end in hand.FINGER_BONES}
    assert parents.keys() == set(range(1, NUM_KEYPOINTS))
    assert all(start < end for start, end in hand.BONES)
    assert set(hand.PHALANGES) | set(hand.METACARPALS) | {(hand.WRIST, hand.THUMB[0])} == set(hand.FINGER_BONES)
    assert list(hand.KNUCKLE_LINE) == list(pairwise(hand.KNUCKLES))


def test_no_other_module_lists_keypoints():
    home = PACKAGE / "schemas" / "hand_topology.py"
    modules = [path for path in PACKAGE.rglob("*.py") if path != home]
    found = [f"{path.relative_to(PACKAGE)}:{line}" for path in modules for line in copies(path.read_text())]
    assert not found, "take it from schemas.hand_topology"


@pytest.mark.parametrize("text", ["(5, 9, 13, 17)", "[[0, 1, 2, 3, 4]]", "BONES = [(0, 1), (1, 2), (0, 5)]"])
def test_a_copy_is_found(text):
    assert list(copies(text))
    assert not list(copies("(3, 4, 5), [0, 1], [(0, 1), (5, 6)], (5, 9, 13)"))
