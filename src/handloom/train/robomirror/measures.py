"""How near understood latents are to true ones: the Fréchet distance of two sets, and retrieval both ways."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_distance(found: Array, true: Array) -> float | None:
    """Between normal distributions fitted to two sets of vectors (N, D); None where one has no more than D.

    |mean difference|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2)), as FID and FVD have it of features of images and videos
    (Heusel et al., arXiv 1706.08500; Unterthiner et al., arXiv 1812.01717).
    """
    if min(len(found), len(true)) <= found.shape[1]:
        return None
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (found, true))
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    both = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * both)


def recall_at(similarity: Array, k: int) -> float:
    """Share of rows of (N, N) whose own column is among the k largest; of equal ones as if drawn by chance."""
    own = similarity.diagonal()[:, None]
    above = (similarity > own).sum(axis=1)
    equal = (similarity == own).sum(axis=1)  # its own among them
    return float(np.clip((k - above) / equal, 0, 1).mean())
