"""Fixtures of these tests: two decoded clips and one Extractor."""

from __future__ import annotations

import pytest
from support.decoded import HeldFrames, decoded
from support.extraction import new_extractor

from handloom.schemas.settings import Settings
from handloom.stages.extract import Extractor


@pytest.fixture(scope="package")
def two(clips) -> list[HeldFrames]:
    """A clip without a camera file, whose path is estimated, and one with given poses."""
    return decoded([clips[1], clips[3]])


@pytest.fixture(scope="package")
def extractor() -> Extractor:
    return new_extractor(Settings())
