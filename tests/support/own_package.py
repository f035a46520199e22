"""A package of somebody else's, as pip would have installed it: outside the repository, on the path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def install(site: Path, name: str, modules: Mapping[str, str]) -> Path:
    """Write `name` with its modules and its metadata below `site`, which the caller puts on the path."""
    package = site / name
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    for module, source in modules.items():
        (package / f"{module}.py").write_text(source)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    return site


def code_of_page(page: str) -> list[str]:
    """The Python of a page of the documentation, block by block."""
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / page).read_text(), re.DOTALL)
