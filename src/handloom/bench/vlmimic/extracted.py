"""`handloom bench vlmimic_extracted`: what a robot does with skills of clips as the pipeline sees them.

Clips of placings and pushes, as the demo's, are rendered, extracted, and cut by the stage `segments`. Then, `DRAWS`
times, five of a verb's clips are drawn to teach; what they teach runs in scenes in which things shall go as far as the
script moves them in the middle. Beside them the same clips, of which hands and points are seen exactly (`exact`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from handloom.bench.report import describe, goal
from handloom.bench.segments.clip import SequenceScorer, rendered
from handloom.bench.segments.exact import exact_scene
from handloom.bench.vlmimic.finished import Key, can_run, kept_segments, measured_episodes
from handloom.bench.vlmimic.measure import MOST, Taught, scores_with_nothing
from handloom.bench.vlmimic.tasks import NOISE_PX, TASKS, Task, aside, segments_in
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.kernels import one_thread_each
from handloom.machine import cores_allowed
from handloom.pipelines.process_pool import process_pool
from handloom.pipelines.skills.episodes import Job
from handloom.pipelines.skills.run import versions
from handloom.schemas.settings import Settings
from handloom.sim.tabletop.draw import HOWS, How
from handloom.sim.tabletop.episodes import ROUNDS
from handloom.sim.world import require_simulator
from handloom.skills.execution import Execution, read_execution
from handloom.skills.learn import learn
from handloom.skills.reader import RuleReader
from handloom.synth.script.demo import demo_specs
from handloom.synth.script.scene import SceneSpec

SEED = 6100
CLIPS, QUICK_CLIPS = 8, 5
"""Of each verb."""
DRAWS, QUICK_DRAWS = 10, 1
EPISODES, QUICK_EPISODES = 50, 2
"""Of each verb, kind of scene and way of seeing, by the draws in turn."""
VERBS: Mapping[str, Task] = {
    "place": replace(TASKS["move"], goals=aside(-0.12, 0.01, 0.05)),
    "push": TASKS["push"],
}
"""Scenes, and how far the script moves a thing in the middle."""
EXTRACTED, EXACT = "extracted", "exact"

Cell = tuple[str, str, How]
"""Verb, how the clips were seen, kind of scene."""


def bench_vlmimic_extracted(data: Path | None, watch: Watch) -> dict[str, Any]:
    """Measure on all cores.

    data: a folder that keeps what was seen of clips, and episodes as they end, for the next time; None: nothing is.

    Raises ModuleNotFoundError: the simulator or the arm's description is not installed.
    """
    require_simulator()
    verbs = list(VERBS)[:1] if watch.quick else list(VERBS)
    episodes = QUICK_EPISODES if watch.quick else EPISODES
    cells: list[Cell] = [(verb, seen, how) for verb in verbs for seen in (EXTRACTED, EXACT) for how in HOWS]
    skills: dict[tuple[str, str], list[Taught]] = {}
    clips: dict[str, dict[str, Execution]] = {}

    def jobs_of(folder: Path) -> dict[Key, Job]:
        clips.update(_clips(verbs, QUICK_CLIPS if watch.quick else CLIPS, folder, watch))
        for verb in verbs:
            for seen in (EXTRACTED, EXACT):
                its = [one for name, one in clips[seen].items() if name.startswith(verb)]
                skills[verb, seen] = taught_by_draws(verb, its, QUICK_DRAWS if watch.quick else DRAWS)
        jobs: dict[Key, Job] = {}
        for verb, seen, how in cells:
            jobs |= _jobs((verb, seen, how), skills[verb, seen], episodes)
        return jobs

    ran = measured_episodes("vlmimic_extracted", jobs_of, data, watch)
    whole = ran.finished({cell: [(*cell, number) for number in range(episodes)] for cell in cells})
    results: dict[str, Any] = {"seed": SEED, "episodes": episodes, "versions": versions(), "verbs": {}}
    for (verb, seen, how), episodes_of in whole.items():
        told = results["verbs"].setdefault(verb, {}).setdefault(seen, _told_of(verb, seen, skills, clips))
        far = [one.error_m for one in episodes_of if one is not None and np.isfinite(one.error_m)]
        middle = round(float(np.median(far)), 4) if far else None
        told[how] = scores_with_nothing(episodes_of) | {"off_m_median": middle}
    return describe("vlmimic_extracted", results, goals_of(results), watch)


def _told_of(
    verb: str, seen: str, skills: Mapping[tuple[str, str], Sequence[Taught]], clips: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the clips show, and how many of five that are drawn teach: by this number, how many draws."""
    its = {name: one.words for name, one in clips[seen].items() if name.startswith(verb)}
    taught = [len(one.clip_ids) if one is not None else 0 for one in skills[verb, seen]]
    return {
        "clips": len(its),
        "taught_of_five": {str(num): times for num, times in sorted(Counter(taught).items())},
        "seen_steps": its,
    }


def taught_by_draws(verb: str, clips: Sequence[Execution], draws: int) -> list[Taught]:
    """The skill that five of the clips teach, for each draw; None where they teach none."""
    rng = np.random.default_rng([SEED, *verb.encode()])
    out: list[Taught] = []
    for _ in range(draws):
        some = [clips[at] for at in sorted(rng.permutation(len(clips))[:MOST])]
        try:
            out.append(learn(verb, verb, some, RuleReader()).skills[0])
        except ConfigError:
            out.append(None)
    return out


def _jobs(cell: Cell, skills: Sequence[Taught], episodes: int) -> dict[Key, Job]:
    """The episodes of a cell that can be run, by the skills of its draws in turn."""
    verb, _, how = cell
    out: dict[Key, Job] = {}
    for number in range(episodes):
        if (skill := skills[number % len(skills)]) is not None:
            job = Job(skill, VERBS[verb].scene(how, number), number, "hierarchical", ROUNDS, False)
            if can_run(job):
                out[*cell, number] = job
    return out


def specs_of(verbs: Sequence[str], num: int) -> dict[str, SceneSpec]:
    """Scenes by name, `place-00`, `push-00`, ...: the demo's, of these verbs."""
    out: dict[str, SceneSpec] = {}
    count: Counter[str] = Counter()
    for spec in demo_specs(9 * num, SEED):
        if spec.verb in verbs and count[spec.verb] < num:
            out[f"{spec.verb}-{count[spec.verb]:02d}"] = spec
            count[spec.verb] += 1
    return out


def _clips(verbs: Sequence[str], num: int, folder: Path, watch: Watch) -> dict[str, dict[str, Execution]]:
    """What the clips show, by name, as extracted and seen exactly."""
    specs = specs_of(verbs, num)
    watch.expect(len(specs))
    watch.part("rendering and extracting")
    out: dict[str, dict[str, Execution]] = {EXTRACTED: {}, EXACT: {}}
    with one_thread_each(), process_pool(cores_allowed(), _start) as pool:
        jobs = {pool.submit(_seen, name, spec, folder): name for name, spec in specs.items()}
        for job in as_completed(jobs):
            for seen, execution in job.result().items():
                out[seen][jobs[job]] = execution
            watch.did(jobs[job])
    return {seen: dict(sorted(some.items())) for seen, some in out.items()}


_scorer: SequenceScorer | None = None


def _start() -> None:
    global _scorer
    _scorer = SequenceScorer(Settings())


def _seen(name: str, spec: SceneSpec, folder: Path) -> dict[str, Execution]:
    """A clip by how it is seen."""
    asked = {"seed": SEED, "clip": name}
    extracted = kept_segments(folder, f"{name}-{EXTRACTED}", asked, lambda: _extracted(name, spec, folder))
    exact = kept_segments(
        folder, f"{name}-{EXACT}", asked, lambda: segments_in(exact_scene(spec, NOISE_PX, int(name[-2:]))[0])
    )
    return {seen: read_execution(name, cells, spec.verb) for seen, cells in ((EXTRACTED, extracted), (EXACT, exact))}


def _extracted(name: str, spec: SceneSpec, folder: Path) -> list[dict[str, Any]]:
    scorer = _scorer or SequenceScorer(Settings())
    with TemporaryDirectory(dir=folder) as videos:
        loaded = rendered(name, spec, Path(videos), Settings())
        try:
            return segments_in(scorer.scene(loaded))
        finally:
            loaded.frames.close()


def goals_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As VLMimic's figures of seen and unseen scenes, for each verb."""

    def share(verb: str, how: How) -> float | None:
        return results.get("verbs", {}).get(verb, {}).get(EXTRACTED, {}).get(how, {}).get("success_rate")

    return [
        goal(f"{verb}_{how}", share(verb, how), "share", wanted)
        for verb in VERBS
        for how, wanted in zip(HOWS, (0.7, 0.6), strict=True)
    ]
