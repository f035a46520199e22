"""Unexpected exceptions, their traces, and streams that fail."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from support.rows import make_clip

from handloom.errors import ClipError, ConfigError
from handloom.stages.traces import is_lack_of_memory, place_of, trace_of
from handloom.workers.bugs import bugs_as_rejects, for_each


class Panic(BaseException):
    """Like `pyo3_runtime.PanicException`, which a Rust library raises when it panics."""


CLIPS = [make_clip(number) for number in range(5)]


def raising(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as raised:
        return raised


def nested(depth: int) -> None:
    if depth:
        nested(depth - 1)
    try:
        {}["x" * 9000]
    except KeyError as error:
        raise ValueError("no such thing") from error


def test_a_trace_is_short_and_names_the_lines():
    with pytest.raises(ValueError, match="no such thing") as caught:
        nested(50)
    trace = trace_of(caught.value)
    first, place, *rest = trace.splitlines()
    assert first == "ValueError: no such thing"
    assert place.startswith("  at workers/test_traces.py:")
    assert place.endswith(" in nested")
    assert "from KeyError: 'xxx" in trace
    assert len(rest) < 50
    assert len(trace) < 4000
    assert place_of(trace) == f"ValueError{place}"
    assert place_of(trace.replace("no such thing", "another")) == place_of(trace)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TypeError("x"), "bug"),
        (StopIteration(), "bug"),
        (MemoryError(), "out_of_memory"),
        (cv2.error("x"), "bug"),
        (Panic("index out of bounds"), "bug"),
        (ClipError("a", "hands", "model_failed", "x"), "model_failed"),
    ],
)
def test_what_becomes_a_reject(error, reason):
    with pytest.raises(ClipError) as caught, bugs_as_rejects("a", lambda: "hands"):
        raise error
    assert (caught.value.reason, caught.value.stage) == (reason, "hands")


def test_opencv_has_an_error_of_its_own_for_a_lack_of_memory():
    with pytest.raises(ClipError) as caught, bugs_as_rejects("a", lambda: "hands"):
        cv2.resize(np.zeros((1, 1), np.uint8), (2**30, 2**30))
    assert caught.value.reason in ("out_of_memory", "bug")  # the size overflows in some builds


@pytest.mark.parametrize("error", [ConfigError("no sandbox"), KeyboardInterrupt(), SystemExit(1)])
def test_errors_that_concern_more_than_a_clip_are_not_caught(error):
    with pytest.raises(type(error)), bugs_as_rejects("a", lambda: "hands"):
        raise error


def test_a_stream_that_fails_is_started_again_after_the_clip():
    begun, streams = [], []

    def stream(clips):
        streams.append([clip.clip_id for clip in clips])
        for clip in clips:
            if clip is CLIPS[2]:
                raise RuntimeError("the decoder broke")
            yield ClipError(clip.clip_id, "decode", "damaged", "x") if clip is CLIPS[1] else clip

    def work(clip):
        if clip is CLIPS[3]:
            raise TypeError("the model broke")
        return clip.clip_id

    def begin(clip):
        begun.append(clip)
        return True

    found = dict(for_each(CLIPS, stream, work, begin=begin, stage=lambda: "here"))
    assert begun == CLIPS
    reasons = [value.reason if isinstance(value, ClipError) else value for value in found.values()]
    assert reasons == [CLIPS[0].clip_id, "damaged", "bug", "bug", CLIPS[4].clip_id]
    assert [len(clips) for clips in streams] == [5, 2, 1]
    assert found[CLIPS[3]].__cause__ is None
    short = list(for_each(CLIPS, stream, work, begin=lambda clip: clip is CLIPS[0], stage=lambda: "here"))
    assert [clip for clip, _ in short] == CLIPS[:1]


def test_a_stream_is_closed_before_its_bug_is_yielded():
    """The caller then closes the decoder, while the stream's thread could start a process of it."""
    is_open = False

    def stream(clips):
        nonlocal is_open
        is_open = True
        try:
            yield from clips
        finally:
            is_open = False

    def work(clip):
        if clip in (CLIPS[1], CLIPS[4]):
            raise TypeError("the model broke")

    told = for_each(CLIPS, stream, work, begin=lambda _: True, stage=lambda: "here")
    assert [is_open for _ in told] == [True, False, True, True, False]


def test_torchs_lack_of_memory_on_a_gpu_is_one():
    torch = pytest.importorskip("torch")
    assert is_lack_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_lack_of_memory(RuntimeError("CUDA out of memory"))
