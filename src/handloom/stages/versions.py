"""The versions on this node of all libraries, models and algorithms that can change a row; whether nodes agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2

import handloom
from handloom.errors import ConfigError
from handloom.geometry.camera.path import VERSION as PATH_VERSION
from handloom.models.corner_tracks import VERSION as CORNERS_VERSION
from handloom.models.cuts import VERSION as CUTS_VERSION
from handloom.models.faces import VERSION as FACES_VERSION
from handloom.models.hands.offline import VERSION as HANDS_VERSION
from handloom.models.hub.fingerprints import sources_digest
from handloom.models.licences import weights_licences
from handloom.models.own.hands import backend_identity
from handloom.models.tracks.lucas_kanade import VERSION as LK_VERSION
from handloom.models.tracks.recovering_tracker import VERSION as RECOVER_VERSION
from handloom.schemas.settings import Settings
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.version_policy import differing_versions, with_licences
from handloom.stages.registry import own_identities, own_licences

ALWAYS = ("mediapipe", "decord", "av", "numpy", "scipy")  # mediapipe's wheel holds the hand models of both backends
NAMES = {"av": "pyav"}
# The run key of existing databases is made of these texts: another one says that rows differ. Do not reword them.
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
    "row": "2",  # sampling grid, stored images and quality numbers
}


def model_versions(settings: Settings, version_of: Callable[[str], str] = version) -> dict[str, str]:
    """`{name: version}` of what these settings use, in this process: full versions, models by revision or digest.

    `Settings.run_key` takes from each the part that counts. `handloom` is the version and a digest of the sources,
    which shows a changed build of the same number on another node; the key has the versions of the steps instead.

    Args:
        version_of: the installed version of a package; raises PackageNotFoundError.

    Raises:
        ConfigError: a package that the settings need is not installed; a model's files cannot be read or fetched; a
            stage of one's own cannot be used.
    """
    versions = {f"embedding_{e.name}": f"{e.model} {e.version}" for e in EMBEDDINGS.values()}
    versions |= {NAMES.get(package, package): _version(package, version_of) for package in packages_of(settings)}
    versions["opencv"] = cv2.__version__  # one version, four packages: with and without windows, contrib
    versions["handloom"] = f"{handloom.__version__}, sources {sources_digest(Path(handloom.__file__).parent)}"
    versions |= OWN | _models(settings) | own_identities(settings)
    versions |= {"faces": FACES_VERSION} if settings.frames.blur_faces else {}
    return with_licences(versions, weights_licences(settings) | own_licences(settings))


def packages_of(settings: Settings) -> list[str]:
    """The packages that make a row of these settings, by their names on PyPI."""
    hands, tracks, depth = settings.hands, settings.tracks, settings.depth
    offline, learned = hands.backend == "offline", depth.provider == "transformers"
    wanted = {
        "pycolmap": settings.camera.poses == "estimate",
        "ai-edge-litert": (offline and hands.device == "cpu") or settings.frames.blur_faces,
        "torch": (offline and hands.device == "cuda") or tracks.tracker == "cotracker3" or learned,
        "transformers": learned,
        "pillow": learned,  # resizes for the model's image processor
    }
    return [*ALWAYS, *(package for package, is_used in wanted.items() if is_used)]


def check_same(ours: Mapping[str, str], theirs: Mapping[str, str], node: str) -> None:
    """Refuse a node whose rows would differ: under one run key nothing would show it.

    Args:
        ours: `model_versions` of the driver.
        theirs: those of a process on `node`.

    Raises:
        ConfigError: they differ; it names the node and all differences.
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


def _version(package: str, version_of: Callable[[str], str]) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        extra = "models" if package in ("torch", "transformers") else "extract"
        problem = f"the settings need {package}, which is not installed"
        raise ConfigError(problem, f"pip install 'handloom[{extra}]', on every node, the driver's too") from None


def _models(settings: Settings) -> dict[str, str]:
    """Learned models and given depth maps, by digests of their files."""
    found = {}
    if ":" in settings.hands.backend:
        found["hand_backend"] = backend_identity(settings.hands)
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
