"""An unexpected exception on one clip costs that clip: it becomes a reject that holds the trace."""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TypeVar

import cv2
import ray

from handloom.errors import ClipError, ConfigError, StoreError
from handloom.schemas.clip import Clip

F, T = TypeVar("F"), TypeVar("T")

BUG, NO_MEMORY = "bug", "out_of_memory"
ENDS = (SystemExit, KeyboardInterrupt, GeneratorExit)
MAX_PLACES, MAX_WORDS, MAX_CAUSES = 16, 500, 3
HINT = "report the trace with the clip; once it is mended, run with --retry-rejects --reason bug"
MEMORY_HINT = "use fewer actors on the node or cut the clips shorter, then run with --retry-rejects"


@contextmanager
def bugs_as_rejects(clip_id: str, stage: Callable[[], str]) -> Iterator[None]:
    """Raise every exception that nobody expected as ClipError of reason `bug`, with its trace.

    Expected are ClipError, and what concerns more than one clip: ConfigError, StoreError, Ray's own, and what ends a
    process. A panic in a library that is written in Rust (Lance) is none of them, and no Exception either. A lack of
    memory need not be the clip's doing: it gets a reason of its own, which is tried again.
    """
    try:
        yield
    except (ClipError, ConfigError, StoreError, ray.exceptions.RayError, *ENDS):
        raise
    except BaseException as error:
        lacks = _is_lack_of_memory(error)
        hint = MEMORY_HINT if lacks else HINT
        raise ClipError(clip_id, stage(), "out_of_memory" if lacks else "bug", trace_of(error), hint) from error


def for_each(
    clips: Sequence[Clip],
    stream: Callable[[Sequence[Clip]], Iterable[F | ClipError]],
    work: Callable[[F], T],
    *,
    begin: Callable[[Clip], bool],
    stage: Callable[[], str],
) -> Iterator[tuple[Clip, T | ClipError]]:
    """Each clip with what `work` makes of its frames, or with the ClipError that it met.

    `stream` gives the clips' frames in order. After a bug it is begun again behind the clip: neither it nor what it
    still holds can be trusted. It is closed before the bug is told: it decodes ahead in a thread of its own, beside
    whoever then ends the decoder. `begin(clip)` is called before a clip's frames are waited for; False ends the work.
    """
    rest = deque(clips)
    while rest:
        with contextlib.closing(iter(stream(tuple(rest)))) as items:
            while rest:
                if not begin(rest[0]):
                    return
                clip = rest.popleft()
                try:
                    with bugs_as_rejects(clip.clip_id, stage):
                        found: T | ClipError = work(_frames(next(items)))
                except ClipError as error:
                    error.__cause__ = error.__context__ = None  # their frames hold the clip's pictures
                    found = error.with_traceback(None)
                if isinstance(found, ClipError) and found.reason in (BUG, NO_MEMORY):
                    break
                yield clip, found
            else:
                return
        yield clip, found


def trace_of(error: BaseException) -> str:
    """The exception and where it came from, innermost first, in at most a few dozen lines.

    TypeError: 'NoneType' object is not subscriptable
      at handloom/models/tracks/lucas_kanade.py:33 in track
      at handloom/workers/extraction/stages.py:103 in understand
    """
    parts = []
    for _ in range(MAX_CAUSES):
        parts += ["from " * bool(parts) + _words(error), *_places(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if error is None:
            break
    return "\n".join(parts)


def place_of(trace: str) -> str:
    """Of a trace, what tells one bug from another: the exception's class and its innermost place."""
    first, _, rest = trace.partition("\n")
    place = next((line for line in rest.splitlines() if line.startswith("  at ")), "")
    return first.partition(":")[0] + place


def _frames(item: F | ClipError) -> F:
    if isinstance(item, ClipError):
        raise item
    return item


def _is_lack_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem)


def _words(error: BaseException) -> str:
    words = "".join(traceback.TracebackException.from_exception(error, limit=0).format_exception_only()).strip()
    return words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + " ..."


def _places(error: BaseException) -> list[str]:
    found = [f"  at {_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in _stack(error)]
    left_out = len(found) - MAX_PLACES
    return found[:MAX_PLACES] + ([f"  ... {left_out} more"] if left_out > 0 else [])


def _stack(error: BaseException) -> Iterator[traceback.FrameSummary]:
    return reversed(traceback.extract_tb(error.__traceback__))


def _short(filename: str) -> str:
    """`handloom/models/tracks/lucas_kanade.py`: without the folders of this machine."""
    parts = PurePath(filename).parts
    for folder in ("site-packages", "src"):
        if folder in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(folder) :])
    return "/".join(parts[-2:])
