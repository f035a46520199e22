"""Whether a clip shows a person or a robot, whose states and actions are in `robot_episodes`.

A dataset has one embodiment: the clips of a robot's videos have the same `dataset` as its episodes.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.compute as pc

from handloom.errors import ConfigError
from handloom.schemas.tables.robot import TABLE
from handloom.store.filters import clause, in_list
from handloom.store.tables import Tables

EPISODE_VIDEO = "~episode_"  # in the video id of every clip of an episode: CAMERA~episode_000000
HUMAN, ROBOT, ALL = EMBODIMENTS = ("human", "robot", "all")


def robot_datasets(db: Tables) -> tuple[str, ...]:
    """Names of the datasets that hold robot episodes, sorted; empty if there are none."""
    rows = db.read(TABLE, ["dataset"])
    return tuple(sorted(pc.unique(rows.column("dataset")).to_pylist())) if rows.num_rows else ()


def check_embodiment(embodiment: str) -> None:
    """Raise ConfigError for a word that is not in `EMBODIMENTS`."""
    if embodiment not in EMBODIMENTS:
        raise ConfigError(f"embodiment {embodiment!r}", f"expected one of: {', '.join(EMBODIMENTS)}")


def condition_of(db: Tables, embodiment: str) -> str | None:
    """SQL on the column `dataset`: the clips of people (`human`) or of robots (`robot`); None for `all`.

    Raises ConfigError for another word.
    """
    check_embodiment(embodiment)
    if embodiment == ALL:
        return None
    of_robots = robot_datasets(db)
    if embodiment == ROBOT:
        return in_list("dataset", of_robots)
    return f"NOT ({in_list('dataset', of_robots)})" if of_robots else None


def narrowed(db: Tables, where: str | None, embodiment: str) -> str | None:
    """The filter with a condition on the embodiment. Raises ConfigError as `condition_of` and `clause` do."""
    condition = condition_of(db, embodiment)
    if condition is None:
        return where
    return condition if where is None else f"{clause(where)} AND {condition}"


def check_of_people(db: Tables, datasets: Iterable[str]) -> None:
    """Raise ConfigError for clips of people in a dataset of robots: they would count as clips of robots."""
    taken = sorted(set(datasets) & set(robot_datasets(db)))
    if taken:
        raise ConfigError(
            f"dataset {taken[0]!r} holds robot episodes in {db.uri}, and a dataset is of people or of robots",
            "give another --dataset",
        )


def check_of_robots(db: Tables, dataset: str) -> None:
    """Raise ConfigError for robots in a dataset of people: its clips would count as clips of robots."""
    others = f"{in_list('dataset', [dataset])} AND NOT (video_id LIKE '%{EPISODE_VIDEO}%')"
    if num := db.count("clip_list", others):
        raise ConfigError(
            f"dataset {dataset!r} holds {num} clips of people in {db.uri}, and a dataset is of people or of robots",
            "give another --dataset",
        )
