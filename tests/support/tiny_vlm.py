"""A tiny random vision-language model of the Qwen3-VL kind, saved to a folder as its authors save theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH, PATCH = 32, 8
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def save_vlm(folder: Path, seed: int = 0, kind: str = "qwen3_vl") -> Any:
    """Write the model's folder; return the model. Its tokens are bytes."""
    import torch
    import transformers as t

    ids = _save_tokenizer(folder)
    torch.manual_seed(seed)
    text = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(ids), "max_position_embeddings": 4096}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
    text["rope_scaling"] = text["rope_parameters"]  # the name of transformers 4
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": PATCH}
    places = {f"{name}_token_id": ids[f"<|{name}|>"] for name in ("vision_start", "vision_end")}
    places |= {"image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|endoftext|>"]}
    if kind == "qwen3_vl":
        vision |= {"out_hidden_size": WIDTH, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        config = t.Qwen3VLConfig(text_config=text, vision_config=vision, **places)
        model = t.Qwen3VLForConditionalGeneration(config)
    else:
        vision |= {"out_hidden_size": WIDTH, "window_size": 32, "fullatt_block_indexes": [1]}
        config = t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **places)
        model = t.Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.forced_eos_token_id = ids["<|im_end|>"]  # a random network would never end
    model.save_pretrained(folder)
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    images = {"image_processor_type": "Qwen2VLImageProcessor", "size": size, "patch_size": PATCH, "merge_size": 2}
    images |= {"min_pixels": 16 * 16, "max_pixels": 64 * 64, "temporal_patch_size": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return model


def _save_tokenizer(folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_of = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=bytes_of, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    fast.save_pretrained(folder)
    return fast.get_vocab()
