"""The state of all points in one frame, and the step to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from handloom.models.tracks.align import PRIOR, Pair
from handloom.models.tracks.flow import NEAR_HAND, RESTED_PX, UNSURE_PX, Flow
from handloom.models.tracks.hands import FAR, LEFT, OWN, RIGHT, STILL, HandRegions
from handloom.models.tracks.layers import StillMotion, cell_of, still_motion
from handloom.models.tracks.patches import NOISE_GREY, OFFSETS, SENSOR_GREY, FrameView, Match, find, judge
from handloom.models.tracks.points import Points
from handloom.schemas.values import NUM_HANDS

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

# Chosen by hand, not fitted, on three rendered scenes; tried on others, on HaWoR's example and on an EgoDex clip.
STRONG = 0.2
"""Corner strength above which a point is followed by itself; below it moves with its neighbours."""
LIKENESS, LIKENESS_AGAIN, LIKENESS_OVER_HAND = 0.7, 0.78, 0.9
"""Least correlation with the patch: to stay visible, to be found again, to show between the fingers of a hand."""
LEAST_LIKENESS = 0.5
RENEW = 0.85
"""Patches of what does not rest are taken anew below it. Of the still scene's, after 0.3 s of it, that cost a rendered
scene 0.07 of its average Jaccard."""
PLAIN_DIFFERENCE = 2.5 * NOISE_GREY
COLOUR, PLAIN_COLOUR = 45.0, 20.0
OWN_MOTION_PX = 2.5
APART_PX = 1.2
"""A point found further than this, and than three sigma, from where the still scene would have it moves by itself from
then on."""
MANY = 12
"""Where fewer are lost they are not asked how they moved: the pictures' pyramids cost half a millisecond."""
SELDOM_S, SELDOM = 0.3, 2
"""A point with texture that is hidden for longer is looked for in every second step: one in fifty looks finds it."""
COLOUR_NEAR = 20.0
"""A hidden point is not looked for where the colour is further off than `COLOUR` and this: of 8,662 that were found in
four real clips 259 had begun there, of all that were looked for four in ten."""
STILL_PRIOR_PX, WEAK_PRIOR_PX = 0.5, 0.2
"""Standard deviation of one step by the still scene's motion, for a point with texture and for one without."""
VOTERS_A_CELL = 2
STILL_PX = 0.6
HAND_REACH, HAND_KEEP = 0.02, 0.15
"""Palm lengths that a hand's flesh reaches beyond the outline of its keypoints; and that its points may stray."""
LIKENESS_LATE = 0.86
"""To be found again after more than a second."""
GIVE_UP_S, GIVE_UP_STILL_S = 2.0, 6.0
"""How long a hidden point is looked for; and one with texture, of the still scene. One without may always come back,
while its place is known."""
PLACE_KNOWN_PX = 12.0
"""A point without texture whose place is less sure than this is not visible: what is there may be anything."""
FEW_CAME_BACK = 0.4
"""Share of the corners: where fewer pass the forward-backward check, they begin again from a dense flow."""
STEP_APART_PX, STEP_SEEN_PX = 1.2, 0.4
"""Standard deviation of one step by a hand's motion; of a thing's, by the point's own, `STEP_SEEN_PX`."""
LEAST_COLOUR, MOST_COLOUR, LIGHT_CHANGE = 8.0, 250.0, 0.1
"""Between the first two a colour tells of the light; the logarithm of the brightness over the first frame's below which
it has not changed."""
FLOW_PX = 4.0
"""And of one by the dense flow, where the still scene's motion is not known."""
UNKNOWN_STEPS = 5
MANY_SURE = 100
"""Points found that tell the still scene's motion beside the matches that were given."""
MOST_STARTED = 0.8
"""Of the points, the share below which those that were given up are dropped: to copy the others costs something."""


class Follower:
    """Points that are followed: `now` is how they are in the frame of the last step.

    motion: the still scene's, in that step; None before the first.
    """

    def __init__(self, window_px: int, levels: int, forward_backward_px: float, step_s: float) -> None:
        self.step_s = step_s
        self._flow = Flow(window_px, levels, forward_backward_px)
        self.end()

    def end(self) -> None:
        """Nothing is followed any more: the shot is over."""
        self.now, self.motion = Points.none(), None
        self._waits: tuple[NDArray[np.uint8], int] | None = None
        self._light, self._rested, self._shot_s = np.ones(3, np.float32), False, 0.0

    def start(
        self, ids: Indices, points: Array, view: FrameView, layer: NDArray[np.int8], regions: HandRegions, t: int,
        patient: bool = True,
    ) -> None:  # fmt: skip
        """Points begin here, in frame `t`, visible.

        patient: once lost, they are looked for as long as others. Else, in a shot that has gone on for so long, one
        that its first step does not find is given up: it lay on an edge, and six of a thousand would end on another
        thing.
        """
        if not len(ids):
            return
        view.light = self._light
        first = int(self.now.started.sum())
        new = Points.begin(ids, points, layer, 0.0 if patient else self._shot_s)
        self.now = self.now.only(self.now.started).and_also(new)
        self._take(np.arange(first, len(self.now.ids)), new.at, view, regions, t)

    def drop(self, first: int) -> None:
        """Points called `first` or higher are not followed any more."""
        self.now = self.now.only(self.now.ids < first)

    def _take(self, at: Indices, points: Array, view: FrameView, regions: HandRegions, t: int) -> None:
        if not len(at):
            return
        self.now.patches.take(at, view, points, regions.alike(t, points, OFFSETS))
        self.now.strong[at] = self.now.patches.corner_strength(at) > STRONG
        self.now.warp[at] = np.eye(2, dtype=np.float32)

    def step(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8], view: FrameView, regions: HandRegions, t: int,
        to: int, matches: tuple[Array, Array] | None = None, motion: StillMotion | None = None,
    ) -> None:  # fmt: skip
        """From frame `t` (grey `before`) to frame `to` (grey `after`, prepared as `view`).

        matches: (m, 2) points of the two frames that tell the still scene's motion. motion: it is known, from them or
        from other points. None of the two: the points followed here tell it.
        """
        if view.blind:
            self._wait(before, t, view.size)
            return
        if self._waits is not None:
            (before, t), self.now.seen = self._waits, self.now.waiting
            self._waits, matches = None, None
        if self.now.started.sum() < MOST_STARTED * len(self.now.ids):
            self.now = self.now.only(self.now.started)
        inside = [regions.depth(t, hand, self.now.at) for hand in range(NUM_HANDS)]
        self.now.inside = np.maximum(*inside)
        pair = Pair(before, after)
        view.light = self._light
        asked = self._asked_points(view.size, matches is None and motion is None)
        flown, moved = self._flow_step(pair, asked)
        if motion is None:
            still = flown[(self.now.layer[flown] == STILL) & ~regions.on_arm(t, self.now.at[flown])]
            matches_of = matches or (self.now.at[still], moved[still])
            motion = self._flow.still_motion(matches_of, pair, regions, t, self.motion, self._rested)
        self.motion = motion
        self._rested = motion.shift_px < RESTED_PX if motion.known else self._rested
        good = np.zeros(len(self.now.at), bool)
        good[flown] = True
        still_at = self.motion.move(self.now.at)
        self._by_flow = not self.motion.known and pair.textured
        if self._by_flow:
            still_at = self.now.at + pair.flow_at(self.now.at)
        expected = self._expect(still_at, inside, regions, t, to)
        self._come_back(good, moved, still_at, expected)
        self._light = view.light = self._light_of(view, flown, moved, still_at)
        self._step = self._step_px(good)
        self.now.spread.step(self._step)
        self._sigma = self.now.spread.scatter()
        leaving = self._leaving(good, moved, expected, view, regions, to)
        own = good & ((self.now.layer != STILL) | (not self.motion.known)) | leaving
        start = np.where(good[:, None], moved, expected)
        prior = np.where(own[:, None], moved, expected)
        here = self.now.started & view.inside(prior, -4.0)
        new, accepted = expected.copy(), np.zeros(len(good), bool)
        strong = np.flatnonzero(here & self.now.strong)
        rounds = 1 if self.motion.typical_px < UNSURE_PX else 3
        self._look(strong[self.now.seen[strong]], start, prior, rounds, view, regions, to, new, accepted)
        hidden = self._asked(strong[~self.now.seen[strong]], start, view, to)
        self._look(hidden, start, prior, 3, view, regions, to, new, accepted)
        self.now.layer[leaving & accepted] = OWN
        lost = np.setdiff1d(strong[self.now.seen[strong] & ~accepted[strong]], asked, assume_unique=True)
        self._by_themselves(lost, expected, pair, view, regions, to, new, accepted)
        # What was found tells the others' motion: it is free of what adds up from step to step.
        sure = strong[accepted[strong] & (self.now.layer[strong] == STILL)]
        if matches is None:
            self.motion = self.motion.bent(self.now.at[sure], new[sure])
        elif len(sure) > MANY_SURE:
            both = zip(matches, (self.now.at[sure], new[sure]), strict=True)
            self.motion = self.motion.bent(*(np.concatenate(two) for two in both))
        weak = np.flatnonzero(~self.now.strong & (self.now.layer == STILL))
        if self.motion.known:
            expected[weak] = new[weak] = prior[weak] = start[weak] = self.motion.move(self.now.at[weak])
        known = (self.motion.known or self._by_flow) & (self._sigma < PLACE_KNOWN_PX)
        self._look(np.flatnonzero(here & ~self.now.strong & known), start, prior, 1, view, regions, to, new, accepted)
        self._settle(new, accepted, view, regions, to)

    def _asked(self, hidden: Indices, place: Array, view: FrameView, to: int) -> Indices:
        """Of hidden points number `hidden` those that are looked for in this step."""
        late = self.now.hidden_s[hidden] > SELDOM_S
        hidden = hidden[~late | ((self.now.ids[hidden] + to) % SELDOM == 0)]
        off = np.abs(view.colours(place[hidden]) - self.now.patches.colour[hidden]).max(axis=1)
        return hidden[off < COLOUR + COLOUR_NEAR]

    def _wait(self, before: NDArray[np.uint8], t: int, size: Array) -> None:
        """Nothing is seen; the next step goes on from the last frame that showed something."""
        if self._waits is None:
            self._waits, self.now.waiting = (before, t), self.now.seen
        self.motion = still_motion(self.now.at[:0], self.now.at[:0], size)
        self.now.seen = np.zeros_like(self.now.seen)

    def _light_of(self, view: FrameView, flown: Indices, moved: Array, still_at: Array) -> Array:
        """(3,) how bright the frame is over the first, by the points that are followed; as before where they disagree.

        Points without texture only tell where they agree closely: a plain thing that covers all of them does not.
        """
        now = self.now
        weak = np.flatnonzero(now.seen & ~now.strong & (now.layer == STILL)) if self.motion.known else flown[:0]
        still = flown[now.layer[flown] == STILL]
        for at, place, least, apart in ((still, moved, 12, 0.12), (weak, still_at, 40, 0.06)):
            shown, kept = view.light * view.colours(place[at]), self.now.patches.colour[at]
            usable = (shown.min(axis=1) > LEAST_COLOUR) & (kept.min(axis=1) > LEAST_COLOUR) & view.inside(place[at])
            usable &= (shown.max(axis=1) < MOST_COLOUR) & (kept.max(axis=1) < MOST_COLOUR)
            if usable.sum() < least:
                continue
            ratio = np.log(shown[usable] / kept[usable])
            light = np.median(ratio, axis=0)
            if np.median(np.abs(ratio - light)) < apart:
                return np.exp(np.where(np.abs(light).max() > LIGHT_CHANGE, light, 0)).astype(np.float32)
        return view.light

    def _asked_points(self, size: Array, voters: bool) -> Indices:
        """Points whose step is measured: what may move by itself, and enough others to tell the camera's motion."""
        near = self.now.inside > -NEAR_HAND
        able = self.now.seen & self.now.strong
        sure = able & (near | (self.now.layer != STILL))
        if not voters:
            return np.flatnonzero(sure)
        rest = np.flatnonzero(able & ~sure)
        cell = cell_of(self.now.at[rest], size)
        order = np.lexsort((-self.now.patches.corner_strength(rest), cell))
        cell = cell[order]
        rank = np.arange(len(cell)) - np.searchsorted(cell, cell)
        return np.concatenate([np.flatnonzero(sure), rest[order[rank < VOTERS_A_CELL]]])

    def _flow_step(self, pair: Pair, at: Indices) -> tuple[Indices, Array]:
        """Pyramidal LK on and back for points number `at`: who came back, and (N, 2) where to."""
        moved = self.now.at.copy()
        if not len(at):
            return at, moved
        origin = np.ascontiguousarray(self.now.at[at])
        guess = self.motion.move(origin) if self.motion is not None and self.motion.known else origin.copy()
        own = self.now.layer[at] != STILL
        guess[own] = origin[own] + self.now.speed[at][own]
        found, good = self._flow.there_and_back(pair, origin, guess)
        if good.mean() < FEW_CAME_BACK and len(at) > VOTERS_A_CELL:
            again = np.flatnonzero(~good)
            found[again], good[again] = self._flow.there_and_back(
                pair, origin[again], origin[again] + pair.flow_at(origin[again])
            )
        moved[at] = found
        return at[good], moved

    def _expect(self, still_at: Array, inside: list[Array], regions: HandRegions, t: int, to: int) -> Array:
        """(N, 2) where each point should be by what it moves with; the patches' warps go along."""
        expected = still_at.copy()
        apart = (self.now.layer == STILL) | (self.now.layer == OWN)
        if self.motion.known:
            stretch = self.motion.stretch(self.now.at[apart])
            self.now.warp[apart] = np.einsum("nab,nbc->nac", stretch, self.now.warp[apart])
        elif not self._by_flow:
            expected = self.now.at + self.now.speed
        for hand, layer in enumerate((LEFT, RIGHT)):
            mine = np.flatnonzero(self.now.layer == layer)
            carried = (self.now.layer == OWN) & (inside[hand] > -0.8)
            mine = np.concatenate([mine, np.flatnonzero(carried)])
            moved = regions.move(t, to, hand, self.now.at[mine])
            if len(mine) and moved is not None:
                expected[mine] = moved
                turn = regions.turn(t, to, hand)
                mine = mine[self.now.layer[mine] == layer]
                self.now.warp[mine] = np.einsum("ab,nbc->nac", turn, self.now.warp[mine])
        return expected.astype(np.float32)

    def _come_back(self, good: Mask, moved: Array, still_at: Array, expected: Array) -> None:
        """Points that move as the still scene does, and not as what they were taken for, belong to it."""
        if not self.motion.known:
            return
        at = np.flatnonzero(good & (self.now.layer != STILL))
        with_still = np.linalg.norm(moved[at] - still_at[at], axis=1) < STILL_PX
        apart = np.linalg.norm(expected[at] - still_at[at], axis=1) > OWN_MOTION_PX
        back = at[with_still & ((self.now.layer[at] == OWN) | apart)]
        self.now.layer[back] = STILL
        expected[back] = still_at[back]

    def _leaving(
        self, good: Mask, moved: Array, expected: Array, view: FrameView, regions: HandRegions, to: int
    ) -> Mask:
        """(N,) points that leave the still scene's motion: not to be seen where it would have them, and seen elsewhere,
        off the hands."""
        leaving = np.zeros(len(good), bool)
        at = np.flatnonzero(good & (self.now.layer == STILL))
        at = at[np.linalg.norm(moved[at] - expected[at], axis=1) > OWN_MOTION_PX]
        if len(at) and self.motion.known:
            patches = self.now.patches.part(at, view, expected[at], self.now.warp[at])
            stayed, went = (judge(patches, view, place[at], self.now.warp[at]) for place in (expected, moved))
            went_off = (went.likeness > LIKENESS) & (went.colour < PLAIN_COLOUR) & (stayed.likeness < LIKENESS)
            leaving[at[went_off & (regions.side(to, moved[at], HAND_REACH) == STILL)]] = True
        return leaving

    def _by_themselves(
        self, lost: Indices, expected: Array, pair: Pair, view: FrameView, regions: HandRegions, to: int, new: Array,
        accepted: Mask,
    ) -> None:  # fmt: skip
        """Points that are not where the still scene would have them, by a step of their own: near things that the
        cells' parallax does not tell apart, and what is moved far from a hand."""
        if len(lost) < MANY:
            return
        there, good = self._flow.roughly(pair, self.now.at[lost], expected[lost])
        start = expected.copy()
        start[lost] = there
        self._look(lost[good], start, start, 2, view, regions, to, new, accepted, LIKENESS_AGAIN, PLAIN_COLOUR)
        found = lost[accepted[lost]]
        off = np.linalg.norm(new[found] - expected[found], axis=1)
        self.now.layer[found[off > np.maximum(APART_PX, 3 * self._step[found])]] = OWN

    def _look(
        self, at: Indices, start: Array, prior: Array, rounds: int, view: FrameView, regions: HandRegions, to: int,
        new: Array, accepted: Mask, likeness: float = -1.0, colour: float = COLOUR,
    ) -> None:  # fmt: skip
        """Points number `at` looked for; those found are written to `new` (N, 2) and `accepted` (N,).

        likeness, colour: the least and the most of them, besides what `_accept` asks.
        """
        if not len(at):
            return
        prior_px = self._prior_px(at)
        patches = self.now.patches.part(at, view, start[at], self.now.warp[at])
        match = find(patches, view, start[at], self.now.warp[at], prior[at], prior_px, rounds)
        found = self._accept(
            at, match, np.linalg.norm(match.points - prior[at], axis=1) < 3 * prior_px + 1.5, regions, to
        )
        found &= view.inside(match.points) & (match.likeness > likeness) & (match.colour < colour)
        self.now.spread.found(at[found], patches.tensor[found], match.difference[found])
        new[at[found]], accepted[at[found]] = match.points[found], True
        self.now.likeness[at] = match.likeness

    def _step_px(self, good: Mask) -> Array:
        """(N,) standard deviation of one step by what each point moves with."""
        size = self.motion.size
        unknown = np.float32(FLOW_PX if self._by_flow else PRIOR * np.sqrt(size.prod()))
        still = self.motion.step_px(self.now.at) if self.motion.known else unknown
        seen = good & ((self.now.layer == OWN) | (not self.motion.known))
        step = np.where(self.now.layer == STILL, still, np.float32(STEP_APART_PX))
        return np.where(seen, np.float32(STEP_SEEN_PX), step)

    def _prior_px(self, at: Indices) -> Array:
        """(n,) standard deviation of where a point is expected."""
        unsure = self.motion.typical_px > UNSURE_PX
        still_px = np.clip(self._step[at], STILL_PRIOR_PX, FLOW_PX if unsure else STILL_PRIOR_PX).astype(np.float32)
        prior_px = np.where(self.now.layer[at] == STILL, still_px, np.float32(STEP_APART_PX))
        hidden = np.minimum(1 + 4 * self.now.hidden_s[at], 4).astype(np.float32)
        prior_px = np.where(self.now.seen[at], prior_px, hidden)
        weak = ~self.now.strong[at]
        prior_px[weak] = WEAK_PRIOR_PX
        return prior_px

    def _accept(self, at: Indices, match: Match, near: Mask, regions: HandRegions, to: int) -> Mask:
        """(n,) whose picture was found, where it may be."""
        strong, seen, layer = self.now.strong[at], self.now.seen[at], self.now.layer[at]
        inside = np.full((NUM_HANDS, len(at)), FAR)
        near_hand = np.flatnonzero(self.now.inside[at] > -NEAR_HAND)
        for hand in range(NUM_HANDS if len(near_hand) else 0):
            inside[hand, near_hand] = regions.depth(to, hand, match.points[near_hand])
        over_hand = inside.max(axis=0) > -HAND_REACH
        apart = (layer != LEFT) & (layer != RIGHT)
        late = (self.now.hidden_s[at] > 1) | (self._sigma[at] > PLACE_KNOWN_PX)
        needed = np.where(seen, LIKENESS, np.where(late, LIKENESS_LATE, LIKENESS_AGAIN))
        if not self.motion.known:
            needed = np.maximum(needed, LIKENESS_AGAIN)
        needed = np.where(apart & over_hand, LIKENESS_OVER_HAND, needed)
        contrast = np.minimum(self.now.patches.contrast[at], match.contrast) ** 2
        needed = np.maximum(needed * contrast / (contrast + 2 * SENSOR_GREY**2), LEAST_LIKENESS)
        alike = (match.likeness > needed) & (match.colour < COLOUR)
        plain = (match.difference < PLAIN_DIFFERENCE) & (match.colour < PLAIN_COLOUR) & ~(apart & over_hand)
        accepted = np.where(strong, alike, plain) & near
        for hand, name in enumerate((LEFT, RIGHT)):
            mine = layer == name
            accepted[mine] &= inside[hand, mine] > -HAND_KEEP
        return accepted

    def _settle(self, new: Array, accepted: Mask, view: FrameView, regions: HandRegions, to: int) -> None:
        self.now.speed = np.where(self.now.seen[:, None], new - self.now.at, np.float32(0))
        self.now.at, self.now.seen = new, accepted
        self.now.age_s += np.float32(self.step_s)
        # Without the camera's motion, where a hidden point should be is soon forgotten.
        aged_s = self.step_s * (1 if self.motion.known else UNKNOWN_STEPS)
        self._shot_s += aged_s
        self.now.hidden_s = np.where(self.now.seen, 0.0, self.now.hidden_s + aged_s)
        still = self.now.layer == STILL
        patience_s = np.where(still & self.now.strong, GIVE_UP_STILL_S, GIVE_UP_S)
        by_place = still & ~self.now.strong & (self._sigma < PLACE_KNOWN_PX)
        self.now.started &= (self.now.hidden_s <= patience_s) | by_place
        aged = np.flatnonzero(accepted & self.now.strong & (self.now.layer != STILL) & (self.now.likeness < RENEW))
        self.now.spread.renew(aged)
        self._take(aged, self.now.at[aged], view, regions, to)
