"""What the tests of this room share: two decoded clips and one Extractor."""

from __future__ import annotations

import pytest
from support.decoded import HeldFrames, decoded

from handloom.schemas.settings import Settings
from handloom.workers.extraction.extract import Extractor
from handloom.workers.extraction.versions import model_versions


@pytest.fixture(scope="package")
def two(clips) -> list[HeldFrames]:
    """A clip without a camera file, whose path is estimated, and one with given poses."""
    return decoded([clips[1], clips[3]])


@pytest.fixture(scope="package")
def extractor() -> Extractor:
    return Extractor(Settings(), Settings().run_key(model_versions(Settings())))
