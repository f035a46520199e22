"""How long it takes from a person's last frame to the robot's first action, by a student and by the pose pipeline."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.embeddings.look import LookEncoder
from handloom.retrieval.video import opened, settings_of
from handloom.sim.humanoid.dagger import StudentPolicy
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.goals import goals_of
from handloom.sim.humanoid.motions import PersonMotion, motion_of_row
from handloom.sim.humanoid.reference import reference_of
from handloom.sim.humanoid.robot import Body
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.stages.extract import Extractor
from handloom.stages.registry import stage_graph
from handloom.store.tables import Tables
from handloom.train.robomirror.latents import Latents, UnderstoodLatents
from handloom.video.stored_frames import strip_indices

REPEATS, VIDEO_REPEATS = 7, 3
"""The median of so many is told; of whole videos the least is, on a machine that does other things, too."""
IMAGE_EMBEDDING = "image embedding"
"""How intents without a vision-language model begin to say what they are."""
POSE_STAGES = ("probe", "hands_2d", "hands_3d")


def latency_of(
    motion: PersonMotion, body: Body, settings: ImitateSettings, latents: Latents, policy: StudentPolicy
) -> dict[str, Any]:
    """After the frames were understood: `student` (encode the motion, denoise an action) and `kinematics` (retarget,
    inverse kinematics of all frames, the teacher's action), from the same keypoints.

    Of each {`wall_s`, `cpu_s`} (medians), the motion's `frames`, and the ratios of student to kinematics.
    """
    data, teacher = body.state(), Teacher(body, settings.experts)

    def student() -> None:
        encoded = latents.encode(motion.keypoints_cam_m, motion.world_from_camera)
        policy.goals(encoded[-1:], np.zeros((1, settings.student.history * 3 * body.num_joints), np.float32))

    def kinematics() -> None:
        reference = reference_of(goals_of(motion, body, settings.frame), body, settings.kinematics)
        teacher.act(data, reference, 0)

    ours, theirs = _timed(student), _timed(kinematics)
    ratios = {f"{kind}_ratio": ours[f"{kind}_s"] / theirs[f"{kind}_s"] for kind in ("wall", "cpu")}
    return {"student": ours, "kinematics": theirs, **ratios, "frames": motion.num_frames}


def latency_of_video(
    db: Tables,
    video: str,
    start_s: float,
    end_s: float,
    body: Body,
    settings: ImitateSettings,
    policy: StudentPolicy,
    understood: UnderstoodLatents,
    num_images: int,
) -> dict[str, Any]:
    """From a video's frames to the first action, two ways, with the settings of the database.

    `intent`: decode, the image embedding of `num_images` frames, latents from it, the student's action. `pose`: decode,
    the stages `hands_2d` and `hands_3d` with all that they need, retarget, inverse kinematics, the teacher's action.
    `decoding`: what both begin with, alone. Of each {`wall_s`, `cpu_s`}, the least of `VIDEO_REPEATS` after one more,
    with models loaded; CPU time is that of decoding processes, too. `cpu_ratio`, `wall_ratio`: of `intent` to `pose`;
    `..._decoded`: the same without decoding.

    Raises:
        ConfigError: the video cannot be read; the intents are not the image embedding, so that they cannot be made.
    """
    if not understood.source.startswith(IMAGE_EMBEDDING):
        hint = "a vision-language model's latency is that of its machine: measure it there"
        raise ConfigError(f"the intents of {understood.uri} are {understood.source!r}, no image embedding", hint)
    stored = settings_of(db).model_copy(update={"stages": {}})
    look, teacher, data = LookEncoder(), Teacher(body, settings.experts), body.state()
    extractor = Extractor(stored, "latency", stages=stage_graph(stored).ancestors(POSE_STAGES))
    observed = np.zeros((1, settings.student.history * 3 * body.num_joints), np.float32)

    def frames(most: int) -> tuple[NDArray[np.float64], list[int], list[NDArray[np.uint8]]]:
        with opened(stored, video, start_s, end_s, None) as item:
            wanted = strip_indices(len(item.header.frame_s), most).tolist()
            every: list[NDArray[np.uint8]] = []
            for chunk in item.chunks(every.clear):
                every.extend(image.copy() for image in chunk)
            return np.asarray(item.header.frame_s), wanted, [every[number] for number in wanted]

    def intent() -> None:
        frame_s, wanted, images = frames(num_images)
        vectors, since_s = look.encode(np.stack(images)), frame_s[wanted] - frame_s[0]
        num = int((frame_s[-1] - frame_s[0]) * understood.rate_hz + 1e-6) + 1
        policy.goals(understood.encode(video, vectors, since_s, num)[:1], observed)

    def pose() -> None:
        with opened(stored, video, start_s, end_s, None) as item:
            row = extractor.columns(item, POSE_STAGES)
        unknown = {"world_from_camera": None, "world_unit_m": None}
        row = {"clip_id": video, "dataset": "", "video_id": video, **unknown, **row}
        goals = goals_of(motion_of_row(row, understood.rate_hz), body, settings.frame)
        teacher.act(data, reference_of(goals, body, settings.kinematics), 0)

    ways = {"intent": intent, "pose": pose, "decoding": lambda: frames(num_images)}
    found: dict[str, Any] = {name: _timed(way, VIDEO_REPEATS, np.min) for name, way in ways.items()}
    for kind in ("wall", "cpu"):
        both, alone = (found[name][f"{kind}_s"] for name in ("intent", "pose")), found["decoding"][f"{kind}_s"]
        ours, theirs = both
        found |= {f"{kind}_ratio": ours / theirs, f"{kind}_ratio_decoded": (ours - alone) / (theirs - alone)}
    return found | {"video_s": end_s - start_s}


def _timed(
    act: Callable[[], object], repeats: int = REPEATS, middle: Callable[[list[float]], Any] = np.median
) -> dict[str, float]:
    act()  # what is loaded at the first call is not of the latency
    wall, cpu = [], []
    for _ in range(repeats):
        began = time.perf_counter(), _cpu_s()
        act()
        wall.append(time.perf_counter() - began[0])
        cpu.append(_cpu_s() - began[1])
    return {"wall_s": float(middle(wall)), "cpu_s": float(middle(cpu))}


def _cpu_s() -> float:
    """Of this process and of those it has started that have ended."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in times)
