"""How long it takes from a person's last frame to the robot's first action, by a student and by the pose pipeline."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.retrieval.video import decoder_of, opened
from handloom.schemas.settings import Settings
from handloom.sim.humanoid.dagger import StudentPolicy
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.goals import goals_of
from handloom.sim.humanoid.motions import PersonMotion, motion_of_row
from handloom.sim.humanoid.reference import reference_of
from handloom.sim.humanoid.robot import Body
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.stages.extract import Extractor
from handloom.stages.learned.rule_captions import RuleCaption
from handloom.stages.registry import own_stages, stage_graph
from handloom.train.parts.acting import alone
from handloom.train.robomirror.latents import Latents, UnderstoodLatents
from handloom.video.decode.decoder import DecodedClip, Decoder

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

    with alone():
        ours, theirs = _timed(student), _timed(kinematics)
    ratios = {f"{kind}_ratio": ours[f"{kind}_s"] / theirs[f"{kind}_s"] for kind in ("wall", "cpu")}
    return {"student": ours, "kinematics": theirs, **ratios, "frames": motion.num_frames}


@dataclass(frozen=True)
class VideoPart:
    """A clip: seconds of a video's own clock."""

    clip_id: str
    video: str
    start_s: float
    end_s: float


def latency_of_videos(
    stored: Settings,
    parts: Sequence[VideoPart],
    body: Body,
    settings: ImitateSettings,
    policy: StudentPolicy,
    understood: UnderstoodLatents,
    repeats: int = VIDEO_REPEATS,
) -> dict[str, Any]:
    """From videos' files to the first action, two ways, with the settings of a database.

    `intent`: decode the frames that the stage of the intent sees, at the size of stored frames; their image embedding,
    latents from it, the student's action. `pose`: decode, the stages `hands_2d` and `hands_3d` with all that they need,
    retarget, inverse kinematics, the teacher's action. `intent_decoding`, `pose_decoding`: what each begins with.

    Models are loaded, the process that starts decoders runs, and each time the video is new to them. Of each clip
    {`clip_id`, `video_s`}, and of each way {`wall_s`, `cpu_s`}, the least of `repeats` after one more; CPU time
    is that of decoding processes, too. `cpu_ratio`, `wall_ratio`: of `intent` to `pose`; `..._decoded`: the same
    without decoding. Over all clips: `clips`, and the medians of the ratios.

    Raises:
        ConfigError: a video cannot be read; no stage of the settings makes such intents as the latents are made of.
    """
    ways = _Ways(stored, _intent_stage(stored, understood), body, settings, policy, understood)
    found = []
    try:
        for part in parts:
            acts = ways.of(part)
            one: dict[str, Any] = {"clip_id": part.clip_id, "video_s": part.end_s - part.start_s}
            with alone():  # idle threads spin
                one |= {name: _timed(act, repeats, np.min, ways.forget) for name, act in acts.items()}
            for kind in ("wall_s", "cpu_s"):
                ours, theirs, our_start, their_start = (one[name][kind] for name in acts)
                name = f"{kind.removesuffix('_s')}_ratio"
                one |= {name: ours / theirs, f"{name}_decoded": (ours - our_start) / (theirs - their_start)}
            found.append(one)
    finally:
        ways.close()
    ratios = [name for name in found[0] if "_ratio" in name]
    return {"clips": found} | {name: float(np.median([one[name] for one in found])) for name in ratios}


class _Ways:
    """Both ways, with their models loaded, and a decoder of each."""

    def __init__(
        self,
        stored: Settings,
        stage: RuleCaption,
        body: Body,
        settings: ImitateSettings,
        policy: StudentPolicy,
        understood: UnderstoodLatents,
    ) -> None:
        self._stored, self._stage, self._body, self._settings = stored, stage, body, settings
        self._policy, self._understood = policy, understood
        stage.load()
        bare = stored.model_copy(update={"stages": {}})
        self._extractor = Extractor(bare, "latency", stages=stage_graph(bare).ancestors(POSE_STAGES))
        self._teacher, self._data = Teacher(body, settings.experts), body.state()
        self._observed = np.zeros((1, settings.student.history * 3 * body.num_joints), np.float32)
        self._pose = decoder_of(stored)
        self._seen: dict[float, Decoder] = {}
        """By frames a second."""

    def of(self, part: VideoPart) -> dict[str, Callable[[], object]]:
        """By name, those that are compared, then what each begins with."""
        ways: dict[str, Callable[[VideoPart], object]] = {"intent": self._by_intent, "pose": self._by_pose}
        ways |= {"intent_decoding": self._frames, "pose_decoding": self._decode}
        return {name: partial(way, part) for name, way in ways.items()}

    def forget(self) -> None:
        """Nothing is known of a video any more."""
        for decoder in (self._pose, *self._seen.values()):
            decoder.end_video()

    def close(self) -> None:
        self._stage.close()
        for decoder in (self._pose, *self._seen.values()):
            decoder.close()

    def _by_intent(self, part: VideoPart) -> None:
        frame_s, images = self._frames(part)
        vectors, since_s = self._stage.embedded(images), frame_s - part.start_s
        num = int((part.end_s - part.start_s) * self._understood.rate_hz + 1e-6)
        latents = self._understood.encode(part.clip_id, vectors, since_s, max(num, 1))
        self._policy.goals(latents[:1], self._observed)

    def _by_pose(self, part: VideoPart) -> None:
        with self._opened(part, self._pose) as item:
            row = self._extractor.columns(item, POSE_STAGES)
        unknown = {"world_from_camera": None, "world_unit_m": None}
        row = {"clip_id": part.clip_id, "dataset": "", "video_id": part.video, **unknown, **row}
        goals = goals_of(motion_of_row(row, self._understood.rate_hz), self._body, self._settings.frame)
        self._teacher.act(self._data, reference_of(goals, self._body, self._settings.kinematics), 0)

    def _decode(self, part: VideoPart) -> None:
        with self._opened(part, self._pose) as item:
            for _ in item.chunks(lambda: None):
                pass

    def _frames(self, part: VideoPart) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """As many frames as the stage sees, evenly spread, with their times: no other is made an image."""
        hz = min(self._stage.settings.frames / (part.end_s - part.start_s), self._stored.video.sample_hz)
        if hz not in self._seen:
            side_px = min(self._stored.frames.short_side_px, self._stored.video.short_side_px)
            self._seen[hz] = decoder_of(self._stored, None, hz, side_px)
        with self._opened(part, self._seen[hz]) as item:
            images: list[NDArray[np.uint8]] = []
            for chunk in item.chunks(images.clear):
                images.extend(chunk)
            return np.asarray(item.header.frame_s), np.stack(images)

    def _opened(self, part: VideoPart, decoder: Decoder) -> AbstractContextManager[DecodedClip]:
        return opened(self._stored, part.video, part.start_s, part.end_s, None, decoder)


def _intent_stage(stored: Settings, understood: UnderstoodLatents) -> RuleCaption:
    """The stage that makes the intents. Raises ConfigError where there is none, or the intents are a model's."""
    if not understood.source.startswith(IMAGE_EMBEDDING):
        hint = "a vision-language model's latency is that of its machine: measure it there"
        raise ConfigError(f"the intents of {understood.uri} are {understood.source!r}, no image embedding", hint)
    stages = [own.stage for own in own_stages(stored) if understood.column in own.columns]
    made = [stage for stage in stages if isinstance(stage, RuleCaption)]
    if not made or made[0].source != understood.source:
        told = f"it is {made[0].source!r}" if made else "no stage `RuleCaption` makes it"
        problem = f"{understood.uri} was trained on {understood.source!r}, and in the database's settings {told}"
        raise ConfigError(
            problem, f"run the stage that {understood.column} is made by (docs/captions.md) on the database"
        )
    return made[0]


def _timed(
    act: Callable[[], object],
    repeats: int = REPEATS,
    middle: Callable[[list[float]], Any] = np.median,
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    act()  # what is loaded at the first call is not of the latency
    wall, cpu = [], []
    for _ in range(repeats):
        before()
        began = time.perf_counter(), _cpu_s()
        act()
        wall.append(time.perf_counter() - began[0])
        cpu.append(_cpu_s() - began[1])
    return {"wall_s": float(middle(wall)), "cpu_s": float(middle(cpu))}


def _cpu_s() -> float:
    """Of this process, and of all that it has started and these have, whether they run or have ended (in 1/100 s)."""
    spent, parents = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended since
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
            number = int(process.name)
            parents[number], spent[number] = int(fields[1]), [int(field) for field in fields[11:15]]
    ours, ticks = {os.getpid()}, sum(spent[os.getpid()][2:])
    while found := {number for number, parent in parents.items() if parent in ours} - ours:
        ours |= found
        ticks += sum(sum(spent[number]) for number in found)
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime + ticks / os.sysconf("SC_CLK_TCK")
