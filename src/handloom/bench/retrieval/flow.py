"""A histogram of optical flow over a video: what a few lines of OpenCV give, beside the embeddings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handloom.models.embeddings.descriptors import direction_votes

SHORT_SIDE_PX = 120
STILL_PX = 0.4  # a frame, as in Wang et al.'s zero bin


def flow_histogram(video: Path) -> NDArray[np.float32]:
    """(9,) unit norm: directions of dense flow weighted by its length, and a bin for points at rest.

    Source: Farneback, Two-frame motion estimation based on polynomial expansion, SCIA 2003; HOF with a zero bin: Laptev
    et al., CVPR 2008, and Wang et al., IJCV 2013.
    """
    reader, before = cv2.VideoCapture(str(video)), None
    total = np.zeros(9)
    while True:
        there, image = reader.read()
        if not there:
            break
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        scale = SHORT_SIDE_PX / min(grey.shape)
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if before is not None:
            flow = cv2.calcOpticalFlowFarneback(before, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            total += direction_votes(flow.astype(float), still=STILL_PX).sum((0, 1))
        before = grey
    reader.release()
    rooted = np.sqrt(total / max(total.sum(), 1e-9))
    return (rooted / max(float(np.linalg.norm(rooted)), 1e-9)).astype(np.float32)
