"""The stage keys of rows that were made by earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handloom.errors import HandloomError
from handloom.schemas.settings import Settings, of_any_version
from handloom.stages.graph import keys_of
from handloom.stages.registry import builtin_stages


def recorded_keys(settings: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, str]:
    """The keys of the stages that handloom brings, by what a run of any version has recorded (`runs.settings`,
    `runs.versions`). Empty where the record cannot be understood: the columns are then of an unknown key.

    A setting that the record lacks is taken at today's default: the version did without it, and its steps have other
    version texts where that changed what they compute.
    """
    values = {k: v for k, v in of_any_version(dict(settings)).items() if k in Settings.model_fields and k != "stages"}
    try:
        known = Settings(**values)
    except (ValueError, HandloomError):
        return {}
    return keys_of(builtin_stages(known), versions)
