"""Rows do not depend on where arrays lie, on how many threads a library has, on what ran or was imported before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from support.decoded import HeldFrames, content, moved
from support.elsewhere import rows_elsewhere
from support.rows import digests
from threadpoolctl import threadpool_info, threadpool_limits

from handloom.geometry.camera.intrinsics import camera_for
from handloom.geometry.camera.path import estimate_path, with_scale
from handloom.geometry.camera.world import hands_to_world
from handloom.geometry.cross_quality import cross_quality
from handloom.geometry.hands.fit import fit_hands
from handloom.geometry.hands.pnp import place_hands
from handloom.geometry.hands.quality import hand_quality
from handloom.geometry.image_stats import ImageStats
from handloom.geometry.tracks.lift import lift_in_pieces
from handloom.geometry.tracks.quality import lost_shares, track_quality
from handloom.models.corner_tracks import CornerTracks
from handloom.models.embeddings.appearance import GistHogHsv
from handloom.models.embeddings.motion import encode_motion
from handloom.schemas.settings import Settings
from handloom.stages.builtin.camera import in_metres
from handloom.stages.choose import hand_extractor, point_tracker
from handloom.stages.extract import settled
from handloom.video.decode.frame_store import FrameStore
from handloom.video.stored_frames import FrameKeeper


@pytest.fixture(scope="module")
def models() -> tuple[Any, ...]:
    settings = Settings()
    return hand_extractor(settings.hands, settings.camera), CornerTracks(), point_tracker(settings.tracks)


@pytest.fixture
def disturbed() -> Iterator[None]:
    """A process in which others set threads and seeds, and left holes of all sizes in the heap."""
    holes = [bytearray(int(size)) for size in np.random.default_rng(1).integers(16, 20_000, 2000)]
    del holes[::2]
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.ipp.setUseIPP(True)
    cv2.setRNGSeed(99)
    with threadpool_limits(4):
        yield
    cv2.setNumThreads(before)
    cv2.setRNGSeed(0)


def steps(held: HeldFrames, models: tuple[Any, ...], at: Callable[[Any], Any]) -> dict[str, Any]:
    """What every step makes of the clip, by name. `at` gives a step its inputs, somewhere in memory."""
    hand_model, corner_model, track_model = models
    clip, info, frame_s = held.clip, held.header.info, held.header.frame_s
    out: dict[str, Any] = {}
    store, stats, keeper, look = FrameStore(frame_s), ImageStats(), FrameKeeper(Settings().frames), GistHogHsv()
    stats.begin()
    keeper.begin(len(frame_s))
    look.begin(clip, info)
    first = 0
    for chunk in at(held.frames):
        seconds = frame_s[first : first + len(chunk)]
        first += len(chunk)
        store.append(chunk)
        stats.feed(chunk)
        keeper.feed(chunk, seconds)
        look.feed(chunk, seconds)
    out["jpeg"], out["pictures"] = keeper.finish(), stats.finish()
    out["camera"] = camera_for(clip, info, Settings().camera)
    out["points"] = points = hand_model.extract(clip, info, store)
    out["placed"] = place_hands(*at((points, out["camera"])))
    out["corners"] = corners = corner_model.track(info, store, at(points))
    out["path"] = path = estimate_path(at(corners), None, at(out["camera"]), at(frame_s), info)
    camera = path.camera
    out["fit"] = hands = fit_hands(*at((points, camera)), info, at(frame_s), keypoint_scale=1.0)
    out["scaled"] = scaled = with_scale(at(path), at(hands), at(frame_s), info, None)
    out["tracks"] = tracks = track_model.track(clip, info, store, at(points))
    metres = in_metres(at(scaled.path))
    out["lifted"] = lifted = lift_in_pieces(*at((tracks, hands, metres, camera)), None, info)
    out["world"] = hands_to_world(*at((hands, metres)))
    out["agreement"] = cross_quality(*at((hands, tracks, lifted, metres, camera)), info, at(frame_s), out["pictures"])
    out["quality"] = hand_quality(at(hands), info, at(camera)) | track_quality(
        at(tracks), lost_shares(at(tracks), at(hands), info)
    )
    out["motion"] = encode_motion(at(hands), at(tracks), at(frame_s), info)
    out["appearance"] = look.finish(at(hands))
    store.close()
    return {name: content(value) for name, value in out.items()}


@pytest.fixture(scope="module")
def plain_steps(two, models) -> Callable[[int], dict[str, Any]]:
    """What the steps make of a clip of `two`, by its number; 0.7 s each, computed when asked for."""

    @cache
    def of(index: int) -> dict[str, Any]:
        with settled():
            return steps(two[index], models, lambda value: value)

    return of


def assert_same_steps(two, models, plain_steps, index: int, offset: int) -> None:
    plain = plain_steps(index)
    with settled():
        found = steps(two[index], models, lambda value: moved(value, offset))
    assert {name for name in plain if found[name] != plain[name]} == set()


def test_steps_do_not_depend_on_where_arrays_lie(two, models, plain_steps, disturbed):
    """Every step alone gets its inputs elsewhere, so that the first one that differs is named."""
    assert_same_steps(two, models, plain_steps, 0, 8)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("offset", [0, 4, 8, 16, 24, 32, 48])
def test_steps_do_not_depend_on_any_offset(two, models, plain_steps, disturbed, offset, index):
    assert_same_steps(two, models, plain_steps, index, offset)


@pytest.mark.parametrize("offset", [4, 8, *(pytest.param(offset, marks=pytest.mark.slow) for offset in (16, 32))])
def test_rows_do_not_depend_on_addresses_threads_and_history(two, extractor, expected, disturbed, offset):
    """The clip comes after itself, after the other one, or first."""
    held = two[offset // 8 % 2]
    there = HeldFrames(held.clip, held.header, held.frames, offset)
    assert digests(extractor.row(there)) == {held.clip.clip_id: expected[held.clip.clip_id]}


TRANSCENDENTAL = """
exp exp2 expm1 log log2 log10 log1p cbrt sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh arctan2
power float_power
"""


def test_numpy_gets_no_columns_with_gaps(two, extractor, monkeypatch):
    """numpy takes the end of a strided array for later than it is: where the result happens to lie right behind it,
    it believes that both overlap, and computes these functions without AVX-512, to other last digits. The last
    digit of a lens's sigma changed so once in 150 searches; an `arctan2` laid there differed in 328 of 1001 values."""
    found = set()

    def watched(function: np.ufunc) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            frame = sys._getframe(1)
            for array in args:
                if isinstance(array, np.ndarray) and array.size > 1 and not is_dense(array):
                    found.add((frame.f_code.co_filename, frame.f_lineno, function.__name__))
            return function(*args, **options)

        return call

    for name in TRANSCENDENTAL.split():
        monkeypatch.setattr(np, name, watched(getattr(np, name)))
    for held in two:
        extractor.row(held)
    assert {place for place in found if "handloom" in place[0]} == set()


def is_dense(array: np.ndarray) -> bool:
    """Whether its values lie side by side, in any order of the axes."""
    spans = sorted((abs(step), size) for step, size in zip(array.strides, array.shape, strict=True) if size > 1)
    expected = array.itemsize
    for step, size in spans:
        if step != expected:
            return False
        expected *= size
    return True


def test_a_settled_process_has_one_thread_and_a_fresh_seed(disturbed):
    """SciPy's Cholesky solve takes another path on two threads: seen in the last bit of a hand fit's step."""
    draws = []
    for _ in range(2):
        with settled():
            assert {library["num_threads"] for library in threadpool_info()} == {1}
            assert (cv2.getNumThreads(), cv2.ipp.useIPP()) == (1, False)
            draws.append(cv2.randu(np.zeros((1, 8)), 0, 1).tobytes())
    assert draws[0] == draws[1]


def test_threads_are_given_back(extractor, two):
    with threadpool_limits(2):
        before = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
        extractor.row(two[0])
        assert {library["filepath"]: library["num_threads"] for library in threadpool_info()} == before


def test_rows_do_not_depend_on_what_was_imported_before(tmp_path, two, expected):
    """decord opens an older C++ library to the whole process; BLAS there starts with four threads."""
    env = {"OPENBLAS_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
    found = rows_elsewhere(tmp_path, two, env, "decord", "av")
    assert found == {held.clip.clip_id: expected[held.clip.clip_id] for held in two}
