"""What the ledger tells of clips on which workers have crashed or hung, as errors: of a stage where that is known."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from handloom.errors import ClipError
from handloom.workers.bugs import BUG, HINT
from handloom.workers.ledger import MAX_CRASHES, MAX_HANGS, Hang, ShardEntry


def stage_errors(entry: ShardEntry, clip_id: str, stages: Collection[str], node_id: str) -> dict[str, ClipError]:
    """Of these stages, those at which workers have crashed or hung too often on the clip: it goes on without them.

    A stage that has hung on one node is tried on another one where there is one (`hung_here`).
    """
    crashes = entry.at.get(clip_id, {})
    found = {name: worker_died(clip_id, name) for name in stages if crashes.get(name, 0) >= MAX_CRASHES}
    for name in stages:
        own = [hang for hang in entry.hangs.get(clip_id, ()) if hang.stage == name]
        nodes = {hang.node_id for hang in own}
        if len(own) >= MAX_HANGS and (len(nodes) > 1 or (node_id in nodes and clip_id not in entry.elsewhere)):
            found[name] = hung(clip_id, own)
    return found


def hung_here(entry: ShardEntry, clip_id: str, stages: Collection[str], node_id: str) -> ClipError | None:
    """Why the clip comes again on another node: one of these stages has hung too often, always on this one."""
    for name in stages if clip_id in entry.elsewhere else ():
        own = [hang for hang in entry.hangs.get(clip_id, ()) if hang.stage == name]
        if len(own) >= MAX_HANGS and {hang.node_id for hang in own} == {node_id}:
            return hung(clip_id, own)
    return None


def clip_error(entry: ShardEntry, clip_id: str, stages: Collection[str], node_id: str) -> ClipError | None:
    """Why the whole clip is given up; None: it is tried. `stages`: as in `stage_errors`, whose failures do not count.

    A hang counts `MAX_HANGS` times, once on this node: the driver tries it on another node where there is one.
    """
    if clip_id in entry.bugs:
        stage, problem = entry.bugs[clip_id]
        return ClipError(clip_id, stage, BUG, problem, HINT)
    if sum(times for name, times in entry.at.get(clip_id, {}).items() if name not in stages) >= MAX_CRASHES:
        return worker_died(clip_id, "worker")
    hangs = [hang for hang in entry.hangs.get(clip_id, ()) if hang.stage not in stages]
    if len(hangs) >= MAX_HANGS and any(hang.node_id == node_id for hang in hangs):
        return hung(clip_id, hangs)
    return None


def worker_died(clip_id: str, stage: str) -> ClipError:
    """The error of a clip on which `MAX_CRASHES` workers have crashed."""
    problem = f"the worker process died {MAX_CRASHES} times while it was working on the clip"
    hint = "look for out-of-memory kills on the node; run with --retry-rejects once the cause is gone"
    return ClipError(clip_id, stage, "worker_died", problem, hint)


def hung(clip_id: str, hangs: Sequence[Hang]) -> ClipError:
    """The error of a clip that has hung too often; `hangs` are told in it."""
    each = "; ".join(f"{h.seconds:.0f} s on {h.host}, stage {h.stage} (limit {h.limit_s:.0f} s)" for h in hangs)
    problem = f"the worker made no progress on the clip and was killed, {len(hangs)} times: {each}"
    hint = (
        "on a slow machine raise resources.stage_s, stage_frame_s, then run with --retry-rejects --reason hung; "
        "otherwise report it with the clip"
    )
    return ClipError(clip_id, hangs[-1].stage, "hung", problem, hint)
