"""Whether a failure is the fault of the clip, or of the node on which it was tried.

If a video is missing on one node, a fetch fails or a row cannot be written, another node is tried before the clip is
rejected. A node on which clips fail that succeed elsewhere is left for the rest of the run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from handloom.pipelines.cluster.nodes import Nodes
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.schemas.tables.reject import Reject
from handloom.store.fragments import unseen_files
from handloom.store.stages.staged import unseen_updates
from handloom.workers.shard import ShardResult

OF_A_NODE = frozenset({"video_missing", "video_unreadable", "fetch_failed"})
"""Reasons of stage `fetch` that may be the node's fault. A clip that hangs may be, too, at any stage."""
MUST_BE_TRIED = frozenset({"fetch_failed", "hung"})  # it does not help to ask whether another node sees the video
MAX_IN_A_ROW = 3
MAX_ASKED = 3  # nodes that look for a video, if clips have succeeded on any of them
MAX_TRIES = 2  # nodes on which a fetch is tried, if clips have succeeded on any of them
MAX_UNSURE_TRIES = 6  # if not: enough to find one healthy node among many that fail


@dataclass
class _Record:
    """Failures on a node since its last success; when the first of these was, and the success."""

    in_a_row: int = 0
    first_failed: float = 0.0
    succeeded: float = 0.0


class Verdicts:
    """Decides which failures count, and on which nodes clips are tried again."""

    def __init__(self, nodes: Nodes, clips: Iterable[Clip], db_uri: str) -> None:
        self._nodes, self._db_uri = nodes, db_uri
        self._uris = {clip.clip_id: clip.video_uri for clip in clips}
        self._tries: dict[str, dict[str, Reject]] = defaultdict(dict)  # clip, node
        self._records: dict[str, _Record] = defaultdict(_Record)
        self._missing: dict[str, set[str]] = defaultdict(set)  # by node: videos that it has looked for and does not see

    def on(self, result: ShardResult) -> ShardResult:
        """The result with the failures that count. `elsewhere` names failed clips that are tried on another node.

        A failure of the node itself (it cannot write, or writes where the driver does not read) counts only if no other
        node is left.
        """
        node_id = result.node_id
        if node_id is None or result.given_back:
            return result
        result = self._seen(result)
        if result.refused is not None:  # the node has come since the last look: all others were tried
            if not self._nodes.spare([node_id]):
                return result
            self._nodes.leave(node_id, result.refused[0])
            return replace(result, refused=None, given_back=True)  # it had not begun the shard
        if result.failure is not None:
            if not self._nodes.spare([node_id]):
                return result
            self._nodes.leave(node_id, result.failure[0])
            return replace(result, failure=None)
        doubtful = [reject for reject in result.rejects if _doubtful(reject)]
        counted = [reject for reject in result.rejects if not _doubtful(reject)]
        if result.record is not None or counted:
            for node_id in filter(None, (result.node_id, result.decoded_on)):
                self._records[node_id] = _Record(succeeded=time.monotonic())
        elsewhere, found = [], self._look(doubtful)
        for reject in doubtful:
            if self._comes_again(reject, found, blame=not counted and result.record is None):
                elsewhere.append(reject.clip_id)
            else:
                counted.append(self._final(reject))
        for reject in result.moved:
            self._tries[reject.clip_id][_node(reject)] = reject
            elsewhere.append(reject.clip_id)
        return replace(result, rejects=tuple(counted), elsewhere=tuple(elsewhere))

    @property
    def without(self) -> frozenset[str]:
        """The nodes that get no more work."""
        return self._nodes.without

    def sure(self, result: ShardResult) -> ShardResult:
        """The result without failures that another node would have to confirm: those clips stay pending."""
        rejects = tuple(reject for reject in self._seen(result).rejects if not _doubtful(reject))
        return replace(self._seen(result), rejects=rejects, failure=None)

    def next_pool(self, clips: Sequence[Clip]) -> tuple[list[Clip], frozenset[str]]:
        """Clips for the next round, and the nodes that get none of them.

        First all clips that have failed nowhere; then the others, on the half of the nodes where the fewest of them
        have failed: two rounds are enough for clips that have failed on one node each.
        """
        used = set(self._nodes.used)
        avoid = {clip.clip_id: used & self._tries[clip.clip_id].keys() for clip in clips if clip.clip_id in self._tries}
        # Where the last node that could try a clip has left, one that has tried it ends the matter.
        fresh = [clip for clip in clips if not avoid.get(clip.clip_id) or avoid[clip.clip_id] == used]
        if fresh:
            return fresh, self._nodes.without
        counts = {node_id: sum(node_id in nodes for nodes in avoid.values()) for node_id in used}
        order = sorted(used, key=lambda node_id: (counts[node_id], node_id))
        num_clean = sum(count == 0 for count in counts.values())
        pool = set(order[: max(num_clean, len(order) // 2, 1)])
        if not self._nodes.spare(used - pool) or not any(avoid[clip.clip_id].isdisjoint(pool) for clip in clips):
            pool = used - avoid[clips[0].clip_id]
        return [clip for clip in clips if avoid[clip.clip_id].isdisjoint(pool)], self._nodes.without | (used - pool)

    def _seen(self, result: ShardResult) -> ShardResult:
        """The result as a failure of its node, if that node's database is another folder than the driver's."""
        rows = () if result.record is None else result.record.clip_ids
        unseen = [] if result.record is None else unseen_files(self._db_uri, result.record)
        if not (unseen or unseen_updates(self._db_uri, result.updates)):
            return result
        num = len(rows) + len(result.updated)
        problem = f"it wrote {plural(num, 'row')} into another folder {self._db_uri} than the driver's"
        failure = (problem, "mount the database's file system on all nodes, or use a database in s3://")
        nothing: dict[str, Any] = dict.fromkeys(("rejects", "updates", "updated", "stage_rejects"), ())
        return replace(result, record=None, num_frames=0, failure=failure, **nothing)

    def _look(self, rejects: Sequence[Reject]) -> dict[str, bool]:
        """`{URI: whether another node sees the video}`, for the videos that another node was asked for."""
        asked = {self._uris[reject.clip_id] for reject in rejects if reject.reason not in MUST_BE_TRIED}
        failed_on = {_node(reject) for reject in rejects}
        others = self._nodes.used.keys() - failed_on if asked and self._nodes.spare(failed_on) else ()
        order = sorted(others, key=lambda node_id: (-self._records[node_id].succeeded, node_id))
        found: dict[str, bool] = {}
        self._ask(order[:MAX_ASKED], asked, found)
        if not any(self._records[node_id].succeeded for node_id in order[:MAX_ASKED]):
            self._ask(order[MAX_ASKED:], asked, found)  # all may be bad: ask the others, too
        return found

    def _ask(self, node_ids: Sequence[str], asked: Iterable[str], found: dict[str, bool]) -> None:
        unseen = {uri for uri in asked if not found.get(uri)}
        known = {node_id: unseen & self._missing[node_id] for node_id in node_ids}
        unknown = {node_id: sorted(unseen - known[node_id]) for node_id in node_ids}
        for node_id, missing in self._nodes.see({node_id: uris for node_id, uris in unknown.items() if uris}).items():
            self._missing[node_id] |= missing.keys()
            found |= {uri: True for uri in unknown[node_id] if uri not in missing}
        for node_id in node_ids:
            for uri in unseen & self._missing[node_id]:
                found.setdefault(uri, False)

    def _comes_again(self, reject: Reject, found: Mapping[str, bool], blame: bool) -> bool:
        """Whether another node must try the clip. If it is likely to succeed there, this node gets the blame."""
        tries = self._tries[reject.clip_id]
        tries[_node(reject)] = reject
        seen = None if reject.reason in MUST_BE_TRIED else found.get(self._uris[reject.clip_id])
        if seen is False or (seen is None and self._tried_enough(tries.keys())) or not self._nodes.spare(tries):
            return False
        if blame:
            self._blame(reject, confirmed=bool(seen))
        return True

    def _tried_enough(self, node_ids: Iterable[str]) -> bool:
        """Whether a failure on these nodes is the clip's fault: other clips have succeeded on one of them."""
        tried = self._nodes.used.keys() & set(node_ids)  # nodes that were left do not count
        sound = {node_id for node_id in self._nodes.used if self._records[node_id].succeeded}
        if tried & sound or not sound:
            return len(tried) >= (MAX_TRIES if sound else MAX_UNSURE_TRIES)
        return False

    def _blame(self, reject: Reject, confirmed: bool) -> None:
        """Count a failure against its node, and leave the node if `MAX_IN_A_ROW` clips fail there and not elsewhere."""
        node_id = _node(reject)
        record = self._records[node_id]
        record.in_a_row += 1
        record.first_failed = record.first_failed if record.in_a_row > 1 else time.monotonic()
        others = [other for id_, other in self._records.items() if id_ != node_id]
        confirmed = confirmed or any(other.succeeded > record.first_failed for other in others)
        if record.in_a_row >= MAX_IN_A_ROW and confirmed and self._nodes.spare([node_id]):
            first = reject.detail.splitlines()[0]
            self._nodes.leave(node_id, f"{record.in_a_row} clips in a row failed there, the last: {first}")

    def _final(self, reject: Reject) -> Reject:
        """The reject, with all attempts and the hosts that confirmed it. The failure no longer counts against them."""
        tries = self._tries.pop(reject.clip_id)
        for node_id in tries:
            self._records[node_id].in_a_row = max(0, self._records[node_id].in_a_row - 1)
        hosts = [str(other.host) for other in tries.values()]
        uri = self._uris[reject.clip_id]
        others = self._nodes.used.keys() - tries.keys()
        looked = [self._nodes.used[node_id] for node_id in sorted(others) if uri in self._missing[node_id]]
        if len(hosts) + len(looked) == 1:
            return reject
        where = f"; tried on {', '.join(hosts)}" + (f", looked for on {', '.join(looked)}" if looked else "")
        first, newline, hint = reject.detail.partition("\n")
        attempts = sum(other.attempts for other in tries.values())
        return replace(reject, detail=f"{first}{where}{newline}{hint}", attempts=attempts)


def _node(reject: Reject) -> str:
    """Of a reject that may be the node's fault: its node is known."""
    return cast("str", reject.node_id)


def _doubtful(reject: Reject) -> bool:
    is_of_node = reject.reason == "hung" or (reject.stage == "fetch" and reject.reason in OF_A_NODE)
    return is_of_node and reject.node_id is not None
