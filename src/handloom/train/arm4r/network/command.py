"""The instruction token of a policy that is told its task by a clip of a person (ours)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from handloom.errors import ConfigError
from handloom.train.arm4r.data.commands import HELD_OUT, TRAIN, commands_of
from handloom.train.parts.mlp import Mlp


class MotionCommand(nn.Module):
    """A batch's clips to instruction tokens.

    While training, each window is told by a clip of its task that is drawn at random of those that are trained on. In
    evaluation mode by the latents in `batch["command"]`; windows of the table, which have none, by one of the held-out
    clips that depends on the window alone.

    facts: of `command_facts`.
    """

    train_clips: Tensor
    held_out_clips: Tensor

    def __init__(self, facts: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.motion = facts["motion"]
        self.encoder = Mlp(facts["parts"] * facts["width"], width)
        self._ranges: dict[str, dict[str, tuple[int, int]]] = {}
        for split in (TRAIN, HELD_OUT):
            rows: list[Tensor] = []
            self._ranges[split] = {}
            for task, found in commands_of(facts, split).by_task.items():
                self._ranges[split][task] = (len(rows), len(found))
                rows += [torch.from_numpy(found[name]) for name in sorted(found)]
            self.register_buffer(f"{split}_clips", torch.stack(rows), persistent=False)  # the facts have them

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """(B, width) tokens of a batch with `text`, and `command` (B, parts * latent) or `clip_id` and `now_s`.

        Raises ConfigError: nothing tells the network what to do.
        """
        return self.encoder(self._latents(batch))

    def _latents(self, batch: Mapping[str, Any]) -> Tensor:
        if not self.training and "command" in batch:
            return batch["command"].to(self.held_out_clips)
        ranges, table = self._ranges[HELD_OUT], self.held_out_clips
        if self.training:
            ranges, table = self._ranges[TRAIN], self.train_clips
        if "clip_id" not in batch or set(batch["text"]) - ranges.keys():
            problem = "this network is told its task by the motion in a clip of a person, and no clip was given"
            hint = f"give it the latents that {self.motion} makes of one: `tell` of its predictor, or batch['command']"
            raise ConfigError(problem, hint)
        first, num = torch.tensor([ranges[text] for text in batch["text"]]).T
        if self.training:
            place = (torch.rand(len(num)) * num).long()
        else:
            windows = zip(batch["clip_id"], batch["now_s"].tolist(), strict=True)
            place = torch.tensor([zlib.crc32(f"{name}:{now_s:.3f}".encode()) for name, now_s in windows]) % num
        return table[(first + place).to(table.device)]
