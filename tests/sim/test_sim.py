"""Meta-World's tasks as worlds: seeds decide all, experts succeed, and a simulation that breaks is noticed."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from handloom.errors import ConfigError, HandloomError
from handloom.ingest.robot.lerobot import LeRobotSource
from handloom.sim.tasks import TEXTS, Use, find_task, find_tasks, scene_seed

pytest.importorskip("metaworld", reason="the simulator is not installed: pip install '.[sim]'")

from support import crashing

from handloom.api import Database
from handloom.cli import app
from handloom.pipelines.ingest.robots import lerobot
from handloom.pipelines.sim.evaluate import evaluate, policy_of
from handloom.pipelines.sim.jobs import Jobs, Where, in_order, world_of
from handloom.pipelines.sim.record import record
from handloom.schemas.tables.robot import episode_arrays
from handloom.sim.policies import Expert, Random, find_policy
from handloom.sim.rendering import Camera, backends
from handloom.sim.rollouts import roll_out
from handloom.sim.scores import shown_ones, wilson
from handloom.sim.world import HZ, STATE_NAMES
from handloom.store.episodes import read_episodes

REACH, DRAWER = find_task("reach"), find_task("drawer-open")


@pytest.fixture(scope="module")
def draws() -> None:
    """Skips where no picture can be drawn, with the reason."""
    found = backends()
    if all(found.values()):
        pytest.skip(f"pictures cannot be drawn here: {found}")


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory) -> str:
    """Three demonstrations of opening a drawer, without pictures."""
    out = str(tmp_path_factory.mktemp("drawer") / "dataset")
    record("drawer-open", out, 3, workers=1)
    return out


class Faulty:
    """Random actions; the tenth is not a number."""

    def reset(self, task: str, seed: int) -> None:
        self.policy, self.num = Random(), 0
        self.policy.reset(task, seed)

    def act(self, observation):
        self.num += 1
        actions = self.policy.act(observation)
        return np.full_like(actions, np.nan) if self.num == 10 else actions


class Looks(Faulty):
    """A camera that is none."""

    camera = "corner"


class Wide(Faulty):
    """Three numbers an action."""

    def act(self, observation):
        return np.zeros((2, 3))


class Tires(Expert):
    """The expert of `reach`, which breaks in its third episode."""

    episode = 0

    def __init__(self):
        super().__init__(REACH)

    def reset(self, task: str, seed: int) -> None:
        super().reset(task, seed)
        Tires.episode += 1

    def act(self, observation):
        if Tires.episode == 3:
            raise KeyError("grip")
        return super().act(observation)


def test_every_task_has_words_and_an_expert():
    from metaworld.policies import ENV_POLICY_MAP

    assert {f"{name}-v3" for name in TEXTS} == set(ENV_POLICY_MAP)
    assert len(set(TEXTS.values())) == len(TEXTS)


def test_unknown_tasks_are_refused_with_the_list():
    with pytest.raises(ConfigError, match="no task 'drawer'") as told:
        find_task("drawer")
    assert "drawer-open, faucet-close" in told.value.hint
    with pytest.raises(ConfigError, match="twice"):
        find_tasks("reach,push,reach-v3")


def test_scenes_of_recording_and_of_evaluation_differ():
    seeds = {
        scene_seed(task, use, seed, number)
        for task in (REACH, DRAWER)
        for use in Use
        for seed in range(3)
        for number in range(50)
    }
    assert len(seeds) == 2 * 2 * 3 * 50


def test_a_scene_depends_on_its_seed_alone():
    """Not on what happened in the world before."""
    world = world_of(DRAWER)
    first = world.reset(5)
    again = roll_out(world, Expert(DRAWER), 5, 0, 40)
    other = world.reset(6)
    roll_out(world, Random(), 6, 0, 30)
    assert np.array_equal(world.reset(5).vector, first.vector)
    assert not np.array_equal(other.environment, first.environment)
    repeated = roll_out(world, Expert(DRAWER), 5, 0, 40)
    assert np.array_equal(again.actions, repeated.actions)
    assert again.reward == repeated.reward
    assert np.isclose(np.linalg.norm(first.state[3:7]), 1.0)
    assert world.environment_names[-3:] == ("goal.x", "goal.y", "goal.z")


@pytest.mark.parametrize("name", ["reach", "drawer-open"])
def test_the_goal_is_drawn_where_it_is_from_the_first_picture_on(name):
    world = world_of(find_task(name))
    for seed in (3, 4):
        world.reset(seed)
        first = world.data.site("goal").xpos.copy()
        world.step(np.zeros(4))
        np.testing.assert_array_equal(first, world.data.site("goal").xpos)


def test_experts_succeed_and_chance_does_not():
    expert = evaluate("reach,drawer-open,button-press", "expert", 3, 1, workers=1)
    chance = evaluate("drawer-open", "random", 2, 1, max_steps=100, workers=1)
    for score in expert.tasks.values():
        assert (score["success_rate"], score["failed"]) == (1.0, [])
        assert 20 < score["steps_to_success"]["median"] < 200
    score = chance.tasks["drawer-open"]
    assert score["success_rate"] == 0.0
    assert score["failures"] == {"not_done": 2}
    assert score["steps_to_success"] == {"p10": None, "median": None, "p90": None}


def test_a_simulation_that_breaks_is_a_counted_failure():
    """MuJoCo resets a state that is not finite, and goes on: what it warned of counts."""

    class Breaks(Expert):
        def act(self, observation):
            if observation.step == 5:
                world.data.qvel[:] = 1e12
            return super().act(observation)

    world = world_of(DRAWER)
    outcome = roll_out(world, Breaks(DRAWER), 1, 0, 100)
    assert (outcome.success, outcome.steps, outcome.failure) == (False, None, "diverged")
    assert "BADQ" in outcome.detail
    assert outcome.num_steps == 5
    assert roll_out(world, Expert(DRAWER), 1, 0, 200).success, "the next episode is whole"


def test_an_action_that_is_not_finite_is_a_counted_failure():
    found = evaluate("reach", f"{__name__}:Faulty", 2, 1, workers=1)
    score = found.tasks["reach"]
    assert score["failures"] == {"action_not_finite": 2}
    assert [one["num_steps"] for one in score["failed"]] == [9, 9]
    assert len({one["scene_seed"] for one in score["failed"]}) == 2
    json.dumps(score, allow_nan=False)


def test_what_was_finished_before_a_policy_broke_is_kept(monkeypatch, capsys):
    """With the error, its place and trace, and an exit code; a policy that breaks at once is an error alone."""
    from handloom.cli.console import FAILED

    monkeypatch.setattr(Tires, "episode", 0)
    policy_of.cache_clear()
    command = ["sim", "evaluate", "--task", "reach,drawer-open", "--policy", f"{__name__}:Tires", "--workers", "1"]
    assert app([*command, "--episodes", "4", "--seeds", "1", "--json"], standalone_mode=False) == FAILED
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert list(found["tasks"]) == ["reach"], "nothing of the other task was finished"
    assert (found["tasks"]["reach"]["episodes"], found["tasks"]["reach"]["successes"]) == (2, 2)
    scene = scene_seed(REACH, Use.evaluate, 0, 2)
    assert f"raised an error in reach, seed 0, episode 2 (scene_seed {scene})\nKeyError: 'grip'" in found["error"]
    assert f"{Path(__file__).name}:" in found["error"]
    assert "in act" in found["error"]
    assert "partial: 2 of 8 episodes" in told.err
    monkeypatch.setattr(Tires, "episode", 2)
    with pytest.raises(HandloomError, match="in reach, seed 0, episode 0"):
        evaluate("reach", f"{__name__}:Tires", 4, 1, workers=1)


def test_a_cluster_gives_the_same_numbers_also_where_an_actor_dies(ray_address, tmp_path):
    """And says what is wrong on its nodes: they do not have this module."""
    here = evaluate("drawer-open", "random", 3, 1, max_steps=20, workers=1)
    assert evaluate("drawer-open", "random", 3, 1, max_steps=20, workers=1, ray_address=ray_address) == here
    with pytest.raises(ConfigError, match=f"the policy {__name__}:Wide: {__name__} cannot be imported: Mod"):
        evaluate("drawer-open", f"{__name__}:Wide", 1, 1, workers=1, ray_address=ray_address)
    once = crashing.once(tmp_path / "marker")
    assert list(in_order(Jobs(eval, str), ["1", once, "2"], 3, Where(1, ray_address))) == [1, 7, 2]


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("best", "there is no policy 'best'"),
        ("no.such.package:Policy", "no.such.package cannot be imported: ModuleNotFoundError"),
        ("json:Policy", "json has no Policy"),
        ("json:JSONDecoder", "JSONDecoder has no reset and act"),
        ("json:loads", "missing 1 required"),
        (f"{__name__}:Looks", "its camera is a str"),
        (f"{__name__}:Wide", r"returned an array of shape \(2, 3\)"),
    ],
)
def test_policies_that_do_not_fit_are_refused(policy, problem):
    with pytest.raises(ConfigError, match=problem) as told:
        evaluate("reach", policy, 1, 1, workers=1)
    assert told.value.hint


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_episodes": 0}, "--episodes 0"),
        ({"num_seeds": 0}, "--seeds 0"),
        ({"max_steps": 501}, "--max-steps 501"),
        ({"workers": 0}, "0 workers"),
    ],
)
def test_numbers_out_of_range_are_refused(options, problem):
    with pytest.raises(ConfigError, match=problem):
        evaluate("reach", "random", **options)


def test_nothing_is_recorded_of_no_episode(tmp_path):
    with pytest.raises(ConfigError, match="--episodes 0"):
        record("reach", str(tmp_path / "out"), 0)
    with pytest.raises(ConfigError, match="--picture-hz 81"):
        record("reach", str(tmp_path / "out"), 1, picture_hz=81)
    assert not (tmp_path / "out").exists()


def test_a_missing_simulator_is_named_with_its_extra(monkeypatch):
    from handloom.sim.world import require_simulator

    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as told:
        require_simulator()
    assert told.value.name == "metaworld"


def test_demonstrations_are_a_dataset_that_can_be_ingested(demonstrations, tmp_path):
    """Recorded, ingested, cut into windows: states and actions are those of the simulation."""
    db = Database.open(tmp_path / "db", create=True)
    found = lerobot(db, demonstrations, dataset="drawer")
    assert (found.counts["added"], found.skips, found.notes) == (3, [], {})
    table = read_episodes(db)
    rows = sorted((episode_arrays(table, n) for n in range(3)), key=lambda row: row["episode_index"])
    world = world_of(DRAWER)
    for number, row in enumerate(rows):
        assert (row["task"], row["fps"], row["state_names"]) == (DRAWER.text, HZ, list(STATE_NAMES))
        observation = world.reset(scene_seed(DRAWER, Use.record, 0, number))
        for state, action in zip(row["state"], row["action"], strict=True):
            assert np.allclose(state, observation.state, atol=1e-6)
            step = world.step(action)
            observation = step.after
        assert step.success
        assert step.diverged == ""
    windows = db.windows(past=2, future=8, fields=["state", "action"], table="robot_episodes")
    assert len(windows) > 100
    assert windows[50]["state"].shape[1] == len(STATE_NAMES)


def test_the_same_seed_records_the_same(demonstrations, tmp_path):
    """In processes, too; another seed records other scenes."""

    def actions(folder):
        source = LeRobotSource(str(folder), dataset="d", state=("observation.environment_state",))
        return [(one.state.values, one.action.values) for one in source.episodes()]

    record("drawer-open", str(tmp_path / "again"), 3, workers=2)
    record("drawer-open", str(tmp_path / "other"), 1, seed=1, workers=1)
    first, again = actions(demonstrations), actions(tmp_path / "again")
    assert len(first) == len(again) == 3
    for values, others in zip(first, again, strict=True):
        assert all(map(np.array_equal, values, others))
    assert not np.array_equal(actions(tmp_path / "other")[0][0][0], first[0][0][0])


def test_replay_does_the_most_similar_demonstration(demonstrations):
    policy = find_policy(f"replay:{demonstrations}", DRAWER)
    world = world_of(DRAWER)
    for number in range(3):
        scene = scene_seed(DRAWER, Use.record, 0, number)
        assert roll_out(world, policy, scene, 0, 150).success, "its own scene"
    with pytest.raises(ConfigError, match=r"no demonstration of reach .*it shows 'open the drawer'"):
        find_policy(f"replay:{demonstrations}", REACH)


def test_pictures_are_where_they_are_said_to_be(draws, tmp_path):
    """A step between two pictures repeats the last one, and says so; the video has a frame for each step."""
    import av
    import pyarrow.parquet as pq

    out = tmp_path / "filmed"
    found = record("reach", str(out), 1, picture_hz=2, camera=Camera("corner3", 32, 32), workers=1)
    data = pq.read_table(out / "data/chunk-000/file-000.parquet")
    valid = np.array(data["picture_valid"].to_pylist())
    assert np.flatnonzero(valid).tolist() == list(range(0, found.num_frames, 40))
    with av.open(str(out / "videos/observation.images.corner3/chunk-000/file-000.mp4")) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(int)
    assert len(frames) == found.num_frames
    assert frames[0].std() > 10, "there is something to see"
    assert np.abs(frames[39] - frames[0]).max() < 40 < np.abs(frames[40] - frames[0]).max()


def test_the_best_and_the_worst_episode_become_videos(draws, tmp_path, monkeypatch, capsys):
    import av

    monkeypatch.setattr("handloom.pipelines.sim.evaluate.VIDEO_CAMERA", Camera("corner3", 32, 32))
    monkeypatch.setattr("handloom.pipelines.sim.evaluate.VIDEO_HZ", 2.0)
    command = ["sim", "evaluate", "--task", "reach", "--policy", "expert", "--episodes", "2", "--seeds", "1"]
    app([*command, "--workers", "1", "--out", str(tmp_path / "out"), "--json"], standalone_mode=False)
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "2 episodes: 1 task x 1 seed (--seeds) x 2 (--episodes)" in printed.err
    assert found == json.loads((tmp_path / "out/evaluate.json").read_text())
    assert found["tasks"]["reach"]["successes"] == 2
    assert list(found["videos"]["reach"]) == ["best", "slowest"]
    for path in found["videos"]["reach"].values():
        with av.open(path) as video:
            assert video.streams.video[0].frames >= 2


def test_an_evaluation_is_replaced_only_with_overwrite_and_its_videos_with_it(tmp_path, monkeypatch):
    """Its report is there before videos are drawn."""
    report, short = tmp_path / "evaluate.json", {"max_steps": 1, "workers": 1, "out": tmp_path}

    def film(task, by_seed, folder, gl):
        if json.loads(report.read_text())["policy"] == "expert":
            raise OSError("no space left")
        (folder / "reach_best.mp4").touch()
        return {"best": str(folder / "reach_best.mp4")}

    monkeypatch.setattr("handloom.pipelines.sim.evaluate.backend", lambda: "none")
    monkeypatch.setattr("handloom.pipelines.sim.evaluate._film", film)
    (tmp_path / "mine.mp4").touch()
    found = evaluate("reach", "random", 1, 1, videos=True, **short)
    kept = report.read_bytes()
    assert json.loads(kept) == asdict(found)
    assert list(found.videos["reach"]) == ["best"]
    with pytest.raises(ConfigError, match=r"has an evaluation already \(evaluate\.json\)") as told:
        evaluate("reach", "expert", 1, 1, **short)
    assert "--overwrite" in told.value.hint
    assert report.read_bytes() == kept
    with pytest.raises(OSError, match="no space left"):
        evaluate("reach", "expert", 1, 1, overwrite=True, videos=True, **short)
    assert json.loads(report.read_text())["tasks"]["reach"]["episodes"] == 1
    assert {place.name for place in tmp_path.iterdir()} == {"evaluate.json", "mine.mp4"}, "no video of the other"
    with pytest.raises(ConfigError, match="--out is empty"):
        app(["sim", "evaluate", "--task", "reach", "--policy", "random", "--out", ""], standalone_mode=False)


def test_a_policy_with_a_camera_sees_what_it_does(draws):
    """A picture for each call, of the world as it is then; a policy without one gets none."""
    shown: list = []

    class Watches(Expert):
        camera = Camera("corner4", 32, 32)

        def act(self, observation):
            shown.append(observation.picture)
            return np.repeat(super().act(observation), 15, axis=0)

    roll_out(world_of(DRAWER), Watches(DRAWER), 3, 0, 60)
    assert [one.shape for one in shown] == [(32, 32, 3)] * 4
    assert all(np.any(one != other) for one, other in itertools.pairwise(shown))
    Watches.camera = None
    roll_out(world_of(DRAWER), Watches(DRAWER), 3, 0, 15)
    assert shown[-1] is None


def test_intervals_hold_at_the_ends():
    """Values of Newcombe, Statistics in Medicine 17, 1998, table I."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=1e-4)


def test_the_worst_episode_is_the_failure_of_least_reward():
    world = world_of(REACH)
    done = [roll_out(world, Expert(REACH), scene, 0, 200) for scene in range(3)]
    failed = [roll_out(world, Random(), scene, 0, 10) for scene in range(2)]
    shown = shown_ones([*failed, *done])
    assert list(shown) == ["best", "worst"]
    assert shown["best"].steps == min(one.steps for one in done)
    assert shown["worst"].reward == min(one.reward for one in failed)
    assert shown_ones(failed)["nearest"].reward == max(one.reward for one in failed)
    assert shown_ones(done)["slowest"].steps == max(one.steps for one in done)
