"""Hold back what native libraries write to stderr when they start, and have no switch for."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

# What MediaPipe prints when its graph starts and at the first hand, and LiteRT when it loads the first network.
CHATTER = (
    b"All log messages before absl::InitializeLog",
    b"inference_feedback_manager.cc",
    b"Created TensorFlow Lite XNNPACK delegate",
    b"landmark_projection_calculator.cc",
)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back stderr of native code in this block; afterwards write all of it except lines with `CHATTER`."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError):  # no stderr to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            lines = [line for line in held.readlines() if not any(words in line for words in CHATTER)]
            if lines:
                os.write(2, b"".join(lines))
