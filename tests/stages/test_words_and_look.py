"""The stages `text` and `look`, which handloom brings: for new rows, for rows of before, and where there is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support.decoded import HeldFrames, decoded
from support.rows import RUN_KEY, make_clip, make_row
from support.stage_keys import with_keys

from handloom.api import Database
from handloom.models.embeddings.look import LookEncoder
from handloom.models.language.sentences import SentenceEncoder
from handloom.pipelines.run.todo.survey import survey
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.version_policy import licences_in
from handloom.stages.extract import Extractor
from handloom.stages.own import clip_input, compute_own
from handloom.stages.registry import own_stages, stage_graph
from handloom.stages.stage import FrameRequest
from handloom.stages.versions import model_versions
from handloom.store.clips.changed_labels import bring_words
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.fragments import write_fragment
from handloom.video.stored_frames import decode_jpeg

FAST = Settings(video={"sample_hz": 5}, tracks={"grid": 4, "extra": 0})
BOTH = ["text", "look"]


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    keys = stage_graph(FAST).keys(model_versions(FAST))
    return Extractor(FAST, "key", keys=keys)


@pytest.fixture(scope="module")
def made(clips, extractor) -> tuple[HeldFrames, pa.RecordBatch]:
    clip = replace(clips[1], narration=None, verb="open", noun="drawer")
    (held,) = decoded([clip])
    row, errors = extractor.row_and_errors(held)
    assert not errors
    return held, row


def test_a_row_has_both(made):
    _, row = made
    values = row_arrays(row)
    np.testing.assert_array_equal(values["embedding_text"], SentenceEncoder().encode(["open drawer"])[0])
    chosen = FrameRequest(count=8).indices(values["frame_s"]).tolist()
    assert len(values["frame_jpeg"]) == 10
    frames = np.stack([decode_jpeg(values["frame_jpeg"][at]) for at in chosen])
    np.testing.assert_array_equal(values["embedding_look"], LookEncoder().encode_clip(frames))
    for name, dim in (("text", b"512"), ("look", b"1280")):
        told = row.schema.field(f"embedding_{name}").metadata
        assert (told[b"encoder"], told[b"dim"], told[b"licence"]) == (name.encode(), dim, b"apache-2.0")
    assert licences_in(model_versions(FAST)) == dict.fromkeys(["hands_2d", *BOTH], "apache-2.0")


def test_a_row_of_before_gets_them_without_decoding(made, extractor):
    held, row = made
    old = {name: value for name, value in row_arrays(row).items() if not name.endswith(("_text", "_look"))}
    plan = extractor.plan(old, BOTH)
    assert (plan.compute, plan.reads_frames) == (tuple(BOTH), False)
    update = extractor.update(held.clip, old, plan, None)
    assert update.cells.keys() == {f"{kind}_{name}" for kind in ("embedding", "stage_key") for name in BOTH}
    for name, cell in update.cells.items():
        assert cell == row.column(name)


def test_without_words_and_without_stored_frames_they_are_null_and_no_reject(clips):
    settings = FAST.model_copy(update={"frames": FAST.frames.model_copy(update={"store": False})})
    extractor = Extractor(settings, "key")
    row, errors = extractor.row_and_errors(decoded([replace(clips[0], narration=" ", verb=None, noun=None)])[0])
    assert not errors
    assert row.column("embedding_text").null_count == row.column("embedding_look").null_count == 1
    assert row.column("frame_jpeg").null_count == 1


def test_clips_together_have_the_bytes_of_each_alone(made):
    held, row = made
    values = row_arrays(row)
    for stage in own_stages(FAST):
        if stage.name not in BOTH:
            continue
        stage.stage.load()
        columns = {name: values[name] for name in stage.reads_columns}
        others = {"narration": "wash a cup", "frame_jpeg": values["frame_jpeg"][:2], "frame_s": values["frame_s"][:2]}
        inputs = [
            clip_input(held.clip, stage, dict(columns), None),
            clip_input(held.clip, stage, {name: others.get(name, columns[name]) for name in columns}, None),
        ]
        together = compute_own(stage, inputs)
        assert together == [compute_own(stage, [one])[0] for one in inputs]
        assert together[0] != together[1]
        stage.stage.close()


def test_changed_words_are_computed_again_without_video(tmp_path, extractor):
    """An ingest brings other words: the stage's key goes, and no other stage is touched."""
    graph = stage_graph(FAST)
    keys = graph.keys(model_versions(FAST))
    clips = [make_clip(number, narration="open the door") for number in range(3)]
    db = Database.open(tmp_path / "db", create=True)
    add_clips(db, clips)
    made = pa.Table.from_batches([make_row(clip) for clip in clips])
    rows = with_keys(made, {name: [keys[name]] * 3 for name in keys})
    for name in graph.own:
        for field in graph.own_fields(name):
            rows = rows.append_column(field, pa.nulls(3, field.type))
    schema = rows.schema.with_metadata(clips_schema(4).metadata)
    Committer(db, RUN_KEY, schema).commit([write_fragment(db.uri, rows.to_batches(), schema)])
    assert not survey(db, graph, keys).targets

    clip = replace(clips[1], noun="gate")
    add_clips(db, [clip])
    assert bring_words(db).stages_again == {"text": 1}
    assert survey(db, graph, keys).targets == {clip.clip_id: ("text",)}
    plan = extractor.plan(row_arrays(made.slice(1, 1).to_batches()[0]), ["text"])
    assert (plan.compute, plan.reads_frames) == (("text",), False)
