"""Clips that travel between groups of stages: the same rows as in one process, and no more bytes than are read."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pyarrow as pa
import pytest
from support.decoded import HeldFrames, decoded
from support.extraction import LIGHT
from support.rows import digests

from handloom.errors import ClipError
from handloom.schemas.settings import Settings, StageConfig
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.tables.stage_columns import key_column
from handloom.stages.extract import Extractor
from handloom.stages.pools.groups import Group, groups_of
from handloom.stages.pools.travel import UnderWay
from handloom.stages.versions import model_versions

OWN = {
    "bright": StageConfig(**{"class": "support.pool_stages:Brightness"}),
    "ratio": StageConfig(**{"class": "support.pool_stages:Ratio"}),
}
POOLS = {
    "own": OWN | {"bright": OWN["bright"].model_copy(update={"cpus": 1.0})},
    "two": OWN | {n: OWN[n].model_copy(update={"cpus": c}) for n, c in (("bright", 1.0), ("ratio", 0.5))},
    "hands": OWN | {"hands_2d": StageConfig(gpus=0.5)},
    "many": OWN | {n: StageConfig(memory_mb=m) for m, n in enumerate(("appearance", "tracks", "lens", "lift"), 1)},
}


@pytest.fixture(scope="module")
def held(clips) -> list[HeldFrames]:
    return decoded([clips[0], clips[3]])


def extractor_of(stages: dict[str, StageConfig]) -> Extractor:
    settings = Settings(**LIGHT, stages=stages)
    versions = model_versions(settings)
    keys = Extractor(settings, "", stages=()).graph.keys(versions)
    return Extractor(settings, Settings(**LIGHT).run_key(versions), keys=keys)


@pytest.fixture(scope="module")
def fused(held) -> tuple[Extractor, list[pa.RecordBatch]]:
    extractor = extractor_of(OWN)
    return extractor, [extractor.row(one) for one in held]


def pass_on(extractor: Extractor, groups: Sequence[Group], clips: Sequence[UnderWay]) -> tuple[list[UnderWay], list]:
    """The clips after all groups, each in a process of its own as far as pickle can tell; bytes sent, by clip."""
    sent = []
    for number, group in enumerate(groups):
        for step in group.steps:
            if group.batch_clips > 1 and len(step) == 1 and step[0] in extractor.graph.own:
                extractor.compute_together(clips, step[0], group.batch_clips)
            else:
                for one in clips:
                    extractor.compute(one, step)
        later = {name for other in groups[number + 1 :] for name in other.stages}
        if later:
            rows = [pickle.dumps(one.for_later(extractor.graph, later), protocol=5) for one in clips]
            sent.append([len(row) for row in rows])
            clips = [pickle.loads(row) for row in rows]
    return clips, sent


@pytest.mark.parametrize("pools", POOLS)
def test_rows_do_not_depend_on_the_pools(held, fused, pools):
    """Frames are sent in the size that later groups ask for: four small ones, or all as they are."""
    extractor, rows = fused
    groups = groups_of(extractor.graph, POOLS[pools])
    assert len(groups) > 1
    begun = [extractor.begin(one.clip, None, extractor.plan(None, extractor.graph.names), one) for one in held]
    ended, sent = pass_on(extractor, groups, begun)
    for one, row in zip(ended, rows, strict=True):
        found, errors = extractor.row_of(one)
        assert not errors
        assert digests(found) == digests(row)
    for one, size in zip(held, sent[0], strict=True):
        raw = sum(chunk.nbytes for chunk in one.frames)
        if pools == "own":
            assert size - 4 * 64 * 86 * 3 < raw / 2, "cells only"
        if pools == "hands":
            assert size > raw, "all frames are read"


def test_new_columns_of_a_row_travel_too(held, fused):
    extractor, rows = fused
    groups = groups_of(extractor.graph, POOLS["two"])
    targets = extractor.graph.dependents(["bright"])
    stored = [row_arrays(row.select(extractor.columns_for(targets))) for row in rows]
    stored = [row | dict.fromkeys((key_column(name) for name in targets), "old") for row in stored]
    begun = [extractor.begin(h.clip, row, extractor.plan(row, targets), h) for h, row in zip(held, stored, strict=True)]
    ended, _ = pass_on(extractor, groups, begun)
    for one, row in zip(ended, rows, strict=True):
        update = extractor.end(one)
        assert update.done == ("bright", "ratio")
        assert all(cell.equals(row.column(name)) for name, cell in update.cells.items())


def test_a_stage_that_is_left_out_costs_its_dependents_only(held, fused):
    extractor, rows = fused
    one = extractor.begin(held[0].clip, None, extractor.plan(None, extractor.graph.names), held[0])
    one.errors["bright"] = ClipError(one.clip.clip_id, "bright", "worker_died", "killed twice")
    ended, _ = pass_on(extractor, groups_of(extractor.graph, POOLS["two"]), [one])
    row, errors = extractor.row_of(ended[0])
    assert {name: error.stage for name, error in errors.items()} == {"bright": "bright", "ratio": "bright"}
    own = ("bright", "bright_frame", "ratio", "stage_key_bright", "stage_key_ratio")
    assert all(row.column(name)[0].as_py() is None for name in own)
    assert digests(row, own) == digests(rows[0], own)


def test_clips_come_together_and_give_the_same_bytes(held, fused, tmp_path):
    """Two at once, of three."""
    _, rows = fused
    log = tmp_path / "log"
    bright = OWN["bright"].model_copy(update={"settings": {"log": str(log)}, "batch_clips": 2})
    extractor = extractor_of(OWN | {"bright": bright})
    (group,) = groups_of(extractor.graph, OWN | {"bright": bright})
    assert ("bright",) in group.steps
    plan = extractor.plan(None, extractor.graph.names)
    ended, _ = pass_on(extractor, [group], [extractor.begin(one.clip, None, plan, one) for one in (*held, held[0])])
    assert log.read_text().split() == ["2", "1"]
    for one, row in zip(ended, (*rows, rows[0]), strict=True):
        skip = ("run_key", "stage_key_bright", "stage_key_ratio")  # the log is a setting
        assert digests(extractor.row_of(one)[0], skip) == digests(row, skip)
