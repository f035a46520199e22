"""Columns of `clips` for stages: added, replaced, refused."""

import lance
import pyarrow as pa
import pytest
from support.column_tables import FIELDS, SCHEMA, STAGES, database, expected, new_columns
from support.rows import RUN_KEY, digests, make_clip, make_row

from handloom.errors import ConfigError, StoreError
from handloom.schemas.tables.stage_columns import OWNER, key_column
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes
from handloom.store.stages.columns import add_columns_for, check_columns
from handloom.store.stages.staged import write_update
from handloom.store.stages.update import ColumnCommitter

NUMBERS = range(4)


@pytest.fixture
def db(tmp_path):
    return database(tmp_path / "db", [NUMBERS])


def gripper(dim=4, name="embedding_gripper", stage="gripper", **metadata):
    """A column of a user's stage, and its key column."""
    kind = pa.list_(pa.float32(), dim)
    field = pa.field(name, kind, metadata={OWNER: stage.encode(), **metadata})
    return [field, pa.field(key_column(stage), pa.string())]


def add(db, fields, **options):
    return add_columns_for(db, fields, ours=SCHEMA.names, **options)


def fill(db, dim=4, key="one"):
    """Give every row a value of the user's stage."""
    clip_ids = [make_clip(n).clip_id for n in NUMBERS]
    vectors = pa.array([[float(n)] * dim for n in NUMBERS], pa.list_(pa.float32(), dim))
    rows = pa.table({"clip_id": clip_ids, "embedding_gripper": vectors, key_column("gripper"): [key] * len(clip_ids)})
    ColumnCommitter(db, RUN_KEY, gripper(dim)).commit([write_update(db.uri, rows, "run")])


def column(db, name):
    return db.clips([name]).column(name).to_pylist()


def test_missing_columns_are_added_in_one_commit_without_data(db):
    before = db.version
    files = [f.metadata.files for f in db.table("clips").get_fragments()]
    fields = [*gripper(model="m"), pa.field("mass_kg", pa.float32(), metadata={OWNER: b"scales"})]
    assert add(db, [*FIELDS, *fields]) == ("embedding_gripper", "stage_key_gripper", "mass_kg")
    assert db.version == before + 1
    assert [f.metadata.files for f in db.table("clips").get_fragments()] == files
    assert column(db, "embedding_gripper") == [None] * len(NUMBERS)
    assert db.table("clips").schema.field("embedding_gripper").metadata == {OWNER: b"gripper", b"model": b"m"}
    assert add(db, [*FIELDS, *fields]) == ()
    assert db.version == before + 1
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, [make_row(9)], SCHEMA)])
    assert column(db, "mass_kg") == [None] * (len(NUMBERS) + 1)


def test_metadata_follows_the_stage_and_other_entries_stay(db):
    add(db, gripper(model="m", version="1"))
    fill(db)
    db.table("clips").update_field_metadata({"embedding_gripper": {"note": "mine"}})
    before = db.version
    assert add(db, gripper(model="m", version="2")) == ()
    assert db.version == before + 1
    wanted = {OWNER: b"gripper", b"model": b"m", b"version": b"2", b"note": b"mine"}
    assert db.table("clips").schema.field("embedding_gripper").metadata == wanted
    assert column(db, key_column("gripper")) == ["one"] * len(NUMBERS)


def test_another_type_is_refused_and_replaced_with_its_key_when_told(db):
    add(db, gripper())
    fill(db)
    table = db.table("clips")
    table.create_index("embedding_gripper", "IVF_FLAT", num_partitions=1, metric="cosine")
    with pytest.raises(
        StoreError, match=r"embedding_gripper \(.*\[4\], this run writes .*\[6\]\)\nhint: recompute gripper"
    ):
        add(db, gripper(6))
    assert column(db, key_column("gripper")) == ["one"] * len(NUMBERS)
    before = db.version
    assert add(db, gripper(6), replace=True) == ("embedding_gripper", "stage_key_gripper")
    assert db.version == before + 2
    assert column(db, "embedding_gripper") == column(db, key_column("gripper")) == [None] * len(NUMBERS)
    fill(db, 6, "two")
    assert column(db, "embedding_gripper")[3] == [3.0] * 6
    assert digests(db.clips(SCHEMA.names)) == digests(pa.Table.from_batches([make_row(n) for n in NUMBERS]))


def test_a_kill_between_dropping_and_adding_leaves_the_stage_not_computed(db, monkeypatch):
    add(db, gripper())
    fill(db)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "add_columns", killed)
        with pytest.raises(KeyboardInterrupt):
            add(db, gripper(6), replace=True)
    assert not {"embedding_gripper", key_column("gripper")} & set(db.table("clips").schema.names)
    assert db.count("clips") == len(NUMBERS)
    assert add(db, gripper(6)) == ("embedding_gripper", "stage_key_gripper")


def test_columns_of_others_are_refused(db):
    db.table("clips").add_columns({"mine": "num_frames * 2"})
    add(db, gripper())
    before = db.version
    with pytest.raises(ConfigError, match=r"mine of .* was added by a user, stage gripper writes one of that name"):
        add(db, gripper(name="mine"))
    with pytest.raises(ConfigError, match=r"embedding_gripper of .* belongs to stage gripper, stage claw writes one"):
        add(db, [*gripper(name="other"), *gripper(stage="claw")])
    with pytest.raises(ConfigError, match=r"quality of .* belongs to stage quality, stage gripper writes one"):
        add(db, gripper(name="quality"))
    with pytest.raises(StoreError, match=r"has no column strict, which cannot be null"):
        add(db, [pa.field("strict", pa.int32(), nullable=False)])
    assert db.version == before
    assert column(db, "mine") == [6] * len(NUMBERS)


def test_a_column_of_a_stage_that_is_declared_no_more_is_taken_by_another(db, caplog):
    """The values and the key of the old stage go: they were made by another one."""
    pair = [*gripper(), pa.field("opening_m", pa.float32(), metadata={OWNER: b"gripper"})]
    add(db, pair)
    fill(db)
    old = db.version
    assert check_columns(db, gripper(stage="claw"), ours=SCHEMA.names) == ("embedding_gripper",)
    assert add(db, gripper(stage="claw")) == ("embedding_gripper", "stage_key_claw")
    assert "of stage gripper, which is declared no more, is of stage claw now" in caplog.text
    assert db.table("clips").schema.field("embedding_gripper").metadata == {OWNER: b"claw"}
    assert column(db, "embedding_gripper") == column(db, key_column("claw")) == [None] * len(NUMBERS)
    assert column(db, key_column("gripper")) == ["one"] * len(NUMBERS), "it still has a column"
    assert db.clips(["embedding_gripper"], version=old).column(0).null_count == 0
    assert add(db, gripper(stage="claw")) == ()
    assert set(add(db, pair)) == {"embedding_gripper", "stage_key_gripper"}, "and back: it must be computed again"
    last = [pa.field("opening_m", pa.float32(), metadata={OWNER: b"claw"})]
    assert add(db, [*last, *gripper(stage="claw")])
    assert key_column("gripper") not in db.table("clips").schema.names, "it has no column any more"


def test_a_table_of_an_older_schema_is_brought_up_to_date_first(db):
    """Its rows' keys follow from their runs; columns added as null would hide that they are missing."""
    db.table("clips").update_schema_metadata({"handloom_schema": "3"})
    with pytest.raises(StoreError, match=r"table clips is of schema 3, this version of handloom writes schema \d"):
        add(db, gripper())


def test_columns_are_added_while_rows_and_columns_are_written(db):
    rows, columns = Committer(db, RUN_KEY, SCHEMA), ColumnCommitter(db, RUN_KEY, FIELDS)
    update = write_update(db.uri, new_columns([0, 2], STAGES, 1), "run")
    add(db, gripper())
    rows.commit([write_fragment(db.uri, [make_row(5)], SCHEMA)])
    assert columns.commit([update]).num_clips == 2
    build_indexes(db)
    changes = {(number, stage): 1 for number in (0, 2) for stage in STAGES}
    names = [name for name in db.table("clips").schema.names if "gripper" not in name]
    assert digests(db.clips(names)) == expected([*NUMBERS, 5], changes)
    assert column(db, "embedding_gripper") == [None] * 5
