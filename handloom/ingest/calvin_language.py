"""CALVIN's own files: which frames a window spans, and what was said of it. Nothing in them is executed.

`auto_lang_ann.npy` is a pickled dictionary. It is read by an unpickler that knows numpy's arrays and nothing else, so
that a file from elsewhere cannot run code.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from handloom.errors import ConfigError
from handloom.ingest.files import Options, read_bytes

_ALLOWED = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_HINT = "it is made by CALVIN's own annotation script; download it again"


@dataclass(frozen=True)
class Span:
    """Frames [first, end) of a split, and what was said of them: text and task id, None for a whole recording."""

    first: int
    end: int
    text: str | None = None
    task: str | None = None


class _ArraysOnly(pickle.Unpickler):
    """Plain containers, numbers, strings and numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, only arrays and plain values are read")
        return super().find_class(module.replace("numpy._core", "numpy.core"), name)


def read_recordings(folder: str, options: Options = None) -> list[Span]:
    """`ep_start_end_ids.npy`: (n, 2) first and last frame of each recording.

    CALVIN's own loader never reads the last frame; neither does this. Raises ConfigError.
    """
    where = f"{folder}/ep_start_end_ids.npy"
    array = _read_array(where, read_bytes(where, "CALVIN's list of recordings", options))
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ConfigError(f"{where} holds {array.dtype} of shape {array.shape}, expected whole numbers (n, 2)", _HINT)
    return [_span(where, n, row) for n, row in enumerate(array.tolist())]


def read_language(where: str, options: Options = None) -> list[Span]:
    """`auto_lang_ann.npy`: the windows that were described. Half-open: the annotator wrote `(first, first + length)`.

    Raises ConfigError: it cannot be read, has another form, or asks for more than arrays and plain values.
    """
    content = _read_array(where, read_bytes(where, "CALVIN's language file", options))
    if content.dtype != object or content.shape != ():
        raise ConfigError(f"{where} holds {content.dtype} of shape {content.shape}, expected one dictionary", _HINT)
    found = content.item()
    try:
        texts, tasks, spans = found["language"]["ann"], found["language"]["task"], found["info"]["indx"]
        num = {len(texts), len(tasks), len(spans)}
    except (KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"{where} lacks language/ann, language/task or info/indx ({error!r})", _HINT) from error
    if len(num) > 1:
        counted = f"{len(texts)} texts, {len(tasks)} tasks and {len(spans)} windows"
        raise ConfigError(f"{where} has {counted}, expected as many of each", _HINT)
    rows = enumerate(zip(spans, texts, tasks, strict=True))
    return [_span(where, n, span, _word(text), _word(task)) for n, (span, text, task) in rows]


def _read_array(where: str, data: bytes) -> np.ndarray:
    """A .npy file; Python objects in it through `_ArraysOnly`. Raises ConfigError."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in _READ_HEADER:
            raise ValueError(f"npy version {version}")
        shape, _, dtype = _READ_HEADER[version](file)
        if not dtype.hasobject:
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        array = _ArraysOnly(file).load()
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{where} is not read: {error}", "it may hold code; get the file from CALVIN's site"
        ) from error
    except (ValueError, EOFError, TypeError, AttributeError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} is no whole .npy file: {error}", _HINT) from error
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise ConfigError(f"{where} holds {type(array).__name__}, announced was an array of shape {shape}", _HINT)
    return array


def _span(where: str, number: int, pair: Any, text: str | None = None, task: str | None = None) -> Span:
    try:
        first, end = (int(value) for value in pair)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: window {number} is {pair!r}, expected first and last frame", _HINT) from error
    return Span(first, end, text, task)


def _word(value: Any) -> str | None:
    """The text; annotations have been seen as `"text"` and as `["text"]`."""
    if isinstance(value, list | tuple | np.ndarray) and len(value):
        value = value[0]
    return str(value).strip() or None if isinstance(value, str) else None
