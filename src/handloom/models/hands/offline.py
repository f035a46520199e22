"""Hands of a whole clip: MediaPipe's networks run directly, forwards and backwards in time. A HandExtractor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.geometry.hands.handedness import assign
from handloom.geometry.hands.smooth import fill_gaps, smooth
from handloom.geometry.hands.tracklets import Detections, keep_hands, link
from handloom.models.devices import check_device
from handloom.models.hands.check import check_on_hands, tracks_without_palms
from handloom.models.hands.points import in_slots
from handloom.models.hands.reader import Nets, Track
from handloom.models.hands.search import KEEP, HandSearch
from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.settings import HandsConfig
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, HandPoints, VideoInfo

log = logging.getLogger(__name__)

STAGE = "hands"
VERSION = "3"
# A tracklet is taken for a hand only if it lasts, or if the network is sure of it. Chosen by hand on two EgoDex clips,
# rendered scenes and four clips without hands (none is found there), not fitted.
SURE_PRESENCE = 0.8
MIN_PRESENCE = 0.68
MIN_SECONDS = 0.19


class OfflineHands:
    """Finds palms in few frames and follows each hand both ways (`hands_search`); left and right are decided over the
    whole clip, short gaps filled, keypoints smoothed; where colours doubt that a hand is there, it is looked at again.

    `confidence` is the hand network's presence: the probability that the crop it was given holds a hand. In frames
    that were not measured it is the lesser of the two neighbours', in filled gaps half of that.

    device: `cpu` (LiteRT) or `cuda` (torch). On a CPU both agree within 0.01 pixels; CUDA was not measured yet.
    """

    def __init__(self, config: HandsConfig, device: str = "cpu") -> None:
        self._config = config
        self._nets = make_nets(config.model_complexity, device)

    def extract(self, clip: Clip, info: VideoInfo, frames: ClipFrames) -> HandPoints:
        """Both hands of the clip.

        Raises:
            ClipError: `model_failed`: frames that are no pictures.
        """
        if not len(frames):
            return _assigned(clip, info, frames.frame_s, [], (1, 1))
        shape = frames.rgb(0).shape
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            problem = f"frames have the shape {shape}, expected (height, width, 3)"
            raise ClipError(clip.clip_id, STAGE, "model_failed", problem, "look at how the clip was decoded")
        config = self._config
        least = config.min_tracking_confidence
        search = HandSearch(self._nets, frames, config.min_detection_confidence, least)
        size, frame_s = (shape[1], shape[0]), np.asarray(frames.frame_s, np.float64)
        tracks, reader = search.run(), search.reader
        found = _assigned(clip, info, frame_s, tracks, size, tracks_without_palms(reader, tracks))
        scale = np.array([info.width, info.height]) / size
        checked = check_on_hands(reader, _smoothed(found, frame_s), scale, KEEP * least)
        log.debug(
            "clip_id=%s stage=%s asked=%d moved=%d dropped=%d",
            *(clip.clip_id, STAGE, checked.asked.sum(), checked.moved.sum(), checked.dropped.sum()),
        )
        if not (checked.moved | checked.dropped).any():
            return checked.hands
        # The new sightings among the old ones as they were measured: beside smoothed ones they would stand out.
        measured = np.where(checked.moved[..., None, None], checked.hands.keypoints_px, found.keypoints_px)
        measured[checked.dropped] = np.nan
        return _smoothed(replace(checked.hands, keypoints_px=measured), frame_s, sure=checked.moved)


def make_nets(complexity: int, device: str = "cpu") -> Nets:
    """Raises ConfigError where the asked device is not there."""
    if device == "cpu":
        from handloom.models.hands.litert import LiteRtNets

        return LiteRtNets(complexity)
    if device != "cuda":
        raise ConfigError(f"hands.device = {device!r}; expected cpu or cuda", "correct hands.device")
    check_device("hands.device", device)
    from handloom.models.hands.torch_networks import TorchNets

    return TorchNets(complexity, "cuda")


def _assigned(
    clip: Clip,
    info: VideoInfo,
    frame_s: NDArray[np.float64],
    tracks: list[Track],
    size: tuple[int, int],
    off_picture: Sequence[int] = (),
) -> HandPoints:
    """off_picture: numbers of the tracks on which no hand seems to lie."""
    found, metric, track = _detections(tracks, np.array([info.width, info.height]) / size)
    kept, crowded = keep_hands(found, track)
    believable = _believable(found.take(kept), track[kept], frame_s)
    kept, crowded = kept[believable], crowded[believable]
    detections = found.take(kept)
    tracklet = link(detections, track[kept])
    sides = assign(detections, tracklet, frame_s, info.width, clip.view)
    log.debug(
        "clip_id=%s stage=%s tracks=%d detections=%d kept=%d tracklets=%d view=%s ego=%s ego_log_odds=%.2f",
        *(clip.clip_id, STAGE, len(tracks), len(found), len(kept), len(np.unique(tracklet)), clip.view),
        *(sides.ego, sides.ego_log_odds),
    )
    off = np.isin(track[kept], np.array(off_picture, np.int64))
    slots = in_slots(len(frame_s), detections, sides, crowded, metric[kept], clip.view, off)
    return _filled(info, frame_s, slots)


def _detections(
    tracks: list[Track], scale: NDArray[np.float64]
) -> tuple[Detections, NDArray[np.float64], NDArray[np.int64]]:
    """All sightings, by frame, in source pixels, their (D, 21, 3) metric keypoints and their (D,) tracks."""
    rows = sorted(
        ((frame, number, each) for number, track in enumerate(tracks) for frame, each in track.seen.items()),
        key=lambda row: row[:2],
    )
    seen = [each for _, _, each in rows]
    found = Detections(
        np.array([frame for frame, _, _ in rows], np.int64),
        # MediaPipe's coordinates are shares of the picture; ours have (0, 0) at the centre of the first pixel.
        np.array([each.points for each in seen], np.float64).reshape(-1, NUM_KEYPOINTS, 2) * scale - 0.5,
        np.array([each.right for each in seen], np.float64),
        np.array([each.presence for each in seen], np.float64),
    )
    metric = np.array([each.metric_m for each in seen], np.float64).reshape(-1, NUM_KEYPOINTS, 3)
    return found, metric, np.array([number for _, number, _ in rows], np.int64)


def _believable(detections: Detections, track: NDArray[np.int64], frame_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(D,): whether a detection's tracklet is taken for a hand."""
    tracklet = link(detections, track)
    out = np.zeros(len(detections), bool)
    for name in np.unique(tracklet):
        members = np.flatnonzero(tracklet == name)
        seconds = frame_s[detections.frame[members]]
        presence = float(np.mean(detections.confidence[members]))
        lasts = seconds[-1] - seconds[0] >= min(MIN_SECONDS, frame_s[-1] - frame_s[0])
        out[members] = presence >= (MIN_PRESENCE if lasts else SURE_PRESENCE)
    return out


def _filled(info: VideoInfo, frame_s: NDArray[np.float64], found: HandPoints) -> HandPoints:
    """Short gaps filled, in place."""
    infilled, unsure = found.infilled, found.doubts.side_unsure
    for side in range(NUM_HANDS):
        each = (found.keypoints_px[:, side], found.model_m[:, side], found.confidence[:, side])
        infilled[:, side] = fill_gaps(*each, frame_s, info.width, info.height)
        for frame in np.flatnonzero(infilled[:, side]):
            unsure[frame, side] = unsure[frame - 1, side]
    return replace(found, visible=found.visible | infilled)


def _smoothed(hands: HandPoints, frame_s: NDArray[np.float64], sure: NDArray[np.bool_] | None = None) -> HandPoints:
    """sure: (T, 2), sightings that count in full, whatever their confidence."""
    trust = hands.confidence if sure is None else np.where(sure, 1.0, hands.confidence)
    sides = [smooth(hands.keypoints_px[:, side], frame_s, trust[:, side]) for side in range(NUM_HANDS)]
    return replace(hands, keypoints_px=np.stack(sides, axis=1).astype(np.float32))
