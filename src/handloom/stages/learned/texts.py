"""Embeddings of a clip's words by published networks, and the texts' side of an image network that has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from handloom.errors import ConfigError
from handloom.models.language.plan import VERSION, plan_texts
from handloom.models.language.tower import TextTower as Network
from handloom.models.language.words import vector_of
from handloom.schemas.settings import StageConfig
from handloom.schemas.towers import TextTowerSettings
from handloom.stages.learned.towers import Tower, TowerStageSettings
from handloom.stages.stage import ClipInput, Stage, StageSettings, embedding_field


class TextTowerStageSettings(TextTowerSettings, StageSettings):
    """What can change the embedding, but for the weights' bytes."""


class TextTower(Stage):
    """The column `embedding_NAME` of `[stages.NAME]`: a network's unit vector of each clip's words; null without words.

    Raises:
        ConfigError: the model is not there, of an unknown kind, or sees images alone.
    """

    version = VERSION
    columns = ("narration", "verb", "noun")
    Settings = TextTowerStageSettings
    settings: TextTowerStageSettings

    def __init__(self, name: str, settings: TextTowerStageSettings) -> None:
        super().__init__(name, settings)
        self._plan = plan_texts(settings, f"stages.{name}.settings.")

    def fields(self) -> Sequence[pa.Field]:
        plan = self._plan
        model = plan.settings.model if plan.files.revision else Path(plan.settings.model).name
        return [embedding_field(self.name, plan.dim, model=model, version=plan.files.weights(), licence=plan.licence)]

    def identity(self) -> Mapping[str, str]:
        return self._plan.identity()

    def load(self) -> None:
        self._network = Network(self._plan)

    def compute(self, clips: Sequence[ClipInput]) -> Sequence[Mapping[str, Any]]:
        column, rows = f"embedding_{self.name}", [one.row for one in clips]
        return [{column: vector_of(self._network, row["narration"], row["verb"], row["noun"])} for row in rows]

    def close(self) -> None:
        del self._network


def text_encoder(config: StageConfig, field: pa.Field) -> Network:
    """The network that puts texts beside the vectors of a column: of a stage `Tower` (SigLIP, CLIP: text to picture),
    or of a stage `TextTower`.

    Args:
        config: of the stage that writes the column, from the database's settings.
        field: of the column `embedding_NAME` in the table.

    Raises:
        ConfigError: the network sees images alone, is not there, or has other weights than those of the column.
    """
    name = (field.metadata or {}).get(b"encoder", b"").decode()
    where = f"stages.{name}.settings."
    plan = plan_texts(_text_settings(name, config), where)
    width, weights = field.type.list_size, (field.metadata or {}).get(b"version", b"").decode()
    if plan.dim != width:
        problem = f"{where}model: texts of {plan.settings.model!r} have {plan.dim} numbers, {field.name} has {width}"
        raise ConfigError(problem, "search by a network whose texts and images have one width (SigLIP, CLIP)")
    if plan.files.weights() != weights:
        problem = f"{field.name} was made with {weights} of {plan.settings.model!r}, here is {plan.files.weights()}"
        raise ConfigError(problem, "use the model's files of the run, or `handloom run --recompute` with those of here")
    return Network(plan)


def _text_settings(name: str, config: StageConfig) -> TextTowerSettings:
    classes: dict[str, type[TowerStageSettings] | type[TextTowerStageSettings]] = {
        f"handloom.stages.learned:{Tower.__name__}": TowerStageSettings,
        f"handloom.stages.learned:{TextTower.__name__}": TextTowerStageSettings,
    }
    kind = classes.get(config.class_)
    if kind is None:
        problem = f"[stages.{name}]: {config.class_ or 'handloom'} has no network for texts"
        raise ConfigError(problem, f"expected one of {', '.join(classes)}")
    try:
        given = kind(**config.settings)
    except ValidationError as error:
        raise ConfigError(f"[stages.{name}]: {error}", "mend the settings of the database") from error
    if isinstance(given, TextTowerStageSettings):
        return given
    return TextTowerSettings(model=given.model, revision=given.revision)
