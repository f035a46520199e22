"""`handloom sim evaluate --calvin`: a policy on the benchmark of CALVIN, which is installed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, HandloomError
from handloom.pipelines.sim.evaluate import check_out, keep_evaluation
from handloom.pipelines.sim.jobs import INTERRUPTED, Jobs, Where, in_order, or_error
from handloom.sim.calvin.installation import HZ, Calvin, CalvinObservation
from handloom.sim.calvin.installation import Sequence as TaskSequence
from handloom.sim.calvin.policies import find_policy
from handloom.sim.calvin.rollouts import MAX_STEPS, SequenceOutcome, roll_out
from handloom.sim.calvin.scores import scores_of
from handloom.sim.calvin.server import NUM_SEQUENCES
from handloom.sim.policies import Policy
from handloom.video.write import write_video


@dataclass(frozen=True)
class CalvinEvaluation:
    """What `evaluate_calvin` measured.

    dataset: its folder's name. sequences: that were asked for, of the benchmark's 1,000. scores: see
    `sim.calvin.scores.scores_of`, of those that were finished. versions: of CALVIN's side, and which table is there.
    videos: paths. error: what ended it before all sequences were run, empty if nothing did.
    """

    policy: str
    dataset: str
    sequences: int
    max_steps: int
    hz: float
    scores: dict[str, Any]
    versions: dict[str, str | None]
    videos: list[str]
    error: str = ""


def evaluate_calvin(
    dataset: str,
    policy: str,
    num_sequences: int = NUM_SEQUENCES,
    *,
    python: str | None = None,
    max_steps: int = MAX_STEPS,
    workers: int | None = None,
    ray_address: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    videos: bool = False,
    progress: Callable[[int, int], None] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> CalvinEvaluation:
    """Run a policy on the first sequences of the benchmark, each once, as `evaluate_policy.py` of CALVIN does.

    An action that is not finite ends its sequence: a counted failure. An error of the policy, or of CALVIN, ends the
    evaluation; what was finished before it is returned.

    Args:
        dataset: a CALVIN dataset's folder: its `validation/` says which environment is opened.
        policy: see `sim.calvin.policies.FORMS`.
        python: of the installation that has `calvin_env` and `calvin_agent`; None: the one that runs this.
        max_steps: actions for one instruction, 1 to 360.
        workers: processes, each with a CALVIN and a policy of its own; None: one, on a cluster one per core.
            ray_address: a Ray cluster that runs the sequences instead; CALVIN and the dataset are at the same paths on
            its nodes.
        out: a local folder for `evaluate.json`, the same as is returned, and for videos. overwrite: replace the
            evaluation that is there, with its videos. videos: of each sequence, what `rgb_static` saw; they need `out`.
        progress: called with the numbers of sequences that are done, and of all.
        told: called with a line where something takes minutes.

    Raises:
        ConfigError: no such dataset, interpreter or policy, CALVIN is not installed there, a number is out of range, or
            videos of a cluster; as `check_out`.
        HandloomError: CALVIN or the policy raised an error before any sequence was finished.
    """
    video = out if videos else None
    _check(num_sequences, max_steps, ray_address, video)
    where = Where(workers if ray_address is not None else 1 if workers is None else workers, ray_address)
    find_policy(policy)  # what is wrong with it is said before minutes are spent on drawing sequences
    place = str(Path(dataset).absolute())
    check_out(out, overwrite)
    try:
        calvin = calvin_of(place, python)
        told("CALVIN draws its sequences first: minutes of CPU time")
        sequences, versions = calvin.sequences(num_sequences), calvin.versions
        if where != Where(1):
            close_calvin()  # others work
        jobs = [SequenceJob(place, python, policy, max_steps, video, one) for one in sequences]
        outcomes, error = _all(jobs, where, progress)
    finally:
        close_calvin()
    films = [str(_path(video, one.sequence)) for one in outcomes] if video is not None else []
    name = Path(place).name
    found = CalvinEvaluation(policy, name, num_sequences, max_steps, HZ, scores_of(outcomes), versions, films, error)
    keep_evaluation(found, out)
    return found


@dataclass(frozen=True)
class SequenceJob:
    """One sequence of the benchmark, and where and how it is run."""

    dataset: str
    python: str | None
    policy: str
    max_steps: int
    video: Path | None
    sequence: TaskSequence

    def name(self) -> str:
        return f"sequence {self.sequence.number}: {', '.join(self.sequence.tasks)}"


def _all(
    jobs: Sequence[SequenceJob], where: Where, progress: Callable[[int, int], None] | None
) -> tuple[list[SequenceOutcome], str]:
    """What was finished, in order, and the error that ended it. Raises HandloomError where nothing was finished."""
    found: list[SequenceOutcome] = []
    try:
        for outcome, error in in_order(Jobs(run_sequence, SequenceJob.name), jobs, len(jobs), where):
            if outcome is None:
                raise error or HandloomError(f"no outcome of {jobs[len(found)].name()}")
            found.append(outcome)
            if progress is not None:
                progress(len(found), len(jobs))
    except HandloomError as error:
        if not found:
            raise
        return found, str(error)
    except KeyboardInterrupt:
        if not found:
            raise
        return found, INTERRUPTED
    return found, ""


def run_sequence(job: SequenceJob) -> tuple[SequenceOutcome | None, HandloomError | None]:
    """What came of a sequence, or the error that the policy or CALVIN raised in it."""
    calvin, acting = calvin_of(job.dataset, job.python), policy_of(job.policy)
    seen: list[NDArray[np.uint8]] = []

    def look(observation: CalvinObservation) -> None:
        if job.video is not None and observation.picture is not None:
            seen.append(observation.picture)

    def run() -> SequenceOutcome:
        outcome = roll_out(calvin, acting, job.sequence, job.sequence.number, job.max_steps, look)
        if job.video is not None:
            write_video(_path(job.video, job.sequence), seen, np.arange(len(seen)) / HZ)
        return outcome

    return or_error(run, job.policy, job.name(), "`--workers 1 --sequences N` comes to the same place")


_OPEN: dict[tuple[str, str | None], Calvin] = {}


def calvin_of(dataset: str, python: str | None) -> Calvin:
    """CALVIN's process, started once in a process of ours; it ends with it."""
    if (dataset, python) not in _OPEN:
        _OPEN[dataset, python] = Calvin(dataset, python)
    return _OPEN[dataset, python]


@lru_cache(maxsize=1)
def policy_of(name: str) -> Policy:
    """A policy, made once in a process: its weights may be large."""
    return find_policy(name)


def close_calvin() -> None:
    """End the processes of `calvin_of` that were started here."""
    while _OPEN:
        _OPEN.popitem()[1].close()


def _path(folder: Path, sequence: TaskSequence) -> Path:
    return folder / f"sequence_{sequence.number:04d}.mp4"


def _check(num: int, max_steps: int, ray_address: str | None, video: Path | None) -> None:
    for option, value, most in (("--sequences", num, NUM_SEQUENCES), ("--max-steps", max_steps, MAX_STEPS)):
        if not 1 <= value <= most:
            raise ConfigError(f"{option} {value} with --calvin", f"1 to {most}, as in the benchmark")
    if video is not None and ray_address is not None:
        raise ConfigError("--video with --calvin on a Ray cluster", "leave one of --video and --ray-address out")
