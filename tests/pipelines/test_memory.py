"""Memory of an actor, its decode child included, does not grow with the video, and stays bounded for a long clip."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import av
import pytest
import ray
from support.extraction import new_database, outcome
from support.process import descendants

from handloom.pipelines.run.run import run
from handloom.schemas.clip import Clip, make_clip_id
from handloom.schemas.settings import Resources, RunConfig
from handloom.video.write import Encoding, write_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.usefixtures("ray_address")]

LIMIT_MIB = 2560


class Memory:
    """Samples the resident memory of every worker and its children: `peak_mib`, the largest of one worker."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, ledger) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._sample, args=(ledger,))
            self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self, ledger) -> None:
        pids: set[int] = set()
        while not self._ended.wait(0.1):
            pids |= set(ray.get(ledger.progress.remote()).working)
            for pid in pids:
                family = {pid} | descendants(pid)
                self.peak_mib = max(self.peak_mib, sum(map(resident_mib, family)))


def resident_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


@pytest.fixture(scope="module")
def frames(rendered):
    """The frames of two rendered videos, enlarged to 640 x 360."""
    found = []
    for name in ("video1.mp4", "video2.mp4"):
        with av.open(str(rendered / name)) as container:
            found += [f.to_ndarray(format="rgb24", width=640, height=360) for f in container.decode(video=0)]
    return found


def long_video(path: Path, frames, seconds: int, fps: int) -> str:
    """The frames forth and back, over and over."""
    endless = itertools.cycle(frames + frames[-2:0:-1])
    times_s = [i / fps for i in range(seconds * fps)]
    write_video(path, itertools.islice(endless, len(times_s)), times_s, Encoding(gop=250, preset="ultrafast", crf=30))
    return str(path)


def measured(tmp_path, clips, sample_hz, capsys) -> float:
    db = new_database(tmp_path / "db", clips)
    config = RunConfig(video={"sample_hz": sample_hz}, resources=Resources(num_actors=1))
    with Memory() as memory:
        run(db, config, quiet=True, watch=memory)
    assert set(outcome(db).values()) == {"row"}
    with capsys.disabled():
        print(f"\npeak of one actor and its decode child: {memory.peak_mib:.0f} MiB ({len(clips)} clips)")
    return memory.peak_mib


def clip_of(uri: str, start_s: float, end_s: float) -> Clip:
    return Clip(make_clip_id("test", "long", start_s, end_s), "test", "long", uri, start_s, end_s)


def test_a_ten_minute_clip(tmp_path, frames, capsys):
    uri = long_video(tmp_path / "long.mp4", frames, 600, 15)
    assert measured(tmp_path, [clip_of(uri, 0, 600)], 15, capsys) < LIMIT_MIB


def test_an_hour_cut_into_clips(tmp_path, frames, capsys):
    """Every thirtieth of its 360 clips, and fewer frames of each: the rest adds time and no memory."""
    uri = long_video(tmp_path / "long.mp4", frames, 3600, 10)
    clips = [clip_of(uri, start_s, start_s + 10) for start_s in range(0, 3600, 300)]
    assert measured(tmp_path, clips, 5, capsys) < LIMIT_MIB
