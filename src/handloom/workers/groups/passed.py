"""A shard between two groups of stages, and its clips while a worker tries them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from handloom.errors import ClipError
from handloom.schemas.clip import Clip
from handloom.stages.pools.travel import Frames, UnderWay
from handloom.workers.groups.storing import NewRow
from handloom.workers.shard import ShardResult
from handloom.workers.update_rows import NewColumns

Stream = Callable[[Sequence[Clip]], Generator[Frames | ClipError, None, None]]
"""The frames of clips, in order."""
EMPTY = ShardResult(None, (), 0)


@dataclass(frozen=True)
class PassedShard:
    """A shard between two groups. clips: those that go on. result: what is known of the others, and of the shard."""

    clips: tuple[UnderWay, ...]
    result: ShardResult = EMPTY

    @property
    def clip_ids(self) -> list[str]:
        return [one.clip.clip_id for one in self.clips]


@dataclass
class Tried:
    """A clip at work: as it came, and how far it is now (None: not begun).

    targets: of its shard. made: after the last stage of the last group. attempts: until it failed with `error`.
    stopped: it comes again, in another shard.
    """

    given: UnderWay
    targets: tuple[str, ...] = ()
    now: UnderWay | None = None
    made: NewRow | NewColumns | None = None
    error: ClipError | None = None
    attempts: int = 1
    stopped: bool = False

    @property
    def clip(self) -> Clip:
        return self.given.clip

    @property
    def begun(self) -> UnderWay:
        """How far it is now. Raises ValueError: it is not begun."""
        if self.now is None:
            raise ValueError(f"clip {self.clip.clip_id} is not begun")
        return self.now

    @property
    def goes_on(self) -> bool:
        return self.error is None and self.made is None and not self.stopped

    def fail(self, error: ClipError) -> None:
        error.__cause__ = error.__context__ = None  # their frames hold the clip's images
        self._forget()
        self.error = error.with_traceback(None)

    def stop(self) -> None:
        """The clip is given back."""
        self._forget()
        self.stopped = True

    def finish(self, made: NewRow | NewColumns) -> None:
        """All that is stored of the clip; the rest is forgotten."""
        self._forget()
        self.made = made

    def try_again(self) -> None:
        """From the beginning."""
        self.error, self.attempts = None, self.attempts + 1

    def begin(self) -> None:
        """From the beginning, on a copy: what was given stays as it is."""
        given = self.given
        self.now = replace(given, values=dict(given.values), cells=dict(given.cells), errors=dict(given.errors))

    def go_on_with(self, now: UnderWay) -> None:
        """Instead of all that is computed: a part of it."""
        self._forget()
        self.now = now

    def _forget(self) -> None:
        if self.now is not None:
            self.now.close()
        self.now = None
