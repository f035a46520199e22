"""A rendered clip on disk: the video, and beside it the camera as given and the truth."""

from __future__ import annotations

import json
from pathlib import Path

from handloom.synth.render import render_clip
from handloom.synth.scene import SceneSpec, Truth
from handloom.video.write import DEFAULT, Encoding, write_video


def write_clip(
    spec: SceneSpec,
    path: Path | str,
    *,
    camera: bool = True,
    truth: bool = True,
    encoding: Encoding = DEFAULT,
) -> Truth:
    """Renders `spec` to PATH (`.mp4`), NAME.camera.json and NAME.truth.npz beside it, and returns the truth.

    camera, truth: write the file. The truth's pixels are those of the picture as seen, whatever the rotation tag.
    """
    path = Path(path)
    clip = render_clip(spec)
    write_video(path, clip.images(), clip.truth.frame_s, encoding)
    if camera:
        path.with_suffix(".camera.json").write_text(camera_json(clip.truth))
    if truth:
        clip.truth.save(path.with_suffix(".truth.npz"))
    return clip.truth


def camera_json(truth: Truth) -> str:
    """The camera file that ingest reads beside a video: intrinsics, poses and their scale."""
    poses = [
        {"frame_s": float(s), "matrix": matrix.ravel().tolist()}
        for s, matrix in zip(truth.frame_s, truth.world_from_camera, strict=True)
    ]
    content = {
        "camera_matrix": truth.camera_matrix.ravel().tolist(),
        "world_from_camera": poses,
        "world_scale": "metric",
    }
    return json.dumps(content)
