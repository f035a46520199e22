"""`handloom status --clips`: every clip of the list, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass

from handloom.api import Database
from handloom.store.clips.commit import done_ids


@dataclass(frozen=True)
class ClipState:
    """state: `row`, `rejected` (then with its reason) or `pending`."""

    clip_id: str
    state: str
    reason: str | None
    start_s: float
    end_s: float | None
    narration: str | None
    verb: str | None
    noun: str | None
    video_uri: str


def clip_states(db: Database) -> list[ClipState]:
    """The clips in the order of the list. Raises StoreError where the database cannot be read."""
    done = done_ids(db)
    rejects = db.rejects()
    lost: dict[str, str] = {}
    if rejects.num_rows:
        pairs = (rejects.column(name).to_pylist() for name in ("clip_id", "reason"))
        lost = dict(zip(*pairs, strict=True))
    columns = ("clip_id", "start_s", "end_s", "narration", "verb", "noun", "video_uri")
    listed = db.read("clip_list", columns)
    return [
        ClipState(clip_id, _state(clip_id, done, lost), lost.get(clip_id), *rest)
        for clip_id, *rest in zip(*(listed.column(name).to_pylist() for name in columns), strict=True)
    ]


def _state(clip_id: str, done: set[str], lost: dict[str, str]) -> str:
    return "row" if clip_id in done else "rejected" if clip_id in lost else "pending"
