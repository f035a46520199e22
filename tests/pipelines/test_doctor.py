"""What `handloom doctor` finds."""

from __future__ import annotations

import re
from importlib.metadata import requires, version

import pytest
from packaging.specifiers import SpecifierSet

from handloom.pipelines.doctor import Finding, decoding, extra_of, is_bad, package, packages, requirements, simulator
from handloom.video.decode.process import ProcessDied
from handloom.video.decode.sandbox import LAYERS, support

ANY = SpecifierSet()


def test_every_package_of_the_metadata_is_looked_at_once():
    named = {re.match(r"[\w-]+", text)[0] for text in requires("handloom") if 'extra == "dev"' not in text}
    found = [finding.name.removesuffix("-headless") for finding in packages()]
    assert sorted(found) == sorted(named)
    assert {"pycolmap", "ai-edge-litert", "tensorboardX", "rerun-sdk", "transformers"} <= set(found)


def test_requirements_are_joined_and_markers_are_kept():
    listed = [
        "numpy>=1.26",
        'numpy<2,>=1.25; extra == "extract"',
        'Ray[data]>=2.49; extra == "extract"',
        'ray[train]>=2.60; extra == "train"',
        'torch>=2.6; extra == "train"',
        'torch<2.14; extra == "train"',
        'not-here; sys_platform == "another" and extra == "extract"',
        'always; python_version > "3"',
        'hypothesis; extra == "dev"',
    ]
    assert requirements(listed, ["extract", "train"]) == {
        ("", "numpy"): SpecifierSet(">=1.26,>=1.25,<2"),
        ("", "always"): ANY,
        ("extract", "Ray"): SpecifierSet(">=2.49"),  # what training wants is not needed to extract
        ("train", "torch"): SpecifierSet(">=2.6,<2.14"),
    }


def test_a_version_out_of_range_is_wrong_and_the_command_is_told():
    assert package("numpy", "extract", ANY) == Finding("numpy", "ok", version("numpy"))
    found = package("numpy", "extract", SpecifierSet("<1"))
    told = (found.state, found.detail, found.remedy)
    assert told == ("wrong", f"{version('numpy')}, expected <1", "pip install 'numpy<1'")
    assert is_bad([found])
    assert package("numpy", "train", SpecifierSet("<1")).state == "optional"
    assert not is_bad([package("numpy", "train", SpecifierSet("<1"))])


@pytest.mark.parametrize(("extra", "state"), [("", "missing"), ("extract", "missing"), ("models", "optional")])
def test_what_is_not_installed_is_missing_where_the_main_job_needs_it(extra, state):
    found = package("not-a-package", extra, ANY)
    command = f"pip install '.[{extra}]' in the clone" if extra else "pip install 'not-a-package'"
    assert (found.state, found.detail) == (state, "not installed")
    assert found.remedy.startswith(command)


def test_the_extra_that_brings_a_module():
    found = {
        module: extra_of(module) for module in ("cv2", "transformers", "rerun", "tensorboardX", "mujoco", "nobody")
    }
    assert list(found.values()) == ["extract", "models", "rerun", "train", "sim", None]


def test_how_decoding_is_confined_is_reported():
    found = support().layers
    (finding,) = decoding()
    assert finding.state == ("ok" if set(found) == LAYERS.keys() else "optional")
    assert all((LAYERS[name] in finding.detail.partition("; not here")[0]) is (name in found) for name in LAYERS)

    def died() -> set[str]:
        raise ProcessDied("the decoder ended: no decoder")

    (finding,) = decoding(died)
    assert (finding.state, is_bad([finding])) == ("missing", True)
    assert "no decoder" in finding.detail


def test_a_simulator_that_cannot_draw_is_named_with_its_library():
    """Without the simulator there is nothing to say: the packages say it."""

    def not_installed():
        raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")

    (found,) = simulator(lambda: {"egl": "no EGL device", "osmesa": "OSMesa is not there"})
    assert (found.state, "no EGL device; osmesa: OSMesa" in found.detail) == ("optional", True)
    assert "libosmesa6" in found.remedy
    assert simulator(lambda: {"egl": "no EGL device", "osmesa": ""})[0].state == "ok"
    assert simulator(not_installed) == []
