"""The stages from hands to quality on frames in memory, without a row: for benchmarks with ground truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handloom.geometry.image_stats import ImageNumbers
from handloom.models.cuts import find_cuts
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.values import ClipAnalysis, VideoInfo
from handloom.stages.builtin.images import Seen
from handloom.stages.builtin.tracks import depth_source
from handloom.stages.registry import builtin_stages
from handloom.stages.work import Work
from handloom.video.decode.frame_store import FrameStore
from handloom.video.decode.wire import Header

ANALYSED = ("hands_2d", "lens", "depth", "camera", "hands_3d", "tracks", "world", "lift", "quality")


class Analyser:
    """Holds the models of these stages."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stages = [stage for stage in builtin_stages(settings) if stage.name in ANALYSED]
        for stage in self._stages:
            stage.load()

    def analyse(
        self, clip: Clip, info: VideoInfo, frames: FrameStore, images: ImageNumbers, begin: Callable[[str], None]
    ) -> ClipAnalysis:
        """The analysis of a clip. `begin(stage)` is called when a stage begins.

        Raises:
            ClipError: a model failed, or the given camera or depth cannot be used.
        """
        begin("images")
        height, width = frames.rgb(0).shape[:2]
        header = Header(info, "none", frames.frame_s, (width, height))
        values: dict[str, Any] = {"probe": header, "images": Seen(images, find_cuts(frames))}
        work = Work(clip, self._settings, values, frames)
        for stage in self._stages:
            begin(stage.name)
            values[stage.name] = stage.run(work)
        world, quality, lifted = values["world"], values["quality"], values["lift"]
        return ClipAnalysis(
            values["camera"].camera,
            world.path,
            values["hands_3d"].hands,
            values["tracks"],
            world.hands_m,
            lifted,
            depth_source(lifted, work),
            quality.numbers,
            quality.flags,
        )
