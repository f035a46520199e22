"""An unexpected exception on a clip costs that clip only: it becomes a reject with the trace."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import ray

from handloom.errors import ClipError, ConfigError, StoreError
from handloom.schemas.clip import Clip
from handloom.stages.traces import is_lack_of_memory, trace_of

F = TypeVar("F")
T = TypeVar("T")

BUG, NO_MEMORY = "bug", "out_of_memory"
ENDS = (SystemExit, KeyboardInterrupt, GeneratorExit)
HINT = "report the trace with the clip; once it is fixed, run with --retry-rejects --reason bug"
MEMORY_HINT = "use fewer actors on the node or cut the clips shorter, then run with --retry-rejects"


@contextmanager
def bugs_as_rejects(clip_id: str, stage: Callable[[], str]) -> Iterator[None]:
    """Raise every unexpected exception as ClipError of reason `bug`, with its trace.

    Expected are ClipError, and errors that concern more than one clip: ConfigError, StoreError, Ray's, and those that
    end a process. A panic in a Rust library (Lance) is unexpected, and is a BaseException only. A lack of memory may
    have other causes than the clip: it has its own reason, `out_of_memory`, which is tried again.
    """
    try:
        yield
    except (ClipError, ConfigError, StoreError, ray.exceptions.RayError, *ENDS):
        raise
    except BaseException as error:
        no_memory = is_lack_of_memory(error)
        hint = MEMORY_HINT if no_memory else HINT
        raise ClipError(clip_id, stage(), NO_MEMORY if no_memory else BUG, trace_of(error), hint) from error


def for_each(
    clips: Sequence[Clip],
    stream: Callable[[Sequence[Clip]], Generator[F | ClipError, None, None]],
    work: Callable[[F], T],
    *,
    begin: Callable[[Clip], bool],
    stage: Callable[[], str],
) -> Generator[tuple[Clip, T | ClipError], None, None]:
    """Yield each clip with the result of `work` on its frames, or with the ClipError that it met.

    `stream` yields the clips' frames in order. After a bug it is started again after that clip: it may be in any state.
    It is closed before the bug is yielded: its thread decodes ahead, and the caller may close the decoder.
    `begin(clip)` is called before the wait for a clip's frames; False ends the work.
    """
    rest = deque(clips)
    while rest:
        with contextlib.closing(stream(tuple(rest))) as items:
            while rest:
                if not begin(rest[0]):
                    return
                clip = rest.popleft()
                try:
                    with bugs_as_rejects(clip.clip_id, stage):
                        found: T | ClipError = work(_frames(next(items)))
                except ClipError as error:
                    error.__cause__ = error.__context__ = None  # their frames hold the clip's images
                    found = error.with_traceback(None)
                if isinstance(found, ClipError) and found.reason in (BUG, NO_MEMORY):
                    break
                yield clip, found
            else:
                return
        yield clip, found


def _frames(item: F | ClipError) -> F:
    if isinstance(item, ClipError):
        raise item
    return item
