"""A published model's tokenizer: which files it is made of, whether it is there, and its identity by digest."""

from __future__ import annotations

from handloom.errors import ConfigError
from handloom.models.hub.pretrained import PretrainedFiles

POOLING = "1_Pooling/config.json"
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""One of them is there; without any, transformers would begin with an empty vocabulary."""
TOKENS = (
    *VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *(POOLING, "sentence_bert_config.json"),
)
"""Files that decide how a text becomes tokens, and how their vectors become one."""


def check_tokens(setting: str, files: PretrainedFiles) -> None:
    """Raise ConfigError if a model has no tokenizer. setting: name of the one that names the model."""
    if not any((files.folder / each).is_file() for each in VOCABULARIES):
        problem = f"{setting}: {files.name!r} has no tokenizer ({', '.join(VOCABULARIES)}; looked in {files.folder})"
        raise ConfigError(problem, "copy the tokenizer's files beside the weights")


def tokens_digest(files: PretrainedFiles) -> str:
    """SHA-256 over the names and bytes of the tokenizer's files, 16 hex digits. Raises ConfigError."""
    return files.digest_of(TOKENS)
