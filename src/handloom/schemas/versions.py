"""How much of each package's version counts: for the run key, and between the driver and its workers.

Whole versions are recorded in `runs.versions`. Of some packages only the first numbers count, so that a patch release
does not ask for a new database (pycolmap's do: rows with 4.2.0 and 4.2.1 differed). Names are those of
`handloom.workers.extraction.versions`; what is not listed counts whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Counted:
    """numbers: how many of a version's numbers count, 2 of `18.1.0`: `18.1`. why: what that rests on."""

    numbers: int
    why: str


_FIXES = "patch releases mend faults and keep the arithmetic"
COUNTED = {
    "handloom": Counted(0, "each step has a version of its own below; the build is compared between nodes"),
    "numpy": Counted(2, f"{_FIXES}; rows with 1.26.3 and 1.26.4 were equal bytes"),
    "scipy": Counted(2, f"{_FIXES}; rows with 1.17.0 and 1.17.1 were equal bytes"),
    "pyav": Counted(2, "a patch release carries a patch release of FFmpeg, whose decoders give the standards' bits"),
    "opencv": Counted(3, "the fourth number is of the wheel, the third has brought other algorithms"),
    "ai-edge-litert": Counted(2, "the kernels (XNNPACK) change with the second number"),
    "torch": Counted(2, f"{_FIXES}; the build (+cpu, +cu126) follows from `device`"),
    "transformers": Counted(2, "image processors change with the second number"),
    "pillow": Counted(2, "resizing for transformers' image processors changes with the second number"),
}


def counted(versions: Mapping[str, str]) -> dict[str, str]:
    """The versions, each cut to what counts of it. A development build counts whole: it is like no other."""
    cut = {name: _cut(text, COUNTED[name].numbers) if name in COUNTED else text for name, text in versions.items()}
    return {name: text for name, text in cut.items() if text}


def differing_versions(left: Mapping[str, str], right: Mapping[str, str]) -> list[tuple[str, str | None, str | None]]:
    """`(name, left, right)` in whole versions, where what counts differs; None where one side lacks it."""
    a, b = counted(left), counted(right)
    names = (name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name))
    return [(name, left.get(name), right.get(name)) for name in names]


def _cut(text: str, numbers: int) -> str:
    if not numbers:
        return ""
    try:
        version = Version(text)
    except InvalidVersion:
        return text
    return text if version.is_prerelease else ".".join(str(number) for number in version.release[:numbers])
