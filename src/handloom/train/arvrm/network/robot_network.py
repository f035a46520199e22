"""The network of stage 2: next robot states, the map from hand keypoints to robot components, and replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from handloom.train.arvrm.network.backbone import past_images
from handloom.train.arvrm.network.goals import near, places_of
from handloom.train.arvrm.network.keypoints import NUM_POINTS
from handloom.train.arvrm.network.network import KeypointNetwork
from handloom.train.arvrm.settings import ArvrmSettings
from handloom.train.parts.baselines import Past, error_sums, mean_square, past_of
from handloom.train.parts.mlp import Mlp

COMPONENTS = ("arm", "gripper")


class AnalogicalMap(nn.Module):
    """The analogical-reasoning map: f*_s = (1 - alpha) m . f_k + alpha f_s, and from it the robot's state at the last
    step (arXiv 2508.07626).

    m: (S, K) learned, S = 2 components, K = 42 keypoints. Ours: a linear layer brings the keypoints' features to the
    transformer's width, and one per component gives its numbers of the state.
    """

    def __init__(self, settings: ArvrmSettings, sizes: tuple[int, int]) -> None:
        """sizes: the number of the state's numbers in each component."""
        super().__init__()
        self.alpha = settings.alpha
        self.m = nn.Parameter(torch.full((len(COMPONENTS), NUM_POINTS), 1 / NUM_POINTS))
        self.lift = nn.Linear(settings.keypoint_dim, settings.dim)
        self.out = nn.ModuleList(nn.Linear(settings.dim, size) for size in sizes)

    def forward(self, keypoints: Tensor, own: Tensor) -> Tensor:
        """keypoints: (B, J, 42, keypoint_dim) features. own: (B, 2, dim) of the robot. Returns (B, J, numbers)."""
        human = self.lift(torch.einsum("sk,bjkd->bjsd", self.m, keypoints))
        mixed = (1 - self.alpha) * human + self.alpha * own[:, None]
        return torch.cat([out(mixed[:, :, number]) for number, out in enumerate(self.out)], dim=-1)


class Predicted(NamedTuple):
    """state: (B, T - 1, S) of the step after each, in the dataset's units. own: (B, T - 1, 2, dim) the transformer's
    outputs that it was read from. before: what was known at each step."""

    state: Tensor
    own: Tensor
    before: Past


class RobotNetwork(KeypointNetwork):
    """[z_l, z_o1, z_arm1, z_gripper1, z_o2, ...] to the state of step t + 1, for every t at once.

    Loss: L_state + beta L_AR + replay x keypoint loss. Errors of states are in deviations of the training windows
    (ours: a state's numbers have different units). With `init` the keypoint encoder and head are frozen: their weights
    are buffers, which checkpoints keep and the optimiser does not change.
    """

    state_mean: Tensor
    state_std: Tensor
    state_step_std: Tensor
    things_mean: Tensor
    things_std: Tensor

    def __init__(self, settings: ArvrmSettings, facts: Mapping[str, Any]) -> None:
        super().__init__(settings, facts)
        for name in ("mean", "std", "step_std"):
            self.register_buffer(f"state_{name}", torch.tensor(facts[f"state_{name}"], dtype=torch.float32))
        self.things: tuple[str, ...] = tuple(facts.get("things", ()))
        self.things_encoder = None
        if facts.get("things"):
            for name in ("mean", "std"):
                self.register_buffer(f"things_{name}", torch.tensor(facts[f"things_{name}"], dtype=torch.float32))
            self.places = places_of(facts["things"]) if settings.goal_s else []
            self.place_kinds = nn.Parameter(0.02 * torch.randn(len(self.places), settings.dim))
            self.things_encoder = Mlp(len(facts["things"]), settings.dim, hidden=settings.dim)
        self.parts = parts_of(facts)
        arm, gripper = (len(part) for part in self.parts)
        sizes = (arm, gripper)
        self.state_encoders = nn.ModuleList(Mlp(2 * size, settings.dim, hidden=settings.dim) for size in sizes)
        self.state_place = nn.Parameter(0.02 * torch.randn(len(COMPONENTS), settings.dim))
        self.state_head = Mlp(len(COMPONENTS) * settings.dim, sum(sizes), hidden=settings.dim)
        with torch.no_grad():
            self.state_head.outer.weight.mul_(0.1)
        self.map = AnalogicalMap(settings, sizes) if settings.retrieval else None
        if settings.init:
            freeze(self.keypoint_encoder)
            freeze(self.keypoint_head)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of `RobotSample`s to `{"loss", "sums", "prediction"}`; prediction (B, T - 1, S), in its units."""
        state = batch["state"].float()
        predicted, own, before = self.predict(batch)
        scaled = Past(before.last / self.state_std, before.velocity / self.state_std, before.age)
        guess, true = predicted.float() / self.state_std, state[:, 1:] / self.state_std
        loss, counted = mean_square(guess, true)
        sums = {"state": counted} | error_sums(guess, true, scaled)
        if self.map is not None:
            loss_ar, sums["analogy"] = self._analogy(batch, own[:, -1], state[:, -1])
            loss = loss + self.settings.beta * loss_ar
        if self.training and "replay_keypoints" in batch and self.settings.replay:
            loss = loss + self.settings.replay * self._replay_loss(batch)
        sums["loss"] = torch.stack([loss.detach().double() * counted[1], counted[1]])
        return {"loss": loss, "sums": sums, "prediction": predicted}

    def predict(self, batch: Mapping[str, Any]) -> Predicted:
        """The next states, from `state` (B, T, S), whose last step is not looked at, `text` and images."""
        known = batch["state"].float()[:, :-1]
        before = past_of(known)
        own = self._own(batch, known, before)
        return Predicted(self._next(own, before), own, before)

    def _own(self, batch: Mapping[str, Any], state: Tensor, before: Past) -> Tensor:
        """(B, T - 1, 2, dim) the transformer's outputs at the tokens of arm and gripper."""
        places, motion = (state - self.state_mean) / self.state_std, before.velocity / self.state_step_std
        numbers = near(torch.stack([places, motion], dim=-1))
        pairs = zip(self.state_encoders, self.parts, strict=True)
        tokens = torch.stack([encode(numbers[:, :, part].flatten(2)) for encode, part in pairs], dim=2)
        tokens = tokens + self.state_place
        if self.things_encoder is not None:
            tokens = torch.cat([self._told(self.things_encoder, batch), tokens], dim=2)
        return self.backbone(list(batch["text"]), past_images(batch), tokens)[:, :, -len(COMPONENTS) :]

    def _told(self, encoder: Mlp, batch: Mapping[str, Any]) -> Tensor:
        """(B, T - 1, 1 + P, dim) the tokens of where things are, which come before the arm's in every step: one of all
        numbers, and with `goal_s` one of each place."""
        things = batch["things"].float()[:, :-1]
        tokens = encoder(near((things - self.things_mean) / self.things_std))[:, :, None]
        if not self.places or self.goals is None:
            return tokens
        places = torch.stack([things[..., place] / self.things_std[place] for place in self.places], dim=2)
        return torch.cat([tokens, self.goals(places) + self.place_kinds], dim=2)

    def _next(self, own: Tensor, before: Past) -> Tensor:
        """(B, T - 1, S) next states, in their own order and units."""
        found = self._ordered(self.state_head(own.flatten(2)))
        if not self.settings.residual:
            return self.state_mean + self.state_std * found
        known = before.last.isfinite()
        start = torch.where(known, before.last, self.state_mean)
        return start + torch.where(known, self.state_step_std, self.state_std) * found

    def _analogy(self, batch: Mapping[str, Any], own: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """L_AR: the sum over the retrieved clips of the mean squared error of the last state; and (sum, count) of it.

        Ours: a clip's keypoints are those of the step at which the same share of the clip has passed as of the episode.
        """
        keypoints = batch["retrieved"].float()
        size, num = keypoints.shape[:2]
        flat = keypoints.flatten(0, 1)
        at = (batch["progress"].float() * (flat.shape[1] - 1)).round().long().repeat_interleave(num)
        row = torch.arange(len(flat), device=flat.device)
        past = past_of(flat)
        past = Past(*(values[row, at][:, None] for values in (past.last, past.velocity, past.age)))
        features, _ = self.keypoint_encoder(flat[row, at][:, None], past)
        if self.map is None:
            raise ValueError("this network has no map: retrieval is off")
        found = self._ordered(self.map(features.view(size, num, *features.shape[-2:]), own))
        true = ((last - self.state_mean) / self.state_std)[:, None].expand_as(found)
        mean, counted = mean_square(found.float(), true)
        return num * mean, counted

    def _replay_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of stage 1 on windows of the retrieved clips."""
        predicted, _ = self.predict_keypoints(batch, "replay_")
        return mean_square(predicted.float(), batch["replay_keypoints"][:, 1:])[0]

    def _ordered(self, values: Tensor) -> Tensor:
        """Numbers sorted by component, brought into the state's order."""
        order = torch.tensor([i for part in self.parts for i in part], device=values.device)
        return values[..., order.argsort()]


def parts_of(facts: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Indices of the state's numbers that belong to the arm, and of those that belong to the gripper."""
    gripper = list(facts["gripper"])
    return [i for i in range(len(facts["state_mean"])) if i not in gripper], gripper


def freeze(module: nn.Module) -> None:
    """Make every parameter a buffer of the same name: it is saved, moved and used as before, but not trained."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value.detach())
    module.eval()
