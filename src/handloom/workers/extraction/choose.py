"""The models that the settings name. What is not installed is not imported until it is asked for."""

from __future__ import annotations

from handloom.models.hands.offline import OfflineHands
from handloom.models.protocols import DepthProvider, HandExtractor, PointTracker
from handloom.models.tracks.lucas_kanade import LucasKanade
from handloom.models.tracks.robust import RecoveringTracker
from handloom.schemas.settings import DepthConfig, HandsConfig, Settings, TracksConfig

HEAVY = 20.0


def hand_extractor(config: HandsConfig) -> HandExtractor:
    """Raises ConfigError where the device is not there."""
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
    """Stages whose networks may take many times what the usual ones take for a frame: on a CPU, where no GPU is there.

    The factor was not measured: it is meant to be too large.
    """
    chosen = {"tracks": settings.tracks.tracker == "cotracker3", "depth": settings.depth.provider == "transformers"}
    return {stage: HEAVY for stage, is_heavy in chosen.items() if is_heavy}
