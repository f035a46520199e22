"""`handloom run --verify`: a stage whose output changed without another key is found, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support import own_stages
from support.extraction import new_database, row_digests, rows_of
from support.rows import make_clip

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.verify import INPUT_CHANGED, ChangedStage, same_cells, sample, verify
from handloom.schemas.settings import RunConfig
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import start_run

OWN = {"drifts": {"class": f"{own_stages.HERE}:Drifts"}, "later": {"class": f"{own_stages.HERE}:ReadsDrift"}}
CONFIG = RunConfig(**{"tracks": {"grid": 4, "extra": 0}, "stages": OWN})


@pytest.fixture(scope="module")
def db(tmp_path_factory, clips) -> Database:
    """Three rows, of which the last one's video has another view in the list now."""
    own_stages.Drifts.drift = 0.0
    db, settings = new_database(tmp_path_factory.mktemp("verify") / "db", clips[:3]), CONFIG.settings()
    versions, graph = model_versions(settings), stage_graph(settings)
    run_key = settings.run_key(versions)
    start_run(db, run_key, settings=settings.model_dump(mode="json"), resources={}, versions=versions)
    rows = list(rows_of(clips[:3], settings))
    Committer(db, run_key, graph.schema()).commit([write_fragment(db.uri, rows, graph.schema())])
    add_clips(db, [replace(clips[2], view="ego")])
    return db


def test_what_did_not_change_is_equal_bit_by_bit(db, clips):
    own_stages.Drifts.drift = 0.0
    before = row_digests(db)
    found = verify(db, CONFIG, 1.0)
    assert (found.num_rows, found.num_sampled, found.changed) == (3, 3, ())
    assert found.stages == dict.fromkeys(stage_graph(CONFIG.settings()).names, 2)
    assert found.skipped == {INPUT_CHANGED: 1}
    assert row_digests(db) == before


def test_a_stage_that_changed_in_silence_is_named(db, clips, cli):
    """And those that only follow it are told apart."""
    own_stages.Drifts.drift = 1.0
    try:
        found = verify(db, CONFIG, 1.0)
        ids = [clip.clip_id for clip in clips[:2]]
        assert found.changed == (
            ChangedStage("drifts", dict.fromkeys(ids, ("drift",))),
            ChangedStage("later", {}, dict.fromkeys(ids, "bug"), ("drifts",)),
        )
        code, out, _ = cli("run", "--db", db.uri, "--verify", 1)
        assert code == 1
        assert "drifts: 2 of 2 rows differ in drift\n" in out
        assert "later: 2 of 2 rows fail now (bug 2)" in out
        assert "--recompute drifts" in out
        where = f"clip_id = '{ids[0]}'"
        code, out, _ = cli("run", "--db", db.uri, "--verify", "0.0001", "--where", where, "--json")
        values = json.loads(out)
        assert (code, values["num_sampled"], values["changed"][0]["stage"]) == (1, 1, "drifts")
    finally:
        own_stages.Drifts.drift = 0.0


def test_a_video_that_is_gone(db, clips):
    """Stages that need no frames are compared all the same."""
    (clip,) = clips[:1]
    add_clips(db, [replace(clip, video_uri="/nowhere.mp4")])
    try:
        found = verify(db, CONFIG, 1.0, where=f"clip_id = '{clip.clip_id}'")
    finally:
        add_clips(db, [clip])
    assert found.skipped == {"the video cannot be decoded (video_missing)": 1}
    assert found.changed == ()
    assert {"motion", "quality", "drifts"} <= found.stages.keys()
    assert "hands_2d" not in found.stages


def test_what_cannot_be_compared(db, cli):
    with pytest.raises(ConfigError, match="nothing to compare"):
        verify(db, CONFIG, 1.0, where="false")
    for share in ("0", "1.5", "-1"):
        code, _, err = cli("run", "--db", db.uri, f"--verify={share}")
        assert (code, "above 0 and at most 1" in err) == (2, True)
    assert cli("run", "--db", db.uri, "--verify", "0.5", "--recompute")[0] == 2


def test_a_stage_with_an_environment_of_its_own_is_left_out(db, clips):
    """Its packages are not here; stages that read its columns are compared all the same."""
    own = OWN | {"drifts": OWN["drifts"] | {"env": {"env_vars": {"NAME": "value"}}}}
    config = RunConfig(**{"tracks": {"grid": 4, "extra": 0}, "stages": own})
    own_stages.Drifts.drift = 1.0
    try:
        found = verify(db, config, 1.0, where=f"clip_id = '{clips[0].clip_id}'")
    finally:
        own_stages.Drifts.drift = 0.0
    assert (found.left_out, found.changed) == (("drifts",), ())
    assert "later" in found.stages
    assert "drifts" not in found.stages


def test_a_sample_is_the_same_whatever_else_is_in_the_list():
    clips = [make_clip(number) for number in range(2000)]
    chosen = sample(clips, 0.1)
    assert 140 < len(chosen) < 260
    assert sample(clips[::-1], 0.1) == chosen[::-1]
    assert {clip.clip_id for clip in sample(clips[:1000], 0.1)} == {c.clip_id for c in chosen if c in clips[:1000]}
    assert set(sample(clips, 0.05)) <= set(chosen)
    assert len(sample(clips[:3], 1e-9)) == 1
    assert sample(clips, 1.0) == clips


@pytest.mark.parametrize(
    ("kind", "value", "other"),
    [
        (pa.float32(), np.nan, None),
        (pa.float32(), 0.0, -0.0),
        (pa.list_(pa.float32()), [np.nan, 1.0], [np.nan, 1.5]),
        (pa.list_(pa.float16()), [1.0], [1.0, 1.0]),
        (pa.list_(pa.list_(pa.float32(), 2)), [[1, np.nan]], [[np.nan, 1]]),
        (pa.list_(pa.binary()), [b"a", b"b"], [b"ab", b""]),
        (pa.struct([("a", pa.float64()), ("b", pa.string())]), {"a": np.nan, "b": "x"}, {"a": np.nan, "b": "y"}),
        (pa.struct([("a", pa.float64())]), None, {"a": None}),
        (pa.string(), "cup", "cap"),
    ],
)
def test_cells_are_compared_by_their_bits(kind, value, other):
    one, same, another = (pa.array([v], kind) for v in (value, value, other))
    assert same_cells(one, same)
    assert same_cells(pa.array([other, value], kind).slice(1), one)
    assert not same_cells(one, another)
