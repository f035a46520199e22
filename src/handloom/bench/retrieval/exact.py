"""What a search promises exactly: AR-VRM's sum, and windows within the times that were found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from handloom.api import Database
from handloom.bench.retrieval.data import clip_id
from handloom.bench.retrieval.moments import AMONG, piece_of
from handloom.bench.retrieval.scenes import PIECE, SEARCHED, Filmed
from handloom.models.embeddings.look import LookEncoder
from handloom.store.filters import in_list
from handloom.video.stored_frames import decode_jpeg

STEPS, NUM_CLIPS, WINDOW = 10, 24, 5


def measure_exact(db: Database, clips: Sequence[Filmed]) -> dict[str, Any]:
    """`arvrm`: the largest difference of a score from a plain computation; `windows`: those outside of their match."""
    chosen = [clip_id(one.name) for one in clips if one.role == SEARCHED][:NUM_CLIPS]
    pieces = [one for one in clips if one.role == PIECE]
    return {"arvrm": arvrm_differences(db, chosen), "windows": windows_outside(db, pieces[0]) if pieces else None}


def arvrm_differences(db: Database, ids: Sequence[str]) -> dict[str, Any]:
    """The first clip compared with the others: cos(z_l, z_l) + the sum over ten images of cos(z_ot, z_ot).

    Vectors are kept as float16, so scores may differ in the third decimal place; the order may not where they do not.
    """
    encoder, texts, images = LookEncoder(), {}, {}
    for row in db.clips(["clip_id", "embedding_text", "frame_jpeg"], in_list("clip_id", ids)).to_pylist():
        places = np.round(np.linspace(0, len(row["frame_jpeg"]) - 1, STEPS)).astype(int)
        images[row["clip_id"]] = encoder.encode(np.stack([decode_jpeg(row["frame_jpeg"][i]) for i in places]))
        texts[row["clip_id"]] = np.asarray(row["embedding_text"], float)
    asked, *others = ids
    plain = {one: _cosine(texts[asked], texts[one]) + _cosines(images[asked], images[one]) for one in others}
    hits = db.search(clip=asked, by="arvrm", k=len(others), where=in_list("clip_id", others))
    apart = [abs(hit.score - plain[hit.clip_id]) for hit in hits]
    order = [plain[hit.clip_id] for hit in hits]
    return {
        "clips": len(hits),
        "lacking": len(others) - len(hits),
        "largest_difference": float(max(apart, default=0.0)),
        "out_of_order": float(max((b - a for a, b in pairwise(order)), default=0.0)),
    }


def _cosine(one: Any, other: Any) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _cosines(one: Any, other: Any) -> float:
    return sum(_cosine(a.astype(float), b.astype(float)) for a, b in zip(one, other, strict=True))


def windows_outside(db: Database, piece: Filmed) -> dict[str, Any]:
    """Windows of the hits of a search by a piece: how many, and how many reach beyond the time that was found."""
    _, start_s, end_s = piece_of(piece)
    hits = db.search(clip=clip_id(piece.name), from_s=start_s, to_s=end_s, k=5, where=AMONG, mirror=True)
    windows = db.windows(past=WINDOW, fields=["hand_keypoints_cam_m"], clips=hits)
    ends = ((hit.clip_id, hit.match_start_s, hit.match_end_s) for hit in hits)
    spans = {id_: (low, high) for id_, low, high in ends if low is not None and high is not None}
    outside = 0
    for number in range(len(windows)):
        sample = windows[number]
        low, high = spans[sample["clip_id"]]
        outside += bool(sample["frame_s"][0] < low - 1e-3 or sample["frame_s"][-1] > high + 1e-3)
    same = windows.version == hits.version
    return {"clips": len(hits), "windows": len(windows), "outside": outside, "same_version": bool(same)}
