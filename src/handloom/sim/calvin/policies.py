"""Policies for CALVIN by their names."""

from __future__ import annotations

from handloom.errors import ConfigError
from handloom.sim.calvin.installation import ACTION_NAMES
from handloom.sim.policies import Policy, Random, own_policy

FORMS = "random, or package.module:CLASS for one of your own"


def find_policy(name: str) -> Policy:
    """A policy by its name, see `FORMS`; its `act` returns (n, 7). Raises ConfigError: there is none."""
    if name == "random":
        return Random(len(ACTION_NAMES))
    kind, _, rest = name.partition(":")
    if not kind or not rest or "/" in name or kind in ("replay", "arm4r"):
        raise ConfigError(f"there is no policy {name!r} for CALVIN", f"give {FORMS}")
    return own_policy(name)
