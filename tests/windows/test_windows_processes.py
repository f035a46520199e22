"""Loader processes end with the process that started them, and their errors are raised in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import pytest
from support.window_tables import clip_row, write_clips

from handloom.errors import ConfigError, StoreError
from handloom.store.search.index import compact
from handloom.windows.dataset import Memory

torch = pytest.importorskip("torch")

TRAINER = """
import sys, time
from handloom import open as open_database
from test_windows_processes import with_pid

if __name__ == "__main__":
    loader = open_database(sys.argv[1]).windows(2, 1, ["hands"], transform=with_pid).loader(4, num_workers=2)
    for batch in loader:
        print(*sorted(set(batch["pid"].tolist())), flush=True)
        time.sleep(60)
"""

BARE = """
import sys
from handloom import open as open_database

list(open_database(sys.argv[1]).windows(2, 1, ["hands"]).loader(4, num_workers=1))
"""


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("processes"), [clip_row(n, 12) for n in range(6)])


def with_pid(sample):
    return sample | {"pid": os.getpid()}


def sly(sample):
    raise FileNotFoundError("DataLoader worker (pid 7) exited unexpectedly")


def strict(sample):
    """A transform with a mistake that shows at one window."""
    if sample["clip_id"].startswith("d:v3") and sample["now_s"] > 0.95:
        return sample | {"verb": sample["verb"]}
    return sample


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_gone(pids, within_s: float) -> list[int]:
    """The processes that still run."""
    until = time.monotonic() + within_s
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_process_is_an_error_and_closing_leaves_nothing(db):
    loader = db.windows(2, 1, ["hands"], transform=with_pid).loader(4, num_workers=2)
    pids = {pid for batch in loader for pid in batch["pid"].tolist()}
    batches = iter(loader)
    next(batches)
    assert len(pids) == 2
    os.kill(min(pids), signal.SIGKILL)
    with pytest.raises(StoreError, match=r"(?s)a loader process crashed.*\nhint: usually for lack of memory"):
        list(batches)
    loader.set_epoch(5)
    batches = iter(loader)  # with others
    assert not {pid for _ in range(5) for pid in next(batches)["pid"].tolist()} & pids
    rest = {pid for batch in batches for pid in batch["pid"].tolist()}
    del loader, batches
    assert wait_until_gone(pids | rest, 60) == []
    names = [name.split("_") for name in os.listdir("/dev/shm") if name.startswith("torch_")]
    assert not {int(pid) for _, pid, *_ in names} & (pids | rest)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_do_not_outlive_a_killed_trainer(db, tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    here = str(Path(__file__).parent)
    paths = os.pathsep.join([here, str(Path(here).parent), os.environ.get("PYTHONPATH", "")])
    trainer = subprocess.Popen(
        [sys.executable, script, db.uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    pids = [int(word) for word in trainer.stdout.readline().split()]
    trainer.kill()
    left = wait_until_gone(pids, 60)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    trainer.stdout.close()
    trainer.wait()
    assert len(pids) == 2
    assert left == []


def test_the_error_of_a_script_without_a_guard_names_the_guard(db, tmp_path):
    script = tmp_path / "bare.py"
    script.write_text(BARE)
    done = subprocess.run([sys.executable, script, db.uri], capture_output=True, text=True)
    assert done.returncode == 1
    assert "hint: usually a script without a guard: every process imports it" in done.stderr


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_transform_names_its_window(db, num_workers):
    loader = db.windows(2, 1, ["hands"], transform=strict).loader(4, num_workers=num_workers)
    with pytest.raises(KeyError) as caught:
        list(loader)
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "in the transform of the window of d:v3:0-1200 at 1 s" in said
    assert "verb" in said


def test_an_error_with_the_words_of_a_crash_is_no_crash(db):
    loader = db.windows(2, 1, ["hands"], transform=sly).loader(4, num_workers=1)
    with pytest.raises(FileNotFoundError, match="exited unexpectedly"):
        list(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_table_that_changes_and_an_epoch_left_early_change_no_batch(tmp_path, num_workers):
    db = write_clips(tmp_path, [clip_row(n, 12) for n in range(6)])
    windows = db.windows(2, 1, ["hands", "images"], memory=Memory(block_mb=0))  # a block per clip: read when needed
    expected = [*windows.loader(4, seed=1)]
    loader = windows.loader(4, seed=1, num_workers=num_workers)
    batches = iter(loader)
    kept = [next(batches) for _ in range(3)]
    table = write_clips(tmp_path, [clip_row(6, 12)], mode="append")
    compact(table)
    lance.dataset(str(tmp_path / "clips.lance")).delete("video_id <> 'v6'")
    kept += batches
    next(iter(loader))  # of the next epoch, which is left early
    loader.set_epoch(0)
    for found in (kept, list(loader)):
        assert len(found) == len(expected)
        for batch, as_it_was in zip(found, expected, strict=True):
            for name in ("hand_keypoints_px", "images", "frame_s"):
                np.testing.assert_array_equal(batch[name], as_it_was[name])


def test_a_batch_larger_than_all_windows_is_refused(db):
    windows = db.windows(2, 1, ["hands"])
    with pytest.raises(ConfigError, match="30 windows on each of 2 ranks, a batch takes 64"):
        next(iter(windows.loader(64, world_size=2)))
    assert len(list(windows.loader(64, world_size=2, drop_last=False))) == 1
    assert list(db.windows(2, 1, split="held_out", held_out_share=0.0).loader(64)) == []


def test_a_stream_is_divided_over_torchs_workers(db, monkeypatch):
    """The short form of the next one, in this process."""
    windows = db.windows(2, 1, ["hands"])
    stream = windows.stream(seed=2)
    found = []
    for number in range(3):
        info = torch.utils.data._utils.worker.WorkerInfo(id=number, num_workers=3, seed=0, dataset=stream)
        monkeypatch.setattr(torch.utils.data._utils.worker, "_worker_info", info)
        found.append([(sample["clip_id"], sample["now_s"]) for sample in stream])
    assert all(found)
    names = [name for part in found for name in part]
    assert len(names) == len(set(names)) == len(windows)


@pytest.mark.slow
def test_workers_of_a_plain_torch_loader_share_a_stream(db):
    from torch.utils.data import DataLoader

    windows = db.windows(2, 1, ["hands"])
    stream = windows.stream(seed=2)
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=2,
        multiprocessing_context="spawn",
        collate_fn=None,
        persistent_workers=True,
    )
    epochs = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        epochs.append([(sample["clip_id"], sample["now_s"]) for sample in loader])
    first, second = epochs
    assert len(first) == len(set(first)) == len(windows) == len(set(second))
    assert first != second
