"""Where a local Ray keeps its sockets, wherever a command is run; test_ray_private.py starts one there."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from handloom.errors import ConfigError
from handloom.pipelines.cluster.connect import MAX_BYTES, _allow_open_files, joined, ray_folder


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_name_is_replaced_by_a_private_folder(monkeypatch, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/tmp/" + "x" * 39)  # 44 characters: a Slurm job's
    with ray_folder() as folder:
        assert len(folder) <= MAX_BYTES
        found = os.lstat(folder)
        assert stat.S_ISDIR(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o700
        assert found.st_uid == os.getuid()
        (Path(folder) / "session").mkdir()
    assert not os.path.exists(folder)
    monkeypatch.setenv(name, "/tmp/" + "x" * 31)
    with ray_folder() as folder:
        assert folder is None


def test_no_short_folder(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 44)))
    cannot = ray_folder((str(tmp_path / "none"), str(tmp_path / "file")))
    with pytest.raises(ConfigError, match=r"RAY_TMPDIR is .* too long for Ray's sockets") as caught, cannot:
        pass
    assert "shorter name" in caught.value.hint


@pytest.mark.slow
def test_a_local_ray_leaves_no_environments():
    """Each is a copy of the virtual environment, of gigabytes; only the Ray that has built it finds it."""
    code = """
from pathlib import Path
from handloom.pipelines.cluster.connect import joined
from handloom.pipelines.cluster.ray_private import session_folder
with joined(None, num_cpus=1):
    session = Path(session_folder())
    built = session / "runtime_resources" / "pip" / "0123"
    built.mkdir(parents=True, exist_ok=True)
    (built / "module.py").write_text("")
print(session.is_dir(), (session / "runtime_resources").exists())
"""
    with tempfile.TemporaryDirectory(prefix="hl-", dir="/tmp") as folder:
        env = {**os.environ, "RAY_TMPDIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    ("soft", "hard", "asked"), [(64, 9999, 4096), (64, 512, 512), (64, -1, 4096), (8192, 9999, None)]
)
def test_the_limit_of_open_files_is_raised(monkeypatch, soft, hard, asked):
    calls = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: calls.append(limits))
    _allow_open_files()
    assert calls == ([] if asked is None else [(asked, hard)])


def test_too_few_open_files_are_named(monkeypatch):
    """Ray's core would end the process without a message."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(ConfigError, match=r"may open 64 files here.*128"):
        _allow_open_files()


@pytest.mark.parametrize(("raised", "expected"), [(Exception, ConfigError), (KeyError, KeyError)])
def test_a_ray_that_does_not_start_is_reported_without_a_trace(monkeypatch, raised, expected):
    """On a machine at a load of 35 Ray 2.60 raised a bare Exception; a bug keeps its trace."""

    def init(**_: object) -> None:
        raise raised("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test of this process may have started one
    with pytest.raises(expected, match="The current node timed out during startup"), joined(None):
        pass
