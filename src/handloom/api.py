"""What a user opens: a database's tables, one row of them, search, and windows for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from handloom.store.sql import forms_of, in_list
from handloom.store.tables import Tables

if TYPE_CHECKING:
    from handloom.store.search.search import Hits
    from handloom.windows.api import Windows


class Database(Tables):
    """One open database. It holds no handles: every read sees the newest version unless a version is asked for."""

    def row(self, clip_id: str, columns: Sequence[str] | None = None, version: int | None = None) -> pa.Table:
        """The one row of a clip (`handloom.schemas.tables.row.row_arrays` turns it into arrays).

        Raises StoreError, with the nearest ids, if the clip has no row.
        """
        for form in forms_of(clip_id):
            rows = self.clips(columns, in_list("clip_id", [form]), version)
            if rows.num_rows:
                return rows
        from handloom.store.search.search import unknown_clip

        raise unknown_clip(self, clip_id)

    def search(self, **query: Any) -> Hits:
        """Similar clips, best first: see `handloom.store.search.search.search`."""
        from handloom.store.search.search import search

        return search(self, **query)

    def windows(
        self,
        past: int = 1,
        future: int = 0,
        fields: Sequence[str] = ("hands",),
        *,
        rate_hz: float | None = None,
        stride: int = 1,
        pad: bool = False,
        where: str | None = None,
        split: str | None = None,
        held_out_share: float = 0.2,
        seed: int = 0,
        version: int | None = None,
        table: str = "clips",
        embodiment: str = "human",
        image_size: int | tuple[int, int] | None = None,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        neighbours: Any = None,
        memory: Any = None,
        track_grid: str = "nearest",
    ) -> Windows:
        """Windows for training: a map-style torch dataset of dicts of numpy arrays, with loaders (docs/windows.md).

        Args:
            past, future: steps up to and including now, and after it; S = past + future.
            fields: columns, or groups of them: images, hands, hands_world, tracks, tracks_world. Of robot episodes also
                state, action, and `images:CAMERA`.
            rate_hz: steps per second; None takes the table's own frames. Otherwise a step's frame is the nearest one
                within half a step, or there is none.
            stride: steps between one window's now and the next one's.
            pad: also windows that reach beyond their clip, whose steps outside are not valid.
            where: SQL filter on the rows.
            split: `train` or `held_out`: whole videos, by a hash of their id that other videos do not change; at least
                one on either side where the table has two.
            held_out_share: of the videos.
            seed: of that hash.
            version: of the table; None is the newest, and `windows.version` says which.
            table: `clips` or `robot_episodes`.
            embodiment: of `clips`: those of people (`human`), of robots (`robot`), or `all`.
            image_size: pictures' side or (height, width); None leaves them as stored.
            transform: sample -> sample; picklable.
            neighbours: `handloom.windows.neighbours.Neighbours(k, by)`, or a mapping of ids to ids: the sample
                gets `neighbours`, a list of samples spread evenly over those clips.
            memory: `handloom.windows.dataset.Memory`.
            track_grid: `nearest` takes the grid that shows most in the window; `first` ARM4R's, of the clip's first
                frame, alone.

        A sample: `clip_id` (or `episode_id`), `now_s`, `valid` (S,) bool, `frame_s` (S,), every per-frame column
        (S, ...) with NaN (False) where unknown or outside, `images` (S, h, w, 3) uint8 with `images_valid` (S,), and
        the per-clip columns.

        Raises:
            ConfigError: an unknown column, a column that was not computed, or no window: it says what took them.
            StoreError: no such table or version.
        """
        from handloom.windows.api import windows_of

        asked = {name: value for name, value in locals().items() if name not in ("self", "windows_of")}
        return windows_of(self, **asked)
