"""The hand networks in torch, built from the same files and weights, for batches on CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handloom.models.hands.weights import HAND_FILES, PALM_FILES, Network, Operator, model_path, read_network

if TYPE_CHECKING:
    import torch


class TorchHandNetworks:
    """As `LiteRtHandNetworks`, on a torch device, in float32 (TensorFloat-32 is switched off while they run)."""

    batch = 64

    def __init__(self, complexity: int, device: str) -> None:
        self._palm = TorchRunner(read_network(model_path(PALM_FILES[complexity])), device)
        self._hand = TorchRunner(read_network(model_path(HAND_FILES[complexity])), device)

    def palms(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """(n, 192, 192, 3) to boxes (n, 2016, 18) and raw scores (n, 2016, 1)."""
        return self._palm(images)

    def hands(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """(n, 224, 224, 3) to keypoints (n, 63), presence (n, 1), handedness (n, 1), metric keypoints (n, 63)."""
        return self._hand(images)


class TorchRunner:
    """Runs a `Network`. Tensors stay (n, h, w, c) in memory: torch's channels_last, viewed through `permute`."""

    def __init__(self, network: Network, device: str) -> None:
        import torch

        self._device = torch.device(device)
        self._network = network
        self._weights = {n: _weight(network, n).to(self._device) for n in network.constants}

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        import torch

        conv, product = torch.backends.cudnn, torch.backends.cuda.matmul
        before = conv.allow_tf32, product.allow_tf32
        conv.allow_tf32 = product.allow_tf32 = False
        try:
            with torch.inference_mode():
                given = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
                values = {self._network.input: given.float() * (1 / 255)}
                for operator in self._network.operators:
                    arguments = [values[n] if n in values else self._weights.get(n) for n in operator.inputs]
                    values[operator.outputs[0]] = _STEPS[operator.kind](operator, *arguments)
                return tuple(values[n].cpu().numpy() for n in self._network.outputs)
        finally:
            conv.allow_tf32, product.allow_tf32 = before


def _weight(network: Network, number: int) -> torch.Tensor:
    """In torch's order: (out, in, h, w) where TensorFlow Lite has (out, h, w, in) or, depthwise, (1, h, w, c)."""
    import torch

    values = torch.from_numpy(network.constants[number].copy())
    users = [o for o in network.operators if number in o.inputs[1:2]]
    kind = users[0].kind if users else ""
    if kind == "CONV_2D":
        return values.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    return values.permute(3, 0, 1, 2).contiguous() if kind == "DEPTHWISE_CONV_2D" else values


def _activated(operator: Operator, values: torch.Tensor) -> torch.Tensor:
    return values.clamp(0, 6) if operator.options.get("activation") == "relu6" else values


def _same(operator: Operator, planes: torch.Tensor, window: tuple[int, int], value: float) -> torch.Tensor:
    """Pad as TensorFlow's `SAME`: of an odd number of pixels, the larger half goes after."""
    from torch.nn.functional import pad

    if operator.options["padding"] == "valid":
        return planes
    widths: list[int] = []
    for side, size, stride in zip(planes.shape[:1:-1], window[::-1], operator.options["stride"][::-1], strict=True):
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        widths += [total // 2, total - total // 2]
    return pad(planes, widths, value=value) if any(widths) else planes


def _conv(operator: Operator, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import conv2d

    planes = _same(operator, x.permute(0, 3, 1, 2), (weight.shape[2], weight.shape[3]), 0.0)
    groups = planes.shape[1] // weight.shape[1]
    out = conv2d(planes, weight, bias, stride=operator.options["stride"], groups=groups)
    return _activated(operator, out.permute(0, 2, 3, 1))


def _max_pool(operator: Operator, x: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import max_pool2d

    window = operator.options["window"]
    planes = _same(operator, x.permute(0, 3, 1, 2), window, -np.inf)
    return max_pool2d(planes, window, operator.options["stride"]).permute(0, 2, 3, 1)


def _pad(_: Operator, x: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import pad

    return pad(x, [int(n) for pair in widths.tolist()[::-1] for n in pair])


def _resize(operator: Operator, x: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Half-pixel centres, as both palm models use."""
    from torch.nn.functional import interpolate

    return interpolate(x.permute(0, 3, 1, 2), tuple(size.tolist()), mode="bilinear").permute(0, 2, 3, 1)


def _reshape(_: Operator, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.reshape(len(x), *[int(n) for n in shape.tolist()[1:]])


def _concatenate(operator: Operator, *parts: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat(parts, dim=operator.options["axis"])


def _connect(operator: Operator, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return _activated(operator, x.reshape(len(x), -1) @ weight.T + bias)


_STEPS: dict[str, Any] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "PRELU": lambda _, x, slope: x.clamp(min=0) + slope * x.clamp(max=0),
    "ADD": lambda operator, x, y: _activated(operator, x + y),
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
    "RESIZE_BILINEAR": _resize,
    "RESHAPE": _reshape,
    "CONCATENATION": _concatenate,
    "MEAN": lambda _, x, axes: x.mean(dim=tuple(axes.tolist())),
    "FULLY_CONNECTED": _connect,
    "LOGISTIC": lambda _, x: x.sigmoid(),
}
