"""`skill`: learn, list, show, match, adapt and remove."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from handloom.cli.console import Commands, DbOption, JsonOption, WhereOption, app, open_db, say
from handloom.plural import plural

skill = Commands(help="Skills as in VLMimic: learned from a few clips, matched with others, adapted.")
app.add_typer(skill, name="skill")
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings of a vision-language model that reads.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="One setting of that model: base_url=http://...; may be repeated.")
]
COMPARED = {"constraints": "steps and geometry", "words": "words", "text": "sense of the words", "look": "look"}
"""What the parts of a score compare, each 0 to 1."""
LEGEND = "A, B: things in the order in which they are taken; main: the hand that acts longer"


@skill.command()
def learn(
    db: DbOption,
    name: Annotated[str, typer.Option(help="Name of the skill: letters, digits and . _ -")],
    clips: Annotated[list[str] | None, typer.Option(help="Id of a clip that shows it. Repeatable.")] = None,
    where: WhereOption = None,
    task: Annotated[str | None, typer.Option(help="The task in words; by default those of the clips.")] = None,
    split: Annotated[bool, typer.Option("--split", help="Clips of different tasks: one skill of each group.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of a skill of this name.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Learn a skill from a few clips, and keep it."""
    from handloom.pipelines.skills.reading import load_ask_settings
    from handloom.pipelines.skills.skill import learn_skill

    model = load_ask_settings(config, set_ or ())
    found, notes = learn_skill(open_db(db), name, clips or (), where, task, split, replace, model)
    for note in notes:
        say(f"note: {note}")
    if json_:
        print(json.dumps({"skills": [json.loads(one.to_json()) for one in found], "notes": notes}))
        return
    for one in found:
        print(_text(one))


@skill.command("list")
def list_(db: DbOption, json_: JsonOption = False) -> None:
    """All skills of a database."""
    from handloom.pipelines.skills.skill import list_skills

    found = list_skills(open_db(db))
    if json_:
        print(json.dumps([one | {"learned_at": one["learned_at"].isoformat()} for one in found]))
        return
    if not found:
        say("no skill yet; learn one with `handloom skill learn`")
    for one in found:
        gone = f", {len(one['gone'])} without a row" if one["gone"] else ""
        print(f"{one['name']}  {plural(one['num_clips'], 'clip')}{gone}  {one['task'] or '-'}  ({one['steps']})")


@skill.command()
def show(
    name: Annotated[str, typer.Argument(metavar="SKILL", help="Name of the skill.")],
    db: DbOption,
    out: Annotated[Path | None, typer.Option(help="Draw its constraints into this PNG.")] = None,
    json_: JsonOption = False,
) -> None:
    """The constraints of a skill, step by step."""
    from handloom.pipelines.skills.skill import show_skill

    found, notes = show_skill(open_db(db), name, out)
    print(found.to_json() if json_ else _text(found))
    for note in notes:
        say(f"note: {note}")
    if out is not None:
        say(f"wrote {out}")


@skill.command()
def match(
    db: DbOption,
    clip: Annotated[str | None, typer.Option(help="Id of a processed clip.")] = None,
    words: Annotated[str | None, typer.Option("--text", help="A task in words.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of results.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Skills that a clip executes, or that a text names, best first."""
    from handloom.pipelines.skills.skill import match_skills

    found, notes = match_skills(open_db(db), clip, words, k)
    for note in notes:
        say(f"note: {note}")
    if json_:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        parts = ", ".join(f"{COMPARED[name]} {value:.2f}" for name, value in one.parts.items())
        print(f"{one.score:.3f}  {one.name}  {one.task or '-'}  ({parts})")
        if one.verdict is not None:
            print(f"       {one.verdict.answer}{_compared(one.verdict)}")
            for reason in (*one.verdict.reasons, *one.verdict.doubts):
                print(f"       {reason}")


@skill.command("adapt")
def adapt_(
    name: Annotated[str, typer.Argument(metavar="SKILL", help="Name of the skill.")],
    db: DbOption,
    clip: Annotated[str, typer.Option(help="Id of the processed clip that shows the things to adapt to.")],
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """The skill with bounds for the things of a clip; nothing is written."""
    from handloom.pipelines.skills.reading import load_ask_settings
    from handloom.pipelines.skills.skill import adapt_skill

    found, notes = adapt_skill(open_db(db), name, clip, load_ask_settings(config, set_ or ()))
    for note in notes:
        say(f"note: {note}")
    if json_:
        told: dict[str, Any] = {"skill": json.loads(found.skill.to_json()), "things": dict(found.things)}
        told |= {"changes": [asdict(one) for one in found.changes]}
        print(json.dumps(told | {"before": asdict(found.before), "after": asdict(found.after)}))
        return
    for thing, box in found.things.items():
        size = " x ".join(f"{100 * (high - low):.1f}" for low, high in zip(box[:3], box[3:], strict=True))
        print(f"{thing}: {size} cm")
    for one in found.changes:
        way = ", ".join(f"{100 * value:+.1f}" for value in one.moved_m)
        why = f": {one.reason}" if one.reason else ""
        print(f"round {one.round}, {one.step}: {100 * one.gap_m:.1f} cm from the thing, moved by ({way}) cm{why}")
    if not found.changes:
        print("the bounds fit the things of the clip as they are")
    say(f"the clip's own execution: score {found.before.score:.2f} before, {found.after.score:.2f} after")


@skill.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="SKILL", help="Name of the skill.")],
    db: DbOption,
) -> None:
    """Drop a skill. Its clips stay."""
    from handloom.pipelines.skills.skill import remove_skill

    remove_skill(open_db(db), name)
    print(f"removed the skill {name}")


def _compared(verdict: Any) -> str:
    """What an answer rests on."""
    if not verdict.steps:
        return ""
    num, of = verdict.num_checked, plural(len(verdict.steps), "step")
    return f", geometry of {num} of {of} compared" if num else f", by the order of its {of} alone, without geometry"


def _ends(path: Any) -> str:
    """Where a path may end."""
    sides = zip("xyz", path.low[-1, :3], path.high[-1, :3], strict=True)
    return (
        "     ends at " + ", ".join(f"{axis} {100 * low:.0f} to {100 * high:.0f}" for axis, low, high in sides) + " cm"
    )


def _text(one: Any) -> str:
    lines = [
        f"{one.name}: {one.task or '-'} ({plural(len(one.clip_ids), 'clip')}, read by {one.reader})",
        f"  {LEGEND}",
    ]
    for number, step in enumerate(one.constraints, 1):
        lines.append(f"  {number}. {step.text}; in {step.support:.0%} of the clips")
        for region in step.regions:
            size = " x ".join(f"{100 * side:.0f}" for side in (region.high - region.low)[:3])
            lines.append(f"     grasps within {size} cm, from {plural(region.num, 'clip')}")
        if step.path is not None:
            lines.append(_ends(step.path))
    for whole in one.carried:
        lines += [f"  {whole.text}; known in {whole.support:.0%} of the clips", _ends(whole.path)]
    return "\n".join(lines)
