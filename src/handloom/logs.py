"""Logging set-up for the command line: key=value lines on stderr."""

from __future__ import annotations

import logging
import sys


def setup(verbose: bool = False) -> None:
    """Warnings and errors; with `verbose` also a line per commit and shard."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("handloom")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("pylance").setLevel(logging.WARNING)
