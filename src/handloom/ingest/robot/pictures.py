"""The pictures of robot episodes: found in videos by their time, or written into a video of their own."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.ingest.files import Options, is_remote, join, normalise, open_filesystem, remote_errors
from handloom.ingest.ids import video_id_of
from handloom.ingest.robot.source import (
    DEPTH_FORMAT,
    ImageCamera,
    RawEpisode,
    SourceFacts,
    Unusable,
    VideoCamera,
)
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import VideoInfo
from handloom.video.decode.decoder import DecodeLimits, Decoder, DecoderSwitched
from handloom.video.fetch.source import VideoSource
from handloom.video.write import Encoding, write_video

SHORT_SIDE_PX = 256
ALL_FRAMES_HZ = 1e4  # a sampling grid this fine takes every frame
MATCH_SHARE = 0.4  # of a frame's length: a picture further from its time than this is another one
MAX_MISSING_SHARE = 0.05
NEAR_LOSSLESS = 8  # x264's crf

Encode = Callable[[NDArray[np.uint8]], bytes]


@dataclass(frozen=True)
class PictureSettings:
    """store: keep JPEGs in the row. videos: folder or URI for the videos of datasets whose pictures are images."""

    videos: str
    store: bool = True
    short_side_px: int = SHORT_SIDE_PX


@dataclass(frozen=True)
class Filmed:
    """What one camera saw. clip: None where there is no video. jpegs: (T) or None where they were not asked for.

    is_depth: its video holds depth; the camera is left out.
    """

    clip: Clip | None
    jpegs: list[bytes | None] | None
    notes: tuple[tuple[str, str], ...] = ()
    is_depth: bool = False


class PictureReader:
    """Reads the cameras of one episode after the other; a decoding process per camera, so that a video that holds many
    episodes is read on from where it stands. Use as a context manager.

    Args:
        encode: (h, w, 3) uint8 RGB, any size, to JPEG at the stored size.
    """

    def __init__(
        self,
        facts: SourceFacts,
        settings: PictureSettings,
        encode: Encode,
        source: VideoSource,
        options: Options = None,
    ) -> None:
        self._facts = facts
        self._settings = settings
        self._encode = encode
        self._source = source
        self._options = options
        self._decoders: dict[str, Decoder] = {}

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in self._decoders.values():
            decoder.close()

    def read(self, raw: RawEpisode) -> list[Filmed]:
        """One per camera; one that has turned out to film depth is marked so, and its clip is none.

        Raises Unusable where a camera's pictures cannot be had.
        """
        return [
            self._from_video(camera, raw) if isinstance(camera, VideoCamera) else self._from_images(camera, raw)
            for camera in raw.cameras
        ]

    def _from_video(self, camera: VideoCamera, raw: RawEpisode) -> Filmed:
        if not self._settings.store:
            if camera.present:
                return Filmed(camera.clip, None)
            note = ("video_missing", f"{camera.name}: there is no file {camera.clip.video_uri}; no clip")
            return Filmed(None, None, (note,))
        if not camera.present:
            raise Unusable("video_missing", f"{camera.name}: there is no file {camera.clip.video_uri}")
        try:
            return self._decode(camera, raw)
        except ClipError as error:
            raise Unusable(error.reason, f"{camera.name}: {error.problem}") from error

    def _decode(self, camera: VideoCamera, raw: RawEpisode) -> Filmed:
        decoder = self._decoders.get(camera.name)
        if decoder is None:
            decoder = Decoder(ALL_FRAMES_HZ, self._settings.short_side_px, DecodeLimits(), self._source)
            self._decoders[camera.name] = decoder
        wanted_s = camera.clip.start_s + raw.frame_s
        near_s = MATCH_SHARE / self._facts.fps
        wider = replace(camera.clip, start_s=camera.clip.start_s - near_s, end_s=float(wanted_s[-1]) + 2 * near_s)
        stream = decoder.stream([wider])
        try:
            for item in stream:
                if isinstance(item, ClipError):
                    raise item
                pix_fmt = item.header.info.pix_fmt
                if DEPTH_FORMAT.match(pix_fmt):
                    text = f"{camera.name}: its video is {pix_fmt}: depth, no pictures; this camera is left out"
                    return Filmed(None, None, (("depth_camera", text),), is_depth=True)
                while True:
                    try:
                        chosen, off_s = match_times(item.header.frame_s, wanted_s, near_s)
                        notes = _missing(camera.name, chosen, wanted_s, item.header.frame_s)
                        jpegs = self._encode_chosen(item.chunks(), chosen)
                        break
                    except DecoderSwitched:
                        continue
                notes += _count_note(camera, item.header.info, self._facts.fps)
                if off_s > 0.1 / self._facts.fps:
                    text = f"{camera.name}: its video's clock is off by up to {off_s * 1e3:.1f} ms"
                    notes += (("video_clock", text),)
                return Filmed(camera.clip, jpegs, notes)
        finally:
            stream.close()
        raise Unusable("video_unreadable", f"{camera.name}: nothing came of {camera.clip.video_uri}")

    def _encode_chosen(self, chunks: Iterator[NDArray[np.uint8]], chosen: NDArray[np.intp]) -> list[bytes | None]:
        steps = {int(frame): step for step, frame in enumerate(chosen) if frame >= 0}
        jpegs: list[bytes | None] = [None] * len(chosen)
        for number, picture in enumerate(itertools.chain.from_iterable(chunks)):
            if number in steps:
                jpegs[steps[number]] = self._encode(picture)
        return jpegs

    def _from_images(self, camera: ImageCamera, raw: RawEpisode) -> Filmed:
        """Single images become a video, beside whatever the row keeps of them."""
        num_frames = len(raw.frame_s)
        there = [step for step in range(num_frames) if camera.has(step)]
        if not there:
            raise Unusable("frames_missing", f"{camera.name}: none of its {num_frames} pictures is in the data")
        chosen = np.full(num_frames, -1)
        chosen[there] = there
        notes = _missing(camera.name, chosen, raw.frame_s, raw.frame_s)
        first = camera.picture(there[0])
        jpegs: list[bytes | None] = [None] * num_frames

        def pictures() -> Iterator[NDArray[np.uint8]]:
            for step in there:
                picture = camera.picture(step)
                if picture.shape != first.shape:
                    size = f"{picture.shape[1]} x {picture.shape[0]} px after {first.shape[1]} x {first.shape[0]}"
                    raise Unusable("bad_pictures", f"{camera.name}: picture {step} is {size}")
                if self._settings.store:
                    jpegs[step] = self._encode(picture)
                yield picture

        clip = self._clip(camera, raw)
        even = first.shape[0] % 2 == 0 and first.shape[1] % 2 == 0
        encoding = Encoding(pix_fmt="yuv420p" if even else "yuv444p", crf=NEAR_LOSSLESS)
        with self._file(clip.video_uri) as path:
            write_video(path, pictures(), raw.frame_s[there], encoding)
        return Filmed(clip, jpegs if self._settings.store else None, notes)

    def _clip(self, camera: ImageCamera, raw: RawEpisode) -> Clip:
        facts = self._facts
        name = f"{camera.name}/episode_{raw.index:06d}"
        end_s = float(raw.frame_s[-1]) + 1 / facts.fps
        video_id = video_id_of(name)
        return Clip(
            clip_id=make_clip_id(facts.dataset, video_id, 0.0, end_s),
            dataset=facts.dataset,
            video_id=video_id,
            video_uri=join(normalise(self._settings.videos), f"{facts.dataset}/{name}.mp4"),
            start_s=0.0,
            end_s=end_s,
            narration=raw.task,
            split=raw.split,
            licence=facts.licence,
            view=facts.view,
        )

    @contextlib.contextmanager
    def _file(self, uri: str) -> Iterator[Path]:
        """A path to write to that becomes `uri` when the block ends well. Raises ConfigError where it cannot."""
        hint = "give another --videos folder or URI, or free some space"
        if is_remote(uri):
            with tempfile.TemporaryDirectory() as folder:
                draft = Path(folder) / "episode.mp4"
                yield draft
                fs, name = open_filesystem(uri, self._options)
                try:
                    fs.put_file(str(draft), name)
                except remote_errors(uri) as error:
                    raise ConfigError(f"{uri} cannot be written: {type(error).__name__}: {error}", hint) from error
            return
        path = Path(uri)
        draft = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            os.replace(draft, path)
        except OSError as error:
            raise ConfigError(f"{uri} cannot be written: {error}", hint) from error
        finally:
            draft.unlink(missing_ok=True)


def match_times(
    frame_s: NDArray[np.float64], wanted_s: NDArray[np.float64], tolerance_s: float
) -> tuple[NDArray[np.intp], float]:
    """The frame of a video for each wanted time: the nearest one, if that is near enough and nobody else's.

    Args:
        frame_s: (F,) times of the frames, rising. wanted_s: (T,) rising.

    Returns:
        (T,) indices into frame_s, -1 where there is none; and how far the furthest match is from its time, seconds.
    """
    if not len(frame_s):
        return np.full(len(wanted_s), -1), 0.0
    after = np.clip(np.searchsorted(frame_s, wanted_s), 1, len(frame_s) - 1) if len(frame_s) > 1 else None
    if after is None:
        nearest = np.zeros(len(wanted_s), np.intp)
    else:
        nearest = after - (wanted_s - frame_s[after - 1] <= frame_s[after] - wanted_s)
    off = np.abs(frame_s[nearest] - wanted_s)
    chosen = np.where(off <= tolerance_s, nearest, -1)
    twice = np.flatnonzero((chosen[1:] == chosen[:-1]) & (chosen[1:] >= 0))
    chosen[twice + (off[twice + 1] >= off[twice])] = -1
    found = chosen >= 0
    return chosen, float(off[found].max()) if found.any() else 0.0


def _count_note(camera: VideoCamera, info: VideoInfo, fps: float) -> tuple[tuple[str, str], ...]:
    """A note where a video at the dataset's rate holds another number of frames than its episodes: some were lost or
    added while it was written, and all that follow stand at other times than the list says."""
    same_rate = abs(info.fps - fps) < 0.01 * fps
    if camera.num_listed is None or not same_rate or info.num_frames == camera.num_listed:
        return ()
    text = f"its video holds {info.num_frames} frames, the episodes in it {camera.num_listed}: pictures may be shifted"
    return (("video_count", f"{camera.name}: {text}"),)


def _missing(
    camera: str, chosen: NDArray[np.intp], wanted_s: NDArray[np.float64], frame_s: NDArray[np.float64]
) -> tuple[tuple[str, str], ...]:
    """A note where a few pictures are missing. Raises Unusable where more than a few are."""
    lost = np.flatnonzero(chosen < 0)
    if not len(lost):
        return ()
    text = f"{camera}: {len(lost)} of {len(chosen)} pictures are missing, the first at {wanted_s[lost[0]]:.3f} s"
    if len(lost) > MAX_MISSING_SHARE * len(chosen):
        span = f"its video has {len(frame_s)} frames there" + (f" up to {frame_s[-1]:.3f} s" if len(frame_s) else "")
        raise Unusable("frames_missing", f"{text}; {span}")
    return (("frames_missing", f"{text}; null in frame_jpeg"),)
