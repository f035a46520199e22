"""A hand network of one's own as a HandExtractor, and the one boundary at which what it gives is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError
from handloom.geometry.camera.intrinsics import camera_for, project
from handloom.models.devices import check_device
from handloom.models.protocols import BackendHands, ClipFrames
from handloom.named import load_named
from handloom.schemas.clip import Clip
from handloom.schemas.settings import CameraConfig, HandsConfig
from handloom.schemas.values import NUM_HANDS, NUM_KEYPOINTS, Camera, HandPoints, VideoInfo

STAGE, SETTING = "hands", "hands.backend"
MAX_APART = 0.15
"""Median distance between keypoints and their projected metres, over the image's diagonal, beyond which the two cannot
belong together: other axes or another unit. Far above what a network's error or an unknown lens makes of it."""
AT_IMPORT = (
    ArithmeticError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip
"""What a class of another package may raise when it is made, or asked what it is."""
HINT = "look at `find` of the class; handloom.models.protocols.BackendHands says what it has to give"


class OwnHands:
    """The class of `hands.backend`, constructed with `hands.options`; its output checked and in source pixels.

    Raises:
        ConfigError: the class cannot be loaded or constructed; there is no such device.
    """

    def __init__(self, config: HandsConfig, camera: CameraConfig) -> None:
        self._config, self._camera = config, camera
        kind = _class_of(config)
        check_device("hands.device", config.device)
        try:
            self._backend = kind(dict(config.options or {}), config.device)
        except AT_IMPORT as error:
            problem = f"{SETTING} = {config.backend!r} cannot be constructed: {type(error).__name__}: {error}"
            raise ConfigError(
                problem, f"check hands.options ({_listed(config.options)}) and the files it names"
            ) from error

    def extract(self, clip: Clip, info: VideoInfo, frames: ClipFrames) -> HandPoints:
        """Both hands of the clip.

        Raises:
            ClipError: `model_failed`: the backend ran out of memory, or gives what a clip's hands cannot be;
                `bad_camera`: the clip's camera cannot be used.
        """
        height, width = frames.rgb(0).shape[:2]
        scale = np.array([info.width / width, info.height / height])
        camera = _for_frames(camera_for(clip, info, self._camera), scale)
        try:
            found = self._backend.find(clip, info, frames, camera)
        except (RuntimeError, MemoryError) as error:  # torch's for a device that is out of memory, among others
            problem = f"{self._config.backend} failed: {type(error).__name__}: {str(error)[:300]}"
            hint = "a GPU out of memory: lower video.short_side_px, or what the backend takes at once"
            raise ClipError(clip.clip_id, STAGE, "model_failed", problem, hint) from error
        try:
            checked = _checked(found, len(frames), camera, (width, height))
        except ValueError as error:
            problem = f"{self._config.backend} gave {error}"
            raise ClipError(clip.clip_id, STAGE, "model_failed", problem, HINT) from None
        points = ((checked.keypoints_px + np.float32(0.5)) * scale - 0.5).astype(np.float32)
        shape = checked.keypoints_cam_m if checked.model_m is None else checked.model_m
        if shape is None:  # seen by `_checked`
            raise ValueError("neither keypoints_cam_m nor model_m: no hand can be placed")
        nothing = np.zeros_like(checked.visible)
        return HandPoints(
            checked.visible, nothing, checked.confidence, points, shape, clip.view, cam_m=checked.keypoints_cam_m
        )


def backend_identity(config: HandsConfig) -> str:
    """What the class says can change its hands; no network is loaded.

    Raises:
        ConfigError: the class cannot be loaded, or says nothing that can be kept.
    """
    said = _asked(config, "identity")
    if not isinstance(said, Mapping) or not said or not all(isinstance(v, str) for pair in said.items() for v in pair):
        problem = f"identity() of {SETTING} = {config.backend!r} gave {said!r}, expected a dict of texts"
        raise ConfigError(problem, 'such as {"code": "1", "weights": "3fa9..."}: rows could not say what made them')
    return ", ".join(f"{name} {said[name]}" for name in sorted(said))


def backend_licence(config: HandsConfig) -> str | None:
    """The licence of the weights, as the class says; None where it does not.

    Raises:
        ConfigError: the class cannot be loaded, or gives no text.
    """
    if not callable(getattr(_class_of(config), "licence", None)):
        return None
    said = _asked(config, "licence")
    if said is not None and not isinstance(said, str):
        raise ConfigError(f"licence() of {SETTING} = {config.backend!r} gave {said!r}, expected a text or None")
    return said


def _class_of(config: HandsConfig) -> type:
    what = f"{SETTING} = {config.backend!r}"
    found = load_named(what, config.backend)
    if not isinstance(found, type):
        raise ConfigError(f"{what} is a {type(found).__name__}, expected a class", "see handloom.models.protocols")
    if lacks := [each for each in ("find", "identity") if not callable(getattr(found, each, None))]:
        raise ConfigError(f"{what}: the class lacks {', '.join(lacks)}", "see handloom.models.protocols")
    return found


def _asked(config: HandsConfig, method: str) -> Any:
    try:
        return getattr(_class_of(config), method)(dict(config.options or {}))
    except AT_IMPORT as error:
        problem = f"{method}() of {SETTING} = {config.backend!r} failed: {type(error).__name__}: {error}"
        raise ConfigError(
            problem, f"it is called on the class, with hands.options ({_listed(config.options)})"
        ) from error


def _listed(options: Mapping[str, Any] | None) -> str:
    return ", ".join(sorted(options)) if options else "which is empty"


def _for_frames(camera: Camera, scale: NDArray[np.float64]) -> Camera:
    """The camera in pixels of frames that are shrunk by `scale` (x, y); pixel centres at whole numbers in both."""
    matrix = camera.camera_matrix.copy()
    matrix[:2, :2] /= scale[:, None]
    matrix[:2, 2] = (matrix[:2, 2] + 0.5) / scale - 0.5
    return replace(camera, camera_matrix=matrix)


def _checked(found: Any, num_frames: int, camera: Camera, size: tuple[int, int]) -> BackendHands:
    """The same hands as float32. Raises ValueError: it says what is wrong. size: of the frames, width and height."""
    if not isinstance(found, BackendHands):
        raise ValueError(f"a {type(found).__name__}, expected a handloom.models.protocols.BackendHands")
    slots = (num_frames, NUM_HANDS)
    visible = _array("visible", found.visible, slots)
    if visible.dtype != bool:
        raise ValueError(f"visible as {visible.dtype}, expected bool")
    confidence = _numbers("confidence", found.confidence, slots, visible)
    given = confidence[visible]
    if len(given) and (given.min() < 0 or given.max() > 1):
        raise ValueError(f"a confidence of {given.min():g} to {given.max():g}, expected 0 to 1")
    points = _numbers("keypoints_px", found.keypoints_px, (*slots, NUM_KEYPOINTS, 2), visible)
    solid = (*slots, NUM_KEYPOINTS, 3)
    placed, model = found.keypoints_cam_m, found.model_m
    if placed is None and model is None:
        raise ValueError("neither keypoints_cam_m nor model_m: no hand can be placed")
    if model is not None:
        model = _numbers("model_m", model, solid, visible)
    if placed is not None:
        placed = _placed(placed, solid, visible, points, camera, size)
    return BackendHands(visible, confidence, points, placed, model)


def _placed(
    given: Any,
    shape: tuple[int, ...],
    visible: NDArray[np.bool_],
    points: NDArray[np.float32],
    camera: Camera,
    size: tuple[int, int],
) -> NDArray[np.float32]:
    name = "keypoints_cam_m"
    known = np.isfinite(_array(name, given, shape)).all(axis=(2, 3))
    placed = _numbers(name, given, shape, visible & known)
    if not known.any():
        return placed
    behind = placed[known][..., 2].max(axis=1).min()
    if behind <= 0:
        raise ValueError(
            f"{name} of a hand at z = {behind:g} m at most, expected above 0: z points from the camera forward"
        )
    apart = np.linalg.norm(project(placed[known].astype(np.float64), camera) - points[known], axis=-1)
    apart = apart[np.isfinite(apart)]  # a lens that folds shows some directions nowhere
    share = float(np.median(apart)) / float(np.hypot(*size)) if len(apart) else 0.0
    if share > MAX_APART:
        raise ValueError(
            f"{name} that the camera shows {share:.2f} of the image's diagonal away from keypoints_px (median), "
            f"expected at most {MAX_APART}: x points right, y down, z forward"
        )
    return placed


def _numbers(name: str, given: Any, shape: tuple[int, ...], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """As float32, checked: finite where a hand is known, NaN elsewhere."""
    values = _array(name, given, shape)
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{name} as {values.dtype}, expected floats: NaN says unknown")
    values = values.astype(np.float32)
    bad = ~np.isfinite(values[known]).all() if known.any() else False
    if bad:
        frame, hand = np.argwhere(known & ~np.isfinite(values.reshape(*known.shape, -1)).all(axis=2))[0]
        raise ValueError(f"{name} that is not finite in frame {frame}, hand {hand}, where the hand is visible")
    if not np.isnan(values[~known]).all():
        frame, hand = np.argwhere(~known & ~np.isnan(values.reshape(*known.shape, -1)).all(axis=2))[0]
        raise ValueError(f"{name} with numbers in frame {frame}, hand {hand}, where no hand is visible: expected NaN")
    return values


def _array(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    values = np.asarray(given)
    if values.shape != shape:
        raise ValueError(f"{name} of the shape {values.shape}, expected {shape}")
    return values
