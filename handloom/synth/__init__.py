"""Rendered egocentric scenes with exact truth: the demo's and the tests' videos."""

from handloom.synth.clip import write_clip
from handloom.synth.demo import demo_specs
from handloom.synth.render import RenderedClip, RenderedFrame, render_clip
from handloom.synth.scene import SceneSpec, Truth

__all__ = ["RenderedClip", "RenderedFrame", "SceneSpec", "Truth", "demo_specs", "render_clip", "write_clip"]
