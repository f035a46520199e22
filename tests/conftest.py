"""What the whole test run shares: rendered videos, their clips and rows, and one local Ray."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys

# Read when torch is imported. OpenMP's threads wait for each other in a busy loop: where others use the cores as well,
# a second pytest process for one, tests/train took 145 s with one thread and over ten minutes with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import cv2  # noqa: F401  before decord: its zlib, loaded first, serves OpenCV's libpng as well, and no PNG is read
import hypothesis
import pytest
from support.local_ray import LocalRay, Obituary
from support.shared import made_once

from handloom.schemas.clip import Clip

# How long an example takes is the machine's: on a busy one a property that holds failed for 200 ms.
hypothesis.settings.register_profile("handloom", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("handloom")

LOCAL_RAY = pytest.StashKey[LocalRay]()
OBITUARIES = pytest.StashKey[dict[str, Obituary]]()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session):
    """What is imported and collected stays to the end: looking for garbage in it took 3 s of 15 in each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes (`-n 3`)
        from support import scheduling

        scheduling.sort(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    from support.scheduling import ByFile

    return ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`needs_gpu`: skipped without a GPU, but a failure where one is required (REQUIRE_GPU=1)."""
    if item.get_closest_marker("needs_gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        required = os.environ.get("REQUIRE_GPU") == "1"
        (pytest.fail if required else pytest.skip)("needs a GPU that torch can use")


@pytest.fixture
def cli(capsys, monkeypatch):
    """`cli("status", ...)` runs a command in this process: (exit code, stdout, stderr)."""

    from handloom.cli import main

    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["handloom", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture(autouse=True)
def _logs():
    """A command that runs in this process sets up its logs: the next test's `caplog` would see nothing."""
    yield
    logger = logging.getLogger("handloom")
    logger.handlers = []
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small rendered videos, 2 s at 10 frames/s, one of them without a camera file.

    Like `expected`, it takes four seconds to make: all processes share one, and no test writes to it.
    """
    return made_once(tmp_path_factory, "rendered", render)


def render(folder: Path) -> None:
    from handloom.synth.clip import write_clip
    from handloom.synth.script.demo import demo_specs

    folder.mkdir(exist_ok=True)
    for number, spec in enumerate(demo_specs(3, seed=3)):
        small = replace(spec, width=320, height=240, fps=10.0, duration_s=2.0)
        write_clip(small, folder / f"video{number}.mp4", camera=number > 0, truth=False)


@pytest.fixture(scope="session")
def clips(rendered: Path) -> tuple[Clip, ...]:
    """Six clips of one second, two of each rendered video."""
    from handloom.ingest.human.folder import ingest_folder
    from handloom.video.decode.probe import Prober
    from handloom.video.fetch.video_source import VideoSource

    with Prober(VideoSource(str(rendered.parent / "cache"))) as probe:
        found = ingest_folder(str(rendered), dataset="test", clip_seconds=1.0, probe=probe).clips
    assert len(found) == 6
    return tuple(found)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, clips: tuple[Clip, ...]) -> Mapping[str, str]:
    """The digest of every clip's row, made without Ray."""

    def extract(file: Path) -> None:
        from support.extraction import rows_of
        from support.rows import digests

        found = {clip_id: digest for row in rows_of(clips) for clip_id, digest in digests(row).items()}
        file.write_text(json.dumps(found))

    return json.loads(made_once(tmp_path_factory, "expected.json", extract).read_text())


@pytest.fixture(scope="session")
def local_ray(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    """The one local Ray of this process, for fixtures of a module; tests ask for `ray_address`."""
    found = request.config.stash[LOCAL_RAY] = LocalRay(tmp_path_factory.mktemp("site"))
    yield found
    found.end()


@pytest.fixture
def ray_address(local_ray: LocalRay) -> str:
    """The address of the local Ray, which runs. Looked up for each test: a Ray that was started again has another."""
    return local_ray.address()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None):
    """Of several processes one that has run all tests on Ray ends it: idle it takes 3 to 6 % of a core, and memory."""
    result = yield
    if hasattr(item.config, "workerinput") and LOCAL_RAY in item.config.stash:
        from support import scheduling

        if nextitem is None or not scheduling.shares_ray(nextitem.path):
            item.config.stash[LOCAL_RAY].end()
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node) -> None:
    """One of several processes can take tests. What it writes is kept open: should it die, it is printed."""
    process = node.gateway._io.popen  # execnet has no public name for it
    node.config.stash.setdefault(OBITUARIES, {})[node.gateway.id] = Obituary(process)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error: object | None) -> None:
    """One of several processes has ended; with an `error`, it has died."""
    obituary = node.config.stash.get(OBITUARIES, {}).pop(node.gateway.id, None)
    if obituary is None:
        return
    if error is not None:
        node.config.get_terminal_writer().line(f"\n{node.gateway.id}: {obituary.text()}")
    obituary.close()
