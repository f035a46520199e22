"""What `handloom status` reports of a run that has not ended."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.pipelines.status.status import status, status_text
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.judgements import Judgement, judge
from handloom.store.fragments import write_fragment
from handloom.store.runs.holder import Holder, this_process
from handloom.store.runs.lease import leased, run_state
from handloom.store.runs.runs import RunProgress, end_run, list_runs

SCHEMA = clips_schema(4)


def last_line(db):
    (line,) = [line for line in status_text(status(db)).splitlines() if line.startswith("last run")]
    return line


def test_a_run_lives_or_has_died(tmp_path):
    db = Database.open(tmp_path, create=True)
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}, where="start_s < 1") as lease:
        here = this_process()
        assert f"running on host {here.host}, process {os.getpid()}, user {here.user}; last heartbeat " in last_line(db)
        assert status(db)["last_run"]["holder"] == {
            "host": here.host,
            "pid": os.getpid(),
            "user": here.user,
            "where": "start_s < 1",
            "gone": False,
        }
    holder = Holder.from_json(lease.run.holder)
    for gone, word in (
        (Holder(holder.host, holder.pid, holder.user, holder.machine, 1), "died"),
        (None, "running, or"),
    ):
        db.table("runs").update({"holder": f"'{gone.to_json()}'" if gone else "NULL"})
        assert f": {word}" in last_line(db)


def test_a_run_says_how_far_it_is_with_its_heartbeat(tmp_path):
    """While it works, and after it was killed; a run that has ended says what it did instead."""
    db = Database.open(tmp_path, create=True)
    told = RunProgress(9, "clips", 3, 1, 120, 0.5, 15.0, 10.4, {"tracks": (2, 7.2), "load": (1, 1.0)})
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as lease:
        assert status(db)["last_run"]["progress"] is None
        lease.tell(told)
        lease.check()
        progress = status(db)["last_run"]["progress"]
        assert (progress["rows"], progress["total"], progress["clips_per_s"]) == (3, 9, 0.5)
        (line,) = [line for line in status_text(status(db)).splitlines() if " of 9 clips done" in line]
        assert line == (
            "  4 of 9 clips done (1 rejected), 0.5 clips/s and 15.0 frames/s in the last minute, about 10 s left; "
            "at work: tracks (2 workers, 7 s), loading models (1 s)"
        )
        run = list_runs(db)[-1]
        assert run_state(run, run.heartbeat_at) == "running"
        assert run_state(run, run.heartbeat_at + timedelta(seconds=90)) == "silent"
        holder = Holder.from_json(lease.run.holder)
        dead = Holder(holder.host, holder.pid, holder.user, holder.machine, 1).to_json()
        assert run_state(replace(run, holder=dead), run.heartbeat_at) == "gone"
        db.table("runs").update({"holder": f"'{dead}'"})
        assert [line for line in status_text(status(db)).splitlines() if " of 9 clips done" in line] == [
            "  4 of 9 clips done (1 rejected)"
        ]
        end_run(db, lease.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    assert status(db)["last_run"]["progress"] is None
    assert run_state(list_runs(db)[-1], datetime.now(UTC)) == "done"


def test_judgements_are_counted_with_those_whose_row_is_gone(tmp_path):
    db = Database.open(tmp_path, create=True)
    assert status(db)["judgements"] == {"good": 0, "bad": 0, "without_row": 0}
    assert "judged" not in status_text(status(db))
    clips = [make_clip(n) for n in range(4)]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, [make_row(clip) for clip in clips], SCHEMA)])
    judge(db, [Judgement(clip.clip_id, "bad" if n == 1 else "good") for n, clip in enumerate(clips[:3])])
    assert status(db)["judgements"] == {"good": 2, "bad": 1, "without_row": 0}
    assert "  judged           3   good 2, bad 1" in status_text(status(db)).splitlines()
    db.table("clips").delete(f"clip_id = '{clips[0].clip_id}'")
    assert status(db)["judgements"] == {"good": 2, "bad": 1, "without_row": 1}
    assert "good 2, bad 1; 1 clip has no row now" in status_text(status(db))


def test_what_is_known_of_lenses_paths_and_metres_is_counted(tmp_path):
    db = Database.open(tmp_path, create=True)
    assert status(db)["share_with_assumed_camera"] is None
    clips = [make_clip(n, camera='{"fov_deg":90}' if n == 2 else None) for n in range(4)]
    trusts = ({"metric_trust": 0.8}, {"metric_trust": 0.4, "num_cuts": 1.0}, {"num_cuts": 0.0}, {"metric_trust": 0.7})
    rows = [make_row(clip, quality=trust) for clip, trust in zip(clips, trusts, strict=True)]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, rows, SCHEMA)])
    for source, ids in (("given", clips[:1]), ("estimated", clips[1:3])):
        of = f"clip_id IN ({', '.join(repr(clip.clip_id) for clip in ids)})"
        db.table("clips").update({"world_scale": "'metric'", "camera_path_source": f"'{source}'"}, of)
    db.table("clips").update({"camera_source": "'given'"}, f"clip_id = '{clips[0].clip_id}'")
    seen = {"camera_preset": "'gopro-wide'", "view": "'ego'", "hand_view": "'exo'"}
    db.table("clips").update(seen, f"clip_id = '{clips[2].clip_id}'")
    values = status(db)
    assert values["clips_by_camera_source"] == {"given": 1, "estimated": 0, "assumed": 3}
    assert (values["clips_by_camera_preset"], values["share_with_assumed_camera"]) == ({"gopro-wide": 1}, 0.75)
    assert values["clips_with_default_camera"] == 2
    text = status_text(values)
    assert "intrinsics given in 1 clip, estimated in 0, assumed in 3 (75% of the clips); presets: gopro-wide 1" in text
    assert "the lens of 2 clips is unknown" in text
    assert "cuts      in 1 clip another" in text
    assert "the images of 1 clip contradict the given --view" in text
    assert "poses in metres in 3 clips (1 given, 2 estimated), of arbitrary" in text
    assert values["clips_by_metric_trust"] == {"likely": 2, "unlikely": 1, "unknown": 1}
    assert "likely (0.7 or more) in 2 clips, less so in 1, not known in 1" in text
    db.table("clips").update({"view": "NULL"})
    add_clips(db, [make_clip(n, camera='{"fov_deg":90}' if n else None) for n in range(5)])
    values = status(db)
    assert (values["outdated"], values["outdated_examples"]) == (2, [clips[1].clip_id, clips[3].clip_id])
    assert f"2 rows were made with another camera than the clip list has now, {clips[1].clip_id}" in (
        status_text(values)
    )
    db.table("clips").drop_columns(["camera_preset", "hand"])  # rows before 0.4
    assert status(db)["clips_by_camera_preset"] == {}
