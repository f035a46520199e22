"""All stages of a run: those that handloom brings, and those that the settings declare."""

from __future__ import annotations

from collections.abc import Iterator

from handloom.errors import ConfigError
from handloom.schemas.settings import OWN_STAGE, Settings, StageConfig
from handloom.schemas.tables.stage_columns import COLUMNS_OF
from handloom.stages.builtin.camera import CameraStage, Depth, LensStage, WorldStage
from handloom.stages.builtin.embeddings import Appearance, Motion
from handloom.stages.builtin.hands import Hands2D, Hands3D
from handloom.stages.builtin.images import Images, Probe, StoredFrames
from handloom.stages.builtin.quality import QualityStage
from handloom.stages.builtin.tracks import Lift, TracksStage
from handloom.stages.graph import StageGraph
from handloom.stages.own import OwnStage, load_stage
from handloom.stages.work import BuiltinStage

BUILTIN: tuple[type[BuiltinStage], ...] = (
    Probe,
    StoredFrames,
    Images,
    Hands2D,
    LensStage,
    Depth,
    CameraStage,
    Hands3D,
    TracksStage,
    WorldStage,
    Lift,
    QualityStage,
    Motion,
    Appearance,
)
"""Stages that hand each other values at full precision; their columns are in `COLUMNS_OF` and in the schema of
`clips`."""

MORE: dict[str, str] = {
    "segments": "handloom.stages.builtin.segments:Segments",
    "text": "handloom.stages.builtin.text:Text",
    "look": "handloom.stages.builtin.look:Look",
    "motion_steps": "handloom.stages.builtin.motion_steps:MotionSteps",
    "fingerprint": "handloom.stages.builtin.fingerprint:Fingerprints",
}
"""More stages for every clip, classes of the kind that users write: `"NAME": "handloom.stages.builtin.MODULE:Class"`. A
new stage needs its file and its line here, and nothing else."""

CAPTIONS = ("handloom.stages.learned:Caption", "handloom.stages.learned:RuleCaption")
LONGEST_NAME = 40
CAPTION_TEXT = "handloom.stages.builtin.text:CaptionText"
"""Follows each stage of captions, so that `search --text` finds them by meaning."""


def builtin_stages(settings: Settings) -> list[BuiltinStage]:
    """The stages that handloom brings, in order, without their models."""
    return [stage(settings) for stage in BUILTIN]


def own_stages(settings: Settings) -> list[OwnStage]:
    """The stages that the settings declare. Raises ConfigError where one cannot be used."""
    owners = {column: stage for stage, columns in COLUMNS_OF.items() for column in columns if column != "end_s"}
    declared = {name: StageConfig(class_=text) for name, text in MORE.items()}
    declared |= dict(_of_captions(settings))
    declared |= {name: _of_more(name, config) for name, config in settings.stages.items() if not _brought(name, config)}
    found = [load_stage(name, config, owners) for name, config in declared.items()]
    owners |= {column: stage.name for stage in found for column in stage.columns}  # seen by all of them
    return found


def stage_graph(settings: Settings) -> StageGraph:
    """The graph of all stages. Raises ConfigError (`StageGraph`)."""
    own = own_stages(settings)
    return StageGraph(settings, [*builtin_stages(settings), *own], {stage.name: stage.fields for stage in own})


def own_identities(settings: Settings) -> dict[str, str]:
    """What own stages say of themselves in this process, as entries of the versions."""
    return {OWN_STAGE + stage.name: stage.identity_text() for stage in own_stages(settings)}


def own_licences(settings: Settings) -> dict[str, str]:
    """`{stage: licence of its weights}` of the declared stages whose columns name one."""
    found = {}
    for stage in own_stages(settings):
        named = {(field.metadata or {}).get(b"licence", b"").decode() for field in stage.fields} - {""}
        if named:
            found[stage.name] = ", ".join(sorted(named))
    return found


def _of_captions(settings: Settings) -> Iterator[tuple[str, StageConfig]]:
    """The stage `NAME_text` of each stage NAME of captions."""
    for name, config in settings.stages.items():
        if config.class_ in CAPTIONS:
            column = f"{config.settings.get('prefix', '')}caption"
            yield f"{name[: LONGEST_NAME - 5]}_text", StageConfig(class_=CAPTION_TEXT, settings={"column": column})


def _brought(name: str, config: StageConfig) -> bool:
    """Whether an entry only gives resources to a stage that handloom brings. Raises ConfigError where it does more."""
    if name not in COLUMNS_OF:
        return False
    if config.class_ or config.settings:
        section = {"probe": "video", "hands_2d": "hands", "hands_3d": "hands", "lens": "camera"}.get(name, name)
        problem = f"[stages.{name}]: handloom brings the stage {name}: only its resources can be set there"
        raise ConfigError(problem, f"its settings are in [{section}]; give a stage of your own another name")
    return True


def _of_more(name: str, config: StageConfig) -> StageConfig:
    """A stage's configuration, with the class of a stage in `MORE`. Raises ConfigError if it names another one."""
    if name not in MORE:
        return config
    if config.class_ not in ("", MORE[name]):
        problem = f"[stages.{name}]: handloom brings the stage {name}, class = {config.class_!r} cannot take its place"
        raise ConfigError(problem, "leave class out, or give a stage of your own another name")
    return config.model_copy(update={"class_": MORE[name]})
