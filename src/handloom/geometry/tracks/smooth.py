"""Still points and their neighbours: surfaces are mostly flat, so neighbours give evidence of a point's distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

NEIGHBOURS = 14
REACH = 0.12
"""Neighbours lie within this distance in the image, as a share of the focal length."""
MIN_NEIGHBOURS = 6
FLATNESS = 0.004
"""Standard deviation of the inverse distance of a surface from the plane fitted to it, as a share."""
STRAY = 4.0
"""A point that is further than this many standard deviations from the plane around it, with fewer than `MIN_COMPANY`
neighbours at its own distance, is dropped."""
MIN_COMPANY = 3
SURE = 0.01
"""A point whose distance is as sure as this, as a share of it, is never dropped."""
_ROUNDS = 4


def smooth_places(place: Floats, error: Floats, centre: Floats, view: Floats) -> tuple[Floats, Floats]:
    """Places moved along their lines of sight towards the planes around them, weighted by their uncertainties.

    Args:
        place: (N, 3) world, NaN unknown. error: (N,) standard deviation of the distance, as a share of it.
        centre: (N, 3) place of the camera that saw the point. view: (4, 4) world_from_camera of a middle pose:
            neighbours are neighbours in its image.

    Returns:
        The places and their errors; NaN for dropped points.
    """
    cam = (place - view[:3, 3]) @ view[:3, :3]
    usable = np.flatnonzero(np.isfinite(cam).all(1) & (cam[:, 2] > 1e-6) & np.isfinite(error))
    out, out_error = np.full(place.shape, np.nan), np.full(error.shape, np.nan)
    if len(usable) < MIN_NEIGHBOURS:
        out[usable], out_error[usable] = place[usable], error[usable]
        return out, out_error
    x, share = cam[usable], error[usable]
    plane, spread, company = _planes(x, share)
    start = (centre[usable] - view[:3, 3]) @ view[:3, :3]
    sight = x - start
    # A plane a x + b y + c z = 1 meets the line of sight start + s (x - start) at s; the point itself is at s = 1.
    along = (plane * sight).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (1 - (plane * start).sum(1)) / along
    fits = np.isfinite(spread) & np.isfinite(s) & (s > 0.2) & (s < 5)
    inverse = np.where(fits, 1 / np.where(fits, s, 1), 1)
    spread = np.where(fits, spread, np.inf)
    off = np.abs(inverse - 1) / np.sqrt(share**2 + np.where(fits, spread, 1) ** 2)
    with_plane = fits & (off < STRAY)
    stray = fits & ~with_plane & (company < MIN_COMPANY) & (share > SURE)
    weight = np.where(with_plane, share**2 / (share**2 + np.where(fits, spread, 1) ** 2), 0)
    fused = 1 + weight * (inverse - 1)
    moved = start + sight / fused[:, None]
    moved[stray] = np.nan
    out[usable] = moved @ view[:3, :3].T + view[:3, 3]
    out_error[usable] = np.where(stray, np.nan, share * np.sqrt(1 - weight))
    return out, out_error


def _planes(x: Floats, share: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """For each of (n, 3) points: the plane of its neighbours, that plane's error at the point as a share of the inverse
    depth (NaN: no plane), and the number of neighbours at the point's own depth."""
    image, inverse = x[:, :2] / x[:, 2:], 1 / x[:, 2]
    distance, index = cKDTree(image).query(image, k=min(NEIGHBOURS + 1, len(x)))
    distance, index = distance[:, 1:], index[:, 1:]
    near = distance < REACH
    sigma = np.hypot(share, FLATNESS) * inverse
    kernel = near * np.exp(-0.5 * (distance / (0.5 * REACH)) ** 2) / sigma[index] ** 2
    rows = np.concatenate([image[index], np.ones((*index.shape, 1))], -1)  # a u + b v + c = 1 / z
    value, weight = inverse[index], kernel
    for _ in range(_ROUNDS):
        scaled = rows * weight[..., None]
        normal = np.einsum("nki,nkj->nij", scaled, rows)
        normal += np.eye(3) * (1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-12)
        plane = np.linalg.solve(normal, np.einsum("nki,nk->ni", scaled, value)[..., None])[..., 0]
        off = ((rows * plane[:, None]).sum(-1) - value) / sigma[index]
        weight = kernel / (1 + (off / 2) ** 2)
    here = np.column_stack([image, np.ones(len(x))])
    variance = np.einsum("ni,nij,nj->n", here, np.linalg.inv(normal), here)
    # How badly the plane fits its own points counts as well: at an edge there is no plane.
    misfit = (weight * off**2).sum(1) / np.maximum(weight.sum(1), 1e-12)
    at = (here * plane).sum(1)
    spread = np.sqrt(variance * np.maximum(misfit, 1) + (FLATNESS * at) ** 2) / np.maximum(np.abs(at), 1e-9)
    good = (near.sum(1) >= MIN_NEIGHBOURS) & (at > 0)
    same = np.abs(inverse[index] - inverse[:, None]) < 3 * np.hypot(sigma[index], sigma[:, None])
    return plane, np.where(good, spread, np.nan), (near & same)[:, :8].sum(1)
