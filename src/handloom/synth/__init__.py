"""Rendered egocentric scenes with exact truth: the demo's, the tests' and the accuracy benchmark's videos."""

from handloom.synth.actions import ACTIONS, ActionSpan
from handloom.synth.clip import write_clip
from handloom.synth.demo import demo_specs, synth_specs, through_lens
from handloom.synth.follow import SurfaceTracks
from handloom.synth.lens import LENSES
from handloom.synth.render import RenderedClip, RenderedFrame, render_all, render_clip
from handloom.synth.scene import SceneSpec
from handloom.synth.truth import Truth

__all__ = [
    "ACTIONS", "LENSES", "ActionSpan", "RenderedClip", "RenderedFrame", "SceneSpec", "SurfaceTracks", "Truth",
    "demo_specs", "render_all", "render_clip", "synth_specs", "through_lens", "write_clip",
]  # fmt: skip
