"""The errors that handloom raises. Each says what is wrong, with the value, and what to do next.

Every field goes to ``super().__init__``: Ray and pickle rebuild an exception from ``.args``.
"""


def with_extra(extra: str) -> str:
    """For hints: the command that installs an extra. Handloom is usually installed from a clone of its repository."""
    return f"pip install '.[{extra}]' in the clone of handloom; where it was installed otherwise, 'handloom[{extra}]'"


class HandloomError(Exception):
    """Base of every error handloom raises on purpose: `problem` says what is wrong, `hint` what to do next."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\nhint: {self.hint}" if self.hint else self.problem


class ConfigError(HandloomError):
    """A setting, an option or the format of an input file is wrong. Exit code 2."""


class StoreError(HandloomError):
    """The database cannot be read or written. Exit code 1."""


class CommitConflict(StoreError):
    """A table was replaced, or another writer added the same rows, while this process wrote to it."""


class ShapeError(HandloomError):
    """Arrays whose shapes must agree do not: a mistake of the caller."""


class ClipError(HandloomError):
    """One clip failed. The run goes on; the clip becomes a row of `rejects`.

    Args:
        clip_id: the clip, `{dataset}:{video_id}:{start_ms}-{end_ms}`.
        stage: where it failed: `fetch`, `decode`, `hands`, `tracks`, ...
        reason: a key of `handloom.schemas.tables.reject.REASONS`.
        problem: what is wrong, with the value and what was expected.
        hint: what to do next.
    """

    def __init__(self, clip_id: str, stage: str, reason: str, problem: str, hint: str = "") -> None:
        Exception.__init__(self, clip_id, stage, reason, problem, hint)
        self.clip_id = clip_id
        self.stage = stage
        self.reason = reason
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.stage}: {self.problem} (clip {self.clip_id})"
        return f"{text}\nhint: {self.hint}" if self.hint else text
