"""Scripted sequences, and scenes of them that need no rendering."""

from __future__ import annotations

from dataclasses import replace

from handloom.bench.segments.exact import exact_scene
from handloom.synth.script.demo import sequence_specs
from handloom.synth.script.scene import SceneSpec

__all__ = ["exact_scene", "sequence"]


def sequence(seed: int, number: int = 0, turns: int = 2, **changes) -> SceneSpec:
    """A scripted sequence at 15 Hz."""
    return replace(sequence_specs(number + 1, seed, turns=turns)[number], **changes)
