"""The recipe `robomirror`: latents of motion, then these latents from what is seen (arXiv 2512.23649)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from handloom.errors import ConfigError
from handloom.train.checkpoint import find_start
from handloom.train.parts.weights import copy_weights
from handloom.train.recipe import RecipeData
from handloom.train.robomirror.data.intents import intent_data, intent_sides
from handloom.train.robomirror.data.motion import MotionLayout
from handloom.train.robomirror.data.windows import both_sides, held_out_without_body, motion_data
from handloom.train.robomirror.network.motion_vae import MotionVae
from handloom.train.robomirror.network.understanding import Alignment, Reconstruction
from handloom.train.robomirror.reporting import report_of
from handloom.train.robomirror.settings import RobomirrorSettings

if TYPE_CHECKING:
    from handloom.api import Database
    from handloom.train.checkpoint import CheckpointFacts

log = logging.getLogger(__name__)

VAE = "vae."
INIT_HINT = "give both stages the same latent, vae_width, vae_layers and rate_hz, and of stage understand all sizes"


class Robomirror:
    """RoboMirror in two stages: `stage` motion, understand. See docs/robomirror.md."""

    name = "robomirror"
    settings_type = RobomirrorSettings
    sizes: Sequence[str] = ("small", "small-understand", "full", "full-understand")

    def data(self, db: Database, settings: RobomirrorSettings, version: int | None = None) -> RecipeData:
        """Windows of people's motion; see `motion_data` and `intent_data` for what is refused and counted."""
        return (motion_data if settings.stage == "motion" else intent_data)(db, settings, version)

    def check(self, db: Database, settings: RobomirrorSettings, version: int | None = None) -> None:
        """Raise ConfigError as `data` does, and for an `init` that is not there or of another motion. Logs what will
        be unknown of held-out clips.
        """
        *_, found = (both_sides if settings.stage == "motion" else intent_sides)(db, settings, version)
        for sentence in held_out_without_body(found.get("counts", found)):
            log.warning(sentence)
        if settings.init:
            _check_start(find_start(settings.init, db.storage_options, self.name)[0], settings)

    def network(self, settings: RobomirrorSettings, facts: Mapping[str, Any]) -> nn.Module:
        """A new network for windows with these facts."""
        if settings.stage == "motion":
            return MotionVae(settings, facts)
        return (Reconstruction if settings.understand_by == "reconstruction" else Alignment)(settings, facts)

    def load_init(
        self,
        network: nn.Module,
        weights: Mapping[str, Tensor],
        settings: RobomirrorSettings,
        start: CheckpointFacts | None = None,
    ) -> list[str]:
        """Weights of the stage before, or of the same one; returns the names that keep their initial values, sorted.

        Raises:
            ConfigError: the checkpoint is of a later stage, of another network, of another rate, or of a motion with
                other parts.
        """
        if start is not None:
            _check_start(start, settings)
        is_of_stage_2 = any(name.startswith(VAE) for name in weights)
        if settings.stage == "motion" and is_of_stage_2:
            raise ConfigError("`init` is a checkpoint of stage understand", "stage motion starts from one of its own")
        wanted = set(network.state_dict())
        if settings.stage == "understand" and not is_of_stage_2:
            weights = {VAE + name: value for name, value in weights.items()}
            wanted = {name for name in wanted if name.startswith(VAE)}
        rate = weights.get("rate_hz", weights.get(f"{VAE}rate_hz"))
        if rate is not None:
            _check_rate(float(rate), settings)
        return copy_weights(network, weights, wanted, INIT_HINT)

    def variants(self, settings: RobomirrorSettings) -> dict[str, RobomirrorSettings]:
        """Stage 2: reconstruction and alignment, the asked one first. Stage 1 compares with its baselines only."""
        if settings.stage == "motion":
            return {"motion": settings}
        others = (way for way in ("reconstruction", "alignment") if way != settings.understand_by)
        runs = {settings.understand_by: settings}
        return runs | {way: settings.model_copy(update={"understand_by": way}) for way in others}

    def report(self, network: nn.Module, data: RecipeData, settings: RobomirrorSettings) -> dict[str, Any]:
        """Rebuilt or understood beside true hands, numbers beside those of baselines, and what is the paper's."""
        return report_of(network, data, settings)


def _check_start(start: CheckpointFacts, settings: RobomirrorSettings) -> None:
    """Raise ConfigError where the checkpoint that `init` names is of another motion than the one asked for."""
    there, here = (MotionLayout(body) for body in (bool(start.settings.get("body")), settings.body))
    if there != here:
        problem = (
            f"the motion of `init` is of {there} ({there.dim} numbers a frame), the one here of {here} ({here.dim})"
        )
        raise ConfigError(problem, f"give both stages --set body={str(there.body).lower()}, or another `init`")
    _check_rate(float(start.settings["rate_hz"]), settings)


def _check_rate(rate_hz: float, settings: RobomirrorSettings) -> None:
    if abs(rate_hz - settings.rate_hz) > 1e-4:
        problem = f"the motion of `init` has {rate_hz:g} frames a second, and rate_hz is {settings.rate_hz:g}"
        raise ConfigError(problem, INIT_HINT)


RECIPE = Robomirror()
