"""CALVIN's own files: which frames a window spans, and what was said of it. Nothing in them is executed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from handloom.errors import ConfigError
from handloom.ingest.arrays_only import READ_ERRORS, ForbiddenContent, read_npy
from handloom.ingest.files import Options, read_bytes
from handloom.ingest.names import composed

_HINT = "it is made by CALVIN's own annotation script; download it again"


@dataclass(frozen=True)
class Span:
    """Frames [first, end) of a split, and what was said of them: text and task id, None for a whole recording."""

    first: int
    end: int
    text: str | None = None
    task: str | None = None


def read_recordings(folder: str, options: Options = None) -> list[Span]:
    """`ep_start_end_ids.npy`: (n, 2) first and last frame of each recording.

    CALVIN's own loader never reads the last frame; neither does this. Raises ConfigError.
    """
    where = f"{folder}/ep_start_end_ids.npy"
    array = _read(where, "CALVIN's list of recordings", options)
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"{where} holds {type(array).__name__}, expected whole numbers (n, 2)", _HINT)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ConfigError(f"{where} holds {array.dtype} of shape {array.shape}, expected whole numbers (n, 2)", _HINT)
    return [_span(where, n, row) for n, row in enumerate(array.tolist())]


def read_language(where: str, options: Options = None) -> list[Span]:
    """`auto_lang_ann.npy`: the windows that were described. Half-open: the annotator wrote `(first, first + length)`.

    Raises ConfigError: it cannot be read, has another form, or asks for more than arrays and plain values.
    """
    found = _read(where, "CALVIN's language file", options)
    try:
        texts, tasks, spans = found["language"]["ann"], found["language"]["task"], found["info"]["indx"]
        num = {len(texts), len(tasks), len(spans)}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ConfigError(f"{where} lacks language/ann, language/task or info/indx ({error!r})", _HINT) from error
    if len(num) > 1:
        counted = f"{len(texts)} texts, {len(tasks)} tasks and {len(spans)} windows"
        raise ConfigError(f"{where} has {counted}, expected as many of each", _HINT)
    rows = enumerate(zip(spans, texts, tasks, strict=True))
    return [_span(where, n, span, _word(text), _word(task)) for n, (span, text, task) in rows]


def _read(where: str, what: str, options: Options) -> Any:
    """A .npy file's content. Raises ConfigError."""
    try:
        return read_npy(read_bytes(where, what, options))
    except ForbiddenContent as error:
        raise ConfigError(
            f"{where} is not read: {error}", "it may hold code; get the file from CALVIN's site"
        ) from error
    except READ_ERRORS as error:
        raise ConfigError(f"{where} is no whole .npy file: {error}", _HINT) from error


def _span(where: str, number: int, pair: Any, text: str | None = None, task: str | None = None) -> Span:
    try:
        first, end = (int(value) for value in pair)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: window {number} is {pair!r}, expected first and last frame", _HINT) from error
    return Span(first, end, text, task)


def _word(value: Any) -> str | None:
    """The text; annotations have been seen as `"text"` and as `["text"]`."""
    if isinstance(value, list | tuple | np.ndarray) and len(value):
        value = value[0]
    return composed(str(value).strip()) or None if isinstance(value, str) else None
