"""Jobs that kill their process, as expressions for `eval`: a cluster's nodes have none of the tests' modules."""

from __future__ import annotations

from pathlib import Path

ALWAYS = "__import__('os').kill(__import__('os').getpid(), 11)"


def once(marker: Path) -> str:
    """Kills its process the first time, and gives 7 from then on. marker: a file that says that it has."""
    return f"(__import__('os').path.exists({str(marker)!r}) or (open({str(marker)!r}, 'w').close(), {ALWAYS})) and 7"
