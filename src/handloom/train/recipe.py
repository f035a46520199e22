"""What a recipe is: settings, windows, a network, and what its report shows. The loop is `handloom.train.loop`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from handloom.schemas.training import Example, TrainSettings

__all__ = ["Example", "Recipe", "RecipeData"]

if TYPE_CHECKING:
    from torch import Tensor, nn

    from handloom.api import Database
    from handloom.windows.api import Windows


@dataclass(frozen=True)
class RecipeData:
    """The windows of a job: `train` and `held_out` (never of the same video), both with the recipe's transform set.

    version: of the table. facts: JSON values the network and the report need (widths, statistics, counted skips).
    """

    train: Windows
    held_out: Windows
    version: int
    facts: Mapping[str, Any] = field(default_factory=dict)


class Recipe(Protocol):
    """One published way of training on the table. Stateless: everything it needs is passed in.

    name: of the command, `handloom train NAME`. settings_type: its settings. sizes: names of its settings files,
    `small` first (`src/handloom/train/NAME/{size}.toml`).
    """

    name: str
    settings_type: type[TrainSettings]
    sizes: Sequence[str]

    def data(self, db: Database, settings: Any, version: int | None = None) -> RecipeData:
        """The windows of `settings`, of the table's `version` (newest by default). Counts what it leaves out.

        Raises ConfigError where the table lacks what the recipe needs, and says which extraction or ingest brings it.
        """
        ...

    def network(self, settings: Any, facts: Mapping[str, Any]) -> nn.Module:
        """A new network with random weights (and frozen encoders loaded).

        Its `forward(batch)` takes the collated samples (dict of tensors) and returns `{"loss": scalar, "sums": {name:
        tensor of 2}}`: for every reported number the sum over valid elements and how many there were, baselines such
        as `zero_motion` and `constant_velocity` over the same elements among them, so that the held-out value is
        exact whatever the batches. Frozen parameters have `requires_grad` false.
        """
        ...

    def load_init(self, network: nn.Module, weights: Mapping[str, Tensor], settings: Any) -> list[str]:
        """Put the weights of another stage's checkpoint into `network`; returns the names that kept their own start.

        Raises ConfigError where they do not fit.
        """
        ...

    def variants(self, settings: Any) -> dict[str, Any]:
        """Settings of the runs that the report compares, the asked one first: {"pre-trained": ..., "scratch": ...}."""
        ...

    def report(self, network: nn.Module, data: RecipeData, settings: Any) -> dict[str, Any]:
        """What the report shows besides the curves, after training, on one process.

        `examples`: list of `Example`; `notes`: sentences that say what is the paper's and what is ours here;
        `figures`: {title: (array, labels of its rows, labels of its columns)}, for a learned map; `numbers`: {name:
        number}.
        """
        ...
