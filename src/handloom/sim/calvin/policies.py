"""Policies for CALVIN by their names."""

from __future__ import annotations

from handloom.errors import ConfigError
from handloom.sim.calvin.installation import ACTION_NAMES
from handloom.sim.policies import Policy, Random, own_policy

FORMS = "random, arm4r:CHECKPOINT, arvrm:CHECKPOINT, or package.module:CLASS for one of your own"


def find_policy(name: str) -> Policy:
    """A policy by its name, see `FORMS`; its `act` returns (n, 7). Raises ConfigError: there is none."""
    if name == "random":
        return Random(len(ACTION_NAMES))
    kind, _, rest = name.partition(":")
    if kind in ("arm4r", "arvrm") and rest:
        from handloom.sim.calvin.recipes import CalvinTrained  # needs torch, which other policies do not

        return CalvinTrained(kind, rest)
    if not kind or not rest or "/" in name or kind == "replay":
        raise ConfigError(f"there is no policy {name!r} for CALVIN", f"give {FORMS}")
    return own_policy(name)
