"""Near-duplicates: the same groups in any order of rows, in blocks of any size, at once or as rows come."""

import json
from functools import cache

import cv2
import lance
import numpy as np
import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.index import find_duplicates, report_text, update_indexes
from handloom.pipelines.stages import stage_states, stage_states_text
from handloom.pipelines.status.status import status, status_text
from handloom.schemas.tables.arrow import clips_schema
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.clips.removal import remove_rows
from handloom.store.duplicates import compare
from handloom.store.duplicates.grouping import Thresholds, duplicate_counts, group_duplicates
from handloom.store.duplicates.groups import components, overlapping_pairs
from handloom.store.fragments import write_fragment
from handloom.store.runs.lease import leased
from handloom.store.runs.runs import end_run
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter
from handloom.video.fingerprint.course import DIM as COURSE_DIM
from handloom.video.fingerprint.course import course
from handloom.video.fingerprint.pictures import Fingerprint, fingerprint

LEAST = {"look": 0.9, "agreement": 0.9}
DIM = 8


def turned(angle: float, axis: int = 0) -> np.ndarray:
    """A unit vector at this angle from an axis: cosines of two of one axis are those of their difference."""
    vector = np.zeros(DIM, np.float32)
    vector[axis], vector[axis + 1] = np.cos(angle), np.sin(angle)
    return vector


@cache
def film(number: int) -> bytes:
    """The fingerprint of a recording: a thing of its own course before a background of its own."""
    rng = np.random.default_rng([number, 9])
    ground = cv2.GaussianBlur(rng.uniform(0, 255, (48, 64, 3)), (0, 0), 3) * 3 - 255
    ways = rng.uniform(8, 40, (3, 2))
    frames = []
    for time in np.linspace(0, 1, 8):
        x, y = (1 - time) ** 2 * ways[0] + 2 * time * (1 - time) * ways[1] + time**2 * ways[2]
        frames.append(cv2.circle(ground.clip(0, 255).astype(np.uint8), (int(x + 8), int(y)), 8, (250, 240, 230), -1))
    return fingerprint(frames)


def empty(tmp_path, num: int) -> Database:
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, [make_clip(number) for number in range(num)])
    return db


def add(db: Database, numbers, looks, films, keys=None) -> None:
    """Rows of these clips, one fragment: clip `number` has `looks[number]`, and shows the recording `films[number]`."""
    numbers = list(numbers)
    rows = pa.Table.from_batches([make_row(n) for n in numbers])
    keys = keys or ["k"] * len(numbers)
    rows = with_keys(rows, {"look": keys, "fingerprint": keys})
    shown = [None if films[n] is None else film(films[n]) for n in numbers]
    rows = with_own_column(rows, "fingerprint", "fingerprint", pa.array(shown, pa.binary()))
    courses = [None if one is None else course(Fingerprint(one)).tolist() for one in shown]
    courses = pa.array(courses, pa.list_(pa.int8(), COURSE_DIM))
    rows = with_own_column(rows, "fingerprint", "fingerprint_course", courses)
    vectors = pa.array([looks[n].tolist() for n in numbers], pa.list_(pa.float32(), DIM))
    rows = with_own_column(rows, "look", "embedding_look", vectors)
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    table = db.table("clips")
    if table is not None and "duplicate_group" in table.schema.names:
        for name in ("duplicate_group", "stage_key_duplicates"):
            rows = rows.append_column(table.schema.field(name), pa.nulls(len(numbers), pa.string()))
        schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])


def groups(db: Database) -> dict[str, str | None]:
    rows = db.clips(["clip_id", "duplicate_group"])
    return dict(zip(*(rows.column(name).to_pylist() for name in rows.column_names), strict=True))


def drawn(seed: int, num: int) -> tuple[list[np.ndarray], list[int]]:
    """Chains of near angles: some joined only through others, some alike in look alone."""
    rng = np.random.default_rng(seed)
    axes, angles = rng.integers(0, 6, num), rng.uniform(0, 1.5, num)
    films = [int(axis + 6 * rng.choice([0, 0, 0, 1])) for axis in axes]
    return [turned(angle, axis) for angle, axis in zip(angles, axes, strict=True)], films


def plainly(looks, films) -> dict[str, str]:
    """The groups by comparing every pair, and following pairs one by one."""
    ids = [make_clip(number).clip_id for number in range(len(looks))]
    group = dict(zip(ids, ids, strict=True))
    for a, one in enumerate(ids):
        for b, other in enumerate(ids):
            same = films[a] == films[b] and float(looks[a].astype(float) @ looks[b]) >= 0.9
            if same and group[one] != group[other]:
                low, high = sorted((group[one], group[other]))
                group = {id_: low if now == high else now for id_, now in group.items()}
    return group


@pytest.mark.parametrize("seed", range(3))
def test_order_blocks_and_growth_change_no_group(tmp_path, monkeypatch, seed):
    num = 40
    looks, films = drawn(seed, num)
    expected = plainly(looks, films)
    assert 1 < len(set(expected.values())) < num
    order = np.random.default_rng(seed).permutation(num).tolist()
    whole, grown = empty(tmp_path / "whole", num), empty(tmp_path / "grown", num)
    add(whole, order[:25], looks, films)
    add(whole, order[25:], looks, films)
    found = group_duplicates(whole, **LEAST)
    assert (found.num_rows, found.num_compared, found.num_written) == (num, num, num)
    assert groups(whole) == expected
    small = {"TILE_ROWS": 7, "BATCH_ROWS": 3, "CHUNK_PAIRS": 5, "WAITING_PAIRS": 9, "SHORT": 3, "SAMPLE_ROWS": 6}
    for name, value in small.items():
        monkeypatch.setattr(compare, name, value)
    for start, stop in ((0, 12), (12, 13), (13, 40)):
        add(grown, sorted(order)[start:stop] if seed else order[start:stop], looks, films)
        found = group_duplicates(grown, **LEAST)
        assert found.num_compared == stop - start
    assert groups(grown) == expected
    version = grown.version
    again = group_duplicates(grown)
    assert (again.num_compared, again.num_written, again.thresholds) == (0, 0, Thresholds(**LEAST))
    assert grown.version == version


@pytest.mark.parametrize("seed", range(2))
def test_short_vectors_miss_no_pair(tmp_path, monkeypatch, seed):
    """Embeddings of usual width, pairs on both sides of the threshold, all of one recording."""
    monkeypatch.setattr(compare, "SHORT", 12)
    rng, num, dim = np.random.default_rng(seed), 300, 96
    rows = rng.standard_normal((num, dim)) * (1 + np.arange(dim)) ** -0.5
    for row in range(100, num):  # somewhat like another one
        rows[row] = rows[row % 100] + rng.uniform(0, 1.2) * rows[row]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    table = pa.table({"embedding_look": pa.FixedSizeListArray.from_arrays(rows.reshape(-1), dim)})
    table = lance.write_dataset(table, tmp_path / "t.lance", max_rows_per_file=70)
    fresh = rng.random(num) < 0.7
    alike = rows.astype(float) @ rows.T >= 0.75
    expected = {(a, b) for a, b in np.argwhere(alike).tolist() if a > b and (fresh[a] or fresh[b])}
    short = compare._ShortRows(table, np.ones(num, bool))
    likely = short.likely(np.flatnonzero(fresh), np.zeros(num, np.int64), fresh, 0.75)
    found = [tuple(pair) for part in likely for some in compare._compared(table, part, 0.75) for pair in some.tolist()]
    assert {(max(pair), min(pair)) for pair in found} == expected
    assert (len(found), 20 < len(expected) < 5000) == (len(expected), True)


def test_look_and_pictures_must_be_alike_and_a_clip_alone_is_its_own_group(tmp_path):
    db = empty(tmp_path, 6)
    looks = [turned(0), turned(0.1), turned(0.1), turned(0), turned(0), turned(1.0)]
    add(db, range(6), looks, [0, 0, 1, None, None, 0])
    found = group_duplicates(db, **LEAST)
    ids = [make_clip(number).clip_id for number in range(6)]
    assert groups(db) == dict(zip(ids, [ids[0], ids[0], *ids[2:]], strict=True))
    assert (found.num_groups, found.num_in_groups, found.num_without) == (1, 2, 0)
    assert found.groups == (tuple(ids[:2]),)
    assert group_duplicates(db).groups == found.groups, "also if nothing is new"


def test_a_row_that_is_gone_or_was_computed_again_splits_what_it_joined(tmp_path):
    db = empty(tmp_path, 4)
    chain = [turned(0), turned(0.3), turned(0.6), turned(0, 4)]
    add(db, range(4), chain, [0] * 4)
    ids = [make_clip(number).clip_id for number in range(4)]
    group_duplicates(db, **LEAST)
    assert [groups(db)[id_] for id_ in ids] == [ids[0]] * 3 + [ids[3]]
    remove_rows(db, [ids[1]])
    found = group_duplicates(db)
    assert (found.num_compared, found.num_written) == (3, 1)
    assert groups(db) == {id_: id_ for id_ in (ids[0], ids[2], ids[3])}
    new = pa.table(
        {
            "clip_id": [ids[3]],
            "embedding_look": pa.array([turned(0.05).tolist()], pa.list_(pa.float32(), DIM)),
            "stage_key_look": ["other"],
        }
    )
    fields = [db.table("clips").schema.field(name) for name in new.schema.names[1:]]
    ColumnCommitter(db, "test", fields).commit([write_update(db.uri, new, "test")])
    counts = duplicate_counts(db)
    assert (counts.current, counts.outdated, counts.missing) == (2, 1, 0)
    assert group_duplicates(db).num_compared == 3
    assert groups(db) == {id_: id_ for id_ in (ids[0], ids[2], ids[3])}  # another key: not comparable


def test_other_thresholds_outdate_all_and_are_kept(tmp_path):
    db = empty(tmp_path, 3)
    chain = [turned(0), turned(0.3), turned(1.2)]
    add(db, range(3), chain, [0] * 3)
    assert group_duplicates(db, **LEAST).num_groups == 1
    closer = group_duplicates(db, look=0.99, agreement=0.99)
    assert (closer.num_groups, closer.num_compared) == (0, 3)
    assert group_duplicates(db).thresholds == Thresholds(0.99, 0.99)
    with pytest.raises(ConfigError, match=r"threshold of agreement is 1\.5"):
        group_duplicates(db, agreement=1.5)


def test_overlapping_cuts_of_one_video_are_together(tmp_path):
    start, end = np.array([0.0, 2.5, 1.0, 3.0, 0.5]), np.array([3.0, 4.0, 2.0, 5.0, 1.5])
    video = np.array([0, 0, 0, 0, 1])
    first = components(5, overlapping_pairs(video, start, end))
    assert first.tolist() == [0, 0, 0, 0, 4]
    touching = overlapping_pairs(np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    assert not len(touching)
    assert not len(overlapping_pairs(np.array([-1, -1]), np.array([0.0, 0.0]), np.array([1.0, 1.0])))


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_following_pairs(seed):
    rng = np.random.default_rng(seed)
    num = 60
    pairs = rng.integers(0, num, (rng.integers(0, 70), 2))
    label = list(range(num))
    for a, b in pairs.tolist():
        low, high = sorted((label[a], label[b]))
        label = [low if one == high else one for one in label]
    assert components(num, pairs).tolist() == label


def test_rows_without_the_stages_have_no_group(tmp_path):
    db = empty(tmp_path, 3)
    same = [turned(0)] * 3
    add(db, range(3), same, [0] * 3, ["k", None, "k"])
    found = group_duplicates(db, **LEAST)
    assert (found.num_rows, found.num_without) == (2, 1)
    assert groups(db)[make_clip(1).clip_id] is None
    counts = duplicate_counts(db)
    assert (counts.current, counts.outdated, counts.missing) == (2, 0, 1)


@pytest.mark.parametrize("damaged", [b"", b"no PNG"])
def test_a_damaged_fingerprint_is_named_and_like_no_other(tmp_path, caplog, damaged):
    db = empty(tmp_path, 3)
    add(db, range(3), [turned(0)] * 3, [0] * 3)
    broken = make_clip(1).clip_id
    rows = pa.table({"clip_id": [broken], "fingerprint": pa.array([damaged], pa.binary())})
    lance.dataset(db.table("clips").uri).merge_insert("clip_id").when_matched_update_all().execute(rows)
    found = group_duplicates(db, **LEAST)
    assert found.groups == ((make_clip(0).clip_id, make_clip(2).clip_id),)
    (said,) = caplog.messages
    assert broken in said
    assert "remove --rows-only" in said


def test_a_table_without_the_embeddings_says_what_computes_them(tmp_path):
    db = empty(tmp_path, 1)
    with pytest.raises(StoreError, match="holds no processed clips"):
        group_duplicates(db)
    rows = pa.Table.from_batches([make_row(0)])
    Committer(db, RUN_KEY, rows.schema).commit([write_fragment(db.uri, rows.to_batches(), rows.schema)])
    with pytest.raises(StoreError, match="has no embedding_look") as caught:
        group_duplicates(db)
    assert "handloom run" in caught.value.hint
    assert duplicate_counts(db) is None
    assert lance.dataset(db.table("clips").uri).version == db.version


def test_index_groups_them_and_status_and_stages_say_what_is_missing(tmp_path):
    db = empty(tmp_path, 3)
    same = [turned(0)] * 3
    add(db, range(2), same, [0] * 3)
    assert status(db)["duplicates"] is None
    report, dropped, found = update_indexes(db)
    assert (found.num_groups, found.num_in_groups) == (1, 2)
    assert "1 group of near-duplicates with 2 clips" in report_text(report, dropped, found)
    assert status(db)["stages_of_several_keys"] == {}
    add(db, [2], same, [0] * 3)
    line = f"near-duplicates   1 group of 2 clips; rows whose group is 1 missing: handloom duplicates --db {db.uri}"
    assert line in status_text(status(db))
    told = stage_states_text(stage_states(db))
    assert line in told
    assert "duplicates  " not in told.replace(line, "")  # no stage that a run computes
    assert update_indexes(db)[2].num_in_groups == 3
    assert "rows whose group" not in status_text(status(db))


@pytest.mark.parametrize("k", [1, 4, 30])
def test_a_search_without_near_duplicates_has_the_best_of_each_group(tmp_path, k):
    num = 40
    looks, films = drawn(1, num)
    db = empty(tmp_path, num)
    add(db, range(num), looks, films)
    with pytest.raises(ConfigError, match="no groups of them yet"):
        db.search(vector=looks[0], by="look", duplicates=False)
    group_duplicates(db, **LEAST)
    db.table("clips").update({"duplicate_group": "NULL"}, where="clip_id LIKE '%7%'")  # as of rows that came later
    group = groups(db)
    every = [hit.clip_id for hit in db.search(vector=looks[0], by="look", k=num)]
    first = [c for n, c in enumerate(every) if group[c] is None or group[c] not in [group[b] for b in every[:n]]]
    expected = first[:k]
    hits = db.search(vector=looks[0], by="look", k=k, duplicates=False)
    assert [hit.clip_id for hit in hits] == expected
    until = every.index(expected[-1]) if len(first) > k else num - 1
    assert hits.num_duplicates == until + 1 - len(expected)
    num_without = sum(group[clip] is None for clip in expected)
    assert [text.split(" of the ")[0] for text in hits.unused.values()] == [str(num_without)] * (num_without > 0)
    assert db.search(vector=looks[0], by="look", k=k).num_duplicates is None


def test_groups_and_runs_keep_apart(tmp_path, cli, caplog, monkeypatch):
    db = empty(tmp_path, 3)
    same = [turned(0)] * 3
    add(db, range(3), same, [0] * 3)
    with leased(db, RUN_KEY, settings={}, resources={}, versions={}) as held:
        with pytest.raises(StoreError, match=f"run {held.run.run_id} works on .*: near-duplicates cannot be grouped"):
            find_duplicates(db)
        assert update_indexes(db)[2] is None
        assert f"not grouped while run {held.run.run_id} works" in caplog.text
        with monkeypatch.context() as patch:  # the run begins after the look
            patch.setattr("handloom.pipelines.index.living_runs", lambda db: [])
            report, _, found = update_indexes(db)
        assert (found, "near-duplicates cannot be grouped meanwhile; afterwards" in caplog.text) == (None, True)
        assert "clip_id_scalar" in report.names
        end_run(db, held.run, "done", num_clips=0, num_rejects=0, num_frames=0, stage_s={})
    assert update_indexes(db)[2].num_in_groups == 3
    query = ("search", "--db", db.uri, "--clip", make_clip(0).clip_id, "--by", "look", "--no-duplicates")
    code, out, err = cli(*query)
    assert (code, len(out.splitlines())) == (0, 1)
    assert "1 near-duplicate of better clips left out" in err
    other = ("--clip", make_clip(2).clip_id, "--no-duplicates")
    alone = f"clip_id = '{make_clip(0).clip_id}'"
    assert (
        "0 near-duplicates of better clips left out"
        in cli("search", "--db", db.uri, *other, "--by", "look", "--where", alone)[2]
    )
    code, out, err = cli("duplicates", "--db", db.uri, "--min-look", 0.95)
    members = [make_clip(number).clip_id for number in range(3)]
    assert (code, out.splitlines()[1:]) == (0, [f"  {', '.join(members)}"])
    assert "smallest values are kept" in err
    assert json.loads(cli("duplicates", "--db", db.uri, "--json")[1])["groups"] == [members]
    assert json.loads(cli(*query, "--json")[1])["num_duplicates"] == 1
