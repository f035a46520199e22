"""The hand numbers that other projects print, of one method on one clip."""

from __future__ import annotations

from handloom.bench.metrics.hands import PredictedHands, TrueHands, match, of_truth
from handloom.bench.metrics.motion import action, jitter, swaps
from handloom.bench.metrics.parts import Parts
from handloom.bench.metrics.pck import depth_axis, pck
from handloom.bench.metrics.penalty import penalised


def comparable(truth: TrueHands, predicted: PredictedHands) -> Parts:
    """All of `penalty`, `motion` and `pck`. Predictions are matched to hands by place, as in `hand_errors`, but for the
    penalty scores, whose slots are left and right."""
    found, _ = match(truth, predicted)
    scored = truth.visible & (found >= 0)
    px, cam = of_truth(predicted.keypoints_px, found), of_truth(predicted.keypoints_cam_m, found)
    world = predicted.keypoints_world_m
    if world is not None:
        world = of_truth(world, found)
        world[found < 0] = float("nan")
    poses = truth.world_from_camera if predicted.world_from_camera is None else predicted.world_from_camera
    return (
        penalised(truth, predicted)
        | pck(px, cam, truth, scored)
        | depth_axis(cam, truth, scored)
        | jitter(cam, truth, scored)
        | action(world, poses, truth)
        | swaps(predicted, found, scored)
    )
