"""Windows through the `lerobot` package: run by a Python that has it; uses nothing of handloom.

    PYTHON feed_package.py '{"root": DIR, "keys": [...], "num_steps": S, "indices": [...], "batch_size": B,
                             "workers": N, "rounds": R}'

Prints one JSON object: `seconds` (of each round), `windows` (of one), `versions`, `video_backend`: torchcodec, or pyav
where torchcodec cannot be loaded (it needs ffmpeg's libraries).
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path


def video_backend() -> str:
    """The faster of lerobot's two decoders that works; lerobot alone would take one that is installed but broken."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return "pyav"
    return "torchcodec"


if __name__ == "__main__":
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    meta = json.loads(Path(asked["root"], "meta", "info.json").read_text())
    steps = [i / meta["fps"] for i in range(asked["num_steps"])]
    backend = video_backend()
    dataset = LeRobotDataset(
        "local/bench", root=asked["root"], delta_timestamps=dict.fromkeys(asked["keys"], steps), video_backend=backend
    )
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(dataset, asked["indices"]), asked["batch_size"], num_workers=asked["workers"],
        persistent_workers=asked["workers"] > 0,
    )  # fmt: skip
    next(iter(loader))  # starts the processes, opens the files
    seconds = []
    for _ in range(asked["rounds"]):
        began = time.perf_counter()
        count = sum(len(batch["index"]) for batch in loader)
        seconds.append(time.perf_counter() - began)
    versions = {name: version(name) for name in ("lerobot", "torch", "datasets")}
    print(json.dumps({"seconds": seconds, "windows": count, "versions": versions, "video_backend": backend}))
