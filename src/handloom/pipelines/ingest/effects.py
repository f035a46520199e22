"""What an ingest changes in the clip list and in the rows of its clips: done, or only foreseen (`--dry-run`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa

from handloom.api import Database
from handloom.plural import plural
from handloom.schemas.clip import Clip
from handloom.schemas.tables.arrow import CLIP_LIST
from handloom.store.clips.changed_inputs import COLUMNS, changed_inputs, fields_text
from handloom.store.clips.changed_labels import WORDS, bring_words, count_stages, words_behind
from handloom.store.clips.clip_list import ClipListWriter
from handloom.store.clips.commit import done_ids
from handloom.store.clips.copied_values import store_digests
from handloom.store.clips.known_clips import Addition, FieldChange, field_changes
from handloom.store.clips.removal import remove_clips, remove_rows

NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Effects:
    """What changes. Numbers: see `handloom.pipelines.ingest.human.IngestSummary`. changes: values of listed clips.

    stale: clips of changed videos, whose rows are removed. outdated: {clip id: its fields `view`, `camera`, `hand` that
    its row was made with other values of}. examples: by name of a number, the first few ids that it counts.
    """

    added: int = 0
    changed: int = 0
    already_there: int = 0
    num_clips: int = 0
    removed: int = 0
    removed_rows: int = 0
    removed_rejects: int = 0
    changed_videos: int = 0
    dropped: int = 0
    redone: int = 0
    rows_reworded: int = 0
    stages_again: dict[str, int] = field(default_factory=dict)
    remade: int = 0
    changes: tuple[FieldChange, ...] = ()
    outdated: dict[str, frozenset[str]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()

    @property
    def fields(self) -> dict[str, int]:
        """How many listed clips get another value, by field."""
        return dict(Counter(change.field for change in self.changes).most_common())

    @property
    def outdated_fields(self) -> dict[str, int]:
        """How many rows were made with another value, by field."""
        return dict(Counter(name for names in self.outdated.values() for name in sorted(names)).most_common())

    def shown(self) -> Iterator[FieldChange]:
        """The first few changes of each field."""
        seen: Counter[str] = Counter()
        for change in self.changes:
            seen[change.field] += 1
            if seen[change.field] <= NUM_EXAMPLES:
                yield change


def apply(db: Database, clips: Iterable[Clip], gone: Collection[str], *, whole_videos: bool, remake: bool) -> Effects:
    """Add clips to the list, then remove the clips `gone`, then bring the rows up to date.

    A kill in between loses nothing: both cuts are listed, or rows have old words; the same ingest goes on, and the next
    run brings the words. remake: remove outdated rows, for the next run to make again.

    Raises StoreError.
    """
    writer = ClipListWriter(db)
    plan = writer.plan(clips)
    changes = tuple(field_changes(db, plan.changed))
    examples = _examples(plan, sorted(set(writer.listed) & set(gone)), whole_videos)
    done = writer.add(plan.given.values(), whole_videos=whole_videos)
    removed = remove_clips(db, gone)
    rows = bring_up_to_date(db, plan.given)
    remade = remove_rows(db, rows.outdated).rows if remake else 0
    return replace(
        rows,
        added=done.added,
        changed=done.changed,
        already_there=done.already_there,
        num_clips=db.count("clip_list"),
        removed=removed.listed,
        removed_rows=removed.rows + remade,
        removed_rejects=removed.rejects,
        changed_videos=done.changed_videos,
        dropped=done.dropped,
        redone=done.redone,
        remade=remade,
        changes=changes,
        examples=examples | rows.examples,
        stale=frozenset(plan.stale),
    )


def bring_up_to_date(db: Database, clip_ids: Collection[str]) -> Effects:
    """Write the listed words of these clips into their rows, and find rows that are outdated. Raises StoreError."""
    store_digests(db)
    done = bring_words(db, clip_ids)
    outdated = changed_inputs(db, clip_ids)
    return Effects(
        rows_reworded=done.num_rows,
        stages_again=done.stages_again,
        outdated=outdated,
        examples={"outdated": list(outdated)[:NUM_EXAMPLES]},
    )


def foresee(
    db: Database,
    clips: Iterable[Clip],
    gone: Collection[str] = (),
    *,
    whole_videos: bool = False,
    remake: bool = False,
    also: Collection[str] = (),
) -> Effects:
    """What `apply` would do. Writes nothing.

    also: ids of clips that stay in the list as they are, and whose rows count, too.

    Raises StoreError if the database cannot be read.
    """
    writer = ClipListWriter(db)
    plan = writer.plan(clips)
    listed, gone = set(writer.listed), set(gone)
    rows, rejects = done_ids(db), _rejected(db)
    stale, dropped = set(plan.stale), set(plan.others if whole_videos else ())
    removed = (gone & listed) - dropped
    now = pa.Table.from_arrays(*_as_listed(clip for i, clip in plan.given.items() if i not in stale))
    behind = words_behind(db, listed=now)
    reworded, stages = behind.clip_ids, behind.stages
    outdated = changed_inputs(db, listed=now)
    if others := set(also).difference(plan.given, stale):
        behind = words_behind(db, others)
        reworded, stages = [*reworded, *behind.clip_ids], stages + behind.stages
        outdated |= changed_inputs(db, others)
    remade = len(outdated) if remake else 0
    return Effects(
        added=len(plan.new),
        changed=len(plan.changed),
        already_there=plan.num_same,
        num_clips=len(listed) + len(plan.new) - len(removed) - len(dropped),
        removed=len(removed),
        removed_rows=len((gone & rows) - stale) + remade,
        removed_rejects=len((gone & rejects) - stale),
        changed_videos=len(plan.renewed),
        dropped=len(dropped),
        redone=len(stale & rows) + len(stale & rejects),
        rows_reworded=len(reworded),
        stages_again=count_stages(stages),
        remade=remade,
        changes=tuple(field_changes(db, plan.changed)),
        outdated=outdated,
        examples=_examples(plan, sorted(removed), whole_videos)
        | {"rows_reworded": reworded[:NUM_EXAMPLES], "outdated": list(outdated)[:NUM_EXAMPLES]},
        stale=frozenset(stale),
    )


def outdated_rows(db: Database, done: Effects) -> str:
    """A sentence about the outdated rows, and what to do."""
    made = f"{plural(len(done.outdated), 'row was', 'rows were')} made with another {fields_text(done.outdated_fields)}"
    again = f"`handloom run --db {db.uri} --recompute` computes what depends on it again"
    return f"{made} than the list has now, for example {next(iter(done.outdated))}: {again}"


def _examples(plan: Addition, removed: Collection[str], whole_videos: bool) -> dict[str, list[str]]:
    found: dict[str, Iterable[str]] = {
        "added": (clip.clip_id for clip in plan.new[:NUM_EXAMPLES]),
        "changed": (clip.clip_id for clip in plan.changed[:NUM_EXAMPLES]),
        "changed_videos": (f"{dataset}:{video}" for dataset, video in list(plan.renewed)[:NUM_EXAMPLES]),
        "dropped": plan.others[:NUM_EXAMPLES] if whole_videos else (),
        "removed": list(removed)[:NUM_EXAMPLES],
    }
    return {name: list(ids) for name, ids in found.items()}


def _as_listed(clips: Iterable[Clip]) -> tuple[list[pa.Array], list[str]]:
    """The values that rows copy from these clips, as the list would hold them: columns and their names."""
    names = ["clip_id", *WORDS, *COLUMNS.values()]
    clips = list(clips)
    return [pa.array([getattr(clip, name) for clip in clips], CLIP_LIST.field(name).type) for name in names], names


def _rejected(db: Database) -> set[str]:
    rejects = db.read("rejects", ["clip_id"])
    return set(rejects.column("clip_id").to_pylist()) if rejects.num_rows else set()
