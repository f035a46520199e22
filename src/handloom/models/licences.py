"""Licences of the weights that a run's settings use, by stage, as their own files or their authors say."""

from __future__ import annotations

from pathlib import Path

from handloom.models.hub.fingerprints import hub_folder
from handloom.models.hub.licences import licence_of_folder
from handloom.models.own.hands import backend_licence
from handloom.schemas.settings import DepthConfig, Settings

MEDIAPIPE = "apache-2.0"
COTRACKER = "cc-by-nc-4.0"
DEPTH_ANYTHING_V2 = "depth-anything/Depth-Anything-V2-"


def weights_licences(settings: Settings) -> dict[str, str | None]:
    """`{stage: licence}` of the stages whose columns these settings make with learned weights; None where no file says
    it. Uses no network.

    Raises:
        ConfigError: a class that the settings name cannot be used.
    """
    found = {"hands_2d": backend_licence(settings.hands) if ":" in settings.hands.backend else MEDIAPIPE}
    if settings.tracks.tracker == "cotracker3":
        found["tracks"] = COTRACKER  # of its code and its weights, as its repository says
    if settings.depth.provider == "transformers":
        found["depth"] = depth_licence(settings.depth)
    return found


def depth_licence(config: DepthConfig) -> str | None:
    """The licence in the model's card, and of Depth Anything V2 without a card what its authors say: the small models
    are Apache-2.0, the larger ones CC BY-NC 4.0."""
    folder = Path(config.model) if Path(config.model).is_dir() else _cached(config.model)
    said = None if folder is None else licence_of_folder(folder)
    if said is None and config.model.startswith(DEPTH_ANYTHING_V2):
        return "apache-2.0" if "-Small" in config.model else "cc-by-nc-4.0"
    return said


def _cached(model: str) -> Path | None:
    try:
        return hub_folder(model)
    except ImportError:
        return None
