"""What was found in a rendered clip against its truth, which stands beside the video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.errors import ConfigError
from handloom.io.addresses import is_remote, local_path
from handloom.io.listing import VIDEO_EXTENSIONS
from handloom.synth.truth import TRUTH_SUFFIX
from handloom.web.answers import NotThere, asked_id, asked_version, blocking, bytes_answer, json_answer, packed
from handloom.web.gallery import Gallery, Kept

if TYPE_CHECKING:
    from handloom.bench.truth.rendered import Compared

KEPT_BYTES = 64 << 20


def truth_path(row: Mapping[str, Any]) -> Path | None:
    """The truth beside a clip's video; None: there is none. Only of a local file that has the name of a video."""
    if is_remote(row["video_uri"]):
        return None
    video = Path(local_path(row["video_uri"]))
    path = video.with_suffix(TRUTH_SUFFIX)
    return path if video.suffix.lower()[1:] in VIDEO_EXTENSIONS and path.is_file() else None


def arrays_of(found: Compared) -> dict[str, NDArray[Any]]:
    """The arrays of `/api/truth_arrays`; see `Compared`."""
    named = {
        "truth_keypoints_px": found.keypoints_px,
        "truth_keypoints_cam_m": found.keypoints_cam_m,
        "truth_keypoints_world_m": found.keypoints_world_m,
        "truth_world_from_camera": found.world_from_camera,
        "truth_visible": found.visible,
        "truth_present": found.present,
        "error_px": found.error_px,
        "error_camera_mm": found.error_camera_mm,
        "error_world_mm": found.error_world_mm,
    }
    kept = {name: one for name, one in named.items() if one is not None}
    return {name: one if one.dtype == np.bool_ else one.astype(np.float32) for name, one in kept.items()}


class Truths:
    """Rendered clips of one gallery against their truth; the last ones are kept."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._kept: Kept[Compared] = Kept(
            KEPT_BYTES, lambda one: sum(array.nbytes for array in arrays_of(one).values())
        )

    def compared(self, clip_id: str, version: int | None) -> tuple[Path, Compared]:
        """(the truth's file, a row against it). Raises NotThere where there is none, or it is of another video."""
        from handloom.bench.truth.rendered import compare

        catalogue = self._gallery.catalogue(version)
        row = self._gallery.row(clip_id, catalogue.version)
        path = truth_path(row)
        if path is None:
            hint = f"`handloom synth` writes one beside each video, NAME{TRUTH_SUFFIX}"
            raise NotThere(f"there is no truth beside the video of clip {clip_id}", hint)
        try:
            changed = path.stat()
            key = (catalogue.version, clip_id, changed.st_mtime_ns, changed.st_size)
            return path, self._kept.of(key, lambda: compare(row, path))
        except ConfigError as error:
            raise NotThere(error.problem, error.hint) from error
        except OSError as error:
            raise NotThere(f"{path.name} cannot be read: {error}", "load the page again") from error

    def told(self, clip_id: str, version: int | None) -> dict[str, Any]:
        """All of `/api/truth`."""
        from handloom.bench.truth.rendered import NUMBERS

        path, found = self.compared(clip_id, version)
        return {
            "clip_id": clip_id,
            "file": path.name,
            "arrays": list(arrays_of(found)),
            "num_visible": int(found.visible.sum()),
            "num_found": int(np.isfinite(found.error_px).sum()),
            "numbers": [
                {"name": name, "value": found.numbers[name], "unit": unit, "about": about}
                for name, (unit, about) in NUMBERS.items()
            ],
        }

    def arrays(self, clip_id: str, version: int | None) -> bytes:
        """The arrays, packed."""
        return packed(arrays_of(self.compared(clip_id, version)[1]))


def routes(gallery: Gallery) -> list[Route]:
    """`/api/truth` and `/api/truth_arrays`."""
    truths = Truths(gallery)

    async def truth(request: Request) -> Response:
        return json_answer(request, await blocking(truths.told, asked_id(request), asked_version(request)))

    async def arrays(request: Request) -> Response:
        data = await blocking(truths.arrays, asked_id(request), asked_version(request))
        return bytes_answer(request, data, "application/octet-stream")

    return [Route("/api/truth", truth), Route("/api/truth_arrays", arrays)]
