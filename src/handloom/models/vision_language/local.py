"""A vision-language model that runs in this process: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, by transformers.

Its tokens are written here, and not by the model's own processor, which needs torchvision and prepares images otherwise
with it: a caption would depend on what is installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handloom.errors import ConfigError
from handloom.models.devices import check_device
from handloom.models.hub.pretrained import load_network, unavailable
from handloom.models.vision_language.plan import LocalPlan
from handloom.models.vision_language.prompts import with_schema
from handloom.models.vision_language.questions import AnswerError, Question, Said, complaint

BEGIN, END = "<|im_start|>", "<|im_end|>"
WITH_SYSTEM = ("qwen2_vl", "qwen2_5_vl")
SYSTEM = f"{BEGIN}system\nYou are a helpful assistant.{END}\n"
"""What these models saw first in training; Qwen3-VL begins with the user."""


class LocalModel:
    """One network with its tokenizer, loaded on its device.

    Raises:
        ConfigError: there is no such device; weights, tokenizer or preprocessing cannot be read, or do not fit.
    """

    def __init__(self, plan: LocalPlan) -> None:
        import torch

        self.plan, self._torch, self._device = plan, torch, plan.settings.device
        check_device(f"{plan.where}device", self._device)
        self._dtype = getattr(torch, plan.settings.dtype)
        try:
            self._tokenizer, self._images, network = self._load()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise unavailable(f"{plan.where}model", plan.settings.model, str(error)) from error
        self._network = network.to(self._device).eval().requires_grad_(False)
        self._end_id = self._tokenizer.convert_tokens_to_ids(END)
        if None in (self._end_id, self._tokenizer.convert_tokens_to_ids(BEGIN)):
            raise ConfigError(f"{plan.where}model: the tokenizer of {plan.settings.model!r} has no {BEGIN} and {END}")
        self._knows_kinds = "mm_token_type_ids" in inspect.signature(network.forward).parameters  # since transformers 5

    def reply(self, question: Question, said: Sequence[Said]) -> str:
        """The likeliest answer. Raises AnswerError if it is cut."""
        inputs = self._inputs(question, said)
        most = self.plan.settings.max_tokens
        plain = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1}
        ends = {"eos_token_id": self._end_id, "pad_token_id": self._end_id}
        with self._torch.inference_mode():
            found = self._network.generate(**inputs, max_new_tokens=most, **plain, **ends)
        tokens = found[0, inputs["input_ids"].shape[1] :].tolist()
        if self._end_id not in tokens:
            raise AnswerError(f"it was cut at max_tokens = {most}: answer more briefly")
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def intent(self, question: Question) -> NDArray[np.float32]:
        """(L, d): the last hidden states after the question, the mean over each image's tokens."""
        inputs = self._inputs(question, ())
        with self._torch.inference_mode():
            states = self._network.base_model(**inputs).last_hidden_state[0]
            at = inputs["input_ids"][0] == self.plan.config.image_token_id
            per_image = states[at].float().reshape(len(question.images), -1, states.shape[-1])
            return per_image.mean(1).cpu().numpy()

    def _inputs(self, question: Question, said: Sequence[Said]) -> dict[str, Any]:
        config, torch = self.plan.config, self._torch
        pixels = self._images(images=list(question.images), return_tensors="pt")
        grids = pixels["image_grid_thw"]
        merged = config.vision_config.spatial_merge_size**2
        system = SYSTEM if config.model_type in WITH_SYSTEM else ""
        ids = self._ids(f"{system}{BEGIN}user\n") + self._ids(_plain(with_schema(question.text, question.schema)))
        for number, grid in enumerate(grids.tolist()):
            if question.image_s is not None:
                ids += self._ids(f"\n{question.image_s[number]:.2f} s:")
            num = grid[0] * grid[1] * grid[2] // merged
            ids += [config.vision_start_token_id, *[config.image_token_id] * num, config.vision_end_token_id]
        for answer, problem in said:
            ids += self._ids(f"{END}\n{BEGIN}assistant\n") + self._ids(_plain(answer))
            ids += self._ids(f"{END}\n{BEGIN}user\n") + self._ids(_plain(complaint(problem)))
        ids += self._ids(f"{END}\n{BEGIN}assistant\n")
        found = torch.tensor([ids], device=self._device)
        inputs = {"input_ids": found, "attention_mask": torch.ones_like(found)}
        inputs["pixel_values"] = pixels["pixel_values"].to(self._device, self._dtype)
        inputs["image_grid_thw"] = grids.to(self._device)
        if self._knows_kinds:
            inputs["mm_token_type_ids"] = (found == config.image_token_id).int()
        return inputs

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _load(self) -> tuple[Any, Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoTokenizer

        plan = self.plan
        folder = str(plan.files.folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        images = _image_processor().from_pretrained(folder)
        if plan.settings.max_pixels:
            images.size = {**images.size, "longest_edge": plan.settings.max_pixels}
            images.max_pixels = plan.settings.max_pixels
        options = {"dtype": self._dtype, "config": plan.config}
        return tokenizer, images, load_network(AutoModelForImageTextToText, plan.settings.model, folder, **options)


def _image_processor() -> Any:
    """The one that computes with numpy and Pillow, whether torchvision is installed or not."""
    try:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    except ImportError:  # transformers 4
        from transformers import Qwen2VLImageProcessor

        return Qwen2VLImageProcessor
    return Qwen2VLImageProcessorPil


def _plain(text: str) -> str:
    """Words of a clip or an answer cannot end the turn: `<|im_end|>` in them is text."""
    return text.replace("<|", "< |")
