"""Robust least squares of one person's hands over a clip: a pose per hand and frame, one shape for all of them.

Each pose depends only on its neighbours in time and on the shape, so the normal equations are banded with a thin
border: the time grows in proportion to the frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cho_solve_banded, cholesky_banded
from scipy.spatial.transform import Rotation

from handloom.geometry.hands import model
from handloom.geometry.hands.initial_pose import FIT_MIN_DEPTH_M, knuckle_depth_offset_m
from handloom.schemas.hand_topology import KNUCKLES
from handloom.schemas.values import NUM_KEYPOINTS

Array = NDArray[np.float64]

P = 6 + model.NUM_ANGLES  # translation, rotation vector, joint angles of one hand in one frame
BAND = 2 * P  # a second difference couples frame n to n - 2
# Chosen by hand, not fitted, on rendered hands and on two EgoDex clips (see `fit`).
DEGREES_OF_FREEDOM = 8.0  # of Student's t: how robust the reprojection is
INDEPENDENT = 6
SHAPE_STEPS = range(2, 7)
COUPLING, COUPLING_SPREAD = 0.55, 0.30  # the last joint of a finger bends with the middle one
LIMIT_SPREAD = np.radians(4.0)
MODEL_SPREAD = 1.0
# Spread of a hand's accelerations, m/s2 and rad/s2: small along the optical axis and for turns, which an image shows
# least.
ACCELERATION = np.concatenate([[2.0, 2.0, 0.6], [6.0] * 3, np.full(model.NUM_ANGLES, 10.0)])


@dataclass(frozen=True)
class State:
    """translation (N, 3), rotation (N, 3, 3): camera_from_hand; angles (N, 20); shape (36,)."""

    translation: Array
    rotation: Array
    angles: Array
    shape: Array


@dataclass(frozen=True)
class Problem:
    """Observations and priors of N right hands (left ones mirrored), sorted by hand, then by frame.

    rays: (N, 21, 2) x/z and y/z. weight: (N, 21), one over the standard deviation of a ray, 0 where it is unknown.
    rest: (N, 20) joint angles of the model's own keypoints, radians, NaN unknown. dt_s: (N,) seconds since the hand's
    previous frame, NaN where its motion starts anew. knuckle_offset_m, knuckle_offset_spread_m: (N,) prior of how much
    farther from the camera the knuckles are than the wrist, and its standard deviation; inf: no prior. shape,
    shape_spread: (36,) the same of the hand's shape.
    """

    rays: Array
    weight: Array
    rest: Array
    dt_s: Array
    knuckle_offset_m: Array
    knuckle_offset_spread_m: Array
    shape: Array
    shape_spread: Array

    def part(self, index: NDArray[np.int64]) -> Problem:
        """Some of the hands, by ascending index; motion starts anew where frames are left out."""
        per_hand = ("rays", "weight", "rest", "dt_s", "knuckle_offset_m", "knuckle_offset_spread_m")
        taken = {name: getattr(self, name)[index] for name in per_hand}
        taken["dt_s"] = np.where(np.diff(index, prepend=-2) == 1, taken["dt_s"], np.nan)
        return replace(self, **taken)


@dataclass(frozen=True)
class Normal:
    """Normal equations. diagonal (N, P, P); off1, off2 (N, P): entries to the frame one and two before; border
    (N, P, S); corner (S, S); gradient (N, P) and (S,).
    """

    diagonal: Array
    off1: Array
    off2: Array
    border: Array
    corner: Array
    pose_gradient: Array
    shape_gradient: Array


def keypoints_of(state: State) -> Array:
    """(N, 21, 3) keypoints in the camera frame, metres; of the mirrored hands where they are left ones."""
    points = model.pose(state.angles, state.shape, derivatives=False).points_m
    return np.einsum("nij,nkj->nki", state.rotation, points) + state.translation[:, None]


def solve(problem: Problem, start: State, steps: int, tolerance: float = 3e-4) -> State:
    """Levenberg-Marquardt until a step lowers the cost by less than `tolerance` of it.

    The shape takes more time than the poses and converges first: only the steps `SHAPE_STEPS` change it.
    """
    state, damping, cost = start, 1e-3, misfit(problem, start)
    for step in range(steps):
        normal = normal_equations(problem, state, SHAPE_STEPS.start <= step < SHAPE_STEPS.stop)
        for _ in range(6):
            moved = _step(state, normal, damping)
            new_cost = misfit(problem, moved)
            if new_cost < cost:
                break
            damping *= 10
        else:
            if step >= SHAPE_STEPS.start:
                break
            damping = 1e-3
            continue
        gain, state, cost, damping = (cost - new_cost) / cost, moved, new_cost, max(damping / 5, 1e-6)
        if gain < tolerance and step > SHAPE_STEPS.start:
            break
    return state


def misfit(problem: Problem, state: State) -> float:
    """The cost: minus twice the log of the posterior; infinite where a hand is not in front of the camera."""
    posed = model.pose(state.angles, state.shape, derivatives=False)
    points = np.einsum("nij,nkj->nki", state.rotation, posed.seen_m) + state.translation[:, None]
    if not points[..., 2].min() > FIT_MIN_DEPTH_M:
        return np.inf
    nu = DEGREES_OF_FREEDOM
    squared = (((points[..., :2] / points[..., 2:] - problem.rays) * problem.weight[..., None]) ** 2).sum(axis=2)
    total = (nu + 2) * np.log1p(squared / nu).sum()
    for residual, scale, _, _ in _pose_priors(problem, state.angles):
        total += ((residual / scale) ** 2).sum()
    offset_m = knuckle_depth_offset_m(posed.points_m @ state.rotation.transpose(0, 2, 1))
    offset = (offset_m - problem.knuckle_offset_m) / problem.knuckle_offset_spread_m
    total += nu * np.log1p(offset**2 / nu).sum()
    residual, weight = _acceleration(problem, state)
    off = (state.shape - problem.shape) / problem.shape_spread
    return total + ((residual * weight) ** 2).sum() + _shape_trust(problem) * (off**2).sum()


def _shape_trust(problem: Problem) -> float:
    """Weight of the shape's prior. Errors of 2D keypoints last over frames: a clip counts as about `INDEPENDENT`
    independent observations of a hand, not as many as it has frames."""
    return max(1.0, len(problem.rays) / INDEPENDENT)


def _pose_priors(problem: Problem, angles: Array) -> list[tuple[Array, Array, NDArray[np.int64], float]]:
    """Residuals on joint angles: (N, J) value, spread (J,) or (N, J), the joints, and the share that the previous joint
    has in them."""
    joints = np.arange(model.NUM_ANGLES)
    over = np.maximum(angles - model.ANGLE_HIGH, 0) + np.minimum(angles - model.ANGLE_LOW, 0)
    last = joints[7::4]
    from_model = np.where(np.isfinite(problem.rest), angles - problem.rest, 0.0)
    return [
        (angles - model.ANGLE_REST, model.ANGLE_SPREAD, joints, 0.0),
        (over, np.full(model.NUM_ANGLES, LIMIT_SPREAD), joints, 0.0),
        (from_model, np.full(model.NUM_ANGLES, MODEL_SPREAD), joints, 0.0),
        (angles[:, last] - COUPLING * angles[:, last - 1], np.full(4, COUPLING_SPREAD), last, COUPLING),
    ]


def _acceleration(problem: Problem, state: State) -> tuple[Array, Array]:
    """Accelerations (N, P) from second differences, and one over their spread; 0 without two previous frames."""
    weight = np.where(_has_two_before(problem.dt_s)[:, None], 1 / ACCELERATION, 0.0)
    velocity = np.concatenate([_since(state.translation), _turns(state.rotation), _since(state.angles)], axis=1)
    now, past = problem.dt_s, np.roll(problem.dt_s, 1)
    with np.errstate(invalid="ignore"):
        speed = velocity / now[:, None]
        residual = (speed - np.roll(speed, 1, axis=0)) * (2 / (now + past))[:, None]
    return np.where(weight > 0, residual, 0.0), weight


def _has_two_before(dt_s: Array) -> NDArray[np.bool_]:
    continues = np.isfinite(dt_s)
    return continues & np.roll(continues, 1)


def _since(values: Array) -> Array:
    """Change since the previous row; 0 for the first."""
    return np.diff(values, axis=0, prepend=values[:1])


def _turns(rotation: Array) -> Array:
    """Rotation vectors (N, 3) from the previous frame to each, in the camera's axes.

    Written out: scipy's `Rotation` makes the matrices orthogonal first, and takes three times as long (90 hands).
    """
    turn = np.einsum("nij,nkj->nik", rotation, np.concatenate([rotation[:1], rotation[:-1]]))
    sine = 0.5 * np.stack(
        [turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], axis=1
    )
    size = np.linalg.norm(sine, axis=1)
    angle = np.arctan2(size, (np.trace(turn, axis1=1, axis2=2) - 1) / 2)
    return sine * (angle / np.maximum(size, 1e-12))[:, None] * (size > 1e-12)[:, None]


def normal_equations(problem: Problem, state: State, with_shape: bool = True) -> Normal:
    """Gauss-Newton at a state; the gradients are half of those of `misfit`. S = 0 without the shape."""
    num, size = len(state.angles), model.NUM_SHAPE if with_shape else 0
    posed = model.pose(state.angles, state.shape, by_shape=with_shape)
    arm = np.einsum("nij,nkj->nki", state.rotation, posed.seen_m)
    points = arm + state.translation[:, None]
    by = np.zeros((num, NUM_KEYPOINTS, 3, P + size))
    by[..., 0:3] = np.eye(3)
    by[..., 0, 4], by[..., 0, 5] = arm[..., 2], -arm[..., 1]
    by[..., 1, 3], by[..., 1, 5] = -arm[..., 2], arm[..., 0]
    by[..., 2, 3], by[..., 2, 4] = arm[..., 1], -arm[..., 0]
    by[..., 6:P] = np.matmul(state.rotation[:, None], posed.by_angle)
    if with_shape:
        by[..., P:] = np.matmul(state.rotation[:, None], posed.by_shape)

    nu, inverse = DEGREES_OF_FREEDOM, 1 / points[..., 2]
    image = points[..., :2] * inverse[..., None]
    off = (image - problem.rays) * problem.weight[..., None]
    robust = np.sqrt((nu + 2) / (nu + (off**2).sum(axis=2)))
    row = (by[..., :2, :] - image[..., None] * by[..., 2:, :]) * (inverse * problem.weight * robust)[..., None, None]
    row = row.reshape(num, 2 * NUM_KEYPOINTS, -1)
    value = (off * robust[..., None]).reshape(num, -1)
    offset_m = points[:, KNUCKLES, 2].mean(axis=1) - state.translation[:, 2]
    offset = (offset_m - problem.knuckle_offset_m) / problem.knuckle_offset_spread_m
    share = np.sqrt(nu / (nu + offset**2))
    slope = by[:, KNUCKLES, 2].mean(axis=1)
    slope[:, 2] -= 1
    row = np.concatenate([row, (slope * (share / problem.knuckle_offset_spread_m)[:, None])[:, None]], axis=1)
    value = np.concatenate([value, (offset * share)[:, None]], axis=1)
    trust = (_shape_trust(problem) / problem.shape_spread**2)[:size]
    square = np.matmul(row.transpose(0, 2, 1), row)
    gradient = np.matmul(value[:, None], row)[:, 0]
    normal = Normal(
        square[:, :P, :P].copy(),
        np.zeros((num, P)),
        np.zeros((num, P)),
        square[:, :P, P:],
        square[:, P:, P:].sum(axis=0) + np.diag(trust),
        gradient[:, :P].copy(),
        gradient[:, P:].sum(axis=0) + trust * (state.shape - problem.shape)[:size],
    )
    _add_angle_priors(problem, state, normal)
    _add_acceleration(problem, state, normal)
    return normal


def _add_angle_priors(problem: Problem, state: State, normal: Normal) -> None:
    for index, (residual, spread, joints, share) in enumerate(_pose_priors(problem, state.angles)):
        at, weight = 6 + joints, np.broadcast_to(spread**-2.0, residual.shape).copy()
        if index == 1:
            weight *= residual != 0
        if index == 2:
            weight *= np.isfinite(problem.rest)
        normal.diagonal[:, at, at] += weight
        normal.pose_gradient[:, at] += weight * residual
        if share:
            normal.diagonal[:, at - 1, at - 1] += share**2 * weight
            normal.diagonal[:, at, at - 1] -= share * weight
            normal.diagonal[:, at - 1, at] -= share * weight
            normal.pose_gradient[:, at - 1] -= share * weight * residual


def _add_acceleration(problem: Problem, state: State, normal: Normal) -> None:
    """The residual of frame n is a x[n] + b x[n-1] + c x[n-2]."""
    residual, weight = _acceleration(problem, state)
    with np.errstate(invalid="ignore"):
        now, past = problem.dt_s, np.roll(problem.dt_s, 1)
        a, c = 2 / (now * (now + past)), 2 / (past * (now + past))
    a, c = (np.where(weight[:, 0] > 0, v, 0.0)[:, None] * weight for v in (a, c))
    b, value = -(a + c), residual * weight
    step = np.arange(P)
    for shift, factor in ((0, a), (1, b), (2, c)):
        normal.diagonal[: len(a) - shift, step, step] += factor[shift:] ** 2
        normal.pose_gradient[: len(a) - shift] += (factor * value)[shift:]
    normal.off1[:] += a * b
    normal.off1[:-1] += (b * c)[1:]
    normal.off2[:] += a * c


class _Banded:
    """Cholesky factor of the poses' part."""

    def __init__(self, normal: Normal, damping: float) -> None:
        num = len(normal.diagonal)
        band = np.zeros((BAND + 1, num, P))
        diagonal = normal.diagonal
        for column in range(P):
            band[: P - column, :, column] = diagonal[:, column:, column].T
        band[0] *= 1 + damping
        band[P, :-1] = normal.off1[1:]
        band[2 * P, :-2] = normal.off2[2:]
        band = band.reshape(BAND + 1, num * P)
        self._factor = cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)

    def solve(self, right: Array) -> Array:
        return cho_solve_banded((self._factor, True), right, overwrite_b=True, check_finite=False)


def _step(state: State, normal: Normal, damping: float) -> State:
    num, size = len(state.angles), len(normal.shape_gradient)
    banded = _Banded(normal, damping)
    right = np.concatenate([normal.border, normal.pose_gradient[..., None]], axis=2).reshape(num * P, size + 1)
    solved = banded.solve(right.copy(order="F"))
    by_pose, shape = solved[:, size], state.shape
    if size:
        border = normal.border.reshape(num * P, size)
        corner = normal.corner + damping * np.diag(np.diag(normal.corner)) - border.T @ solved[:, :size]
        by_shape = cho_solve(cho_factor(corner), normal.shape_gradient - border.T @ solved[:, size])
        by_pose, shape = by_pose - solved[:, :size] @ by_shape, shape - by_shape
    by_pose = by_pose.reshape(num, P)
    return State(
        state.translation - by_pose[:, :3],
        Rotation.from_rotvec(-by_pose[:, 3:6]).as_matrix() @ state.rotation,
        state.angles - by_pose[:, 6:],
        shape,
    )


def depth_spread(problem: Problem, state: State) -> Array:
    """(N,) standard deviation of a hand's depth, metres, from the covariance of the fit: made for every fourth frame or
    fewer, and interpolated."""
    normal = normal_equations(problem, state)
    num, size = len(state.angles), model.NUM_SHAPE
    banded = _Banded(normal, 1e-9)
    border = normal.border.reshape(num * P, size)
    solved = banded.solve(border.copy(order="F"))
    corner = normal.corner - border.T @ solved
    picked = np.unique(np.append(np.arange(0, num, max(4, num // 32)), num - 1))
    unit = np.zeros((num * P, len(picked)), order="F")
    unit[picked * P + 2, np.arange(len(picked))] = 1
    own = banded.solve(unit)[picked * P + 2, np.arange(len(picked))]
    with_shape = solved[picked * P + 2]
    variance = own + np.einsum("ns,ns->n", with_shape, cho_solve(cho_factor(corner), with_shape.T).T)
    return np.interp(np.arange(num), picked, np.sqrt(variance))
