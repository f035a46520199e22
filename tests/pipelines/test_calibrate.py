"""`handloom calibrate`: what clips share, what is left alone, and that its own output is no evidence."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support.extraction import rows_of
from support.rows import RUN_KEY, make_clip, make_row

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.geometry.camera.intrinsics import camera_for
from handloom.geometry.shared_value import field_of_view_deg
from handloom.ingest.human.folder import ingest_folder
from handloom.pipelines.calibrate.calibrate import calibrate
from handloom.pipelines.calibrate.clip_evidence import read_evidence
from handloom.schemas.calibrated import Seen, before_calibration, read_calibrated
from handloom.schemas.hand_size import parse_hand
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.values import Camera, VideoInfo
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.changed_inputs import changed_inputs
from handloom.store.clips.clip_list import add_clips, pending_clips, read_clips, update_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.removal import remove_rows
from handloom.store.fragments import write_fragment
from handloom.store.runs.lease import leased
from handloom.synth.clip import write_clip
from handloom.synth.script.demo import synth_specs
from handloom.video.decode.probe import Prober
from handloom.video.fetch.video_source import VideoSource

SCHEMA = clips_schema(4)
INFO = VideoInfo(640, 360, 30.0, "h264", "yuv420p", 0, 0.0, 10.0, 300)
ASSUMED = 0.5 / math.tan(math.radians(35)), 0.33  # of the settings
TRUE = 0.3836  # EgoDex: 105 degrees


def row_of(clip, found: float | None, sigma: float = 0.08, width: int = 640, told: tuple[float, float] = ASSUMED):
    """The row of a clip whose own measurement of its lens is `found` (None: no measurement), combined with `told`."""
    camera = camera_for(clip, INFO, Settings().camera)
    if found is None and told is ASSUMED:
        return make_row(clip, camera=camera)
    weights = np.array([0.0 if found is None else sigma**-2.0, told[1] ** -2.0])
    focal = width * math.exp(float(weights @ np.log([found or 1.0, told[0]])) / weights.sum())
    source, both = "assumed" if found is None else "estimated", float(weights.sum() ** -0.5)
    lens = Camera(np.diag([focal, focal, 1.0]), source, focal_sigma=both)
    said = {} if found is None else {"focal_found": found, "focal_found_sigma": sigma}
    return make_row(clip, camera=lens, quality=said)


@pytest.fixture
def db(tmp_path) -> Database:
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    return Database.open(tmp_path / "db", create=True)


def clip_of(db: Database, video: str, number: int, **values):
    folder = db.uri.removesuffix("/db")
    own = {"clip_id": f"test:{video}:{number}-{number + 1}", "video_id": video, "video_uri": f"{folder}/{video}.mp4"}
    return make_clip(number, **(own | values))


def write(db: Database, rows) -> None:
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, list(rows), SCHEMA)], [])


def fill(db: Database, found: dict, **values) -> None:
    """Put clips `{(video, number): own measurement or None}` into the list, each with its row."""
    clips = {key: clip_of(db, *key, **values) for key in found}
    add_clips(db, clips.values())
    write(db, (row_of(clips[key], focal) for key, focal in found.items()))


def rerun(db: Database) -> list[str]:
    """Make outdated rows anew, as a run does: with a calibrated lens a row measures none."""
    remove_rows(db, changed_inputs(db))
    pending = pending_clips(db)
    if pending:
        write(db, (row_of(clip, None) for clip in pending))
    return [clip.clip_id for clip in pending]


def cameras(db: Database) -> dict[str, str | None]:
    return {clip.clip_id: clip.camera for clip in read_clips(db)}


EGODEX = {("a", 0): 0.394, ("a", 1): 0.555, ("a", 2): 0.372, ("a", 3): 0.390, ("a", 4): None}


def test_clips_of_a_video_share_their_lens_and_their_rows_are_outdated(db):
    fill(db, EGODEX | {("b", 0): 0.6})
    before = cameras(db)
    tried = calibrate(db, dry_run=True)
    assert cameras(db) == before
    assert not changed_inputs(db)
    version = db.version
    done = calibrate(db)
    assert done == replace(tried, dry_run=False)
    video, lone = done.groups
    assert (video.group, video.num_clips, video.lens.num_clips, video.num_changed) == ("test:a", 5, 4, 5)
    assert video.lens.after == pytest.approx(105, abs=4)
    assert video.lens.after_sigma < 0.1
    assert (lone.lens.note, lone.num_changed) == ("one clip takes part: nothing to share", 0)
    assert (done.num_changed, done.rows, done.kept_rows) == (5, 5, 0)
    assert set(changed_inputs(db).values()) == {frozenset({"camera"})}, "a run with --recompute finds them"
    assert (db.version, pending_clips(db)) == (version, []), "no row is touched"
    assert rerun(db) == [f"test:a:{n}-{n + 1}" for n in range(5)]
    rows = db.clips(["clip_id", "camera_source", "camera_matrix", "camera_focal_sigma"]).to_pylist()
    found = {row["camera_matrix"][0] / 640: row["camera_focal_sigma"] for row in rows if ":a:" in row["clip_id"]}
    ((focal, sigma),) = found.items()
    assert focal == pytest.approx(TRUE, rel=0.07)
    assert sigma == pytest.approx(video.lens.after_sigma, abs=1e-4)


def test_its_own_output_is_no_evidence(db):
    """calibrate, run, calibrate, ...: the same numbers, whether the run came in between or not."""
    fill(db, EGODEX)
    first = calibrate(db)
    written = cameras(db)
    for number in range(3):
        again = calibrate(db)
        assert (again.num_changed, again.rows) == (0, 0 if number else 5)
        assert (again.groups[0].lens.after, again.groups[0].lens.num_clips) == (first.groups[0].lens.after, 4)
        rerun(db)
        assert cameras(db) == written
    assert calibrate(db, by="all").groups[0].lens.after_sigma == pytest.approx(first.groups[0].lens.after_sigma)
    assert {before_calibration(camera) for camera in cameras(db).values()} == {None}


def test_what_hands_tell_counts_once_and_stays_known(db):
    """A row's lens includes it; a row made anew with a calibrated lens does not."""
    clips = [clip_of(db, "a", n) for n in range(6)]
    add_clips(db, clips)
    hands = (0.5, 0.18)
    write(db, (row_of(clip, TRUE if n == 0 else None, 0.12, told=hands) for n, clip in enumerate(clips)))
    first = calibrate(db).groups[0].lens
    assert 0.07 < first.after_sigma < 0.16  # six clips' hands are one clip's
    assert 92 < first.after < 105
    assert read_calibrated(read_clips(db)[3].camera).told == Seen(0.5, 0.18)
    assert len(rerun(db)) == 6
    again = calibrate(db)
    assert (again.num_changed, again.groups[0].lens.after) == (0, first.after)


def test_what_rows_assumed_counts_no_more_once_another_lens_is_said(db):
    """The rows were made with 70 degrees, known to a third; a preset is given later, and the rows are still there."""
    fill(db, {("a", n): 0.36 for n in range(3)})
    said = json.dumps({"fov_deg": 105, "focal_sigma": 0.1, "source": "assumed", "preset": "egodex"})
    update_clips(db, [replace(clip, camera=said) for clip in read_clips(db)])
    assert {words.told for words in read_evidence(db, read_clips(db))} == {None}
    found = calibrate(db, by="device", dry_run=True).groups[0].lens
    assert 105 < found.after < field_of_view_deg(0.36, "opencv", None)


def test_a_lens_that_was_said_surer_than_clips_can_tell_stays(db):
    said = json.dumps({"fov_deg": 105, "focal_sigma": 0.01, "source": "assumed", "preset": "egodex"})
    fill(db, {("a", n): TRUE for n in range(2)}, camera=said)
    lens = calibrate(db, by="device").groups[0].lens
    assert (lens.after, lens.note) == (None, "the lens is known better, and stays, in 2 clips")
    fill(db, {("a", 2): None})
    done = calibrate(db)
    assert (done.num_changed, done.groups[0].lens.after) == (1, pytest.approx(105, abs=2))
    assert done.groups[0].lens.note.endswith("stays, in 2 clips")


def test_a_new_clip_takes_the_lens_that_is_there_and_a_surprise_moves_it(db):
    fill(db, {("a", n): TRUE for n in range(6)})
    calibrate(db)
    rerun(db)
    fill(db, {("a", 7): 0.40})
    done = calibrate(db)
    assert (done.num_changed, done.rows) == (1, 1)
    assert len({read_calibrated(camera).shared for camera in cameras(db).values()}) == 1
    rerun(db)
    fill(db, {("a", n): 0.47 for n in range(20, 30)})
    assert calibrate(db).num_changed == 17


def test_what_was_given_stays(db):
    matrix = {"camera_matrix": [500, 0, 319.5, 0, 500, 179.5, 0, 0, 1]}
    bent = {"fov_deg": 100, "distortion": {"model": "simple_radial", "params": [0.02]}, "source": "assumed"}
    given = [clip_of(db, "a", 8, camera=json.dumps(matrix)), clip_of(db, "a", 9, camera=json.dumps(bent))]
    hand = json.dumps({"length_m": 0.17, "sigma": 0.02, "source": "given"})
    fill(db, {("a", n): TRUE for n in range(3)}, hand=hand)
    add_clips(db, given)
    write(db, (row_of(clip, None) for clip in given))
    done = calibrate(db)
    assert done.groups[0].known == {"given": 1, "own distortion": 1}
    listed = {clip.clip_id: clip for clip in read_clips(db)}
    assert [listed[clip.clip_id] for clip in given] == given
    assert {clip.hand for clip in listed.values()} == {hand, None}
    assert done.num_changed == 3


def test_two_lenses_in_one_group_are_not_merged(db):
    fill(db, {("a", n): 0.39 for n in range(3)} | {("b", n): 0.60 for n in range(3)})
    mixed = calibrate(db, by="all")
    assert (mixed.num_changed, mixed.groups[0].lens.after) == (0, None)
    assert "not of one lens, or zoomed (measured: 80 to 104 degrees)" in mixed.groups[0].lens.note
    assert calibrate(db).num_changed == 6


def test_different_assumptions_in_one_group_are_named(db):
    for number, (video, preset) in enumerate((("a", "egodex"), ("b", "epic"))):
        camera = {"fov_deg": (105, 85)[number], "focal_sigma": 0.01, "source": "assumed", "preset": preset}
        fill(db, {(video, 0): None, (video, 1): None}, camera=json.dumps(camera))
    add_clips(db, [clip_of(db, "c", 0)])
    write(db, [row_of(clip_of(db, "c", 0), 0.38)])
    (group,) = calibrate(db, by="all").groups
    assert (
        "different lenses were assumed of this group's clips, 105 degrees (test:a:0-1) and 85 degrees"
        in group.lens.note
    )
    by_device = calibrate(db, by="device")
    assert [group.group for group in by_device.groups] == ["preset egodex", "preset epic"]
    assert by_device.ungrouped == 1


@pytest.mark.parametrize("name", ["keypoint_scale", "seen_size"])
def test_hands_of_one_person_share_their_length(db, name):
    """The length that is found holds for the keypoint scale that was assumed: both are written. A list from before 0.4
    has the scale under its old name."""
    drawn = json.dumps({name: 0.75, "source": "preset egodex"})
    clips = [clip_of(db, "a", n, hand=drawn) for n in range(5)]
    add_clips(db, clips)
    said = [{"hand_length_found_m": length, "hand_length_found_sigma": 0.06} for length in (0.170, 0.172, 0.168, 0.169)]
    write(db, (make_row(clip, quality=own) for clip, own in zip(clips, [*said, {}], strict=True)))
    assert calibrate(db, by="device").num_changed == 0  # of many people
    done = calibrate(db)
    hand = done.groups[0].hand
    assert (hand.num_clips, hand.before) == (4, pytest.approx(0.185))
    assert hand.after == pytest.approx(0.171, abs=0.003)
    assert hand.after_sigma < hand.before_sigma / 1.5
    assert len({clip.hand for clip in read_clips(db)}) == 5  # each keeps its own word
    for clip in read_clips(db):
        size = parse_hand(clip.hand)
        assert (size.keypoint_scale, size.keypoint_scale_sigma) == (0.75, 0.0)
        assert size.length_m == pytest.approx(hand.after, abs=1e-4)
        assert "seen_size" not in json.loads(clip.hand)
        assert before_calibration(clip.hand) == json.dumps(json.loads(drawn), sort_keys=True, separators=(",", ":"))
    assert rerun(db)
    assert calibrate(db).num_changed == 0


def test_images_of_two_sizes_are_compared(db):
    fill(db, {("a", n): 0.39 for n in range(4)})
    small = [row_of(clip_of(db, "b", n), found, 0.03, 320) for n, found in enumerate((0.55, 0.56))]
    add_clips(db, [clip_of(db, "b", n) for n in range(2)])
    write(db, small)
    db.table("clips").update({"width": "320", "height": "240"}, "video_id = 'b'")
    note = calibrate(db, by="all").groups[0].lens.note
    assert "640 x 360: 103 degrees and 320 x 240:" in note
    assert calibrate(db, where="video_id = 'a'").groups[0].lens.note == ""
    remove_rows(db, changed_inputs(db))
    write(db, [row_of(pending_clips(db)[0], None)])  # of the other rows, which are to be made anew, no size is known
    assert calibrate(db, where="video_id = 'a'").groups[0].lens.note == ""


def test_a_clip_of_another_size_that_says_nothing_is_told_of(db):
    fill(db, {("a", 0): 0.39, ("a", 1): 0.39, ("b", 0): None})
    db.table("clips").update({"width": "320", "height": "240"}, "video_id = 'b'")
    lens = calibrate(db, by="all", dry_run=True).groups[0].lens
    assert (lens.num_clips, lens.note) == (2, "images of 2 sizes, whose measured lenses do not differ")


def test_rows_whose_video_has_gone_stay(db, tmp_path):
    fill(db, EGODEX)
    (tmp_path / "a.mp4").unlink()
    done = calibrate(db)
    assert (done.num_changed, done.rows, done.kept_rows) == (5, 0, 5)


def test_twice_before_a_run_gives_the_same(db):
    """The new list beside the old rows."""
    fill(db, EGODEX)
    first = calibrate(db)
    done = calibrate(db)
    assert (done.num_changed, done.rows) == (0, 5)
    assert (done.groups[0].lens.after, done.groups[0].lens.num_clips) == (first.groups[0].lens.after, 4)


def test_not_while_a_run_works(db):
    fill(db, EGODEX)
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}):
        with pytest.raises(StoreError, match="works on"):
            calibrate(db)
        assert calibrate(db, dry_run=True).num_changed == 5
    assert set(cameras(db).values()) == {None}


def test_command(db, cli):
    fill(db, EGODEX, participant="P01")
    code, out, _ = cli("calibrate", "--db", db.uri, "--by", "participant", "--dry-run", "--json")
    assert (code, json.loads(out)["groups"][0]["group"]) == (0, "test:P01")
    code, out, _ = cli("calibrate", "--db", db.uri)
    assert code == 0
    assert "5 clips of the list have another lens or hand size than before" in out
    again = f"`handloom run --db {db.uri} --recompute` computes what depends on it again"
    assert f"5 rows were made with the old one: {again}" in out
    assert cli("calibrate", "--db", db.uri)[1].splitlines()[-2].startswith("0 clips of the list have")
    code, _, err = cli("calibrate", "--db", db.uri, "--where", "video_id = 'z'")
    assert (code, "no clip that passes" in err) == (2, True)


@pytest.mark.parametrize("said", [(math.inf, 0.1), (0.4, math.inf), (0.4, 1e-9), (math.nan, 0.1), (-0.4, 0.1)])
def test_numbers_that_are_none_say_nothing(db, said):
    fill(db, {("a", 0): 0.39, ("a", 1): 0.40})
    clip = clip_of(db, "a", 2)
    add_clips(db, [clip])
    quality = dict(zip(("focal_found", "focal_found_sigma"), said, strict=True))
    write(
        db, [make_row(clip, camera=Camera(np.diag([250.0, 250.0, 1.0]), "estimated", focal_sigma=0.1), quality=quality)]
    )
    (group,) = calibrate(db).groups
    assert (group.num_clips, group.lens.num_clips, group.num_changed) == (3, 2, 3)


def test_rows_of_older_versions_say_nothing(db):
    fill(db, dict.fromkeys(EGODEX))
    db.table("clips").drop_columns(["hand", "camera_model", "camera_focal_sigma"])
    (group,) = calibrate(db).groups
    assert group.lens.note == "no clip measured it"
    assert group.lens.before_sigma is None


def test_a_wrong_choice(db):
    with pytest.raises(ConfigError, match="by 'person'"):
        calibrate(db, by="person")
    with pytest.raises(ConfigError, match="holds no clips"):
        calibrate(db)
    add_clips(db, [clip_of(db, "a", n) for n in range(2)])
    assert "no clip has a row yet" in calibrate(db).groups[0].lens.note


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rendered_clips_of_one_lens(tmp_path):
    """Rows of videos without a camera file, calibrated, made anew: nearer to the lens, and no surer in a third."""
    for number, spec in enumerate(synth_specs(3, seed=12, width=320, height=240, fps=15, duration_s=3.0)):
        write_clip(replace(spec, fov_deg=95.0, distortion=()), tmp_path / f"{number}.mp4", camera=False, truth=False)
    with Prober(VideoSource()) as probe:
        clips = ingest_folder(str(tmp_path), dataset="test", view="ego", probe=probe).clips
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, clips)
    settings = Settings()
    run_key = settings.run_key(model_versions(settings))
    schema = stage_graph(settings).schema()

    def run() -> None:
        remove_rows(db, changed_inputs(db))
        rows = list(rows_of(pending_clips(db), settings))
        Committer(db, run_key, schema).commit([write_fragment(db.uri, rows, schema)], [])

    def focals() -> np.ndarray:
        return np.array([matrix[0] / 320 for matrix in db.clips(["camera_matrix"]).column(0).to_pylist()])

    true = 0.5 / math.tan(math.radians(95 / 2))
    run()
    alone = np.abs(np.log(focals() / true))
    first = calibrate(db, by="all")
    assert first.rows == 3
    run()
    together = np.abs(np.log(focals() / true))
    assert together.max() < alone.max() / 2  # alone 0.2, 1.7 and 20 % off, together 3.7
    assert together.max() < 2 * first.groups[0].lens.after_sigma
    again = calibrate(db, by="all")
    assert (again.num_changed, again.groups[0].lens.after) == (0, first.groups[0].lens.after)
