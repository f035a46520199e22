"""Which videos are held out: whole ones, by a hash of their name, and at least one where there are two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from handloom.windows.spec import VIDEO_OF, WindowSpec


def split_position(key: str, seed: int) -> float:
    """Where a video stands between 0 and 1: below the held-out share it is held out, whatever else is in the table."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def held_out_videos(videos: Collection[str], seed: int, share: float) -> frozenset[str]:
    """The videos that are held out, of all that are long enough for a window.

    They are those whose `split_position` lies below the share. Neither side is empty where there are two videos, unless
    the share is 0: of videos that all stand above it the lowest is held out, of videos that all stand below it the
    highest is not. So, as a table grows, a video that was trained on is held out later in two cases only: it was alone,
    or all videos stood below the share.
    """
    place = {video: (split_position(video, seed), video) for video in videos}
    held_out = {video for video, (position, _) in place.items() if position < share}
    if not held_out and share > 0 and len(place) > 1:
        held_out.add(min(place, key=place.__getitem__))
    elif held_out and len(held_out) == len(place):
        held_out.remove(max(place, key=place.__getitem__))
    return frozenset(held_out)


def held_out_rows(
    found: pa.Table, spec: WindowSpec, robots: Collection[str], long_enough: Callable[[], pa.Table]
) -> NDArray[np.bool_]:
    """(R,) whether each row's video is held out. Clips of people and of robots are split apart from each other.

    The answer is of the whole table, whatever filter found the rows: with another filter a video stays where it is.

    Args:
        found: rows that have windows, with the columns of `VIDEO_OF` at least.
        robots: names of the datasets whose clips are of robots.
        long_enough: reads these columns of all rows of the table that are as long as a window; asked only where the
            hash puts all videos found on one side.
    """
    of_robots_ = of_robots(found, spec, robots)
    names = _videos(found, spec)
    held_out: set[str] = set()
    for kind in np.unique(of_robots_):
        videos = _distinct(names, of_robots_ == kind)
        chosen = _by_hash(videos, spec)
        if len(chosen) in (0, len(videos)) and spec.held_out_share > 0:
            return held_out_of(found, spec, robots, long_enough())
        held_out |= chosen
    return _marked(names, held_out)


def held_out_of(rows: pa.Table, spec: WindowSpec, robots: Collection[str], long_enough: pa.Table) -> NDArray[np.bool_]:
    """(R,) as `held_out_rows`, of any rows; videos that are shorter than a window go by the hash alone."""
    of_robots_, names = of_robots(rows, spec, robots), _videos(rows, spec)
    held_out: set[str] = set()
    for kind in np.unique(of_robots_):
        used = _distinct(_videos(long_enough, spec), of_robots(long_enough, spec, robots) == kind)
        held_out |= held_out_videos(used, spec.seed, spec.held_out_share)
        held_out |= _by_hash(_distinct(names, of_robots_ == kind) - used, spec)
    return _marked(names, held_out)


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


def _by_hash(videos: Collection[str], spec: WindowSpec) -> set[str]:
    return {video for video in videos if split_position(video, spec.seed) < spec.held_out_share}


def _distinct(names: pa.DictionaryArray, mask: NDArray[np.bool_]) -> set[str]:
    known = names.dictionary.to_pylist()
    return {known[number] for number in np.unique(names.indices.to_numpy()[mask])}


def _marked(names: pa.DictionaryArray, chosen: Collection[str]) -> NDArray[np.bool_]:
    return np.array([name in chosen for name in names.dictionary.to_pylist()], bool)[names.indices.to_numpy()]


def _videos(rows: pa.Table, spec: WindowSpec) -> pa.DictionaryArray:
    columns = [rows.column(name) for name in VIDEO_OF[spec.table]]
    return pc.binary_join_element_wise(*columns, "/").combine_chunks().dictionary_encode()
