"""Every example of docs/windows.md runs, in the page's order, on a small table."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from support.stage_keys import with_keys
from support.window_tables import clip_row, write_clips, write_episodes

from handloom.store.runs.runs import start_run

torch = pytest.importorskip("torch")
PAGE = Path(__file__).parents[2] / "docs" / "windows.md"
KEY = "5f0c9d1ab2e34477"  # as on the page
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[int, str]]:
    """(line of the page, code) of each."""
    text = PAGE.read_text()
    return [(text[: found.start(1)].count("\n"), found.group(1)) for found in BLOCK.finditer(text)]


def run(examples, names):
    for line, code in examples:
        exec(compile("\n" * line + code, str(PAGE), "exec"), names)
        yield line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One that holds `my-db`, as the page calls it: 24 clips and 2 robot episodes."""
    (tmp_path / "my-db").mkdir()
    write_episodes(tmp_path / "my-db", [4, 4])
    shutil.rmtree(tmp_path / "my-db" / "clip_list.lance")  # made again with the clips
    rows = pa.Table.from_batches([clip_row(n, 9 if n < 2 else 30 + n % 3) for n in range(24)])
    rows = with_keys(rows, {"hands_2d": [KEY] * 20 + [None] * 4, "hands_3d": [KEY] * 24})
    db = write_clips(tmp_path / "my-db", rows.to_batches())
    start_run(db, "k", settings={}, resources={}, versions={}, stage_keys={"hands_2d": KEY, "hands_3d": KEY})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_example_runs(folder):
    shown = examples()
    names = {"__name__": "__main__"}
    local = [example for example in shown if "import ray" not in example[1]]
    assert len(local) == len(shown) - 1 >= 14
    for line in run(local, names):
        if line == shown[0][0]:
            assert names["sample"]["images"].shape == (26, 224, 224, 3)
            assert names["sample"]["hand_keypoints_cam_m"].shape == (26, 2, 21, 3)
            assert names["batch"]["hand_keypoints_cam_m"].shape == (8, 26, 2, 21, 3)
    counts = names["train"].counts
    written = dict(re.findall(r"'(\w+)': (\d+)", PAGE.read_text()))
    assert {name: str(counts[name]) for name in written} == written
    assert counts["rows"] == sum(n for name, n in counts.items() if name not in ("rows", "windows"))
    assert counts["windows"] == len(names["train"])
    assert not set(names["train"].clip_ids) & set(names["held_out"].clip_ids)
    assert names["stats"]["mean"].shape == (2, 21, 2)
    assert names["batch"]["neighbours"]["hand_keypoints_px"].shape == (4, 3, 5, 2, 21, 2)
    assert names["sample"]["state"].shape == (10, 4)
    assert names["sample"]["images:wrist"].shape == (10, 16, 24, 3)


def test_the_example_on_ray_runs(folder, ray_address):
    names = {"__name__": "__main__"}
    shown = examples()
    list(run([shown[0], *(example for example in shown if "import ray" in example[1])], names))
    assert names["dataset"].count() == sum(n - 4 for n in (9, 9, *(30 + n % 3 for n in range(2, 24))))
    assert names["batch"]["hand_keypoints_px"].shape[1:] == (5, 2, 21, 2)
