"""Taking over another stage's weights, and refusing those that do not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from handloom.errors import ConfigError

SHARED = ("backbone.", "keypoint_encoder.", "keypoint_head.", "hand_place")
"""What stage 2 takes over from stage 1."""
SHOWN = 4


def take_over(network: nn.Module, weights: Mapping[str, Tensor], stage: str) -> list[str]:
    """Copy `weights` into `network`; returns the names that kept their own start, sorted.

    Stage 2 takes `SHARED` from a checkpoint of stage 1, and everything from one of its own. Weights of published
    encoders come from their own files, never from here.

    Raises:
        ConfigError: tensors that must be taken are missing or have other shapes. Nothing was copied then.
    """
    own = network.state_dict()
    frozen = tuple(f"{name}." for name, part in network.named_modules() if getattr(part, "frozen", False))
    own = {name: value for name, value in own.items() if not (frozen and name.startswith(frozen))}
    is_own_stage = stage == "pretrain" or any(name.startswith("state_head.") for name in weights)
    wanted = set(own) if is_own_stage else {name for name in own if name.startswith(SHARED)}
    if stage == "pretrain" and any(name.startswith("state_head.") for name in weights):
        raise ConfigError("`init` is a checkpoint of stage finetune", "stage pretrain starts from one of its own")
    wrong = [f"{name} is not in it" for name in sorted(wanted - weights.keys())]
    wrong += [
        f"{name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} here"
        for name in sorted(wanted & weights.keys())
        if weights[name].shape != own[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ConfigError(
            f"the checkpoint of `init` does not fit this network: {'; '.join(wrong[:SHOWN])}{more}",
            "give both stages the same dim, layers, latents, keypoint_dim, keypoint_layers, motion, steps and encoders",
        )
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return sorted(network.state_dict().keys() - wanted)
