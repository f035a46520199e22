"""Make a small database with the handloom that is first on PYTHONPATH.

`python -P make_table.py WORK_FOLDER [SETTING=VALUE ...]` makes WORK_FOLDER/videos and WORK_FOLDER/db. Two clips of one
second get rows, a third is rejected, by one run. README.md has the settings.
"""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np

HZ, SIDE = 6, (128, 96)
CALL = [sys.executable, "-c", "from handloom.cli import main; main()"]
SETTINGS = ("tracks.grid=4", f"video.sample_hz={HZ}")
WORDS = "video,narration,verb,noun\na.mp4,open the drawer,open,drawer\nb.mp4,take the cup,take,cup\n"


def write_video(path: Path, seed: int) -> None:
    """A smooth random image that moves two pixels a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 215, (8, 12, 3))
    place = np.stack(np.meshgrid(np.linspace(0, 6.9, SIDE[1] + 40), np.linspace(0, 10.9, SIDE[0] + 40), indexing="ij"))
    low = place.astype(int)
    part = (place - low)[..., None]
    corners = [[coarse[low[0] + y, low[1] + x] for x in (0, 1)] for y in (0, 1)]
    rows = [c[0] * (1 - part[1]) + c[1] * part[1] for c in corners]
    image = (rows[0] * (1 - part[0]) + rows[1] * part[0]).astype(np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=HZ)
        stream.width, stream.height, stream.pix_fmt = *SIDE, "yuv420p"
        for t in range(HZ):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[t : t + SIDE[1], 2 * t : 2 * t + SIDE[0]]))
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def call(*words: str, codes: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run([*CALL, *words], check=False)
    if done.returncode not in codes:
        sys.exit(f"{words} ended with {done.returncode}")


def main(work: Path, settings: list[str]) -> None:
    videos, db = work / "videos", str(work / "db")
    videos.mkdir(parents=True)
    for number, name in enumerate("ab"):
        write_video(videos / f"{name}.mp4", number)
    (videos / "c.mp4").write_bytes(b"no video")
    (videos / "clips.csv").write_text(WORDS)
    call("ingest", "folder", str(videos), "--db", db, codes=(0, 3))
    sets = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    call("run", "--db", db, *sets, codes=(0, 3))


main(Path(sys.argv[1]), sys.argv[2:])
