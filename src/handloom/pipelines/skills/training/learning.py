"""Skills of all tasks of a table: learned, kept in the job's folder and in the table `skills`, and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.io.folder import Folder
from handloom.pipelines.skills.clips import clip_rows, execution_of, skill_row
from handloom.pipelines.skills.skill import teach
from handloom.pipelines.skills.training.tasks import Task
from handloom.sim.scores import wilson
from handloom.skills.execution import Execution
from handloom.skills.match import By, judge
from handloom.skills.reader import Reader
from handloom.skills.skill import Skill
from handloom.store.filters import in_list
from handloom.store.skills.bank import read_skills, write_skills

BYS: tuple[By, ...] = get_args(By)
AT_ONCE = 50
"""Clips whose segments are read at once."""


@dataclass(frozen=True)
class Learned:
    """What a task has taught. executions: of its teaching clips. problem: why there are no skills; empty: there are."""

    task: Task
    skills: tuple[Skill, ...]
    executions: tuple[Execution, ...]
    notes: tuple[str, ...]
    problem: str = ""


def learn_task(db: Database, task: Task, reader: Reader, version: int, folder: Folder) -> Learned:
    """The skills of a task, from the job's folder where they have been learned before.

    Raises StoreError: what is kept cannot be read; and what the reader raises.
    """
    executions = tuple(execution_of(row) for row in rows_of(db, task.teach, version))
    name = f"skills/{task.name}.json"
    told = folder.read_json(name)
    if told is None:
        told = _learned(db, task, reader, version)
        folder.write_json(name, told)
    try:
        skills = tuple(Skill.from_json(text) for text in told["skills"])
        return Learned(task, skills, executions, tuple(told["notes"]), told["problem"])
    except (KeyError, TypeError, ValueError) as error:
        hint = "remove the file: the skill is then learned again"
        raise StoreError(f"{folder.uri}/{name} cannot be read: {error}", hint) from error


def _learned(db: Database, task: Task, reader: Reader, version: int) -> dict[str, Any]:
    if not task.teach:
        return {"skills": [], "notes": [], "problem": "no clip is left to teach it: all of its videos are held out"}
    try:
        found = teach(task.name, None, list(rows_of(db, task.teach, version)), reader, version, split=True)
    except ConfigError as error:
        return {"skills": [], "notes": [], "problem": error.problem}
    return {"skills": [one.to_json() for one in found.skills], "notes": list(found.notes), "problem": ""}


def rows_of(db: Database, clips: Sequence[str], version: int) -> Iterator[dict[str, Any]]:
    """Rows of clips with their segments (`clip_rows`), in this order."""
    for start in range(0, len(clips), AT_ONCE):
        some = clips[start : start + AT_ONCE]
        found = {row["clip_id"]: row for row in clip_rows(db, (), in_list("clip_id", some), version)}
        yield from (found[clip] for clip in some if clip in found)


TAKEN = "--set replace=true takes their place, --set prefix=mine- gives these other names"


def check_names(db: Database, tasks: Sequence[Task]) -> None:
    """Before anything is learned. Raises ConfigError: a skill of a task's name was learned from other clips, so it is
    another one."""
    teach = {task.name: {*task.teach} for task in tasks if task.teach}
    taken = [row["name"] for row in read_skills(db) if {*row["clip_ids"]} - teach.get(row["name"], {*row["clip_ids"]})]
    if taken:
        raise ConfigError(f"{db.uri} has other skills of the names {', '.join(taken[:5])}", TAKEN)


def keep(db: Database, learned: Sequence[Learned], version: int, replace: bool) -> int:
    """Write the skills that the table `skills` lacks; returns their number.

    Raises ConfigError: another skill has one of the names, and `replace` is false; or two of these have one name.
    """
    counts = Counter(skill.name for one in learned for skill in one.skills)
    if twice := [name for name, num in counts.items() if num > 1]:
        hint = "--set where=... takes the clips of one of them"
        raise ConfigError(f"two tasks have taught a skill of the name {twice[0]!r}", hint)
    there = {row["name"]: row["constraints"] for row in read_skills(db)}
    new = [skill for one in learned for skill in one.skills if there.get(skill.name) != skill.to_json()]
    taken = [skill.name for skill in new if skill.name in there]
    if taken and not replace:
        problem = f"{db.uri} has other skills of the names {', '.join(taken[:5])}"
        raise ConfigError(problem, TAKEN)
    rows = [skill_row(skill, list(rows_of(db, skill.clip_ids, version)), version) for skill in new]
    if rows:
        write_skills(db, rows, replace=True)
    return len(rows)


def judged(learned: Sequence[Learned], shown: Mapping[str, Sequence[Execution]]) -> dict[str, dict[str, Any]]:
    """By task and level of the constraints: how many held-out clips of the task (`own`) and of the other tasks
    (`others`) are accepted by any of its skills.

    Args:
        shown: the held-out executions of each task.
    """
    out: dict[str, dict[str, Any]] = {}
    for one in learned:
        if not one.skills:
            continue
        others = [each for name, executions in shown.items() if name != one.task.name for each in executions]
        sides = {"own": shown.get(one.task.name, ()), "others": others}
        out[one.task.name] = {
            by: {side: _counts([_answer(one.skills, each, by) for each in its]) for side, its in sides.items()}
            for by in BYS
        }
    return out


def pooled(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`judged` over all tasks."""
    return {
        by: {
            side: _scored(sum((Counter(one[by][side]["answers"]) for one in tasks.values()), Counter()))
            for side in ("own", "others")
        }
        for by in BYS
    }


def _answer(skills: Sequence[Skill], execution: Execution, by: By) -> str:
    answers = [judge(skill, execution, by).answer for skill in skills]
    return next((one for one in ("executed", "cannot tell") if one in answers), "not executed")


def _counts(answers: Sequence[str]) -> dict[str, Any]:
    return _scored(Counter(answers))


def _scored(answers: Counter[str]) -> dict[str, Any]:
    """Counts by answer, and the accepted share with its interval; null of no clip."""
    num = answers.total()
    known = {"share": answers["executed"] / num, "interval": wilson(answers["executed"], num)} if num else {}
    return {"clips": num, "answers": dict(sorted(answers.items())), "share": None, "interval": None} | known
