"""MediaPipe's palm and hand models in its wheel: their files, operators and weights."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError, with_extra

PALM_PX, HAND_PX = 192, 224  # sides of the square images that the two models take
# By `model_complexity`: 0 the light, 1 the full.
PALM_FILES = ("palm_detection/palm_detection_lite.tflite", "palm_detection/palm_detection_full.tflite")
HAND_FILES = ("hand_landmark/hand_landmark_lite.tflite", "hand_landmark/hand_landmark_full.tflite")
_ACTIVATIONS = {0: "", 3: "relu6"}


@dataclass(frozen=True)
class Operator:
    """One step of a network. inputs, outputs: tensor numbers, -1 for an input that is left out."""

    kind: str  # `CONV_2D`, `PRELU`, ...: TensorFlow Lite's names
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network in order of execution. constants: weights by tensor number, float32 (from float16) or int32."""

    operators: tuple[Operator, ...]
    constants: dict[int, NDArray]
    input: int
    outputs: tuple[int, ...]


def model_path(file: str) -> Path:
    """The path of a model in MediaPipe's wheel. The package is not imported, which would take seconds.

    Raises ConfigError if it is not installed, or is newer than 0.10.21, the last release with these models.
    """
    found = importlib.util.find_spec("mediapipe")
    if found is None or not found.submodule_search_locations:
        problem = "mediapipe is not installed; the hand models are in its wheel"
        raise ConfigError(problem, with_extra("extract"))
    path = Path(found.submodule_search_locations[0]) / "modules" / file
    if not path.is_file():
        raise ConfigError(f"{path} is missing: this mediapipe carries no models", "pip install mediapipe==0.10.21")
    return path


def read_network(path: Path) -> Network:
    """Operators and weights of a TensorFlow Lite file with one subgraph; float16 weights become float32.

    Source: the TensorFlow Lite schema, version 3 (tensorflow/lite/schema/schema.fbs).
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    graph = model.subgraphs[0]
    constants: dict[int, NDArray] = {}
    dtypes = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.FLOAT16: "<f2", schema.TensorType.INT32: "<i4"}
    for number, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data) and tensor.type in dtypes:
            values = np.frombuffer(bytes(data), dtypes[tensor.type]).reshape(tensor.shape)
            constants[number] = values if values.dtype == np.int32 else values.astype(np.float32)
    operators = []
    for each in graph.operators:
        code = model.operatorCodes[each.opcodeIndex]
        kind = _kinds()[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind == "DEQUANTIZE" and each.inputs[0] in constants:
            constants[int(each.outputs[0])] = constants[int(each.inputs[0])]
            continue
        operators.append(Operator(kind, _numbers(each.inputs), _numbers(each.outputs), _options(each.builtinOptions)))
    return Network(tuple(operators), constants, int(graph.inputs[0]), _numbers(graph.outputs))


def _numbers(tensors: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in tensors)


@lru_cache
def _kinds() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}


def _options(given: Any) -> dict[str, Any]:
    """Those that the operator has of `{"padding": "same", "stride": (2, 2), "activation": "relu6", "axis": 1, ...}`."""
    named = vars(given) if given is not None else {}
    options: dict[str, Any] = {}
    if "padding" in named:
        options["padding"] = "valid" if named["padding"] else "same"
    if "strideH" in named:
        options["stride"] = (named["strideH"], named["strideW"])
    if "fusedActivationFunction" in named:
        options["activation"] = _ACTIVATIONS[named["fusedActivationFunction"]]
    if "filterHeight" in named:
        options["window"] = (named["filterHeight"], named["filterWidth"])
    if "axis" in named:
        options["axis"] = named["axis"]
    return options
