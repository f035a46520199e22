"""Why a clip has no row: the values that `rejects.reason` can have, and `Reject`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from handloom.errors import ClipError

REASONS: Final[dict[str, str]] = {
    "video_missing": "there is no file at video_uri",
    "video_unreadable": "the file is there but cannot be opened as a video (permission, empty, not a video)",
    "video_changed": "the file at video_uri is another one than the one that was ingested",
    "no_video_stream": "the file opens but holds no video",
    "uri_refused": "video_uri has a scheme that is not opened",
    "fetch_failed": "a remote video could not be fetched (network, credentials, a full cache disk)",
    "bad_range": "start_s and end_s are no range: zero length, reversed, negative or not finite",
    "outside_video": "the clip's times lie outside its video",
    "too_small": "the image is smaller than 16 pixels on a side",
    "size_changes": "the image changes its size in the middle of the clip",
    "damaged": "the stream is damaged or cut short: some of the clip's frames cannot be decoded, or have no time",
    "decode_timeout": "decoding made no progress within the time limit",
    "decode_memory": "decoding needed more memory than the limit",
    "decoder_died": "both decoders crashed on the clip",
    "bad_camera": "the camera in the clip list cannot be used, or does not fit the video",
    "bad_depth": "the depth maps given for the video cannot be used",
    "no_frames": "a stage reads stored frames, and the row has none (`frames.store` is off)",
    "bad_output": "a stage of one's own gave values that do not fit its columns",
    "model_failed": "a model could not process the clip's frames",
    "endpoint_timeout": "a model's endpoint has not answered in time",
    "endpoint_busy": "a model's endpoint takes no more requests for now (429)",
    "endpoint_failed": "a model's endpoint cannot be reached, fails, or answers what is no chat completion",
    "endpoint_refused": "a model's endpoint refuses the request: key, account, model, address, or the request itself",
    "answer_invalid": "a model's answers were not what it was asked for",
    "request_limit": "the run has sent as many requests as `max_requests` allows",
    "out_of_memory": "the process ran out of memory on the clip, twice",
    "bug": "an unexpected exception; the detail holds its trace",
    "hung": "one of the clip's stages took longer than its limit, twice, once in a shard of its own",
    "worker_died": "the worker process crashed twice while it was working on the clip",
}

RETRIABLE: Final[frozenset[str]] = frozenset({"fetch_failed", "decode_timeout", "out_of_memory"})
"""Reasons that a second try in the same run can cure: the cause may lie outside the clip."""


@dataclass(frozen=True)
class Reject:
    """One clip that could not be processed: a row of `rejects` without its run key and time.

    stage: where it failed. reason: a key of `REASONS`. attempts: how often it was tried in this run. host: the machine
    on which it failed last; None: unknown. node_id: Ray's id of that machine, valid during the run.
    """

    clip_id: str
    stage: str
    reason: str
    detail: str
    attempts: int = 1
    host: str | None = None
    node_id: str | None = None

    @staticmethod
    def from_error(error: ClipError, attempts: int = 1) -> Reject:
        """The reject of a clip's error. Characters that UTF-8 cannot encode (file names in other encodings) are written
        as `\\udce9`."""
        detail = f"{error.problem}\nhint: {error.hint}" if error.hint else error.problem
        detail = detail.encode(errors="backslashreplace").decode()
        return Reject(error.clip_id, error.stage, error.reason, detail, attempts)
