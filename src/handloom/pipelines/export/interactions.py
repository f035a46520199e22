"""`handloom export interactions`: what hands do with things, as a LeRobot dataset in the form of a robot's states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from handloom.api import Database
from handloom.errors import ConfigError
from handloom.export.card import Card, CardTally, tallied
from handloom.export.lerobot.dataset import Episode, LeRobotSummary, export_lerobot
from handloom.export.lerobot.interactions import (
    CARRY,
    COLUMNS,
    KIND,
    LEAST_STEPS,
    MOVED_M,
    REACH,
    episodes_of,
    interactions_of,
    layout_of,
)
from handloom.pipelines.export.parquet import opened
from handloom.plural import plural
from handloom.schemas.tables.row import row_arrays
from handloom.store.embodiment import HUMAN
from handloom.store.stages.row_keys import StageKeys

BATCH_ROWS = 8
MAX_HZ = 200.0
READING = """`meta/info.json` describes the features. Each episode is one hand that takes one thing: `kind` in
`meta/episodes` is `reach` (it comes to where it takes the thing: the goal) or `carry` (it comes, takes the thing and
brings it to the goal). Frame: z up, y away from the camera, x right, metres, the origin where the thing stood. What
left hands do is mirrored. NaN is an unknown value."""
LIMITS = (
    "`action` is the state one step later, not a command.",
    "The goal is known in hindsight: it is where the hand, or the thing, ended.",
    "The place of the hand is the middle of three fingertips, its gripper the distance of two of them from the thumb.",
)
TAGS = ("LeRobot",)

CLIPS = "clips"
METRES, HANDS, SEGMENTS = "no world in metres", "no hands or no camera in the world", "`segments` not computed"
NOTHING = "no hand takes a thing"
NO_REACH = "too few steps on the way to a thing, or the hand is not seen as it takes it"
NO_CARRY = f"too few steps, or a thing that moves less than {100 * MOVED_M:g} cm"
SHORT = f"too few steps, or neither is a hand seen as it takes a thing nor does the thing move {100 * MOVED_M:g} cm"
LONGER = f"give a higher --hz: an episode has at least {LEAST_STEPS} steps"
REASONS = {
    METRES: "export clips whose `world_scale` is 'metric'",
    HANDS: "export clips whose hands were seen",
    SEGMENTS: "compute them with `handloom run`",
    NOTHING: "loosen --where, or process clips in which hands take things",
    NO_REACH: f"{LONGER}; or leave out --kind",
    NO_CARRY: f"{LONGER}; or leave out --kind",
    SHORT: LONGER,
}
"""Why a clip gives no episode, and what to do where none of all clips gives any. The first one that holds counts."""


@dataclass(frozen=True)
class InteractionSummary:
    """What `interactions` wrote. num_clips: that episodes are of. left_out: number of the others, by reason."""

    dataset: LeRobotSummary
    num_clips: int
    left_out: dict[str, int]


def interactions(
    db: Database,
    out: str,
    where: str | None = None,
    *,
    stage_keys: StageKeys = None,
    hz: float = 20.0,
    kinds: Collection[str] = (REACH, CARRY),
    **options: Any,
) -> InteractionSummary:
    """Write the interactions of clips of people into `out`, a folder or URI.

    Args:
        stage_keys: only rows with these keys, by stage. hz: steps a second; straight lines join frames. kinds: of the
            episodes to write.

    Raises:
        StoreError: nothing is processed yet, or `out` cannot be written.
        ConfigError: the table has no segments; no clip gives an episode (`REASONS`); `out` is not empty.
    """
    if not 0 < hz <= MAX_HZ:
        raise ConfigError(f"--hz {hz:g}", f"give steps a second, above 0 and at most {MAX_HZ:g}")
    rows = opened(db, "clips", where, HUMAN, stage_keys, COLUMNS)
    if missing := sorted(set(COLUMNS) - set(rows.table.schema.names)):
        problem = f"the clips of {db.uri} have no {', '.join(missing)}"
        raise ConfigError(problem, "compute them with `handloom run`: the stage `segments` finds what hands take")
    tally, counts = CardTally(), Counter[str]()

    def card(info: Mapping[str, Any]) -> str:
        left_out = [f"{plural(counts[why], 'clip')} gave no episode: {why}." for why in REASONS if counts[why]]
        limits = (*LIMITS, *left_out)
        tally.num_episodes = info["total_episodes"]
        page = Card("lerobot", "What hands do with things", READING, rows.source, "data/*/*.parquet", limits, TAGS)
        return page.text(tally)

    columns = dict.fromkeys([*COLUMNS, *tallied(rows.table.schema, rows.source)])
    batches = db.batches(list(columns), rows.where, rows.table.version, BATCH_ROWS)
    written = export_lerobot(
        counted_episodes(batches, hz, counts, kinds, tally.add_all),
        out,
        layout_of(hz),
        card=card,
        metadata={**rows.source, "hz": hz, "kinds": list(kinds)},
        **options,
    )
    return InteractionSummary(written, counts[CLIPS], {why: counts[why] for why in REASONS if counts[why]})


def counted_episodes(
    batches: Iterable[pa.RecordBatch],
    hz: float,
    counts: Counter[str],
    kinds: Collection[str] = (REACH, CARRY),
    taken: Callable[[pa.RecordBatch], object] = lambda _: None,
) -> Iterator[Episode]:
    """Of all clips, which are counted: `CLIPS`, or a reason. taken: is given the row of each clip that has episodes.

    Raises ConfigError at the end where none has any.
    """
    short = SHORT if REACH in kinds and CARRY in kinds else NO_REACH if REACH in kinds else NO_CARRY
    for batch in batches:
        for index in range(batch.num_rows):
            row = row_arrays(batch, index)
            found = interactions_of(row)
            episodes = [episode for one in found for episode in episodes_of(one, hz) if episode.source[KIND] in kinds]
            counts[CLIPS if episodes else short if found else _why_nothing(row)] += 1
            if episodes:
                taken(batch.slice(index, 1))
            yield from episodes
    if not counts[CLIPS]:
        left_out = "; ".join(f"{plural(counts[why], 'clip')}: {why}" for why in REASONS if counts[why])
        most = max(REASONS, key=lambda why: counts[why])
        raise ConfigError(f"there is no episode to export at {hz:g} Hz: {left_out}", REASONS[most])


def _why_nothing(row: Mapping[str, Any]) -> str:
    """Of a row without interactions."""
    if row["world_scale"] != "metric":
        return METRES
    points = row["hand_keypoints_world_m"]
    if points is None or not np.isfinite(points).any() or row["world_from_camera"] is None:
        return HANDS
    return SEGMENTS if row["segments"] is None else NOTHING
