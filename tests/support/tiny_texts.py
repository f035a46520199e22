"""Tokenizers of a dozen words beside tiny random networks, and tiny sentence encoders, as their authors save theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("<pad>", "<s>", "<unk>", "</s>", "open", "close", "the", "door", "drawer", "cut", "bread", "push", "box")
LENGTH = 16


def save_tokenizer(folder: Path) -> None:
    """A tokenizer that splits at spaces, with a token at the beginning and one at the end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("<s>", numbers["<s>"]), ("</s>", numbers["</s>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokens = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LENGTH, **tokens).save_pretrained(folder)


def save_letters(folder: Path) -> None:
    """The tokenizer that transformers takes for SigLIP 2 NaFlex, with letters for pieces."""
    from transformers import Siglip2Tokenizer

    tokens = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"▁openthdrcuslab")
    Siglip2Tokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)


def save_sentences(folder: Path, pooling: str | None = "mean_tokens", seed: int = 0) -> Any:
    """A BERT as sentence-transformers saves it. pooling: None: its file is missing."""
    import torch
    import transformers as t

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = t.BertModel(t.BertConfig(vocab_size=len(WORDS), max_position_embeddings=LENGTH, **sizes))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "max_tokens")}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes}))
    return model.eval()
