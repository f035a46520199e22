"""The device of a torch model: the one of its setting, never whichever is available."""

from __future__ import annotations

from handloom.errors import ConfigError


def check_device(setting: str, device: str) -> None:
    """Raise ConfigError if `device` is cuda and torch finds none. setting: its name, for the error."""
    if device != "cpu" and not _has_cuda():
        raise ConfigError(f"{setting} = {device!r}, but torch sees no CUDA device", "use cpu, or a machine with one")


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
