"""What people do with things as control episodes, from four sources that differ in one cause each.

- `people`: clips as the pipeline sees them (`handloom export interactions`).
- `truth`: the same clips, of which hands, things and contacts are known exactly (rendered clips): extraction has no
  errors.
- `shuffled`: `people` with the thing and the goal of another episode: the same motions, from which nothing is to be
  learned about where a hand goes.
- `scripted`: the truth of more scenes, which are not rendered: what more clips would be worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.export.lerobot.dataset import Episode, export_lerobot
from handloom.export.lerobot.interactions import (
    AFTER_S,
    BEFORE_S,
    CARRY,
    COLUMNS,
    ENVIRONMENT,
    KIND,
    REACH,
    STATE,
    Interaction,
    episodes_of,
    interactions_of,
    layout_of,
)
from handloom.pipelines.ingest.robots import lerobot
from handloom.schemas.tables.row import row_arrays
from handloom.schemas.values import LEFT, RIGHT
from handloom.store.embodiment import HUMAN, condition_of
from handloom.synth.script.demo import turn_specs
from handloom.synth.stage import build_stage
from handloom.synth.truth import Truth

Floats = NDArray[np.float64]

PEOPLE, TRUTH, SHUFFLED, SCRIPTED = "people", "truth", "shuffled", "scripted"
HZ = 20.0
TURNS = ("lift-place", "lift-carry-place", "move", "put", "push", "open")
SCENES_PER_TURN, SCRIPTED_SEED = 25, 5000


def episodes_from(source: str, db: Database | None) -> list[Episode]:
    """The episodes of one source. db: with the clips; None will do for `scripted`.

    Raises ConfigError where a clip has no truth beside its video, or there is no episode.
    """
    if source == SCRIPTED or db is None:
        scenes = (spec for turn in TURNS for spec in turn_specs(turn, SCENES_PER_TURN, SCRIPTED_SEED))
        found = [one for spec in scenes for one in interactions_in(build_stage(spec).truth, "")]
    elif source == TRUTH:
        found = [one for clip_id, truth in _truths(db) for one in interactions_in(truth, clip_id)]
    else:
        found = [one for row in _rows(db) for one in interactions_of(row)]
    episodes = [episode for one in found for episode in episodes_of(one, HZ)]
    if not episodes:
        raise ConfigError("no hand takes a thing in the clips", "give a database with clips of hands that take things")
    return shuffled(episodes) if source == SHUFFLED else episodes


def database_of(source: str, db: Database | None, place: Path, kinds: Sequence[str] = (REACH, CARRY)) -> Database:
    """The episodes of a source, of these kinds, as a table that recipes train on; a finished one is not made again."""
    if not (place / "db" / "done").exists():
        dataset = str(place / "dataset")
        episodes = [one for one in episodes_from(source, db) if one.source[KIND] in kinds]
        export_lerobot(episodes, dataset, layout_of(HZ), card=lambda info: source, overwrite=True)
        made = Database.open(place / "db", create=True)
        lerobot(made, dataset, dataset=source, state=(STATE, ENVIRONMENT))
        (place / "db" / "done").touch()
    return Database.open(place / "db")


def interactions_in(truth: Truth, clip_id: str) -> list[Interaction]:
    """Of the exact truth of a rendered clip, in order of time."""
    found: list[Interaction] = []
    free_s = {"left": -np.inf, "right": -np.inf}
    for contact in truth.contacts:
        hand = LEFT if contact.hand == "left" else RIGHT
        first, at, last = np.searchsorted(
            truth.frame_s,
            [max(contact.start_s - BEFORE_S, free_s[contact.hand]), contact.start_s, contact.end_s + AFTER_S],
        )
        free_s[contact.hand] = contact.end_s
        said = [one.narration for one in truth.actions if one.start_s <= contact.start_s < one.end_s]
        points = truth.keypoints_world_m[:, hand]
        if at >= len(truth.frame_s) or not np.isfinite(points[first:last]).any():
            continue
        thing = truth.world_from_object[:, contact.object, :3, 3]
        source: dict[str, Any] = {
            "clip_id": clip_id,
            "video_id": "",
            "licence": None,
            "source_dataset": "",
            "hand": contact.hand,
        }
        source |= {"start_s": float(truth.frame_s[first]), "end_s": float(truth.frame_s[last - 1])}
        noun = truth.object_nouns[contact.object]
        some = slice(first, last)
        found.append(Interaction(
            truth.frame_s[some], points[some], thing[some], truth.world_from_camera[some],
            _axes(thing[at], truth.world_from_camera[at, :3, 3]), hand, int(at - first), noun,
            said[0] if said else "", source,
        ))  # fmt: skip
    return found


def _axes(thing_m: Floats, camera_m: Floats) -> Floats:
    """(3, 3) rows x right, y away from the camera, z up in the world, as a thing's frame has them."""
    up = np.array([0.0, 0.0, 1.0])
    away = (thing_m - camera_m) * [1.0, 1.0, 0.0]
    away = away / np.linalg.norm(away)
    return np.stack([np.cross(away, up), away, up])


def shuffled(episodes: Sequence[Episode]) -> list[Episode]:
    """Each with what the next one of its kind has around its hand's first place; a longer one repeats the last row."""
    out: list[Episode] = []
    for number, one in enumerate(episodes):
        later = [*episodes[number + 1 :], *episodes[: number + 1]]
        other = next(some for some in later if some.source["kind"] == one.source[KIND])
        rows = np.minimum(np.arange(one.num_steps), other.num_steps - 1)
        around: Floats = other.values[ENVIRONMENT] - np.tile(_first_place(other), 2)
        values = {**one.values, ENVIRONMENT: around[rows] + np.tile(_first_place(one), 2)}
        out.append(replace(one, values=values))
    return out


def _first_place(one: Episode) -> NDArray[np.float32]:
    places = one.values[STATE][:, :3]
    return places[np.flatnonzero(np.isfinite(places[:, 0]))[0]]


def _rows(db: Database) -> Iterator[dict]:
    for batch in db.batches(list(COLUMNS), condition_of(db, HUMAN), None, 8, "clips"):
        yield from (row_arrays(batch, index) for index in range(batch.num_rows))


def _truths(db: Database) -> Iterator[tuple[str, Truth]]:
    """Raises ConfigError for a clip without NAME.truth.npz, or that is not its whole video."""
    for row in db.read("clips", ["clip_id", "video_uri"], condition_of(db, HUMAN)).to_pylist():
        place = Path(row["video_uri"]).with_suffix(".truth.npz")
        if not place.exists():
            problem = f"clip {row['clip_id']} has no truth: {place} is missing"
            raise ConfigError(problem, "give a database with clips of `handloom synth`, or leave the variant out")
        yield row["clip_id"], Truth.load(place)
