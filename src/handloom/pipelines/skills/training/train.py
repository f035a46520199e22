"""`handloom train vlmimic`: learn, keep, judge and run the skills of a table's tasks, and report it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from handloom import __version__
from handloom.api import Database
from handloom.draw.training.skill_page import skill_page
from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder, local_folder
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.skills.clips import execution_of
from handloom.pipelines.skills.episodes import EpisodeLog
from handloom.pipelines.skills.reading import Reading
from handloom.pipelines.skills.run import JOB
from handloom.pipelines.skills.training.learning import Learned, check_names, judged, keep, learn_task, pooled, rows_of
from handloom.pipelines.skills.training.robot import Tried, film, scores, try_skills, why_no_robot
from handloom.pipelines.skills.training.settings import COSTS, RECIPE, VlmimicConfig
from handloom.pipelines.skills.training.tasks import Task, tasks_of
from handloom.plural import plural
from handloom.schemas.settings import flatten
from handloom.sim.tabletop.episodes import FAILURES
from handloom.sim.tabletop.plans import not_executed
from handloom.skills.skill import Skill

JSON, HTML = "report.json", "report.html"
NO_RESUME = "name another --out, or --no-resume to remove that job"
FILES = (JSON, HTML, EpisodeLog.FILE, "skills", "videos")
"""What a job keeps beside `job.json`."""
NOTES = (
    "The paper's: skills from a handful of videos without training, semantic and geometric constraints, five videos a "
    "task, grasps and paths that are ranked by what the arm can do, four rounds of adapting a skill to the things of a "
    "scene, two rounds of failure reasoning.",
    "Ours: rules read the clips unless `reader` names a vision-language model; the robot is a Panda in simulation that "
    "knows where things are; failures are reasoned about by rules; clips are held out, which the paper does not do.",
    "Goals of the scenes are the middles of each skill's own bounds: they say how often the arm does what the skill "
    "says. Whether the skill is what clips show is told by the held-out clips.",
)


@dataclass(frozen=True)
class VlmimicSummary:
    """The result of a job. exit: `done` or `interrupted`. tasks, skills: how many. numbers: `judged` over all tasks and
    `robot` over all skills, as in report.json; empty if the job was interrupted, and `report`, the page's URI, too."""

    recipe: str
    exit: str
    out: str
    tasks: int
    skills: int
    numbers: dict[str, Any]
    report: str


def train_skills(
    db: Database,
    config: VlmimicConfig,
    out: Path,
    *,
    resume: bool = True,
    ray_address: str | None = None,
    told: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VlmimicSummary:
    """Learn the skills of a table's tasks into the table `skills`, judge them on held-out clips, and run them on a
    robot arm in simulated scenes where the simulator is installed.

    Nothing is trained: the same clips and settings give the same numbers. A job that was killed goes on in its folder:
    tasks that were learned and episodes that have ended are kept.

    Args:
        out: folder of this machine for `report.html`, `report.json`, `skills/`, `episodes.jsonl` and `videos/`.
        resume: False: remove what an earlier job has left in `out`.
        ray_address: a Ray cluster that runs the episodes, in place of processes of this machine.
        told: gets a line for each task. progress: the numbers of episodes that are done, and of all.

    Raises:
        ConfigError: no clip passes the filter; no task teaches a skill; a name is taken; `out` holds another job or
            cannot be written; a model that is not there.
        StoreError: there are no rows or no segments, or something cannot be read or written.
        HandloomError: the model that reads does not answer; a process died.
    """
    tell = told or (lambda line: None)
    local_folder(out, "--out")
    where = Where(config.resources.workers, ray_address)
    folder, settings = Folder.parse(out), config.settings
    version, is_new = _asked(db, folder, config, resume)
    tasks, notes = tasks_of(db, settings, version)
    reading = Reading(db, settings.reader)
    if is_new and not settings.replace:
        check_names(db, tasks)
    _begin(folder, {"db": db.uri, "version": version, "settings": _plain(config)}, is_new)
    learned = []
    for task in tasks:
        learned.append(learn_task(db, task, reading.reader, version, folder))
        tell(_line(learned[-1]))
        limits = [limit for skill in learned[-1].skills if (limit := not_executed(skill))]
        notes += limits
        for limit in limits:
            tell(f"note: {limit}")
    if not any(one.skills for one in learned):
        why = "; ".join(f"{one.task.name}: {one.problem}" for one in learned[:5])
        hint = "`handloom show CLIP` draws what was found of a clip, docs/segments.md says what is not found"
        raise ConfigError(f"no task has taught a skill: {why}", hint)
    keep(db, learned, version, settings.replace)
    shown = {one.task.name: [execution_of(row) for row in rows_of(db, one.task.held_out, version)] for one in learned}
    by_task = judged(learned, shown)
    why_not = "episodes is 0" if not settings.episodes else why_no_robot()
    num_skills = sum(len(one.skills) for one in learned)
    tried = None
    notes += reading.notes
    videos: dict[str, Any] = {}
    if settings.held_out_share and (none := [one.name for one in tasks if not one.held_out]):
        notes.append(f"nothing is held out of {', '.join(none)}: all clips are of one video, which is never cut in two")
    if why_not:
        tell(f"no robot: {why_not}")
    else:
        try:
            tried = try_skills(out, learned, settings, where, progress)
        except KeyboardInterrupt:
            return VlmimicSummary(RECIPE, "interrupted", str(out), len(tasks), num_skills, {}, "")
        if settings.video:
            videos, problem = _films(out, tried, config)
            notes += [problem] if problem else []
    content = _content(config, version, learned, by_task, tried, why_not, videos, notes)
    folder.write_json(JSON, content)
    folder.write(HTML, skill_page(content, _pictures(learned)).encode())
    numbers = {"judged": content["judged"], "robot": content["robot"]}
    return VlmimicSummary(RECIPE, "done", str(out), len(tasks), num_skills, numbers, f"{folder.uri}/{HTML}")


def _asked(db: Database, folder: Folder, config: VlmimicConfig, resume: bool) -> tuple[int, bool]:
    """The table's version of the job, and whether it begins anew: the folder is empty, or holds a job that has kept
    nothing, or shall be removed, or has kept skills of another prefix alone.

    Nothing is written. Raises as `train_skills`.
    """
    if (newest := db.version) is None:
        raise StoreError(f"no clip of {db.uri} is processed yet", "process them with `handloom run --db DB`")
    new = config.settings.version or newest, True
    job = folder.read_json(JOB)
    there = [name for name in folder.names() if not name.startswith(".")]
    others = [name for name in there if name != JOB]
    if not isinstance(job, dict):
        report = folder.read_json(JSON)
        told = JOB in there or (isinstance(report, dict) and report.get("recipe") == RECIPE)
        is_ours = told and not {*others} - {*FILES}
        if there and not is_ours:
            raise ConfigError(
                f"{folder.uri} holds other files: {', '.join(there[:5])}", "give --out a folder of its own"
            )
        if there and resume:
            state = "is damaged" if JOB in there else "is missing"
            raise ConfigError(f"{folder.uri} holds a job of the recipe {RECIPE} whose {JOB} {state}", NO_RESUME)
        return new
    if (recipe := job.get("recipe")) != RECIPE:
        raise ConfigError(f"{folder.uri} holds a job of the recipe {recipe}", "give --out a folder of its own")
    if not resume or not others:
        return new
    settings = _plain(config)
    costs = COSTS if {EpisodeLog.FILE, JSON} & {*others} else COSTS | {"prefix"}
    differ = [name for name in settings if name not in costs and job["settings"].get(name) != settings[name]]
    if differ:
        told = "; ".join(f"{name} was {job['settings'].get(name)!r}, is {settings[name]!r}" for name in differ)
        raise ConfigError(f"{folder.uri} holds a job with other settings: {told}", f"give those, or {NO_RESUME}")
    if job["db"] != db.uri:
        raise ConfigError(f"{folder.uri} holds a job of the database {job['db']}, not of {db.uri}", NO_RESUME)
    return int(job["version"]), job["settings"]["prefix"] != settings["prefix"]


def _begin(folder: Folder, job: dict[str, Any], is_new: bool) -> None:
    """Write `job.json`; of a new job when what another one has left is removed, so that a kill leaves a job."""
    if is_new:
        for name in FILES:
            folder.remove(name)
    folder.write_json(JOB, {"recipe": RECIPE, **job})


def _plain(config: VlmimicConfig) -> dict[str, Any]:
    return json.loads(config.settings.model_dump_json())


def _line(one: Learned) -> str:
    task = one.task
    clips = f"taught by {plural(len(task.teach), 'clip')}, {len(task.held_out)} held out"
    if one.problem:
        return f"{task.name}: {clips}; no skill: {one.problem}"
    told = (f"{skill.name} ({skill.words}; from {plural(len(skill.clip_ids), 'clip')})" for skill in one.skills)
    return f"{task.name}: {clips}; {'; '.join(told)}"


def _films(out: Path, tried: Tried, config: VlmimicConfig) -> tuple[dict[str, Any], str]:
    """The videos, and why there are none."""
    from handloom.sim.rendering import backend

    try:
        gl = backend()
    except ConfigError as error:
        return {}, f"no videos: {error.problem} ({error.hint})"
    return film(out, tried, config.settings, gl), ""


def _content(
    config: VlmimicConfig,
    version: int,
    learned: list[Learned],
    by_task: dict[str, dict[str, Any]],
    tried: Tried | None,
    why_not: str,
    videos: dict[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    """What report.json says."""
    settings = config.settings
    problems: dict[str, dict[str, str]] = {}
    for (skill, how, mode), why in (tried.problems if tried else {}).items():
        problems.setdefault(skill, {})[f"{how}, {mode}"] = why
    return {
        "recipe": RECIPE,
        "handloom": __version__,
        "settings": flatten(config.shown()),
        "table_version": version,
        "judged": pooled(by_task),
        "robot": scores(tried, settings) if tried else None,
        "why_no_robot": why_not,
        "reasons": FAILURES,
        "tasks": [_task_content(one.task, one, by_task.get(one.task.name)) for one in learned],
        "skills": {
            skill.name: {
                "task": one.task.name,
                "words": skill.task,
                "steps": skill.words,
                "clips": len(skill.clip_ids),
                "robot": scores(tried, settings, [skill.name]) if tried else None,
                "not_run": problems.get(skill.name, {}),
                "videos": videos.get(skill.name, {}),
            }
            for one in learned
            for skill in one.skills
        },
        "notes": notes,
        "about": list(NOTES),
    }


def _task_content(task: Task, one: Learned, its: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": task.name,
        "verb": task.verb,
        "noun": task.noun,
        "clips": task.num_clips,
        "teach": list(task.teach),
        "held_out": list(task.held_out),
        "skills": [skill.name for skill in one.skills],
        "notes": list(one.notes),
        "problem": one.problem,
        "judged": its,
    }


def _pictures(learned: list[Learned]) -> dict[str, bytes]:
    """A PNG of the constraints of each skill."""
    from handloom.draw.skill import skill_picture

    skills: list[Skill] = [skill for one in learned for skill in one.skills]
    return {skill.name: skill_picture(asdict(skill)) for skill in skills}


def train_text(summary: VlmimicSummary) -> str:
    """The summary as text for a reader."""
    lines = [f"{summary.recipe}: {plural(summary.skills, 'skill')} of {plural(summary.tasks, 'task')}"]
    for side, words in (("own", "of their task"), ("others", "of other tasks")):
        told = summary.numbers.get("judged", {}).get("hierarchical", {}).get(side)
        if told and told["share"] is not None:
            lines.append(f"held-out clips {words}: {_share(told)} of {plural(told['clips'], 'clip')} accepted")
    for how, modes in (summary.numbers.get("robot") or {}).items():
        for mode, told in modes.items():
            if told is not None:
                share = _share({"share": told["success_rate"], "interval": told["interval"]})
                lines.append(f"{how} scenes, {mode}: {share} of {plural(told['episodes'], 'episode')} succeeded")
    if summary.exit == "interrupted":
        lines.append(f"stopped; the same command goes on with what is in {summary.out}")
    return "\n".join([*lines, *([f"report: {summary.report}"] if summary.report else [])])


def _share(told: dict[str, Any]) -> str:
    low, high = told["interval"]
    return f"{told['share']:.2f} ({low:.2f} to {high:.2f})"
