"""Settings: what changes a row (`Settings`, part of the run key), and what changes only the cost (`Resources`)."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from handloom.schemas.tables.arrow import SCHEMA_VERSION
from handloom.schemas.versions import counted


class Frozen(BaseModel):
    """Base of all settings: fixed once read, unknown names refused, each field explained by the string below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class VideoConfig(Frozen):
    sample_hz: float = Field(15.0, gt=0, le=1000)
    """Frames per second of the sampling grid. A source that is slower gives each of its frames once."""
    short_side_px: int = Field(360, ge=64, le=4320)
    """Frames are shrunk to this short side for the models; never enlarged. Pixel columns stay in source pixels."""


def _one_number(name: str, given: Any, instead: str) -> Any:
    """Refuse the tables of version 0.3. `instead`: what does their work now."""
    if isinstance(given, dict):
        raise ValueError(
            f"it is one number, no longer one for each dataset name; {instead} (`handloom presets` lists them); then "
            f"leave {name} out, or give it one number"
        )
    return given


class HandsConfig(Frozen):
    backend: Literal["offline", "mediapipe"] = "offline"
    """`offline`: MediaPipe's two models without its graph, the clip read both ways, one hand fitted to all of it.
    `mediapipe`: the reference, MediaPipe Hands in tracking mode, frame by frame, placed by PnP."""
    device: Literal["cpu", "cuda"] = "cpu"
    """`offline`: where the models run. Part of the run key: results are not equal to the last bit."""
    model_complexity: Literal[0, 1] = 1
    """0: the light landmark model, 1: the full one."""
    min_detection_confidence: float = Field(0.5, ge=0, le=1)
    """Palm detections scored below this are not followed."""
    min_tracking_confidence: float = Field(0.5, ge=0, le=1)
    """A hand scored below this is lost, and looked for again."""
    seen_size: float = Field(0.95, ge=0.3, le=2)
    """`offline`: size of a hand as the 2D model draws it, over the hand's own, where the clip list does not say it (a
    camera preset may). MediaPipe's wrist lies inside the hand. 0.95 fits an Ego4D clip with estimated MANO hands, and
    rendered ones. Distances are in proportion to it."""

    @field_validator("seen_size", mode="before")
    @classmethod
    def _is_one_number(cls, given: Any) -> Any:
        return _one_number("hands.seen_size", given, "ingest EgoDex with --camera-preset egodex, which brings its 0.75")


class CameraConfig(Frozen):
    poses: Literal["estimate", "given"] = "estimate"
    """Where the camera is: `given` uses poses that come with a clip, `estimate` finds the others from the scene."""
    assumed_fov_deg: float = Field(70.0, ge=1, le=170)
    """Field of view along the longer image side where the clip list says nothing of a clip's camera: no file beside the
    video, no preset, nothing in the video file."""
    assumed_focal_sigma: float = Field(0.33, gt=0, le=1)
    """Relative standard deviation of the focal length that follows from it: the root mean square distance of the lenses
    that `handloom presets` lists from 70 degrees."""

    @field_validator("assumed_fov_deg", mode="before")
    @classmethod
    def _is_one_number(cls, given: Any) -> Any:
        return _one_number(
            "camera.assumed_fov_deg", given, "say a dataset's lens when it is ingested: --camera-preset or --fov-deg"
        )


class TracksConfig(Frozen):
    tracker: Literal["recover", "lk", "cotracker3"] = "recover"
    """`recover`: finds points again after occlusions. `lk`: plain Lucas-Kanade, the grid only. `cotracker3`: a learned
    tracker (needs torch and its checkpoint; its licence is CC BY-NC 4.0)."""
    extra: int = Field(256, ge=0, le=10000)
    """Query points besides the grid, on hands, on what moves near them and on corners; unused slots stay empty."""
    cotracker_repo: str = "facebookresearch/co-tracker"
    """`cotracker3`: a GitHub repository for torch.hub, or a local checkout."""
    cotracker_checkpoint: str = ""
    """`cotracker3`: path of scaled_offline.pth; empty: torch.hub fetches it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """`cotracker3`: where the model runs. Part of the run key: results are not equal to the last bit."""
    grid: int = Field(36, ge=2, le=200)
    """Query points per side: grid x grid points on the clip's first frame (ARM4R's rule)."""
    regrid_s: float = Field(6.0, ge=0, le=3600)
    """Seconds after which another grid begins, in the picture of then; earlier where few points of the last one can be
    seen, and at a cut. 0: there is the first frame's grid alone."""
    regrid_window: int = Field(16, ge=1, le=1000)
    """Frames before its own in which a later grid is followed, too: so a window of as many and one more frames finds
    one grid for all of them wherever it begins."""
    window_px: int = Field(21, ge=5, le=63)
    """Side of the Lucas-Kanade window, in pixels of the shrunk frame."""
    levels: int = Field(3, ge=0, le=6)
    """Pyramid levels above the shrunk frame."""
    forward_backward_px: float = Field(1.0, gt=0)
    """A point is lost when tracking it on and back misses its start by more than this (pixels of the shrunk frame)."""


class DepthConfig(Frozen):
    provider: Literal["geometry", "transformers", "given"] = "geometry"
    """What the tracks' depth comes from, besides the hands: `geometry` triangulates what rests from the camera's path,
    `transformers` adds a learned metric model's maps, `given` adds maps that lie on disk."""
    model: str = "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
    """`transformers`: a Hugging Face id or a local folder; the model must give metres."""
    device: Literal["cpu", "cuda"] = "cpu"
    """`transformers`: where the model runs. Part of the run key: results are not equal to the last bit."""
    folder: str = ""
    """`given`: the folder with VIDEO_ID.npz or VIDEO_ID/MILLISECONDS.png, complete before the first run: other maps
    make other rows, and ask for another database."""


class FramesConfig(Frozen):
    store: bool = True
    """Keep the sampled frames as JPEG in `frame_jpeg`: training needs pixels."""
    short_side_px: int = Field(256, ge=16, le=4320)
    """Short side of the stored frames; never larger than the shrunk frames the models see."""
    jpeg_quality: int = Field(90, ge=1, le=100)
    """JPEG quality of the stored frames."""
    thumbnail_frames: int = Field(6, ge=1, le=64)
    """Frames in the thumbnail strip, evenly spaced over the clip."""
    thumbnail_height_px: int = Field(96, ge=16, le=1080)
    """Height of the thumbnail strip."""


class Settings(Frozen):
    """Everything that can change a row."""

    video: VideoConfig = VideoConfig()
    """Sampling grid and working size."""
    hands: HandsConfig = HandsConfig()
    """Hand keypoints."""
    camera: CameraConfig = CameraConfig()
    """Intrinsics where none are given."""
    tracks: TracksConfig = TracksConfig()
    """Point tracks."""
    depth: DepthConfig = DepthConfig()
    """Depth of the tracks."""
    frames: FramesConfig = FramesConfig()
    """Stored pictures."""

    def num_grid(self) -> int:
        """G of the columns: the points of a grid."""
        return self.tracks.grid**2

    def num_tracks(self) -> int:
        """N of a row's tracks: the grid and, but for `lk`, the extra points."""
        return self.tracks.grid**2 + (0 if self.tracks.tracker == "lk" else self.tracks.extra)

    def run_key(self, versions: dict[str, str]) -> str:
        """Hash of the settings, of what counts of the versions, and of the schema version: 16 hex digits."""
        content = {"settings": self.model_dump(mode="json"), "versions": counted(versions), "schema": SCHEMA_VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Resources(Frozen):
    """Everything that changes only the cost: never part of the run key."""

    mode: Literal["fused", "split"] = "fused"
    """`fused`: decode and models in one actor. `split`: decode actors feed model actors through the object store."""
    num_actors: int | None = Field(None, ge=1)
    """Actors that hold the models; by default as many as the cluster's CPUs hold. An autoscaling cluster is asked for
    nodes for that many."""
    num_decode_actors: int | None = Field(None, ge=1)
    """Decode actors in split mode; by default a third of the cluster's CPUs."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs that Ray reserves for one model actor."""
    cpus_per_decode_actor: float = Field(1.0, gt=0)
    """CPUs that Ray reserves for one decode actor."""
    gpus_per_actor: float = Field(0.0, ge=0)
    """GPU share that Ray reserves for one model actor."""
    min_actors: int = Field(1, ge=0)
    """A run gives way to training on the same cluster down to this many model actors; 0: it may pause."""
    reserve_cpus: float = Field(0.0, ge=0)
    """CPUs of the cluster that a run leaves to others, used or not."""
    reserve_gpus: float = Field(0.0, ge=0)
    """GPUs of the cluster that a run leaves to others, used or not."""
    wait_s: float = Field(300.0, gt=0)
    """Longest wait for room where others hold the whole cluster when a run starts, or for nodes where all have gone."""
    actor_memory_mb: int = Field(2560, ge=256)
    """Memory that Ray reserves for one actor (scheduling only)."""
    shard_clips: int = Field(16, ge=1)
    """At most this many clips in one shard: the unit of work and of loss when a worker dies."""
    shard_s: float = Field(60.0, gt=0)
    """A shard is closed once its clips add up to this many seconds of video."""
    commit_clips: int = Field(64, ge=1)
    """Commit once this many clips are finished ..."""
    commit_s: float = Field(30.0, gt=0)
    """... or this many seconds after the last commit."""
    stage_s: float = Field(120.0, gt=0)
    """A worker whose clip is in one stage for longer than this ..."""
    stage_frame_s: float = Field(1.5, ge=0)
    """... and this for each of its frames is killed, the clip tried once more in a shard of its own, then rejected as
    `hung`. Thirty times what a stage takes on an idle core."""
    load_s: float = Field(600.0, gt=0)
    """Longest time for loading one model, its download included; then the run stops."""
    decode_timeout_s: float = Field(60.0, gt=0)
    """Longest wait for the next decoded frames of a clip."""
    decode_memory_mb: int = Field(1536, ge=128)
    """Memory limit of the decoding child process."""
    decode_sandbox: Literal["auto", "required", "off"] = "auto"
    """The process that decodes a video may read that file alone, reach no network and start no program: as far as the
    node's kernel allows (`auto`), or else the run stops (`required`). `handloom doctor` says what a machine gives."""
    decode_ahead_mb: int = Field(96, ge=1)
    """Decoded frames that may wait in the actor while earlier ones are processed."""
    inline_frames_mb: int = Field(256, ge=1)
    """Split mode: a clip's frames go through the object store up to this size; beyond it the model actors decode."""
    fetch_attempts: int = Field(3, ge=1)
    """Attempts at fetching a remote video."""
    fetch_cache_mb: int = Field(20_000, ge=1)
    """Disk space for fetched videos on each node. The last 1 GiB of the disk, or 5 % of it, is never filled."""
    fetch_cache_dir: str = ""
    """Folder for fetched videos, on a disk of each node's own; a folder of this user's is made in it. Empty: the node's
    temporary folder."""
    max_reject_share: float = Field(0.98, gt=0, le=1)
    """Stop early when more than this share of the clips is rejected (missing videos are not counted) ..."""
    max_bug_share: float = Field(0.5, gt=0, le=1)
    """Stop early, or fail at the end, when more than this share of the clips met an unexpected exception (`bug`) ..."""
    min_clips_before_stop: int = Field(200, ge=1)
    """... once this many clips are finished; at the end of a run however many they are for `max_bug_share`."""


class RunConfig(Settings):
    """A configuration file: the settings and, under `[resources]`, the resources."""

    resources: Resources = Resources()
    """What changes only the cost."""

    def settings(self) -> Settings:
        return Settings(**{name: getattr(self, name) for name in Settings.model_fields})


def of_any_version(stored: dict[str, Any]) -> dict[str, Any]:
    """Settings as a database has them, in the form of today: tables by dataset name (0.3) become their `*`, the number
    for all others."""

    def today(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return value["*"] if "*" in value else {name: today(inner) for name, inner in value.items()}

    return today(stored)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"video": {"sample_hz": 15}}` as `{"video.sample_hz": 15}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differing(stored: dict[str, Any], asked: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """`(name, stored, asked)` of every setting that differs; None where one side lacks it."""
    left, right = flatten(stored), flatten(asked)
    return [(k, left.get(k), right.get(k)) for k in sorted(left.keys() | right.keys()) if left.get(k) != right.get(k)]
