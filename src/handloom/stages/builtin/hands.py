"""Stages of the hands: in the image, and in 3D."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from handloom.errors import ClipError
from handloom.geometry.hands.fit import fit_hands, resized
from handloom.geometry.hands.model import HAND_LENGTH_M
from handloom.geometry.hands.placed import placed_hands
from handloom.geometry.hands.pnp import place_hands
from handloom.geometry.metric.evidence import Metres, with_world
from handloom.geometry.metric.posterior import KEYPOINT_SCALE_SIGMA, LENGTH_SIGMA, Posterior
from handloom.models.hands.hand_points import without_infill_across
from handloom.schemas.clip import Clip
from handloom.schemas.hand_size import HandSize, parse_hand
from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import hands_2d_cells, hands_3d_cells, other_hands_cells
from handloom.schemas.values import HandDoubts, HandPoints, Hands
from handloom.stages.choose import hand_extractor
from handloom.stages.state import pack, unpack
from handloom.stages.work import EVERY_STEP, MISSING, BuiltinStage, Work

SEEN = ("hand_visible", "hand_infilled", "hand_confidence", "hand_keypoints_px")


class Hands2D(BuiltinStage):
    """Both hands of one person in the image over the whole clip, and other people's. Its value is `HandPoints`; the
    latter are in columns alone."""

    name = "hands_2d"
    after = ("probe", "images")
    reads_frames = True
    versions = (*EVERY_STEP, "mediapipe", "ai-edge-litert", "torch", "hands", "hand_backend")

    @property
    def clip_fields(self) -> tuple[str, ...]:  # type: ignore[override]  # of other stages it is of the class
        return ("view", "camera") if self._is_own else ("view",)

    @property
    def _is_own(self) -> bool:
        """Whether the backend is a class of another package, which gets the camera, too."""
        return ":" in self.config.hands.backend

    def key_settings(self) -> dict[str, Any]:
        own = self.config.hands.model_dump(mode="json", exclude={"keypoint_scale"})
        if own["options"] is None:
            del own["options"]
        assumed = self.config.camera.model_dump(mode="json", exclude={"poses"})
        return own | ({"camera": assumed} if self._is_own else {})

    def key_identity(self, versions: Mapping[str, str]) -> dict[str, str]:
        identity = super().key_identity(versions)
        if self.config.hands.backend != "offline" or self.config.hands.device == "cpu":
            identity.pop("torch", None)
        return identity

    def load(self) -> None:
        self._model = hand_extractor(self.config.hands, self.config.camera)

    def run(self, work: Work) -> HandPoints:
        points = self._model.extract(work.clip, work.info, work.frames)
        return without_infill_across(points, work["images"].cuts)

    def cells(self, value: HandPoints, work: Work) -> dict[str, Any]:
        return hands_2d_cells(value) | other_hands_cells(value)

    def state(self, value: HandPoints) -> bytes:
        return pack((value.model_m, value.view_log_odds, value.doubts, value.cam_m), (HandDoubts,))

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        if state is None or any(row.get(name) is None for name in SEEN):
            return MISSING
        model_m, view_log_odds, doubts, cam_m = unpack(state, (HandDoubts,))
        values = [*(row[name] for name in SEEN), model_m, row["hand_view"], view_log_odds, doubts, cam_m]
        return HandPoints(*values)


@dataclass(frozen=True)
class PlacedHands:
    """hands: in the camera frame. metres: how large the clip's world is, with all evidence."""

    hands: Hands
    metres: Metres


class Hands3D(BuiltinStage):
    """Hands in metres in the camera frame. Its value is `PlacedHands`."""

    name = "hands_3d"
    after = ("probe", "hands_2d", "lens", "depth", "camera")
    clip_fields = ("hand",)
    versions = (*EVERY_STEP, "hand_fit")
    _CLASSES = (Metres, Posterior)

    def key_settings(self) -> dict[str, Any]:
        return self.config.hands.model_dump(mode="json", include={"backend", "keypoint_scale"})

    def run(self, work: Work) -> PlacedHands:
        points, found, maps = work["hands_2d"], work["camera"], work["depth"]
        metres, camera, path = found.metres, found.camera, found.estimated.path
        if points.cam_m is not None:
            hands = placed_hands(points, work["lens"].camera, camera)
        elif self.config.hands.backend == "mediapipe":
            hands = place_hands(points, camera)
        else:
            sizes = sizes_of(hand_size(work.clip, self.config))
            hands = fit_hands(points, camera, work.info, work.frame_s, **sizes, posterior=metres.known)
        sized = with_world(metres, hands, path, camera, work.info, work.frame_s, maps)
        return PlacedHands(resized(hands, metres.known, sized.known), sized)

    def cells(self, value: PlacedHands, work: Work) -> dict[str, Any]:
        return hands_3d_cells(value.hands)

    def state(self, value: PlacedHands) -> bytes:
        return pack(value.metres, self._CLASSES)

    def restore(self, row: Mapping[str, Any], state: bytes | None) -> Any:
        if state is None or row.get("hand_keypoints_cam_m") is None or any(row.get(name) is None for name in SEEN):
            return MISSING
        names = (*SEEN, "hand_keypoints_cam_m", "hand_sigma_m", "hand_view")
        return PlacedHands(Hands(*(row[name] for name in names)), unpack(state, self._CLASSES))


def hand_size(clip: Clip, settings: Settings) -> HandSize:
    """The size of the hands in the clip list; from the settings where the list has none. Raises ClipError."""
    try:
        hand = parse_hand(clip.hand)
    except ValueError as error:
        problem = f"the hand size in the clip list cannot be used: {error}"
        hint = "ingest again, with another --hand-length-m or --camera-preset"
        raise ClipError(clip.clip_id, "hands_3d", "bad_camera", problem, hint) from None
    usual = HandSize(HAND_LENGTH_M, LENGTH_SIGMA, settings.hands.keypoint_scale, None, KEYPOINT_SCALE_SIGMA)
    return replace(usual, **{name: value for name, value in vars(hand).items() if value is not None})


def sizes_of(size: HandSize) -> dict[str, Any]:
    """The size as the fit takes it."""
    return {"hand_length_m": size.length_m, "keypoint_scale": size.keypoint_scale}
