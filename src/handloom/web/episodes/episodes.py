"""Episodes of robots and of people's hands, with their images."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.schemas.hand_topology import KEYPOINT_NAMES
from handloom.schemas.tables.robot import PEOPLE, TABLE, episode_arrays
from handloom.store.columns import absent_fields, with_nulls
from handloom.store.filters import quoted
from handloom.store.location import lance_errors
from handloom.store.tables import NoVersionError
from handloom.train.parts.robot_state import form_of, thing_name
from handloom.web.answers import (
    FileAnswer,
    NotThere,
    asked_id,
    asked_version,
    blocking,
    bytes_answer,
    json_answer,
    packed,
    whole_number,
)  # fmt: skip
from handloom.web.clips.media import file_name, size_of_first, smaller
from handloom.web.gallery import Gallery, Kept

IMAGES = "frame_jpeg"
SIGNALS = ("frame_s", "state", "action")
LISTED = ("episode_id", "dataset", "episode_index", "robot_type", "task", "split", "fps", "num_frames", "cameras")
FACETS = ("kind", "dataset", "task", "robot_type", "success")
MOST_VALUES, MOST_LISTED, MOST_FRAMES = 50, 200, 64
IMAGES_BYTES, THUMBS_BYTES = 256 << 20, 64 << 20


@dataclass(frozen=True)
class Listed:
    """All episodes of one version of `robot_episodes`, by the columns that lists show. table: None if there is none.
    stored: the number of each one's row in the table."""

    table: Any
    rows: pa.Table
    stored: list[int]

    @cached_property
    def places(self) -> dict[str, int]:
        return {episode_id: place for place, episode_id in enumerate(self.rows.column("episode_id").to_pylist())}

    def key(self, episode_id: str) -> tuple[int | None, int]:
        """What its row is known by. Raises NotThere."""
        return self.version, self.stored[self.place(episode_id)]

    @property
    def version(self) -> int | None:
        return None if self.table is None else self.table.version

    def place(self, episode_id: str) -> int:
        """The number of its row. Raises NotThere."""
        if episode_id not in self.places:
            there = f"version {self.version} of {TABLE}" if self.table is not None else "this database, which has none"
            raise NotThere(f"there is no episode {episode_id[:200]!r} in {there}", "/episodes lists all")
        return self.places[episode_id]


class Episodes:
    """The episodes of a gallery. Images are read of one row at a time: an episode may have up to 1 GiB of them."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._read_lock = threading.Lock()
        self._listed: Listed | None = None
        self._older: tuple[Any, Listed] | None = None
        self._images: Kept[pa.Array] = gallery.keeping(IMAGES_BYTES, lambda images: images.nbytes)
        self._last: tuple[Any, pa.Array | None] = (None, None)  # also where it is larger than all that is kept
        self._thumbs: Kept[bytes] = gallery.keeping(THUMBS_BYTES, len)

    def listed(self, version: int | None = None) -> Listed:
        """Episodes of a version; None: the newest. Of an older one those that the newest has, too: what was removed
        must not be seen. Raises NotThere for a version that is gone."""
        newest = self._gallery.short("episodes", self._read_newest)
        if version is None or version == newest.version:
            return newest
        kept, key = self._older, (version, newest.version)
        if kept is None or kept[0] != key:
            try:
                older = self._read_list(self._gallery.db.table(TABLE, version), newest)
            except NoVersionError as error:
                raise NotThere(error.problem, error.hint) from error
            kept = self._older = (key, older)
        return kept[1]

    def _read_newest(self) -> Listed:
        table = self._gallery.db.table(TABLE)
        kept = self._listed
        if kept is None or kept.table is None or table is None or kept.version != table.version:
            kept = self._listed = self._read_list(table)
            self._last = (None, None)
        return kept

    def _read_list(self, table: Any, newest: Listed | None = None) -> Listed:
        if table is None:
            return Listed(None, pa.table({name: pa.array([], pa.string()) for name in (*LISTED, *FACETS)}), [])
        with lance_errors(f"read table {TABLE}", table.uri):
            rows = table.to_table(columns=[name for name in (*LISTED, "success") if name in table.schema.names])
        rows = with_nulls(rows, absent_fields(TABLE, table.schema, ["success"]), (*LISTED, "success"))
        done = pc.if_else(rows.column("success"), "yes", "no")  # null stays null
        rows = rows.set_column(rows.column_names.index("success"), "success", done)
        kinds = pc.if_else(pc.is_in(rows.column("robot_type"), pa.array(PEOPLE)), "people", "robots")
        rows, stored = rows.append_column("kind", kinds), list(range(rows.num_rows))
        if newest is not None:
            stored = [n for n, one in enumerate(rows.column("episode_id").to_pylist()) if one in newest.places]
            rows = rows.take(pa.array(stored, pa.int64()))
        return Listed(table, rows, stored)

    def page(self, chosen: dict[str, list[str]], offset: int, limit: int, version: int | None) -> dict[str, Any]:
        """Part of `/api/episodes`: episodes that have one of the chosen values of each facet, "" being unknown."""
        listed = self.listed(version)
        passed = {name: passes(listed.rows.column(name), chosen[name]) for name in FACETS if chosen.get(name)}
        rows = listed.rows.filter(every(passed)) if passed else listed.rows
        facets = {}
        for name in FACETS:
            others, column = {one: passed[one] for one in passed if one != name}, listed.rows.column(name)
            facets[name] = counted(column.filter(every(others)) if others else column)
        shown = rows.slice(offset, limit).to_pylist()
        return {
            "version": listed.version,
            "total": rows.num_rows,
            "offset": offset,
            "episodes": [{**one, "duration_s": duration_s(one)} for one in shown],
            "facets": facets,
        }

    def told(self, episode_id: str, version: int | None) -> dict[str, Any]:
        """All of `/api/episode` but the numbers of its steps."""
        listed = self.listed(version)
        place = listed.place(episode_id)
        columns = [name for name in listed.table.schema.names if name not in (*SIGNALS, IMAGES)]
        facts = self._row(listed, episode_id, columns).to_pylist()[0]
        around = listed.rows.column("episode_id").slice(max(place - 1, 0), 3 if place else 2).to_pylist()
        clips = self._gallery.catalogue().places
        images = self.images(episode_id, listed)
        return {
            "success": None,  # of tables before 0.4
            **facts,
            "version": listed.version,
            "kind": "people" if facts["robot_type"] in PEOPLE else "robots",
            "duration_s": duration_s(facts),
            "clips": [clip_id if clip_id in clips else None for clip_id in facts["clip_ids"]],
            "images": None if images is None else [size_of_first(camera) for camera in images],
            "places": places_of(facts["state_names"], facts["state_units"]),
            "hands": hands_of(facts["state_names"], facts["state_units"]),
            "before": around[0] if place else None,
            "after": around[-1] if around[-1] != episode_id else None,
            "python": (
                "import handloom\n"
                "from handloom.schemas.tables.robot import episode_arrays\n"
                "from handloom.store.episodes import read_episodes\n\n"
                f"db = handloom.open({self._gallery.db.uri!r})\n"
                f"rows = read_episodes(db, where={f'episode_id = {quoted(episode_id)}'!r}, version={listed.version})\n"
                "episode = episode_arrays(rows)\n"
            ),
        }

    def arrays(self, episode_id: str, version: int | None) -> bytes:
        """`frame_s` (T), `state` (T, S) and `action` (T, A), packed; those that the episode has."""
        row = episode_arrays(self._row(self.listed(version), episode_id, list(SIGNALS)))
        return packed({name: row[name] for name in SIGNALS if row[name] is not None})

    def _row(self, listed: Listed, episode_id: str, columns: list[str] | None) -> pa.Table:
        place = listed.place(episode_id)
        with lance_errors(f"read table {TABLE}", listed.table.uri):
            return listed.table.take([listed.stored[place]], columns=columns)

    def images(self, episode_id: str, listed: Listed) -> pa.Array | None:
        """(C, T) JPEGs; None where the episode keeps none."""
        key = listed.key(episode_id)
        with self._read_lock:
            if self._last[0] == key:
                return self._last[1]
            found = self._images.get(key)
            if found is None:
                cell = self._row(listed, episode_id, [IMAGES]).column(IMAGES)[0]
                found = self._images.put(key, cell.values) if cell.is_valid else None
            self._last = (key, found)
            return found

    def frames(self, episode_id: str, camera: str, first: int, num: int, version: int | None) -> dict[int, bytes]:
        """Images `first` to `first + num` of a camera by their number, without those that are missing."""
        listed = self.listed(version)
        cameras = listed.rows.column("cameras")[listed.place(episode_id)].as_py()
        if camera not in cameras:
            raise NotThere(
                f"episode {episode_id} has no camera {camera[:200]!r}", f"it has {', '.join(cameras) or 'none'}"
            )
        images = self.images(episode_id, listed)
        if images is None:
            raise NotThere(f"episode {episode_id} keeps no images", "`handloom ingest lerobot --pictures` keeps them")
        one_camera = images[cameras.index(camera)]
        found = one_camera.values.slice(first, num) if one_camera.is_valid else ()
        return {first + n: one.as_py() for n, one in enumerate(found) if one.is_valid}

    def thumb(self, episode_id: str, version: int | None, height: int) -> bytes:
        """The first image of the first camera that has one; else the thumbnail of its clip. Raises NotThere."""
        listed = self.listed(version)
        key = (*listed.key(episode_id), height)
        found = self._thumbs.get(key)
        if found is not None:
            return found
        images = self.images(episode_id, listed)
        first = next((one.as_py() for camera in images or () for one in camera.values or () if one.is_valid), None)
        if first is None:
            raise NotThere(f"episode {episode_id} keeps no images", "`handloom ingest lerobot --pictures` keeps them")
        return self._thumbs.put(key, smaller(first, height, f"the first image of episode {episode_id}"))

    def parquet(self, episode_id: str, version: int | None) -> Path:
        """The whole row as a Parquet file, to be removed."""
        row = self._row(self.listed(version), episode_id, None)
        path = self._gallery.folder / f"{secrets.token_hex(8)}.parquet"
        pq.write_table(row, path)
        return path


def duration_s(episode: dict[str, Any]) -> float | None:
    """Seconds that the steps take at the episode's rate."""
    return episode["num_frames"] / episode["fps"] if episode["fps"] else None


def passes(column: pa.ChunkedArray, values: Sequence[str]) -> pa.ChunkedArray:
    """Rows with one of the values; "" is unknown."""
    found = pc.is_in(column, pa.array([value for value in values if value], pa.string()))
    return pc.or_(found, pc.is_null(column)) if "" in values else found


def every(masks: dict[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    found, *others = masks.values()
    for mask in others:
        found = pc.and_(found, mask)
    return found


def counted(column: pa.ChunkedArray) -> list[list[Any]]:
    """`[value, count]` of the most frequent values; null is unknown."""
    pairs = [(one["values"], one["counts"]) for one in pc.value_counts(column).to_pylist()]
    pairs.sort(key=lambda pair: (-pair[1], pair[0] is None, pair[0] or ""))
    return [list(pair) for pair in pairs[:MOST_VALUES]]


def places_of(names: Sequence[str] | None, units: Sequence[str | None] | None) -> list[dict[str, Any]]:
    """Which numbers are places: the end effector's first, then those of things (`NAME.x`, `.y`, `.z`), but for
    keypoints of whole hands (`hands_of`).

    `[{name, index: [x, y, z], unit, gripper: index or null}]`; unit: null where the dataset does not say.
    """
    if not names:
        return []
    form = form_of(names)
    used = set(form.xyz) if form else set()
    used |= {number for hand in hands_of(names, units) if hand for number in hand["index"]}
    stems: dict[str, dict[str, int]] = {}
    for number, name in enumerate(names):
        stem, _, axis = thing_name(name).rpartition(".")
        if axis in ("x", "y", "z") and number not in used:
            stems.setdefault(stem or "place", {}).setdefault(axis, number)
    found = [("end effector", list(form.xyz), form.gripper)] if form else []
    found += [(stem, [axes[axis] for axis in "xyz"], None) for stem, axes in stems.items() if len(axes) == 3]
    return [
        {"name": name, "index": index, "gripper": gripper, "unit": units[index[0]] if units else None}
        for name, index, gripper in found
    ]


def hands_of(names: Sequence[str] | None, units: Sequence[str | None] | None) -> list[dict[str, Any] | None]:
    """Which numbers are the 21 keypoints of the left and of the right hand, as `export lerobot` names them.

    `{index: [63], unit}` each, keypoint after keypoint, x, y, z; None for a hand that is not whole.
    """
    places = {thing_name(name): number for number, name in enumerate(names or ())}
    found: list[dict[str, Any] | None] = []
    for hand in ("left", "right"):
        index = [places.get(f"{hand}.{point}.{axis}") for point in KEYPOINT_NAMES for axis in "xyz"]
        whole = None not in index
        found.append({"index": index, "unit": units[index[0] or 0] if units else None} if whole else None)
    return found


def routes(gallery: Gallery) -> list[Route]:
    """`/api/episodes`, `/api/episode`, their images and rows."""
    episodes = Episodes(gallery)

    async def page(request: Request) -> Response:
        asked = request.query_params
        offset = whole_number(asked.get("offset"), "offset", 0, 0, 1 << 31)
        limit = whole_number(asked.get("limit"), "limit", 60, 1, MOST_LISTED)
        chosen = {name: asked.getlist(name) for name in FACETS}
        return json_answer(request, await blocking(episodes.page, chosen, offset, limit, asked_version(request)))

    async def episode(request: Request) -> Response:
        return json_answer(request, await blocking(episodes.told, asked_id(request), asked_version(request)))

    async def arrays(request: Request) -> Response:
        data = await blocking(episodes.arrays, asked_id(request), asked_version(request))
        return bytes_answer(request, data, "application/octet-stream")

    async def thumb(request: Request) -> Response:
        height = whole_number(request.query_params.get("h"), "h", 160, 16, 512)
        data = await blocking(episodes.thumb, asked_id(request), asked_version(request), height)
        return bytes_answer(request, data, "image/jpeg")

    async def frames_of(request: Request, first: int, num: int) -> dict[int, bytes]:
        camera = request.query_params.get("camera", "")
        return await blocking(episodes.frames, asked_id(request), camera, first, num, asked_version(request))

    async def frame(request: Request) -> Response:
        number = whole_number(request.query_params.get("n"), "n", 0, 0, 1 << 31)
        found = await frames_of(request, number, 1)
        if number not in found:
            raise NotThere(f"the camera has no image {number}", "it is missing, or after the episode's end")
        return bytes_answer(request, found[number], "image/jpeg")

    async def frames(request: Request) -> Response:
        first = whole_number(request.query_params.get("from"), "from", 0, 0, 1 << 31)
        num = whole_number(request.query_params.get("num"), "num", 32, 1, MOST_FRAMES)
        found = await frames_of(request, first, num)
        data = packed({str(number): jpeg for number, jpeg in found.items()})
        return bytes_answer(request, data, "application/octet-stream")

    async def row(request: Request) -> Response:
        episode_id = asked_id(request)
        path = await blocking(episodes.parquet, episode_id, asked_version(request), limit_s=None)
        gone = BackgroundTask(path.unlink, missing_ok=True)
        kind = "application/vnd.apache.parquet"
        return FileAnswer(path, media_type=kind, filename=file_name(episode_id, ".parquet"), background=gone)

    return [
        Route("/api/episodes", page),
        Route("/api/episode", episode),
        Route("/api/episode_arrays", arrays),
        Route("/media/episode_thumb", thumb),
        Route("/media/episode_frame", frame),
        Route("/media/episode_frames", frames),
        Route("/download/episode", row),
    ]
