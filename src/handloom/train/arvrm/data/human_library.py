"""The human clips of stage 2: frames of whole clips for retrieval, keypoints for the map, windows for replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.store.filters import both
from handloom.train.arvrm.data.hand_sample import KEYPOINTS, HandSample
from handloom.train.arvrm.data.hands import hand_windows
from handloom.train.arvrm.data.retrieval import RetrievalInput
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.hand_clips import WITH_HANDS
from handloom.windows.rows.images import ImageCache
from handloom.windows.sample import spread_window

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.windows.api import Windows

ONE_PER_CLIP = 1 << 20  # a stride that no clip reaches: one window of each


def human_windows(db: Database, settings: ArvrmSettings, with_images: bool, whole: bool) -> Windows:
    """Windows over all human clips that stage 2 may retrieve, of the table's `human_version` or the newest.

    whole: one window per clip, to be spread over the clip; False: the windows that stage 1 trains on.
    """
    changed: dict[str, Any] = {"where": both(settings.human_where, WITH_HANDS)}
    if whole:
        changed |= {"future": settings.steps - 1, "rate_hz": None, "stride": ONE_PER_CLIP, "pad": True}
    return hand_windows(db, settings, settings.human_version, None, with_images, **changed)


def read_inputs(windows: Windows, ids: set[str], image_name: str, text_name: str) -> Iterator[RetrievalInput]:
    """The clips or episodes of these ids, one after the other, each with T frames spread evenly over it."""
    cache = ImageCache(1 << 24)
    for place, id_ in enumerate(windows.clip_ids):
        if id_ in ids:
            row = windows.read_rows([place])[0]
            sample = spread_window(row, windows.spec, cache)
            yield RetrievalInput(id_, sample[text_name], sample.get(image_name), sample.get(f"{image_name}_valid"))


def spread_keypoints(windows: Windows, ids: Sequence[str]) -> NDArray[np.float32]:
    """(N, T, 2, 21, 3) image-space keypoints of T frames spread evenly over each clip."""
    place = {id_: number for number, id_ in enumerate(windows.clip_ids)}
    out = np.full((len(ids), windows.spec.num_steps, *KEYPOINTS), np.nan, np.float32)
    cache, made = ImageCache(1), HandSample()
    for number, id_ in enumerate(ids):
        row = windows.read_rows([place[id_]])[0]
        out[number] = made(spread_window(row, windows.spec, cache))["keypoints"]
    return out


@dataclass
class Replay:
    """Samples of stage 1 from retrieved clips. windows: of all human clips, with the transform of stage 1."""

    windows: Windows

    def __post_init__(self) -> None:
        self._place = {id_: number for number, id_ in enumerate(self.windows.clip_ids)}

    @property
    def has_goals(self) -> bool:
        """Whether its samples tell where hands go."""
        return getattr(self.windows.transform, "steps", None) is not None

    def sample(self, clip_ids: Sequence[str], number: int) -> dict[str, Any] | None:
        """A window of one of the clips; `number` chooses both. None where no clip is as long as a window."""
        usable = [id_ for id_ in clip_ids if id_ in self._place]
        if not usable:
            return None
        place = self._place[usable[number % len(usable)]]
        first, last = self.windows.plan.starts[place : place + 2]
        return self.windows[int(first + (number // len(usable)) % (last - first))]
