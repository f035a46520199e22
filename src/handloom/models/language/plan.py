"""What a learned embedding of texts will be, known before any network is loaded: kind, width, tokens and files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from handloom.errors import ConfigError
from handloom.models.hub.licences import licence_of_folder
from handloom.models.hub.pretrained import PretrainedFiles, find_with_config
from handloom.models.hub.tokens import POOLING, TOKENS, check_tokens, tokens_digest
from handloom.schemas.towers import TextTowerSettings
from handloom.schemas.version_policy import counted

VERSION = "1"
IMAGE_ONLY = ("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext", "vjepa2", "videomae")


@dataclass(frozen=True)
class TextKind:
    """A `model_type` of transformers. network: its class. pools: `projected`: the network's own vector in the space of
    images; `pooled`: its own pooling; `tokens`: the mean of the tokens' vectors, or the first one's, as the model's
    files say. fills: texts are filled up to the full length, and no token is masked, as in training."""

    network: str
    pools: str
    fills: bool = False


_SENTENCES = TextKind("AutoModel", "tokens")
KINDS = {
    "clip": TextKind("CLIPTextModelWithProjection", "projected"),
    "clip_text_model": TextKind("CLIPTextModelWithProjection", "projected"),
    "siglip": TextKind("SiglipTextModel", "pooled", fills=True),
    "siglip_text_model": TextKind("SiglipTextModel", "pooled", fills=True),
    "siglip2": TextKind("Siglip2TextModel", "pooled", fills=True),
    "siglip2_text_model": TextKind("Siglip2TextModel", "pooled", fills=True),
} | dict.fromkeys(("bert", "distilbert", "modernbert", "mpnet", "roberta", "xlm-roberta"), _SENTENCES)


@dataclass(frozen=True)
class TextPlan:
    """One learned embedding of texts. where: what comes before the settings' names in errors. dim: its width.
    num_tokens: a longer text is cut there. takes_first: of the tokens' vectors the first is taken, not the mean.
    """

    settings: TextTowerSettings
    where: str
    files: PretrainedFiles
    kind: TextKind
    config: Any
    dim: int
    num_tokens: int
    takes_first: bool
    licence: str | None

    def identity(self) -> dict[str, str]:
        """What can change the embedding and is no setting: code, weights and tokens by digest, libraries."""
        libraries = counted({name: version(name) for name in ("torch", "transformers", "tokenizers")})
        digests = {"weights": self.files.digest(), "tokens": tokens_digest(self.files)}
        return {"text_tower": VERSION, **digests, **libraries}


def plan_texts(settings: TextTowerSettings, where: str = "") -> TextPlan:
    """Find the model's files, fetching them if need be, and check them. No network is loaded.

    where: what comes before the settings' names in errors, such as `stages.words.settings.`.

    Raises:
        ConfigError: the model is not available, is of a kind that is not supported, or sees images alone.
    """
    name = f"{where}model"
    files, config = find_with_config(name, settings.model, settings.revision, TOKENS)
    kind = KINDS.get(config.model_type)
    if kind is None:
        problem = f"{name}: {settings.model!r} is of the type {config.model_type}"
        if config.model_type in IMAGE_ONLY:
            hint = "take SigLIP 2 or CLIP, which were trained on images with their texts"
            raise ConfigError(f"{problem}, which sees images alone: it has no place for texts", hint)
        raise ConfigError(f"{problem}, expected one of {', '.join(KINDS)}", "take one of these networks")
    check_tokens(name, files)
    text = getattr(config, "text_config", None) or config
    return TextPlan(
        settings=settings,
        where=where,
        files=files,
        kind=kind,
        config=text,
        dim=_width(text, kind),
        num_tokens=_num_tokens(files, text),
        takes_first=kind.pools == "tokens" and _takes_first(files, name),
        licence=settings.licence or licence_of_folder(files.folder),
    )


def _width(text: Any, kind: TextKind) -> int:
    if kind.pools == "projected":
        return text.projection_dim
    return getattr(text, "projection_size", None) or text.hidden_size if kind.pools == "pooled" else text.hidden_size


def _num_tokens(files: PretrainedFiles, text: Any) -> int:
    """As the authors of a sentence encoder say; else as many as the network has positions for."""
    most = text.max_position_embeddings
    if text.model_type in ("roberta", "xlm-roberta", "mpnet"):
        most -= 2  # their positions begin behind that of the padding
    said = _json(files, "sentence_bert_config.json").get("max_seq_length")
    return min(most, said) if said else most


def _takes_first(files: PretrainedFiles, setting: str) -> bool:
    """How sentence-transformers pools the tokens; the mean where its file is missing."""
    said = _json(files, POOLING)
    modes = [name for name, is_on in said.items() if name.startswith("pooling_mode_") and is_on is True]
    modes = modes or ["pooling_mode_mean_tokens"]
    if modes in (["pooling_mode_cls_token"], ["pooling_mode_mean_tokens"]):
        return modes == ["pooling_mode_cls_token"]
    problem = f"{setting}: {files.name!r} pools its tokens by {' and '.join(modes)} ({POOLING})"
    raise ConfigError(problem, "expected the mean, or the first token")


def _json(files: PretrainedFiles, name: str) -> dict[str, Any]:
    path = files.folder / name
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        problem = f"{path} of the model {files.name!r} cannot be read: {error}"
        raise ConfigError(problem, "copy the model's files again") from None
