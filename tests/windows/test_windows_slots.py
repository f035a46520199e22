"""Shared memory that is written again and again, and images that are decoded once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handloom.errors import ConfigError, StoreError
from handloom.windows.rows.images import ImageCache

torch = pytest.importorskip("torch")
from handloom.windows.loading.collate import collate, merge  # noqa: E402
from handloom.windows.loading.slots import SlotReader, Writer  # noqa: E402


def part(number: int, size: int) -> list[dict]:
    rng = np.random.default_rng(number)
    return [
        {
            "id": f"{number}-{i}",
            "at": rng.uniform(),
            "points": rng.normal(size=(size, 3)).astype(np.float32),
            "seen": rng.uniform(size=size) < 0.5,
            "near": np.arange(size, dtype=np.int64),
        }
        for i in range(2)
    ]


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12), lost=st.integers(0, 12))
def test_a_part_is_what_was_collated_until_three_more_are_written(sizes, lost):
    writer, reader = Writer(3), SlotReader()
    waiting = []
    for number, size in enumerate(sizes):
        if number == lost:  # an epoch that was given up: what was sent is lost, and the pieces with it
            waiting, reader = [], SlotReader()
            writer.invalidate()
        writer.begin()
        waiting.append((number, size, writer.written(collate(part(number, size), writer.empty))))
        if len(waiting) == 3:
            check(reader, *waiting.pop(0))
    for left in waiting:
        check(reader, *left)


def check(reader, number, size, sent):
    found, expected = reader.values(sent), collate(part(number, size))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)
        else:
            assert found[name] == value


def test_pieces_are_sent_once_and_parts_are_small():
    writer = Writer(2)
    sent = []
    for number in range(8):
        writer.begin()
        sent.append(writer.written(collate(part(number, 100), writer.empty)))
    assert [one.memory is None for one in sent] == [True, False, False, True, True, True, True, True]
    assert len(pickle.dumps(sent[-1])) < 1000


def test_neighbours_are_one_tensor_for_all_windows():
    samples = [{"n": i, "neighbours": part(2 * i, 4)} for i in range(3)]
    found = collate(samples)["neighbours"]
    assert found["points"].shape == (3, 2, 4, 3)
    np.testing.assert_array_equal(found["points"][2, 1], samples[2]["neighbours"][1]["points"])
    assert found["id"] == [["0-0", "0-1"], ["2-0", "2-1"], ["4-0", "4-1"]]
    samples[1]["neighbours"].pop()
    with pytest.raises(ConfigError, match=r"\[1, 2\] neighbours"):
        collate(samples)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_parts_are_put_together_in_their_places(kind):
    values = (torch.arange(10)[:, None] * torch.ones(3)).to(kind)
    places = [np.array([0, 3, 4]), np.array([1, 2, 5, 6, 7, 8, 9])]
    merged = merge([(place, {"v": values[torch.from_numpy(place)], "n": place.tolist()}) for place in places])
    assert merged["v"].dtype == kind
    assert torch.equal(merged["v"], values)
    assert merged["n"] == list(range(10))


def image(value: int, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_images_of_the_row_used_longest_ago_are_dropped():
    cache = ImageCache(5 * 48)
    for place in range(3):
        for frame in range(2):
            cache.keep(cache.reel((place, None), 9), frame, image(place), "here")
    assert [cache.reel((place, None), 9).num_done for place in (0, 1, 2)] == [0, 2, 2]
    large = cache.reel((7, "wrist"), 20)
    for frame in range(20):  # larger than all: it stays while it is looked at
        cache.keep(large, frame, image(frame), "here")
    assert large.num_done == 20
    assert (large.images[:, 0, 0, 0] == np.arange(20)).all()
    assert cache.reel((1, None), 9).num_done == 0
    cache.keep(cache.reel((1, None), 9), 0, image(1), "here")
    assert cache._num_bytes == 48  # the large one has gone, and counts no more
    cache.keep(large, 0, image(0), "here")
    assert cache._num_bytes == 48


def test_images_of_one_row_have_one_size():
    cache = ImageCache(1000)
    reel = cache.reel((0, None), 3)
    cache.keep(reel, 0, image(0), "a, frame 0")
    with pytest.raises(StoreError, match=r"a, frame 1: the row has images of \(4, 4, 3\) and of \(5, 5, 3\) px"):
        cache.keep(reel, 1, image(0, 5), "a, frame 1")
