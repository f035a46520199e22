"""Every library and algorithm whose version can change a row: part of the run key."""

from __future__ import annotations

from importlib.metadata import version

import cv2

from handloom.geometry.camera_path import VERSION as PATH_VERSION
from handloom.models.features import VERSION as CORNERS_VERSION
from handloom.models.hands_offline import VERSION as HANDS_VERSION
from handloom.models.tracks_lk import VERSION as LK_VERSION
from handloom.models.tracks_robust import VERSION as RECOVER_VERSION
from handloom.schemas.embeddings import EMBEDDINGS

PACKAGES = {name: name for name in ("mediapipe", "decord", "pycolmap", "scipy", "ai-edge-litert")} | {"pyav": "av"}
OWN = {
    "decode": "numbered packets, pictures as players show them 1",
    "arithmetic": "one thread, OpenCV without IPP 1",
    "hands": f"whole-clip handedness 1, offline {HANDS_VERSION}",
    "hand_fit": "kinematic hand 1",
    "corners": CORNERS_VERSION,
    "camera_path": PATH_VERSION,
    "tracks": f"{RECOVER_VERSION}, {LK_VERSION}",
    "lift": "triangulation, hands, maps 1",
    "row": "2",  # sampling grid, stored pictures and quality numbers
}


def model_versions() -> dict[str, str]:
    """`{what: version}`."""
    versions = {f"embedding_{e.name}": f"{e.model} {e.version}" for e in EMBEDDINGS.values()}
    versions.update({name: version(package) for name, package in PACKAGES.items()})
    versions["opencv"] = cv2.__version__  # one version, four packages: with and without windows, contrib
    return versions | OWN
