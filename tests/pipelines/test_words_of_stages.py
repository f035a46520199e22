"""Words that change outdate the stages that read them, and those that read such a stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys

from handloom.api import Database
from handloom.pipelines.run.todo.survey import survey, targets_of
from handloom.schemas.clip import Clip
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import clips_schema
from handloom.stages.graph import StageGraph
from handloom.stages.registry import stage_graph
from handloom.stages.versions import model_versions
from handloom.store.clips.changed_labels import bring_words
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.store.stages.rejects import StageReject, StageRejects

OWN = {
    "words": {"class": "support.own_stages:Words"},
    "follows": {"class": "support.own_stages:Reads", "settings": {"reads": ("num_letters",)}},
    "apart": {"class": "support.own_stages:Reads", "settings": {"writes": ("other",)}},
}


def made(path: Path, missing: tuple[str, ...] = ()) -> tuple[Database, StageGraph, dict[str, str], list[Clip]]:
    """Three rows with all stages but the missing ones."""
    settings = Settings(stages=OWN)
    graph = stage_graph(settings)
    keys = graph.keys(model_versions(settings))
    clips = [make_clip(number, narration="old") for number in range(3)]
    db = Database.open(path / "db", create=True)
    add_clips(db, clips)
    rows = with_keys(
        pa.Table.from_batches([make_row(clip) for clip in clips]),
        {name: [None if name in missing else keys[name]] * 3 for name in keys},
    )
    for name in graph.own:
        for field in graph.own_fields(name):
            rows = rows.append_column(field, pa.nulls(3, field.type))
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    return db, graph, keys, clips


def test_a_stage_that_reads_a_stage_of_words_is_computed_again_with_it(tmp_path):
    """`follows` reads a column of `words`, which reads the narration."""
    db, graph, keys, clips = made(tmp_path)
    assert not survey(db, graph, keys).targets

    add_clips(db, [replace(clips[1], narration="another")])
    assert bring_words(db).stages_again == {"follows": 1, "text": 1, "words": 1}
    assert survey(db, graph, keys).targets == {clips[1].clip_id: ("text", "words", "follows")}
    assert db.count("clips", "stage_key('follows') IS NULL") == 1

    db.table("clips").update({"stage_key_follows": "'older'"})
    kept = survey(db, graph, keys, keep=True)  # `--recompute none`
    assert (kept.targets, kept.num_kept, kept.left_out) == ({clips[1].clip_id: ("text", "words")}, 3, {})
    db.table("clips").update({"stage_key_words": "'older'", "stage_key_follows": "NULL"})
    kept = survey(db, graph, keys, keep=True)
    assert (kept.targets, kept.left_out) == (
        {clips[1].clip_id: ("text",)},
        {"follows": {clip.clip_id for clip in clips}},
    ), "no key would be true for it"


def test_what_reads_a_missing_stage_is_computed_with_it():
    """An ingest brings words while a run computes `follows`: the run commits it after its input's key was removed."""
    graph = stage_graph(Settings(stages=OWN))
    assert targets_of(graph, {"words"}, (), (), ()) == ("words", "follows")
    assert targets_of(graph, {"words"}, (), (), (), ["words"]) == ("words", "follows")
    assert targets_of(graph, {"words"}, (), (), {"words"}) == ()


def failed(db: Database, clip: Clip, stage: str, key: str, reason: str = "model_failed") -> None:
    StageRejects(db, RUN_KEY).write([StageReject(clip.clip_id, stage, key, reason, "no words")])


def test_a_stage_that_failed_on_the_old_words_is_tried_with_the_new_ones(tmp_path):
    db, graph, keys, clips = made(tmp_path, missing=("words", "follows", "apart"))
    for clip in clips[:2]:
        failed(db, clip, "words", keys["words"])
        failed(db, clip, "apart", keys["apart"])
    before = survey(db, graph, keys).targets
    assert before == {clips[2].clip_id: ("words", "follows", "apart")}
    add_clips(db, [replace(clips[1], narration="another")])
    bring_words(db)
    assert survey(db, graph, keys).targets == before | {clips[1].clip_id: ("text", "words", "follows")}


def test_rejects_of_stages_are_tried_again_by_reason(tmp_path):
    db, graph, keys, clips = made(tmp_path, missing=("words", "follows", "apart"))
    for clip, reason in zip(clips, ("bug", "bug", "no_frames"), strict=True):
        failed(db, clip, "words", keys["words"], reason)
        failed(db, clip, "apart", keys["apart"], "hung")
    assert not survey(db, graph, keys).targets
    of_bugs = {clip.clip_id: ("words", "follows") for clip in clips[:2]}
    assert survey(db, graph, keys, retry=["bug"]).targets == of_bugs
    assert survey(db, graph, keys, retry=["bug", "no_frames", "hung"]).targets.keys() == {c.clip_id for c in clips}


def test_a_stage_that_failed_is_tried_with_another_input(tmp_path):
    """An own stage without columns so far, and another camera in the list."""
    db, graph, keys, clips = made(tmp_path, missing=("apart",))
    failed(db, clips[0], "apart", keys["apart"])
    failed(db, clips[1], "apart", keys["apart"])
    changed = {clips[0].clip_id: ("apart",)}
    assert survey(db, graph, keys, changed=changed).targets == dict.fromkeys(
        [clips[0].clip_id, clips[2].clip_id], ("apart",)
    )
