"""`.npy` files and pickles from elsewhere: only arrays and plain values are read, and no code in them is executed.

numpy's own reader of pickled files calls whatever they name, and damaged files crash inside its C code (numpy 1.26: a
changed byte in the state of a dtype). Here the few names that pickled arrays use stand for classes of this module.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import tokenize
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

READ_ERRORS = (
    ValueError,  # UnicodeDecodeError among them
    EOFError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
    SyntaxError,
    RecursionError,
    AssertionError,
    struct.error,
    tokenize.TokenError,
)
"""What numpy and pickle raise for bytes that are damaged or no array."""
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ForbiddenContent(Exception):
    """A pickle names something that is neither an array nor a plain value."""


def read_npy(data: bytes) -> Any:
    """A numeric array; of a pickled array its content as lists, dictionaries, numbers, strings and numeric arrays.

    Raises ForbiddenContent, or one of `READ_ERRORS` for bytes that are no whole `.npy` file.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"npy version {version}")
    _, _, dtype = _READ_HEADER[version](file)
    if not dtype.hasobject:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    try:
        return plain(_Unpickler(file).load())
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error


def read_pickle(data: bytes, stand_ins: Mapping[tuple[str, str], Any]) -> Any:
    """The content of a pickle of Python 2 or 3. It may name arrays, and the keys of `stand_ins`: (module, name) of a
    class or function, with the replacement for it.

    Raises ForbiddenContent, or one of `READ_ERRORS` for bytes that are no whole pickle.
    """
    try:
        return plain(_Unpickler(io.BytesIO(data), stand_ins, encoding="latin1").load())
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error


def plain(value: Any) -> Any:
    """The value with arrays in place of stand-ins, also inside lists, tuples and dictionaries."""
    if isinstance(value, _Array):
        return plain(value.content())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


class _Dtype:
    """A dtype by its code (`i8`, `O`, `U5`) and byte order."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = str(code)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if isinstance(state, tuple) and state[1:2] == (">",) else "<"

    def numpy(self) -> np.dtype:
        if self.code[:1] not in "iufbUS" or not self.code[1:].isdigit() or len(self.code) > 6:
            raise ValueError(f"an array of type {self.code!r}")
        return np.dtype(f"{self.order}{self.code}")


class _Array:
    """An array's shape, type and data as they were pickled."""

    def __init__(self, *_: Any) -> None:
        self._state: tuple[Any, ...] = (1, (0,), _Dtype("f4"), False, b"")

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Dtype)):
            raise ValueError(f"an array with the state {str(state)[:80]}")
        self._state = state

    def content(self) -> Any:
        """A numpy array; of an object array its one value, or the list of its values."""
        _, shape, dtype, fortran, data = self._state
        if dtype.code.startswith("O"):
            if not isinstance(data, list) or (shape == () and len(data) != 1):
                raise ValueError(f"objects of shape {shape} in {type(data).__name__}")
            return data[0] if shape == () else data
        raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2's
        return np.frombuffer(raw, dtype.numpy()).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler written in Python: the C one reads freed memory in some damaged files."""

    def __init__(self, file: io.BytesIO, more: Mapping[tuple[str, str], Any] | None = None, **options: Any) -> None:
        super().__init__(file, **options)
        self._more = more or {}

    def find_class(self, module: str, name: str) -> Any:
        known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name)) or self._more.get((module, name))
        if known is None:
            raise ForbiddenContent(f"it names {module}.{name}, only arrays and plain values are read")
        return known

    read: Callable[[int], bytes]  # both set by `load`
    append: Callable[[object], None]

    def load_bytearray8(self) -> None:
        """Reads as much as the file holds. Python's own first allocates what the file claims: 30 s, then EOF."""
        (size,) = struct.unpack("<Q", self.read(8))
        data = self.read(min(size, sys.maxsize))
        if len(data) < size:
            raise EOFError(f"an array of {size} bytes, {len(data)} are there")
        self.append(bytearray(data))

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """A number or string in place of a numpy scalar."""
    if not isinstance(dtype, _Dtype):
        raise ValueError(f"a scalar of type {dtype!r}")
    return np.frombuffer(data, dtype.numpy())[0].item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, as pickles of protocol 2 write them."""
    if encoding != "latin1" or not isinstance(text, str):
        raise ForbiddenContent(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
