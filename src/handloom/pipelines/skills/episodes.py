"""Episodes of skills on a robot arm: run in several processes, kept one by one as they end, counted, and filmed."""

from __future__ import annotations

import fcntl
import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from handloom.errors import ConfigError, StoreError
from handloom.pipelines.sim.jobs import Jobs, Lost, Where, as_they_end
from handloom.sim.failures import WORKER_DIED
from handloom.sim.scores import shown_of, wilson
from handloom.sim.tabletop.episodes import Attempt, Episode, run_episode
from handloom.sim.tabletop.film import FILM_HZ, film
from handloom.sim.tabletop.plans import Mode, replay_of
from handloom.sim.tabletop.reasoning import Reasoner, Told
from handloom.sim.tabletop.scene import Scene
from handloom.skills.execution import Execution
from handloom.skills.skill import Skill
from handloom.video.write import write_video

Key = TypeVar("Key", bound=Hashable)
SHOWN = ("best", "nearest", "farthest", "worst")
"""Names of videos."""
NO_STATES = np.empty((0, 0), np.float32)
ANOTHER = "name another folder, or --no-resume to drop what is there"
WAIT = "wait until it has ended, or name another folder"


@dataclass(frozen=True)
class Job:
    """One episode: what to execute where. executions: of the demonstrations, for `replay`. error_m: see
    `sim.tabletop.simulation.Simulation`."""

    skill: Skill
    scene: Scene
    seed: int
    mode: Mode
    rounds: int
    weld: bool
    executions: tuple[Execution, ...] = ()
    error_m: float = 0.0

    def name(self) -> str:
        return f"skill {self.skill.name!r}, {self.mode}, the scene of seed {self.seed}"


def run_job(job: Job, reasoner: Reasoner | None = None, gl: str = "") -> Episode:
    """One episode. reasoner, gl: see `run_episode`. Raises as `run_episode` and `replay_of`."""
    is_replay = job.mode == "replay"
    skill = replay_of(job.skill, job.executions, job.scene) if is_replay else job.skill
    rounds = 0 if is_replay else job.rounds
    return run_episode(skill, job.scene, job.seed, job.mode, rounds, job.weld, job.error_m, reasoner, gl)


def without_states(job: Job) -> Episode:
    """One episode without what a video needs: `run_job` gives the same again."""
    return replace(run_job(job), states=NO_STATES)


def _lost(job: Job, lost: Lost) -> Episode:
    """The failure of an episode on which processes died."""
    return Episode(False, None, WORKER_DIED, lost.how, (), math.nan, math.nan, NO_STATES)


class EpisodeLog:
    """Episodes that have ended, a line of JSON each, in the file `episodes.jsonl` of a folder of this machine.

    A line is written as soon as its episode ends, so one that is killed loses none of them; a line that a kill has cut
    is dropped when the log is opened again, and its episode runs again. One process at a time has it open.
    """

    FILE = "episodes.jsonl"

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool = True) -> None:
        """Open the log of a job, or begin it.

        Args:
            identity: JSON values on which the episodes depend, beside their keys. resume: False: begin anew.

        Raises:
            ConfigError: the folder holds episodes of another job; it names what differs.
            StoreError: the file cannot be read or written, or another process writes it.
        """
        self._path, self._kept = folder / self.FILE, dict[str, Episode]()
        asked = json.loads(json.dumps(identity))
        try:
            self._file = self._path.open("a+b")  # changes nothing: it is not ours before it is locked
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._begin(asked, resume)
            except BaseException:  # whatever ended it, Ctrl-C too: the lock goes with the file; raised again
                self._file.close()
                raise
        except BlockingIOError as error:
            raise StoreError(f"{self._path} is in use by another process", WAIT) from error
        except OSError as error:
            raise StoreError(f"cannot keep episodes in {self._path}: {error.strerror}", ANOTHER) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._path} is damaged: {type(error).__name__} {error}", ANOTHER) from error

    def _begin(self, asked: Mapping[str, Any], resume: bool) -> None:
        """Read what is kept, and cut off the rest."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True) if resume else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole:
            self._check(json.loads(whole[0]), asked)
            for line in whole[1:]:
                told = json.loads(line)
                self._kept.setdefault(told["key"], _episode_of(told["episode"]))
        self._file.truncate(sum(map(len, whole)))
        if not whole:
            self._write({"identity": asked})

    def __enter__(self) -> EpisodeLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _check(self, first: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        found = first["identity"]
        differ = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
        if differ:
            told = "; ".join(f"{name} was {_short(found.get(name))}, is {_short(asked.get(name))}" for name in differ)
            raise ConfigError(f"{self._path} holds episodes of another job: {told}", ANOTHER)

    def kept(self, key: Hashable) -> Episode | None:
        """The episode of a key, without its states; None: it has not ended."""
        return self._kept.get(str(key))

    def add(self, key: Hashable, episode: Episode) -> None:
        """Keep an episode. Raises StoreError: it cannot be written."""
        if str(key) in self._kept:
            return
        self._kept[str(key)] = episode
        try:
            self._write({"key": str(key), "episode": _plain(episode)})
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror}", "is there space left?") from error

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content, allow_nan=False).encode() + b"\n")
        self._file.flush()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(episode: Episode) -> dict[str, Any]:
    """JSON values of an episode, without its states; NaN is null."""
    told = asdict(replace(episode, states=NO_STATES))
    del told["states"]
    return told | {name: None if math.isnan(told[name]) else told[name] for name in ("error_m", "seconds")}


def _episode_of(told: Mapping[str, Any]) -> Episode:
    numbers = {name: math.nan if told[name] is None else told[name] for name in ("error_m", "seconds")}
    attempts = tuple(Attempt(**{**one, "remedies": tuple(one["remedies"])}) for one in told["attempts"])
    return Episode(**{**told, **numbers, "attempts": attempts}, states=NO_STATES)


def run_jobs(
    jobs: Mapping[Key, Job],
    log: EpisodeLog | None = None,
    where: Where | None = None,
    progress: Callable[[int, int], None] | None = None,
    reasoner: Reasoner | None = None,
    gl: str = "",
) -> dict[Key, Episode]:
    """The episodes by the keys of their jobs, in this order; those that the log has are not run again.

    reasoner: what chooses remedies; with one all episodes run in this process. None: rules. gl: see `run_episode`.

    Raises as `run_job` and `as_they_end`. What has ended before is in the log.
    """
    found = {key: log.kept(key) for key in jobs} if log is not None else dict.fromkeys(jobs)
    missing = [key for key, one in found.items() if one is None]
    done = len(jobs) - len(missing)
    if progress is not None and done:
        progress(done, len(jobs))
    left = [jobs[key] for key in missing]
    if reasoner is None:
        ended = as_they_end(Jobs(without_states, Job.name, _lost), left, where or Where())
    else:
        ended = ((number, replace(run_job(job, reasoner, gl), states=NO_STATES)) for number, job in enumerate(left))
    for number, episode in ended:
        found[missing[number]] = episode
        if log is not None and episode.failure != WORKER_DIED:  # that is tried again when the job is resumed
            log.add(missing[number], episode)
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    return {key: one for key, one in found.items() if one is not None}


def scores_of(found: Sequence[Episode]) -> dict[str, Any]:
    """`successes`, `success_rate`, `interval`, `failures`, `attempts`, `constraints_met`, `seconds_median`."""
    successes = sum(one.success for one in found)
    seconds = [one.seconds for one in found if np.isfinite(one.seconds)]
    met = [one.constraints_met for one in found if one.constraints_met is not None]
    attempts = Counter(attempt.reason for one in found for attempt in one.attempts if attempt.reason)
    return {
        "successes": successes,
        "success_rate": successes / len(found),
        "interval": wilson(successes, len(found)),
        "failures": dict(sorted(Counter(one.failure for one in found if one.failure).items())),
        "attempts": dict(sorted(attempts.items())),
        "constraints_met": sum(met) / len(met) if met else None,
        "seconds_median": round(float(np.median(seconds)), 2) if seconds else None,
    }


def shown_ones(found: Sequence[Episode]) -> dict[str, int]:
    """Numbers of the two episodes to look at: the success that ends nearest to its goal, and the failure that ends
    farthest from it (`shown_of`)."""
    order = sorted(range(len(found)), key=lambda i: (not found[i].success, np.nan_to_num(found[i].error_m, nan=np.inf)))
    return shown_of(order, lambda i: found[i].success)


def write_film(path: Path, job: Job, episode: Episode, gl: str) -> str:
    """Run a job again with the remedies of its episode, and write what it looks like; returns the path. Raises
    ConfigError: it cannot be written."""
    again = run_job(job, Told([one.remedies for one in episode.attempts if one.remedies]), gl)
    pictures = list(film(job.scene, again.states, gl))
    write_video(path, pictures, np.arange(len(pictures)) / FILM_HZ)
    return str(path)
