"""The report of skills as one HTML file: success on a robot arm, held-out clips, videos, constraints, settings.

`skill_page.html.jinja` and `page.css` say how it looks; this module collects what they show.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from handloom.draw.training.page import environment

TEMPLATE = "skill_page.html.jinja"
SIDES = {"own": "of the task", "others": "of other tasks"}


def skill_page(content: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page as HTML.

    Args:
        content: what report.json says; paths of videos are below the page's folder.
        pictures: a PNG of the constraints of each skill.
    """
    robot: Mapping[str, Any] = content["robot"] or {}
    modes = list(dict.fromkeys(mode for by_mode in robot.values() for mode in by_mode))
    skills: Mapping[str, Any] = content["skills"]
    facts = {
        "tasks": str(len(content["tasks"])),
        "skills": str(len(skills)),
        "clips that teach": str(sum(len(one["teach"]) for one in content["tasks"])),
        "clips held out": str(sum(len(one["held_out"]) for one in content["tasks"])),
        "table version": str(content["table_version"]),
    }
    return environment().get_template(TEMPLATE).render(
        content=content,
        facts=facts,
        headlines=[(how, by_mode[modes[0]]) for how, by_mode in robot.items() if modes and by_mode[modes[0]]],
        why=_why(content, modes[0] if modes else ""),
        notes=[*(note for task in content["tasks"] for note in task["notes"]), *content["notes"]],
        mode=modes[0] if modes else "",
        modes=modes,
        robot=robot,
        sides=SIDES,
        judged=content["judged"],
        tasks=content["tasks"],
        skills=skills,
        pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
    )  # fmt: skip


def _why(content: Mapping[str, Any], mode: str) -> list[str]:
    """Sentences about what went wrong: tasks without a skill, and why episodes failed, with what each reason means."""
    out = [f"{task['name']} has taught no skill: {task['problem']}" for task in content["tasks"] if task["problem"]]
    meaning: Mapping[str, str] = content["reasons"]
    for name, one in content["skills"].items():
        for how, by_mode in (one["robot"] or {}).items():
            told = by_mode.get(mode)
            if told and told["failures"]:
                reasons = [f"{num} {why} ({meaning[why]})" for why, num in told["failures"].items()]
                failed = told["episodes"] - told["successes"]
                out.append(f"{name}, {how} scenes: {failed} of {told['episodes']} failed: {', '.join(reasons)}")
    return out
