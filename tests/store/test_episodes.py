"""Robot episodes: round trip, exactly once, replaced if the source has changed."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from handloom.api import Database
from handloom.errors import ShapeError
from handloom.schemas.tables.robot import ROBOT_EPISODES, RobotEpisode, Signal, episode_arrays, episode_row
from handloom.store.episodes import known_episodes, read_episodes, write_episodes


def make_episode(index: int, num_frames: int = 5, key: str = "a", cameras: int = 2, **changes) -> RobotEpisode:
    rng = np.random.default_rng(index)
    state = rng.normal(size=(num_frames, 3)).astype(np.float32)
    state[0, 1] = np.nan
    values = {
        "dataset": "arm",
        "episode_index": index,
        "fps": 10.0,
        "frame_s": np.arange(num_frames) / 10,
        "state": Signal(state, ("x", "y", "gripper"), ("m", "m", None)),
        "action": Signal(rng.normal(size=(num_frames, 2)).astype(np.float32)),
        "cameras": tuple(f"cam{c}" for c in range(cameras)),
        "clip_ids": tuple(f"arm:cam{c}~{index}:0-500" for c in range(cameras)),
        "frame_jpeg": [[bytes([index, c, t]) if t else None for t in range(num_frames)] for c in range(cameras)],
        "source_uri": "/data/arm",
        "source_version": "lerobot v3.0",
        "source_key": key,
        "task": "put it there",
    }
    return RobotEpisode(**{**values, **changes})


def rows(*episodes: RobotEpisode) -> pa.Table:
    return pa.Table.from_batches([episode_row(episode) for episode in episodes])


@pytest.fixture
def db(tmp_path):
    return Database.open(tmp_path / "db", create=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_frames": 1},
        {"cameras": 0},
        {"frame_jpeg": None},
        {"state": None, "action": None},
        {"clip_ids": (None, "arm:cam1~0:0-500")},
        {"state": Signal(np.zeros((5, 0), np.float32))},
    ],
)
def test_a_row_comes_back_as_it_was(db, changes):
    episode = make_episode(7, **changes)
    write_episodes(db, [episode_row(episode)])
    back = episode_arrays(read_episodes(db))
    assert back["episode_id"] == "arm:7"
    assert back["num_frames"] == len(episode.frame_s)
    np.testing.assert_array_equal(back["frame_s"], episode.frame_s)
    for name in ("state", "action"):
        signal = getattr(episode, name)
        if signal is None:
            assert back[name] is None
        else:
            np.testing.assert_array_equal(back[name].reshape(signal.values.shape), signal.values)
        assert back[f"{name}_names"] == (list(signal.names) if signal and signal.names else None)
    assert back["frame_jpeg"] == episode.frame_jpeg
    assert tuple(back["clip_ids"]) == episode.clip_ids


def test_parts_that_disagree_in_length_are_refused():
    with pytest.raises(ShapeError, match="arm:0"):
        episode_row(make_episode(0, frame_s=np.arange(4) / 10))
    with pytest.raises(ShapeError):
        episode_row(make_episode(0, clip_ids=("a",)))
    with pytest.raises(ShapeError):
        Signal(np.zeros((4, 2), np.float32), ("x",))


def test_an_episode_written_twice_has_one_row_and_a_changed_one_replaces_it(db):
    first = write_episodes(db, [rows(make_episode(0), make_episode(1)), rows(make_episode(2))])
    assert (first.added, first.replaced, first.already_there) == (3, 0, 0)
    again = write_episodes(db, [rows(make_episode(1), make_episode(2), make_episode(3))])
    assert (again.added, again.replaced, again.already_there) == (1, 0, 2)
    version = again.version
    changed = write_episodes(db, [rows(make_episode(2, key="b", task="another"), make_episode(0))])
    assert (changed.added, changed.replaced, changed.already_there) == (0, 1, 1)
    table = read_episodes(db, ["episode_id", "task", "source_key"])
    assert sorted(table.column("episode_id").to_pylist()) == [f"arm:{i}" for i in range(4)]
    assert read_episodes(db, ["task"], "episode_index = 2").column("task").to_pylist() == ["another"]
    assert read_episodes(db, ["task"], "episode_index = 2", version).column("task").to_pylist() == ["put it there"]
    assert known_episodes(db, "arm")["arm:2"].source_key == "b"
    assert known_episodes(db, "hand") == {}


def test_the_last_of_several_with_one_id_wins(db):
    done = write_episodes(db, [rows(make_episode(0, key="a"), make_episode(0, key="b"))])
    assert done.added == 1
    assert known_episodes(db)["arm:0"].source_key == "b"


def test_a_missing_table_has_no_episodes(db):
    assert read_episodes(db).num_rows == 0
    assert known_episodes(db) == {}
    assert write_episodes(db, []).version == 1
    assert read_episodes(db).schema.equals(ROBOT_EPISODES)


WRITER = """
import sys
from store.test_episodes import make_episode, rows
from handloom.api import Database
from handloom.store.episodes import write_episodes
from handloom.errors import CommitConflict
try:
    for index in range(8):
        write_episodes(Database.open(sys.argv[1]), [rows(make_episode(index))])
except CommitConflict:
    pass
"""


def test_two_writers_at_once_leave_every_episode_once(db):
    """Either may be refused; no episode is there twice, and a writer alone afterwards adds what is missing."""
    path = __file__.rsplit("/", 2)[0]
    code = f"import sys; sys.path.insert(0, {path!r})\n{WRITER}"
    writers = [subprocess.Popen([sys.executable, "-c", code, db.uri]) for _ in range(2)]
    assert [writer.wait(timeout=240) for writer in writers] == [0, 0]
    write_episodes(db, [rows(*(make_episode(i) for i in range(8)))])
    ids = read_episodes(db, ["episode_id"]).column("episode_id").to_pylist()
    assert sorted(ids) == [f"arm:{i}" for i in range(8)]
