"""The stage of docs/stages.md, installed as a package of somebody else's: it is added to a table that exists."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest
from support.extraction import extracted
from support.own_package import REPOSITORY, code_of_page, install
from support.rows import digests

from handloom.schemas.settings import Settings
from handloom.schemas.tables.row import row_arrays
from handloom.store.clips.clip_list import add_clips

PAGE = "stages.md"
OWN = ("gripper_closed", "embedding_gripper", "stage_key_gripper")


@pytest.fixture
def lab(tmp_path, monkeypatch, local_ray):
    """The page's class on the path of this process and of Ray's workers, and its settings as a file."""
    stage, windows = code_of_page(PAGE)
    toml = re.search(r"```toml\n(# run\.toml\n.*?)```", (REPOSITORY / "docs" / PAGE).read_text(), re.DOTALL)[1]
    site = install(local_ray.site, "my_lab", {"stages": stage})
    (tmp_path / "run.toml").write_text(toml)
    monkeypatch.syspath_prepend(str(site))
    yield {"config": tmp_path / "run.toml", "windows": windows}
    for path in site.glob("my_lab*"):
        shutil.rmtree(path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


def closed(row) -> np.ndarray:
    keypoints = row["hand_keypoints_cam_m"]
    apart = np.linalg.norm(keypoints[:, 1, 4] - keypoints[:, 1, 8], axis=-1)
    return np.clip(1 - apart / 0.08, 0, 1).astype(np.float32)


def test_the_example_of_the_page(lab, tmp_path, clips, expected, cli, ray_address):
    db = extracted(tmp_path / "db", clips[:1], Settings())  # rows as a run of before has made them
    add_clips(db, list(clips[:2]))
    before = db.version
    one = ("--set", "resources.num_actors=1")
    code, out, err = cli("run", "--db", db.uri, "--config", lab["config"], *one, "--quiet", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["num_clips"], summary["num_rejects"]) == (1, 0)
    assert (summary["stages"], summary["num_updates"]) == ({"gripper": 1}, 1)

    rows = db.clips()
    graph_keys = {name: rows.column(name).to_pylist() for name in rows.schema.names if name.startswith("stage_key_")}
    assert all(len(set(keys)) == 1 and keys[0] for keys in graph_keys.values()), graph_keys
    found = digests(rows.select([name for name in rows.schema.names if name not in OWN]))
    assert found == {clip.clip_id: expected[clip.clip_id] for clip in clips[:2]}, "nothing else was computed again"
    for number in range(rows.num_rows):
        row = row_arrays(rows, number)
        assert np.array_equal(np.array(row["gripper_closed"], np.float32), closed(row), equal_nan=True)
        assert abs(np.linalg.norm(row["embedding_gripper"]) - 1) < 1e-6
    field = rows.schema.field("embedding_gripper")
    assert field.metadata[b"model"] == b"mean-colour"
    assert set(OWN).isdisjoint(db.clips(version=before).schema.names), "readers of the old version see nothing of it"

    code, out, _ = cli("search", "--db", db.uri, "--clip", clips[0].clip_id, "--by", "gripper", "--json")
    assert code == 0
    assert {hit["clip_id"] for hit in json.loads(out)["hits"]} == {clips[1].clip_id}

    code, out, _ = cli("stages", "--db", db.uri, "--json")
    (gripper,) = [one for one in json.loads(out)["stages"] if one["name"] == "gripper"]
    assert gripper["rows"] == {"current": 2, "outdated": 0, "missing": 0, "rejected": 0}
    assert (gripper["class"], gripper["frames"]) == ("my_lab.stages:Gripper", "stored")

    names = {"db": db}
    exec(lab["windows"], names)
    sample = names["windows"][0]
    whole = closed(row_arrays(db.row(sample["clip_id"])))
    assert names["closed"].shape == (5,)
    assert np.array_equal(names["closed"].astype(np.float32), whole[sample["frame_index"]], equal_nan=True)
