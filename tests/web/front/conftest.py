"""What the tests of pages in a browser share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.browsing import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for a module: Playwright's loop holds the thread, and other tests start one of their own."""
    with chromium() as found:
        yield found
