"""A list of layers as a network that LiteRT runs: a TensorFlow Lite model made in memory, one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.lite0.layers import Layer
from handloom.models.quiet import quiet_stderr


class ImageNetwork:
    """(side, side, 3) float32 images to the mean over the last layer's image. On one thread, one image at a time: the
    result depends on nothing but the image."""

    def __init__(self, layers: Sequence[Layer], side_px: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._model = tflite_model(layers, side_px)  # kept: the interpreter reads from it
        with quiet_stderr():
            self._net = Interpreter(model_content=self._model, num_threads=1)
            self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._mean, self._map = (one["index"] for one in self._net.get_output_details())

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.with_map(image)[0]

    def with_map(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mean (channels,), and what it is of: the last layer's image (height, width, channels)."""
        self._net.set_tensor(self._input, image[None])
        self._net.invoke()
        return self._net.get_tensor(self._mean)[0], self._net.get_tensor(self._map)[0]


def tflite_model(layers: Sequence[Layer], side_px: int) -> bytes:
    """The layers as a TensorFlow Lite file. Its outputs: the mean over height and width, and what it is of.

    Source: the TensorFlow Lite schema, version 3 (tensorflow/lite/schema/schema.fbs).
    """
    graph = _Graph()
    image = last = graph.tensor((1, side_px, side_px, 3))
    outputs: list[int] = []
    for layer in layers:
        last = graph.convolved(layer, last)
        if layer.adds is not None:
            last = graph.operator("ADD", "AddOptions", [last, outputs[layer.adds]], graph.shape(last))
        outputs.append(last)
    axes = graph.constant(np.array([1, 2], np.int32))
    mean = graph.operator("MEAN", "ReducerOptions", [last, axes], [1, graph.shape(last)[3]], keepDims=False)
    return graph.file(image, [mean, last])


class _Graph:
    """The tensors and operators of a model, each by its number."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._buffers = [schema.BufferT()]  # the first one is empty: of tensors that are computed
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._kinds: list[int] = []

    def shape(self, tensor: int) -> list[int]:
        return self._tensors[tensor].shape

    def tensor(self, shape: Sequence[int], kind: str = "FLOAT32", buffer: int = 0) -> int:
        number = len(self._tensors)
        kind = getattr(self._schema.TensorType, kind)
        self._tensors.append(self._made("TensorT", shape=list(shape), type=kind, buffer=buffer, name=f"tensor{number}"))
        return number

    def constant(self, values: NDArray[Any]) -> int:
        data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._buffers.append(self._made("BufferT", data=data))
        return self.tensor(values.shape, values.dtype.name.upper(), len(self._buffers) - 1)

    def operator(self, kind: str, options: str, inputs: list[int], shape: Sequence[int], **given: Any) -> int:
        """Add an operator; the number of its output, a tensor of this shape."""
        code = getattr(self._schema.BuiltinOperator, kind)
        if code not in self._kinds:
            self._kinds.append(code)
        output = self.tensor(shape)
        fields = {"opcodeIndex": self._kinds.index(code), "inputs": inputs, "outputs": [output]}
        fields["builtinOptionsType"] = getattr(self._schema.BuiltinOptions, options)
        self._operators.append(self._made("OperatorT", builtinOptions=self._made(f"{options}T", **given), **fields))
        return output

    def convolved(self, layer: Layer, last: int) -> int:
        num, height, width, channels = self.shape(last)
        channels = channels if layer.is_depthwise else layer.weights.shape[0]
        shape = [num, -(-height // layer.stride), -(-width // layer.stride), channels]
        functions = self._schema.ActivationFunctionType
        options = {"strideW": layer.stride, "strideH": layer.stride, "padding": self._schema.Padding.SAME}
        options["fusedActivationFunction"] = functions.RELU6 if layer.relu6 else functions.NONE
        inputs = [last, self.constant(layer.weights), self.constant(layer.bias)]
        if layer.is_depthwise:
            options["depthMultiplier"] = 1
            return self.operator("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", inputs, shape, **options)
        return self.operator("CONV_2D", "Conv2DOptions", inputs, shape, **options)

    def file(self, image: int, outputs: list[int]) -> bytes:
        import flatbuffers  # ai-edge-litert requires it

        graph = {"tensors": self._tensors, "inputs": [image], "outputs": outputs, "operators": self._operators}
        codes = [self._made("OperatorCodeT", builtinCode=kind, deprecatedBuiltinCode=kind) for kind in self._kinds]
        parts = {"version": 3, "operatorCodes": codes, "buffers": self._buffers, "description": "handloom"}
        model = self._made("ModelT", subgraphs=[self._made("SubGraphT", name="image", **graph)], **parts)
        builder = flatbuffers.Builder(sum(len(b.data) for b in self._buffers if b.data is not None) + (1 << 18))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _made(self, kind: str, **fields: Any) -> Any:
        """An object of the schema. Its constructors take arguments in some versions of LiteRT, not in all."""
        made = getattr(self._schema, kind)()
        for name, value in fields.items():
            setattr(made, name, value)
        return made
