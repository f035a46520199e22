"""Motion blur from the exact motion of every pixel's surface while the shutter is open."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.synth.render.march import MarchedView

Array = NDArray[np.float32]

_TILE = 8
_MIN_PX = 0.3  # shorter smears are invisible
_MAX_TAPS = 11
_EDGE_TAPS = 15


def still_motion(view: MarchedView, depth: Array, rate: NDArray) -> Array:
    """(h, w, 2) displacement in pixels of points at `depth` while the shutter is open.

    rate: (4, 4), change of a point (x, y, z, 1) of the camera over that time, metres.
    """
    x, y = view.columns(0, view.width)[None, :], view.rows(0, view.height)[:, None]
    return np.stack(_moved(view, x, y, depth, rate.astype(np.float32)), axis=-1)


def body_motion(view: MarchedView, rows: NDArray, columns: NDArray, depth: Array, rates: NDArray) -> Array:
    """(n, 2) the same for n pixels, each with its own rate (n, 4, 4) or all with one (4, 4)."""
    x = ((columns - view.cx) / view.focal_px).astype(np.float32)
    y = ((rows - view.cy) / view.focal_px).astype(np.float32)
    parts = np.moveaxis(rates.astype(np.float32), 0, -1) if rates.ndim == 3 else rates.astype(np.float32)
    return np.stack(_moved(view, x, y, depth, parts), axis=-1)


def _moved(view: MarchedView, x: Array, y: Array, depth: Array, rate: NDArray) -> tuple[Array, Array]:
    """To first order: with p = z (x, y, 1) and dp = rate p, the pixel moves by f (dp_xy - (x, y) dp_z) / z."""
    near = np.float32(1) / np.minimum(depth, np.float32(1e3))
    du, dv, dw = (r[0] * x + r[1] * y + (r[2] + r[3] * near) for r in (rate[0], rate[1], rate[2]))
    focal = np.float32(view.focal_px)
    return focal * (du - x * dw), focal * (dv - y * dw)


def smear(colour: Array, depth: Array, motion: Array) -> Array:
    """The image with every pixel smeared along its motion; moving things also smear over what is behind them.

    Each pixel gathers colours along its own motion; near something faster in front of it, also those that pass over it.
    Source: McGuire et al., A Reconstruction Filter for Plausible Motion Blur, I3D 2012, simplified.
    """
    speed = np.sqrt((motion * motion).sum(-1))
    fastest = float(speed.max())
    if fastest < _MIN_PX:
        return colour
    height, width = depth.shape
    x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
    taps = int(np.clip(np.ceil(np.quantile(speed[::4, ::4], 0.98)) + 2, 3, _MAX_TAPS))
    out = np.zeros_like(colour)
    for share in (np.arange(taps, dtype=np.float32) + 0.5) / taps - 0.5:
        at = (x + share * motion[..., 0], y + share * motion[..., 1])
        out += cv2.remap(colour, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    out /= taps
    if fastest > 1.5:
        _smear_edges(colour, depth, motion, speed, out)
    return out


def _smear_edges(colour: Array, depth: Array, motion: Array, speed: Array, out: Array) -> None:
    """Add to slower pixels near a faster thing in front of them the colours that pass over them."""
    height, width = depth.shape
    leader = _leaders(motion, speed)
    ahead = np.sqrt((leader * leader).sum(-1))
    ahead = cv2.resize(ahead, None, fx=_TILE, fy=_TILE, interpolation=cv2.INTER_NEAREST)[:height, :width]
    rows, columns = np.nonzero(ahead > speed + 1.0)
    if not len(rows):
        return
    along = leader[rows // _TILE, columns // _TILE]
    length = ahead[rows, columns]
    behind = depth[rows, columns] * np.float32(0.97)
    own = out[rows, columns]
    total, count = np.zeros_like(own), np.zeros(len(rows), np.float32)
    for share in (np.arange(_EDGE_TAPS, dtype=np.float32) + 0.5) / _EDGE_TAPS - 0.5:
        column = np.clip(np.rint(columns + share * along[:, 0]).astype(np.int32), 0, width - 1)
        row = np.clip(np.rint(rows + share * along[:, 1]).astype(np.int32), 0, height - 1)
        passes = (depth[row, column] < behind) & (0.5 * speed[row, column] >= abs(share) * length)
        total += np.where(passes[:, None], colour[row, column], 0)
        count += passes
    out[rows, columns] = own + (total - count[:, None] * own) / _EDGE_TAPS


def _leaders(motion: Array, speed: Array) -> Array:
    """(h / 8, w / 8, 2) the fastest motion in each tile and in the tiles around it, as far as it reaches."""
    height, width = (-(-side // _TILE) for side in speed.shape)
    pad = ((0, height * _TILE - speed.shape[0]), (0, width * _TILE - speed.shape[1]))
    tiles = np.pad(speed, pad).reshape(height, _TILE, width, _TILE).transpose(0, 2, 1, 3).reshape(height, width, -1)
    best = tiles.argmax(-1)
    row = np.minimum(np.arange(height)[:, None] * _TILE + best // _TILE, speed.shape[0] - 1)
    column = np.minimum(np.arange(width)[None, :] * _TILE + best % _TILE, speed.shape[1] - 1)
    leader = motion[row, column]
    reach = max(1, int(np.ceil(speed.max() / 2 / _TILE)))
    for _ in range(min(reach, 4)):
        grown, length = leader.copy(), (leader * leader).sum(-1)
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            moved, size = np.roll(leader, (dy, dx), (0, 1)), np.roll((leader * leader).sum(-1), (dy, dx), (0, 1))
            better = size > length
            grown[better], length = moved[better], np.maximum(length, size)
        leader = grown
    return leader
