"""Why a clip has no row, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from handloom.errors import ClipError


@dataclass(frozen=True)
class Reject:
    """One clip that could not be processed: a row of `rejects` without its run key and time.

    stage: where it failed. reason: a word of `handloom.schemas.reasons.REASONS`. attempts: how often it was tried in
    this run. host: the machine on which it failed last; None: unknown. node_id: its name for Ray, while the run lasts.
    """

    clip_id: str
    stage: str
    reason: str
    detail: str
    attempts: int = 1
    host: str | None = None
    node_id: str | None = None

    @staticmethod
    def from_error(error: ClipError, attempts: int = 1) -> Reject:
        """Characters of the error's words that UTF-8 has not (names of files of other encodings) become `\\udce9`."""
        detail = f"{error.problem}\nhint: {error.hint}" if error.hint else error.problem
        detail = detail.encode(errors="backslashreplace").decode()
        return Reject(error.clip_id, error.stage, error.reason, detail, attempts)
