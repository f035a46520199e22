"""The split into training and held-out videos: whole videos, by a hash of their name, at least one on each side.

Videos that share near-duplicates (`duplicate_group`) count as one, under the smallest of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from handloom.schemas.tables.duplicates import COLUMN as GROUP
from handloom.store.duplicates.groups import components
from handloom.windows.spec import VIDEO_OF, WindowSpec

Joined = Mapping[str, str]
"""`{name of a video: name that it is split by}`, of videos that share near-duplicates with others."""


def split_position(key: str, seed: int) -> float:
    """A hash of a video's name as a number from 0 to 1: below the held-out share the video is held out."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def held_out_videos(videos: Collection[str], seed: int, share: float) -> frozenset[str]:
    """The videos that are held out, of all that are long enough for a window.

    These are the videos whose `split_position` is below the share. With two or more videos neither side is empty unless
    the share is 0: if all positions are above the share the lowest is held out, if all are below it the highest is not.
    So, as a table grows, a video that was trained on is held out later in two cases only: it was the only video, or all
    videos were below the share.
    """
    place = {video: (split_position(video, seed), video) for video in videos}
    held_out = {video for video, (position, _) in place.items() if position < share}
    if not held_out and share > 0 and len(place) > 1:
        held_out.add(min(place, key=place.__getitem__))
    elif held_out and len(held_out) == len(place):
        held_out.remove(max(place, key=place.__getitem__))
    return frozenset(held_out)


def held_out_rows(
    found: pa.Table,
    spec: WindowSpec,
    robots: Collection[str],
    long_enough: Callable[[], pa.Table],
    joined: Joined,
) -> NDArray[np.bool_]:
    """(R,) whether each row's video is held out. Clips of people and of robots are split separately.

    The split is that of the whole table: a video is on the same side with any filter.

    Args:
        found: rows that have windows, with the columns of `VIDEO_OF` at least.
        robots: names of the datasets whose clips are of robots.
        long_enough: reads these columns of all rows of the table that are as long as a window; called only if the hash
            puts all videos of `found` on one side.
        joined: of the whole table (`joined_videos`).
    """
    of_robots_ = of_robots(found, spec, robots)
    names = _videos(found, spec, joined)
    held_out: set[str] = set()
    for kind in np.unique(of_robots_):
        videos = _distinct(names, of_robots_ == kind)
        chosen = _by_hash(videos, spec)
        if len(chosen) in (0, len(videos)) and spec.held_out_share > 0:
            return held_out_of(found, spec, robots, long_enough(), joined)
        held_out |= chosen
    return _marked(names, held_out)


def held_out_of(
    rows: pa.Table, spec: WindowSpec, robots: Collection[str], long_enough: pa.Table, joined: Joined
) -> NDArray[np.bool_]:
    """(R,) as `held_out_rows`, for any rows; videos shorter than a window are split by the hash alone."""
    of_robots_, names = of_robots(rows, spec, robots), _videos(rows, spec, joined)
    held_out: set[str] = set()
    for kind in np.unique(of_robots_):
        used = _distinct(_videos(long_enough, spec, joined), of_robots(long_enough, spec, robots) == kind)
        held_out |= held_out_videos(used, spec.seed, spec.held_out_share)
        held_out |= _by_hash(_distinct(names, of_robots_ == kind) - used, spec)
    return _marked(names, held_out)


def joined_videos(table: lance.LanceDataset, spec: WindowSpec) -> Joined:
    """The videos of a version of `clips` that share a `duplicate_group`, directly or through others."""
    if spec.table != "clips" or GROUP not in table.schema.names:
        return {}
    rows = table.to_table(columns=[*VIDEO_OF["clips"], GROUP], filter=f"{GROUP} IS NOT NULL")
    videos = _videos(rows, spec)
    names = np.array(videos.dictionary.to_pylist(), dtype=str)
    order, place = np.unique(names, return_inverse=True)
    groups = rows.column(GROUP).combine_chunks().dictionary_encode()
    of_row = place[videos.indices.to_numpy()] if len(names) else np.empty(0, np.int64)
    pairs = np.stack([groups.indices.to_numpy() + len(order), of_row], axis=1).astype(np.int64)
    first = components(len(order) + len(groups.dictionary), pairs)[: len(order)]
    return {str(order[n]): str(order[one]) for n, one in enumerate(first.tolist()) if n != one}


def num_videos(found: pa.Table, spec: WindowSpec, joined: Joined) -> int:
    """Number of videos (for robot episodes: of episodes) of the rows; those that are split as one count once."""
    return len(set(_videos(found, spec, joined).dictionary.to_pylist()))


def of_robots(rows: pa.Table, spec: WindowSpec, robots: Collection[str]) -> NDArray[np.bool_]:
    """(R,) whether a row is a clip of a robot."""
    if spec.table != "clips" or not robots:
        return np.zeros(rows.num_rows, bool)
    known = pc.is_in(rows.column("dataset"), value_set=pa.array(list(robots), pa.string()))
    return known.to_numpy()


def why_empty(spec: WindowSpec, videos: int) -> str:
    """Why one side of a split has no windows although the other has some. videos: number of videos with windows."""
    what = "video" if spec.table == "clips" else "episode"
    side = "is held out" if spec.split == "held_out" else "is left to train on"
    if spec.held_out_share == 0:
        return f"no {what} is held out: held_out_share is 0"
    if videos < 2:
        one = f"one {what} (or copies of it)"
        return f"no {what} {side}: all windows are of {one}, which is never cut in two; add a second one"
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


def _videos(rows: pa.Table, spec: WindowSpec, joined: Joined | None = None) -> pa.DictionaryArray:
    """(R,) the name of each row's video; of `joined` ones that which they are split by."""
    columns = [rows.column(name) for name in VIDEO_OF[spec.table]]
    names = pc.binary_join_element_wise(*columns, "/").combine_chunks().dictionary_encode()
    if not joined:
        return names
    split_by = pa.array([joined.get(name, name) for name in names.dictionary.to_pylist()], pa.string())
    return pa.DictionaryArray.from_arrays(names.indices, split_by)
