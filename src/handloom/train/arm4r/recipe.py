"""The recipe `arm4r`: pre-training on 3D point tracks, then control (arXiv 2502.13142)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from handloom.errors import ConfigError
from handloom.train.arm4r.data.control import check_control, control_data
from handloom.train.arm4r.data.points import point_data, point_sides
from handloom.train.arm4r.network.network import COMMAND, FRESH_FOR_CONTROL, POOLS, Arm4rNetwork
from handloom.train.arm4r.reporting import report_of
from handloom.train.arm4r.settings import Arm4rSettings
from handloom.train.parts.weights import check_same_things, copy_weights, is_fitting, trained_names
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.train.checkpoint import CheckpointFacts

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

    def check(self, db: Database, settings: Arm4rSettings, version: int | None = None) -> None:
        """Raise ConfigError as `data`, where that can be told without reading windows."""
        (check_control if settings.stage == "control" else point_sides)(db, settings, version)

    def network(self, settings: Arm4rSettings, facts: Mapping[str, Any]) -> Arm4rNetwork:
        """A new network for windows with these facts."""
        return Arm4rNetwork(settings, facts)

    def load_init(
        self,
        network: nn.Module,
        weights: Mapping[str, Tensor],
        settings: Arm4rSettings,
        start: CheckpointFacts | None = None,
    ) -> list[str]:
        """Weights of the stage before; returns the names that keep their initial values, sorted.

        Stage 2 takes all of stage 1. Stage 3 takes all but `proprio_encoder`, `action_encoder` and `action_decoder`, as
        the released code does, and without images but `pools`, which then read the state alone (ours); from a
        checkpoint of stage 3 with the same robot it takes these, too. What reads the latents of clips is new, unless
        both are told by clips.

        Raises:
            ConfigError: the checkpoint is of another network, or of stage 3 and its numbers mean other things.
        """
        wanted, given = (trained_names(names, network) for names in (network.state_dict(), weights))
        told = {name for name in wanted if name.startswith(COMMAND)}
        if not told or not is_fitting(network, weights, told):
            wanted, given = wanted - told, {name for name in given if not name.startswith(COMMAND)}
        of_numbers = (*FRESH_FOR_CONTROL, *([POOLS] if settings.image_encoder == "none" else []))
        fresh = {name for name in wanted if name.startswith(of_numbers)}
        if settings.stage == "control":
            is_of_control = start is None or start.settings["stage"] == "control"
            if not is_of_control or not is_fitting(network, weights, fresh):
                wanted -= fresh
                given = {name for name in given if not name.startswith(of_numbers)}
            elif start is not None:
                _check_told(start, network, settings)
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
        assert isinstance(network, Arm4rNetwork)
        return report_of(network, data, settings)


def _check_told(start: CheckpointFacts, network: nn.Module, settings: Arm4rSettings) -> None:
    """Raise ConfigError where a checkpoint's network was told other numbers than this one, in the same shape."""
    assert isinstance(network, Arm4rNetwork)
    check_same_things(start.facts.get("things_told"), network.things)
    there = {"hand_pose": True, "things_hidden": []} | start.settings
    here = settings.model_dump(mode="json")
    both = [(name, there[name], here[name]) for name in ("hand_pose", "things_hidden")]
    if other := [f"{name} is {old} there and {new} here" for name, old, new in both if old != new]:
        raise ConfigError(
            f"the network of `init` was told other numbers: {'; '.join(other)}", "train both with the same"
        )


RECIPE = Arm4r()
