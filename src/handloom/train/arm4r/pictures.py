"""Augmentation of a sample's pictures: a random resized crop, contrast and brightness."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_AREA = (0.65, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
CONTRAST = (0.8, 1.2)
BRIGHTNESS = (-0.1, 0.1)


def varied(images: Tensor) -> Tensor:
    """(B, T, cameras, h, w, 3) uint8, changed sample by sample and camera by camera: all steps of a sample alike.

    Ranges: SPECS 1.4. That the steps share their crop is ours (UNVERIFIED in the source). Points do not move with it.
    """
    size, cameras = images.shape[0], images.shape[2]
    flat = images.transpose(1, 2).flatten(0, 1)  # (B * cameras, T, h, w, 3)
    num, steps = flat.shape[:2]
    device = images.device
    area = _uniform(CROP_AREA, num, device)
    aspect = torch.exp(_uniform(tuple(torch.tensor(CROP_ASPECT).log().tolist()), num, device))
    extent = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1).clamp(max=1.0)
    centre = (2 * torch.rand(num, 2, device=device) - 1) * (1 - extent)
    theta = torch.zeros(num, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = extent[:, 0], extent[:, 1], centre
    pixels = flat.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 255
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    contrast, brightness = (_uniform(r, num, device)[:, None, None, None] for r in (CONTRAST, BRIGHTNESS))
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = ((pixels - mean) * contrast + mean + brightness).clamp(0, 1)
    back = (255 * pixels).round().to(torch.uint8).unflatten(1, (steps, 3)).permute(0, 1, 3, 4, 2)
    return back.unflatten(0, (size, cameras)).transpose(1, 2)


def _uniform(bounds: tuple[float, float], num: int, device: torch.device) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(num, device=device)
