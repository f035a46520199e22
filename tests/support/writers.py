"""Processes that write to a database at the same moment.

    with writers(4) as at_once: said = at_once("ingest", db)

Each is told a job and says when it is ready; then all get the word to go on, as often as the job has steps.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.errors import StoreError
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.reject import Reject
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import end_run, start_run

TESTS = Path(__file__).parents[1]
NUM_CLIPS = 20


def ingest(db: Database, number: int, clips: list[int]) -> str:
    result = add_clips(db, [make_clip(n, narration=f"of {number}") for n in clips], batch_clips=8)
    return f"added {result.added}"


def driver(db: Database, number: int, clips: list[int]) -> str:
    """A whole run that rejects every clip, beside others that reject the same ones."""
    run = start_run(db, RUN_KEY, settings={}, resources={}, versions={})
    committer = Committer(db, RUN_KEY, clips_schema(4))
    committer.commit([], [Reject(make_clip(n).clip_id, "decode", "damaged", f"of {number}") for n in clips])
    end_run(db, run, "done", num_clips=0, num_rejects=len(clips), num_frames=0, stage_s={})
    return "rejected"


def commit(db: Database, number: int, clips: list[int]) -> str:
    """Rows of the same clips as the other processes', in four commits that begin with another clip in each."""
    committer, schema, start = Committer(db, RUN_KEY, clips_schema(4)), clips_schema(4), 5 * number
    order = clips[start:] + clips[:start]
    records = [write_fragment(db.uri, [make_row(n) for n in order[at : at + 5]], schema) for at in range(0, 20, 5)]
    wait("ready")
    return f"committed {sum(committer.commit([record]).num_clips for record in records)}"


def lease(db: Database, number: int, clips: list[int]) -> str:
    """A run that begins, holds its lease for a while, and ends; or one that is refused."""
    try:
        with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as held:
            wait("began")
        end_run(db, held.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    except StoreError as error:
        wait(f"refused: {error.problem}")
    return "left"


def wait(said: str) -> None:
    """End a step of a job."""
    print(said, flush=True)
    sys.stdin.readline()


JOBS = {"ingest": ingest, "driver": driver, "commit": commit, "lease": lease}
STEPS = {"commit": 2, "lease": 2}


@contextlib.contextmanager
def writers(num: int) -> Iterator[Callable[..., list[list[str]]]]:
    """Yields `at_once(job, db, first)`: each process does the job on clips first to first + NUM_CLIPS - 1.

    What they said, a list for each step.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])}
    command = [sys.executable, "-m", "support.writers"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(n)], env=env, **pipes) for n in range(num)]

    def at_once(job: str, db: Database, first: int = 0) -> list[list[str]]:
        said = []
        for line in (f"{job} {first} {db.uri}\n", *["go\n"] * STEPS.get(job, 1)):
            for process in processes:
                process.stdin.write(line)
                process.stdin.flush()
            said.append([process.stdout.readline().strip() for process in processes])
        return said[1:]

    try:
        yield at_once
    finally:
        for process in processes:
            process.stdin.close()
            process.wait(240)
            process.stdout.close()


def main(number: int) -> None:
    for line in sys.stdin:
        job, first, uri = line.strip().split(" ", 2)
        db = Database.open(uri)
        wait("ready")
        print(JOBS[job](db, number, list(range(int(first), int(first) + NUM_CLIPS))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
