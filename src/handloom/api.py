"""`Database`, the object that users open: tables, single rows, search, and windows for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from handloom.store.tables import Tables

if TYPE_CHECKING:
    from handloom.store.search.results import Hits
    from handloom.windows.api import Windows


class Database(Tables):
    """A database: its tables, search and windows. Every read takes the newest version unless one is given."""

    def row(self, clip_id: str, columns: Sequence[str] | None = None, version: int | None = None) -> pa.Table:
        """The row of a clip (`handloom.schemas.tables.row.row_arrays` turns it into arrays).

        Raises StoreError, with the nearest ids, if the clip has no row.
        """
        from handloom.store.search.scope import row_of

        return row_of(self, clip_id, columns, version)

    def search(self, **query: Any) -> Hits:
        """Clips like a text, clip, video, image, trajectory, or several: see `handloom.retrieval.search.search`."""
        from handloom.retrieval.search import search

        return search(self, **query)

    def judgements(self, where: str | None = None) -> pa.Table:
        """What people think of clips (docs/tables.md), newest first; where: SQL on the columns of `judgements`."""
        from handloom.store.clips.judgements import read_judgements

        return read_judgements(self, where)

    def judge(self, clip_id: str, verdict: str | None, reason: str | None = None, **more: Any) -> None:
        """Keep what you think of a clip, in place of an earlier judgement of it.

        Args:
            verdict: `good` or `bad`; None: the judgement is taken back.
            reason: a word or two by which clips can be chosen: `judged('bad', 'blurred')`.
            more: `note` (a longer text), `who`, `clips_version` (that was looked at).

        Raises:
            ConfigError: another verdict, or a text that is too long.
            StoreError: the clip has no row, or the table cannot be written.
        """
        from handloom.store.clips.judgements import Judgement, judge, take_back

        if verdict is None:
            take_back(self, [clip_id])
        else:
            judge(self, [Judgement(clip_id, verdict, reason, **more)])

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
        stage_keys: Mapping[str, str] | str | None = None,
        clips: Hits | Sequence[str] | None = None,
        optional: Sequence[str] = (),
    ) -> Windows:
        """Windows for training: a map-style torch dataset of dicts of numpy arrays, with loaders (docs/windows.md).

        Args:
            past: steps up to and including now.
            future: steps after now; S = past + future.
            fields: columns, or groups of them: images, hands, hands_world, tracks, tracks_world. Of robot episodes also
                state, action, and `images:CAMERA`.
            rate_hz: steps per second; a step's frame is the nearest one within half a step, if there is one. None: a
                step is a frame of the table.
            stride: steps between one window's now and the next one's.
            pad: also windows that reach beyond their clip; their steps outside of it are not valid.
            where: SQL filter on the rows; `judged('good')` in it: those that people found good by now.
            split: `train` or `held_out`: whole videos, by a hash of their id, which does not depend on other videos; at
                least one on each side if the table has two.
            held_out_share: of the videos.
            seed: of that hash.
            version: of the table; None: the newest (then in `windows.version`).
            table: `clips` or `robot_episodes`.
            embodiment: which rows of `clips`: `human`, `robot` or `all`.
            image_size: side of the images, or (height, width), in pixels; None: as stored.
            transform: sample -> sample; picklable.
            neighbours: `handloom.windows.neighbours.Neighbours(k, by)`, or a mapping from ids to ids. Samples then have
                `neighbours`, a list of samples of those clips, each spread evenly over its clip.
            memory: `handloom.windows.dataset.Memory`.
            track_grid: `nearest`: the grid that shows most in the window. `first`: only that of the clip's first frame,
                as in ARM4R.
            stage_keys: only rows with these keys, `{"hands_2d": "5f0c9d1ab2e34477"}`; `current`: those of the last run,
                for all stages whose columns are read. None: rows of any key; several keys are logged as a warning.
            clips: hits of a search, or ids: windows of these clips alone. Of hits with matching times, windows within
                these times. Without `version`, that of the hits.
            optional: of `fields`: clips of which these are not known have windows, too, with NaN (None).

        A sample: `clip_id` (or `episode_id`), `now_s`, `valid` (S,) bool, `frame_s` (S,), every per-frame column
        (S, ...) with NaN (False) where unknown or outside the clip, `images` (S, h, w, 3) uint8 with `images_valid`
        (S,), and the per-clip columns.

        Raises:
            ConfigError: an unknown column, a column that was not computed, or no window; the message says why.
            StoreError: no such table or version.
        """
        from handloom.windows.api import windows_of

        asked = {name: value for name, value in locals().items() if name not in ("self", "windows_of")}
        return windows_of(self, **asked)
