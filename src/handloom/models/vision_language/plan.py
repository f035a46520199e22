"""What a vision-language model of this machine will be, known before it is loaded: kind, width, files and licence."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from handloom.errors import ConfigError
from handloom.models.hub.fingerprints import file_digest
from handloom.models.hub.licences import licence_of_folder
from handloom.models.hub.pretrained import PretrainedFiles, find_pretrained, unavailable
from handloom.models.language.plan import VOCABULARIES, fetch_tokens, tokens_digest
from handloom.schemas.towers import CaptionSettings
from handloom.schemas.version_policy import counted

VERSION = "1"
KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Of transformers' `model_type`: they mark images in their tokens in one way."""


GENERATION = "generation_config.json"
"""How the authors let it write: penalties of repeated words, among others."""


@dataclass(frozen=True)
class LocalPlan:
    """where: what comes before the settings' names in errors. dim: width of the last hidden states."""

    settings: CaptionSettings
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


def plan_local(settings: CaptionSettings, where: str = "") -> LocalPlan:
    """Find the model's files, fetching them if need be. No network is loaded.

    where: what comes before the settings' names in errors, such as `stages.caption.settings.`.

    Raises:
        ConfigError: the model is not available, or of a kind that is not supported.
    """
    name = f"{where}model"
    files = find_pretrained(name, settings.model, settings.revision)
    if files.revision:
        fetch_tokens(files, name)
        _fetch_generation(files, name)
    from transformers import AutoConfig  # it is installed, or the line above has said so

    try:
        config = AutoConfig.from_pretrained(files.folder)
    except (OSError, ValueError, KeyError) as error:
        raise unavailable(name, settings.model, str(error)) from error
    if config.model_type not in KINDS:
        problem = f"{name}: {settings.model!r} is of the type {config.model_type}, expected one of {', '.join(KINDS)}"
        raise ConfigError(problem, "take a Qwen-VL model, or serve yours (vLLM) and give base_url")
    if not any((files.folder / each).is_file() for each in VOCABULARIES):
        problem = f"{name}: {settings.model!r} has no tokenizer ({', '.join(VOCABULARIES)}; looked in {files.folder})"
        raise ConfigError(problem, "copy the tokenizer's files beside the weights")
    text = getattr(config, "text_config", None) or config
    licence = settings.licence or licence_of_folder(files.folder)
    return LocalPlan(settings, where, files, config, text.hidden_size, licence)


def _fetch_generation(files: PretrainedFiles, setting: str) -> None:
    """Fetch `GENERATION` of a model of the hub beside its weights, if there is one."""
    from transformers.utils import cached_file

    options: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    options |= {"_raise_exceptions_for_connection_errors": False, "revision": files.revision}
    try:
        cached_file(files.source, GENERATION, **options)
    except (OSError, ValueError) as error:
        raise unavailable(setting, files.name, str(error)) from error
