"""`handloom synth`: rendered clips with exact truth, on all cores; of a person, or of a robot."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from handloom.errors import ConfigError
from handloom.io.folder import local_folder
from handloom.pipelines.process_pool import process_pool
from handloom.synth.clip import write_clip
from handloom.synth.robot.dataset import WrittenDemo, write_demo, write_tables
from handloom.synth.robot.demonstration import robot_specs
from handloom.synth.script.demo import synth_specs
from handloom.synth.script.scene import SceneSpec

WORDS = ("video", "narration", "verb", "noun")  # of clips.csv: without times, so that each video is one clip
CAMERAS = ("poses", "intrinsics", "none")


@dataclass(frozen=True)
class SynthSummary:
    """What was rendered: names of clips in order, number of frames, seconds, number of processes."""

    names: tuple[str, ...]
    num_frames: int
    wall_s: float
    workers: int

    @property
    def frames_per_s(self) -> float:
        return self.num_frames / self.wall_s if self.wall_s else 0.0


def synth(
    out_dir: Path | str,
    num_clips: int,
    seed: int = 0,
    *,
    width: int = 480,
    height: int = 360,
    fps: float = 30.0,
    duration_s: float | None = None,
    distorted_share: float = 0.25,
    lens: str | None = None,
    camera: str = "poses",
    truth: bool = True,
    workers: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> SynthSummary:
    """Render `num_clips` clips into `out_dir`: the same seed gives the same files, whatever the number of processes.

    Files: NAME.mp4, NAME.camera.json, NAME.truth.npz (`synth.truth.Truth`); clips.csv, one line per clip with its
    narration, verb and noun, which `ingest folder` reads; clips.json, the same with every scene's specification and the
    boundaries of its actions. NAME is `synth_SEED_NUMBER_ACTION`.

    Args:
        duration_s: of every clip; None lets each action have its own time (2.5 to 6 s).
        distorted_share: share of the lenses that distort, 0 to 1.
        lens: a key of `synth.render.lens.LENSES`, for all clips.
        camera: `poses` writes intrinsics and poses, `intrinsics` no poses, `none` no camera file.
        truth: write NAME.truth.npz.
        workers: processes; None is one per core.

    Raises:
        ConfigError: a setting out of range, or `out_dir` cannot be written.
    """
    out = Path(out_dir)
    _check(num_clips, distorted_share, camera, workers)
    specs = _named(num_clips, seed, width, height, fps, duration_s, distorted_share, lens)
    local_folder(out, "--out")
    workers = min(workers or os.cpu_count() or 1, num_clips)
    began = time.perf_counter()
    with process_pool(workers) as pool:
        jobs = {pool.submit(_render, spec, out / f"{name}.mp4", camera, truth): name for name, spec in specs.items()}
        for number, job in enumerate(as_completed(jobs), 1):
            job.result()
            say(f"rendered {number}/{len(jobs)}: {jobs[job]}")
    wall_s = time.perf_counter() - began
    write_labels(out, specs)
    return SynthSummary(tuple(specs), sum(spec.num_frames for spec in specs.values()), wall_s, workers)


def synth_robot(
    out_dir: Path | str,
    num_demos: int,
    seed: int = 0,
    *,
    width: int = 384,
    height: int = 288,
    fps: float = 15.0,
    duration_s: float | None = None,
    wrist: bool = False,
    truth: bool = True,
    workers: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> SynthSummary:
    """Render `num_demos` demonstrations of a robot into `out_dir`, a LeRobot v3.0 dataset: `ingest lerobot` reads it.

    The actions and words are those of `synth`, done by a gripper (`synth.robot.stage`) before a camera that stands
    still. `observation.state` (7): x, y, z in metres in the robot's base frame, roll, pitch, yaw (intrinsic X-Y-Z),
    gripper 0 closed to 1 open; `action` (7): the next state. truth/episode_NNNNNN.npz: see `robot_dataset.write_demo`.

    Args:
        duration_s: of each; None lets each action have its own time.
        wrist: a second camera, on the gripper.
        truth, workers: as in `synth`.

    Raises:
        ConfigError: a setting out of range, a folder that cannot be written, or one that holds another dataset.
    """
    out = Path(out_dir)
    _check(num_demos, 0.0, CAMERAS[0], workers)
    if width % 2 or height % 2:
        raise ConfigError(f"{width}x{height} px", "the video's sides must be even")
    if (out / "meta" / "info.json").exists():
        raise ConfigError(f"--out {out} already holds a dataset", "name a new folder, or remove this one")
    specs = robot_specs(num_demos, seed, width=width, height=height, fps=fps, duration_s=duration_s)
    local_folder(out, "--out")
    cameras = ("front", "wrist") if wrist else ("front",)
    workers = min(workers or os.cpu_count() or 1, num_demos)
    began = time.perf_counter()
    demos: dict[int, WrittenDemo] = {}
    with process_pool(workers) as pool:
        jobs = {pool.submit(_render_demo, spec, out, i, cameras, truth): i for i, spec in enumerate(specs)}
        for number, job in enumerate(as_completed(jobs), 1):
            demos[jobs[job]] = job.result()
            say(f"rendered {number}/{len(jobs)}: {demos[jobs[job]].task}")
    wall_s = time.perf_counter() - began
    write_tables(out, [demos[i] for i in range(len(specs))], specs[0])
    names = tuple(f"episode_{i:06d}" for i in range(len(specs)))
    return SynthSummary(names, len(cameras) * sum(spec.num_frames for spec in specs), wall_s, workers)


def _check(num_clips: int, distorted_share: float, camera: str, workers: int | None) -> None:
    if num_clips < 1:
        raise ConfigError(f"{num_clips} clips", "ask for at least one")
    if not 0.0 <= distorted_share <= 1.0:
        raise ConfigError(f"distorted share {distorted_share}", "a share, 0 to 1")
    if camera not in CAMERAS:
        raise ConfigError(f"camera {camera!r}", f"one of {', '.join(CAMERAS)}")
    if workers is not None and workers < 1:
        raise ConfigError(f"{workers} workers", "at least one")


def _named(
    num_clips: int,
    seed: int,
    width: int,
    height: int,
    fps: float,
    duration_s: float | None,
    distorted_share: float,
    lens: str | None,
) -> dict[str, SceneSpec]:
    if width % 2 or height % 2:
        raise ConfigError(f"{width}x{height} px", "the video's sides must be even")
    size: dict[str, Any] = {"width": width, "height": height, "fps": fps, "duration_s": duration_s}
    specs = synth_specs(num_clips, seed, **size, distorted_share=distorted_share, lens=lens)
    return {f"synth_{seed}_{i:04d}_{spec.action}": spec for i, spec in enumerate(specs)}


def _render(spec: SceneSpec, path: Path, camera: str, truth: bool) -> None:
    """Render one clip on one thread: each core renders a clip of its own."""
    import cv2

    cv2.setNumThreads(1)
    write_clip(spec, path, camera=camera != "none", poses=camera == "poses", truth=truth)


def _render_demo(spec: SceneSpec, out: Path, index: int, cameras: tuple[str, ...], truth: bool) -> WrittenDemo:
    import cv2

    cv2.setNumThreads(1)
    return write_demo(spec, out, index, cameras, truth)


def write_labels(out: Path, specs: dict[str, SceneSpec]) -> None:
    """Write clips.csv, the words of rendered clips for `ingest folder`, and clips.json, their whole scenes."""
    lines, scenes = [], []
    for name, spec in specs.items():
        actions = spec.actions
        line = {
            "video": f"{name}.mp4", "video_id": name, "narration": spec.narration, "verb": spec.verb,
            "noun": spec.object_noun, "hand": actions[0].hand, "start_s": actions[0].start_s,
            "end_s": actions[-1].end_s, "num_actions": len(actions),
        }  # fmt: skip
        lines.append(line)
        scenes.append(line | {"actions": [asdict(span) for span in actions], "spec": asdict(spec)})
    with (out / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, WORDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    (out / "clips.json").write_text(json.dumps(scenes, indent=1) + "\n")
