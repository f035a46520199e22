"""What a vision-language model of this machine will be, known before it is loaded: kind, width, files and licence."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from handloom.errors import ConfigError
from handloom.models.hub.fingerprints import file_digest
from handloom.models.hub.licences import licence_of_folder
from handloom.models.hub.pretrained import PretrainedFiles, find_with_config
from handloom.models.hub.tokens import TOKENS, check_tokens, tokens_digest
from handloom.schemas.towers import AskSettings
from handloom.schemas.version_policy import counted

VERSION = "1"
KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Of transformers' `model_type`: they mark images in their tokens in one way."""


GENERATION = "generation_config.json"
"""How the authors let it write: penalties of repeated words, among others."""


@dataclass(frozen=True)
class LocalPlan:
    """where: what comes before the settings' names in errors. dim: width of the last hidden states."""

    settings: AskSettings
    where: str
    files: PretrainedFiles
    config: Any
    dim: int
    licence: str | None

    def identity(self) -> dict[str, str]:
        """What can change an answer and is no setting: code, weights and tokens by digest, libraries."""
        libraries = counted({name: version(name) for name in ("torch", "transformers", "tokenizers", "pillow")})
        digests = {"weights": self.files.digest(), "tokens": tokens_digest(self.files)}
        rules = self.files.folder / GENERATION
        if rules.is_file():
            digests["generation"] = file_digest(rules)
        return {"vision_language": VERSION, **digests, **libraries}


def plan_local(settings: AskSettings, where: str = "") -> LocalPlan:
    """Find the model's files, fetching them if need be. No network is loaded.

    where: what comes before the settings' names in errors, such as `stages.caption.settings.`.

    Raises:
        ConfigError: the model is not available, or of a kind that is not supported.
    """
    name = f"{where}model"
    files, config = find_with_config(name, settings.model, settings.revision, (*TOKENS, GENERATION))
    if config.model_type not in KINDS:
        problem = f"{name}: {settings.model!r} is of the type {config.model_type}, expected one of {', '.join(KINDS)}"
        raise ConfigError(problem, "take a Qwen-VL model, or serve yours (vLLM) and give base_url")
    check_tokens(name, files)
    text = getattr(config, "text_config", None) or config
    licence = settings.licence or licence_of_folder(files.folder)
    return LocalPlan(settings, where, files, config, text.hidden_size, licence)
