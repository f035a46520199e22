"""The interface of a recipe: settings, windows, a network, its part of the report. `handloom.train.loop` trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from handloom.schemas.training import Example, TrainSettings

__all__ = ["CheckedRecipe", "Example", "Recipe", "RecipeData"]

if TYPE_CHECKING:
    from torch import Tensor, nn

    from handloom.api import Database
    from handloom.train.checkpoint import CheckpointFacts
    from handloom.windows.api import Windows


@dataclass(frozen=True)
class RecipeData:
    """The windows of a job: `train` and `held_out` (never of the same video), both with the recipe's transform.

    version: of the table. facts: JSON values for the network and the report (widths, statistics, counts of clips that
    are left out).
    """

    train: Windows
    held_out: Windows
    version: int
    facts: Mapping[str, Any] = field(default_factory=dict)


class Recipe(Protocol):
    """A way of training on the table, such as a published one. Stateless: everything it needs is passed in.

    name: as in the command `handloom train NAME`. settings_type: the class of its settings. sizes: names of its
    settings files, `small` first (`src/handloom/train/NAME/{size}.toml`).
    """

    @property
    def name(self) -> str: ...

    @property
    def settings_type(self) -> type[TrainSettings]: ...

    @property
    def sizes(self) -> Sequence[str]: ...

    def data(self, db: Database, settings: Any, version: int | None = None) -> RecipeData:
        """The windows that `settings` ask for, of the table's `version` (the newest by default), with counts of clips
        that are left out.

        Raises ConfigError where the table lacks what the recipe needs; its hint names the extraction or ingest to run.
        """
        ...

    def network(self, settings: Any, facts: Mapping[str, Any]) -> nn.Module:
        """A new network with random weights (and frozen encoders loaded).

        Its `forward(batch)` takes the collated samples (dict of tensors) and returns `{"loss": scalar, "sums": {name:
        tensor of 2}}`: for every reported number the sum over valid elements and their count, among them baselines such
        as `zero_motion` and `constant_velocity` over the same elements. So held-out values do not depend on how windows
        are divided into batches. Frozen parameters have `requires_grad` false.
        """
        ...

    def load_init(
        self,
        network: nn.Module,
        weights: Mapping[str, Tensor],
        settings: Any,
        start: CheckpointFacts | None = None,
    ) -> list[str]:
        """Copy the weights of another stage's checkpoint into `network`; returns the names of tensors that keep their
        initial values.

        start: the checkpoint's facts, which tell what its numbers mean; None: unknown, shapes alone are compared.

        Raises ConfigError where they do not fit.
        """
        ...

    def variants(self, settings: Any) -> dict[str, Any]:
        """Settings of the runs that the report compares, the asked one first: {"pre-trained": ..., "scratch": ...}."""
        ...

    def report(self, network: nn.Module, data: RecipeData, settings: Any) -> dict[str, Any]:
        """The recipe's part of the report, computed once after training, in one process.

        `examples`: list of `Example`; `notes`: sentences about what is the paper's and what is ours in this run;
        `figures`: {title: (array, labels of its rows, labels of its columns)}, such as a learned map; `numbers`: {name:
        number}; `data`: {name: number or text}, which data it was trained on beside its windows.
        """
        ...


@runtime_checkable
class CheckedRecipe(Protocol):
    """A recipe that can be asked, before a cluster is joined, whether the table has what the settings name."""

    def check(self, db: Database, settings: Any, version: int | None = None) -> None:
        """Raise ConfigError as `data` does, where that can be told in seconds and without reading windows."""
        ...
