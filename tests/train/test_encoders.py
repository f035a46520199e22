"""The small encoders, and the functions that make any encoder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from handloom.errors import ConfigError

torch = pytest.importorskip("torch")

from handloom.train.parts.encoders import EncoderSpec, image_encoder, text_encoder  # noqa: E402


def test_small_images_encoder_takes_any_size_and_learns():
    torch.manual_seed(0)
    encoder = image_encoder(EncoderSpec(width=32, image_size=48))
    images = torch.randint(0, 256, (2, 40, 60, 3), dtype=torch.uint8)
    tokens = encoder(images)
    assert tokens.shape == (2, encoder.num_tokens, encoder.width) == (2, 10, 32)
    assert not encoder.frozen
    tokens.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    torch.testing.assert_close(encoder(images[1:]), tokens[1:])


def test_a_patch_of_the_image_is_a_token():
    torch.manual_seed(0)
    encoder = image_encoder(EncoderSpec(width=32, image_size=64))
    before = torch.full((1, 64, 64, 3), 128, dtype=torch.uint8)
    after = before.clone()
    after[:, 48:, :16] = 255
    changed = (encoder(after) - encoder(before)).abs().mean(-1)[0, 1:].reshape(4, 4)
    assert changed.argmax() == 12  # the last row's first patch


def test_small_text_encoder_is_the_same_on_every_machine():
    code = "from handloom.train.parts.encoders import *; print([zlib.crc32(p.encode()) for p in pieces('Cut it')])"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12"
    }
    assert len(runs) == 1


def test_texts_that_resemble_each_other_are_near():
    torch.manual_seed(0)
    encoder = text_encoder(EncoderSpec(width=64))
    texts = ["pick up the cup", "Pick up the cups.", "wave with one hand", None, " ", "…"]
    found = encoder.encode(texts)
    assert found.shape == (6, encoder.width)
    assert found.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(found[0], found[1], dim=0) > 0.7
    assert cosine(found[0], found[2], dim=0) < 0.5
    for row in found[3:]:
        assert torch.equal(row, encoder.unknown)
    found.sum().backward()
    assert encoder.unknown.grad is not None
    assert encoder.encode([]).shape == (0, 64)


def test_wrong_specs_are_refused():
    with pytest.raises(ConfigError, match="image_size is 50, expected a multiple of 16"):
        image_encoder(EncoderSpec(image_size=50))
    with pytest.raises(ConfigError, match="no model is named"):
        text_encoder(EncoderSpec(kind="hub"))
    with pytest.raises(ValueError, match="kind"):
        EncoderSpec(kind="big")
