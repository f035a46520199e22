"""Prints docs/settings.md from the settings' own definitions: `make docs`."""

from __future__ import annotations

import json
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from handloom.schemas.settings import Resources, Settings, StageConfig
from handloom.schemas.training import TrainResources, TrainSettings

INTRO = """# Settings

Written by `make docs` from `src/handloom/schemas/settings.py` and `training.py`; a test fails when this page is stale.

A setting is given in a TOML file (`handloom run --config FILE.toml`), on the command line
(`--set video.sample_hz=10`, which wins over the file), or left at its default. `handloom run --show-settings --db DB`
prints what a run would use.

```toml
[video]
sample_hz = 10

[camera]
assumed_fov_deg = 92.0    # better: `handloom ingest ... --fov-deg 92`, for those clips alone

[resources]
num_actors = 4
```

## What changes a row

Each is part of the [key](stages.md#keys-and-what-is-computed-again) of the stage that uses it, and all are part of the
*run key*. A run with other ones than the database's ends with an error that names what differs, the stages that depend
on it, rows and hours: `--recompute` computes these stages of existing rows again. Leave out `--config` and `--set` to
go on with the database's own settings.
"""
STAGES = """
## Stages of one's own

Each has a section `[stages.NAME]` ([stages](stages.md)). Its class and settings are part of the stage's key, the rest
changes only the cost.
"""
RESOURCES = """
## What changes only the cost

Under `[resources]`, and never part of the run key: they may change from run to run, the rows are the same bytes.
"""
TRAINING = """
## Of training

These settings are the same for every recipe of `handloom train`, in a TOML file or with `--set lr=0.0003`
([training](training.md)); a recipe's own settings are on its page. All but `loader_workers`, `log_every`,
`checkpoint_every`, `checkpoint_epochs`, `keep_checkpoints` and `compare` are part of a job: a checkpoint made with
others is refused.
"""
TRAINING_RESOURCES = """
Under `[resources]`, and never part of a job:
"""
HEADER = "\n| setting | default | range | meaning |\n|---|---|---|---|"
SIGNS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}


def page() -> str:
    lines = [INTRO + HEADER]
    for section, field in Settings.model_fields.items():
        if section != "stages":
            lines += _rows(type(field.default), f"{section}.", "none")
    lines += [STAGES + HEADER, *_rows(StageConfig, "stages.NAME.", "none")]
    lines += [RESOURCES + HEADER, *_rows(Resources, "resources.")]
    lines += [TRAINING + HEADER, *_rows(TrainSettings, "", "none")]
    lines += [TRAINING_RESOURCES + HEADER, *_rows(TrainResources, "resources.")]
    return "\n".join(lines) + "\n"


def _rows(model: type[BaseModel], prefix: str, absent: str = "automatic") -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        name = field.alias or name
        lines.append(f"| `{prefix}{name}` | {_default(field.default, absent)} | {_range(field)} | {meaning} |")
    return lines


def _default(value: Any, absent: str) -> str:
    if isinstance(value, dict) and value:
        return ", ".join(f"`{key}` {number:g}" for key, number in value.items())
    return absent if value is None else f"`{json.dumps(value)}`"


def _range(field: FieldInfo) -> str:
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str | int) for choice in choices):
        return " or ".join(f"`{choice}`" for choice in choices)
    limits = [(*SIGNS[type(limit)], limit) for limit in field.metadata if type(limit) in SIGNS]
    return ", ".join(f"{sign} {getattr(limit, name):g}" for sign, name, limit in limits)


if __name__ == "__main__":
    print(page(), end="")
