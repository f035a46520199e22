"""Pictures with a person whose face is seen."""

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np

PORTRAIT = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"  # a public photograph, in matplotlib's wheel


def scene(left: int | None = 300, width: int = 640) -> np.ndarray:
    """(360, width, 3): a grey room, with a person whose face is about 45 px wide from `left` on; None: nobody."""
    y, x = np.mgrid[:360, :width]
    image = np.stack([(x // 7 + y // 5) % 90 + 60] * 3, -1).astype(np.uint8)
    if left is not None:
        person = cv2.resize(cv2.imread(str(PORTRAIT))[..., ::-1], (128, 150), interpolation=cv2.INTER_AREA)
        image[40:190, left : left + 128] = person[:, : width - left]
    return image
