"""One real clip without truth: the metrics of its row, its contact sheet, and the row itself if there is none yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handloom.bench.cpu import CpuClock
from handloom.bench.images import Images
from handloom.bench.metrics.agreement import reversal
from handloom.bench.metrics.footage import (
    COLLAPSE,
    LaterGrid,
    Loss,
    Survival,
    dense_windows,
    largest_loss,
    survival,
)
from handloom.bench.metrics.scene_motion import Floats, scene_homographies
from handloom.draw.frames import frames_from_row
from handloom.draw.sheet import write_contact_sheet
from handloom.models.protocols import PointTracker
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.tables.frame_flags import FrameFlag
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, HandPoints, TrackKind
from handloom.stages.choose import point_tracker
from handloom.stages.extract import Extractor
from handloom.video.container.packets import read_packet_index
from handloom.video.decode.decoder import Header
from handloom.video.decode.frame_store import FrameStore
from handloom.video.grid import clip_range, sample_frames, working_size

SHEET_FRAMES = 8
TRACKS_LOST, CUT = 1 << 17, 1 << 18  # of `frame_flags`
COLUMNS = ("clip_id", "video_id", "start_s", "width", "height", "frame_s", "hand_visible", "hand_keypoints_px",
           "track_kind", "track_points_px", "track_visible", "camera_source", "camera_path_reason", "world_from_camera",
           "world_scale", "frame_flags", "frame_jpeg", "regrid_query_frame", "regrid_frame",
           "regrid_visible")  # fmt: skip


@dataclass(frozen=True)
class FootageClip:
    """Metrics of one clip. survival, loss: None without stored frames; cpu_ms: per frame by stage, {} for a row from a
    database; backwards: agreement with the tracks of the clip followed from its end, on request; reject: why there is
    no row."""

    name: str
    video: str
    num_frames: int = 0
    intrinsics: str | None = None
    has_path: bool = False
    scale: str = "none"
    reason: str | None = None
    pose_share: float = 0.0
    survival: Survival | None = None
    loss: Loss | None = None
    loss_flagged: bool = False
    windows: tuple[int, int] = (0, 0)
    visible_at_end: float = float("nan")
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    backwards: Mapping[str, float] | None = None
    reject: str | None = None

    @property
    def collapsed(self) -> bool:
        """Whether more than a third of the visible grid was lost in one step without a reason."""
        return self.loss is not None and self.loss.share > COLLAPSE


def measured(row: Mapping[str, Any], sheets: Path | None, cpu_ms: Mapping[str, float] | None = None) -> FootageClip:
    """The metrics of a row (`row_arrays`; a missing column counts as null). sheets: folder for its contact sheet,
    written if its frames are stored."""
    row = {**dict.fromkeys(COLUMNS), **row}
    start_s = row["start_s"] or 0.0
    name = row["video_id"] + (f"@{start_s:g}" if start_s else "")
    poses, flags = row["world_from_camera"], row["frame_flags"]
    visible, px, hands_px, size = _grid_and_hands(row)
    kept = loss = None
    if row["frame_jpeg"] is not None:
        if sheets is not None:
            write_contact_sheet(frames_from_row(row), row, sheets / f"{_file_name(name)}.png", num_frames=SHEET_FRAMES)
        steps = scene_homographies(_greys(row), hands_px, size)
        dark = np.zeros(len(visible), bool) if flags is None else (flags & (FrameFlag.DARK | CUT)) != 0
        kept = survival(px, visible, steps, hands_px, size)
        loss = largest_loss(px, visible, steps, hands_px, size, dark)
    return FootageClip(
        name,
        row["video_id"],
        len(visible),
        row["camera_source"],
        poses is not None,
        row["world_scale"] or "none",
        row["camera_path_reason"],
        0.0 if poses is None else float(np.isfinite(poses).all(axis=(1, 2)).mean()),
        kept,
        loss,
        loss is not None and loss.frame >= 0 and flags is not None and bool(flags[loss.frame] & TRACKS_LOST),
        dense_windows(row["track_visible"], _later(row)),
        float(visible[-1].mean()),
        dict(cpu_ms or {}),
    )


def _grid_and_hands(row: Mapping[str, Any]) -> tuple[np.ndarray, Floats, Floats, tuple[int, int]]:
    """The first grid's visible (T, G) and places (T, G, 2); hands (T, 2, 21, 2), NaN for none; the image's size."""
    num = len(row["frame_s"])
    grid = row["track_kind"] == TrackKind.GRID
    hands_px = np.full((num, NUM_HANDS, NUM_KEYPOINTS, 2), np.nan)
    if row["hand_keypoints_px"] is not None:
        hands_px = np.where(row["hand_visible"][..., None, None], row["hand_keypoints_px"].astype(float), np.nan)
    return row["track_visible"][:, grid], row["track_points_px"][:, grid], hands_px, (row["width"], row["height"])


def _greys(row: Mapping[str, Any]):
    for data in row["frame_jpeg"]:
        yield cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def _later(row: Mapping[str, Any]) -> list[LaterGrid]:
    """The grids that began after the first; [] if there are none."""
    query, frame, visible = (row[f"regrid_{name}"] for name in ("query_frame", "frame", "visible"))
    if query is None:
        return []
    return [LaterGrid(int(frame[query == start][0]), visible[query == start]) for start in np.unique(query)]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_.@" else "_" for letter in name)


_extractor: Extractor | None = None
_clock: CpuClock | None = None
_tracker: PointTracker | None = None


def begin(backwards: bool = False) -> None:
    """Load the models, once per process. backwards: the footage is also followed from its end."""
    global _extractor, _clock, _tracker
    cv2.setNumThreads(1)
    _clock = CpuClock()
    _extractor = Extractor(Settings(), "bench", on_stage=_clock.begin)
    _tracker = point_tracker(Settings().tracks) if backwards else None


def processed(clip: Clip, sheets: Path | None) -> FootageClip:
    """Run the pipeline on a clip in this process and measure its row.

    Raises:
        ClipError, NotAVideoError, DecodeFailedError, ImageSizeError: the clip has no row.
    """
    row, frames, cpu_ms = row_of(clip)
    found = measured(row, sheets, cpu_ms)
    if _tracker is not None:
        found = replace(found, backwards=_backwards(clip, frames, row))
    frames.store.close()
    return found


def row_of(clip: Clip) -> tuple[dict[str, Any], KeptFrames, dict[str, float]]:
    """A clip's row; its frames, which the caller closes; and CPU milliseconds per frame by stage. Call `begin`
    before."""
    if _extractor is None or _clock is None:
        raise ValueError("call `begin` before: it loads the models")
    settings = Settings()
    packets = read_packet_index(clip.video_uri)
    index = sample_frames(packets.times_s, *clip_range(clip, packets.info), settings.video.sample_hz)
    size = working_size(packets.info.width, packets.info.height, settings.video.short_side_px)
    images = Images(clip.video_uri, packets, index, size)
    frames = KeptFrames(clip, Header(packets.info, images.decoder, packets.times_s[index], size), images)
    _clock.sums.clear()
    row = _extractor.row(frames)
    _clock.end()
    return row_arrays(row), frames, {stage: 1000 * spent / len(index) for stage, spent in _clock.sums.items()}


class KeptFrames:
    """A clip's frames for an `Extractor`, kept in `store` for later."""

    def __init__(self, clip: Clip, header: Header, images: Images) -> None:
        self.clip, self.header, self._images = clip, header, images
        self.store = FrameStore(header.frame_s)

    def chunks(self, begin: Callable[[], object]) -> Iterator[np.ndarray]:
        """As `DecodedClip.chunks`; can be read again."""

        def restart() -> None:
            self.store.clear()
            begin()

        for chunk in self._images.chunks(restart):
            self.store.append(chunk)
            yield chunk


class _FromTheEnd:
    """The frames of a store in reverse order."""

    def __init__(self, store: FrameStore) -> None:
        self._store, self.frame_s = store, store.frame_s[-1] - store.frame_s[::-1]

    def __len__(self) -> int:
        return len(self._store)

    def rgb(self, index: int) -> np.ndarray:
        return self._store.rgb(len(self._store) - 1 - index)

    def grey(self, index: int) -> np.ndarray:
        return self._store.grey(len(self._store) - 1 - index)


def _backwards(clip: Clip, frames: KeptFrames, row: Mapping[str, Any]) -> dict[str, float]:
    """How far the grid agrees with that of the last frame, followed backwards."""
    if _tracker is None:
        raise ValueError("call `begin` with `backwards` before: it loads the tracker")
    shape = (*row["hand_keypoints_px"].shape[:3], 3)
    names = ("hand_visible", "hand_infilled", "hand_confidence", "hand_keypoints_px")
    visible, infilled, confidence, points = (row[name][::-1] for name in names)
    unknown = np.full(shape, np.nan, np.float32)
    hands = HandPoints(visible, infilled, confidence, points, unknown, row["hand_view"])
    back = _tracker.track(clip, frames.header.info, _FromTheEnd(frames.store), hands)
    grid = back.kind == TrackKind.GRID
    visible, px, _, size = _grid_and_hands(row)
    return reversal(px, visible, back.points_px[::-1, grid], back.visible[::-1, grid], size)
