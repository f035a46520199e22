"""The causal transformer, the pooling and the perceptrons."""

from __future__ import annotations

import pytest
import torch

from handloom.train.parts.llama import Llama, RmsNorm, hidden_width, rotary_table, rotate
from handloom.train.parts.mlp import Mlp, MlpHead
from handloom.train.parts.pooling import AttentionPool


def test_a_position_attends_to_itself_and_to_those_before_it():
    torch.manual_seed(0)
    model = Llama(dim=24, layers=3, heads=3, multiple_of=8)
    tokens = torch.randn(2, 10, 24)
    changed = tokens.clone()
    changed[:, 6] += 1.0
    apart = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
    assert apart[:6].max() == 0
    assert apart[6:].min() > 1e-4


def test_attention_depends_only_on_the_distance_of_tokens():
    """Rotary positions: a product does not change when query and key are shifted together, but when one is shifted."""
    torch.manual_seed(0)
    table = rotary_table(32, 8)
    query, key = torch.randn(2, 1, 1, 1, 8)

    def product(at: int, other: int) -> float:
        return float((rotate(query, table[at : at + 1]) * rotate(key, table[other : other + 1])).sum())

    assert product(3, 7) == pytest.approx(product(13, 17), abs=1e-5)
    assert product(3, 7) != pytest.approx(product(3, 8), abs=1e-3)


def test_norm_gives_a_root_mean_square_of_one_whatever_the_scale():
    values = torch.randn(5, 16) * torch.tensor([1e-3, 1.0, 10.0, 1e3, 1e5])[:, None]
    assert torch.allclose(RmsNorm(16, eps=1e-12)(values).square().mean(-1), torch.ones(5), atol=1e-4)


@pytest.mark.parametrize(("dim", "hidden"), [(768, 2048), (1024, 2816), (384, 1024), (192, 512)])
def test_feed_forward_widths_are_llamas(dim, hidden):
    """Two thirds of 4 dim, up to a multiple of 256 (LLaMA's published 4096 gives 11008)."""
    assert hidden_width(dim) == hidden
    assert hidden_width(4096) == 11008


def test_a_block_has_the_weights_of_its_formula():
    """4 d^2 + 3 d h + 2 d a block and a last norm."""
    model = Llama(96, 2, 3)
    assert sum(p.numel() for p in model.parameters()) == 2 * (4 * 96**2 + 3 * 96 * 256 + 2 * 96) + 96


def test_pooling_depends_on_every_token_and_not_on_their_order():
    torch.manual_seed(0)
    pool = AttentionPool(16, 6, heads=4)
    tokens = torch.randn(3, 7, 16)
    assert pool(tokens).shape == (3, 6)
    assert torch.allclose(pool(tokens), pool(tokens.flip(1)), atol=1e-6)
    assert not torch.allclose(pool(tokens), pool(tokens[:, :-1]), atol=1e-4)


def test_perceptrons_are_as_wide_as_their_input_and_heads_start_near_zero():
    assert Mlp(40, 8).inner.weight.shape == (40, 40)
    torch.manual_seed(0)
    head = MlpHead(16, 9)
    assert head.inner.weight.shape == (128, 16)
    assert head(torch.randn(100, 16)).abs().max() < 0.05
