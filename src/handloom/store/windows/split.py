"""Which videos are held out: whole ones, by a hash of their name, and at least one where there are two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from handloom.store.windows.spec import VIDEO_OF, WindowSpec


def split_position(key: str, seed: int) -> float:
    """Where a video stands between 0 and 1: below the held-out share it is held out, whatever else is in the table."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def held_out_videos(videos: Collection[str], seed: int, share: float) -> frozenset[str]:
    """The videos that are held out of a whole table's: those that stand below the share, by `split_position`.

    Neither side is empty where there are two videos, unless the share is 0: of videos that all stand above it the
    lowest is held out, of videos that all stand below it the highest is not. So, as a table grows, a video that was
    trained on is held out later in two cases only: it was alone, or all videos stood below the share.
    """
    place = {video: (split_position(video, seed), video) for video in videos}
    held_out = {video for video, (position, _) in place.items() if position < share}
    if not held_out and share > 0 and len(place) > 1:
        held_out.add(min(place, key=place.__getitem__))
    elif held_out and len(held_out) == len(place):
        held_out.remove(max(place, key=place.__getitem__))
    return frozenset(held_out)


def held_out_rows(
    found: pa.Table, spec: WindowSpec, robots: Collection[str], everything: Callable[[], pa.Table]
) -> NDArray[np.bool_]:
    """(R,) whether each row's video is held out. Clips of people and of robots are split apart from each other.

    The answer is of the whole table, whatever filter found the rows: with another filter a video stays where it is.

    Args:
        found: rows, with the columns of `VIDEO_OF` at least.
        robots: names of the datasets whose clips are of robots.
        everything: reads these columns of all rows; asked only where the hash puts all videos found on one side.
    """
    keys, robot = _videos(found, spec), of_robots(found, spec, robots)
    names, number = keys.dictionary.to_pylist(), keys.indices.to_numpy()
    held_out: set[str] = set()
    for kind in np.unique(robot):
        videos = {names[n] for n in np.unique(number[robot == kind])}
        chosen = {video for video in videos if split_position(video, spec.seed) < spec.held_out_share}
        if len(chosen) in (0, len(videos)) and spec.held_out_share > 0:
            table = everything()
            same = table.filter(pa.array(of_robots(table, spec, robots) == kind))
            chosen = held_out_videos(_videos(same, spec).dictionary.to_pylist(), spec.seed, spec.held_out_share)
        held_out |= chosen
    return np.array([name in held_out for name in names], bool)[number]


def num_videos(found: pa.Table, spec: WindowSpec) -> int:
    """How many videos (of robot episodes: episodes) the rows are of."""
    return len(pc.unique(_videos(found, spec)))


def of_robots(rows: pa.Table, spec: WindowSpec, robots: Collection[str]) -> NDArray[np.bool_]:
    """(R,) whether a row is a clip of a robot."""
    if spec.table != "clips" or not robots:
        return np.zeros(rows.num_rows, bool)
    known = pc.is_in(rows.column("dataset"), value_set=pa.array(list(robots), pa.string()))
    return known.to_numpy()


def why_empty(spec: WindowSpec, videos: int) -> str:
    """Why one side of a split has no windows though the other has some. videos: of those that have windows."""
    what = "video" if spec.table == "clips" else "episode"
    side = "is held out" if spec.split == "held_out" else "is left to train on"
    if spec.held_out_share == 0:
        return f"no {what} is held out: held_out_share is 0"
    if videos < 2:
        return f"no {what} {side}: all windows are of one {what}, which is never cut in two; add a second one"
    return (
        f"none of the {videos} {what}s that have windows {side}, with held_out_share {spec.held_out_share:g} and seed "
        f"{spec.seed}: others of the table are; take another seed or share, a wider filter, or more {what}s"
    )


def _videos(rows: pa.Table, spec: WindowSpec) -> pa.DictionaryArray:
    columns = [rows.column(name) for name in VIDEO_OF[spec.table]]
    return pc.binary_join_element_wise(*columns, "/").combine_chunks().dictionary_encode()
