"""`Settings`: everything that can change a row; they enter the run key. `Resources`: what changes only the cost."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from handloom.named import OWN_CLASS
from handloom.schemas.tables.arrow import SCHEMA_VERSION
from handloom.schemas.version_policy import counted

OWN_STAGE = "stage "
"""Names in `versions` of the identities of own stages: `stage gripper`."""


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown names are refused, the string below a field describes it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",  # else inf in a stage's own settings is recorded as null
    )


class VideoConfig(Frozen):
    sample_hz: float = Field(15.0, gt=0, le=1000)
    """Frames per second of the sampling grid. A source that is slower gives each of its frames once."""
    short_side_px: int = Field(360, ge=64, le=4320)
    """Frames are shrunk to this short side for the models; never enlarged. Pixel columns stay in source pixels."""


RENAMED = {"hands.seen_size": "hands.keypoint_scale"}
"""Old and new names of the settings that were renamed in 0.4."""


def with_names_of_today(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Nested settings under their new names, and the old names that were found in them.

    If a setting is given under both names the old one stays, and is refused as unknown later.
    """
    out, found = dict(values), []
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        inner, new_name = out.get(section), new.rpartition(".")[2]
        if isinstance(inner, dict) and name in inner and new_name not in inner:
            out[section] = {new_name if key == name else key: value for key, value in inner.items()}
            found.append(old)
    return out, found


def renamed_note(old: str) -> str:
    """The warning for a setting under its old name."""
    return f"the setting {old} is called {RENAMED[old]} since handloom 0.4"


def _one_number(name: str, given: Any, instead: str) -> Any:
    """Refuse a table by dataset name, as version 0.3 took it. instead: what to use now."""
    if isinstance(given, dict):
        raise ValueError(
            f"it is one number since 0.4, not one for each dataset name; {instead} (`handloom presets` lists them); "
            f"then leave {name} out, or give it one number"
        )
    return given


class HandsConfig(Frozen):
    backend: str = "offline"
    """`offline`: MediaPipe's two models without its graph, the clip read both ways, one hand fitted to all of it.
    `mediapipe`: the reference, MediaPipe Hands in tracking mode, frame by frame, placed by PnP. `package.module:Class`:
    a network of your own ([docs](hand_backends.md))."""
    options: dict[str, Any] | None = None
    """The table that a backend of your own is constructed with: files of weights, thresholds, what it likes."""
    device: Literal["cpu", "cuda"] = "cpu"
    """`offline` and backends of your own: where the models run. Part of the run key: results are not equal to the last
    bit."""
    model_complexity: Literal[0, 1] = 1
    """0: the light landmark model, 1: the full one."""
    min_detection_confidence: float = Field(0.5, ge=0, le=1)
    """Palm detections scored below this are not followed."""
    min_tracking_confidence: float = Field(0.5, ge=0, le=1)
    """A hand scored below this is lost, and looked for again."""
    keypoint_scale: float = Field(0.95, ge=0.3, le=2)
    """`offline`: size of a hand as its 2D keypoints show it over the hand's own size, for clips whose entry in the clip
    list has none (a camera preset brings one). MediaPipe's wrist lies inside the hand. 0.95 fits an Ego4D clip with
    estimated MANO hands, and rendered hands. Distances are in proportion to it. Called `seen_size` before 0.4."""

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values, found = with_names_of_today({"hands": given})
        for old in found:
            warnings.warn(renamed_note(old), FutureWarning, stacklevel=2)
        return values["hands"]

    @field_validator("backend")
    @classmethod
    def _is_known_or_a_class(cls, given: str) -> str:
        if given in ("offline", "mediapipe") or re.fullmatch(OWN_CLASS, given):
            return given
        raise ValueError("expected offline, mediapipe or package.module:Class")

    @field_validator("keypoint_scale", mode="before")
    @classmethod
    def _is_one_number(cls, given: Any) -> Any:
        instead = "ingest EgoDex with --camera-preset egodex, which brings its 0.75"
        return _one_number("hands.keypoint_scale", given, instead)


class CameraConfig(Frozen):
    poses: Literal["estimate", "given"] = "estimate"
    """Poses of the camera: `given` takes those that come with a clip, `estimate` also estimates the others."""
    assumed_fov_deg: float = Field(70.0, ge=1, le=170)
    """Field of view along the longer image side for clips whose camera is unknown: no file beside the video, no preset,
    nothing in the video file."""
    assumed_focal_sigma: float = Field(0.33, gt=0, le=1)
    """Relative standard deviation of the focal length that follows from it: the root mean square distance of the lenses
    that `handloom presets` lists from 70 degrees."""

    @field_validator("assumed_fov_deg", mode="before")
    @classmethod
    def _is_one_number(cls, given: Any) -> Any:
        return _one_number(
            "camera.assumed_fov_deg", given, "give a dataset's lens when it is ingested: --camera-preset or --fov-deg"
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
    """Seconds after which another grid begins; earlier when few points of the last grid are visible, and at a cut.
    0: only the grid of the first frame."""
    regrid_window: int = Field(16, ge=1, le=1000)
    """A later grid is also tracked through this many frames before its own, so that every window of up to this many
    frames plus one has a grid that covers all of it."""
    window_px: int = Field(21, ge=5, le=63)
    """Side of the Lucas-Kanade window, in pixels of the shrunk frame."""
    levels: int = Field(3, ge=0, le=6)
    """Pyramid levels above the shrunk frame."""
    forward_backward_px: float = Field(1.0, gt=0)
    """A point is lost when tracking it forward and back misses its start by more than this (pixels of the shrunk
    frame)."""


class DepthConfig(Frozen):
    provider: Literal["geometry", "transformers", "given"] = "geometry"
    """What the tracks' depth comes from, besides the hands: `geometry` triangulates what rests from the camera's path,
    `transformers` adds a learned metric model's maps, `given` adds maps that lie on disk."""
    model: str = "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
    """`transformers`: a Hugging Face id or a local folder; the model must give metres."""
    device: Literal["cpu", "cuda"] = "cpu"
    """`transformers`: where the model runs. Part of the run key: results are not equal to the last bit."""
    folder: str = ""
    """`given`: the folder with VIDEO_ID.npz or VIDEO_ID/MILLISECONDS.png, complete before the first run: after a
    change of the maps rows need `--recompute`."""


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
    blur_faces: bool = False
    """Blur the faces in `frame_jpeg` and `thumbnail`; `faces_blurred` counts them. Hands are found before."""


class StageConfig(Frozen):
    """A stage of one's own, `[stages.NAME]`; of a stage that handloom brings only the resources can be set."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_by_name=True, serialize_by_alias=True
    )

    class_: str = Field("", alias="class")
    """`package.module:Class`, a subclass of `handloom.stages.Stage`. Empty for a stage that handloom brings."""
    settings: dict[str, Any] = {}
    """The stage's own settings."""
    cpus: float | None = Field(None, gt=0)
    """CPUs that Ray reserves for one of its actors. With this, `gpus`, `memory_mb` or `env` the stage has a pool of
    actors of its own; otherwise it runs in those of the other stages."""
    gpus: float | None = Field(None, ge=0)
    """GPU share that Ray reserves for one of its actors."""
    memory_mb: int | None = Field(None, ge=1)
    """Memory that Ray reserves for one of its actors."""
    batch_clips: int = Field(1, ge=1)
    """Clips that the stage gets at once, at most."""
    env: dict[str, Any] = {}
    """Ray runtime environment of its actors, for example `{pip = ["torch==2.8.0"]}`."""

    def resources(self) -> tuple[str, ...]:
        """The fields that change only the cost."""
        return ("cpus", "gpus", "memory_mb", "batch_clips", "env")

    @property
    def has_pool(self) -> bool:
        """Whether the stage runs in actors of its own."""
        return bool(self.env) or any(value is not None for value in (self.cpus, self.gpus, self.memory_mb))


class Settings(Frozen):
    """Everything that can change a row."""

    video: VideoConfig = VideoConfig()
    """Sampling grid and working size."""
    hands: HandsConfig = HandsConfig()
    """Hand keypoints."""
    camera: CameraConfig = CameraConfig()
    """Poses, and intrinsics for clips without any."""
    tracks: TracksConfig = TracksConfig()
    """Point tracks."""
    depth: DepthConfig = DepthConfig()
    """Depth of the tracks."""
    frames: FramesConfig = FramesConfig()
    """Stored images."""
    stages: dict[str, StageConfig] = {}
    """Stages of one's own by name, and resources of single stages (docs/stages.md)."""

    def num_grid(self) -> int:
        """G of the columns: the points of a grid."""
        return self.tracks.grid**2

    def num_tracks(self) -> int:
        """N of a row's tracks: the grid and, but for `lk`, the extra points."""
        return self.tracks.grid**2 + (0 if self.tracks.tracker == "lk" else self.tracks.extra)

    def run_key(self, versions: dict[str, str]) -> str:
        """Hash of the settings, the counting parts of the versions and the schema version: 16 hex digits.
        Stages of one's own have keys of their own (`stages.keys`) and do not change it.

        A renamed setting is hashed under its first name, so that the run key of existing databases stays the same.
        """
        settings = self.model_dump(mode="json", exclude={"stages"})
        for old, new in RENAMED.items():
            section, _, name = new.partition(".")
            settings[section][old.rpartition(".")[2]] = settings[section].pop(name)
        if settings["hands"]["options"] is None:  # came with 0.4: databases of before have no such setting
            del settings["hands"]["options"]
        if not settings["frames"]["blur_faces"]:  # likewise
            del settings["frames"]["blur_faces"]
        counting = {name: text for name, text in counted(versions).items() if not name.startswith(OWN_STAGE)}
        content = {"settings": settings, "versions": counting, "schema": SCHEMA_VERSION}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Resources(Frozen):
    """Everything that changes only the cost: never part of the run key."""

    mode: Literal["fused", "split"] = "fused"
    """`fused`: decode and models in one actor. `split`: decode actors feed model actors through the object store."""
    num_actors: int | None = Field(None, ge=1)
    """Actors that hold the models; by default as many as the cluster's CPUs allow. An autoscaling cluster is asked for
    nodes for all of them."""
    num_decode_actors: int | None = Field(None, ge=1)
    """Decode actors in split mode; by default a third of the cluster's CPUs."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs that Ray reserves for one model actor."""
    cpus_per_decode_actor: float = Field(1.0, gt=0)
    """CPUs that Ray reserves for one decode actor."""
    gpus_per_actor: float = Field(0.0, ge=0)
    """GPU share that Ray reserves for one model actor."""
    min_actors: int = Field(1, ge=0)
    """A run scales down to this many model actors while training needs the cluster; 0: it may pause."""
    reserve_cpus: float = Field(0.0, ge=0)
    """CPUs of the cluster that a run leaves to others, used or not."""
    reserve_gpus: float = Field(0.0, ge=0)
    """GPUs of the cluster that a run leaves to others, used or not."""
    wait_s: float = Field(300.0, gt=0)
    """Longest wait for free resources when a run starts and others hold the whole cluster, or for nodes when all have
    gone."""
    actor_memory_mb: int = Field(2560, ge=256)
    """Memory that Ray reserves for one actor (scheduling only)."""
    shard_clips: int = Field(16, ge=1)
    """At most this many clips in one shard: the unit of work, which is repeated when a worker crashes. Towards the end
    of a run shards become smaller, down to 4 clips; further only if there are few clips for so many workers."""
    shard_s: float = Field(60.0, gt=0)
    """A shard is closed once its clips add up to this many seconds of video."""
    commit_clips: int = Field(1000, ge=1)
    """Commit once this many clips are finished ..."""
    commit_s: float = Field(30.0, gt=0)
    """... or this many seconds after the last commit. Where a commit takes long, the next one waits for 20 times as
    long, at most 300 s: a driver that is killed loses what was finished in that time."""
    max_small_fragments: int = Field(512, ge=1)
    """Once the table of clips has more fragments of less than 1024 rows, a run merges them beside its work: into
    fragments of 8192 rows, each row once. Merged rows stay on disk twice until the versions from before are dropped."""
    keep_versions_days: float = Field(30.0, gt=0)
    """A run that has merged fragments drops versions of the table of clips that are older than this, but tagged ones.
    Training and readers that began on a version can read it for that long."""
    stage_s: float = Field(120.0, gt=0)
    """A worker whose clip stays in one stage for longer than this ..."""
    stage_frame_s: float = Field(1.5, ge=0)
    """... plus this for each of its frames is killed. The clip is tried once more in a shard of its own, then rejected
    as `hung`. Thirty times what a stage takes on an idle core."""
    load_s: float = Field(600.0, gt=0)
    """Longest time for loading one model, including its download; after it the run stops."""
    decode_timeout_s: float = Field(60.0, gt=0)
    """Longest wait for the next decoded frames of a clip."""
    decode_memory_mb: int = Field(1536, ge=128)
    """Memory limit of the decoding child process."""
    decode_sandbox: Literal["auto", "required", "off"] = "auto"
    """The process that decodes a video may read only that file, and may neither use the network nor start programs:
    `auto` as far as the node's kernel allows, `required` stops the run if it does not. `handloom doctor` shows what a
    machine allows."""
    decode_ahead_mb: int = Field(96, ge=1)
    """Decoded frames that may wait in the actor while earlier ones are processed."""
    inline_frames_mb: int = Field(256, ge=1)
    """Split mode: a clip's frames go through the object store up to this size; beyond it the model actors decode."""
    fetch_attempts: int = Field(3, ge=1)
    """Attempts at fetching a remote video."""
    fetch_cache_mb: int = Field(20_000, ge=1)
    """Disk space for fetched videos on each node. The last 1 GiB of the disk, or 5 % of it, is never filled."""
    fetch_cache_dir: str = ""
    """Folder for fetched videos, on each node's own disk; each user has a folder in it. Empty: the node's temporary
    folder."""
    max_reject_share: float = Field(0.98, gt=0, le=1)
    """Stop early when more than this share of the clips is rejected (missing videos are not counted) ..."""
    max_bug_share: float = Field(0.5, gt=0, le=1)
    """Stop early, or fail at the end, when more than this share of the clips met an unexpected exception (`bug`) ..."""
    min_clips_before_stop: int = Field(200, ge=1)
    """... once this many clips are finished; at the end of a run `max_bug_share` applies to any number of clips."""


class RunConfig(Settings):
    """A configuration file: the settings and, under `[resources]`, the resources."""

    resources: Resources = Resources()
    """What changes only the cost."""

    def settings(self) -> Settings:
        return Settings(**{name: getattr(self, name) for name in Settings.model_fields})


def of_any_version(stored: dict[str, Any]) -> dict[str, Any]:
    """A database's settings, of any version, under today's names. A table by dataset name (0.3) becomes its `*`, the
    number for all other datasets."""

    def today(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return value["*"] if "*" in value else {name: today(inner) for name, inner in value.items()}

    return with_names_of_today(today(stored))[0]


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
