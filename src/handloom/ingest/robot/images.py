"""The images of robot episodes: found in videos by their times, or written into a video of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.ingest.ids import video_id_of
from handloom.ingest.robot.source import (
    DEPTH_FORMAT,
    ImageCamera,
    RawEpisode,
    SourceFacts,
    Unusable,
    VideoCamera,
)
from handloom.io.addresses import join, normalise
from handloom.io.atomic import atomic_file_at
from handloom.io.remote import Options, remote_errors
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.values import VideoInfo
from handloom.video.decode.decoder import DecodedClip, DecodeLimits, Decoder
from handloom.video.fetch.video_source import VideoSource
from handloom.video.stored_frames import encode_jpeg, shrink_to_short_side
from handloom.video.write import Encoding, write_video

SHORT_SIDE_PX = 256
JPEG_QUALITY = 90
ALL_FRAMES_HZ = 1e4  # a sampling grid this fine takes every frame
MATCH_SHARE = 0.4  # of a frame's duration: the frame of a step is not further from its time
MAX_MISSING_SHARE = 0.05
NEAR_LOSSLESS = 8  # x264's crf

Encode = Callable[[NDArray[np.uint8]], bytes]


def stored_jpeg(image: NDArray[np.uint8]) -> bytes:
    """(h, w, 3) uint8 RGB, any size, as the JPEG that `robot_episodes` holds of it."""
    return encode_jpeg(shrink_to_short_side(image, SHORT_SIDE_PX), JPEG_QUALITY)


@dataclass(frozen=True)
class ImageSettings:
    """store: keep JPEGs in the row. videos: folder or URI for videos made of single images."""

    videos: str
    store: bool = True
    short_side_px: int = SHORT_SIDE_PX


@dataclass(frozen=True)
class Filmed:
    """The images of one camera. clip: None if there is no video. jpegs: (T), None if the settings do not store them.

    is_depth: its video holds depth; the camera is left out.
    """

    clip: Clip | None
    jpegs: list[bytes | None] | None
    notes: tuple[tuple[str, str], ...] = ()
    is_depth: bool = False


class ImageReader:
    """Reads the cameras of one episode after the other, each with a decoding process of its own that reads a video of
    many episodes from front to back. Use as a context manager.

    Args:
        encode: (h, w, 3) uint8 RGB, any size, to JPEG at the stored size.
    """

    def __init__(
        self,
        facts: SourceFacts,
        settings: ImageSettings,
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

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in self._decoders.values():
            decoder.close()

    def read(self, raw: RawEpisode) -> list[Filmed]:
        """One per camera. A camera whose video holds depth is marked, and has no clip.

        Raises Unusable if a camera's images cannot be read.
        """
        return [
            self._from_video(camera, raw) if isinstance(camera, VideoCamera) else self._from_images(camera, raw)
            for camera in raw.cameras
        ]

    def foresee(self, raw: RawEpisode) -> list[Filmed]:
        """As `read`, but no image is read, and no video made: of what `read` may refuse, only missing files and images
        are found.

        Raises Unusable.
        """
        found = []
        for camera in raw.cameras:
            if isinstance(camera, VideoCamera):
                found.append(self._absent(camera) or Filmed(camera.clip, None))
            else:
                _steps_with_image(camera, len(raw.frame_s))
                found.append(Filmed(self.clip_of(camera, raw), None))
        return found

    def _absent(self, camera: VideoCamera) -> Filmed | None:
        """What a camera without its video gives; None if the video is there. Raises Unusable if images are needed."""
        if camera.present:
            return None
        missing = f"{camera.name}: there is no file {camera.clip.video_uri}"
        if self._settings.store:
            raise Unusable("video_missing", missing)
        return Filmed(None, None, (("video_missing", f"{missing}; no clip"),))

    def _from_video(self, camera: VideoCamera, raw: RawEpisode) -> Filmed:
        if (absent := self._absent(camera)) is not None:
            return absent
        if not self._settings.store:
            return Filmed(camera.clip, None)
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
                    text = f"{camera.name}: its video is {pix_fmt}: depth, no images; this camera is left out"
                    return Filmed(None, None, (("depth_camera", text),), is_depth=True)
                chosen, off_s = match_times(item.header.frame_s, wanted_s, near_s)
                notes = _missing(camera.name, chosen, wanted_s, item.header.frame_s)
                jpegs = encode_chosen(item, chosen, self._encode)
                notes += _count_note(camera, item.header.info, self._facts.fps)
                if off_s > 0.1 / self._facts.fps:
                    text = f"{camera.name}: its video's clock is off by up to {off_s * 1e3:.1f} ms"
                    notes += (("video_clock", text),)
                return Filmed(camera.clip, jpegs, notes)
        finally:
            stream.close()
        raise Unusable("video_unreadable", f"{camera.name}: no frame was decoded of {camera.clip.video_uri}")

    def _from_images(self, camera: ImageCamera, raw: RawEpisode) -> Filmed:
        """Write single images as a video, and keep the row's JPEGs of them."""
        num_frames = len(raw.frame_s)
        there = _steps_with_image(camera, num_frames)
        chosen = np.full(num_frames, -1)
        chosen[there] = there
        notes = _missing(camera.name, chosen, raw.frame_s, raw.frame_s)
        first = camera.image(there[0])
        jpegs: list[bytes | None] = [None] * num_frames

        def images() -> Iterator[NDArray[np.uint8]]:
            for step in there:
                image = camera.image(step)
                if image.shape != first.shape:
                    size = f"{image.shape[1]} x {image.shape[0]} px after {first.shape[1]} x {first.shape[0]}"
                    raise Unusable("bad_pictures", f"{camera.name}: image {step} is {size}")
                if self._settings.store:
                    jpegs[step] = self._encode(image)
                yield image

        clip = self.clip_of(camera, raw)
        even = first.shape[0] % 2 == 0 and first.shape[1] % 2 == 0
        encoding = Encoding(pix_fmt="yuv420p" if even else "yuv444p", crf=NEAR_LOSSLESS)
        with self._file(clip.video_uri) as path:
            write_video(path, images(), raw.frame_s[there], encoding)
        return Filmed(clip, jpegs if self._settings.store else None, notes)

    def clip_of(self, camera: ImageCamera, raw: RawEpisode) -> Clip:
        """The clip of the video that is made of a camera's single images."""
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
        """A path to write to; it becomes `uri` if the block ends without an error. Raises ConfigError if it cannot."""
        try:
            with atomic_file_at(uri, self._options) as draft:
                yield draft
        except remote_errors() as error:
            hint = "give another --videos folder or URI, or free some space"
            raise ConfigError(f"{uri} cannot be written: {type(error).__name__}: {error}", hint) from error


def _steps_with_image(camera: ImageCamera, num_frames: int) -> list[int]:
    """The steps that have an image. Raises Unusable if none has."""
    there = [step for step in range(num_frames) if camera.has(step)]
    if not there:
        raise Unusable("frames_missing", f"{camera.name}: none of its {num_frames} images is in the data")
    return there


def encode_chosen(item: DecodedClip, chosen: NDArray[np.intp], encode: Encode) -> list[bytes | None]:
    """The JPEG of each step of an episode.

    Args:
        chosen: (T,) indices of the clip's frames, -1 where a step has none.

    Returns:
        T JPEGs; None where a step has no frame.

    Raises:
        ClipError: the clip cannot be decoded.
    """
    wanted = set(chosen.tolist())
    encoded: list[bytes | None] = []  # one per decoded frame
    for chunk in item.chunks(encoded.clear):
        for image in chunk:
            encoded.append(encode(image) if len(encoded) in wanted else None)
    return [encoded[frame] if frame >= 0 else None for frame in chosen]


def match_times(
    frame_s: NDArray[np.float64], wanted_s: NDArray[np.float64], tolerance_s: float
) -> tuple[NDArray[np.intp], float]:
    """The frame of a video for each wanted time: the nearest one, if it is near enough and not nearer to another time.

    Args:
        frame_s: (F,) seconds, times of the frames, rising. wanted_s: (T,) seconds, rising. tolerance_s: the largest
            distance of a frame from its wanted time.

    Returns:
        (T,) indices into frame_s, -1 where there is no frame; and the largest distance of a match, seconds.
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
    """A note if a video at the dataset's rate has another number of frames than its episodes: frames were lost or added
    while it was written, and all later ones are at other times than the list says."""
    same_rate = abs(info.fps - fps) < 0.01 * fps
    if camera.num_listed is None or not same_rate or info.num_frames == camera.num_listed:
        return ()
    text = f"its video holds {info.num_frames} frames, the episodes in it {camera.num_listed}: images may be shifted"
    return (("video_count", f"{camera.name}: {text}"),)


def _missing(
    camera: str, chosen: NDArray[np.intp], wanted_s: NDArray[np.float64], frame_s: NDArray[np.float64]
) -> tuple[tuple[str, str], ...]:
    """A note if a few images are missing. Raises Unusable if more than `MAX_MISSING_SHARE` of them are."""
    lost = np.flatnonzero(chosen < 0)
    if not len(lost):
        return ()
    text = f"{camera}: {len(lost)} of {len(chosen)} images are missing, the first at {wanted_s[lost[0]]:.3f} s"
    if len(lost) > MAX_MISSING_SHARE * len(chosen):
        span = f"its video has {len(frame_s)} frames there" + (f" up to {frame_s[-1]:.3f} s" if len(frame_s) else "")
        raise Unusable("frames_missing", f"{text}; {span}")
    return (("frames_missing", f"{text}; null in frame_jpeg"),)
