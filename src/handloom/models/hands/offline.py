"""Hands of a whole clip by MediaPipe's networks, followed forwards and backwards in time: a HandExtractor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.geometry.hands.handedness import VIEW_PRIOR, Assignment, assign
from handloom.geometry.hands.smooth import fill_gaps, smooth
from handloom.geometry.hands.tracklets import Detections, distinct_hands, keep_hands, link, same_hand_pairs
from handloom.geometry.hands.wearer import others_log_odds
from handloom.models.devices import check_device
from handloom.models.hands.detector import HandNetworks, HandTrack
from handloom.models.hands.hand_points import to_hand_points, to_other_hands
from handloom.models.hands.tracker import FOLLOW_SHARE, HandTracker
from handloom.models.hands.verify import tracks_without_palms, verify_hands
from handloom.models.protocols import ClipFrames
from handloom.schemas.clip import Clip
from handloom.schemas.settings import HandsConfig
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, HandPoints, VideoInfo

log = logging.getLogger(__name__)

STAGE = "hands"
VERSION = "6"
# A tracklet is a hand only if it lasts long enough or has a high presence: the mean of its better half, as a hand that
# holds a thing may be unsure for most of its time. Chosen by hand on two EgoDex clips, rendered
# scenes and four clips without hands (none is found there), not fitted.
SURE_PRESENCE = 0.8
MIN_PRESENCE = 0.68
MIN_SECONDS = 0.19
# Log-odds that a first-person view pays for each hand, of at most two, that is said to be somebody else's.
OTHERS_COST = 3.0


class OfflineHands:
    """Finds palms in few frames and follows each hand both ways (`tracker`). Left and right are decided over the whole
    clip, short gaps are filled, keypoints smoothed, and hands whose colours look wrong are checked (`verify`). In a
    first-person view, hands of others are told from the wearer's (`geometry.hands.wearer`) and kept apart.

    `confidence` is the hand network's presence: the probability that its crop holds a hand. In frames that were not
    measured it is the lesser of the two neighbours', in filled gaps half of that.

    device: `cpu` (LiteRT) or `cuda` (torch). On a CPU both agree within 0.01 pixels; CUDA was not measured yet.
    """

    def __init__(self, config: HandsConfig, device: str = "cpu") -> None:
        self._config = config
        self._networks = make_networks(config.model_complexity, device)

    def extract(self, clip: Clip, info: VideoInfo, frames: ClipFrames) -> HandPoints:
        """Both hands of the clip.

        Raises:
            ClipError: `model_failed`, the frames are not images.
        """
        if not len(frames):
            return _assigned(clip, info, frames.frame_s, [], (1, 1))
        shape = frames.rgb(0).shape
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            problem = f"frames have the shape {shape}, expected (height, width, 3)"
            raise ClipError(clip.clip_id, STAGE, "model_failed", problem, "look at how the clip was decoded")
        config = self._config
        least = config.min_tracking_confidence
        size, frame_s = (shape[1], shape[0]), np.asarray(frames.frame_s, np.float64)
        others = partial(_others, frame_s, size) if clip.view == "ego" else lambda tracks: ()
        search = HandTracker(self._networks, frames, config.min_detection_confidence, least, others)
        tracks, detector = search.run(), search.detector
        found = _assigned(clip, info, frame_s, tracks, size, tracks_without_palms(detector, tracks))
        scale = np.array([info.width, info.height]) / size
        checked = verify_hands(detector, _smoothed(found, frame_s), scale, FOLLOW_SHARE * least)
        log.debug(
            "clip_id=%s stage=%s checked=%d moved=%d dropped=%d",
            *(clip.clip_id, STAGE, checked.checked.sum(), checked.moved.sum(), checked.dropped.sum()),
        )
        if not (checked.moved | checked.dropped).any():
            return checked.hands
        # New detections are smoothed together with the measured ones; beside smoothed ones they would stand out.
        measured = np.where(checked.moved[..., None, None], checked.hands.keypoints_px, found.keypoints_px)
        measured[checked.dropped] = np.nan
        return _smoothed(replace(checked.hands, keypoints_px=measured), frame_s, sure=checked.moved)


def make_networks(complexity: int, device: str = "cpu") -> HandNetworks:
    """The palm and hand networks on a device. Raises ConfigError if there is no such device."""
    if device == "cpu":
        from handloom.models.hands.litert import LiteRtHandNetworks

        return LiteRtHandNetworks(complexity)
    if device != "cuda":
        raise ConfigError(f"hands.device = {device!r}; expected cpu or cuda", "correct hands.device")
    check_device("hands.device", device)
    from handloom.models.hands.torch_networks import TorchHandNetworks

    return TorchHandNetworks(complexity, "cuda")


def _others(frame_s: NDArray[np.float64], size: tuple[int, int], tracks: list[HandTrack]) -> set[int]:
    """Numbers of the tracks that are somebody else's hands in a first-person view."""
    found, metric, track = _detections(tracks, np.ones(2))
    log_odds, _ = others_log_odds(found, metric, track, frame_s, size)
    return set(track[log_odds > 0].tolist())


def _assigned(
    clip: Clip,
    info: VideoInfo,
    frame_s: NDArray[np.float64],
    tracks: list[HandTrack],
    size: tuple[int, int],
    unsupported: Sequence[int] = (),
) -> HandPoints:
    """Hands from tracks, gaps filled. unsupported: numbers of the tracks on which there seems to be no hand."""
    found, metric, track = _detections(tracks, np.array([info.width, info.height]) / size)
    log_odds, hand = others_log_odds(found, metric, track, frame_s, (info.width, info.height))
    person = _one_person(clip, info, frame_s, found, track, np.arange(len(found)))
    if (log_odds > 0).any() and (clip.view == "ego" or (clip.view is None and person.sides.ego)):
        wearer = _one_person(clip, info, frame_s, found, track, np.flatnonzero(log_odds <= 0))
        num_others = min(len(np.unique(hand[log_odds > 0])), NUM_HANDS)
        odds = wearer.sides.ego_log_odds - OTHERS_COST * num_others
        if wearer.sides.ego and odds + (VIEW_PRIOR if clip.view == "ego" else 0.0) > 0:
            person = replace(wearer, sides=replace(wearer.sides, ego_log_odds=odds))
    kept, sides = person.kept, person.sides
    log.debug(
        "clip_id=%s stage=%s tracks=%d detections=%d kept=%d others=%d view=%s ego=%s ego_log_odds=%.2f",
        *(clip.clip_id, STAGE, len(tracks), len(found), len(kept), len(found) - person.num_found, clip.view),
        *(sides.ego, sides.ego_log_odds),
    )
    off, own = np.isin(track[kept], np.array(unsupported, np.int64)), log_odds[kept] if sides.ego else None
    slots = to_hand_points(len(frame_s), found.take(kept), sides, person.crowded, metric[kept], clip.view, off, own)
    if sides.ego:
        rest = np.array([], np.int64)
        if person.num_found < len(found):
            rest = _beside(found, track, kept, np.flatnonzero(log_odds > 0), frame_s)
        slots = replace(slots, others=to_other_hands(found.take(rest), hand[rest], log_odds[rest]))
    return _filled(info, frame_s, slots)


@dataclass(frozen=True)
class _Person:
    """Hands that are taken for one person's: kept (k,), of `num_found` detections; sides, crowded: of those."""

    kept: NDArray[np.int64]
    num_found: int
    crowded: NDArray[np.bool_]
    sides: Assignment


def _one_person(
    clip: Clip,
    info: VideoInfo,
    frame_s: NDArray[np.float64],
    found: Detections,
    track: NDArray[np.int64],
    some: NDArray[np.int64],
) -> _Person:
    """The best two hands a frame of some detections, with their sides."""
    kept, crowded = keep_hands(found.take(some), track[some])
    kept = some[kept]
    believable = _believable(found.take(kept), track[kept], frame_s)
    kept, crowded = kept[believable], crowded[believable]
    detections = found.take(kept)
    sides = assign(detections, link(detections, track[kept]), frame_s, info.width, clip.view)
    return _Person(kept, len(some), crowded, sides)


def _beside(
    found: Detections,
    track: NDArray[np.int64],
    kept: NDArray[np.int64],
    others: NDArray[np.int64],
    frame_s: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Those of `others` that are believable hands, each once, and none of those `kept`."""
    is_kept, taken = np.isin(np.arange(len(found)), kept), np.zeros(len(found), bool)
    first, second, same = same_hand_pairs(found)
    taken[first[same & is_kept[second]]] = taken[second[same & is_kept[first]]] = True
    others = others[~taken[others]]
    others = others[sorted(i for hands in distinct_hands(found.take(others)) for i in hands)]
    return others[_believable(found.take(others), track[others], frame_s)]


def _detections(
    tracks: list[HandTrack], scale: NDArray[np.float64]
) -> tuple[Detections, NDArray[np.float64], NDArray[np.int64]]:
    """All detections by frame, in source pixels; their metric keypoints (D, 21, 3); the numbers of their tracks
    (D,)."""
    rows = sorted(
        ((frame, number, each) for number, track in enumerate(tracks) for frame, each in track.detections.items()),
        key=lambda row: row[:2],
    )
    detections = [each for _, _, each in rows]
    found = Detections(
        np.array([frame for frame, _, _ in rows], np.int64),
        # MediaPipe's coordinates are shares of the image; ours have (0, 0) at the centre of the first pixel.
        np.array([each.points for each in detections], np.float64).reshape(-1, NUM_KEYPOINTS, 2) * scale - 0.5,
        np.array([each.right for each in detections], np.float64),
        np.array([each.presence for each in detections], np.float64),
    )
    metric = np.array([each.metric_m for each in detections], np.float64).reshape(-1, NUM_KEYPOINTS, 3)
    return found, metric, np.array([number for _, number, _ in rows], np.int64)


def _believable(detections: Detections, track: NDArray[np.int64], frame_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(D,): whether a detection's tracklet is long or sure enough to be a hand."""
    tracklet = link(detections, track)
    out = np.zeros(len(detections), bool)
    for name in np.unique(tracklet):
        members = np.flatnonzero(tracklet == name)
        seconds = frame_s[detections.frame[members]]
        presence = float(np.mean(np.sort(detections.confidence[members])[len(members) // 2 :]))
        lasts = seconds[-1] - seconds[0] >= min(MIN_SECONDS, frame_s[-1] - frame_s[0])
        out[members] = presence >= (MIN_PRESENCE if lasts else SURE_PRESENCE)
    return out


def _filled(info: VideoInfo, frame_s: NDArray[np.float64], found: HandPoints) -> HandPoints:
    """Short gaps filled, in place."""
    if found.doubts is None:
        raise ValueError("the hands have no doubts: gaps are filled after those are known")
    infilled, unsure, own = found.infilled, found.doubts.side_unsure, found.wearer_confidence
    for side in range(NUM_HANDS):
        each = (found.keypoints_px[:, side], found.model_m[:, side], found.confidence[:, side])
        infilled[:, side] = fill_gaps(*each, frame_s, info.width, info.height)
        for frame in np.flatnonzero(infilled[:, side]):
            unsure[frame, side] = unsure[frame - 1, side]
            if own is not None:
                own[frame, side] = own[frame - 1, side]
    return replace(found, visible=found.visible | infilled)


def _smoothed(hands: HandPoints, frame_s: NDArray[np.float64], sure: NDArray[np.bool_] | None = None) -> HandPoints:
    """sure: (T, 2), detections that have full weight whatever their confidence."""
    trust = hands.confidence if sure is None else np.where(sure, 1.0, hands.confidence)
    sides = [smooth(hands.keypoints_px[:, side], frame_s, trust[:, side]) for side in range(NUM_HANDS)]
    return replace(hands, keypoints_px=np.stack(sides, axis=1).astype(np.float32))
