"""CALVIN's benchmark: its protocol, held against a small environment of the same interface in a process of its own."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from handloom.cli import app
from handloom.cli.console import FAILED
from handloom.errors import ConfigError, HandloomError
from handloom.ingest.robot.calvin import ACTIONS, STATE_NAMES
from handloom.pipelines.sim.calvin import close_calvin, evaluate_calvin, policy_of
from handloom.sim.calvin import server
from handloom.sim.calvin.installation import ACTION_NAMES, Calvin, Sequence
from handloom.sim.calvin.rollouts import SequenceOutcome, roll_out
from handloom.sim.calvin.scores import mean_interval, scores_of

# The modules that the benchmark's own script opens, and an arm that is a point: `up` is done 5 cm above its start.
MODULES = {
    "calvin_env/__init__.py": "__version__ = '0.0.1'",
    "calvin_env/envs/__init__.py": "",
    "calvin_env/envs/play_table_env.py": """
import json, os, signal, sys
from pathlib import Path
import numpy as np

class Env:
    def __init__(self, folder):
        assert (folder / ".hydra").is_dir()
        os.write(1, b"pybullet build time: now\\n")  # PyBullet prints from C
        self.num_resets, self.robot, self.scene = 0, None, None
    def reset(self, robot_obs=None, scene_obs=None):
        self.num_resets += 1
        self.robot, self.scene = np.array(robot_obs, float), np.array(scene_obs, float)
        return self.get_obs()
    def get_obs(self):
        rgb = {"rgb_static": np.full((200, 200, 3), self.num_resets, np.uint8),
               "rgb_gripper": np.zeros((84, 84, 3), np.uint8)}
        return {"rgb_obs": rgb, "depth_obs": {}, "robot_obs": self.robot.copy(), "scene_obs": self.scene}
    def get_info(self):
        return {"tcp": self.robot[:3].copy()}
    def step(self, action):
        assert action.shape == (7,) and np.abs(action).max() <= 1 and action[6] in (-1, 1), action
        self.robot[:6] += np.concatenate([0.02 * action[:3], 0.05 * action[3:6]])
        self.robot[14] = action[6]
        if action[3] == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if action[3] == -1:
            raise ValueError("no solution of inverse kinematics")
        return self.get_obs(), 0, False, self.get_info()

def get_env(folder, show_gui=True):
    assert not show_gui
    return Env(Path(folder))
""",
    "calvin_agent/__init__.py": "",
    "calvin_agent/evaluation/__init__.py": "",
    "calvin_agent/evaluation/multistep_sequences.py": """
import numpy as np
def get_sequences(num):
    assert num == 1000
    tasks = ["up", "down", "left", "right", "away"]
    return [({"led": np.int64(n % 2), "drawer": "open"}, tuple(np.roll(tasks, -n).tolist())) for n in range(num)]
""",
    "calvin_agent/evaluation/utils.py": """
import numpy as np
def get_env_state_for_initial_condition(state):
    assert state["drawer"] == "open"
    return np.arange(15.0) / 100, np.full(24, float(state["led"]))
""",
    "hydra/__init__.py": "from . import utils",
    "hydra/utils.py": """
class Oracle:
    moves = {"up": (2, 1), "down": (2, -1), "left": (0, -1), "right": (0, 1), "away": (1, 1)}
    def get_task_info_for_set(self, start, end, names):
        shift = end["tcp"] - start["tcp"]
        return {name for name in names if shift[self.moves[name][0]] * self.moves[name][1] > 0.05}
def instantiate(conf):
    assert conf == {"kind": "tasks"}
    return Oracle()
""",
    "omegaconf.py": """
import json
class OmegaConf:
    load = staticmethod(lambda path: json.loads(open(path).read()))
    @staticmethod
    def select(conf, key):
        for part in key.split("."):
            conf = (conf or {}).get(part)
        return conf
""",
    "conf/callbacks/rollout/tasks/new_playtable_tasks.yaml": '{"kind": "tasks"}',
    "conf/annotations/new_playtable_validation.yaml": json.dumps(
        {name: [f"go {name}", "not this one"] for name in ("up", "down", "left", "right", "away")}
    ),
}
TABLE = {"scene": {"objects": {"fixed_objects": {"table": {"file": "calvin_table_D/urdf/calvin_table_D.urdf"}}}}}
DIRECTIONS = {"up": (2, 1), "down": (2, -1), "left": (0, -1), "right": (0, 1), "away": (1, 1)}


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    """An interpreter with modules of CALVIN's interface, which this process does not see."""
    folder = tmp_path_factory.mktemp("calvin")
    for name, text in MODULES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    config = tmp_path_factory.mktemp("task_D_D") / "validation" / server.CONFIG
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps(TABLE))
    return str(config.parents[2])


@pytest.fixture(autouse=True)
def _anew():
    policy_of.cache_clear()
    yield
    close_calvin()


class Follows:
    """Goes where the words say, three actions at a time; `away` it does not know."""

    def reset(self, task: str, seed: int) -> None:
        self.word = task.removeprefix("go ")

    def act(self, observation):
        action = np.zeros(7)
        if self.word != "away":
            axis, sign = DIRECTIONS[self.word]
            action[axis] = 1.5 * sign
        action[6] = 0.2
        return np.repeat(action[None], 3, axis=0)


class Tires(Follows):
    """Breaks at the first task of its second sequence."""

    num = 0

    def reset(self, task: str, seed: int) -> None:
        super().reset(task, seed)
        Tires.num += 1

    def act(self, observation):
        if Tires.num == 6:
            raise KeyError("grip")
        return super().act(observation)


class Unsure(Follows):
    def act(self, observation):
        return np.full((1, 7), np.nan) if self.word == "left" else super().act(observation)


class Turns(Follows):
    """As far as goes to one side, where the simulator crashes, or to the other, where it raises an error."""

    sign = 1

    def act(self, observation):
        return super().act(observation) + np.eye(7)[3] * Turns.sign


class Wide(Follows):
    def act(self, observation):
        return np.zeros((1, 4))


def named(policy: type) -> str:
    return f"{__name__}:{policy.__name__}"


def test_five_instructions_in_a_row_as_the_benchmark_counts_them(dataset, python):
    """Sequence n begins with task n: `away`, which the policy does not know, is the fifth, fourth, ... task."""
    found = evaluate_calvin(dataset, named(Follows), 5, python=python, max_steps=20)
    scores = found.scores
    assert [run["done"] for run in scores["runs"]] == [4, 3, 2, 1, 0]
    assert [scores["success"][str(n)]["rate"] for n in range(1, 6)] == [0.8, 0.6, 0.4, 0.2, 0.0]
    assert scores["average_length"] == 2.0
    assert scores["runs"][0]["steps"] == [3, 3, 3, 3, 20], "2 cm an action: the third leaves 5 cm; away: all steps"
    assert scores["failures"] == {"not_done": 5}
    assert (scores["tasks"]["away"]["successes"], scores["tasks"]["away"]["attempts"]) == (0, 5)
    assert (scores["tasks"]["up"]["successes"], scores["tasks"]["up"]["attempts"]) == (1, 1)
    assert found.versions["table"] == "calvin_table_D"
    assert (found.dataset, found.error) == (Path(dataset).name, "")
    json.dumps(found.scores, allow_nan=False)
    assert evaluate_calvin(dataset, named(Follows), 5, python=python, max_steps=20, workers=2) == found


def test_a_policy_sees_what_calvin_shows(dataset, python):
    """The scene stays between the tasks of a sequence; words, step and seed are new for each."""
    seen, seeds = [], []

    class Watches(Follows):
        def reset(self, task: str, seed: int) -> None:
            super().reset(task, seed)
            seeds.append(seed)

        def act(self, observation):
            seen.append(observation)
            return super().act(observation)[:2]

    calvin = Calvin(dataset, python)
    try:
        first, second = calvin.sequences(2)
        assert (first.state, second.number) == ({"led": 0, "drawer": "open"}, 1)
        outcome = roll_out(calvin, Watches(), first, 7, 4)
        again = roll_out(calvin, Watches(), first, 7, 4)
    finally:
        calvin.close()
    assert outcome == again
    assert (outcome.done, outcome.steps, outcome.failure) == (4, (3, 3, 3, 3, 4), "not_done")
    assert [(one.task, one.step) for one in seen[:4]] == [("go up", 0), ("go up", 2), ("go down", 0), ("go down", 2)]
    assert len({one.picture[0, 0, 0] for one in seen[: len(seen) // 2]}) == 1, "one reset a sequence"
    one = seen[1]
    assert np.allclose(one.state, [0, 0.01, 0.06, *np.arange(3, 14) / 100, 1]), "clipped, and the gripper's sign alone"
    assert (one.environment.shape, one.vector.shape) == ((24,), (39,))
    assert {name: image.shape for name, image in one.pictures.items()} == {
        "rgb_static": (200, 200, 3),
        "rgb_gripper": (84, 84, 3),
    }
    assert np.isclose(seen[2].state[2], 0.08), "the second task begins where the first one ended"
    assert len(set(seeds)) == 5
    assert len(STATE_NAMES) == len(one.state)
    assert ACTIONS["rel_actions"][0] == ACTION_NAMES, "as the dataset's actions, which recipes train on"


def test_what_is_not_finite_is_a_counted_failure(dataset, python):
    scores = evaluate_calvin(dataset, named(Unsure), 2, python=python, max_steps=20).scores
    assert [run["done"] for run in scores["runs"]] == [2, 1]
    assert scores["failures"] == {"action_not_finite": 2}
    assert "nan" in scores["runs"][0]["detail"]


def test_what_was_finished_before_an_error_is_kept(dataset, python, monkeypatch, capsys):
    """Of the policy, with its place; of CALVIN; and where CALVIN's process dies."""
    monkeypatch.setattr(Tires, "num", 0)
    command = ["sim", "evaluate", "--calvin", dataset, "--calvin-python", python, "--sequences", "4"]
    command += ["--max-steps", "20", "--policy", named(Tires), "--json"]
    assert app(command, standalone_mode=False) == FAILED
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["sequences"], found["scores"]["num_sequences"]) == (4, 1)
    assert "raised an error in sequence 1: down, left, right, away, up\nKeyError: 'grip'" in found["error"]
    assert "partial: 1 of 4 sequences" in told.err
    assert "draws its sequences first" in told.err
    with pytest.raises(HandloomError, match="ended with signal 11"):
        evaluate_calvin(dataset, named(Turns), 1, python=python)
    monkeypatch.setattr(Turns, "sign", -1)
    with pytest.raises(HandloomError, match=r"(?s)in `step`.*no solution of inverse kinematics"):
        evaluate_calvin(dataset, named(Turns), 1, python=python)


def test_what_is_missing_is_said_with_what_to_do(dataset, tmp_path):
    """This environment has no CALVIN: its own interpreter is a real installation without it."""
    lines: list[str] = []
    with pytest.raises(ConfigError, match="cannot import calvin_agent") as told:
        evaluate_calvin(dataset, "random", 1, told=lines.append)
    assert not lines, "nothing takes minutes before it"
    assert "--calvin-python" in told.value.hint
    with pytest.raises(ConfigError, match="no such program"):
        evaluate_calvin(dataset, "random", 1, python=str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"there is no file .*validation/\.hydra/merged_config\.yaml"):
        evaluate_calvin(str(tmp_path), "random", 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--calvin", "D", "--task", "reach"], "--task with --calvin"),
        (["--calvin", "D", "--episodes", "5", "--seeds", "2"], "--episodes and --seeds with --calvin"),
        (["--calvin", "D", "--command-clip", "x"], "--command-clip with --calvin"),
        (["--calvin", "D", "--max-steps", "361"], "--max-steps 361 with --calvin"),
        (["--calvin", "D", "--policy", "expert"], "no policy 'expert' for CALVIN"),
        (["--task", "reach", "--sequences", "5"], "--sequences without --calvin"),
        ([], "neither --task nor --calvin"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, problem):
    policy = [] if "--policy" in options else ["--policy", "random"]
    with pytest.raises(ConfigError, match=problem) as told:
        app(["sim", "evaluate", *policy, *options], standalone_mode=False)
    assert told.value.hint


def test_an_action_of_another_robot_is_refused(dataset, python):
    with pytest.raises(ConfigError, match=r"returned an array of shape \(1, 4\)"):
        evaluate_calvin(dataset, named(Wide), 1, python=python)


def test_sequences_become_videos(dataset, python, tmp_path):
    import av

    found = evaluate_calvin(dataset, "random", 1, python=python, max_steps=5, out=tmp_path / "out", videos=True)
    assert found.scores["average_length"] == 0.0
    assert json.loads((tmp_path / "out/evaluate.json").read_text()) == asdict(found)
    with av.open(found.videos[0]) as video:
        assert video.streams.video[0].frames == 6
    with pytest.raises(ConfigError, match="has an evaluation already"):
        evaluate_calvin(dataset, "random", 1, python=python, max_steps=5, out=tmp_path / "out")
    again = evaluate_calvin(dataset, "random", 1, python=python, max_steps=5, out=tmp_path / "out", overwrite=True)
    assert again.videos == []
    assert [place.name for place in (tmp_path / "out").iterdir()] == ["evaluate.json"], "no video of the other"


def test_scores_are_those_of_calvins_own_script():
    """`count_success` there: how many results are at least 1, 2, ... 5. The interval covers as often as it says."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 6, 200)
    tasks = ("a", "b", "c", "d", "e")
    outcomes = [
        SequenceOutcome(Sequence(n, {}, tasks), n, int(done), (1,) * min(done + 1, 5), "" if done == 5 else "not_done")
        for n, done in enumerate(lengths)
    ]
    scores = scores_of(outcomes)
    assert [scores["success"][str(n)]["rate"] for n in range(1, 6)] == [np.mean(lengths >= n) for n in range(1, 6)]
    assert np.isclose(scores["average_length"], sum(share["rate"] for share in scores["success"].values()))
    assert scores["tasks"]["a"]["attempts"] == 200
    assert scores["tasks"]["e"]["successes"] == np.sum(lengths == 5)
    half = 1.96 * lengths.std() / np.sqrt(200)
    assert mean_interval(lengths) == pytest.approx((lengths.mean() - half, lengths.mean() + half), abs=0.02)
    assert mean_interval(np.zeros(10, int)) == (0.0, 0.0)


def test_calvins_side_is_python_3_8_without_handloom():
    """By the syntax, and by what it imports: an interpreter of 3.8 is not here."""
    source = Path(server.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in imported if name.startswith("handloom")]
    assert "from __future__ import annotations" in source, "`list | None` is no type there"
