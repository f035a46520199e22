"""An unexpected exception, or a death, costs the clip it came from, until too many clips have one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC
from functools import partial
from pathlib import Path

import pytest
import ray
from support.extraction import new_database, outcome, row_digests
from support.faults import faulty, slow_to_load
from support.in_process import HERE, InProcess

from handloom.errors import HandloomError
from handloom.pipelines.cluster.nodes import Nodes
from handloom.pipelines.run.driver import RunParts
from handloom.pipelines.run.run import run
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Resources, RunConfig
from handloom.store.clips.clip_list import add_clips, pending_clips

pytestmark = pytest.mark.usefixtures("ray_address")


@pytest.mark.timeout(240)  # a worker that starts again takes 40 s at a load of 20
def test_bugs_deaths_and_missing_videos_cost_their_clips_alone_and_can_be_cured(tmp_path, clips, expected):
    """In one run. The clip before one that kills its worker, in the same shard, is not to blame; the other clips get
    their usual rows; a worker that cannot go on after a bug is replaced."""
    faults = {0: "bug", 1: "memory", 3: "spoilt", 5: "kill"}
    missing = [gone(clips[0], tmp_path / f"gone{i}.mp4") for i in range(6)]  # so many that shards hold two
    listed = [replace(clip, dataset=faults.get(number, clip.dataset)) for number, clip in enumerate(clips)]
    db = new_database(tmp_path / "db", [*missing[:3], *listed, *missing[3:]])
    summary = run(db, faulty(num_actors=1, shard_clips=6, commit_clips=1), quiet=True)
    assert (summary.exit, summary.num_clips) == ("rejects", 2)
    assert summary.reasons == {"bug": 2, "out_of_memory": 1, "worker_died": 1, "video_missing": 6}
    reasons = {"memory": "out_of_memory", "kill": "worker_died"}
    lost = {clips[number].clip_id: reasons.get(name, "bug") for number, name in faults.items()}
    nowhere = {clip.clip_id: "video_missing" for clip in missing}
    assert outcome(db) == dict.fromkeys(expected, "row") | lost | nowhere
    assert row_digests(db) == {i: digest for i, digest in expected.items() if i not in lost}
    rejects = {reject["clip_id"]: reject for reject in db.rejects().to_pylist()}
    assert {clip_id: rejects[clip_id]["attempts"] for clip_id in lost} == {
        clip_id: 1 if clip_id == clips[0].clip_id else 2 for clip_id in lost
    }
    for number in (0, 1, 3):
        reject = rejects[clips[number].clip_id]
        assert reject["stage"] == "lens"
        error, place, *_, hint = reject["detail"].splitlines()
        assert error in ("TypeError: injected", "MemoryError: injected")
        assert place.startswith("  at support/faults.py:")
        assert "  at handloom/stages/builtin/camera.py:" in reject["detail"]
        assert "--retry-rejects" in hint
    assert not pending_clips(db)
    assert run(db, None, quiet=True).exit == "done"

    add_clips(db, clips)
    shutil.copy(clips[0].video_uri, missing[0].video_uri)
    killer = clips[5].clip_id
    assert [clip.clip_id for clip in pending_clips(db, retry_reasons=["worker_died"])] == [killer]
    config = RunConfig(resources=Resources(num_actors=1))
    summary = run(db, config, quiet=True, retry_rejects=("all",), parts=HERE)
    assert (summary.exit, summary.num_clips, summary.reasons) == ("rejects", 5, {"video_missing": 5})
    assert outcome(db)[missing[0].clip_id] == "row"
    assert row_digests(db).items() >= expected.items()


def gone(clip: Clip, path: Path) -> Clip:
    return replace(clip, clip_id=f"test:{path.stem}:0-1000", video_id=path.stem, video_uri=str(path))


@pytest.mark.timeout(240)
def test_a_bug_on_most_clips_fails_the_run_with_its_trace(tmp_path, clips):
    db = new_database(tmp_path / "db", [replace(clip, dataset="bug") for clip in clips[:3]])
    message = (
        r"(?s)3 of 3 clips met an unexpected exception.*on 3 of them:\nTypeError: injected\n  at support/faults.py"
    )
    with pytest.raises(HandloomError, match=message):
        run(db, faulty(num_actors=1), quiet=True, parts=HERE)
    assert set(outcome(db).values()) == {"bug"}
    assert db.runs().column("exit").to_pylist() == ["failed"]
    assert run(db, None, quiet=True).exit == "done"  # nothing is tried again unless asked


LIMITS = {"stage_s": 8.0, "stage_frame_s": 0.0, "decode_timeout_s": 4.0, "commit_s": 1.0}
HANGS = [  # in short in tests/workers/test_ledger.py, and below with models that never load
    pytest.param("hang", "fused", marks=pytest.mark.slow),
    pytest.param("spin", "fused", marks=pytest.mark.slow),  # holds the interpreter's lock
    pytest.param("hang", "split", marks=pytest.mark.slow),
    pytest.param("stop", "split", marks=pytest.mark.slow),  # the process stands still
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("fault", "mode"), HANGS)
def test_a_clip_that_hangs_is_tried_again_and_rejected_and_holds_up_nobody(tmp_path, clips, expected, fault, mode):
    lost = clips[1].clip_id
    db = new_database(tmp_path / "db", [replace(c, dataset=fault) if c.clip_id == lost else c for c in clips[:3]])
    pools = {"mode": mode, "num_actors": 1, "num_decode_actors": 1}
    summary = run(db, faulty(**pools, **LIMITS), quiet=True)
    assert (summary.exit, summary.num_clips, summary.reasons) == ("rejects", 2, {"hung": 1})
    assert row_digests(db) == {clip.clip_id: expected[clip.clip_id] for clip in clips[:3] if clip.clip_id != lost}
    (reject,) = db.rejects().to_pylist()
    assert (reject["clip_id"], reject["attempts"]) == (lost, 2)
    assert reject["stage"] in (("hands_3d",) if fault == "hang" else ("hands", "hands_3d"))  # see `Work`
    assert reject["detail"].count("(limit 8 s)") == 2
    commits = [version["timestamp"].astimezone(UTC) for version in db.table("clips").versions()]
    assert (reject["at"] - commits[1]).total_seconds() > LIMITS["stage_s"]  # by time: no other result had come


@pytest.mark.timeout(240)
def test_models_that_never_load_end_the_run(tmp_path, clips):
    db = new_database(tmp_path / "db", clips[:1])
    with pytest.raises(HandloomError, match=r"worker \d+ on \S+ has been at stage load.* \(models\) .* limit is 3 s"):
        run(db, slow_to_load(num_actors=1, load_s=3.0), quiet=True)
    assert db.runs().column("exit").to_pylist() == ["failed"]
    assert pending_clips(db) == [*clips[:1]]


def test_a_pool_that_ends_by_itself_is_followed_by_another_but_not_for_ever(tmp_path, clips, expected):
    """As Ray ended one on a machine at a load of 30: `The actor never ran`."""
    db, begun = new_database(tmp_path / "db", clips[:1]), []

    class EndsAtOnce(InProcess):
        def __iter__(self):
            begun.append(self)
            if len(begun) in (1, 2, 3, 4):
                raise ray.exceptions.ActorDiedError
            return super().__iter__()

    parts = RunParts(graph=EndsAtOnce, nodes=partial(Nodes, noticed_s=0.0))
    with pytest.raises(HandloomError, match="the run cannot go on, Ray reports ActorDiedError"):
        run(db, faulty(num_actors=1), quiet=True, parts=parts)
    assert len(begun) == 3
    assert run(db, None, quiet=True, parts=parts).exit == "done"
    assert len(begun) == 5
    assert row_digests(db) == {clips[0].clip_id: expected[clips[0].clip_id]}
