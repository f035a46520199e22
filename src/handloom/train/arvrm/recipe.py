"""The recipe `arvrm`: hand keypoints from human clips, then robot data with retrieved clips (arXiv 2508.07626)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from handloom.errors import ConfigError
from handloom.train.arvrm.data.hands import hand_data, hand_sides
from handloom.train.arvrm.data.robot import check_robot, robot_data
from handloom.train.arvrm.network.network import HandNetwork
from handloom.train.arvrm.network.robot_network import RobotNetwork
from handloom.train.arvrm.reporting import report_of
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.weights import check_same_things, copy_weights, is_fitting, trained_names
from handloom.train.recipe import RecipeData

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.train.checkpoint import CheckpointFacts

SHARED = ("backbone.", "keypoint_encoder.", "keypoint_head.", "hand_place", "goals.")
"""Parts of the network that stage 2 takes from stage 1."""
INIT_HINT = (
    "give both stages the same dim, layers, latents, keypoint_dim, keypoint_layers, motion, steps, goal_s and encoders"
)


class Arvrm:
    """AR-VRM in two stages: `stage` pretrain, finetune. See docs/arvrm.md."""

    name = "arvrm"
    settings_type = ArvrmSettings
    sizes: Sequence[str] = ("small", "small-finetune", "small-sim", "full", "full-finetune")

    def data(self, db: Database, settings: ArvrmSettings, version: int | None = None) -> RecipeData:
        """Windows of the stage's table; see `hand_data` and `robot_data` for what is refused and counted."""
        return (hand_data if settings.stage == "pretrain" else robot_data)(db, settings, version)

    def check(self, db: Database, settings: ArvrmSettings, version: int | None = None) -> None:
        """Raise ConfigError as `data`, where that can be told without reading windows."""
        (hand_sides if settings.stage == "pretrain" else check_robot)(db, settings, version)

    def network(self, settings: ArvrmSettings, facts: Mapping[str, Any]) -> nn.Module:
        """A new network for windows with these facts."""
        return (HandNetwork if settings.stage == "pretrain" else RobotNetwork)(settings, facts)

    def load_init(
        self,
        network: nn.Module,
        weights: Mapping[str, Tensor],
        settings: ArvrmSettings,
        start: CheckpointFacts | None = None,
    ) -> list[str]:
        """Weights of the stage before; returns the names that keep their initial values, sorted.

        Stage 2 takes `SHARED` from a checkpoint of stage 1, and everything from one of its own.

        Raises:
            ConfigError: the checkpoint is of a later stage, or of another network, or was told of other things.
        """
        is_of_stage_2 = any(name.startswith("state_head.") for name in weights)
        if settings.stage == "pretrain" and is_of_stage_2:
            raise ConfigError("`init` is a checkpoint of stage finetune", "stage pretrain starts from one of its own")
        wanted = trained_names(network.state_dict(), network)
        if settings.stage == "finetune" and not is_of_stage_2:
            wanted = {name for name in wanted if name.startswith(SHARED)}
        elif isinstance(network, RobotNetwork) and start is not None and is_fitting(network, weights, wanted):
            check_same_things(start.facts.get("things"), network.things)
        return copy_weights(network, weights, wanted, INIT_HINT)

    def variants(self, settings: ArvrmSettings) -> dict[str, ArvrmSettings]:
        """Stage 2: with retrieval, with clips at random, without retrieval, and without pre-training. Stage 1 compares
        with its baselines only."""
        if settings.stage == "pretrain":
            return {"arvrm": settings}
        named = {"similar": "retrieval", "random": "random clips"}
        runs = {named[settings.retrieve] if settings.retrieval else "without retrieval": settings}
        if settings.retrieval:
            runs |= {
                name: settings.model_copy(update={"retrieve": way}) for way, name in named.items() if name not in runs
            }
            runs["without retrieval"] = settings.model_copy(update={"retrieval": False})
        if settings.init:
            runs["scratch"] = settings.model_copy(update={"init": ""})
        return runs

    def report(self, network: nn.Module, data: RecipeData, settings: ArvrmSettings) -> dict[str, Any]:
        """Predicted beside true keypoints, the learned map, and what is the paper's."""
        return report_of(network, data, settings)


RECIPE = Arvrm()
