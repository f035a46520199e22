"""CoTracker3 as a PointTracker: a learned tracker, for users who have its checkpoint and may use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ClipError, ConfigError, with_extra
from handloom.models.devices import check_device
from handloom.models.hub.fingerprints import file_digest, files_digest
from handloom.models.protocols import ClipFrames
from handloom.models.tracks.hand_regions import HandRegions
from handloom.models.tracks.lucas_kanade import query_grid
from handloom.models.tracks.queries import Budget, choose_queries
from handloom.schemas.clip import Clip
from handloom.schemas.settings import TracksConfig
from handloom.schemas.values import HandPoints, TrackKind, Tracks, VideoInfo

ENTRY = "cotracker3_offline"
WEIGHTS = "scaled_offline.pth"
BRANCHES = ("main", "master")  # torch.hub takes the one that a repository has
NUM_KEYFRAMES = 4
"""Extra points are chosen in this many frames, evenly spaced from the first on."""
MAX_FRAMES = 900
"""The model attends over the whole clip at once; beyond this the memory of a large GPU does not hold it."""


class CoTracker3:
    """CoTracker3 offline, through torch.hub: forwards and backwards from every query, on `tracks.device`.

    max_frames: a longer clip is an error.

    `tracks.cotracker_repo`: `facebookresearch/co-tracker` (fetched once into torch's hub cache) or a local checkout.
    `tracks.cotracker_checkpoint`: `scaled_offline.pth`; empty: the hub fetches it. Code and weights are CC BY-NC 4.0:
    not for commercial use.

    Source: Karaev et al., CoTracker3 (arXiv 2410.11831); `CoTrackerPredictor.forward` of its repository.

    Raises:
        ConfigError: torch is not installed, there is no such device, or the repository or the checkpoint is not
            available.
    """

    def __init__(self, config: TracksConfig, max_frames: int = MAX_FRAMES) -> None:
        self._config, self._max_frames = config, max_frames
        self._torch, self._model = _load(config.cotracker_repo, config.cotracker_checkpoint)
        self._device = config.device
        check_device("tracks.device", self._device)
        self._model.to(self._device).eval()

    def track(
        self,
        clip: Clip,
        info: VideoInfo,
        frames: ClipFrames,
        hands: HandPoints,
        cuts: Sequence[int] | NDArray[np.integer] = (),
    ) -> Tracks:
        """Points are NaN where the model does not call them visible.

        Raises:
            ClipError: `model_failed`, the clip is too long, or the model fails on it.
        """
        if len(frames) > self._max_frames:
            problem = f"{len(frames)} frames, CoTracker3 takes at most {self._max_frames} at once"
            hint = "cut shorter clips, or lower video.sample_hz"
            raise ClipError(clip.clip_id, "tracks", "model_failed", problem, hint)
        height, width = frames.grey(0).shape
        scale = np.array([info.width / width, info.height / height], np.float32)
        queries, kind, query_frame = self._queries(info, frames, hands, scale)
        used = np.flatnonzero(query_frame >= 0)
        points = np.full((len(frames), len(kind), 2), np.nan, np.float32)
        visible = np.zeros(points.shape[:2], bool)
        try:
            points[:, used], visible[:, used] = self._run(frames, queries[used], query_frame[used])
        except RuntimeError as error:
            hint = "a GPU out of memory: lower video.short_side_px or tracks.extra"
            raise ClipError(clip.clip_id, "tracks", "model_failed", f"CoTracker3: {str(error)[:300]}", hint) from None
        visible &= np.all((points >= -0.5) & (points <= np.array([width, height]) - 0.5), axis=-1)
        points = (points + np.float32(0.5)) * scale - np.float32(0.5)
        points[~visible] = np.nan
        shot = np.searchsorted(np.asarray(cuts, np.int64), np.arange(len(frames)), side="right")
        other = shot[:, None] != shot[np.maximum(query_frame, 0)]
        points[other], visible[other] = np.nan, False
        return Tracks(points, visible, query_frame, kind)

    def _queries(self, info: VideoInfo, frames: ClipFrames, hands: HandPoints, scale: NDArray[np.float32]):
        """Working pixels (N, 2), kinds (N,) and frames (N,); grid first, unused slots last."""
        grid = (query_grid(info.width, info.height, self._config.grid) + np.float32(0.5)) / scale - np.float32(0.5)
        num = len(grid) + self._config.extra
        points = np.full((num, 2), np.nan, np.float32)
        kind, query_frame = np.full(num, TrackKind.NONE, np.int8), np.full(num, -1, np.int32)
        points[: len(grid)], kind[: len(grid)], query_frame[: len(grid)] = grid, TrackKind.GRID, 0
        regions, budget, free = HandRegions.of(hands, scale), Budget(self._config.extra), len(grid)
        none = np.zeros((0, 2), np.float32)
        for t in np.unique(np.linspace(0, len(frames) - 1, NUM_KEYFRAMES + 1)[:-1].astype(int)):
            found, kinds = choose_queries(frames.grey(t), grid if t == 0 else none, regions, t, none, budget)
            at = slice(free, free + len(found))
            points[at], kind[at], query_frame[at] = found, kinds, t
            free += len(found)
        return points, kind, query_frame

    def _run(self, frames: ClipFrames, queries: NDArray[np.float32], query_frame: NDArray[np.int32]):
        """(T, n, 2) working pixels and (T, n) visible."""
        torch = self._torch
        video = torch.stack([torch.from_numpy(frames.rgb(t).copy()) for t in range(len(frames))])
        video = video.permute(0, 3, 1, 2)[None].to(self._device).float()
        asked = np.concatenate([query_frame[:, None].astype(np.float32), queries], axis=1)
        with torch.inference_mode():
            found = self._model(video, queries=torch.from_numpy(asked)[None].to(self._device), backward_tracking=True)
        points, visible = (part[0].cpu().numpy() for part in found[:2])
        if points.shape != (len(frames), len(queries), 2):
            raise RuntimeError(f"it gave tracks of {points.shape}, expected {(len(frames), len(queries), 2)}")
        return points, visible.reshape(points.shape[:2]) > 0.5


def model_identity(config: TracksConfig) -> str:
    """The digests of the repository's code and of the weights.

    Uses no network if both have been fetched before; else fetches them.

    Raises:
        ConfigError: as `CoTracker3` does; the weights' file is not known.
    """
    torch = _torch()
    home = Path(torch.hub.get_dir())
    weights = Path(config.cotracker_checkpoint or home / "checkpoints" / WEIGHTS)
    code = _checkout(config.cotracker_repo, home)
    if code is None or not weights.is_file():
        _load(config.cotracker_repo, config.cotracker_checkpoint)
        code = _checkout(config.cotracker_repo, home)
    if code is None or not weights.is_file():
        problem = f"{config.cotracker_repo!r} has no weights at {weights}: rows could not say what made them"
        raise ConfigError(problem, "set tracks.cotracker_checkpoint to their file")
    try:
        return f"code {files_digest(code, ['*.py'])}, weights {file_digest(weights)}"
    except OSError as error:
        raise ConfigError(f"CoTracker3's files cannot be read: {error}", "check who may read them") from None


def _checkout(repo: str, home: Path) -> Path | None:
    """The folder of a local checkout, or of what torch.hub has fetched."""
    name, _, branch = repo.partition(":")
    names = [f"{name.replace('/', '_')}_{found}" for found in ([branch.replace("/", "_")] if branch else BRANCHES)]
    return next((path for path in (Path(repo), *(home / name for name in names)) if path.is_dir()), None)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        problem = "tracks.tracker is cotracker3, but torch is not installed"
        raise ConfigError(problem, f"{with_extra('models')}; or set tracks.tracker = recover") from None
    return torch


def _load(repo: str, checkpoint: str) -> tuple[Any, Any]:
    """torch and the predictor."""
    torch = _torch()
    local = Path(repo).is_dir()
    hint = "set tracks.cotracker_repo to a checkout of facebookresearch/co-tracker, or go online once"
    try:
        options = {"source": "local"} if local else {"trust_repo": True, "skip_validation": True}
        model = torch.hub.load(repo, ENTRY, pretrained=not checkpoint, **options)
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        raise ConfigError(f"CoTracker3 cannot be loaded from {repo!r}: {str(error)[:300]}", hint) from None
    if checkpoint:
        _read_checkpoint(torch, model, checkpoint)
    return torch, model


def _read_checkpoint(torch: Any, model: Any, path: str) -> None:
    hint = "get scaled_offline.pth from https://huggingface.co/facebook/cotracker3"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.model.load_state_dict(state.get("model", state))
    except (OSError, RuntimeError, AttributeError) as error:
        raise ConfigError(f"the checkpoint {path!r} cannot be used: {str(error)[:300]}", hint) from None
