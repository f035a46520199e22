"""deploy/slurm.sh as Slurm would call it, on this machine: `srun` and `scontrol` are stand-ins, all else is real."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.extraction import new_database, row_digests
from support.process import alive, state

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm.sh"
SRUN = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\necho $$ "$@" >> "$STEPS"\nexec "$@"\n'
RAY = "#!/bin/bash\ncase $1 in start) exec sleep 60 ;; esac\n"
HANDLOOM = """#!/bin/bash
trap 'echo stopped >> "$STEPS.handloom"; exit 1' TERM
echo "$@" >> "$STEPS.handloom"
[[ -z ${ENDS_WITH:-} ]] || exit "$ENDS_WITH"
while :; do sleep 0.1; done
"""
SCONTROL = '#!/bin/bash\ncase $1 in show) echo localhost ;; requeue) echo "requeued $2" ;; esac\n'


@pytest.fixture
def allocation(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job with one node of two CPUs. Processes left at the end are killed, as by Slurm."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job, steps = str(os.getpid()), tmp_path / "steps"
    steps.touch()
    slurm = {"SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "here", "SLURM_CPUS_PER_TASK": "2"}
    ours = {"HANDLOOM_VENV": sys.prefix, "HANDLOOM_DB": str(tmp_path / "db"), "STEPS": str(steps)}
    left_out = ("RAY_", "SLURM_", "HANDLOOM_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    yield env | slurm | ours | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    started = [line.split(None, 1) for line in steps.read_text().splitlines()]
    rays = [int(pid) for pid, command in started if command.startswith("ray start")]
    for pid in rays:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    _until(lambda: not any(map(alive, rays)), 240)
    shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


def _until(true, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def venv(folder: Path, ray: str) -> str:
    """An environment in which handloom is a stand-in."""
    bin = folder / "venv" / "bin"
    bin.mkdir(parents=True)
    (bin / "python").symlink_to(sys.executable)
    for name, text in {"ray": ray, "handloom": HANDLOOM}.items():
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    return str(bin.parent)


@pytest.mark.parametrize(("arguments", "told"), [([], "usage: sbatch"), (["run"], "HANDLOOM_DB: the database")])
def test_what_is_missing_is_said_before_anything_starts(allocation, arguments, told):
    if arguments:
        del allocation["HANDLOOM_DB"]
    done = subprocess.run(
        ["/bin/bash", SCRIPT, *arguments], env=allocation, capture_output=True, text=True, timeout=240
    )
    assert done.returncode != 0
    assert told in done.stderr
    assert Path(allocation["STEPS"]).read_text() == ""


def test_the_signal_reaches_handloom_and_another_turn_is_asked_for(allocation, tmp_path):
    """The short form of the next test: the script alone; Ray and handloom are stand-ins, too."""
    env, told = allocation | {"HANDLOOM_VENV": venv(tmp_path, RAY)}, tmp_path / "steps.handloom"
    command = ["/bin/bash", SCRIPT, "run"]
    first = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    _until(lambda: told.exists() or first.poll() is not None, 240)
    _until(lambda: state(first.pid) in "SZ", 240)  # the script, which has just started it, waits for it
    first.terminate()
    assert first.wait(240) == 0
    assert first.stdout.readline() == f"requeued {env['SLURM_JOB_ID']}\n"
    first.stdout.close()
    assert told.read_text().splitlines()[1:] == ["stopped"]
    for turn, (ends_with, code) in enumerate(((0, 0), (3, 0), (1, 1)), start=1):  # 3: some clips are rejected
        again = env | {"SLURM_RESTART_COUNT": str(turn), "ENDS_WITH": str(ends_with)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # no pipe: Ray's stand-in would hold it
        assert subprocess.run(command, env=again, timeout=240, **quiet).returncode == code
    calls = [line.split() for line in told.read_text().splitlines() if line != "stopped"]
    assert [call[:4] for call in calls] == [["run", "--db", env["HANDLOOM_DB"], "--ray-address"]] * 4
    assert len({call[4] for call in calls}) == 4  # each turn has ports of its own


def test_ray_starts_with_the_options_of_the_script(allocation, tmp_path):
    """An option that the installed Ray refuses, or serves with another extra alone, ends a job before it begins."""
    real = f'#!/bin/bash\nexec {sys.executable} -c "from ray.scripts.scripts import main; main()" "$@"\n'
    env = allocation | {"HANDLOOM_VENV": venv(tmp_path, real), "ENDS_WITH": "0"}
    with (tmp_path / "log").open("w") as log:  # no pipe: Ray would hold it
        done = subprocess.run(["/bin/bash", SCRIPT, "run"], env=env, stdout=log, stderr=subprocess.STDOUT, timeout=240)
    assert done.returncode == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "steps.handloom").read_text().startswith(f"run --db {env['HANDLOOM_DB']} --ray-address ")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_job_that_runs_out_of_time_is_queued_again_and_finishes(allocation, tmp_path, clips, expected):
    """First turn: Slurm's signal comes when the first rows are there. Second turn, as Slurm would start it again."""
    db = new_database(tmp_path / "db", clips)
    (tmp_path / "run.toml").write_text("[resources]\nnum_actors = 1\nshard_clips = 1\ncommit_clips = 1\n")
    env = allocation | {"HANDLOOM_CONFIG": str(tmp_path / "run.toml")}
    with (tmp_path / "log").open("w") as log:
        command = ["/bin/bash", SCRIPT, "run"]
        first = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        _until(lambda: db.count("clips") or first.poll() is not None, 120)
        first.terminate()
        assert first.wait(240) == 0, (tmp_path / "log").read_text()
        again = env | {"SLURM_RESTART_COUNT": "1"}
        assert f"requeued {env['SLURM_JOB_ID']}" in (tmp_path / "log").read_text()
        second = subprocess.run(command, env=again, stdout=log, stderr=subprocess.STDOUT, timeout=240)
    assert second.returncode == 0, (tmp_path / "log").read_text()
    assert row_digests(db) == expected
