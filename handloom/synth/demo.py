"""A small varied set of scenes."""

from __future__ import annotations

import numpy as np

from handloom.schemas.values import LEFT, RIGHT
from handloom.synth.scene import SKINS, SceneSpec
from handloom.synth.textures import TEXTURES

_NOUNS_BY_ACTION: dict[str, tuple[str, ...]] = {
    "reach": ("cup", "can", "box"),
    "pick-place": ("can", "cup", "block"),
    "push": ("box", "block", "jar"),
    "wave": ("cup", "box", "jar"),
    "wipe": ("cloth",),
    "rotate": ("jar", "can", "cup"),
}


def demo_specs(num: int, seed: int = 0) -> list[SceneSpec]:
    """`num` scenes of 480 x 360 at 30 fps, 2 to 3 s: actions in turn, everything else drawn from the seed."""
    rng = np.random.default_rng([seed, 0])
    actions = list(_NOUNS_BY_ACTION)
    return [_draw(rng, actions[i % len(actions)]) for i in range(num)]


def _draw(rng: np.random.Generator, action: str) -> SceneSpec:
    return SceneSpec(
        action=action,
        noun=str(rng.choice(_NOUNS_BY_ACTION[action])),
        main_hand=RIGHT if rng.random() < 0.6 else LEFT,
        hands="both" if rng.random() < 0.8 else "main",
        seed=int(rng.integers(2**31)),
        duration_s=float(rng.choice([2.0, 2.5, 3.0])),
        fov_deg=float(np.round(rng.uniform(62.0, 72.0), 1)),
        skin=str(rng.choice(list(SKINS))),
        hand_scale=float(np.round(rng.uniform(0.90, 1.08), 2)),
        table=str(rng.choice(list(TEXTURES))),
    )
