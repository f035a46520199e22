"""New columns of a row that exists: equal to those of a fresh extraction, whatever is computed and whatever is read."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from support.decoded import HeldFrames, decoded
from support.rows import digests

from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.stage_columns import COLUMNS_OF, key_column, state_column
from handloom.stages import FrameRequest, Stage, embedding_field, frame_field
from handloom.stages.extract import Extractor
from handloom.stages.versions import model_versions


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    settings = Settings()
    versions = model_versions(settings)
    return Extractor(settings, settings.run_key(versions), keys=Extractor(settings, "", stages=()).graph.keys(versions))


@pytest.fixture(scope="module", params=[1, 3], ids=["estimated", "given"])
def made(request, clips, extractor) -> tuple[HeldFrames, pa.RecordBatch]:
    (held,) = decoded([clips[request.param]])
    return held, extractor.row(held)


def without(row: pa.RecordBatch, *columns: str) -> pa.RecordBatch:
    cells = [pa.nulls(1, f.type) if f.name in columns else row.column(f.name) for f in row.schema]
    return pa.RecordBatch.from_arrays(cells, row.schema.names)


def check_same(extractor: Extractor, row: pa.RecordBatch, update, targets) -> None:
    assert update.done == tuple(name for name in extractor.graph.names if name in targets)
    assert not update.errors
    columns = {column for name in targets for column in extractor.graph[name].columns} | {
        key_column(name) for name in targets
    }
    assert columns <= update.cells.keys()
    cells = [update.cells.get(name, row.column(name)) for name in row.schema.names]
    assert digests(pa.RecordBatch.from_arrays(cells, schema=row.schema)) == digests(row)


@pytest.mark.parametrize("first", COLUMNS_OF)
def test_a_stage_and_its_dependents_from_a_row_equal_a_fresh_row(made, extractor, first):
    held, row = made
    targets = extractor.graph.dependents([first])
    gone = [column for name in targets for column in (*extractor.graph[name].columns, state_column(name))]
    stored = row_arrays(without(row, *gone, *map(key_column, targets)).select(extractor.columns_for(targets)))
    plan = extractor.plan(stored, targets)
    assert plan.targets == tuple(targets) == plan.compute, "everything else is read from the row"
    assert plan.reads_frames == any(extractor.graph[name].reads_frames for name in targets)
    check_same(extractor, row, extractor.update(held.clip, stored, plan, held if plan.reads_frames else None), targets)


def test_without_states_the_stages_before_are_computed_again(made, extractor):
    """A row of an older version has no states. What it lacks is computed, and not written."""
    held, row = made
    states = [name for name in row.schema.names if name.startswith("stage_state_")]
    stored = row_arrays(without(row, *states))
    plan = extractor.plan(stored, ["quality"])
    assert plan.targets == ("quality",)
    assert {"probe", "images", "hands_2d", "camera", "hands_3d", "world"} <= set(plan.compute)
    assert not {"tracks", "frames", "motion", "appearance", "lift"} & set(plan.compute)
    update = extractor.update(held.clip, stored, plan, held)
    check_same(extractor, row, update, ["quality"])
    assert set(update.cells) == {"quality", "frame_flags", "stage_key_quality"}


def test_a_value_with_another_key_is_not_read(made, extractor):
    _, row = made
    stored = row_arrays(row) | {"stage_key_camera": "0" * 16}
    assert "camera" in extractor.plan(stored, ["motion", "lift"]).compute


def test_frames_are_decoded_for_the_stages_that_read_them_only(made, extractor):
    _, row = made
    stored = row_arrays(row)
    reads = {name for name in COLUMNS_OF if extractor.plan(stored, [name]).reads_frames}
    assert reads == {"probe", "frames", "images", "hands_2d", "depth", "camera", "tracks", "appearance"}
    assert set(chain.from_iterable(COLUMNS_OF.values())) | {"clip_id"} <= set(row.schema.names)


class Widths(Stage):
    """A stage of one's own that reads stored frames, a column of a stage, and one of the clip list."""

    columns = ("hand_visible", "clip_id")
    frames = FrameRequest(stored=True, count=3, short_side_px=64)

    def fields(self):
        return [pa.field("seen_frames", pa.list_(pa.float32())), pa.field("frame_width", pa.int32())]

    def compute(self, clips):
        assert all(clip.row["clip_id"] == clip.clip.clip_id for clip in clips)
        return [
            {
                "seen_frames": clip.row["hand_visible"].any(axis=1)[clip.frame_index].astype(np.float32),
                "frame_width": clip.frames.shape[2],
            }
            for clip in clips
        ]


def test_a_stage_of_stored_frames_is_added_without_decoding(made):
    held, row = made
    settings = Settings(stages={"widths": {"class": f"{__name__}:Widths"}})
    keys = Extractor(settings, "", stages=()).graph.keys(model_versions(settings))
    more = Extractor(settings, Settings().run_key(model_versions(Settings())), keys=keys)
    fresh, errors = more.row_and_errors(held)
    assert not errors
    stored = row_arrays(row.select([name for name in more.columns_for(["widths"]) if name in row.schema.names]))
    assert not {"track_points_px", "stage_state_camera"} & stored.keys()
    plan = more.plan(stored | {"clip_id": held.clip.clip_id}, ["widths"])
    assert (plan.compute, plan.reads_frames) == (("widths",), False)
    update = more.update(held.clip, stored, plan, None)
    assert update.cells.keys() == {"seen_frames", "frame_width", "stage_key_widths"}
    assert all(cell.equals(fresh.column(name)) for name, cell in update.cells.items())
    assert len(update.cells["seen_frames"][0]) == 3
    assert digests(fresh.select(row.schema.names)) == digests(row)


def test_a_stage_is_loaded_when_a_row_needs_it(made):
    """A run that adds a cheap column loads no networks."""
    held, row = made
    settings, loaded = Settings(), []
    keys = Extractor(settings, "", stages=()).graph.keys(model_versions(settings))

    def note(stage: str, num_frames: int) -> None:
        loaded.extend([stage] if stage.startswith("load ") else [])

    lean = Extractor(settings, settings.run_key(model_versions(settings)), on_stage=note, keys=keys, stages=["motion"])
    for _ in range(2):
        stored = row_arrays(row.select(lean.columns_for(["motion"])))
        check_same(lean, row, lean.update(held.clip, stored, lean.plan(stored, ["motion"]), None), ["motion"])
    assert loaded == ["load motion"]
    targets = lean.graph.dependents(["hands_2d"])
    stored = row_arrays(row.select(lean.columns_for(targets)))
    check_same(lean, row, lean.update(held.clip, stored, lean.plan(stored, targets), held), targets)
    assert sorted(loaded) == sorted({"load motion", *(f"load {name}" for name in targets)})


class Makes(Stage):
    """Writes a column of each kind of list."""

    columns = ("hand_visible",)

    def fields(self):
        lists = [pa.field("made_list", pa.list_(pa.float32())), embedding_field("made", 2, model="m", version="1")]
        return [frame_field("made_values", pa.float32()), frame_field("made_pairs", pa.int16(), width=2), *lists]

    def compute(self, clips):
        return [self.one(len(clip.row["hand_visible"])) for clip in clips]

    def one(self, num_frames):
        pairs = np.ones((num_frames, 2), np.int16)
        return {"made_values": pairs[:, 0], "made_pairs": pairs, "made_list": [1.5], "embedding_made": [0.6, 0.8]}


class ReadsMade(Stage):
    """Writes down what it gets."""

    columns = ("made_values", "made_pairs", "made_list", "embedding_made")

    def fields(self):
        return [pa.field("seen_kinds", pa.list_(pa.string()))]

    def compute(self, clips):
        return [{"seen_kinds": [f"{clip.row[n].dtype} {clip.row[n].shape}" for n in self.columns]} for clip in clips]


def test_columns_of_ones_own_are_arrays_in_a_first_run_too(made):
    held, _ = made
    settings = Settings(stages={"m": {"class": f"{__name__}:Makes"}, "r": {"class": f"{__name__}:ReadsMade"}})
    keys = Extractor(settings, "", stages=()).graph.keys(model_versions(settings))
    extractor = Extractor(settings, "", keys=keys)
    fresh, errors = extractor.row_and_errors(held)
    assert not errors
    num = len(held.header.frame_s)
    seen = [f"float32 ({num},)", f"int16 ({num}, 2)", "float32 (1,)", "float32 (2,)"]
    assert fresh.column("seen_kinds").to_pylist() == [seen]
    row = row_arrays(fresh) | {"stage_key_r": None}
    update = extractor.update(held.clip, row, extractor.plan(row, ["r"]), None)
    assert update.cells["seen_kinds"].equals(fresh.column("seen_kinds"))
