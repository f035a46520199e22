"""A run that is refused leaves nothing behind: the next one goes on with the database's settings."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys

from handloom.api import Database
from handloom.cli import text
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.run.run import run, stored_config
from handloom.pipelines.run.todo.plan import asked_of, plan_work
from handloom.schemas.settings import RunConfig
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import end_run, start_run

BEFORE = RunConfig(tracks={"grid": 2, "extra": 0})
HANDS = {"reads": ("hand_visible",)}
FINER = RunConfig(tracks={"grid": 3, "extra": 0})


def own(**stages: dict[str, object]) -> RunConfig:
    declared = {name: {"class": "support.own_stages:Reads", "settings": given} for name, given in stages.items()}
    return RunConfig(tracks=BEFORE.tracks, stages=declared)


@pytest.fixture
def db(tmp_path) -> Database:
    """Two rows, a clip without one, and a column of a user."""
    settings = BEFORE.settings()
    graph, versions = stage_graph(settings), model_versions(settings)
    keys, run_key = graph.keys(versions), settings.run_key(versions)
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, [make_clip(number) for number in range(3)])
    rows = [make_row(number, run_key=run_key) for number in range(2)]
    rows = with_keys(pa.Table.from_batches(rows), {name: [key] * 2 for name, key in keys.items()})
    schema = rows.schema.with_metadata(graph.schema().metadata)
    Committer(db, run_key, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    db.table("clips").add_columns({"users": "num_frames * 2"})
    recorded = {"settings": settings.model_dump(mode="json"), "resources": {}, "versions": versions}
    begun = start_run(db, run_key, **recorded, stage_keys=keys)
    end_run(db, begun, "done", num_clips=2, num_rejects=0, num_frames=6, stage_s={})
    return db


@pytest.mark.parametrize(
    ("config", "recompute", "error", "words"),
    [
        (FINER, ["none"], StoreError, "track_points_px .* this run writes .*recompute lift, tracks"),
        (FINER, None, ConfigError, "tracks.grid is 2 in the database, 3 now.* again with --recompute; or go on"),
        (
            own(mine={"writes": ("users",)}),
            None,
            ConfigError,
            "column users of .* was added by a user, stage mine writes one of that name",
        ),
    ],
)
def test_a_refused_run_leaves_its_settings_nowhere(db, config, recompute, error, words):
    version = db.version
    with pytest.raises(error, match=f"(?s){words}"):
        run(db, config, quiet=True, recompute=recompute)
    assert db.runs().num_rows == 1
    assert db.version == version
    assert stored_config(db).settings() == BEFORE.settings()


def test_a_stage_that_gets_another_name_is_computed_under_that_name(db):
    def todo(config, **more):
        settings = config.settings()
        asked = asked_of(db, settings, model_versions(settings), None, None, **more)
        return plan_work(db, asked, RUN_KEY, lambda: None, retry_reasons=(), where=None, limit=None)

    assert todo(own(mine={})).rows == {"mine": 2}
    db.table("clips").update({"mine": "1.0", "stage_key_mine": "'0'"})
    renamed = own(yours={})
    with pytest.raises(ConfigError, match=r"(?s)mine get another type or another stage, .* leave out --where, --limit"):
        todo(renamed, is_part=True)
    assert todo(renamed).rows == {"yours": 2}
    assert db.clips(["mine"]).column(0).null_count == 2
    assert not {"stage_key_mine"} & set(db.table("clips").schema.names)


def test_rows_that_keep_what_a_new_stage_reads_do_not_get_it_and_the_run_says_so(db):
    """Videos are gone, settings have changed: no key would be true for columns of old hands and new code."""
    surer = RunConfig(tracks=BEFORE.tracks, hands={"min_detection_confidence": 0.6}, stages=own(mine=HANDS).stages)
    done = run(db, surer, quiet=True, recompute=["none"], where=f"clip_id = '{make_clip(0).clip_id}'")
    assert (done.exit, done.stages, done.left_out) == ("rejects", {}, {"mine": 1})
    told = text.run(done, "my-db")
    assert "lack a stage, as it reads columns of older stage keys: mine 1; compute both with: handloom run" in told
    others = run(db, None, quiet=True, where=f"clip_id = '{make_clip(0).clip_id}'", stages=["quality"])
    assert (others.exit, others.left_out) == ("done", {}), "nobody asked for it"
