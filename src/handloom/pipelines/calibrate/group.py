"""What the clips of one group share, for `calibrate`: a lens, the size of a person's hands, and who disagrees."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handloom.geometry.camera.calibration import (
    COMMON_SIGMA,
    FAR,
    Together,
    apart,
    distortion_of,
    field_of_view_deg,
    together,
)
from handloom.geometry.camera.intrinsics import DISTORTIONS, parse_camera
from handloom.pipelines.calibrate.words import ANY_SIZE, Words
from handloom.plural import plural
from handloom.schemas.calibrated import Calibrated, Seen, read_calibrated, with_calibration
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import LENGTH_RANGE_M

MIN_CLIPS = 2
SAME, MUCH_SURER = 0.25, 0.7  # of the standard deviation that is there: a result that moves by less changes nothing


@dataclass(frozen=True)
class Shared:
    """One number of a group, for people and as JSON. num_clips: that say something of it. before: what clips had, the
    median; after: what they have now. far: clips that disagree by more than three standard deviations, the farthest
    first: id, what it says, by how many. note: why nothing was written, or what to look at.
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
    lengths, m, None where the group is not of one person. clips: as the list shall have them. known: clips whose lens
    is left alone, by why.
    """

    group: str
    num_clips: int
    lens: Shared
    hand: Shared | None
    known: dict[str, int]
    clips: tuple[Clip, ...]


def calibrate_group(by: str, group: str, clips: Sequence[Words], share_hands: bool) -> GroupResult:
    """One group's lens and hands."""
    ordered = sorted(clips, key=lambda words: words.clip.clip_id)
    known: dict[str, int] = defaultdict(int)
    for words in ordered:
        if words.known is not None:
            known[words.known] += 1
    lens, cameras = _lens(by, group, [words for words in ordered if words.known is None])
    hand, hands = _hand(by, group, ordered) if share_hands else (None, {})
    listed = [
        replace(
            words.clip,
            camera=cameras.get(words.clip.clip_id, words.clip.camera),
            hand=hands.get(words.clip.clip_id, words.clip.hand),
        )
        for words in ordered
    ]
    return GroupResult(group, len(ordered), lens, hand, dict(known), tuple(listed))


def _lens(by: str, group: str, clips: list[Words]) -> tuple[Shared, dict[str, str]]:
    """And the `camera` JSON of the group's clips, by id."""
    saying = [words for words in clips if words.lens is not None]
    fovs = [_fov(words.now[0]) for words in clips if words.now is not None]
    shared = Shared(len(saying), _median(fovs), _median([words.now[1] for words in clips if words.now is not None]))
    if note := _nothing_to_share(clips, saying):
        return replace(shared, note=note), {}
    prior, odd = _assumption(clips)
    if odd:
        return replace(shared, note=odd), {}
    found = _of([words.lens for words in saying], prior)
    shared = replace(shared, far=_far(saying, [words.lens for words in saying], found, _shown_fov))
    sizes = _sizes(saying, prior)
    if not found.agree or len(sizes) > 1:
        fields = sorted(_shown_fov(words.lens) for words in saying)
        why = f"they say {fields[0]:.0f} to {fields[-1]:.0f} degrees"
        if len(sizes) > 1:
            why = " and ".join(f"{size}: {fov:.0f} degrees" for size, fov in sizes.items())
        note = f"not written: these clips are not of one lens, or zoomed ({why}); take parts, with --by or --where"
        return replace(shared, note=note), {}
    bend = float((found.weight * [words.lens.bend for words in saying]).sum())
    said = Calibrated(by, group, len(saying), round(found.value, 5), round(found.sigma, 4), round(bend, 4))
    said = _kept([read_calibrated(words.clip.camera) for words in clips], said)
    taking = [words for words in clips if words.is_default or words.assumed[1] >= COMMON_SIGMA]
    surer = f"what was said of the lens is surer, and stays: {plural(len(clips) - len(taking), 'clip')}"
    if not taking:
        return replace(shared, note=surer), {}
    texts = {words.clip.clip_id: _camera(words, said) for words in taking}
    num_sizes = len({words.size for words in clips} - {None})  # those that say nothing take the lens, too
    notes = [f"pictures of {num_sizes} sizes, of one lens as far as can be told"] * (num_sizes > 1)
    note = "; ".join([*notes, *[surer] * (len(taking) < len(clips))])
    after = _shown_fov(Seen(said.value, said.sigma, said.bend))
    return replace(shared, after=after, after_sigma=said.sigma, note=note), texts


def _hand(by: str, group: str, clips: list[Words]) -> tuple[Shared, dict[str, str]]:
    """And the `hand` JSON of the group's clips, by id."""
    free = [words for words in clips if not words.hand_known]
    saying = [words for words in free if words.hand is not None]
    lengths = [words.drawn[0] / words.drawn_size for words in clips]
    shared = Shared(len(saying), _median(lengths), _median([words.drawn[1] for words in clips]))
    if not free:
        return replace(shared, note="given"), {}
    if note := _nothing_to_share(free, saying):
        return replace(shared, note=note), {}
    found = _of([words.hand for words in saying], saying[0].drawn)
    size = saying[0].drawn_size
    shared = replace(
        shared, far=_far(saying, [w.hand for w in saying], found, lambda seen: round(seen.value / size, 4))
    )
    low, high = LENGTH_RANGE_M
    if not found.agree or not low <= found.value / size <= high:
        return replace(shared, note="not written: these clips are not of one person's hands"), {}
    said = Calibrated(by, group, len(saying), round(found.value, 5), round(found.sigma, 4))
    said = _kept([read_calibrated(words.clip.hand) for words in free], said)
    texts = {words.clip.clip_id: _hand_text(words, said) for words in free}
    return replace(shared, after=said.value / size, after_sigma=said.sigma), texts


def _nothing_to_share(clips: Sequence[Words], saying: Sequence[Words]) -> str:
    if len(clips) < MIN_CLIPS:
        return "one clip takes part: nothing to share" if clips else "all given"
    if not saying and all(words.size is None for words in clips):
        return "no clip has a row yet: rows say it, `handloom run` makes them"
    return "" if saying else "no clip says anything by itself"


def _assumption(clips: Sequence[Words]) -> tuple[tuple[float, float], str]:
    """The surest of what was assumed of the group's lens; and what is wrong where two of them contradict each other."""
    assumed = {
        words.assumed: words for words in reversed(clips) if not words.is_default
    }  # the first clip stands for it
    if not assumed:
        return _told(clips, clips[0].assumed), ""
    surest = min(assumed, key=lambda one: (one[1], one[0]))
    for other in assumed:
        if abs(math.log(other[0] / surest[0])) > FAR * math.hypot(other[1], surest[1]):
            views = [f"{_shown_fov(Seen(*one)):.0f} degrees ({assumed[one].clip.clip_id})" for one in (surest, other)]
            return surest, f"not written: of clips of this group different lenses were assumed, {' and '.join(views)}"
    return _told([words for words in clips if words.assumed == surest], surest), ""


def _told(clips: Sequence[Words], assumed: tuple[float, float]) -> tuple[float, float]:
    """With what the clips' hands tell of the lens. It counts once: all are wrong alike, in how far they reach."""
    told = [words.told for words in clips if words.told is not None]
    if not told:
        return assumed
    return math.exp(np.median([math.log(one.value) for one in told])), float(np.median([one.sigma for one in told]))


def _of(seen: Sequence[Seen], prior: tuple[float, float]) -> Together:
    return together(np.array([one.value for one in seen]), np.array([one.sigma for one in seen]), prior)


def _sizes(saying: Sequence[Words], prior: tuple[float, float]) -> dict[str, float]:
    """Fields of view of picture sizes that are of another lens than the commonest, and of that; none: all of one."""
    by_size: dict[tuple[int, int], list[Seen]] = defaultdict(list)
    for words in saying:
        if words.size is not None:
            by_size[words.size].append(words.lens)
    found = {size: _of(seen, prior) for size, seen in sorted(by_size.items())}
    commonest = max(found, key=lambda size: len(by_size[size]), default=None)
    others = [size for size in found if apart(found[size], found[commonest])]
    shown = [commonest, *others] if others else []
    return {f"{w} x {h}": _shown_fov(Seen(found[w, h].value, 0.0, None)) for w, h in shown}


def _far(saying: Sequence[Words], seen: Sequence[Seen], found: Together, shown) -> tuple[dict[str, Any], ...]:
    named = zip(found.far.tolist(), saying, seen, strict=True)
    far = sorted(((away, words.clip.clip_id, shown(one)) for away, words, one in named if away > FAR), reverse=True)
    return tuple({"clip_id": clip_id, "says": says, "sigmas": round(away, 1)} for away, clip_id, says in far)


def _kept(there: Sequence[Calibrated | None], new: Calibrated) -> Calibrated:
    """The result that the group's clips have already, where the new one is much the same."""
    said = {old.said for old in there if old is not None and (old.by, old.group) == (new.by, new.group)}
    if len(said) != 1:
        return new
    old = Calibrated(*said.pop())
    moved = abs(math.log(new.value / old.value)) > SAME * old.sigma
    return new if moved or new.sigma < MUCH_SURER * old.sigma else old


def _camera(words: Words, said: Calibrated) -> str:
    """The `camera` JSON of one clip; without the bend where the lens would fold within its picture."""
    bent = _with_lens(words, said, distortion_of(said.bend))
    return bent if _fits(bent, words.size or ANY_SIZE) else _with_lens(words, said, None)


def _with_lens(words: Words, said: Calibrated, distortion: dict[str, Any] | None) -> str:
    view = field_of_view_deg(said.value, *_model(distortion))
    values = {"focal_sigma": said.sigma, "source": "estimated", "distortion": distortion}
    return with_calibration(
        words.camera_before, values | _focal(words, said, view), replace(said, seen=words.lens, told=words.told)
    )


def _focal(words: Words, said: Calibrated, view_deg: float) -> dict[str, Any]:
    """A matrix that was assumed keeps its principal point; else the field of view, which holds for any size."""
    before = {} if words.camera_before is None else json.loads(words.camera_before)
    matrix = before.get("camera_matrix")
    if matrix is None:
        return {"fov_deg": round(view_deg, 3)}
    scale = said.value / words.assumed[0]
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


def _hand_text(words: Words, said: Calibrated) -> str:
    own = replace(said, seen=words.hand)
    length = round(said.value / words.drawn_size, 4)
    values = {"length_m": length, "sigma": said.sigma, "seen_size": words.drawn_size, "seen_sigma": 0.0}
    return with_calibration(words.hand_before, values | {"source": f"calibrated from {said.num_clips} clips"}, own)


def _shown_fov(seen: Seen) -> float:
    bend = None if seen.bend is None else distortion_of(seen.bend)
    return round(field_of_view_deg(seen.value, *_model(bend)), 2)


def _fov(camera) -> float:
    return field_of_view_deg(float(camera.camera_matrix[0, 0]), camera.model, camera.distortion)


def _median(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else None
