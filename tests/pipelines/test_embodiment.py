"""People's clips and robots' in one database: who is found, exported and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.rows import RUN_KEY, make_clip, make_row, random_unit

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.pipelines.export.parquet import export
from handloom.pipelines.export.webdataset import webdataset
from handloom.pipelines.search import search_clips, why_nothing
from handloom.pipelines.status.status import status, status_text
from handloom.schemas.tables.arrow import clips_schema
from handloom.schemas.tables.embeddings import EMBEDDINGS
from handloom.schemas.tables.robot import ROBOT_EPISODES, RobotEpisode, episode_row
from handloom.store.clips.clip_list import add_clips
from handloom.store.clips.commit import Committer
from handloom.store.embodiment import check_of_people, check_of_robots
from handloom.store.episodes import write_episodes
from handloom.store.fragments import write_fragment
from handloom.store.search.index import build_indexes

SCHEMA = clips_schema(4)
PEOPLE = [make_clip(n, narration="open the drawer" if n else None) for n in range(4)]
ROBOTS = [
    make_clip(20 + n, clip_id=f"arm:{n}:0-1000", dataset="arm", video_id=f"front~episode_{n:06d}", narration="lift it")
    for n in range(3)
]


def episode(number: int, clip_id: str) -> RobotEpisode:
    times = np.arange(3) / 10
    return RobotEpisode("arm", number, 10.0, times, None, None, ("front",), (clip_id,), None, "x", "lerobot v3.0", "k")


@pytest.fixture(scope="module", params=["plain", "indexed"])
def db(request, tmp_path_factory) -> Database:
    db = Database.open(tmp_path_factory.mktemp("db"), create=True)
    add_clips(db, [*PEOPLE, *ROBOTS])
    rows = [make_row(clip, hands_seen=(clip in PEOPLE[:2] or clip in ROBOTS, False)) for clip in [*PEOPLE, *ROBOTS]]
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, rows, SCHEMA)])
    write_episodes(db, [episode_row(episode(n, clip.clip_id)) for n, clip in enumerate(ROBOTS)])
    if request.param == "indexed":
        build_indexes(db, ann_threshold_rows=1)
    return db


def ids(clips) -> set[str]:
    return {clip.clip_id for clip in clips}


def test_people_are_found_unless_robots_are_asked_for(db):
    vector = random_unit(np.random.default_rng(0), EMBEDDINGS["motion"].dim)
    for asked, clips in (({}, PEOPLE), ({"embodiment": "robot"}, ROBOTS), ({"embodiment": "all"}, [*PEOPLE, *ROBOTS])):
        assert ids(db.search(vector=vector, **asked)) == ids(clips)
        assert ids(db.search(vector=vector, where="hand_left -- seen", **asked)) == ids(clips) - ids(PEOPLE[2:])
        for clip in (PEOPLE[0], ROBOTS[0]):  # a robot's clip finds people who move like it
            assert ids(db.search(clip=clip.clip_id, **asked)) == ids(clips) - {clip.clip_id}
        words = "open lift" if asked else "lift open"
        assert ids(db.search(text=words, **asked)) == ids(clips) - {PEOPLE[0].clip_id}
    assert ids(db.search(vector=vector, where="dataset = 'arm' OR video_id = 'v0'")) == ids(PEOPLE)
    with pytest.raises(ConfigError, match="embodiment 'people'"):
        db.search(vector=vector, embodiment="people")


@pytest.mark.parametrize(
    ("text", "where", "embodiment", "says"),
    [
        ("sing", None, "human", "no clip of people has these words; `handloom status --db"),
        ("lift", None, "human", "clips of robots have these words: --embodiment robot"),
        ("open", "duration_s > 99", "all", "passes none of the 7 clips"),
        ("open", "dataset = 'arm'", "human", "no clip that passes --where is of people; --embodiment robot"),
        ("open", "clip_id = 'test:v0:0-1000'", "human", "none of the 1 clips that pass --where has words"),
    ],
)
def test_why_nothing_was_found(db, text, where, embodiment, says):
    assert len(search_clips(db, text=text, where=where, embodiment=embodiment)) == 0
    found = why_nothing(db, text, where, embodiment)
    assert says in found


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_exports_hold_people_and_say_how_many_robots_they_leave_out(db, tmp_path: Path, caplog, form):
    def written(out: str, *args, **options) -> str:
        made = export(db, form, out, *args, **options) if form == "parquet" else webdataset(db, out, *args, **options)
        num = sum(shard.num_rows for shard in made) if form == "parquet" else made.num_samples
        return f"{num} {(Path(out) / 'README.md').read_text()}"

    card = written(str(tmp_path / "people"))
    assert card.startswith("4 ")
    assert "# Clips of human hands\n\n4 clips (4 of people, 0 of robots)" in card
    assert "3 clips of robots that pass the filter were left out" in card
    assert "left out 3 clips of robots: --embodiment all takes them too" in caplog.text
    card = written(str(tmp_path / "all"), embodiment="all")
    assert card.startswith("7 ")
    assert "# Clips of people and of robots\n\n7 clips (4 of people, 3 of robots)" in card
    assert "left out" not in card
    assert written(str(tmp_path / "robots"), "hand_left", embodiment="robot").startswith("3 ")
    with pytest.raises(ConfigError, match="all 3 clips that pass --where are of robots") as caught:
        written(str(tmp_path / "none"), "dataset = 'arm'")
    assert "--embodiment robot" in caught.value.hint
    if form == "parquet":
        rows = pq.read_table(next((tmp_path / "people").glob("*.parquet")), columns=["dataset"])
        assert set(rows.column(0).to_pylist()) == {"test"}


def test_status_counts_both(db, tmp_path):
    found = status(db)
    names = ("clips", "clips_of_people", "clips_of_robots", "robot_episodes", "clips_with_left_hand")
    assert [found[name] for name in names] == [7, 4, 3, 3, 2]
    text = status_text(found)
    assert "rows      of people 4, of robots 3" in text
    assert "episodes of arm" in text
    only_people = status(Database.open(tmp_path, create=True))
    assert (only_people["robot_datasets"], "robots" in status_text(only_people)) == ([], False)


def test_status_counts_episodes_of_people_apart(tmp_path):
    db = Database.open(tmp_path, create=True)
    kinds = {"arm": "panda", "hands": "human_hand", "clips": "human_hands", "unknown": None}
    rows = [
        episode_row(replace(episode(n, None), dataset=dataset, robot_type=kind))
        for dataset, kind in kinds.items()
        for n in range(2)
    ]
    write_episodes(db, rows)
    names = ("robot_episodes", "robot_datasets", "human_episodes", "human_datasets")
    assert [status(db)[name] for name in names] == [4, ["arm", "unknown"], 4, ["clips", "hands"]]
    lines = status_text(status(db)).splitlines()
    assert "  robots           4   episodes of arm, unknown" in lines
    assert "  people           4   episodes of people's hands: clips, hands" in lines
    of_hands = Database.open(tmp_path / "hands", create=True)
    write_episodes(of_hands, rows[2:4])
    assert "robots" not in status_text(status(of_hands))


def test_a_table_of_episodes_without_rows_is_no_robot(tmp_path):
    db = Database.open(tmp_path, create=True)
    lance.write_dataset(ROBOT_EPISODES.empty_table(), db.location.table_uri("robot_episodes"))
    Committer(db, RUN_KEY, SCHEMA).commit([write_fragment(db.uri, [make_row(0)], SCHEMA)])
    assert len(db.windows(1, 1, ["narration"])) == 2
    vector = np.ones(EMBEDDINGS["motion"].dim)
    assert [len(db.search(vector=vector, embodiment=name)) for name in ("human", "robot", "all")] == [1, 0, 1]


def test_a_dataset_is_of_people_or_of_robots(db):
    with pytest.raises(ConfigError, match="dataset 'arm' holds robot episodes"):
        check_of_people(db, ["new", "arm"])
    with pytest.raises(ConfigError, match="dataset 'test' holds 4 clips of people"):
        check_of_robots(db, "test")
    check_of_people(db, ["test"])
    check_of_robots(db, "arm")
