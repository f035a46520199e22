"""Taking over the weights of another stage, as the paper's stages do, and refusing those that do not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from handloom.errors import ConfigError
from handloom.train.arm4r.network.network import FRESH_FOR_CONTROL

SHOWN = 4


def take_over(network: nn.Module, weights: Mapping[str, Tensor], stage: str) -> list[str]:
    """Copy `weights` into `network`; returns the names that kept their own start, sorted.

    Stage 2 takes all of stage 1. Stage 3 takes all but `proprio_encoder`, `action_encoder` and `action_decoder` (SPECS
    1.7), unless the checkpoint is itself one of stage 3 with the same robot: then everything fits and is taken. What a
    frozen encoder holds comes from its own files, never from here.

    Raises:
        ConfigError: tensors that must be taken are missing or have other shapes, or there are some that this network
            has no place for. Nothing was copied then.
    """
    own = network.state_dict()
    frozen = _frozen(network)
    wanted = {name for name in own if not name.startswith(frozen)}
    given = {name for name in weights if not name.startswith(frozen)}
    if stage == "control" and not _fit(own, weights, {n for n in wanted if n.startswith(FRESH_FOR_CONTROL)}):
        wanted = {name for name in wanted if not name.startswith(FRESH_FOR_CONTROL)}
        given = {name for name in given if not name.startswith(FRESH_FOR_CONTROL)}
    wrong = _problems(own, weights, wanted, given)
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ConfigError(
            f"the checkpoint of `init` does not fit this network: {'; '.join(wrong[:SHOWN])}{more}",
            "train both with the same model, layers, points, grid_points, skip, cameras and encoders; a control "
            "checkpoint starts no network of points",
        )
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return sorted(own.keys() - wanted)


def _frozen(network: nn.Module) -> tuple[str, ...]:
    """Prefixes of the parts whose weights are not trained."""
    parts = [f"{name}." for name, part in network.named_children() if getattr(part, "frozen", False)]
    return tuple(parts)


def _fit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], names: set[str]) -> bool:
    return all(name in weights and weights[name].shape == own[name].shape for name in names)


def _problems(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], wanted: set[str], given: set[str]) -> list[str]:
    shapes = [
        f"{name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} here"
        for name in sorted(wanted & given)
        if weights[name].shape != own[name].shape
    ]
    missing = [f"{name} is not in it" for name in sorted(wanted - given)]
    return shapes + missing + [f"{name} has no place here" for name in sorted(given - wanted)]
