"""How far two sets of tracks agree, neither of which is the truth: published tracks, and a clip followed backwards.

Pixels are those of an image 640 wide. T frames, N tracks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, cKDTree

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

WIDTH_PX = 640
NEAR_PX = (4, 8, 16)
_SAME_QUERY_PX = 2.0  # queries no farther apart are the same point
_STRETCHED = 2.5  # a triangle of neighbours whose sides grow or shrink by a larger factor spans the edge of an object
NAN = float("nan")


def agreement(
    px: Floats, visible: Bools, depth: Floats, theirs_px: Floats, theirs_depth: Floats, size: tuple[int, int]
) -> dict[str, float]:
    """Compare our tracks (T, N) with theirs (T, M), paired by place on the first frame, where ours are visible and
    theirs are in the image.

    depth, theirs_depth: (T, N), (T, M), of any unit. depth_error: median relative difference after the best common
    scale; depth_correlation: of the depths' logarithms; compared: share of their points in the image that have a pair.
    """
    scale = WIDTH_PX / size[0]
    away, pair = cKDTree(px[0]).query(theirs_px[0])
    at = np.flatnonzero(away * scale < _SAME_QUERY_PX)
    ours, theirs = pair[at], theirs_px[1:, at]
    inside = ((theirs >= 0) & (theirs <= np.array(size) - 1)).all(axis=-1)
    both = inside & visible[1:, ours] & np.isfinite(px[1:, ours]).all(axis=-1)
    out = _near(np.linalg.norm(px[1:, ours] - theirs, axis=-1)[both] * scale)
    a, b = depth[1:, ours][both].astype(float), theirs_depth[1:, at][both].astype(float)
    known = (a > 0) & (b > 0)
    logs = np.log(a[known]), np.log(b[known])
    out |= {"depth_correlation": NAN, "depth_error": NAN, "compared": float(both.sum() / max(inside.sum(), 1))}
    if known.sum() > 2:
        off = logs[0] - logs[1]
        out["depth_error"] = float(np.median(np.abs(np.expm1(off - np.median(off)))))
        if min(np.std(logs[0]), np.std(logs[1])) > 0:
            out["depth_correlation"] = float(np.corrcoef(*logs)[0, 1])
    return out | {"points": float(len(at))}


def reversal(
    px: Floats, visible: Bools, back_px: Floats, back_visible: Bools, size: tuple[int, int]
) -> dict[str, float]:
    """Compare the first frame's grid (T, N) with the last frame's grid (T, M) followed backwards, both in the clip's
    order, on the first frame and three in between, where both are visible.

    The expected place of a point comes from the triangle of the other grid's points around it on the last frame.
    compared: of the points visible then and on the last frame, the share with such a triangle.
    """
    last = len(px) - 1
    seen = np.flatnonzero(visible[last])
    if last < 1 or len(seen) == 0 or back_visible[last].sum() < 3:
        return _near(np.zeros(0)) | {"compared": NAN}
    others = np.flatnonzero(back_visible[last])
    mesh = Delaunay(back_px[last, others].astype(float))
    place = px[last, seen].astype(float)
    cell = mesh.find_simplex(place)
    seen, place, cell = seen[cell >= 0], place[cell >= 0], cell[cell >= 0]
    corners = others[mesh.simplices[cell]]
    part = np.einsum("nij,nj->ni", mesh.transform[cell, :2], place - mesh.transform[cell, 2])
    weights = np.concatenate([part, 1 - part.sum(axis=1, keepdims=True)], axis=1)
    errors, asked = [], 0
    for t in np.unique(np.linspace(0, last, 5).astype(int)[:-1]):
        whole = back_visible[t, corners].all(axis=1) & ~_stretched(back_px[t, corners], back_px[last, corners])
        both = visible[t, seen] & whole
        there = np.einsum("nk,nkd->nd", weights[both], back_px[t, corners[both]].astype(float))
        errors.append(np.linalg.norm(there - px[t, seen[both]], axis=1) * WIDTH_PX / size[0])
        asked += int(visible[t, seen].sum())
    found = np.concatenate(errors)
    return _near(found) | {"compared": len(found) / asked if asked else NAN}


def _stretched(now: Floats, before: Floats) -> Bools:
    """Which triangles (N, 3, 2) have a side that is much longer or shorter than before."""
    sides = [np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1) for corners in (now, before)]
    ratio = sides[0] / np.maximum(sides[1], 1e-6)
    return ~((ratio < _STRETCHED) & (ratio > 1 / _STRETCHED)).all(axis=1)


def _near(distance_px: Floats) -> dict[str, float]:
    num = len(distance_px)
    shares = {f"within_{limit}_px": float((distance_px <= limit).mean()) if num else NAN for limit in NEAR_PX}
    return {"median_px": float(np.median(distance_px)) if num else NAN} | shares
