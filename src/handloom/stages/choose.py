"""The models that the settings name. Each is imported only when it is used: it may not be installed."""

from __future__ import annotations

from handloom.models.hands.offline import OfflineHands
from handloom.models.own.hands import OwnHands
from handloom.models.protocols import DepthProvider, HandExtractor, PointTracker
from handloom.models.tracks.lucas_kanade import LucasKanade
from handloom.models.tracks.recovering_tracker import RecoveringTracker
from handloom.schemas.settings import CameraConfig, DepthConfig, HandsConfig, Settings, TracksConfig

HEAVY = 20.0


def hand_extractor(config: HandsConfig, camera: CameraConfig) -> HandExtractor:
    """Raises ConfigError where the device is not available, or a class that the settings name cannot be used."""
    if ":" in config.backend:
        return OwnHands(config, camera)
    if config.backend == "mediapipe":  # 0.5 s of the 1.3 that a worker's imports take, most of it for matplotlib
        from handloom.models.hands.mediapipe_graph import MediaPipeHands

        return MediaPipeHands(config)
    return OfflineHands(config, config.device)


def point_tracker(config: TracksConfig) -> PointTracker:
    """Raises ConfigError where the tracker cannot be loaded."""
    if config.tracker == "cotracker3":
        from handloom.models.tracks.cotracker import CoTracker3

        return CoTracker3(config)
    return LucasKanade(config) if config.tracker == "lk" else RecoveringTracker(config)


def depth_provider(config: DepthConfig) -> DepthProvider | None:
    """None for `geometry`, which needs no maps. Raises ConfigError where the provider cannot be loaded."""
    if config.provider == "transformers":
        from handloom.models.depth.transformers_depth import TransformersDepth

        return TransformersDepth(config)
    if config.provider == "given":
        from handloom.models.depth.given import GivenDepth

        return GivenDepth(config)
    return None


def heavy_stages(settings: Settings) -> dict[str, float]:
    """`{stage: factor}` of stages whose networks may take many times longer per frame than the default ones (on a CPU).

    For time limits only. The factor was not measured: it is meant to be too large.
    """
    chosen = {"tracks": settings.tracks.tracker == "cotracker3", "depth": settings.depth.provider == "transformers"}
    chosen["hands_2d"] = ":" in settings.hands.backend
    return {stage: HEAVY for stage, is_heavy in chosen.items() if is_heavy}
