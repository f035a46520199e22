"""Values of stages as bytes and back, at full precision: numbers, text, arrays and the dataclasses of handloom."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ShapeError

FORMAT = b"hs1\n"
LEVEL = 1  # of zlib: NaN of hands that are not seen compress well, other numbers hardly at all


def pack(value: Any, classes: Sequence[type]) -> bytes:
    """A value as bytes. It may hold None, bool, int, float, str, arrays, tuples, dicts with text keys, and instances of
    the dataclasses in `classes`. Equal values give equal bytes. Raises ShapeError for anything else."""
    arrays: list[NDArray[Any]] = []
    names = {cls: cls.__name__ for cls in classes}
    tree = _tree(value, names, arrays)
    head = json.dumps({"tree": tree, "arrays": [[a.dtype.str, list(a.shape)] for a in arrays]}, separators=(",", ":"))
    body = b"".join([len(head.encode()).to_bytes(4, "little"), head.encode(), *(a.tobytes() for a in arrays)])
    return FORMAT + zlib.compress(body, LEVEL)


def unpack(data: bytes, classes: Sequence[type]) -> Any:
    """The value that `pack` got; arrays can be written to. Raises ShapeError for bytes of another format."""
    if not data.startswith(FORMAT):
        raise ShapeError(f"a stage's state begins with {data[:4]!r}, expected {FORMAT!r}")
    body = zlib.decompress(data[len(FORMAT) :])
    at = 4 + int.from_bytes(body[:4], "little")
    head = json.loads(body[4:at])
    arrays = []
    for kind, shape in head["arrays"]:
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(body[at : at + size], dtype).reshape(shape).copy())
        at += size
    return _value(head["tree"], {cls.__name__: cls for cls in classes}, arrays)


def _tree(value: Any, names: Mapping[type, str], arrays: list[NDArray[Any]]) -> Any:
    """JSON: a list `[kind, ...]` for everything but None, bool and text. Floats as hexadecimal text, which is exact."""
    if isinstance(value, np.ndarray):
        arrays.append(np.ascontiguousarray(value))
        return ["array", len(arrays) - 1]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return ["int", int(value)]
    if isinstance(value, (float, np.floating)):
        return ["float", float(value).hex()]
    if isinstance(value, (tuple, list)):
        return ["tuple", [_tree(item, names, arrays) for item in value]]
    if isinstance(value, Mapping):
        return ["dict", {key: _tree(item, names, arrays) for key, item in value.items()}]
    if is_dataclass(value) and type(value) in names:
        inner = {field.name: _tree(getattr(value, field.name), names, arrays) for field in fields(value)}
        return ["object", names[type(value)], inner]
    raise ShapeError(f"a {type(value).__name__} cannot be part of a stage's state")


def _value(tree: Any, classes: Mapping[str, type], arrays: Sequence[NDArray[Any]]) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, content = tree[0], tree[1]
    if kind == "array":
        return arrays[content]
    if kind == "int":
        return content
    if kind == "float":
        return float.fromhex(content)
    if kind == "tuple":
        return tuple(_value(item, classes, arrays) for item in content)
    if kind == "dict":
        return {key: _value(item, classes, arrays) for key, item in content.items()}
    known = {field.name for field in fields(classes[content])}
    inner = {name: _value(item, classes, arrays) for name, item in tree[2].items() if name in known}
    return classes[content](**inner)
