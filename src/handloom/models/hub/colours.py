"""Mean and standard deviation of the colours of a network's training images, for models whose files do not say them."""

from __future__ import annotations

Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green and blue, of values from 0 to 1."""

IMAGENET: Colours = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_COLOURS: Colours = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF: Colours = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
