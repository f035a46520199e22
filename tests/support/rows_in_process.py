"""Rows of decoded clips in a fresh process: `python -m support.rows_in_process FRAMES OUT [MODULE ...]`.

FRAMES: pickled `support.decoded.HeldFrames`. OUT: the rows, an Arrow file. MODULE: imported before all others.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path


def main(frames: Path, out: Path, first: list[str]) -> None:
    for module in first:
        importlib.import_module(module)
    import pyarrow as pa
    from support.extraction import new_extractor

    from handloom.schemas.settings import Settings

    extractor = new_extractor(Settings())
    rows = [extractor.row(held) for held in pickle.loads(frames.read_bytes())]
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, rows[0].schema) as writer:
        for row in rows:
            writer.write_batch(row)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
