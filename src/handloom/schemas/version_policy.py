"""Which part of each package's version enters the run key, and must be equal on the driver and its workers.

Whole versions are recorded in `runs.versions`. Of some packages only the first numbers count, so that a patch release
needs no new database (pycolmap's does: rows with 4.2.0 and 4.2.1 differed). Names are those of
`handloom.stages.versions`; the version of a package that is not listed counts whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Counted:
    """numbers: how many numbers of a version count; 2 of `18.1.0` is `18.1`. why: the reason or measurement."""

    numbers: int
    why: str


_FIXES = "patch releases fix faults and keep the arithmetic"
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


LICENCE = "licence_"
"""Begins the names of entries that say the licence of a stage's weights: they change no row."""


def with_licences(versions: Mapping[str, str], licences: Mapping[str, str | None]) -> dict[str, str]:
    """The versions, and the licence of each stage's weights; `unknown` where nobody says it."""
    return dict(versions) | {LICENCE + stage: licence or "unknown" for stage, licence in licences.items()}


def licences_in(versions: Mapping[str, str]) -> dict[str, str]:
    """`{stage: licence}` of weights that a run has recorded in its versions."""
    return {name.removeprefix(LICENCE): text for name, text in versions.items() if name.startswith(LICENCE)}


def counted(versions: Mapping[str, str]) -> dict[str, str]:
    """The versions, each cut to the part that counts. A development build counts whole."""
    versions = {name: text for name, text in versions.items() if not name.startswith(LICENCE)}
    cut = {name: _cut(text, COUNTED[name].numbers) if name in COUNTED else text for name, text in versions.items()}
    return {name: text for name, text in cut.items() if text}


def differing_versions(left: Mapping[str, str], right: Mapping[str, str]) -> list[tuple[str, str | None, str | None]]:
    """`(name, left, right)` as whole versions, where the parts that count differ; None where one side lacks it."""
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
