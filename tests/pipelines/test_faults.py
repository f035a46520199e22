"""An exception that nobody expected costs the clip it came from, until it comes from too many."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.extraction import new_database, outcome, row_digests
from support.faults import faulty

from handloom.errors import HandloomError
from handloom.pipelines.run import run
from handloom.store.clip_list import pending_clips

pytestmark = pytest.mark.usefixtures("ray_address")


def test_a_bug_on_one_clip_costs_that_clip(tmp_path, clips, expected):
    """In one shard with clips whose rows are as ever; a worker that cannot go on after a bug is followed by another."""
    faults = {1: "bug", 2: "memory", 4: "spoilt"}
    listed = [replace(clip, dataset=faults.get(number, clip.dataset)) for number, clip in enumerate(clips)]
    db = new_database(tmp_path / "db", listed)
    summary = run(db, faulty(num_actors=1, shard_clips=6), quiet=True)
    assert (summary.exit, summary.num_clips) == ("rejects", 3)
    assert summary.reasons == {"bug": 2, "out_of_memory": 1}
    lost = {clips[number].clip_id: {"memory": "out_of_memory"}.get(name, "bug") for number, name in faults.items()}
    assert outcome(db) == dict.fromkeys(expected, "row") | lost
    assert row_digests(db) == {i: digest for i, digest in expected.items() if i not in lost}
    for reject in db.rejects().to_pylist():
        assert reject["stage"] == "hand_fit"
        assert reject["attempts"] == (1 if reject["clip_id"] == clips[1].clip_id else 2)
        error, place, *_, hint = reject["detail"].splitlines()
        assert error in ("TypeError: injected", "MemoryError: injected")
        assert place.startswith("  at support/faults.py:")
        assert "  at handloom/workers/stages.py:" in reject["detail"]
        assert "--retry-rejects" in hint
    assert not pending_clips(db)
    assert run(db, None, quiet=True).exit == "done"


def test_a_bug_on_most_clips_fails_the_run_with_its_trace(tmp_path, clips):
    db = new_database(tmp_path / "db", [replace(clip, dataset="bug") for clip in clips[:3]])
    message = (
        r"(?s)3 of 3 clips met an exception.*commonest, on 3 of them:\nTypeError: injected\n  at support/faults.py"
    )
    with pytest.raises(HandloomError, match=message):
        run(db, faulty(num_actors=1), quiet=True)
    assert set(outcome(db).values()) == {"bug"}
    assert db.runs().column("exit").to_pylist() == ["failed"]
    assert run(db, None, quiet=True).exit == "done"  # nothing is tried again unless asked
