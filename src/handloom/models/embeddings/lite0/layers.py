"""EfficientNet-Lite0 as a list of layers: convolutions with their batch normalisation folded in.

Source: Tan and Le, EfficientNet (ICML 2019); the Lite variant (TensorFlow, 2020) has no squeeze-and-excitation, and
ReLU6 in place of swish. The weights were trained in TensorFlow: they need its `same` padding, its epsilon and its range
of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 224
DIM = 1280
_NORM_EPSILON = 1e-3
# stride of the first block of each group, and how many blocks it has; sizes are those of the weights
_GROUPS = ((1, 1), (2, 2), (2, 2), (2, 3), (1, 3), (2, 4), (1, 1))


@dataclass(frozen=True)
class Layer:
    """A convolution of the layer before it.

    weights: (out, k, k, in); of a depthwise one (1, k, k, channels). bias: (out,). relu6: what follows; False: nothing.
    adds: the number of an earlier layer whose output is added at the end; None: none.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int
    is_depthwise: bool = False
    relu6: bool = True
    adds: int | None = None


def layers(weights: Mapping[str, NDArray[Any]]) -> list[Layer]:
    """The layers up to the last one before the mean over the image: (7, 7, 1280) of an image of 224 x 224.

    weights: `lite0.weights.read_weights`.
    """
    found = [_folded(weights, "_conv_stem", "_bn0", stride=2)]
    number = 0
    for first_stride, num_blocks in _GROUPS:
        for block in range(num_blocks):
            stride, adds = (1, len(found) - 1) if block else (first_stride, None)
            found += _block(weights, f"_blocks.{number}.", stride, adds)
            number += 1
    return [*found, _folded(weights, "_conv_head", "_bn1")]


def _block(weights: Mapping[str, NDArray[Any]], name: str, stride: int, adds: int | None) -> Iterator[Layer]:
    """An inverted residual block: expand (but in the first block), convolve each channel, project, add the input."""
    if f"{name}_expand_conv.weight" in weights:
        yield _folded(weights, f"{name}_expand_conv", f"{name}_bn0")
    yield _folded(weights, f"{name}_depthwise_conv", f"{name}_bn1", stride, is_depthwise=True)
    yield _folded(weights, f"{name}_project_conv", f"{name}_bn2", relu6=False, adds=adds)


def _folded(weights: Mapping[str, NDArray[Any]], conv: str, norm: str, stride: int = 1, **more: Any) -> Layer:
    """A convolution whose output is normalised as during training: one affine map, folded into its weights."""
    gain, shift, mean, variance = (
        weights[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + _NORM_EPSILON)
    kernel = weights[f"{conv}.weight"] * scale[:, None, None, None]  # (out, in, k, k)
    kernel = kernel.transpose((1, 2, 3, 0) if more.get("is_depthwise") else (0, 2, 3, 1))
    bias = shift - mean * scale
    return Layer(np.ascontiguousarray(kernel, np.float32), bias.astype(np.float32), stride, **more)
