"""`handloom sim imitate`: a humanoid's student learns to follow people, and is measured on unseen motions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handloom.errors import ConfigError
from handloom.io.folder import Folder, local_folder
from handloom.machine import installed
from handloom.pipelines.configure import checked, merged_values
from handloom.pipelines.sim.following import Run, follow, runs_of, understood_tasks
from handloom.pipelines.sim.jobs import Where
from handloom.retrieval.video import settings_of
from handloom.schemas.settings import flatten
from handloom.sim.humanoid.checkpoint import RECIPE, OpenedStudent, open_student, save_student
from handloom.sim.humanoid.dagger import Round, StudentPolicy, tasks_of, train
from handloom.sim.humanoid.episodes import Outcome, Task
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.film import VIDEO_HZ, shown_again
from handloom.sim.humanoid.latency import VideoPart, latency_of, latency_of_videos
from handloom.sim.humanoid.motions import PersonMotion, row_motions, scripted_motions
from handloom.sim.humanoid.robot import Body, body_of, find_humanoid
from handloom.sim.humanoid.scores import scores_of, shown_ones
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.sim.rendering import backend
from handloom.sim.world import require_simulator
from handloom.store.location import storage_options_from
from handloom.train.checkpoint import peek
from handloom.train.parts.table_checks import evenly
from handloom.train.robomirror.imitation import Actor
from handloom.train.robomirror.latents import LINEAR_HZ, LinearLatents, UnderstoodLatents, VaeLatents, numbers_of
from handloom.video.write import write_video
from handloom.windows.spec import make_spec
from handloom.windows.split import held_out_videos, joined_videos

if TYPE_CHECKING:
    from handloom.api import Database

REPORT = "imitate.json"
VIDEO_SIZE = (400, 400)
TIMED_CLIPS = 5
"""Held-out clips of which the latency from the video is measured."""
SEEDS = 1_000_000
"""Scripted motions that are held out have the seed plus this."""
EXAMPLE = "rounds=2"
LISTED = "`handloom sim imitate --show-settings` prints all settings, docs/humanoid.md explains them"
MEASURED = ("held_out", "where", "repeats", "understood_samples", "evaluation_noise_rad", "allowed_m")
"""Settings of the evaluation: those that are asked of a student that was trained before."""


@dataclass(frozen=True)
class Imitation:
    """What `imitate` measured; all of it is JSON, in `imitate.json`.

    robot: its name. latents: `vae` or `linear`. motions: {trained, held out, of the table: counts, what was left out}.
    out_of_reach: share of the person's wrists that the robot cannot reach, by source. policies: by source of motions
    (`scripted`, `table`) and policy (`student`, `other_motion`: the student with another motion's latents, `teacher`,
    `hold`, and with an `understand` checkpoint `understood`), see `scores_of`. latency: see `latency_of`, and `video`,
    see `latency_of_videos`; null where it was not measured. rounds: the course of the training.
    """

    robot: str
    joints: int
    latents: str
    checkpoint: str
    motions: dict[str, Any]
    out_of_reach: dict[str, float | None]
    policies: dict[str, dict[str, Any]]
    latency: dict[str, Any]
    rounds: list[dict[str, Any]]
    videos: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str | None]
    train_cpu_s: float


def load_settings(config: Path | None, assignments: Sequence[str]) -> ImitateSettings:
    """Defaults, then the TOML file, then `--set`. Raises ConfigError: a wrong name or value."""
    values = merged_values([config] if config else [], assignments, EXAMPLE)
    return checked(ImitateSettings, values, LISTED)


def imitate(
    out: Path,
    settings: ImitateSettings,
    *,
    robot: str = "gr1",
    db: Database | None = None,
    motion: str | None = None,
    understand: str | None = None,
    student: str | None = None,
    videos: bool = True,
    workers: int | None = None,
    ray_address: str | None = None,
    told: Callable[[str], None] | None = None,
) -> Imitation:
    """Train a student and measure it; or measure one that was trained.

    Args:
        out: a local folder for the checkpoint, `imitate.json` and videos. A student in it that the same call trained,
            which was killed before its report, is measured. robot: see `find_humanoid`.
        db: whose clips of people are motions, too, some of them held out. motion: a checkpoint of `handloom train
            robomirror`; None: linear latents, fitted to the training motions. understand: a checkpoint of its stage
            `understand`: on held-out clips of the table that have an intent, the student is also told the latents that
            this makes of the intent.
        student: an `--out` of before: nothing is trained, and its settings are used.
        videos: of two episodes of each source (`shown_ones`).
        workers: processes of the evaluation's episodes; None: one per core, where there are many. ray_address: a Ray
            cluster that runs them instead.

    Raises:
        ConfigError: an unknown robot, one that lacks a joint, a checkpoint of something else; no motion; videos on a
            machine that draws no pictures.
        ModuleNotFoundError: the simulator, or torch, is not installed.
    """
    where = Where(workers, ray_address)
    require_simulator()
    if understand is not None and db is None:
        raise ConfigError("--understand without --db", "add --db DB: intents are those of a table's clips")
    tell = told or (lambda line: None)
    gl = backend() if videos else None
    body = body_of(find_humanoid(robot))
    options = storage_options_from(os.environ)
    folder = Folder.parse(str(out), options)
    is_resumed = student is None and _is_unmeasured(folder)
    opened = None if student is None else open_student(student, body, options, motion)
    if is_resumed:
        opened = open_student(folder.uri, body, options)
        _check_same(opened, settings, db, motion)
        tell(f"the student in {folder.uri} was trained before this command was interrupted: it is measured")
    _check_out(folder, student, is_resumed)
    if opened is not None and not is_resumed:
        _check_settings(settings, opened.settings)
        settings = opened.settings.model_copy(update=_measured(settings))
    Teacher(body, settings.experts)  # an unknown expert is said before anything is computed
    local_folder(out, "--out")
    rate_hz, latents = LINEAR_HZ, None if opened is None else opened.latents
    if opened is None and motion is not None:
        latents = VaeLatents(motion)
    if latents is not None:
        rate_hz = latents.rate_hz
    sources = _sources(settings, db, rate_hz, None if opened is None or is_resumed else opened.videos)
    if opened is not None and is_resumed:
        _check_videos(opened, sources)
    tell(f"motions: {', '.join(f'{len(found)} {name}' for name, found in sources.motions.items())}")
    if opened is None and not sources.motions["train"]:
        raise ConfigError("there is no motion to train on", "--set scripted=240, or more clips of --db")
    if latents is None:
        numbers = [numbers_of(one.keypoints_cam_m, one.world_from_camera) for one in sources.motions["train"]]
        latents = LinearLatents.fitted(numbers, rate_hz)
    samples = settings.understood_samples
    understood = None if understand is None else UnderstoodLatents(understand, latents, samples)
    seen = [one for one in sources.motions["table"] if one.intent is not None]
    if understood is not None and not seen:
        hint = "compute their intents (docs/robomirror.md), or leave --understand out"
        raise ConfigError("no held-out clip of the table has an intent", hint)
    tasks = {
        name: tasks_of(found, body, settings.kinematics, latents, settings.frame)
        for name, found in sources.motions.items()
    }
    started, rounds = time.process_time(), []
    if opened is None:

        def each(one: Round) -> None:
            tell(
                f"round {one.number + 1} of {settings.rounds}: the teacher's share {one.teacher_share:.2f}, success "
                f"{one.success_rate:.2f}, {one.mpkpe_mm:.0f} mm, {one.samples} samples, loss {one.loss:.4f}"
            )

        trained = train(body, tasks["train"], settings, each)
        rounds = [asdict(one) for one in trained.rounds]
        policy, version = StudentPolicy(Actor(trained.imitator.network), body), sources.version
        spent = time.process_time() - started
        data_uri = None if db is None else db.uri
        checkpoint = save_student(
            folder, trained, body, latents, settings, version, data_uri, sources.trained_on, spent
        )
    else:
        policy, checkpoint = opened.policy, opened.uri
        rounds, spent = (opened.rounds, opened.train_s) if is_resumed else ([], 0.0)
    held_out = {name: found for name, found in tasks.items() if name != "train" and found}
    runs = [run for name, found in held_out.items() for run in runs_of(name, found, policy, body, settings)]
    if understood is not None:
        by_name = {task.name: task for task in tasks["table"]}
        runs.append(Run("table", "understood", policy, understood_tasks(seen, by_name, understood)))
    results = follow(runs, body, settings, where)
    video_latency = None
    if understood is not None and db is not None:
        video_latency = _of_video(db, seen, body, settings, policy, understood, tell)
    film = {}
    if gl is not None:
        film = {
            f"{name}_{which}": path
            for name, found in held_out.items()
            for which, path in _film(body, found, results[name]["student"], out, name, gl).items()
        }
    shortest = min(sources.motions["scripted"] + sources.motions["table"], key=lambda one: one.num_frames)
    found = Imitation(
        robot=body.humanoid.name,
        joints=body.num_joints,
        latents=latents.name,
        checkpoint=checkpoint,
        motions={name: len(motions) for name, motions in sources.motions.items()} | {"left_out": sources.left_out},
        out_of_reach={name: _out_of_reach(found) for name, found in tasks.items() if found},
        policies={
            name: {policy_name: scores_of(outcomes) for policy_name, outcomes in by_policy.items()}
            for name, by_policy in results.items()
        },
        latency=latency_of(shortest, body, settings, latents, policy) | {"video": video_latency},
        rounds=rounds,
        videos=film,
        settings=settings.model_dump(mode="json"),
        versions={name: installed(name) for name in ("mujoco", "mink", "robosuite", "torch")},
        train_cpu_s=spent,
    )
    folder.write_json(REPORT, asdict(found))
    return found


@dataclass(frozen=True)
class _Sources:
    """motions: by `train`, and held out: `scripted`, `table`. version: of the table, 0 without one."""

    motions: dict[str, list[PersonMotion]]
    left_out: dict[str, int]
    version: int

    @property
    def trained_on(self) -> frozenset[str]:
        """Videos of the table's motions that are trained on."""
        return frozenset(one.video for one in self.motions["train"] if one.video)


def _sources(settings: ImitateSettings, db: Database | None, rate_hz: float, known: frozenset[str] | None) -> _Sources:
    """The motions, divided: scripted ones by their seed, clips by their video.

    known: videos that a student was trained on before: it is measured on all others. None: a student shall be trained.
    """
    train = scripted_motions(settings.scripted, settings.seed, rate_hz) if known is None else []
    held = scripted_motions(settings.held_out, settings.seed + SEEDS, rate_hz)
    if db is None:
        return _Sources({"train": train, "scripted": held, "table": []}, {}, 0)
    found, left_out = row_motions(db, settings.where, rate_hz)
    # As the recipes split them, so that what is held out here was held out when the latents were learned.
    spec = make_spec(fields=["frame_s"], past=1, future=0, seed=settings.seed, held_out_share=settings.held_out_share)
    rows = db.table("clips")
    joined = {} if rows is None else joined_videos(rows, spec)
    video_of = {one.name: joined.get(one.video, one.video) for one in found}
    chosen = held_out_videos(set(video_of.values()), spec.seed, spec.held_out_share)
    if known is not None:
        table = [one for one in found if one.video not in known]
        return _Sources({"train": [], "scripted": held, "table": table}, left_out, db.version or 0)
    table = [one for one in found if video_of[one.name] in chosen]
    train += [one for one in found if video_of[one.name] not in chosen]
    return _Sources({"train": train, "scripted": held, "table": table}, left_out, db.version or 0)


def _measured(settings: ImitateSettings) -> Mapping[str, Any]:
    """What of the settings is asked of a student that was trained before: which motions it is measured on."""
    return {name: getattr(settings, name) for name in MEASURED}


def _check_settings(given: ImitateSettings, own: ImitateSettings) -> None:
    """Raise ConfigError for a setting that a trained student has otherwise."""
    asked = given.model_fields_set - {*MEASURED}
    if unused := sorted(name for name in asked if getattr(given, name) != getattr(own, name)):
        hint = f"a trained student has its own; for its evaluation: {', '.join(MEASURED)}"
        raise ConfigError(f"the settings {', '.join(unused)} with --student", hint)


def _is_unmeasured(folder: Folder) -> bool:
    """Whether the folder holds a student whose training ended, and no report: the command was killed between."""
    found = peek(folder)
    return found is not None and found[0].recipe == RECIPE and folder.read(REPORT) is None


def _check_same(opened: OpenedStudent, settings: ImitateSettings, db: Database | None, motion: str | None) -> None:
    """Raise ConfigError where the command that trained a student was another one."""
    asked = {"version of --db": db.version if db else 0, "--motion": VaeLatents(motion).uri if motion else None}
    has: dict[str, Any] = {"version of --db": opened.data_version, "--motion": opened.latents_uri}
    if opened.data_uri is not None and db is not None:
        asked, has = {"--db": db.uri, **asked}, {"--db": opened.data_uri, **has}
    asked |= flatten(settings.model_dump(mode="json"))
    has |= flatten(opened.settings.model_dump(mode="json"))
    if other := [f"{name} was {has.get(name)}, is {asked[name]}" for name in asked if asked[name] != has.get(name)]:
        problem = f"{opened.uri} is of a command that was interrupted, and another one: {'; '.join(other[:5])}"
        raise ConfigError(problem, "name another folder; or measure what is there: --student")


def _check_videos(opened: OpenedStudent, sources: _Sources) -> None:
    """Raise ConfigError where the same command would train on other videos now: the database was made anew."""
    if other := sorted(opened.videos ^ sources.trained_on):
        problem = (
            f"{opened.uri} was trained on other videos than --db now gives: {', '.join(other[:3])} in one of them only"
        )
        raise ConfigError(problem, "name another folder; or measure what is there: --student")


def _check_out(folder: Folder, student: str | None, is_resumed: bool) -> None:
    """Raise ConfigError where a checkpoint or a report of before would be replaced."""
    if student is None and not is_resumed and (found := peek(folder)) is not None:
        hint = f"name another folder; or measure what is there: --student {folder.uri}"
        raise ConfigError(f"--out {folder.uri} holds a checkpoint of {found[0].recipe}", hint)
    if student is not None and folder.uri == Folder.parse(student).uri and folder.read(REPORT) is not None:
        raise ConfigError(f"--out {folder.uri} holds the report of the student's training", "name another folder")


def _of_video(
    db: Database,
    motions: Sequence[PersonMotion],
    body: Body,
    settings: ImitateSettings,
    policy: StudentPolicy,
    understood: UnderstoodLatents,
    tell: Callable[[str], None],
) -> dict[str, Any] | None:
    """The latency of held-out clips of all lengths; None, and why, where it cannot be measured."""
    by_length = sorted(motions, key=lambda one: one.num_frames)
    chosen = [by_length[number] for number in evenly(len(by_length), TIMED_CLIPS)]
    parts = []
    for one in chosen:
        row = db.row(one.name, ["video_uri", "start_s", "end_s"]).to_pylist()[0]
        parts.append(VideoPart(one.name, str(row["video_uri"]), float(row["start_s"]), float(row["end_s"])))
    try:
        return latency_of_videos(settings_of(db), parts, body, settings, policy, understood)
    except ConfigError as error:
        tell(f"the latency from a video was not measured: {error.problem}")
        return None


def _film(
    body: Body, tasks: Sequence[Task], outcomes: Sequence[Outcome], out: Path, name: str, gl: str
) -> dict[str, str]:
    by_name, paths = {task.name: task for task in tasks}, {}
    for which in ("best", "longest", "farthest", "worst"):  # of an earlier measurement
        (out / f"{name}_{which}.mp4").unlink(missing_ok=True)
    for which, outcome in shown_ones(outcomes).items():
        path = out / f"{name}_{which}.mp4"
        pictures = list(shown_again(body, outcome, by_name[outcome.name].reference, VIDEO_SIZE, gl))
        write_video(path, pictures, np.arange(len(pictures)) / VIDEO_HZ)
        paths[which] = str(path)
    return paths


def _out_of_reach(tasks: Sequence[Task]) -> float | None:
    shares = [task.reference.out_of_reach for task in tasks]
    known = [share for share in shares if np.isfinite(share)]
    return float(np.mean(known)) if known else None
