"""A small full recording of HOT3D: hand and lens of `support.hot3d_clip`, in the files of a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.hot3d_clip import FRAMES, PARAMS, SIDE, members, poses, profile, rigid, wrist, write
from support.mano_file import write_mano

from handloom.bench.truth.cases import HOT3D, load, real_cases
from handloom.bench.truth.hot3d import read_hot3d
from handloom.bench.truth.hot3d_recording import read_recording
from handloom.bench.truth.mano import read_hands
from handloom.errors import ConfigError

START_NS, STEP_NS = 56_752_108_188_860, 33_333_333


def transform(matrix: np.ndarray) -> dict:
    both = rigid(matrix)
    return {"q_wxyz": both["quaternion_wxyz"], "t_xyz": both["translation_xyz"]}


def lines(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Quest 3: the device's pose is the camera's."""
    path = tmp_path / "P0002_273c2819"
    (path / "frames/1201-1").mkdir(parents=True)
    stamps = [START_NS + t * STEP_NS for t in range(FRAMES)]
    rows = ["object_uid,timestamp[ns],t_wo_x[m],t_wo_y[m],t_wo_z[m],q_wo_w,q_wo_x,q_wo_y,q_wo_z"]
    hands = []
    for t, stamp in enumerate(stamps):
        pose = rigid(poses()[t])
        rows.append(",".join(map(str, [1, stamp, *pose["translation_xyz"], *pose["quaternion_wxyz"]])))
        wrists = (wrist(t, -0.1), wrist(t, 0.1))
        both = {str(h): {"wrist_xform": transform(w), "joint_angles": [0.0] * 22} for h, w in enumerate(wrists)}
        hands.append({"timestamp_ns": stamp, "hand_poses": both})
        image = np.full((SIDE, SIDE, 3), 10 * t, np.uint8)
        cv2.imwrite(str(path / f"frames/1201-1/{stamp + 900_000}.jpg"), image)  # 0.9 ms later
    (path / "headset_trajectory.csv").write_text("\n".join(rows) + "\n")
    (path / "umetrack_hand_pose_trajectory.jsonl").write_text(lines(hands))
    (path / "umetrack_hand_user_profile.json").write_text(json.dumps({"hand_model": profile()}))
    place = rigid(np.eye(4))
    model = {"stream_id": "1201-1", "projectionParams": PARAMS, "T_Device_Camera": place}
    (path / "camera_models.json").write_text(json.dumps([{"stream_id": "1201-2"}, model]))
    boxes = (
        f"stream_id,hand_index,timestamp[ns],visibility_ratio[%]\n1201-1,1,{stamps[1]},0.25\n1201-1,0,{stamps[1]},\n"
    )
    (path / "box2d_hands.csv").write_text(boxes)
    return path


def test_a_recording_equals_its_clip(recording: Path, tmp_path: Path):
    truth = read_recording(recording)
    clip = tmp_path / "clip.tar"
    same = read_hot3d(write(clip, members()))
    np.testing.assert_allclose(truth.keypoints_world_m[:4], same.keypoints_world_m[:4], atol=1e-9)
    np.testing.assert_allclose(truth.world_from_camera, same.world_from_camera, atol=1e-9)
    np.testing.assert_allclose(truth.camera.camera_matrix, same.camera.camera_matrix)
    np.testing.assert_allclose(truth.frame_s, np.arange(FRAMES) * STEP_NS / 1e9)
    assert [round(float(truth.rgb(t).max())) // 10 for t in range(FRAMES)] == [0, 1, 2, 3, 4]
    assert truth.shown[1, 1] == 0.25
    assert np.isnan(truth.shown).sum() == 2 * FRAMES - 1
    assert not truth.hands(np.arange(FRAMES)).visible[1, 1]


def test_a_recording_is_a_case_of_the_benchmark(recording: Path):
    (case,) = real_cases(recording.parent)
    assert (case.name, case.source) == ("P0002_273c2819", HOT3D)
    loaded = load(case, sample_hz=15.0, short_side_px=120)
    assert loaded.index.tolist() == [0, 2, 4]
    loaded.frames.close()


def test_arias_lens_is_in_its_online_calibration(recording: Path):
    (recording / "camera_models.json").unlink()
    (recording / "mps/slam").mkdir(parents=True)
    pose = {"Translation": [0, 0, 0], "UnitQuaternion": [1.0, [0, 0, 0]]}
    camera = {"Label": "camera-slam-left", "Projection": {"Params": PARAMS}, "T_Device_Camera": pose}
    (recording / "mps/slam/online_calibration.jsonl").write_text(lines(3 * [{"CameraCalibrations": [camera]}]))
    assert "1201-1" in read_recording(recording).note


def test_manos_keypoints_where_its_files_are(recording: Path):
    for name in ("MANO_LEFT.pkl", "MANO_RIGHT.pkl"):
        write_mano(recording.parent / name)
    pose = {"wrist_xform": transform(wrist(0, -0.1)), "pose": [0.0] * 15, "betas": [0.0] * 10}
    hands = [{"timestamp_ns": START_NS + t * STEP_NS, "hand_poses": {"0": pose}} for t in range(FRAMES)]
    (recording / "mano_hand_pose_trajectory.jsonl").write_text(lines(hands))
    truth = read_recording(recording, read_hands(recording.parent))
    assert truth.note.startswith("MANO's keypoints")
    np.testing.assert_allclose(truth.keypoints_world_m[:, 0, 0], np.tile(wrist(0, -0.1)[:3, 3], (FRAMES, 1)))
    assert np.isnan(truth.keypoints_world_m[:, 1]).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "umetrack_hand_user_profile.json").unlink(), "no MANO files"),
        (lambda r: (r / "camera_models.json").write_text("[]"), r"camera_models\.json has no stream"),
        (lambda r: (r / "headset_trajectory.csv").write_text("a,b\n1,2\n"), "timestamp"),
        (lambda r: (r / "umetrack_hand_pose_trajectory.jsonl").write_text("{"), "cannot be read"),
        (lambda r: shutil.rmtree(r / "frames/1201-1"), "has no folder"),
        (lambda r: [p.rename(p.with_stem(f"{int(p.stem) + 10**9}")) for p in [*r.glob("frames/*/*")]], "0 of 5"),
    ],
)
def test_errors_name_missing_and_damaged_files(recording: Path, spoil, message: str):
    spoil(recording)
    with pytest.raises(ConfigError, match=message):
        read_recording(recording)
