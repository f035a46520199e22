"""Stages: the declared steps that compute a clip's columns, their graph and keys; and what own stages are made of."""

from handloom.errors import ClipError
from handloom.stages.stage import ClipInput, FrameRequest, Stage, StageSettings, embedding_field, frame_field

__all__ = ["ClipError", "ClipInput", "FrameRequest", "Stage", "StageSettings", "embedding_field", "frame_field"]
