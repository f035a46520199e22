"""The recipe `arm4r`: pre-training on 3D point tracks, then control (arXiv 2502.13142)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from handloom.train.arm4r.data.control import control_data
from handloom.train.arm4r.data.points import point_data
from handloom.train.arm4r.network.network import COMMAND, FRESH_FOR_CONTROL, Arm4rNetwork
from handloom.train.arm4r.reporting import report_of
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.weights import copy_weights, is_fitting, trained_names
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database

INIT_HINT = (
    "train both with the same model, layers, points, grid_points, skip, cameras and encoders; a control checkpoint "
    "does not fit a network of points"
)


class Arm4r:
    """ARM4R in three stages: `stage` human, robot_points, control. See docs/arm4r.md."""

    name = "arm4r"
    settings_type = Arm4rSettings
    sizes: Sequence[str] = ("small", "small-control", "small-sim", "small-people", "full", "full-control")

    def data(self, db: Database, settings: Arm4rSettings, version: int | None = None) -> RecipeData:
        """Windows of the stage's table; see `point_data` and `control_data` for what is refused and counted."""
        if settings.stage == "control":
            return control_data(db, settings, version)
        return point_data(db, settings, version)

    def network(self, settings: Arm4rSettings, facts: Mapping[str, Any]) -> Arm4rNetwork:
        """A new network for windows with these facts."""
        return Arm4rNetwork(settings, facts)

    def load_init(self, network: nn.Module, weights: Mapping[str, Tensor], settings: Arm4rSettings) -> list[str]:
        """Weights of the stage before; returns the names that keep their initial values, sorted.

        Stage 2 takes all of stage 1. Stage 3 takes all but `proprio_encoder`, `action_encoder` and `action_decoder`, as
        the released code does; from a checkpoint of stage 3 with the same robot it takes these, too. What reads the
        latents of clips is new, unless both are told by clips.

        Raises:
            ConfigError: the checkpoint is of another network.
        """
        wanted, given = (trained_names(names, network) for names in (network.state_dict(), weights))
        told = {name for name in wanted if name.startswith(COMMAND)}
        if not told or not is_fitting(network, weights, told):
            wanted, given = wanted - told, {name for name in given if not name.startswith(COMMAND)}
        fresh = {name for name in wanted if name.startswith(FRESH_FOR_CONTROL)}
        if settings.stage == "control" and not is_fitting(network, weights, fresh):
            wanted -= fresh
            given = {name for name in given if not name.startswith(FRESH_FOR_CONTROL)}
        return copy_weights(network, weights, wanted, INIT_HINT, given - wanted)

    def variants(self, settings: Arm4rSettings) -> dict[str, Arm4rSettings]:
        """With `init`: from scratch beside it. With our skip path: the paper's network beside it."""
        runs = {"pre-trained" if settings.init else "scratch": settings}
        if settings.init:
            runs["scratch"] = settings.model_copy(update={"init": ""})
        elif settings.skip != "none" and settings.stage != "control":
            runs["without the skip path"] = settings.model_copy(update={"skip": "none"})
        return runs

    def report(self, network: nn.Module, data: RecipeData, settings: Arm4rSettings) -> dict[str, Any]:
        """Predicted beside true tracks, the error of free-running roll-outs, and what is the paper's."""
        return report_of(network, data, settings)


RECIPE = Arm4r()
