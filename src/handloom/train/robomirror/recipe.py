"""The recipe `robomirror`: latents of motion, and what a policy is told, from what is seen (arXiv 2512.23649)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from handloom.train.parts.weights import copy_weights, trained_names
from handloom.train.recipe import RecipeData
from handloom.train.robomirror.data.windows import motion_data
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.reporting import report_of
from handloom.train.robomirror.settings import RobomirrorSettings

if TYPE_CHECKING:
    from handloom.api import Database

INIT_HINT = "give both the same latent, vae_width, vae_layers and rate_hz"


class Robomirror:
    """RoboMirror's stage `motion`. See docs/robomirror.md."""

    name = "robomirror"
    settings_type = RobomirrorSettings
    sizes: Sequence[str] = ("small", "full")

    def data(self, db: Database, settings: RobomirrorSettings, version: int | None = None) -> RecipeData:
        """Windows of people's motion; see `motion_data` for what is refused and counted."""
        return motion_data(db, settings, version)

    def network(self, settings: RobomirrorSettings, facts: Mapping[str, Any]) -> nn.Module:
        """A new network for windows with these facts."""
        return MotionVae(settings, facts)

    def load_init(self, network: nn.Module, weights: Mapping[str, Tensor], settings: RobomirrorSettings) -> list[str]:
        """All weights of another checkpoint of the stage. Raises ConfigError where they do not fit."""
        return copy_weights(network, weights, trained_names(network.state_dict(), network), INIT_HINT)

    def variants(self, settings: RobomirrorSettings) -> dict[str, RobomirrorSettings]:
        """The auto-encoder is compared with its baselines only."""
        return {"motion": settings}

    def report(self, network: nn.Module, data: RecipeData, settings: RobomirrorSettings) -> dict[str, Any]:
        """Rebuilt beside true hands, errors of a principal component analysis, and what is the paper's."""
        return report_of(network, data, settings)


RECIPE = Robomirror()
