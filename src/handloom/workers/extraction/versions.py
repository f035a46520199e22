"""Every library, model and algorithm whose version can change a row, as this node has them; and whether nodes agree."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2

import handloom
from handloom.errors import ConfigError
from handloom.geometry.camera.path import VERSION as PATH_VERSION
from handloom.models.cuts import VERSION as CUTS_VERSION
from handloom.models.features import VERSION as CORNERS_VERSION
from handloom.models.hands.offline import VERSION as HANDS_VERSION
from handloom.models.hub.fingerprints import sources_digest
from handloom.models.tracks.lucas_kanade import VERSION as LK_VERSION
from handloom.models.tracks.robust import VERSION as RECOVER_VERSION
from handloom.schemas.settings import Settings
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.versions import differing_versions

ALWAYS = ("mediapipe", "decord", "av", "numpy", "scipy")  # mediapipe's wheel holds the hand models of both backends
NAMES = {"av": "pyav"}
OWN = {
    "decode": "numbered packets, pictures as players show them 1",
    "arithmetic": "one thread, OpenCV without IPP 1",
    "hands": f"whole-clip handedness 2, offline {HANDS_VERSION}",
    "hand_fit": "kinematic hand 1",
    "cuts": CUTS_VERSION,
    "corners": CORNERS_VERSION,
    "camera_path": PATH_VERSION,
    "tracks": f"{RECOVER_VERSION}, {LK_VERSION}",
    "lift": "triangulation, hands, maps 1",
    "row": "2",  # sampling grid, stored pictures and quality numbers
}


def model_versions(settings: Settings) -> dict[str, str]:
    """`{what: version}` of this process, of what these settings use: whole versions, models by revision or digest.

    `Settings.run_key` takes of each what counts. `handloom` is the version and the digest of the sources, which tells a
    changed build of the same number on another node; for the key, the steps' own versions stand.

    Raises:
        ConfigError: a package that the settings need is not installed; a model's files cannot be read or fetched.
    """
    versions = {f"embedding_{e.name}": f"{e.model} {e.version}" for e in EMBEDDINGS.values()}
    versions |= {NAMES.get(package, package): _version(package) for package in packages_of(settings)}
    versions["opencv"] = cv2.__version__  # one version, four packages: with and without windows, contrib
    versions["handloom"] = f"{handloom.__version__}, sources {sources_digest(Path(handloom.__file__).parent)}"
    return versions | OWN | _models(settings)


def packages_of(settings: Settings) -> list[str]:
    """The packages that a row of these settings is made with, by their names on PyPI."""
    hands, tracks, depth = settings.hands, settings.tracks, settings.depth
    offline, learned = hands.backend == "offline", depth.provider == "transformers"
    wanted = {
        "pycolmap": settings.camera.poses == "estimate",
        "ai-edge-litert": offline and hands.device == "cpu",
        "torch": (offline and hands.device == "cuda") or tracks.tracker == "cotracker3" or learned,
        "transformers": learned,
        "pillow": learned,  # resizes for the model's image processor
    }
    return [*ALWAYS, *(package for package, is_used in wanted.items() if is_used)]


def check_same(ours: Mapping[str, str], theirs: Mapping[str, str], node: str) -> None:
    """Refuse a node whose rows would be others: under one run key they would look the same.

    Args:
        ours: `model_versions` of the driver.
        theirs: of a process on `node`.

    Raises:
        ConfigError: naming the node and all that differs.
    """
    found = differing_versions(ours, theirs)
    if ours.get("handloom") != theirs.get("handloom"):
        found.insert(0, ("handloom", ours.get("handloom"), theirs.get("handloom")))
    if found:
        listed = (f"{name} is {there or 'absent'} there, {here or 'absent'} here" for name, here, there in found)
        raise ConfigError(
            f"the worker on {node} would make other rows than the driver: {'; '.join(listed)}",
            "install the same packages and put the same model files on all nodes (one image), or leave that node out; "
            "what is committed stays, and the same command goes on",
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        extra = "models" if package in ("torch", "transformers") else "extract"
        problem = f"the settings need {package}, which is not installed"
        raise ConfigError(problem, f"pip install 'handloom[{extra}]', on every node, the driver's too") from None


def _models(settings: Settings) -> dict[str, str]:
    """Learned models and given maps, by their files."""
    found = {}
    if settings.tracks.tracker == "cotracker3":
        from handloom.models.tracks.cotracker import model_identity as tracker_identity

        found["cotracker"] = tracker_identity(settings.tracks)
    if settings.depth.provider == "transformers":
        from handloom.models.depth.transformers_depth import model_identity as depth_identity

        found["depth_model"] = depth_identity(settings.depth)
    if settings.depth.provider == "given":
        from handloom.models.depth.given import folder_identity

        found["depth_folder"] = folder_identity(settings.depth)
    return found
