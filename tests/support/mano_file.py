"""A file in the form of MANO's, with the pickled names of chumpy and scipy, for readers that have neither."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

VERTICES = 778
PARENTS = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
TIPS = (744, 320, 443, 554, 671)
CHAIN_ENDS = (15, 3, 6, 12, 9)  # the last joints of thumb, index, middle, ring and little finger
JOINTS_M = np.array([[0.0, 0, 0]] + [[-0.03 * (1 + j), 0, 0.02 * f] for f in range(5) for j in range(3)])


class Stranger:
    """Pickles under another library's name, as its objects do."""

    def __init__(self, **state: object) -> None:
        self.__dict__.update(state)


def named(module: str, name: str, **state: object) -> object:
    kind = type(name, (Stranger,), {"__module__": module})
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), ModuleType(".".join(parts[:i])))
    setattr(sys.modules[module], name, kind)
    return kind(**state)


def content(shape_x: float = 1.0) -> dict[str, object]:
    """Vertex v of the first 16 is joint v; tips lie 20 mm beyond their last joint and belong to it."""
    template = np.zeros((VERTICES, 3))
    template[:16] = JOINTS_M
    weights = np.zeros((VERTICES, 16))
    weights[:, 0] = 1
    for vertex, joint in zip(TIPS, CHAIN_ENDS, strict=True):
        template[vertex] = JOINTS_M[joint] - [0.02, 0, 0]
        weights[vertex] = np.eye(16)[joint]
    shape = np.zeros((VERTICES, 3, 10))
    shape[:, 0, 0] = shape_x  # the first number of shape moves everything along x
    components = np.eye(45)
    matrix = named(
        "chumpytest.sparse", "csc_matrix", data=np.ones(16), indices=np.arange(16, dtype=np.int32),
        indptr=np.minimum(np.arange(VERTICES + 1), 16).astype(np.int32), _shape=(16, VERTICES),
    )  # fmt: skip
    ch = named("chumpytest.ch", "Ch", x=shape.ravel()[::-1].copy(), _dirty_vars=set())
    chosen = named(
        "chumpytest.reordering", "Select", a=ch, idxs=np.arange(shape.size)[::-1].copy(), preferred_shape=shape.shape
    )
    return {
        "v_template": template, "shapedirs": chosen, "posedirs": np.zeros((VERTICES, 3, 135)), "J_regressor": matrix,
        "weights": weights, "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(16)], np.uint32),
        "hands_mean": np.zeros(45), "hands_components": components, "f": np.zeros((1538, 3), np.uint32),
        "bs_type": "lrotmin",
    }  # fmt: skip


def write_mano(path: Path, **options: float) -> Path:
    """With protocol 2 and the real names: a pickle holds names as text, so ours are swapped for them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pickle.dumps(content(**options), protocol=2)
    for name in [name for name in sys.modules if name.startswith("chumpytest")]:
        del sys.modules[name]
    for ours, real in (
        (b"chumpytest.sparse\n", b"scipy.sparse.csc\n"),
        (b"chumpytest.ch\n", b"chumpy.ch\n"),
        (b"chumpytest.reordering\n", b"chumpy.reordering\n"),
    ):
        assert ours in data
        data = data.replace(ours, real)
    path.write_bytes(data)
    return path
