"""What `handloom status` and the gallery say of a run: how it ended, or how far it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from handloom.plural import plural
from handloom.store.runs.holder import Holder
from handloom.store.runs.runs import DECODE, LOAD, READ, SHARD, WAIT, WRITE, Run, RunProgress

STEPS = {
    LOAD: "loading models",
    DECODE: "decoding",
    WAIT: "waiting for frames",
    READ: "reading rows",
    WRITE: "writing rows",
    SHARD: "between clips",
}
"""What workers do beside stages."""


def run_json(run: Run) -> dict[str, Any]:
    """A run as JSON values. frames_per_s: None for one that decoded nothing, or that has not ended."""
    stage_s = json.loads(run.stage_s) if run.stage_s else {}
    rate = run.num_frames / run.wall_s if run.wall_s and run.num_frames else None  # a run of columns decodes nothing
    return {
        "run_id": run.run_id,
        "run_key": run.run_key,
        "started_at": run.started_at.isoformat(timespec="seconds"),
        "exit": run.exit,
        "holder": _holder(run),
        "heartbeat_at": run.heartbeat_at.isoformat(timespec="seconds") if run.heartbeat_at else None,
        "progress": progress_json(run),
        "clips": run.num_clips,
        "rejects": run.num_rejects,
        "frames": run.num_frames,
        "wall_s": run.wall_s,
        "frames_per_s": rate,
        "left_nodes": json.loads(run.left_nodes) if run.left_nodes else {},
        "stage_s": {stage: round(seconds, 2) for stage, seconds in stage_s.items()},
        "stage_clips": json.loads(run.stage_clips) if run.stage_clips else {},
        "stage_counts": json.loads(run.stage_counts) if run.stage_counts else {},
    }


def progress_json(run: Run) -> dict[str, Any] | None:
    """`RunProgress` of a run that has not ended, or that was killed, and `at_work`: its stages in words. None: it has
    ended, or has told nothing yet."""
    if run.progress is None:
        return None
    progress = RunProgress.from_json(run.progress)
    return asdict(progress) | {"at_work": ", ".join(_at_work(progress))}


def _at_work(progress: RunProgress) -> Iterator[str]:
    """The longest first."""
    for stage, (workers, longest_s) in sorted(progress.stages.items(), key=lambda item: -item[1][1]):
        several = f"{workers} workers, " if workers > 1 else ""
        yield f"{STEPS.get(stage, stage)} ({several}{longest_s:.0f} s)"


def _holder(run: Run) -> dict[str, Any] | None:
    """The process of the run, and whether it has ended: null if that cannot be seen from here."""
    if run.holder is None:
        return None
    holder = Holder.from_json(run.holder)
    told = {"host": holder.host, "pid": holder.pid, "user": holder.user}
    return told | {"where": holder.where, "gone": holder.has_gone()}


def run_lines(run: dict[str, Any]) -> list[str]:
    """A run, as `run_json` gives it, as lines of text."""
    lines = [f"last run {run['run_id']}, begun {run['started_at']}: {_state(run)}"]
    if run["progress"] is not None:
        lines += _progress_lines(run["progress"], run["exit"] is None and not (run["holder"] or {"gone": True})["gone"])
    if run["wall_s"]:
        lines += _speed_lines(run)
    for stage, counts in run["stage_counts"].items():
        lines.append(f"  {stage} counted: {', '.join(f'{name} {num:,.12g}' for name, num in counts.items())}")
    return lines + [f"  left node {host}: {why}" for host, why in run["left_nodes"].items()]


def _state(run: dict[str, Any]) -> str:
    holder = run["holder"]
    if run["exit"] or holder is None:
        return run["exit"] or "running, or killed"
    who = f"on host {holder['host']}, process {holder['pid']}, user {holder['user']}"
    return f"{'died' if holder['gone'] else 'running'} {who}; last heartbeat {run['heartbeat_at']}"


def _progress_lines(progress: dict[str, Any], runs: bool) -> list[str]:
    """How far a run is, or was when it was killed."""
    done, rejects = progress["rows"] + progress["rejects"], progress["rejects"]
    told = f"  {done} of {progress['total']} {progress['units']} done" + (f" ({rejects} rejected)" if rejects else "")
    if not runs:
        return [told]
    if progress["clips_per_s"] is not None:
        told += f", {progress['clips_per_s']:.2g} {progress['units']}/s"
        told += f" and {progress['frames_per_s']:.1f} frames/s in the last minute" if progress["frames"] else ""
    told += "" if progress["left_s"] is None else f", about {progress['left_s']:.0f} s left"
    return [told + (f"; at work: {progress['at_work']}" if progress["at_work"] else "")]


def _speed_lines(run: dict[str, Any]) -> list[str]:
    """What a run did in which time. Frames a second are those of new rows: columns of rows that exist need no video."""
    made = f"  {plural(run['clips'], 'clip')}, {plural(run['rejects'], 'reject')}"
    if run["frames_per_s"] is None:
        lines = [f"{made} in {run['wall_s']:.1f} s"]
    else:
        frames = plural(run["frames"], "frame")
        lines = [f"{made}, {frames} in {run['wall_s']:.1f} s: {run['frames_per_s']:.1f} frames/s"]
    shares = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run["stage_s"].items())
    lines.append(f"  seconds per stage, summed over actors: {shares}")
    more = {stage: num - run["clips"] for stage, num in run["stage_clips"].items() if num > run["clips"]}
    told = {stage: f"{stage} {num}" for stage, num in more.items() if stage in run["stage_s"]}
    if told and not run["clips"]:
        told = {stage: f"{text} ({more[stage] / run['wall_s']:.2g} rows/s)" for stage, text in told.items()}
    return [*lines, f"  new columns of rows that existed before: {', '.join(told.values())}"] if told else lines
