"""A rendered clip on disk: the video, and beside it its camera file and its truth."""

from __future__ import annotations

import json
from pathlib import Path

from handloom.synth.render.render import MapKeeper, render_clip
from handloom.synth.script.scene import SceneSpec
from handloom.synth.truth import TRUTH_SUFFIX, Truth
from handloom.video.write import DEFAULT, Encoding, write_video


def write_clip(
    spec: SceneSpec,
    path: Path | str,
    *,
    camera: bool = True,
    poses: bool = True,
    truth: bool = True,
    encoding: Encoding = DEFAULT,
) -> Truth:
    """Render `spec` to `path` (.mp4), with NAME.camera.json and NAME.truth.npz beside it, and return the truth.

    Args:
        camera, truth: whether to write these files. poses: whether the camera file has poses beside intrinsics.

    Returns:
        The truth, with depth and id maps if `truth` is set; its pixels are those of the image as players show it,
        whatever rotation tag `encoding` writes.
    """
    path = Path(path)
    clip = render_clip(spec)
    keeper = MapKeeper(clip) if truth else None
    write_video(path, keeper.images() if keeper else clip.images(), clip.truth.frame_s, encoding)
    known = keeper.truth() if keeper else clip.truth
    if camera:
        path.with_suffix(".camera.json").write_text(camera_json(known, poses=poses))
    if truth:
        known.save(path.with_suffix(TRUTH_SUFFIX))
    return known


def camera_json(truth: Truth, *, poses: bool = True) -> str:
    """The camera file that ingest reads beside a video: intrinsics, lens distortion, poses and their scale."""
    content: dict[str, object] = {"camera_matrix": truth.camera_matrix.ravel().tolist()}
    if len(truth.distortion):
        content["distortion"] = {"model": truth.camera_model, "params": truth.distortion.tolist()}
    if not poses:
        return json.dumps(content)
    content["world_from_camera"] = [
        {"frame_s": float(s), "matrix": matrix.ravel().tolist()}
        for s, matrix in zip(truth.frame_s, truth.world_from_camera, strict=True)
    ]
    content["world_scale"] = "metric"
    return json.dumps(content)
