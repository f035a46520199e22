"""What a run may compute again. It is refused before it writes: the next run has the settings of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys, with_own_column

from handloom.api import Database
from handloom.errors import ConfigError, HandloomError, StoreError
from handloom.pipelines.run.todo.plan import Asked, asked_of
from handloom.pipelines.run.todo.recompute import kept_before
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import clips_schema
from handloom.stages import Stage, StageSettings, embedding_field
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.runs.runs import start_run, stored_settings

FEW = {"grid": 2, "extra": 0}  # as many tracks as `make_row` has
OLD = "0" * 16


class Wide(Stage):
    """An embedding whose width is a setting."""

    class Settings(StageSettings):
        width: int = 4

    def fields(self):
        return [embedding_field("wide", self.settings.width, model="m", version="1")]


def settings_of(width: int = 4, grid: int = 2) -> Settings:
    stage = {"class": f"{__name__}:Wide", "settings": {"width": width}}
    return Settings(tracks=FEW | {"grid": grid}, stages={"wide": stage})


@pytest.fixture
def db(tmp_path) -> Database:
    """Three rows of today's keys, but for the hands of the first, which a run with `--recompute none` has kept."""
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, [make_clip(number) for number in range(3)])
    settings = settings_of()
    keys = stage_graph(settings).keys(model_versions(settings))
    rows = pa.Table.from_batches([make_row(number) for number in range(3)])
    rows = with_keys(
        rows, {stage: [key] * 3 for stage, key in keys.items()} | {"hands_2d": [OLD, *[keys["hands_2d"]] * 2]}
    )
    vectors = pa.array([[1.0, 0, 0, 0]] * 3, pa.list_(pa.float32(), 4))
    rows = with_own_column(rows, "wide", "embedding_wide", vectors, encoder="wide", model="m", version="1", dim="4")
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    recorded = {"settings": settings.model_dump(mode="json"), "resources": {}, "versions": model_versions(settings)}
    start_run(db, RUN_KEY, **recorded, stage_keys=keys)
    return db


def asked(
    db: Database, settings: Settings, *recompute: str, is_part: bool = False, stages: Sequence[str] | None = None
) -> Asked:
    return asked_of(db, settings, model_versions(settings), recompute or None, stages, is_part)


def refused(db: Database, *args, kind: type[HandloomError] = ConfigError, **options) -> str:
    before = db.version, db.table("clips").schema
    with pytest.raises(kind) as error:
        asked(db, *args, **options)
    assert (db.version, db.table("clips").schema) == before
    return str(error.value)


def test_stages_that_are_not_named_are_not_computed_again(db):
    told = refused(db, settings_of(), "tracks")
    assert "1 row of stages hands_2d are outdated" in told.replace("is outdated", "are outdated")
    assert "--recompute tracks,hands_2d" in told
    for named in (("hands_2d",), ("tracks", "hands_2d"), ("all",), ("none",), ()):
        asked(db, settings_of(), *named)


def test_an_unknown_stage_is_refused_even_if_nothing_has_changed(db):
    assert "there is no stage 'trakcs'" in refused(db, settings_of(), "trakcs")


def test_a_column_of_another_type_is_dropped_only_where_that_was_asked_for(db):
    wider = settings_of(width=8)
    told = refused(db, wider, "none", kind=StoreError)
    assert "embedding_wide" in told
    assert "--recompute" in told
    told = refused(db, wider, "wide", "hands_2d", is_part=True)
    assert "lose the values of all rows" in told
    asked(db, wider, "wide", "hands_2d")
    told = refused(db, wider, "all", stages=["motion"])
    assert "leave out --where, --limit and --stages" in told, "nobody would compute the values that are dropped"
    asked(db, wider, "all", stages=["wide"])
    more_tracks = settings_of(grid=3)
    assert "--recompute motion,tracks" in refused(db, more_tracks, "motion")


def test_a_users_column_is_refused_before_the_settings_are_those_of_the_next_run(db):
    db.table("clips").drop_columns(["embedding_wide"])
    db.table("clips").add_columns({"embedding_wide": "cast(1 as float)"})
    assert "was added by a user" in refused(db, settings_of(), "all")


def test_a_killed_ingest_does_not_change_the_settings(db):
    """It leaves a row in `runs` without settings: those of the first row then counted, and kept rows were computed."""
    settings = settings_of(width=8)
    keys = stage_graph(settings).keys(model_versions(settings))
    recorded = {"settings": settings.model_dump(mode="json"), "versions": model_versions(settings)}
    start_run(db, "1" * 16, **recorded, resources={"recompute": ["none"]}, stage_keys=keys)
    start_run(db, "ingest", settings={}, resources={}, versions={})
    assert stored_settings(db).settings["stages"]["wide"]["settings"] == {"width": 8}
    assert kept_before(db)
