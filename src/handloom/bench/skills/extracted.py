"""Skills from rendered clips as the pipeline sees them: hands from the detector, points from the tracker.

Clips of the demo's kind are rendered, extracted and cut into segments as `handloom run` does it. Then, 12 times for
each number of clips, other ones of a verb are drawn to teach, and all the rest are judged: those of the verb are
`held_out`, the others `others`, and the accepted ones, changed, `corrupted`. A clip in which no contact was found is
in `held_out`; the answer is then `cannot tell`, which is counted apart and is no acceptance.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np

from handloom.bench.segments.clip import SequenceScorer, rendered
from handloom.bench.skills.corrupted import CORRUPTIONS
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.geometry.interactions.segments import find_segments
from handloom.kernels import one_thread_each
from handloom.machine import cores_allowed
from handloom.pipelines.process_pool import process_pool
from handloom.schemas.settings import Settings
from handloom.skills.execution import Execution, read_execution
from handloom.skills.learn import learn
from handloom.skills.match import judge
from handloom.skills.reader import RuleReader
from handloom.stages.builtin.segments import Segments, segment_cell
from handloom.synth.script.demo import demo_specs
from handloom.synth.script.scene import SceneSpec

EXTRACTED_SEED = 5200
CLIPS = {"place": 12, "push": 12, "wipe": 4}
"""How many clips of each verb; skills are learned of those with enough of them."""
TAUGHT = ("place", "push")
DRAWS = 12
ANSWERS = ("executed", "cannot tell", "not executed")


def extracted_specs(seed: int = EXTRACTED_SEED) -> dict[str, SceneSpec]:
    """The scenes by name, `place:00`, `push:00`, ..."""
    out: dict[str, SceneSpec] = {}
    num: Counter[str] = Counter()
    for spec in demo_specs(9 * max(CLIPS.values()), seed):
        if num[spec.verb] < CLIPS.get(spec.verb, 0):
            out[f"{spec.verb}:{num[spec.verb]:02d}"] = spec
            num[spec.verb] += 1
    return out


def extracted_executions(watch: Watch, into: dict[str, Execution]) -> None:
    """Render, extract and read every clip, in one process per core; nothing is kept on disk."""
    specs = extracted_specs()
    watch.expect(watch.num_done + len(specs))
    watch.part("rendering and extracting")
    with (
        tempfile.TemporaryDirectory(prefix="handloom-bench-") as folder,
        one_thread_each(),
        process_pool(cores_allowed(), _start) as pool,
    ):
        jobs = {pool.submit(_execution, name, spec, Path(folder)): name for name, spec in specs.items()}
        for job in as_completed(jobs):
            into[jobs[job]] = job.result()
            watch.did(jobs[job])


_scorer: SequenceScorer | None = None


def _start() -> None:
    global _scorer
    _scorer = SequenceScorer(Settings())


def _execution(name: str, spec: SceneSpec, folder: Path) -> Execution:
    scorer = _scorer or SequenceScorer(Settings())
    loaded = rendered(name.replace(":", "_"), spec, folder, Settings())
    try:
        scene = scorer.scene(loaded)
    finally:
        loaded.frames.close()
    settings = Segments.Settings()
    found = find_segments(scene, settings.contact_m, settings.min_path_m).segments
    return read_execution(name, [segment_cell(one) for one in found], spec.verb)


def extracted_results(executions: Mapping[str, Execution], numbers: Sequence[int]) -> dict[str, Any]:
    """Rates by number of clips, and what is seen of each clip. executions: by name, `VERB:NUMBER`."""
    clips = {name: executions[name] for name in sorted(executions)}
    answers: dict[str, Counter[str]] = {name: Counter() for name in clips}
    by_clips = {}
    for num in numbers:
        count: Counter[tuple[str, str]] = Counter()
        told = {verb: _draws(verb, num, clips, answers if num == 5 else None) for verb in TAUGHT}
        for one in told.values():
            count.update(one)
        by_clips[str(num)] = _rates(count) | {"by_verb": {verb: _rates(one) for verb, one in told.items()}}
    seen = {
        name: {"steps": one.words, "of_five": {answer: answers[name][answer] for answer in ANSWERS}}
        for name, one in clips.items()
    }
    with_steps = {verb: sum(bool(one.steps) for one in _of(verb, clips).values()) for verb in CLIPS}
    num_clips = {verb: len(_of(verb, clips)) for verb in CLIPS}
    return {"num_clips": num_clips, "with_steps": with_steps, "draws": DRAWS, "clips": by_clips, "seen": seen}


def _of(verb: str, clips: Mapping[str, Execution]) -> dict[str, Execution]:
    return {name: one for name, one in clips.items() if name.startswith(f"{verb}:")}


def _draws(
    verb: str, num: int, clips: Mapping[str, Execution], answers: Mapping[str, Counter[str]] | None
) -> Counter[tuple[str, str]]:
    """(what, answer) counts; answers: what is said of each held-out clip, added up."""
    rng, own = np.random.default_rng([EXTRACTED_SEED, num]), _of(verb, clips)
    count: Counter[tuple[str, str]] = Counter()
    for _ in range(DRAWS if len(own) > num else 0):
        drawn = sorted(rng.permutation(sorted(own))[:num])
        count["given", "clips"] += num
        try:
            skill = learn(verb, verb, [own[name] for name in drawn], RuleReader()).skills[0]
        except ConfigError:
            count["learned", "refused"] += 1
            continue
        count["learned", "skills"] += 1
        count["given", "taught"] += len(skill.clip_ids)
        for name, one in clips.items():
            if name in drawn:
                continue
            answer = judge(skill, one).answer
            what = ["held_out", *(["held_out_with_steps"] if one.steps else [])] if name in own else ["others"]
            count.update((each, answer) for each in what)
            if name in own and answers is not None:
                answers[name][answer] += 1
            if name in own and answer == "executed":
                for kind, change in CORRUPTIONS.items():
                    if (changed := change(one)) is not None:
                        told = judge(skill, changed).answer
                        count.update([("corrupted", told), (f"corrupted_{kind}", told)])
    return count


def _rates(count: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "skills": count["learned", "skills"],
        "refused": count["learned", "refused"],
        "taught": _share(count["given", "taught"], count["given", "clips"]),
    }
    kinds = ("held_out", "held_out_with_steps", "others", "corrupted", *(f"corrupted_{one}" for one in CORRUPTIONS))
    for what in kinds:
        num = sum(count[what, answer] for answer in ANSWERS)
        out[what] = {
            "accepted": _share(count[what, "executed"], num),
            "cannot_tell": _share(count[what, "cannot tell"], num),
            "num": num,
        }
    return out


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
