"""Robots by name, file or folder; what is missing is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from handloom.errors import ConfigError
from handloom.sim.descriptions import NAMED, compiled, find_description, open_spec, require_joints

pytest.importorskip("mujoco", reason="the simulator is not installed: pip install '.[sim]'")

ARM = """<mujoco><worldbody><body name="upper"><joint name="shoulder_pitch" axis="0 1 0"/><geom size=".1"/>
<body name="lower" pos="0 0 .3"><joint name="elbow_pitch" axis="0 1 0"/><geom size=".1"/></body></body>
</worldbody></mujoco>"""


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    path = tmp_path / "arm.xml"
    path.write_text(ARM)
    return path


def test_a_file_and_a_folder(arm, tmp_path):
    (tmp_path / "scene.xml").write_text("<mujoco/>")
    assert find_description(str(arm)) == find_description(str(tmp_path)) == arm
    folder = tmp_path / "unitree_g1"
    folder.mkdir()
    with pytest.raises(ConfigError, match="0 descriptions of robots: none"):
        find_description(str(folder))
    for name in ("g1.xml", "g1_with_hands.xml"):
        (folder / name).write_text(ARM)
    assert find_description(str(folder)).name == "g1.xml"
    (folder / "g1.xml").rename(folder / "g1_other.xml")
    with pytest.raises(ConfigError, match=r"2 descriptions of robots: g1_other.xml, g1_with_hands.xml"):
        find_description(str(folder))


def test_what_is_none_is_refused(arm, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no robot 'gr2'\n.*one of gr1, panda"):
        find_description("gr2")
    picture = tmp_path / "arm.png"
    picture.write_bytes(b"")
    with pytest.raises(ConfigError, match="no description of a robot"):
        find_description(str(picture))
    arm.write_text(ARM.replace("<geom", '<geom type="mesh" mesh="hand"'))
    with pytest.raises(ConfigError, match=r"MuJoCo cannot read the robot .*hand"):
        compiled(open_spec(arm), arm)
    arm.write_text("<mujoco>")
    with pytest.raises(ConfigError, match="MuJoCo cannot read the robot"):
        open_spec(arm)


def test_a_missing_joint_is_named(arm):
    spec = open_spec(arm)
    require_joints(spec, ["elbow_pitch"], "arm")
    with pytest.raises(ConfigError, match=r"the robot arm has no joint elbow_roll\n.*elbow_pitch"):
        require_joints(spec, ["elbow_pitch", "elbow_roll"], "arm")


@pytest.mark.parametrize("name", NAMED)
def test_what_has_a_name_is_packaged(name):
    if importlib.util.find_spec("robosuite") is None:
        with pytest.raises(ModuleNotFoundError, match=f"robosuite.*{name}"):
            find_description(name)
        return
    assert find_description(name).is_file()
