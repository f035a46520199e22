"""What the clips of one group share, for `calibrate`: a lens, a person's hand size; and which clips disagree."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handloom.geometry.camera.intrinsics import DISTORTIONS, parse_camera
from handloom.geometry.shared_value import (
    COMMON_SIGMA,
    FAR,
    Together,
    apart,
    distortion_of,
    field_of_view_deg,
    together,
)
from handloom.pipelines.calibrate.clip_evidence import ANY_SIZE, ClipEvidence
from handloom.plural import plural
from handloom.schemas.calibrated import Calibrated, Seen, read_calibrated, with_calibration
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import LENGTH_RANGE_M, RENAMED

MIN_CLIPS = 2
SAME, MUCH_SURER = 0.25, 0.7  # of the old standard deviation: a result that moves by less than that is not written


@dataclass(frozen=True)
class Shared:
    """One number of a group, for people and as JSON. num_clips: those that measured it. before: the median of what the
    clips had; after: what they have now. far: clips that disagree by more than three standard deviations, the farthest
    first: id, its measurement, by how many. note: why nothing was written, or what to look at.
    """

    num_clips: int = 0
    before: float | None = None
    before_sigma: float | None = None
    after: float | None = None
    after_sigma: float | None = None
    far: tuple[dict[str, Any], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class GroupResult:
    """lens: fields of view along the longer side, degrees, and relative standard deviations of the focal length. hand:
    lengths, m; None if the group is not of one person. clips: with what the list must have now. known: number of clips
    whose lens is left alone, by the reason.
    """

    group: str
    num_clips: int
    lens: Shared
    hand: Shared | None
    known: dict[str, int]
    clips: tuple[Clip, ...]


def calibrate_group(by: str, group: str, clips: Sequence[ClipEvidence], share_hands: bool) -> GroupResult:
    """One group's lens and hands."""
    ordered = sorted(clips, key=lambda evidence: evidence.clip.clip_id)
    known: dict[str, int] = defaultdict(int)
    for evidence in ordered:
        if evidence.known is not None:
            known[evidence.known] += 1
    lens, cameras = _lens(by, group, [evidence for evidence in ordered if evidence.known is None])
    hand, hands = _hand(by, group, ordered) if share_hands else (None, {})
    listed = [
        replace(
            evidence.clip,
            camera=cameras.get(evidence.clip.clip_id, evidence.clip.camera),
            hand=hands.get(evidence.clip.clip_id, evidence.clip.hand),
        )
        for evidence in ordered
    ]
    return GroupResult(group, len(ordered), lens, hand, dict(known), tuple(listed))


def _lens(by: str, group: str, clips: list[ClipEvidence]) -> tuple[Shared, dict[str, str]]:
    """What the group shares of its lens; and the `camera` JSON of its clips, by id."""
    saying = [evidence for evidence in clips if evidence.lens is not None]
    lenses = [evidence.lens for evidence in clips if evidence.lens is not None]
    fovs = [_fov(evidence.now[0]) for evidence in clips if evidence.now is not None]
    sigmas = [evidence.now[1] for evidence in clips if evidence.now is not None]
    shared = Shared(len(saying), _median(fovs), _median(sigmas))
    if note := _nothing_to_share(clips, saying):
        return replace(shared, note=note), {}
    prior, odd = _assumption(clips)
    if odd:
        return replace(shared, note=odd), {}
    found = _of(lenses, prior)
    shared = replace(shared, far=_far(saying, lenses, found, _shown_fov))
    sizes = _sizes(saying, prior)
    if not found.agree or len(sizes) > 1:
        fields = sorted(_shown_fov(lens) for lens in lenses)
        why = f"measured: {fields[0]:.0f} to {fields[-1]:.0f} degrees"
        if len(sizes) > 1:
            why = " and ".join(f"{size}: {fov:.0f} degrees" for size, fov in sizes.items())
        note = f"not written: these clips are not of one lens, or zoomed ({why}); use smaller groups: --by, --where"
        return replace(shared, note=note), {}
    bend = float((found.weight * np.array([lens.bend for lens in lenses], float)).sum())
    said = Calibrated(by, group, len(saying), round(found.value, 5), round(found.sigma, 4), round(bend, 4))
    said = _kept([read_calibrated(evidence.clip.camera) for evidence in clips], said)
    taking = [evidence for evidence in clips if evidence.is_default or evidence.assumed[1] >= COMMON_SIGMA]
    surer = f"the lens is known better, and stays, in {plural(len(clips) - len(taking), 'clip')}"
    if not taking:
        return replace(shared, note=surer), {}
    texts = {evidence.clip.clip_id: _camera(evidence, said) for evidence in taking}
    num_sizes = len({evidence.size for evidence in clips} - {None})  # clips without a measurement get the lens, too
    notes = [f"images of {num_sizes} sizes, whose measured lenses do not differ"] * (num_sizes > 1)
    note = "; ".join([*notes, *[surer] * (len(taking) < len(clips))])
    after = _shown_fov(Seen(said.value, said.sigma, said.bend))
    return replace(shared, after=after, after_sigma=said.sigma, note=note), texts


def _hand(by: str, group: str, clips: list[ClipEvidence]) -> tuple[Shared, dict[str, str]]:
    """What the group shares of a person's hands; and the `hand` JSON of its clips, by id."""
    free = [evidence for evidence in clips if not evidence.hand_known]
    saying = [evidence for evidence in free if evidence.hand is not None]
    sizes = [evidence.hand for evidence in free if evidence.hand is not None]
    lengths = [evidence.shown[0] / evidence.keypoint_scale for evidence in clips]
    shared = Shared(len(saying), _median(lengths), _median([evidence.shown[1] for evidence in clips]))
    if not free:
        return replace(shared, note="given"), {}
    if note := _nothing_to_share(free, saying):
        return replace(shared, note=note), {}
    found = _of(sizes, saying[0].shown)
    size = saying[0].keypoint_scale
    shared = replace(shared, far=_far(saying, sizes, found, lambda seen: round(seen.value / size, 4)))
    low, high = LENGTH_RANGE_M
    if not found.agree or not low <= found.value / size <= high:
        return replace(shared, note="not written: these clips are not of one person's hands"), {}
    said = Calibrated(by, group, len(saying), round(found.value, 5), round(found.sigma, 4))
    said = _kept([read_calibrated(evidence.clip.hand) for evidence in free], said)
    texts = {evidence.clip.clip_id: _hand_text(evidence, said) for evidence in free}
    return replace(shared, after=said.value / size, after_sigma=said.sigma), texts


def _nothing_to_share(clips: Sequence[ClipEvidence], saying: Sequence[ClipEvidence]) -> str:
    if len(clips) < MIN_CLIPS:
        return "one clip takes part: nothing to share" if clips else "all given"
    if not saying and all(evidence.size is None for evidence in clips):
        return "no clip has a row yet: `handloom run` measures them"
    return "" if saying else "no clip measured it"


def _assumption(clips: Sequence[ClipEvidence]) -> tuple[tuple[float, float], str]:
    """The surest assumption of the group's lens; and, if two assumptions contradict each other, a note on them."""
    # Of clips with the same assumption the first is named.
    assumed = {evidence.assumed: evidence for evidence in reversed(clips) if not evidence.is_default}
    if not assumed:
        return _told(clips, clips[0].assumed), ""
    surest = min(assumed, key=lambda one: (one[1], one[0]))
    for other in assumed:
        if abs(math.log(other[0] / surest[0])) > FAR * math.hypot(other[1], surest[1]):
            views = [f"{_shown_fov(Seen(*one)):.0f} degrees ({assumed[one].clip.clip_id})" for one in (surest, other)]
            return surest, f"not written: different lenses were assumed of this group's clips, {' and '.join(views)}"
    return _told([evidence for evidence in clips if evidence.assumed == surest], surest), ""


def _told(clips: Sequence[ClipEvidence], assumed: tuple[float, float]) -> tuple[float, float]:
    """With what the reach of the clips' hands says of the lens. It counts once: its error is the same in all clips."""
    told = [evidence.told for evidence in clips if evidence.told is not None]
    if not told:
        return assumed
    return math.exp(np.median([math.log(one.value) for one in told])), float(np.median([one.sigma for one in told]))


def _of(seen: Sequence[Seen], prior: tuple[float, float]) -> Together:
    return together(np.array([one.value for one in seen]), np.array([one.sigma for one in seen]), prior)


def _sizes(saying: Sequence[ClipEvidence], prior: tuple[float, float]) -> dict[str, float]:
    """Fields of view by image size: the commonest and those of another lens. Empty if all sizes are of one lens."""
    by_size: dict[tuple[int, int], list[Seen]] = defaultdict(list)
    for evidence in saying:
        if evidence.size is not None and evidence.lens is not None:
            by_size[evidence.size].append(evidence.lens)
    found = {size: _of(seen, prior) for size, seen in sorted(by_size.items())}
    if not found:
        return {}
    commonest = max(found, key=lambda size: len(by_size[size]))
    others = [size for size in found if apart(found[size], found[commonest])]
    shown = [commonest, *others] if others else []
    return {f"{w} x {h}": _shown_fov(Seen(found[w, h].value, 0.0, None)) for w, h in shown}


def _far(saying: Sequence[ClipEvidence], seen: Sequence[Seen], found: Together, shown) -> tuple[dict[str, Any], ...]:
    named = zip(found.far.tolist(), saying, seen, strict=True)
    far = [(away, evidence.clip.clip_id, shown(one)) for away, evidence, one in named if away > FAR]
    rest = sorted(far, reverse=True)
    return tuple({"clip_id": clip_id, "says": says, "sigmas": round(away, 1)} for away, clip_id, says in rest)


def _kept(there: Sequence[Calibrated | None], new: Calibrated) -> Calibrated:
    """The result that the group's clips have already, if the new one is nearly the same; else the new one."""
    said = {old.shared for old in there if old is not None and (old.by, old.group) == (new.by, new.group)}
    if len(said) != 1:
        return new
    old = Calibrated(*said.pop())
    moved = abs(math.log(new.value / old.value)) > SAME * old.sigma
    return new if moved or new.sigma < MUCH_SURER * old.sigma else old


def _camera(evidence: ClipEvidence, said: Calibrated) -> str:
    """The `camera` JSON of one clip; without the bend if the lens would fold within its image."""
    bent = _with_lens(evidence, said, None if said.bend is None else distortion_of(said.bend))
    return bent if _fits(bent, evidence.size or ANY_SIZE) else _with_lens(evidence, said, None)


def _with_lens(evidence: ClipEvidence, said: Calibrated, distortion: dict[str, Any] | None) -> str:
    view = field_of_view_deg(said.value, *_model(distortion))
    values = {"focal_sigma": said.sigma, "source": "estimated", "distortion": distortion}
    own = replace(said, seen=evidence.lens, told=evidence.told)
    return with_calibration(evidence.camera_before, values | _focal(evidence, said, view), own)


def _focal(evidence: ClipEvidence, said: Calibrated, view_deg: float) -> dict[str, Any]:
    """An assumed matrix keeps its principal point; else the field of view, which holds for any image size."""
    before = {} if evidence.camera_before is None else json.loads(evidence.camera_before)
    matrix = before.get("camera_matrix")
    if matrix is None:
        return {"fov_deg": round(view_deg, 3)}
    scale = said.value / evidence.assumed[0]
    fx, skew, cx, zero, fy, *rest = matrix
    return {"camera_matrix": [round(fx * scale, 3), skew, cx, zero, round(fy * scale, 3), *rest]}


def _fits(text: str, size: tuple[int, int]) -> bool:
    try:
        parse_camera(text, *size)
    except ValueError:
        return False
    return True


def _model(distortion: dict[str, Any] | None) -> tuple[str, np.ndarray | None]:
    if distortion is None:
        return "opencv", None
    model = DISTORTIONS[distortion["model"]][0]
    return model, np.array([*distortion["params"], *[0.0] * (4 - len(distortion["params"]))])


def _hand_text(evidence: ClipEvidence, said: Calibrated) -> str:
    own = replace(said, seen=evidence.hand)
    length = round(said.value / evidence.keypoint_scale, 4)
    values = {"length_m": length, "sigma": said.sigma, "source": f"calibrated from {said.num_clips} clips"}
    values |= dict.fromkeys(RENAMED) | {"keypoint_scale": evidence.keypoint_scale, "keypoint_scale_sigma": 0.0}
    return with_calibration(evidence.hand_before, values, own)


def _shown_fov(seen: Seen) -> float:
    bend = None if seen.bend is None else distortion_of(seen.bend)
    return round(field_of_view_deg(seen.value, *_model(bend)), 2)


def _fov(camera) -> float:
    return field_of_view_deg(float(camera.camera_matrix[0, 0]), camera.model, camera.distortion)


def _median(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else None
