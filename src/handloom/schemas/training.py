"""Settings of a training job: `TrainSettings`, which every recipe has; `TrainResources`, which change only the cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from handloom.schemas.settings import Frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TrainSettings(Frozen):
    """The settings that every recipe has; a recipe adds its own. All are stored with every checkpoint."""

    COSTS: ClassVar[frozenset[str]] = frozenset(
        {"loader_workers", "log_every", "checkpoint_every", "checkpoint_epochs", "keep_checkpoints", "compare"}
    )
    LATER: ClassVar[frozenset[str]] = frozenset()
    """Names of settings that are younger than checkpoints: at their defaults they are not in the key."""

    seed: int = Field(0, ge=0)
    """Seed of the initial weights, the order of the windows and the augmentation."""
    where: str = ""
    """SQL filter on the rows that are trained on; empty: all."""
    version: int | None = Field(None, ge=1)
    """Version of the table to train on; by default the newest when the job starts."""
    follow_versions: bool = False
    """Go on with the newest version of the table after each epoch: training may start while clips are extracted."""
    held_out_share: float = Field(0.2, ge=0, lt=1)
    """Share of the videos (whole videos, chosen by a hash of their id) that is never trained on."""
    batch_size: int = Field(32, ge=1)
    """Windows per step and worker."""
    epochs: int = Field(10, ge=1)
    """Passes over the windows."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many steps, if that comes before the epochs' end."""
    lr: float = Field(5e-4, gt=0)
    """Largest learning rate of AdamW, after the warm-up; a half cosine takes it to zero."""
    warmup_epochs: float = Field(1.25, ge=0)
    """Epochs of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    clip_grad_norm: float | None = Field(None, gt=0)
    """Gradients are scaled down to this norm; null: never."""
    accumulate: int = Field(1, ge=1)
    """Batches per step of the optimiser."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: autocast (CUDA; on a CPU it runs, slowly)."""
    compile: bool = False
    """`torch.compile` the network."""
    loader_workers: int = Field(0, ge=0)
    """Threads per training worker that read, decode and cut windows ahead; 0 reads when asked."""
    log_every: int = Field(20, ge=1)
    """Steps between two lines of progress and TensorBoard scalars."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between checkpoints within an epoch."""
    checkpoint_epochs: int = Field(1, ge=1)
    """Every so many epochs, and when it stops, training makes a checkpoint."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that are kept."""
    init: str = ""
    """A checkpoint (a folder or an s3:// URI) whose weights the network starts from, as far as the recipe's stages
    share them."""
    compare: bool = True
    """Also train what the report compares with (from scratch beside pre-trained, without retrieval beside with)."""

    def pinned(self, facts: Mapping[str, Any]) -> Self:
        """The settings with the versions of further tables that a job has read, by the `facts` of its windows.

        So its other ranks, its other variants, and a start that resumes it read the same. A recipe that reads more
        tables than that of its windows overrides this.
        """
        return self

    def settings_key(self) -> str:
        """Hash of everything that changes the weights: a checkpoint of another key is refused on resume."""
        fields = type(self).model_fields
        plain = {name for name in self.LATER if getattr(self, name) == fields[name].default}
        content = self.model_dump(mode="json", exclude=set(self.COSTS) | plain)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class TrainResources(Frozen):
    """What changes only the cost of a training job: how it is placed on the cluster."""

    workers: int = Field(1, ge=1)
    """Data-parallel training workers."""
    cpus_per_worker: float | None = Field(None, gt=0)
    """CPUs that Ray reserves for one worker, including its loader's threads, and the number of torch's threads. By
    default 1 on an existing cluster; on a single machine the workers share all CPUs."""
    gpus_per_worker: float = Field(0.0, ge=0)
    """GPU share that Ray reserves for one worker; 0 trains on CPUs."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """How Ray places the workers over the nodes."""
    max_failures: int = Field(3, ge=0)
    """Worker crashes after which the job fails; after each, training resumes from the newest checkpoint."""
    wait_s: float = Field(300.0, gt=0)
    """Longest wait until the cluster has free resources for the workers."""


@dataclass(frozen=True)
class Example:
    """One held-out window as the report draws it: points in pixels of `frame`, predicted beside true.

    clip_id: the clip. now_s: time of the step that predicts. frame: (h, w, 3) uint8 RGB of that step.
    true_px, predicted_px: (S, N, 2) from the first to the last step, NaN where unknown. title: one line.
    """

    clip_id: str
    now_s: float
    frame: NDArray[np.uint8]
    true_px: NDArray[np.float32]
    predicted_px: NDArray[np.float32]
    title: str = ""
