"""What the benchmarks of skills have finished, kept in a folder as it ends, so that an interrupted one goes on: what
was seen of demonstrations, and episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from handloom.bench.kept import kept
from handloom.bench.watch import Watch
from handloom.errors import ConfigError
from handloom.pipelines.sim.jobs import Where
from handloom.pipelines.skills.episodes import EpisodeLog, Job, run_jobs
from handloom.pipelines.skills.run import digest_of, versions
from handloom.sim.tabletop.episodes import Episode
from handloom.sim.tabletop.plans import check_things, handlings_of, replay_of
from handloom.stages.builtin.segments import Segments

Key = tuple[Any, ...]
"""A cell of a benchmark, and the number of an episode in it."""


@contextmanager
def folder_of(data: Path | None) -> Iterator[Path]:
    """`data`; None: a folder that is removed in the end."""
    if data is not None:
        yield data
        return
    with TemporaryDirectory(prefix="handloom-bench-") as scratch:
        yield Path(scratch)


def kept_segments(
    folder: Path, name: str, asked: Mapping[str, Any], segments: Callable[[], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The segments of a demonstration, which are found once. asked: what they depend on beside the stage's version."""
    place = folder / "demonstrations" / f"{name}.json"
    told = kept(place, {**asked, "version": Segments.version}, lambda: {"segments": segments()})
    return list(told["segments"])


def can_run(job: Job) -> bool:
    """Whether the scene has the things of the skill, and a demonstration of it can be replayed."""
    try:
        skill = replay_of(job.skill, job.executions, job.scene) if job.mode == "replay" else job.skill
        check_things(skill, job.scene, handlings_of(skill, job.mode))
    except ConfigError:
        return False
    return True


@dataclass
class Ran:
    """The episodes of a benchmark. jobs: those that can be run; empty if it was interrupted before all were known."""

    jobs: Mapping[Key, Job] = field(default_factory=dict)
    found: dict[Key, Episode] = field(default_factory=dict)

    def finished(self, cells: Mapping[Any, Sequence[Key]]) -> dict[Any, list[Episode | None]]:
        """The episodes of those cells of which none is missing; None: of an episode that cannot be run."""
        return {
            cell: [self.found.get(key) for key in keys]
            for cell, keys in cells.items()
            if self.jobs and all(key in self.found or key not in self.jobs for key in keys)
        }


def measured_episodes(name: str, jobs_of: Callable[[Path], Mapping[Key, Job]], data: Path | None, watch: Watch) -> Ran:
    """Run a benchmark's episodes on all cores; what has ended, if it is interrupted.

    jobs_of: makes the jobs, given the folder that keeps what is seen and done for the next time. data: this folder;
    None: nothing is kept.
    """
    ran = Ran()
    with watch.measuring(), folder_of(data) as folder:
        ran.jobs = jobs_of(folder)
        watch.part("episodes")
        run_kept(folder / name, ran.jobs, ran.found, watch)
    return ran


def run_kept(folder: Path, jobs: Mapping[Key, Job], into: dict[Key, Episode], watch: Watch) -> None:
    """Run on all cores those jobs whose episodes `folder` lacks, and put all episodes into `into`: what has ended, if
    it is interrupted. Episodes of other skills or versions are not taken for these."""
    named = {f"{'/'.join(map(str, key))} {digest_of(job.skill)}": key for key, job in jobs.items()}
    by_name = {name: jobs[key] for name, key in named.items()}
    with _log_in(folder) as log:

        def progress(done: int, num: int) -> None:
            watch.expect(watch.num_done + num - done + 1)
            watch.did(f"{done} of {num}")

        try:
            found = run_jobs(by_name, log, Where(), progress)
            into.update({named[str(name)]: episode for name, episode in found.items()})
        finally:
            ended = {key: log.kept(name) for name, key in named.items() if key not in into}
            into.update({key: episode for key, episode in ended.items() if episode is not None})


def _log_in(folder: Path) -> EpisodeLog:
    """The log of a folder; a new one where that is of other versions."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return EpisodeLog(folder, versions())
    except ConfigError:
        return EpisodeLog(folder, versions(), resume=False)
