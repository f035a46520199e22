"""Weights of another stage's checkpoint, copied into a recipe's network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor, nn

from handloom.errors import ConfigError

MAX_NAMED = 4


def trained_names(names: Iterable[str], network: nn.Module) -> set[str]:
    """Those of `names` that are not of a frozen encoder: its weights come from its own files, not from a checkpoint."""
    frozen = tuple(f"{name}." for name, part in network.named_modules() if getattr(part, "frozen", False))
    return {name for name in names if not name.startswith(frozen)}


def is_fitting(network: nn.Module, weights: Mapping[str, Tensor], names: Iterable[str]) -> bool:
    """Whether `weights` has a tensor of the network's shape for each of `names`."""
    own = network.state_dict()
    return all(name in weights and weights[name].shape == own[name].shape for name in names)


def check_same_things(there: Sequence[str] | None, here: Sequence[str]) -> None:
    """Raise ConfigError where a checkpoint was told of other things, or in another order; shapes would not show it.

    there: the names of the checkpoint's numbers in their order; None: unknown. here: those of the windows.
    """
    if there is not None and list(there) != list(here):
        problem = f"the checkpoint of `init` was told of {', '.join(there)}; the states here have {', '.join(here)}"
        raise ConfigError(
            problem, "name the states' parts at ingest (--state) as in the database that it was trained on"
        )


def copy_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    wanted: Collection[str],
    hint: str,
    unexpected: Collection[str] = (),
) -> list[str]:
    """Copy the tensors `wanted` into `network`; returns the names of its other tensors, sorted.

    Args:
        hint: which settings must be the same, for the error.
        unexpected: names in `weights` that the network has no place for.

    Raises:
        ConfigError: a wanted tensor is missing or has another shape, or one is unexpected. Nothing was copied then.
    """
    own = network.state_dict()
    problems = [
        f"{name} is {tuple(weights[name].shape)} there and {tuple(own[name].shape)} here"
        for name in sorted(wanted)
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems += [f"{name} is not in it" for name in sorted(wanted) if name not in weights]
    problems += [f"{name} has no place here" for name in sorted(unexpected)]
    if problems:
        more = f" and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        named = "; ".join(problems[:MAX_NAMED])
        raise ConfigError(f"the checkpoint of `init` does not fit this network: {named}{more}", hint)
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return sorted(own.keys() - set(wanted))
