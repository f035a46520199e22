"""`handloom bench skills`: skills learned from 1, 3, 5 and 7 clips, and what they accept and reject.

The clips are scripted scenes (other things, places, lengths and cameras each time) of which hands and points are seen
exactly, but for a pixel of noise: what is measured is the learning, after the real stage `segments`. `held_out` are
executions of the same skill, `others` those of the other skills, `corrupted` held-out executions with a step missing,
in another order, with a path that goes elsewhere, or with a grasp from elsewhere. A clip in which the stage finds no
step is counted as rejected, and in `without_steps`. The same is measured on rendered clips that are extracted
(`extracted`), but not with `--quick`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from typing import Any

import numpy as np

from handloom.bench.report import describe, goal
from handloom.bench.segments.exact import exact_scene
from handloom.bench.skills.corrupted import CORRUPTIONS, rate
from handloom.bench.skills.extracted import EXTRACTED_SEED, extracted_executions, extracted_results
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.geometry.interactions.segments import find_segments
from handloom.kernels import one_thread_each
from handloom.machine import cores_allowed
from handloom.pipelines.process_pool import process_pool
from handloom.skills.adapt import adapt
from handloom.skills.execution import Execution, read_execution
from handloom.skills.learn import learn
from handloom.skills.match import By, judge
from handloom.skills.reader import RuleReader
from handloom.skills.skill import Skill
from handloom.stages.builtin.segments import Segments, segment_cell
from handloom.synth.script.demo import turn_specs

TURNS = ("lift-place", "lift-carry-place", "move", "pour", "put", "push", "wipe", "open-close")
NUMBERS = (1, 3, 5, 7)
HELD_OUT, QUICK_HELD_OUT = 8, 3
SEED, NOISE_PX = 3000, 1.0
METHODS: tuple[By, ...] = ("hierarchical", "geometric", "semantic")


def bench_skills(watch: Watch) -> dict[str, Any]:
    """Measure on scripted scenes and on extracted clips, in one process per core."""
    turns = TURNS[:3] if watch.quick else TURNS
    numbers = NUMBERS[:2] if watch.quick else NUMBERS
    num = max(numbers) + (QUICK_HELD_OUT if watch.quick else HELD_OUT)
    found: dict[str, list[Execution]] = {}
    extracted: dict[str, Execution] = {}
    with watch.measuring():
        found = _executions(turns, num, watch)
        if not watch.quick:
            extracted_executions(watch, extracted)
    results: dict[str, Any] = {"seed": SEED, "noise_px": NOISE_PX, "turns": list(turns)}
    results |= results_of(found, numbers) if found else {}
    if extracted and not watch.interrupted:
        results["extracted"] = {"seed": EXTRACTED_SEED} | extracted_results(extracted, numbers)
    return describe("skills", results, goals_of(results), watch)


def _executions(turns: Sequence[str], num: int, watch: Watch) -> dict[str, list[Execution]]:
    watch.expect(len(turns) * num)
    watch.part("scenes and their segments")
    out: dict[str, list[Execution]] = {turn: [] for turn in turns}
    with one_thread_each(), process_pool(cores_allowed()) as pool:
        jobs = {pool.submit(execution_of, turn, number): turn for turn in turns for number in range(num)}
        for job in as_completed(jobs):
            out[jobs[job]].append(job.result())
            watch.did(jobs[job])
    return {turn: sorted(some, key=lambda one: one.clip_id) for turn, some in out.items()}


def execution_of(turn: str, number: int) -> Execution:
    """Clip `number` of a turn, as the stage `segments` sees it."""
    scene, _ = exact_scene(turn_specs(turn, number + 1, SEED)[number], NOISE_PX, number)
    settings = Segments.Settings()
    cells = find_segments(scene, settings.contact_m, settings.min_path_m).segments
    return read_execution(f"{turn}:{number:03d}", [segment_cell(one) for one in cells])


def results_of(found: Mapping[str, Sequence[Execution]], numbers: Sequence[int]) -> dict[str, Any]:
    """Rates by number of clips and method, and by turn."""
    most = max(numbers)
    by_clips = {}
    for num in numbers:
        counts: dict[str, dict[str, list[bool]]] = {method: {} for method in METHODS}
        refused, by_turn = [], {}
        for turn, executions in found.items():
            try:
                skill = learn(turn, turn, executions[:num], RuleReader()).skills[0]
            except ConfigError as error:
                refused.append({"turn": turn, "problem": error.problem})
                continue
            own: dict[str, Any] = {"steps": skill.words, "clips": len(skill.clip_ids)}
            for method in METHODS:
                told = verdicts(skill, turn, found, most, method)
                own[method] = {name: rate(values) for name, values in told.items()}
                for name, values in told.items():
                    counts[method].setdefault(name, []).extend(values)
            by_turn[turn] = own | {"adapted": adapted_rates(skill, executions[most:])}
        rates = {method: _rates(told) for method, told in counts.items()}
        by_clips[str(num)] = {**rates, "refused": refused, "by_turn": by_turn}
    held = {turn: executions[most:] for turn, executions in found.items()}
    without = {turn: sum(not one.steps for one in some) for turn, some in held.items()}
    return {"clips": by_clips, "held_out_clips": {t: len(some) for t, some in held.items()}, "without_steps": without}


def verdicts(
    skill: Skill, turn: str, found: Mapping[str, Sequence[Execution]], first: int, by: By
) -> dict[str, list[bool]]:
    """What is accepted, of the clips from `first` on. held_out_with_steps: without those in which nothing was found."""
    held = found[turn][first:]
    seen = [judge(skill, one, by).accepted for one in held]
    out = {"held_out": seen, "held_out_with_steps": [ok for ok, one in zip(seen, held, strict=True) if one.steps]}
    others = [one for name, some in found.items() if name != turn for one in some[first:]]
    out["others"] = [judge(skill, one, by).accepted for one in others]
    for kind, change in CORRUPTIONS.items():
        changed = [change(one) for one in held if judge(skill, one).accepted]
        out[f"corrupted_{kind}"] = [judge(skill, one, by).accepted for one in changed if one is not None]
    return out


def adapted_rates(skill: Skill, held: Sequence[Execution]) -> dict[str, Any]:
    """Mean score of held-out executions before and after the skill was adapted to their things, and rounds taken."""
    before, after, rounds = [], [], []
    for one in held:
        if any(step.box is not None for step in one.steps):
            told = adapt(skill, one, RuleReader())
            before.append(told.before.score)
            after.append(told.after.score)
            rounds.append(max((change.round for change in told.changes), default=0))
    mean = [round(float(np.mean(values)), 4) if values else None for values in (before, after, rounds)]
    return {"clips": len(before), "score_before": mean[0], "score_after": mean[1], "rounds": mean[2]}


def _rates(told: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    corrupted = [ok for name, values in told.items() if name.startswith("corrupted_") for ok in values]
    rates = {name: rate(values) for name, values in told.items()} | {"corrupted": rate(corrupted)}
    return rates | {"num": {name: len(values) for name, values in told.items()}}


def goals_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """With 5 clips, by both levels: executions accepted, others and corrupted ones not."""
    told = results.get("clips", {}).get("5", {}).get("hierarchical", {})
    seen = results.get("extracted", {}).get("clips", {}).get("5", {})
    of_extracted = {name: seen.get(name, {}).get("accepted") for name in ("held_out", "others", "corrupted")}
    return [
        goal("held_out_accepted", told.get("held_out"), "share", 0.80),
        goal("others_accepted", told.get("others"), "share", 0.10, at_least=False),
        goal("corrupted_accepted", told.get("corrupted"), "share", 0.10, at_least=False),
        goal("extracted_held_out_accepted", of_extracted["held_out"], "share", 0.80),
        goal("extracted_others_accepted", of_extracted["others"], "share", 0.10, at_least=False),
        goal("extracted_corrupted_accepted", of_extracted["corrupted"], "share", 0.10, at_least=False),
    ]
