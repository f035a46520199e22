"""Where a torch model runs: as its setting says, never on whatever happens to be there."""

from __future__ import annotations

from handloom.errors import ConfigError


def check_device(setting: str, device: str) -> None:
    """Raise ConfigError where `device` is cuda and torch sees none. setting: its name, for the error."""
    if device != "cpu" and not _has_cuda():
        raise ConfigError(f"{setting} = {device!r}, but torch sees no CUDA device", "use cpu, or a machine with one")


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
