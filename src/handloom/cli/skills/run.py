"""`skill run`: execute a skill on a robot arm in simulation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handloom.cli.console import (
    FAILED,
    MOST_EPISODES,
    DbOption,
    JsonOption,
    RayOption,
    WorkersOption,
    counting,
    open_db,
    say,
)
from handloom.cli.skills.skill import SetOption, skill
from handloom.plural import plural

if TYPE_CHECKING:
    from handloom.pipelines.skills.run import SkillRun


@skill.command()
def run(
    name: Annotated[str, typer.Argument(metavar="SKILL", help="Name of the skill.")],
    db: DbOption,
    scene: Annotated[
        str, typer.Option(metavar="seen|unseen|FILE", help="Scenes like the demonstrations', others, or a JSON file.")
    ] = "seen",
    episodes: Annotated[
        int, typer.Option(min=1, max=MOST_EPISODES, help="How often; each in a scene of its own.")
    ] = 50,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scenes.")] = 0,
    mode: Annotated[
        str, typer.Option(help="hierarchical, geometric, semantic, or replay: the most similar clip as it was.")
    ] = "hierarchical",
    rounds: Annotated[int, typer.Option(min=0, max=10, help="Further tries after a failure, for each thing.")] = 2,
    weld: Annotated[bool, typer.Option("--weld", help="Fix held things to the hand in place of friction.")] = False,
    error_m: Annotated[float, typer.Option(help="Metres by which the robot sees things elsewhere (median).")] = 0.0,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings of a vision-language model that reasons about failures.")
    ] = None,
    set_: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for run.json, and videos of two episodes.")] = None,
    video: Annotated[bool, typer.Option(help="Draw the videos of --out.")] = True,
    resume: Annotated[
        bool, typer.Option(help="Go on with the episodes that --out lacks, or drop those that it has.")
    ] = True,
    workers: WorkersOption = None,
    ray_address: RayOption = None,
    json_: JsonOption = False,
) -> None:
    """Execute a skill with a robot arm in MuJoCo, and count how often it succeeds."""
    from handloom.pipelines.skills.reading import load_ask_settings
    from handloom.pipelines.skills.run import run_skill

    model = load_ask_settings(config, set_ or ())
    try:
        with counting("episodes") as progress:
            found, notes = run_skill(
                open_db(db), name, scene, episodes, seed, mode=mode, rounds=rounds, weld=weld, out=out, video=video,
                error_m=error_m, model=model, resume=resume, workers=workers, ray_address=ray_address,
                progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        say("stopped" if out is None else f"stopped; the same command goes on with the episodes that {out} has")
        raise typer.Exit(FAILED) from None
    for note in notes:
        say(f"note: {note}")
    if json_:
        print(json.dumps(asdict(found), allow_nan=False))
        return
    print(_text(found))
    if out is not None:
        say(f"wrote {out}")


def _text(found: SkillRun) -> str:
    low, high = found.interval
    took = "" if found.seconds_median is None else f", the robot took {found.seconds_median:.1f} s (median)"
    lines = [
        f"{found.skill}, {found.mode}, {found.scene}: {found.success_rate:.2f} ({low:.2f} to {high:.2f}), "
        f"{found.successes} of {plural(found.num_episodes, 'episode')}{took}"
    ]
    if found.constraints_met is not None:
        lines.append(f"  all things ended within the skill's own bounds: {found.constraints_met:.0%}")
    lines += [f"  failed: {num} {reason}" for reason, num in found.failures.items()]
    if found.attempts:
        told = ", ".join(f"{num} {reason}" for reason, num in found.attempts.items())
        lines.append(f"  failed attempts, of which others were tried: {told}")
    return "\n".join(lines + [f"  {which}: {path}" for which, path in found.videos.items()])
