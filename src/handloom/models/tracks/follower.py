"""Follow points from one frame to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks.alignment import PRIOR, ImagePair
from handloom.models.tracks.flow import MAX_CERTAIN_PX, NEAR_HAND, RESTING_PX, StepFlow
from handloom.models.tracks.hand_regions import FAR, INDEPENDENT, LEFT, RIGHT, STATIC, HandRegions
from handloom.models.tracks.patches import NOISE_GREY, OFFSETS, SENSOR_GREY, FrameView, Match, align_patches, compare
from handloom.models.tracks.point_states import PointStates
from handloom.models.tracks.scene_motion import SceneMotion, cell_of, fit_scene_motion
from handloom.schemas.values import NUM_HANDS

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

# Chosen by hand, not fitted, on three rendered scenes; tried on others, on HaWoR's example and on an EgoDex clip.
STRONG = 0.2
"""Corner strength above which a point is tracked alone; below it moves with its neighbours."""
LIKENESS, LIKENESS_AGAIN, LIKENESS_OVER_HAND = 0.7, 0.78, 0.9
"""Least correlation with the patch: to stay visible, to be found again, to be visible between the fingers of a hand."""
MIN_LIKENESS = 0.5
RENEW = 0.85
"""Below this correlation, patches of moving points are taken again. To do so for the static scene, after 0.3 s, cost a
rendered scene 0.07 of its average Jaccard."""
PLAIN_DIFFERENCE = 2.5 * NOISE_GREY
COLOUR, PLAIN_COLOUR = 45.0, 20.0
OWN_MOTION_PX = 2.5
APART_PX = 1.2
"""A point found farther than this, and than three sigma, from its place in the static scene is taken to move by
itself."""
MIN_LOST = 12
"""If fewer points are lost, their own motion is not measured: the images' pyramids cost half a millisecond."""
RARELY_AFTER_S, EVERY = 0.3, 2
"""A point with texture that is hidden for longer is searched in every second step: one search in fifty finds it."""
COLOUR_NEAR = 20.0
"""A hidden point is not searched where the colour differs by more than `COLOUR` plus this. In four real clips 259 of
8,662 points were found again from such a place, and four in ten searches began at one."""
STATIC_PRIOR_PX, WEAK_PRIOR_PX = 0.5, 0.2
"""Standard deviation of one step with the static scene, for a point with texture and for one without."""
VOTERS_A_CELL = 2
SAME_AS_SCENE_PX = 0.6
HAND_REACH, HAND_KEEP = 0.02, 0.15
"""Palm lengths that a hand reaches beyond its bones' area; and that its points may be outside."""
LIKENESS_LATE = 0.86
"""Least correlation to be found again after more than a second."""
GIVE_UP_S, GIVE_UP_STATIC_S = 2.0, 6.0
"""How long a hidden point is searched; and how long one with texture of the static scene. One without texture may come
back as long as its place is known."""
PLACE_KNOWN_PX = 12.0
"""A point without texture of a larger standard deviation is not visible: anything may be at its place."""
MIN_PASSED_SHARE = 0.4
"""If a smaller share of the points passes the forward-backward check, the others are measured again from dense flow."""
STEP_APART_PX, STEP_SEEN_PX = 1.2, 0.4
"""Standard deviation of one step by a hand's motion, and of an object's by the point's own measured motion."""
MIN_COLOUR, MAX_COLOUR, LIGHT_CHANGE = 8.0, 250.0, 0.1
"""Colours between the first two show changes of the light; a logarithm of the brightness relative to the first frame
below the third is no change."""
FLOW_PX = 4.0
"""Standard deviation of one step by dense flow, if the static scene's motion is not known."""
UNKNOWN_AGING = 5
MIN_SURE = 100
"""If more static points than this are found, they refine the parallax together with the given matches."""
MIN_STARTED_SHARE = 0.8
"""If the share of points not given up is smaller, the others are dropped; copying has a cost."""


class Follower:
    """Points that are followed. now: their state in the frame of the last step.

    motion: the static scene's in that step; None before the first.
    """

    def __init__(self, window_px: int, levels: int, forward_backward_px: float, step_s: float) -> None:
        self.step_s = step_s
        self._flow = StepFlow(window_px, levels, forward_backward_px)
        self.end()

    def end(self) -> None:
        """End all points: the shot is over."""
        self.now = PointStates.none()
        self.motion: SceneMotion | None = None
        self._before_blank: tuple[NDArray[np.uint8], int] | None = None
        self._light, self._rested, self._shot_s = np.ones(3, np.float32), False, 0.0

    @property
    def _scene(self) -> SceneMotion:
        """The static scene's motion, in a step. Raises ValueError before the first."""
        if self.motion is None:
            raise ValueError("no step was made")
        return self.motion

    def start(
        self, ids: Indices, points: Array, view: FrameView, layer: NDArray[np.int8], regions: HandRegions, t: int,
        patient: bool = True,
    ) -> None:  # fmt: skip
        """Start points in frame `t`, visible.

        patient: once lost, they are searched as long as others. Otherwise, late in a shot, one that its first step does
        not find is given up: it lay on an edge, and six of a thousand would end on another object.
        """
        if not len(ids):
            return
        view.light = self._light
        first = int(self.now.started.sum())
        new = PointStates.begin(ids, points, layer, 0.0 if patient else self._shot_s)
        self.now = self.now.select(self.now.started).concatenate(new)
        self._store_patches(np.arange(first, len(self.now.ids)), new.at, view, regions, t)

    def drop(self, first: int) -> None:
        """Stop following the points of id `first` and higher."""
        self.now = self.now.select(self.now.ids < first)

    def _store_patches(self, at: Indices, points: Array, view: FrameView, regions: HandRegions, t: int) -> None:
        if not len(at):
            return
        self.now.patches.store(at, view, points, regions.same_surface(t, points, OFFSETS))
        self.now.strong[at] = self.now.patches.corner_strength(at) > STRONG
        self.now.warp[at] = np.eye(2, dtype=np.float32)

    def step(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8], view: FrameView, regions: HandRegions, t: int,
        to: int, matches: tuple[Array, Array] | None = None, motion: SceneMotion | None = None,
    ) -> None:  # fmt: skip
        """From frame `t` (grey `before`) to frame `to` (grey `after`, prepared as `view`).

        matches: (m, 2) points of the static scene in the two frames. motion: the scene's, already fitted to them or to
        others. If both are None the motion is fitted to the points followed here.
        """
        if view.is_blank:
            self._skip_blank_frame(before, t, view.size)
            return
        if self._before_blank is not None:
            (before, t), self.now.seen = self._before_blank, self.now.waiting
            self._before_blank, matches = None, None
        if self.now.started.sum() < MIN_STARTED_SHARE * len(self.now.ids):
            self.now = self.now.select(self.now.started)
        inside = [regions.depth(t, hand, self.now.at) for hand in range(NUM_HANDS)]
        self.now.inside = np.maximum(*inside)
        pair = ImagePair(before, after)
        view.light = self._light
        asked = self._points_to_measure(view.size, matches is None and motion is None)
        tracked, moved = self._flow_step(pair, asked)
        if motion is None:
            static = tracked[(self.now.layer[tracked] == STATIC) & ~regions.on_forearm(t, self.now.at[tracked])]
            matches_of = matches or (self.now.at[static], moved[static])
            motion = self._flow.fit_scene_motion(matches_of, pair, regions, t, self.motion, self._rested)
        self.motion = motion
        self._rested = motion.shift_px < RESTING_PX if motion.known else self._rested
        good = np.zeros(len(self.now.at), bool)
        good[tracked] = True
        with_scene = self._scene.moved_points(self.now.at)
        self._by_flow = not self._scene.known and pair.textured
        if self._by_flow:
            with_scene = self.now.at + pair.flow_at(self.now.at)
        expected = self._expected_points(with_scene, inside, regions, t, to)
        self._rejoin_scene(good, moved, with_scene, expected)
        self._light = view.light = self._measure_light(view, tracked, moved, with_scene)
        self._step = self._step_sigma_px(good)
        self.now.spread.step(self._step)
        self._sigma = self.now.spread.independent_sigma()
        leaving = self._leaving_scene(good, moved, expected, view, regions, to)
        own = good & ((self.now.layer != STATIC) | (not self._scene.known)) | leaving
        start = np.where(good[:, None], moved, expected)
        prior = np.where(own[:, None], moved, expected)
        here = self.now.started & view.inside(prior, -4.0)
        new, accepted = expected.copy(), np.zeros(len(good), bool)
        strong = np.flatnonzero(here & self.now.strong)
        rounds = 1 if self._scene.median_sigma_px < MAX_CERTAIN_PX else 3
        self._search(strong[self.now.seen[strong]], start, prior, rounds, view, regions, to, new, accepted)
        hidden = self._hidden_to_search(strong[~self.now.seen[strong]], start, view, to)
        self._search(hidden, start, prior, 3, view, regions, to, new, accepted)
        self.now.layer[leaving & accepted] = INDEPENDENT
        lost = np.setdiff1d(strong[self.now.seen[strong] & ~accepted[strong]], asked, assume_unique=True)
        self._follow_independently(lost, expected, pair, view, regions, to, new, accepted)
        # Points found by their patches have no drift, so they refine the motion of the others.
        sure = strong[accepted[strong] & (self.now.layer[strong] == STATIC)]
        if matches is None:
            self.motion = self._scene.with_parallax(self.now.at[sure], new[sure])
        elif len(sure) > MIN_SURE:
            both = zip(matches, (self.now.at[sure], new[sure]), strict=True)
            places, moved_to = (np.concatenate(two) for two in both)
            self.motion = self._scene.with_parallax(places, moved_to)
        weak = np.flatnonzero(~self.now.strong & (self.now.layer == STATIC))
        if self._scene.known:
            expected[weak] = new[weak] = prior[weak] = start[weak] = self._scene.moved_points(self.now.at[weak])
        known = (self._scene.known or self._by_flow) & (self._sigma < PLACE_KNOWN_PX)
        self._search(np.flatnonzero(here & ~self.now.strong & known), start, prior, 1, view, regions, to, new, accepted)
        self._update(new, accepted, view, regions, to)

    def _hidden_to_search(self, hidden: Indices, place: Array, view: FrameView, to: int) -> Indices:
        """Of the hidden points with these numbers, those that are searched in this step."""
        late = self.now.hidden_s[hidden] > RARELY_AFTER_S
        hidden = hidden[~late | ((self.now.ids[hidden] + to) % EVERY == 0)]
        off = np.abs(view.colours(place[hidden]) - self.now.patches.colour[hidden]).max(axis=1)
        return hidden[off < COLOUR + COLOUR_NEAR]

    def _skip_blank_frame(self, before: NDArray[np.uint8], t: int, size: Array) -> None:
        """A blank frame: no point is visible, and the next step starts from the last frame that was not blank."""
        if self._before_blank is None:
            self._before_blank, self.now.waiting = (before, t), self.now.seen
        self.motion = fit_scene_motion(self.now.at[:0], self.now.at[:0], size)
        self.now.seen = np.zeros_like(self.now.seen)

    def _measure_light(self, view: FrameView, tracked: Indices, moved: Array, with_scene: Array) -> Array:
        """(3,) brightness of the frame relative to the first, from the followed points; unchanged where they disagree.

        Points without texture count only if they agree closely: a plain object that covers them all must not.
        """
        now = self.now
        weak = np.flatnonzero(now.seen & ~now.strong & (now.layer == STATIC)) if self._scene.known else tracked[:0]
        static = tracked[now.layer[tracked] == STATIC]
        for at, place, least, apart in ((static, moved, 12, 0.12), (weak, with_scene, 40, 0.06)):
            shown, kept = view.light * view.colours(place[at]), self.now.patches.colour[at]
            usable = (shown.min(axis=1) > MIN_COLOUR) & (kept.min(axis=1) > MIN_COLOUR) & view.inside(place[at])
            usable &= (shown.max(axis=1) < MAX_COLOUR) & (kept.max(axis=1) < MAX_COLOUR)
            if usable.sum() < least:
                continue
            ratio = np.log(shown[usable] / kept[usable])
            light = np.median(ratio, axis=0)
            if np.median(np.abs(ratio - light)) < apart:
                return np.exp(np.where(np.abs(light).max() > LIGHT_CHANGE, light, 0)).astype(np.float32)
        return view.light

    def _points_to_measure(self, size: Array, voters: bool) -> Indices:
        """Points whose step is measured: those that may move by themselves, and enough for the camera's motion."""
        near = self.now.inside > -NEAR_HAND
        able = self.now.seen & self.now.strong
        sure = able & (near | (self.now.layer != STATIC))
        if not voters:
            return np.flatnonzero(sure)
        rest = np.flatnonzero(able & ~sure)
        cell = cell_of(self.now.at[rest], size)
        order = np.lexsort((-self.now.patches.corner_strength(rest), cell))
        cell = cell[order]
        rank = np.arange(len(cell)) - np.searchsorted(cell, cell)
        return np.concatenate([np.flatnonzero(sure), rest[order[rank < VOTERS_A_CELL]]])

    def _flow_step(self, pair: ImagePair, at: Indices) -> tuple[Indices, Array]:
        """Lucas-Kanade forward and backward for the points numbered `at`: which passed, and the new places (N, 2)."""
        moved = self.now.at.copy()
        if not len(at):
            return at, moved
        origin = np.ascontiguousarray(self.now.at[at])
        guess = self.motion.moved_points(origin) if self.motion is not None and self.motion.known else origin.copy()
        own = self.now.layer[at] != STATIC
        guess[own] = origin[own] + self.now.speed[at][own]
        found, good = self._flow.forward_backward(pair, origin, guess)
        if good.mean() < MIN_PASSED_SHARE and len(at) > VOTERS_A_CELL:
            again = np.flatnonzero(~good)
            found[again], good[again] = self._flow.forward_backward(
                pair, origin[again], origin[again] + pair.flow_at(origin[again])
            )
        moved[at] = found
        return at[good], moved

    def _expected_points(self, with_scene: Array, inside: list[Array], regions: HandRegions, t: int, to: int) -> Array:
        """(N, 2) expected places by what each point moves with; updates the patches' warps."""
        expected = with_scene.copy()
        apart = (self.now.layer == STATIC) | (self.now.layer == INDEPENDENT)
        if self._scene.known:
            stretch = self._scene.jacobian_at(self.now.at[apart])
            self.now.warp[apart] = np.einsum("nab,nbc->nac", stretch, self.now.warp[apart])
        elif not self._by_flow:
            expected = self.now.at + self.now.speed
        for hand, layer in enumerate((LEFT, RIGHT)):
            mine = np.flatnonzero(self.now.layer == layer)
            carried = (self.now.layer == INDEPENDENT) & (inside[hand] > -0.8)
            mine = np.concatenate([mine, np.flatnonzero(carried)])
            moved = regions.moved_points(t, to, hand, self.now.at[mine])
            if len(mine) and moved is not None:
                expected[mine] = moved
                turn = regions.rotation_scale(t, to, hand)
                mine = mine[self.now.layer[mine] == layer]
                self.now.warp[mine] = np.einsum("ab,nbc->nac", turn, self.now.warp[mine])
        return expected.astype(np.float32)

    def _rejoin_scene(self, good: Mask, moved: Array, with_scene: Array, expected: Array) -> None:
        """Points that move with the static scene, and not as expected otherwise, become part of it."""
        if not self._scene.known:
            return
        at = np.flatnonzero(good & (self.now.layer != STATIC))
        moves_with_scene = np.linalg.norm(moved[at] - with_scene[at], axis=1) < SAME_AS_SCENE_PX
        apart = np.linalg.norm(expected[at] - with_scene[at], axis=1) > OWN_MOTION_PX
        back = at[moves_with_scene & ((self.now.layer[at] == INDEPENDENT) | apart)]
        self.now.layer[back] = STATIC
        expected[back] = with_scene[back]

    def _leaving_scene(
        self, good: Mask, moved: Array, expected: Array, view: FrameView, regions: HandRegions, to: int
    ) -> Mask:
        """(N,) points that leave the static scene: not visible where it moves them, but elsewhere, off the hands."""
        leaving = np.zeros(len(good), bool)
        at = np.flatnonzero(good & (self.now.layer == STATIC))
        at = at[np.linalg.norm(moved[at] - expected[at], axis=1) > OWN_MOTION_PX]
        if len(at) and self._scene.known:
            patches = self.now.patches.clipped(at, view, expected[at], self.now.warp[at])
            stayed, went = (compare(patches, view, place[at], self.now.warp[at]) for place in (expected, moved))
            went_off = (went.likeness > LIKENESS) & (went.colour < PLAIN_COLOUR) & (stayed.likeness < LIKENESS)
            leaving[at[went_off & (regions.hand_at(to, moved[at], HAND_REACH) == STATIC)]] = True
        return leaving

    def _follow_independently(
        self, lost: Indices, expected: Array, pair: ImagePair, view: FrameView, regions: HandRegions, to: int,
        new: Array, accepted: Mask,
    ) -> None:  # fmt: skip
        """Search lost points by their own measured step: near objects finer than the parallax cells, and objects that
        are moved far from a hand."""
        if len(lost) < MIN_LOST:
            return
        there, good = self._flow.forward_backward_at_half_size(pair, self.now.at[lost], expected[lost])
        start = expected.copy()
        start[lost] = there
        self._search(lost[good], start, start, 2, view, regions, to, new, accepted, LIKENESS_AGAIN, PLAIN_COLOUR)
        found = lost[accepted[lost]]
        off = np.linalg.norm(new[found] - expected[found], axis=1)
        self.now.layer[found[off > np.maximum(APART_PX, 3 * self._step[found])]] = INDEPENDENT

    def _search(
        self, at: Indices, start: Array, prior: Array, rounds: int, view: FrameView, regions: HandRegions, to: int,
        new: Array, accepted: Mask, likeness: float = -1.0, colour: float = COLOUR,
    ) -> None:  # fmt: skip
        """Search the points numbered `at`; those found are written to `new` (N, 2) and `accepted` (N,).

        likeness, colour: least correlation and largest colour difference, besides the conditions of `_accept`.
        """
        if not len(at):
            return
        prior_px = self._prior_sigma_px(at)
        patches = self.now.patches.clipped(at, view, start[at], self.now.warp[at])
        match = align_patches(patches, view, start[at], self.now.warp[at], prior[at], prior_px, rounds)
        found = self._accept(
            at, match, np.linalg.norm(match.points - prior[at], axis=1) < 3 * prior_px + 1.5, regions, to
        )
        found &= view.inside(match.points) & (match.likeness > likeness) & (match.colour < colour)
        self.now.spread.found(at[found], patches.tensor[found], match.difference[found])
        new[at[found]], accepted[at[found]] = match.points[found], True
        self.now.likeness[at] = match.likeness

    def _step_sigma_px(self, good: Mask) -> Array:
        """(N,) standard deviation of one step, by what each point moves with."""
        unknown = np.float32(FLOW_PX if self._by_flow else PRIOR * np.sqrt(self._scene.size.prod()))
        static = self._scene.sigma_px(self.now.at) if self._scene.known else unknown
        seen = good & ((self.now.layer == INDEPENDENT) | (not self._scene.known))
        step = np.where(self.now.layer == STATIC, static, np.float32(STEP_APART_PX))
        return np.where(seen, np.float32(STEP_SEEN_PX), step)

    def _prior_sigma_px(self, at: Indices) -> Array:
        """(n,) standard deviation of the expected place in the search."""
        unsure = self._scene.median_sigma_px > MAX_CERTAIN_PX
        static_px = np.clip(self._step[at], STATIC_PRIOR_PX, FLOW_PX if unsure else STATIC_PRIOR_PX).astype(np.float32)
        prior_px = np.where(self.now.layer[at] == STATIC, static_px, np.float32(STEP_APART_PX))
        hidden = np.minimum(1 + 4 * self.now.hidden_s[at], 4).astype(np.float32)
        prior_px = np.where(self.now.seen[at], prior_px, hidden)
        weak = ~self.now.strong[at]
        prior_px[weak] = WEAK_PRIOR_PX
        return prior_px

    def _accept(self, at: Indices, match: Match, near: Mask, regions: HandRegions, to: int) -> Mask:
        """(n,) whether each match is good enough, and at a possible place."""
        strong, seen, layer = self.now.strong[at], self.now.seen[at], self.now.layer[at]
        inside = np.full((NUM_HANDS, len(at)), FAR)
        near_hand = np.flatnonzero(self.now.inside[at] > -NEAR_HAND)
        for hand in range(NUM_HANDS if len(near_hand) else 0):
            inside[hand, near_hand] = regions.depth(to, hand, match.points[near_hand])
        over_hand = inside.max(axis=0) > -HAND_REACH
        apart = (layer != LEFT) & (layer != RIGHT)
        late = (self.now.hidden_s[at] > 1) | (self._sigma[at] > PLACE_KNOWN_PX)
        needed = np.where(seen, LIKENESS, np.where(late, LIKENESS_LATE, LIKENESS_AGAIN))
        if not self._scene.known:
            needed = np.maximum(needed, LIKENESS_AGAIN)
        needed = np.where(apart & over_hand, LIKENESS_OVER_HAND, needed)
        contrast = np.minimum(self.now.patches.contrast[at], match.contrast) ** 2
        needed = np.maximum(needed * contrast / (contrast + 2 * SENSOR_GREY**2), MIN_LIKENESS)
        alike = (match.likeness > needed) & (match.colour < COLOUR)
        plain = (match.difference < PLAIN_DIFFERENCE) & (match.colour < PLAIN_COLOUR) & ~(apart & over_hand)
        accepted = np.where(strong, alike, plain) & near
        for hand, name in enumerate((LEFT, RIGHT)):
            mine = layer == name
            accepted[mine] &= inside[hand, mine] > -HAND_KEEP
        return accepted

    def _update(self, new: Array, accepted: Mask, view: FrameView, regions: HandRegions, to: int) -> None:
        self.now.speed = np.where(self.now.seen[:, None], new - self.now.at, np.float32(0))
        self.now.at, self.now.seen = new, accepted
        self.now.age_s += np.float32(self.step_s)
        # Without the camera's motion the expected place of a hidden point soon becomes useless.
        aged_s = self.step_s * (1 if self._scene.known else UNKNOWN_AGING)
        self._shot_s += aged_s
        self.now.hidden_s = np.where(self.now.seen, 0.0, self.now.hidden_s + aged_s)
        static = self.now.layer == STATIC
        patience_s = np.where(static & self.now.strong, GIVE_UP_STATIC_S, GIVE_UP_S)
        by_place = static & ~self.now.strong & (self._sigma < PLACE_KNOWN_PX)
        self.now.started &= (self.now.hidden_s <= patience_s) | by_place
        aged = np.flatnonzero(accepted & self.now.strong & (self.now.layer != STATIC) & (self.now.likeness < RENEW))
        self.now.spread.renew(aged)
        self._store_patches(aged, self.now.at[aged], view, regions, to)
