"""Loaders: every window once, the same for any number of processes, and after resuming."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.window_tables import clip_row, write_clips

from handloom.errors import ConfigError
from handloom.windows.order import Order
from handloom.windows.plan import Plan

torch = pytest.importorskip("torch")
LENGTHS = (12, 5, 3, 20, 9, 2, 7, 11)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("loader"), [clip_row(n, length) for n, length in enumerate(LENGTHS)])


@pytest.fixture(scope="module")
def windows(db):
    return db.windows(2, 1, ["hands", "images", "narration"], image_size=8)


def names(batch) -> list[tuple[str, float]]:
    return list(zip(batch["clip_id"], batch["now_s"].tolist(), strict=True))


def plan_of(sizes: list[int]) -> Plan:
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Plan(np.arange(len(sizes)), None, np.array(sizes, np.int32), starts, {})


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch_size=st.integers(1, 7),
    block_steps=st.integers(1, 30),
    world_size=st.integers(1, 4),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_ranks_share_windows_evenly_and_none_comes_twice(
    sizes, batch_size, block_steps, world_size, drop_last, shuffle, epoch
):
    plan = plan_of(sizes)
    ranks = []
    for rank in range(world_size):
        order = Order(plan, batch_size, block_steps, shuffle, 7, epoch, rank, world_size, drop_last)
        batches = list(order.batches())
        assert len(batches) == order.num_batches
        for numbers, blocks in batches:
            clips = {int(clip) for block in blocks for clip in block.clips}
            assert set(plan.locate(numbers)[0].tolist()) <= clips
        for start in range(len(batches) + 1):
            rest = [numbers.tolist() for numbers, _ in order.batches(start)]
            assert rest == [numbers.tolist() for numbers, _ in batches[start:]]
        ranks.append([int(number) for numbers, _ in batches for number in numbers])
    lengths = [len(rank) for rank in ranks]
    seen = Counter(number for rank in ranks for number in rank)
    total = sum(sizes)
    assert set(seen.values()) <= {1}
    if drop_last:
        assert len(set(lengths)) == 1
        assert total - len(seen) < batch_size * world_size + world_size
    else:
        assert set(seen) == set(range(total))
        assert max(lengths) - min(lengths) <= 1


def test_shuffling_differs_by_epoch_and_seed_and_mixes_clips():
    plan = plan_of([10] * 20)
    ways = [Order(plan, 10, 40, True, *what) for what in ((0, 0), (0, 1), (1, 0))]
    orders = [np.concatenate([numbers for numbers, _ in way.batches()]) for way in ways]
    assert not any((a == b).all() for a, b in itertools.pairwise(orders))
    first = next(iter(Order(plan, 10, 40, True, 0, 0).batches()))[0]
    assert len(set((first // 10).tolist())) > 1


@pytest.mark.parametrize("num_workers", [0, 2, *(pytest.param(num, marks=pytest.mark.slow) for num in (1, 3))])
def test_batches_hold_the_samples_for_any_number_of_readers(windows, num_workers):
    loader = windows.loader(4, seed=3, num_workers=num_workers)
    loader._block_steps = 30  # several blocks
    plain = windows.loader(4, seed=3)
    plain._block_steps = 30
    by_name = {(s["clip_id"], s["now_s"]): s for s in windows}
    batches = list(loader)
    assert [names(b) for b in batches] == [names(b) for b in plain]
    assert len(batches) == len(windows) // 4
    for batch in batches:
        for i, name in enumerate(names(batch)):
            sample = by_name[name]
            np.testing.assert_array_equal(batch["hand_keypoints_px"][i].numpy(), sample["hand_keypoints_px"])
            np.testing.assert_array_equal(batch["images"][i].numpy(), sample["images"])
            assert batch["narration"][i] == sample["narration"]
    assert loader.epoch == 1
    assert [names(b) for b in loader] != [names(b) for b in batches]


# A process takes a second to start, most of it torch.
READERS = [(0, 0, 0), (0, 0, 1), (0, 2, 5), (0, 0, 10), (2, 1, 3), pytest.param(2, 3, 3, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("num_workers", "others", "after"), READERS)
def test_a_loader_resumes_at_any_batch_with_any_number_of_readers(db, windows, num_workers, others, after):
    whole = windows.loader(5, seed=1)
    epochs = [[names(b) for b in whole], [names(b) for b in whole]]
    stopped = windows.loader(5, seed=1, num_workers=num_workers)
    iterator = iter(stopped)
    for _ in range(after):
        next(iterator)
    state = json.loads(json.dumps(stopped.state_dict()))
    iterator.close()
    other = db.windows(2, 1, ["hands", "images", "narration"], image_size=8).loader(5, seed=1, num_workers=others)
    other.load_state_dict(state)
    other.set_epoch(0 if after < len(whole) else 1)
    rest = [names(b) for b in other]
    assert rest == (epochs[0][after:] if after < len(whole) else epochs[1])
    other.set_epoch(1)
    assert [names(b) for b in other] == epochs[1]


def test_the_state_of_another_job_is_refused(db, windows):
    state = windows.loader(4).state_dict()
    for other in (
        windows.loader(5),
        windows.loader(4, seed=1),
        windows.loader(4, world_size=2),
        db.windows(3, 1, ["hands"]).loader(4),
    ):
        with pytest.raises(ConfigError, match="of another job"):
            other.load_state_dict(state)
    with pytest.raises(ConfigError, match="ranks from 0"):
        windows.loader(4, rank=2, world_size=2)


def test_the_last_batch_may_be_small(windows):
    batches = list(windows.loader(7, shuffle=False, drop_last=False))
    assert sorted(name for b in batches for name in names(b)) == sorted((s["clip_id"], s["now_s"]) for s in windows)
    assert len(batches[-1]["clip_id"]) == len(windows) % 7


def test_shapes_that_differ_are_named(tmp_path):
    rows = [clip_row(0, 3), clip_row(1, 3, jpeg=False)]
    loader = write_clips(tmp_path, rows).windows(1, 0, ["images"]).loader(6, drop_last=False)
    with pytest.raises(ConfigError, match=r"images has several shapes .* none"):
        next(iter(loader))


def test_plain_torch_loaders_take_windows(windows):
    from torch.utils.data import DataLoader

    found = [s["clip_id"] + str(s["now_s"]) for s in windows.stream(seed=2)]
    assert sorted(found) == sorted(s["clip_id"] + str(s["now_s"]) for s in windows)
    shares = [[s["now_s"] for s in windows.stream(rank=rank, world_size=2)] for rank in range(2)]
    assert len(shares[0]) == len(shares[1]) == len(windows) // 2
    map_style = DataLoader(windows, batch_size=4, collate_fn=list)
    assert [s["clip_id"] for batch in map_style for s in batch] == [s["clip_id"] for s in windows]


def spoilt(sample):
    """A transform that cannot take clip 3's later windows."""
    if sample["clip_id"].startswith("d:v3") and sample["now_s"] > 1.5:
        raise ConfigError(f"{sample['clip_id']} is spoilt", "leave it out")
    return {name: sample[name] for name in ("clip_id", "now_s", "narration")}


def until_error(loader):
    """The batches before the error, and the error."""
    batches = []
    try:
        for batch in loader:
            batches.append(batch)
    except ConfigError as error:
        return batches, (error.problem, error.hint)
    return batches, None


def test_processes_send_errors_and_samples_unchanged(db):
    windows = db.windows(2, 1, ["narration"], transform=spoilt)
    options = {"shuffle": False, "collate": tuple}
    batches, error = until_error(windows.loader(3, **options))
    assert error == ("d:v3:0-2000 is spoilt", "leave it out")
    assert len(batches) > 4
    assert until_error(windows.loader(3, num_workers=2, **options)) == (batches, error)
