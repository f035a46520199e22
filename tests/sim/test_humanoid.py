"""A humanoid of two arms, made here, follows people; and GR1, where its files are installed."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handloom.errors import ConfigError

pytest.importorskip("mujoco", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("mink", reason="the simulator is not installed: pip install '.[sim]'")
pytest.importorskip("torch", reason="the student needs torch: pip install '.[train]'")

from support.hand_tables import hand_db, hand_row
from support.training import kept

from handloom.api import Database
from handloom.pipelines.sim.following import follow, runs_of
from handloom.pipelines.sim.imitate import imitate, load_settings
from handloom.pipelines.sim.jobs import Where
from handloom.schemas.hand_topology import WRIST
from handloom.schemas.settings import RunConfig
from handloom.sim.humanoid.checkpoint import open_student
from handloom.sim.humanoid.dagger import StudentPolicy, groups_of, run_group, tasks_of
from handloom.sim.humanoid.episodes import Expert, Hold, Outcome, Seen, run_episodes
from handloom.sim.humanoid.experts import Teacher
from handloom.sim.humanoid.goals import PERSON_REACH_M, goals_of, palm_axes
from handloom.sim.humanoid.latency import VideoPart, _cpu_s, latency_of_videos
from handloom.sim.humanoid.motions import PersonMotion, at_times, motion_of_row, row_motions, scripted_motions
from handloom.sim.humanoid.reference import Kinematics, KinematicsSettings, reference_of
from handloom.sim.humanoid.robot import GR1, Humanoid, act, body_of, find_humanoid, put
from handloom.sim.humanoid.scores import shown_ones
from handloom.sim.humanoid.settings import ImitateSettings
from handloom.train.robomirror.data.motion import MOTION_DIM
from handloom.train.robomirror.imitation import Actor
from handloom.train.robomirror.latents import LinearLatents, UnderstoodLatents, VaeLatents, numbers_of
from handloom.train.robomirror.network.student import Student
from handloom.train.robomirror.network.understanding import Reconstruction
from handloom.train.robomirror.settings import RobomirrorSettings
from handloom.video.write import write_video

HZ = 15.0
ARM = """<body name="{s}_upper" pos="0 {y} .35"><joint name="{s}_pitch" axis="0 1 0" range="-3 3"/>
<joint name="{s}_roll" axis="1 0 0" range="-2 2"/><joint name="{s}_yaw" axis="0 0 1" range="-2 2"/>
<site name="{s}_shoulder"/><geom size=".04" pos="0 0 -.1" mass="1"/>
<body pos="0 0 -.25"><joint name="{s}_elbow" axis="0 1 0" range="-2.8 0"/><site name="{s}_elbow_site"/>
<geom size=".04" pos="0 0 -.1" mass=".8"/><body pos="0 0 -.25"><site name="{s}_wrist"/></body></body></body>"""
ROBOT = f"""<mujoco><compiler angle="radian"/><worldbody><body name="pelvis"><freejoint/><geom size=".1" mass="5"/>
<site name="eyes" pos="0 0 .5"/>{ARM.format(s="l", y=0.2)}{ARM.format(s="r", y=-0.2)}
<body name="leg" pos="0 0 -.2"><joint name="hip" axis="0 1 0"/><geom size=".05"/></body></body></worldbody>
<actuator><motor joint="hip" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""


@pytest.fixture(scope="module")
def humanoid(tmp_path_factory) -> Humanoid:
    folder = tmp_path_factory.mktemp("robot")
    (folder / "two_arms.xml").write_text(ROBOT)
    joints = [f"{side}_{part}" for side in "lr" for part in ("pitch", "roll", "yaw", "elbow")]
    parts = {
        "name": "two_arms",
        "description": "two_arms.xml",
        "joints": joints,
        "rest": {"l_elbow": -1.2, "r_elbow": -1.2},
        "head": "eyes",
        "shoulders": ["l_shoulder", "r_shoulder"],
        "elbows": ["l_elbow_site", "r_elbow_site"],
        "wrists": ["l_wrist", "r_wrist"],
    }
    (folder / "two_arms.json").write_text(json.dumps(parts))
    return find_humanoid(str(folder / "two_arms.json"))


@pytest.fixture(scope="module")
def body(humanoid):
    return body_of(humanoid)


@pytest.fixture(scope="module")
def motions() -> list[PersonMotion]:
    return scripted_motions(4, 0, HZ)


@pytest.fixture(scope="module")
def tasks(body, motions):
    latents = LinearLatents.fitted([numbers_of(one.keypoints_cam_m, one.world_from_camera) for one in motions], HZ)
    return tasks_of(motions, body, KinematicsSettings(wrist_turn=0.0), latents)


def test_a_servo_holds_its_goal(body):
    """Legs are fixed, motors of the description gone; a goal beyond the description's range of control is held."""
    assert body.model.nu == body.num_joints == 8
    assert body.model.actuator_trnid[:, 0].tolist() == list(range(8)), "goals are in the order of joints"
    data = body.state()
    goal = body.rest - 0.3
    for _ in range(100):
        assert act(body.model, data, goal) == ""
    sag = np.abs(data.qfrc_bias / body.kp)
    assert np.abs(data.qpos - goal).max() < 1.1 * sag.max() < 0.1


def test_a_hand_goes_where_the_persons_is(body, motions):
    """The wrist's place is the person's about the shoulders, scaled; seen from the head as it is, or as it was."""
    motion = motions[0]
    hand = int(np.isfinite(motion.keypoints_cam_m[..., WRIST, 0]).all(axis=0).argmax())
    goals = goals_of(motion, body)
    scale = body.reach_m.mean() / PERSON_REACH_M
    from_head = np.linalg.norm(np.diff(motion.keypoints_cam_m[:, hand, WRIST], axis=0), axis=1)
    assert goals.head_turn[0] == pytest.approx(np.eye(3))
    turned = np.swapaxes(goals.head_turn, 1, 2)
    place = goals.wrist_m[:, hand] - goals.wrist_m[0, hand]
    assert np.isfinite(place).all()
    still = replace(motion, world_from_camera=np.full_like(motion.world_from_camera, np.nan))
    moved = np.diff(goals_of(still, body).wrist_m[:, hand], axis=0)
    assert np.linalg.norm(moved, axis=1) == pytest.approx(scale * from_head)
    first = goals_of(motion, body, "first").wrist_m[:, hand]
    points = motion.keypoints_cam_m[:, hand, WRIST]
    world = np.einsum("tij,tj->ti", motion.world_from_camera[:, :3, :3], points) + motion.world_from_camera[:, :3, 3]
    assert np.linalg.norm(first - first[0], axis=1) == pytest.approx(scale * np.linalg.norm(world - world[0], axis=1))
    assert turned @ goals.head_turn == pytest.approx(np.broadcast_to(np.eye(3), turned.shape), abs=1e-9)


def test_axes_of_a_hand_that_hangs_down():
    """Fingers down, thumb forward: the axes of the robot's wrist with its arm down, for either hand."""
    points = np.zeros((21, 3))
    points[9], points[5], points[17] = (0, 0, -0.09), (0.03, 0, -0.09), (-0.03, 0, -0.08)
    assert palm_axes(points) == pytest.approx(np.eye(3), abs=1e-12)
    points[9] = np.nan
    assert np.isnan(palm_axes(points)).all()


def test_inverse_kinematics_finds_places_and_counts_what_is_out_of_reach(body, motions):
    goals = goals_of(motions[0], body)
    settings = KinematicsSettings(wrist_turn=0.0)
    found = reference_of(goals, body, settings)
    assert np.nanmax(found.frame_missed_m) < 0.02
    assert found.out_of_reach == 0.0
    assert np.abs(found.speed_rad_s).max() < 1.6 * settings.max_speed_rad_s  # the curve between frames may be steeper
    assert found.joints_rad == pytest.approx(np.clip(found.joints_rad, body.low, body.high))
    far = replace(goals, wrist_m=goals.wrist_m + np.array([2.0, 0.0, 0.0]))
    assert reference_of(far, body, settings).out_of_reach > 0.9
    none = replace(goals, wrist_m=np.full_like(goals.wrist_m, np.nan))
    still = reference_of(none, body, settings)
    assert np.isnan(still.out_of_reach)
    assert still.joints_rad == pytest.approx(np.broadcast_to(body.rest, still.joints_rad.shape), abs=1e-3)
    kinematics = Kinematics(body, settings)
    once, again = (kinematics.solve(far.wrist_m[0], far.wrist_turn[0], far.head_turn[0], 1 / HZ) for _ in range(2))
    kinematics.reset()
    assert kinematics.solve(far.wrist_m[0], far.wrist_turn[0], far.head_turn[0], 1 / HZ) == pytest.approx(once)
    assert again.shape == body.rest.shape


def test_the_teacher_follows_and_who_holds_still_fails(body, tasks):
    settings = load_settings(None, ["repeats=1", "held_out=1"])
    (group,) = groups_of(tasks, settings)
    worst = {}
    for names in (["follow"], ["lead"], ["follow", "lead", "correct"]):
        outcomes = run_group(body, group, Expert(Teacher(body, names)), settings)
        assert all(one.success for one in outcomes), outcomes
        worst["+".join(names)] = max(one.mpkpe_mm for one in outcomes)
    assert worst["lead"] < 0.5 * worst["follow"]
    assert worst["follow+lead+correct"] < worst["follow"]
    held = run_group(body, group, Hold(), settings)
    assert {one.failure for one in held} >= {"left_goal"}
    with pytest.raises(ConfigError, match="no expert steer"):
        Teacher(body, ["steer"])


def test_groups_of_episodes_are_the_same_in_other_processes(body, tasks):
    """They are sent there without the robot, which each process opens from its files."""
    settings = load_settings(None, ["repeats=2", "side_by_side=2", "student.width=8", "student.history=2"])
    network = Student(settings.student, tasks[0].latents.shape[1], 2 * 3 * body.num_joints, body.num_joints)
    runs = runs_of("scripted", tasks, StudentPolicy(Actor(network), body), body, settings)
    sent = pickle.dumps((runs, body))
    assert len(sent) < 2_000_000
    there, its_body = pickle.loads(sent)
    assert its_body is body
    found = [follow(some, body, settings, Where(1))["scripted"] for some in (runs, there)]
    first, second = (
        [(name, one.name, one.failure, one.joints_rad.tobytes()) for name, outcomes in some.items() for one in outcomes]
        for some in found
    )
    assert first == second
    assert {name: len(outcomes) for name, outcomes in found[0].items()} == dict.fromkeys(found[0], 2 * len(tasks))


def test_the_gate_prefers_who_comes_nearest(body):
    data = body.state()
    put(body.model, data, body.rest)
    teacher = Teacher(body, ["follow", "lead"])
    share = teacher.weights(data, np.stack([body.rest + 0.5, body.rest]), body.rest)
    assert share.sum() == pytest.approx(1)
    assert share[1] > 0.9


class Breaks:
    """Holds still; then gives a number that is none, or one that no joint survives."""

    def __init__(self, at: int) -> None:
        self.at = at

    def act(self, seen: Seen) -> np.ndarray:
        actions = Hold().act(seen)
        actions[np.array(seen.numbers) == 0] = np.nan if seen.step == self.at else actions[0]
        if seen.step == self.at:
            for number, data in zip(seen.numbers, seen.states, strict=True):
                data.qvel[:] = 1e12 if number == 1 else data.qvel
        return actions


def test_broken_episodes_are_counted_and_the_others_go_on(body, tasks):
    """Of three side by side: an action that is not finite, a simulation that diverges, and one that is untouched."""
    alone = run_episodes(
        body, tasks[2:3], Hold(), seed=0, history=2, allowed_m=9, start_noise_rad=0.0
    )[0]  # fmt: skip
    found = run_episodes(body, tasks[:3], Breaks(5), seed=0, history=2, allowed_m=9, start_noise_rad=0.0)
    assert [one.failure for one in found] == ["action_not_finite", "diverged", ""]
    assert found[0].num_steps == 5
    assert found[2].success
    assert found[2].joints_rad == pytest.approx(alone.joints_rad)


def test_a_row_becomes_a_motion():
    """At another rate, linearly between known frames; what was interpolated before is unknown."""
    frame_s = np.arange(10) / 30 + 5
    points = np.broadcast_to(frame_s[:, None, None, None], (10, 2, 21, 3)).copy()
    infilled = np.zeros((10, 2), bool)
    infilled[4, 0] = True
    row = {
        "clip_id": "a:b:0-1", "dataset": "a", "video_id": "b",
        "frame_s": frame_s, "hand_keypoints_cam_m": points, "hand_infilled": infilled,
        "world_from_camera": np.tile(np.eye(4), (10, 1, 1)), "world_unit_m": 2.0,
    }  # fmt: skip
    motion = motion_of_row(row, 15.0)
    assert motion.num_frames == 5
    assert motion.keypoints_cam_m[:, 1, 3, 2] == pytest.approx(5 + np.arange(5) / 15)
    assert np.isnan(motion.keypoints_cam_m[:, 0, 0, 0]).tolist() == [False, False, True, False, False]
    assert at_times(frame_s, frame_s, np.array([5.05])) == pytest.approx([5.05])
    unscaled = motion_of_row(row | {"world_unit_m": None}, 15.0)
    assert np.isnan(unscaled.world_from_camera[:, :3, 3]).all()
    assert np.isfinite(unscaled.world_from_camera[:, :3, :3]).all()


def test_clips_of_a_table_are_motions_or_counted(tmp_path):
    rows = [hand_row(number, jpeg=False) for number in range(4)]
    rows += [hand_row(4, hands=False, jpeg=False), hand_row(5, 8, jpeg=False)]
    db = hand_db(tmp_path, rows, ["x", "y", "z", "qx", "qy", "qz", "qw", "gripper"], 1)
    found, left_out = row_motions(db, "", HZ)
    assert len(found) == 4
    assert left_out == {"no_hands": 1, "short": 1}
    assert len({one.video for one in found}) == 4
    assert all(one.intent is None for one in found)
    with pytest.raises(ConfigError, match=r"can be imitated: 1 short\n.*at least 1 s"):
        row_motions(db, f"clip_id = '{rows[-1].column('clip_id')[0].as_py()}'", HZ)
    with pytest.raises(ConfigError, match="nothing"):
        row_motions(db, "nothing > 0", HZ)


TINY = [
    "scripted=4", "held_out=2", "rounds=2", "episodes=4", "fit_steps=30", "repeats=1", "student.width=32",
    "student.blocks=1", "student.history=2", "kinematics.wrist_turn=0", "fit.batch_size=64", "kinematics.iterations=2",
]  # fmt: skip


def test_a_student_is_trained_kept_and_measured_again(humanoid, tmp_path):
    """The command's pipeline on a small scale; the student that is read again does the same."""
    path = Path(humanoid.description).with_suffix(".json")
    out = tmp_path / "out"
    first = imitate(out, load_settings(None, TINY), robot=str(path), videos=False)
    assert first.rounds[0]["success_rate"] == 1.0, "the teacher's round"
    assert {*first.policies["scripted"]} == {"student", "teacher", "hold", "other_motion"}
    assert first.policies["scripted"]["student"]["episodes"] == 2
    assert json.loads((out / "imitate.json").read_text())["robot"] == "two_arms"
    asked = load_settings(None, ["held_out=2", "repeats=1"])
    again = imitate(tmp_path / "again", asked, robot=str(path), student=str(out), videos=False)
    assert again.policies == first.policies
    assert again.rounds == []
    (out / "imitate.json").unlink()  # as after a kill during the evaluation
    with pytest.raises(ConfigError, match=r"fit\.lr was 0\.001, is 0\.01"):
        imitate(out, load_settings(None, [*TINY, "fit.lr=0.01"]), robot=str(path), videos=False)
    resumed = imitate(out, load_settings(None, TINY), robot=str(path), videos=False)
    assert replace(resumed, latency={}) == replace(first, latency={})
    for place, more, problem in (
        (out, {}, "holds a checkpoint of imitate"),
        (out, {"student": str(out)}, "holds the report of the student's training"),
        (tmp_path / "no", {"understand": "x"}, "--understand without --db"),
        (tmp_path / "no", {"student": str(out), "motion": "x"}, "the student knows linear latents"),
    ):
        with pytest.raises(ConfigError, match=problem):
            imitate(place, asked, robot=str(path), videos=False, **more)
    with pytest.raises(ConfigError, match="the settings episodes with --student"):
        imitate(
            tmp_path / "no",
            load_settings(None, ["episodes=9", "rounds=2"]),
            robot=str(path),
            student=str(out),
            videos=False,
        )
    with pytest.raises(ConfigError, match="there is no motion to train on"):
        imitate(tmp_path / "no", load_settings(None, ["scripted=0", "held_out=1"]), robot=str(path), videos=False)
    other = humanoid.model_copy(update={"name": "one_arm", "joints": humanoid.joints[:4]})
    with pytest.raises(ConfigError, match=r"is of the robot two_arms, not of one_arm: r_elbow, r_pitch, r_roll in one"):
        open_student(str(out), body_of(other))


def test_what_a_robot_lacks_is_named(humanoid, tmp_path):
    with pytest.raises(ConfigError, match="has no joint l_knee"):
        body_of(humanoid.model_copy(update={"joints": (*humanoid.joints, "l_knee")}))
    with pytest.raises(ConfigError, match=r"has no site brow\n.*eyes"):
        body_of(humanoid.model_copy(update={"head": "brow"}))
    with pytest.raises(ConfigError, match=r"no humanoid 'g1'.*\n.*one of gr1"):
        find_humanoid("g1")
    (tmp_path / "parts.json").write_text('{"name": "a"}')
    with pytest.raises(ConfigError, match=r"parts\.json: description Field required"):
        find_humanoid(str(tmp_path / "parts.json"))


@pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="GR1's files: pip install '.[sim]'")
def test_gr1_reaches_what_people_reach():
    body = body_of(GR1)
    assert body.num_joints == 20
    assert body.reach_m == pytest.approx([0.43, 0.43], abs=0.01)
    reference = reference_of(goals_of(scripted_motions(1, 3, HZ)[0], body), body, KinematicsSettings())
    assert np.nanmax(reference.frame_missed_m) < 0.02
    assert reference.out_of_reach == 0.0


def test_cpu_time_is_that_of_processes_that_were_started_too():
    before = _cpu_s()
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while_it_runs = _cpu_s() - before
        process.kill()
    assert min(while_it_runs, _cpu_s() - before) > 0.25


@pytest.mark.slow
def test_latency_is_measured_from_videos_both_ways(body, tmp_path):
    """Of intents of parts of frames, which a stage of the settings makes; with another stage it is refused."""
    video, rng = tmp_path / "grey.mp4", np.random.default_rng(0)
    write_video(video, rng.integers(0, 255, (12, 96, 128, 3), np.uint8), np.arange(12) / 15)
    sizes = {"vae_width": 16, "latent": 8, "steps": 12, "dim": 16, "heads": 2, "layers": 1, "intent_steps": 3}
    facts = {"motion_mean": [0.0] * MOTION_DIM, "motion_scale": [1.0] * MOTION_DIM, "motion_components": []}
    source = "image embedding (efficientnet-lite0), whole and 2 x 1 parts of its features"
    facts |= {"intent_dim": 3840, "intent_mean": [0.0] * 3840, "intent_components": np.eye(4, 3840).tolist()}
    asked = RobomirrorSettings(**sizes, stage="understand")
    network = Reconstruction(asked, facts)
    vae = kept(tmp_path / "vae", network.vae, RobomirrorSettings(**sizes), facts)
    uri = kept(tmp_path / "understand", network, asked, facts | {"intent_source": source})
    imitating = ImitateSettings()
    student = Student(imitating.student, 8, imitating.student.history * 3 * body.num_joints, body.num_joints)
    policy = StudentPolicy(Actor(student), body)
    understood = UnderstoodLatents(uri, VaeLatents(vae))
    stage = {"class": "handloom.stages.learned:RuleCaption", "settings": {"frames": 4, "grid": [2, 1]}}
    parts = [VideoPart(name, str(video), 0.0, 0.8) for name in "ab"]

    def measured(**more):
        stages = {"caption": stage | {"settings": stage["settings"] | more}}
        return latency_of_videos(RunConfig(stages=stages).settings(), parts, body, imitating, policy, understood, 1)

    found = measured(grid_of="features")
    assert [one["clip_id"] for one in found["clips"]] == ["a", "b"]
    for one in found["clips"]:
        assert one["intent_decoding"]["wall_s"] > 0
        assert one["cpu_ratio"] == one["intent"]["cpu_s"] / one["pose"]["cpu_s"]
    assert found["wall_ratio"] == np.mean([one["wall_ratio"] for one in found["clips"]])
    with pytest.raises(ConfigError, match=r"in the database's settings it is .*2 x 1 parts'"):
        measured()


def test_a_student_of_other_clips_is_not_measured_as_if_it_was_of_these(humanoid, tmp_path):
    """As after a kill during the evaluation, and the command again with another database of the same version."""
    path = Path(humanoid.description).with_suffix(".json")
    dbs = []
    for name, first in (("one", 0), ("two", 0), ("three", 10)):
        (tmp_path / name).mkdir()
        dbs.append(hand_db(tmp_path / name, [hand_row(first + number, jpeg=False) for number in range(3)], [], 1))
    fewer = {"scripted": 1, "held_out": 1, "rounds": 1, "episodes": 1, "fit_steps": 2}
    asked = load_settings(None, TINY).model_copy(update=fewer)
    options = {"robot": str(path), "videos": False}
    first = imitate(tmp_path / "out", asked, db=dbs[0], **options)
    assert first.motions["train"] > 1, "clips, too"
    (tmp_path / "out" / "imitate.json").unlink()
    with pytest.raises(ConfigError, match=r"another one: --db was .*one, is .*two"):
        imitate(tmp_path / "out", asked, db=dbs[1], **options)
    shutil.rmtree(tmp_path / "one" / "clips.lance")
    shutil.copytree(tmp_path / "three" / "clips.lance", tmp_path / "one" / "clips.lance")
    with pytest.raises(ConfigError, match="was trained on other videos than --db now gives"):
        imitate(tmp_path / "out", asked, db=Database.open(tmp_path / "one"), **options)


def test_two_episodes_are_shown_by_what_they_are():
    def outcome(name: str, success: bool, steps: int, error_mm: float) -> Outcome:
        return Outcome(name, success, steps, 9, "" if success else "left_the_goals", "", error_mm, 0, 0, 0, np.zeros(0))

    good, worse = outcome("good", True, 9, 20), outcome("worse", True, 9, 30)
    early, late = outcome("early", False, 1, float("nan")), outcome("late", False, 5, 90)

    def shown(*outcomes: Outcome) -> dict[str, str]:
        return {which: one.name for which, one in shown_ones(outcomes).items()}

    assert shown(early, worse, good, late) == {"best": "good", "worst": "early"}
    assert shown(good, worse) == {"best": "good", "farthest": "worse"}
    assert shown(early, late) == {"longest": "late", "worst": "early"}
    assert (shown(good), shown(late)) == ({"best": "good"}, {"worst": "late"})
