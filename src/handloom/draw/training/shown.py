"""The data of one variant on the training page, and the formats of the page's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handloom.schemas.training import Example


@dataclass(frozen=True)
class VariantShown:
    """The data of one variant on the page.

    steps, held_out: lines of its history (`handloom.train.history`). versions: of the table, to which it switched.
    resumed: how often it resumed from a checkpoint. loader_wait_share: of the step time. result: `result.json`
    (numbers, figures, notes, counts, hardware, versions). examples: held-out windows with predictions.
    """

    name: str
    steps: Sequence[Mapping[str, Any]]
    held_out: Sequence[Mapping[str, Any]]
    versions: Sequence[int]
    resumed: int
    loader_wait_share: float | None
    result: Mapping[str, Any]
    examples: Sequence[Example]

    def data_versions(self) -> list[int]:
        """Versions of the table that the variant was trained on, in order."""
        return list(dict.fromkeys([*(line["version"] for line in self.held_out[:1]), *self.versions]))

    def numbers(self) -> dict[str, float | None]:
        """The last held-out numbers."""
        return dict(self.held_out[-1]["numbers"]) if self.held_out else {}


def short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
