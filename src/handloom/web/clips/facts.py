"""The clip page: what is known of one clip as JSON, and its arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handloom.draw.segments.listed import judged_text, segments_dict
from handloom.draw.segments.things import color_of, moved_things
from handloom.errors import ConfigError, HandloomError
from handloom.io.addresses import is_remote, local_path
from handloom.schemas.clip import camera_label
from handloom.schemas.settings import Settings
from handloom.schemas.tables.arrow import CLIP_LIST, QUALITY_FIELDS
from handloom.schemas.tables.frame_flags import FLAGS, FrameFlag
from handloom.schemas.tables.stage_columns import caption_columns, key_column
from handloom.store.filters import quoted, stages_of
from handloom.store.runs.runs import list_runs
from handloom.web.answers import asked_id, asked_version, blocking, bytes_answer, json_answer, packed
from handloom.web.clips.arrays import arrays_of
from handloom.web.clips.media import size_of, why_not_played
from handloom.web.clips.truth import truth_path
from handloom.web.gallery import Gallery

UNITS = {"_px": "px", "_mm": "mm", "_m_s": "m/s", "_m": "m", "_s": "s"}
IN_SEGMENTS = ("start_frame", "end_frame", "master", "slave", "keyframes", "object_tracks")
FACTS = tuple(name for name in CLIP_LIST.names if name not in ("camera", "hand"))


def unit_of(name: str) -> str | None:
    """The unit at the end of a number's name."""
    return next((unit for end, unit in UNITS.items() if name.endswith(end)), None)


def flags_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each flag that some frame has: its name, its meaning, and the frames."""
    flags = row.get("frame_flags")
    if flags is None:
        return []
    found = []
    for name, about in FLAGS.items():
        frames = np.flatnonzero(np.asarray(flags) & FrameFlag[name].value)
        if len(frames):
            found.append({"name": name, "about": about, "frames": frames.tolist()})
    return found


def segments_of(row: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, str | None]:
    """The segments, with their frames; and what to say of them. None: nothing is known."""
    told = segments_dict(row)["segments"]
    if told is None:
        return None, None
    more = [{name: one.get(name) for name in IN_SEGMENTS} for one in row["segments"]]
    return [one | extra for one, extra in zip(told, more, strict=True)], judged_text(row)


def meanings() -> dict[str, str]:
    """What settings mean, by their names (`hands.min_tracking_confidence`): those of docs/settings.md."""
    found = {}
    for section, outer in Settings.model_fields.items():
        for name, field in getattr(type(outer.default), "model_fields", {}).items():
            found[f"{section}.{field.alias or name}"] = " ".join((field.description or "").split())
    return found


class Clips:
    """Single clips of a gallery."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    def told(self, clip_id: str, version: int | None) -> dict[str, Any]:
        """All of `/api/clip`. Raises NotThere for a clip without a row."""
        gallery = self._gallery
        catalogue = gallery.catalogue(version)
        row, frames = gallery.row(clip_id, catalogue.version), gallery.frames(clip_id, catalogue.version)
        segments, judged = segments_of(row)
        poses = row.get("world_from_camera")
        return {
            "version": catalogue.version,
            "clip_id": clip_id,
            "facts": {name: row.get(name) for name in FACTS},
            "frame_s": row["frame_s"],
            "size": size_of(frames[0]) if frames else None,
            "source": [row["width"], row["height"]],
            "fps": row["fps"],
            "codec": row["codec"],
            "duration_s": row.get("duration_s"),
            "num_frames": row["num_frames"],
            "video_notes": row.get("video_notes"),
            "camera": {
                "given": camera_label(row.get("camera")),
                "source": row.get("camera_source"),
                "scale": row.get("world_scale"),
                "unit_m": row.get("world_unit_m"),
                "focal_sigma": row.get("camera_focal_sigma"),
                "model": row.get("camera_model"),
                "preset": row.get("camera_preset"),
                "path_source": row.get("camera_path_source"),
                "path_reason": row.get("camera_path_reason"),
                "poses": None if poses is None else int(np.isfinite(poses[:, 0, 0]).sum()),
            },
            "quality": self._quality(catalogue, row),
            "segments": segments,
            "segments_judged": judged,
            "flags": flags_of(row),
            "stages": self._stages(catalogue.schema, row),
            "run": self._run(row.get("run_key")),
            "video": self._video(clip_id, row),
            "frames": bool(frames),
            "truth": None if (beside := truth_path(row)) is None else beside.name,
            "arrays": list(arrays_of(row)),
            "things": [{"name": one.name, "color": color_of(one.name)} for one in moved_things(row)],
            "captions": {name: row.get(name) for name in caption_columns(catalogue.schema)},
            "python": self._python(clip_id, catalogue.version),
            "judgement": self._judgement(clip_id),
            "licence": row.get("licence"),
            "host": row.get("host"),
        }

    def arrays(self, clip_id: str, version: int | None, names: list[str]) -> bytes:
        """Some arrays, packed. Raises ConfigError for a name that the row has no array of."""
        there = arrays_of(self._gallery.row(clip_id, version))
        unknown = [name for name in names if name not in there]
        if unknown:
            raise ConfigError(f"clip {clip_id} has no array {', '.join(unknown)}", f"it has {', '.join(there)}")
        return packed({name: there[name]() for name in names or there})

    def _quality(self, catalogue: Any, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        values = row.get("quality") or {}
        return [
            {
                "name": name,
                "value": values.get(name),
                "unit": unit_of(name),
                "about": about,
            }
            | catalogue.standing(name, values.get(name))
            for name, about in QUALITY_FIELDS.items()
        ]

    def _stages(self, schema: Any, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The key of each stage in the row, and whether it is today's; null where that cannot be told."""
        try:
            today: Mapping[str, str | None] = self._gallery.keys()
        except HandloomError:  # settings that cannot be used here: the keys of the row are true all the same
            today = {}
        told = []
        for name in stages_of(schema):
            key, now = row.get(key_column(name)), today.get(name)
            told.append({"name": name, "key": key, "current": None if now is None else key == now})
        return told

    def _run(self, run_key: str | None) -> dict[str, Any]:
        runs = self._gallery.short("runs", lambda: list_runs(self._gallery.db))
        alike = [run for run in runs if run.run_key == run_key]
        wrote = [run for run in alike if run.num_clips != 0]  # null: it works, or was killed
        return {
            "run_key": run_key,
            "settings": json.loads(alike[-1].settings) if alike else None,
            "versions": json.loads(alike[-1].versions) if alike else None,
            "at": wrote[0].started_at if len(wrote) == 1 else None,  # of several it is not known which made the row
        }

    def _video(self, clip_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the page may play the clip's video, from where, or why not. `video_uri` says where it came from."""
        why = why_not_played(row)
        if why is None and not is_remote(row["video_uri"]) and not Path(local_path(row["video_uri"])).is_file():
            why = f"the video is gone: there is no file at {row['video_uri']}"
        if why is None:
            return {"playable": True, "url": f"/media/video?id={quote(clip_id, safe='')}", "why": ""}
        return {"playable": False, "url": None, "why": why}

    def _python(self, clip_id: str, version: int | None) -> str:
        uri = self._gallery.db.uri
        return (
            "import handloom\n"
            "from handloom.schemas.tables.row import row_arrays\n\n"
            f"db = handloom.open({uri!r})\n"
            f"row = row_arrays(db.row({clip_id!r}, version={version}))\n"
        )

    def _judgement(self, clip_id: str) -> dict[str, Any] | None:
        found = self._gallery.db.read("judgements", where=f"clip_id = {quoted(clip_id)}").to_pylist()
        return found[0] if found else None


def routes(gallery: Gallery) -> list[Route]:
    """`/api/clip`, `/api/arrays` and `/api/settings`."""
    clips = Clips(gallery)

    async def clip(request: Request) -> Response:
        return json_answer(request, await blocking(clips.told, asked_id(request), asked_version(request)))

    async def arrays(request: Request) -> Response:
        names = [name for name in request.query_params.get("names", "").split(",") if name]
        data = await blocking(clips.arrays, asked_id(request), asked_version(request), names)
        return bytes_answer(request, data, "application/octet-stream")

    async def settings(request: Request) -> Response:
        return json_answer(request, {"meanings": meanings()})

    return [Route("/api/clip", clip), Route("/api/arrays", arrays), Route("/api/settings", settings)]
