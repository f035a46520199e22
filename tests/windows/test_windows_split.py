"""The split: a held-out video if there are two videos, and never one that is also trained on, with any filter."""

from __future__ import annotations

import random

import lance
import numpy as np
import pyarrow as pa
import pytest
from support.window_tables import clip_row, write_clips, write_episodes

from handloom.errors import ConfigError
from handloom.windows.neighbours import Neighbours
from handloom.windows.split import held_out_videos, split_position

SHARES = (0.05, 0.2, 0.5, 0.9)


@pytest.mark.parametrize("share", SHARES)
def test_neither_side_is_empty_where_there_are_two_videos(share):
    for seed in range(200):
        for number in (1, 2, 3, 6):
            videos = [f"d/{seed}-{n}" for n in range(number)]
            held_out = held_out_videos(videos, seed, share)
            assert held_out == held_out_videos(videos[::-1], seed, share)
            assert held_out <= set(videos)
            assert (0 if number == 1 else 1) <= len(held_out) < number
            by_hash = {video for video in videos if split_position(video, seed) < share}
            if 0 < len(by_hash) < number:
                assert held_out == by_hash
        assert held_out_videos(videos, seed, 0.0) == frozenset()


def test_a_video_that_trained_is_not_held_out_later():
    """As a table grows, except for a single video, and for videos that were all below the share."""
    rng = random.Random(0)
    for seed in range(300):
        share, videos = rng.choice(SHARES[:3]), []
        for number in range(12):
            before = set(videos) - held_out_videos(videos, seed, share)
            all_below = all(split_position(video, seed) < share for video in videos)
            videos.append(f"d/{rng.random()}")
            held_out = held_out_videos(videos, seed, share)
            if number > 1 and not all_below:
                assert not before & held_out


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Three clips of people and three of robots (dataset r), each of a video of its own; none stands below 0.2."""
    path = tmp_path_factory.mktemp("mixed")
    names = [name for name in map(str, range(99)) if min(split_position(f"{d}/{name}", 0) for d in "dr") > 0.2][:3]
    rows = [clip_row(n, 4 + n, video=name) for n, name in enumerate(names)]
    robots = [clip_row(3 + n, 4 + n, video=name) for n, name in enumerate(names)]
    rows += [_of_dataset(row, "r") for row in robots]
    write_episodes(path, [3])
    lance.write_dataset(pa.Table.from_batches(rows), str(path / "clips.lance"))
    return write_clips(path, [clip_row(9, 2, video=names[0])], mode="append")


def _of_dataset(row, dataset):
    at = row.schema.get_field_index("dataset")
    return row.set_column(at, row.schema.field(at), pa.array([dataset]))


FILTERS = (None, "num_frames > 4", "num_frames < 5", "dataset = 'd'", "hand_left")


def test_a_video_lies_on_one_side_whatever_the_filter(mixed):
    for embodiment, videos in (("human", 3), ("robot", 3), ("all", 6)):
        sides = {}
        for split in ("train", "held_out"):
            for where in FILTERS:
                try:
                    windows = mixed.windows(1, 1, split=split, where=where, embodiment=embodiment)
                except ConfigError:
                    continue  # no clip of this embodiment passes
                clips = mixed.clips(["clip_id", "dataset", "video_id"]).to_pylist()
                of = {clip["clip_id"]: (clip["dataset"], clip["video_id"]) for clip in clips}
                sides.setdefault(split, set()).update(of[clip_id] for clip_id in windows.clip_ids)
        assert not sides["train"] & sides["held_out"]
        assert len(sides["train"] | sides["held_out"]) == videos
        assert len(sides["held_out"]) == (2 if embodiment == "all" else 1)  # one of people, one of robots


def test_videos_that_are_too_short_do_not_count(tmp_path):
    """The README's windows on the demo's clips: the one video below the share was shorter than a window."""
    below = next(name for name in map(str, range(99)) if split_position(f"d/{name}", 0) < 0.2)
    above = [name for name in map(str, range(99)) if split_position(f"d/{name}", 0) > 0.3][:2]
    rows = [clip_row(0, 3, video=below), *(clip_row(n, 9, video=name) for n, name in enumerate(above, 1))]
    db = write_clips(tmp_path, rows)
    short, long_ = ({s: db.windows(1, n, split=s).clip_ids for s in ("train", "held_out")} for n in (1, 6))
    assert [len(ids) for ids in short.values()] == [2, 1]
    assert short["held_out"] == ["d:v0:0-300"]
    assert [len(ids) for ids in long_.values()] == [1, 1]
    near = db.windows(1, 6, ["hands"], split="held_out", neighbours=Neighbours(1))[0]["neighbours"]
    assert [sample["clip_id"] for sample in near] == long_["train"]


def test_people_are_the_default_and_what_is_left_out_is_counted(mixed):
    people, robots, both = (mixed.windows(1, 1, embodiment=name) for name in ("human", "robot", "all"))
    assert (people.key, people.counts["other_embodiment"]) == (mixed.windows(1, 1).key, 3)
    assert {name.split(":")[1] for name in people.clip_ids} == {"v0", "v1", "v2", "v9"}
    assert {name.split(":")[1] for name in robots.clip_ids} == {"v3", "v4", "v5"}
    assert (robots.counts["other_embodiment"], both.counts["other_embodiment"], len(both.clip_ids)) == (4, 0, 7)
    assert len({people.key, robots.key, both.key}) == 3
    with pytest.raises(ConfigError, match="windows of people are asked for") as caught:
        mixed.windows(1, 1, where="dataset = 'r'")
    assert "embodiment='robot' takes them" in caught.value.hint
    with pytest.raises(ConfigError, match="embodiment 'people'"):
        mixed.windows(1, 1, embodiment="people")


def test_an_empty_side_says_why(mixed, tmp_path):
    one = write_clips(tmp_path, [clip_row(0, 6, video="v"), clip_row(1, 6, video="v")])
    assert "all windows are of one video" in one.windows(1, 1, split="held_out").why_empty()
    assert one.windows(1, 1, split="train").why_empty() == ""
    assert "held_out_share is 0" in mixed.windows(1, 1, split="held_out", held_out_share=0.0).why_empty()
    held_out = mixed.windows(1, 1, split="held_out").clip_ids
    others = ", ".join(f"'{name}'" for name in mixed.windows(1, 1).clip_ids if name not in held_out)
    empty = mixed.windows(1, 1, split="held_out", where=f"clip_id IN ({others})")
    assert (len(empty), "none of the 2 videos" in empty.why_empty()) == (0, True), empty.why_empty()


def with_groups(db, of):
    """The table with a `duplicate_group` for each row, by its video's name; None: not computed."""
    table = db.table("clips")
    videos = table.to_table(columns=["clip_id", "video_id"])
    groups = [of(name) for name in videos.column("video_id").to_pylist()]
    new = videos.select(["clip_id"]).append_column("duplicate_group", pa.array(groups, pa.string()))
    table.merge(new, "clip_id")
    return db


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_are_never_on_both_sides(tmp_path, seed):
    """Videos that share a group, through others as well; what has no copies stays where it was."""
    rng = np.random.default_rng(seed)
    names = [f"n{number}" for number in rng.permutation(24)]
    chains = [set(names[:4]), set(names[4:6]), set(names[6:13])]
    db = write_clips(tmp_path, [clip_row(number, 4, video=name) for number, name in enumerate(names)])
    asked = {"held_out_share": 0.4, "seed": seed}

    def sides():
        of = dict(zip(*(db.clips().column(name).to_pylist() for name in ("clip_id", "video_id")), strict=True))
        return [{of[id_] for id_ in db.windows(1, 1, split=s, **asked).clip_ids} for s in ("train", "held_out")]

    before = sides()
    with_groups(db, lambda name: next((min(chain) for chain in chains if name in chain), name))
    train, held_out = sides()
    assert not train & held_out
    assert train | held_out == set(names)
    for chain in chains:
        assert chain <= train or chain <= held_out
    alone = set(names) - set().union(*chains)
    assert [side & alone for side in (train, held_out)] == [side & alone for side in before]
    assert any(chain & before[0] and chain & before[1] for chain in chains)  # they leaked
    neighbours = db.windows(1, 1, split="held_out", neighbours=Neighbours(3), **asked)[0]["neighbours"]
    ids = dict(zip(*(db.clips().column(name).to_pylist() for name in ("clip_id", "video_id")), strict=True))
    assert {ids[sample["clip_id"]] for sample in neighbours} <= train


def test_videos_that_share_clips_with_a_third_are_on_one_side(tmp_path):
    """a and c have no clip in common; each has one with b."""
    rows = [clip_row(n, 4, video=video) for n, video in enumerate(["a", "b", "b", "c", *map(str, range(8))])]
    db = write_clips(tmp_path, rows)
    table = db.table("clips")
    ids = table.to_table(columns=["clip_id"]).column(0).to_pylist()
    groups = [ids[0], ids[0], ids[2], ids[2], None, *ids[5:]]
    table.merge(pa.table({"clip_id": ids, "duplicate_group": groups}), "clip_id")
    for seed in range(6):
        held_out = set(db.windows(1, 1, split="held_out", seed=seed, held_out_share=0.5).clip_ids)
        assert len(held_out & set(ids[:4])) in (0, 4)


def test_one_video_and_its_copy_are_not_two(tmp_path):
    db = write_clips(tmp_path, [clip_row(0, 6, video="v"), clip_row(1, 6, video="w")])
    assert len(db.windows(1, 1, split="held_out"))
    with_groups(db, lambda _: "one")
    empty = db.windows(1, 1, split="held_out")
    assert (len(empty), "(or copies of it)" in empty.why_empty()) == (0, True), empty.why_empty()


def test_episodes_are_held_out_one_by_one(tmp_path):
    db = write_episodes(tmp_path, [2, 2])
    asked = {"fields": ["state"], "table": "robot_episodes"}
    sides = [db.windows(1, 1, split=split, **asked).clip_ids for split in ("train", "held_out")]
    assert sorted(sides) == [["r:0"], ["r:1"]]
