"""The clips that `bench extract` measures on."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError
from handloom.ingest.human.folder import ingest_folder
from handloom.schemas.clip import Clip
from handloom.video.decode.probe import Prober
from handloom.video.fetch.video_source import VideoSource

RENDERED = 6
QUICK_SCENE: dict[str, Any] = {"width": 320, "height": 240, "fps": 15.0, "duration_s": 2.0}


def rendered(folder: Path, quick: bool, say: Callable[[str], None]) -> Path:
    """Scenes of two to five seconds in a new folder; small ones if `quick`."""
    from handloom.synth.clip import write_clip
    from handloom.synth.script.demo import demo_specs

    folder.mkdir()
    specs = demo_specs(2 if quick else RENDERED, seed=0)
    for i, spec in enumerate(specs):
        say(f"rendering scene {i + 1} of {len(specs)}")
        write_clip(
            replace(spec, **QUICK_SCENE) if quick else spec, folder / f"scene_{i}.mp4", camera=False, truth=False
        )
    return folder


def readable(folder: Path, clip_s: float) -> list[Clip]:
    """Clips of `clip_s` of the videos that libav opens: the first clip of every video before the second of any.

    Raises:
        ConfigError: there is none.
    """
    with tempfile.TemporaryDirectory() as cache, Prober(VideoSource(cache)) as probe:
        clips = ingest_folder(str(folder), probe=probe, clip_seconds=clip_s).clips
    usable = [clip for clip in clips if clip.end_s is not None]
    if not usable:
        raise ConfigError(f"no video of {folder} can be read", "give a folder with videos")
    by_video = [list(group) for _, group in itertools.groupby(usable, key=lambda clip: clip.video_uri)]
    turns = itertools.zip_longest(*by_video)
    return [clip for turn in turns for clip in turn if clip is not None]


def repeat(clips: Sequence[Clip], num: int, seconds: float) -> list[Clip]:
    """The clips repeated until there are `num`, or `seconds` of video; at least two."""
    chosen: list[Clip] = []
    for clip in itertools.cycle(clips):
        if len(chosen) >= num or (len(chosen) >= 2 and sum(map(seconds_of, [*chosen, clip])) > seconds):
            return renamed(chosen)
        chosen.append(clip)
    return renamed(chosen)


def same_second(clips: Sequence[Clip], num: int) -> list[Clip]:
    """One second of one video `num` times: the clips differ only in when they are processed."""
    first = clips[0]
    return renamed([replace(first, end_s=first.start_s + min(1.0, seconds_of(first)))] * num)


def renamed(clips: Sequence[Clip]) -> list[Clip]:
    """The clips under unique ids, so that one may occur twice."""
    return [replace(clip, clip_id=f"bench:{i:04d}:{clip.video_id}") for i, clip in enumerate(clips)]


def seconds_of(clip: Clip) -> float:
    """Length of the clip; 0 if its end is not known."""
    return 0.0 if clip.end_s is None else clip.end_s - clip.start_s
