"""Which clips of a table show which task, which of them teach it, and which are held out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handloom.api import Database
from handloom.errors import ConfigError, StoreError
from handloom.pipelines.skills.clips import words_there
from handloom.pipelines.skills.training.settings import VlmimicSettings
from handloom.schemas.tables.segments import COLUMN
from handloom.schemas.tables.stage_columns import key_column
from handloom.store.embodiment import HUMAN, narrowed
from handloom.windows.spec import make_spec
from handloom.windows.split import Joined, held_out_videos, joined_videos, split_position

UNNAMED = "unnamed"
LONGEST_NAME = 50


@dataclass(frozen=True)
class Task:
    """A verb with a thing (`noun`; empty: with several rare ones). teach, held_out: clip ids, of no common video; both
    empty: the task is `unnamed`, of clips without a verb."""

    name: str
    verb: str
    noun: str
    teach: tuple[str, ...]
    held_out: tuple[str, ...]
    num_clips: int


def tasks_of(db: Database, settings: VlmimicSettings, version: int) -> tuple[list[Task], list[str]]:
    """The tasks of a version of the table, those with most clips first; and sentences about what is left out.

    Raises:
        ConfigError: no clip passes the filter.
        StoreError: no segments were computed.
    """
    table = db.existing_table("clips", version)
    key = key_column(COLUMN)
    if key not in table.schema.names:
        raise StoreError("the table has no column segments", "the next `handloom run` computes it, without decoding")
    asked = narrowed(db, settings.where or None, HUMAN)
    columns = ["clip_id", "dataset", "video_id", "verb", "noun", key]
    rows = db.read("clips", columns, asked, version).sort_by("clip_id").to_pylist()
    if not rows:
        told = f"the filter {settings.where!r} passes no clip of people" if settings.where else "no clip is of people"
        raise ConfigError(f"{told} in {db.uri}", words_there(db))
    notes = []
    if missing := [row["clip_id"] for row in rows if row[key] is None]:
        left = "clip has no segments yet and is" if len(missing) == 1 else "clips have no segments yet and are"
        notes.append(f"{len(missing)} {left} left out; `handloom run` computes them")
        rows = [row for row in rows if row[key] is not None]
    joined = joined_videos(table, make_spec(fields=["frame_s"], past=1, future=0))
    groups = grouped(rows, settings.least_clips)
    order = sorted(groups, key=lambda words: (-len(groups[words]), words))
    if settings.tasks is not None and len(order) > settings.tasks:
        few = sum(len(groups[words]) for words in order[settings.tasks :])
        notes.append(f"{len(order) - settings.tasks} tasks with {few} clips are left out: tasks = {settings.tasks}")
        order = order[: settings.tasks]
    names = unique_names([settings.prefix + name_of(*words) for words in order])
    tasks = [_task(name, words, groups[words], joined, settings) for name, words in zip(names, order, strict=True)]
    return tasks, notes


Words = tuple[str, str]


def grouped(rows: Sequence[Mapping[str, Any]], least: int) -> dict[Words, list[Mapping[str, Any]]]:
    """Clips by verb and noun; pairs with fewer than `least` are joined by their verb, and clips without a verb are one
    group."""
    words = [((row["verb"] or "").strip().lower(), (row["noun"] or "").strip().lower()) for row in rows]
    counts = Counter(words)
    groups: dict[Words, list[Mapping[str, Any]]] = defaultdict(list)
    for row, (verb, noun) in zip(rows, words, strict=True):
        groups[(verb, noun if verb and counts[verb, noun] >= least else "")].append(row)
    return dict(groups)


def name_of(verb: str, noun: str) -> str:
    """`put-cup`; letters and digits alone, as names of skills are."""
    slug = "-".join(re.findall(r"[A-Za-z0-9]+", f"{verb} {noun}"))[:LONGEST_NAME].strip("-")
    return slug or UNNAMED


def unique_names(names: Sequence[str]) -> list[str]:
    """The same, with `.2` behind the second of a name; `-2` is that of the second skill of one task."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return out


def _task(
    name: str, words: Words, rows: Sequence[Mapping[str, Any]], joined: Joined, settings: VlmimicSettings
) -> Task:
    by_video: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        video = f"{row['dataset']}/{row['video_id']}"
        by_video[joined.get(video, video)].append(row["clip_id"])
    held_out = held_out_videos(by_video, settings.seed, settings.held_out_share)
    order = sorted(by_video.keys() - held_out, key=lambda video: (split_position(video, settings.seed), video))
    teach = in_turn([by_video[video] for video in order], settings.videos)
    taught = {video for video, clips in by_video.items() if {*clips} & {*teach}}
    left = sorted(by_video.keys() - taught, key=lambda video: (split_position(video, settings.seed), video))
    held = in_turn([by_video[video] for video in left], settings.judged)
    return Task(name, *words, tuple(teach), tuple(held), len(rows))


def in_turn(groups: Sequence[Sequence[str]], most: int) -> list[str]:
    """Up to `most`: the first of each group, then the second of each, and so on."""
    longest = max(map(len, groups), default=0)
    return [group[number] for number in range(longest) for group in groups if number < len(group)][:most]
