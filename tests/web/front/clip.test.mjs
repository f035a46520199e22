// What the clip page computes, without a browser: `node --test`. Run by test_pages.py.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.Element = class {};
globalThis.cancelAnimationFrame = () => {};
globalThis.window = { location: new URL("http://here/clip/a"), history: {}, addEventListener() {} };

const js = new URL("../../../src/handloom/web/static/js/", import.meta.url);
const [row, timeline, plane, compare, clipPage, clock_, cameras, space, figures, scene, overlay] = await Promise.all(
  ["row", "timeline", "timeplane", "differences", "clip", "clock", "cameras", "space", "figures", "scene", "overlay"].map((name) => import(new URL(`${name}.js`, js))),
);
const { PerspectiveCamera, Vector3 } = await import(new URL("../vendor/handloom-three.js", js));
const facts = (changes = {}) => ({ clip_id: "a", frame_s: [2, 2.1, 2.2, 2.4], source: [640, 360], flags: [], segments: [], ...changes });

test("a time shows the last frame that is not after it; a video's time the nearest", () => {
  const times = Float64Array.of(0, 0.1, 0.2, 0.4);
  for (const [n, at_s] of times.entries()) {
    assert.equal(row.indexAt(times, at_s), n);
    assert.equal(row.indexAt(times, at_s + 0.05), n);
    assert.equal(row.nearestIndex(times, at_s - 0.04), n);
    assert.equal(row.nearestIndex(times, at_s + 0.04), n);
  }
  assert.equal(row.indexAt(times, -1), 0);
  assert.equal(row.indexAt(times, 9), 3);
  assert.equal(row.indexAt([], 1), 0);
});

test("a clip's times begin at its first frame, and its last frame lasts as long as the one before", () => {
  const clip = new row.Clip(facts());
  assert.deepEqual([...clip.times].map((at) => Math.round(at * 10)), [0, 1, 2, 4]);
  assert.ok(Math.abs(clip.duration_s - 0.6) < 1e-9);
  assert.equal(new row.Clip(facts({ frame_s: [] })).duration_s, 0);
});

test("flags that doubt a hand are told by frame and hand; others are not", () => {
  const flags = [
    { name: "HAND_UNSUPPORTED_LEFT", frames: [1] },
    { name: "HAND_OFF_TRACKS_RIGHT", frames: [2, 3] },
    { name: "HAND_JUMP_LEFT", frames: [0] },
  ];
  assert.deepEqual(new row.Clip(facts({ flags })).doubts.map((set) => [...set]), [[1], [2, 3]]);
});

test("what is drawn is told in words, and what is not drawn is not", () => {
  const told = (changes, arrays) => {
    const clip = new row.Clip(facts(changes));
    clip.add(arrays);
    return overlay.legendOf(clip).map(([, words]) => words.split(/[:,]/)[0]);
  };
  const visible = { hand_visible: { data: Uint8Array.of(0, 0, 1, 0, 1, 0, 0, 0) }, hand_confidence: { data: new Float32Array(8) } };
  assert.deepEqual(told({}, visible), ["left hand", "0.9"]);
  const flags = [{ name: "HAND_SIDE_UNSURE_LEFT", frames: [1] }, { name: "HAND_UNSUPPORTED_RIGHT", frames: [0] }];
  assert.deepEqual(told({ flags }, { ...visible, other_hand_frame: { data: Int32Array.of(3) } }), ["left hand", "0.9", "?", "somebody else's hand"]);
  assert.deepEqual(told({ segments: [{ thing: "object_1" }, { thing: null }, { thing: "object_1" }] }, {}), ["object 1"]);
  assert.deepEqual(["HAND_OFF_TRACKS_LEFT", "HANDS_OVERLAP", "NO_HANDS"].map(timeline.flagWords), ["Left hand: off tracks", "Hands overlap", "No hands"]);
});

test("frames with a flag are joined where they touch, and nothing is lost", () => {
  const [one] = timeline.flagRows([{ name: "DARK", frames: [0, 1, 2, 5, 7, 8] }, { name: "CUT", frames: [] }]);
  assert.deepEqual(one.runs, [[0, 3], [5, 6], [7, 9]]);
  assert.equal(one.runs.reduce((sum, [from, to]) => sum + to - from, 0), one.frames);
  assert.deepEqual(timeline.flagRows(null), []);
});

test("round steps are 1, 2 or 5 times a power of ten, and never too small", () => {
  for (let least = 0.0013; least < 2000; least *= 1.37) {
    const step = plane.roundStep(least);
    assert.ok(step >= least - 1e-9 && step < 2.51 * least, `${least} ${step}`);
    assert.match(step.toPrecision(1).replace(/[0.]|e.*/g, ""), /^[125]$/);
  }
});

test("keys go to the starts of actions, on the clip's frames, and to its ends", () => {
  const clip = new row.Clip(facts({ segments: [{ start_s: 2.2 }, { start_s: 2.1 }] }));
  const at = (from, way) => Math.round(10 * clipPage.nextStart(clip.facts.segments, clip, from, way));
  assert.deepEqual([at(0, 1), at(0.1, 1), at(0.2, 1)], [1, 2, 4]);
  assert.deepEqual([at(0.4, -1), at(0.2, -1), at(0.1, -1)], [2, 1, 0]);
  assert.equal(clipPage.nextStart(null, clip, 0.2, -1), 0);
});

test("numbers of two clips stand beside each other; what neither knows is left out", () => {
  const rows = compare.differences([{ name: "blur", value: 1 }, { name: "hand_jitter_px", value: null }], [{ name: "blur", value: 3 }, { name: "dark", value: 2 }]);
  assert.deepEqual(rows.map(({ name, a, b }) => [name, a, b]), [["blur", 1, 3], ["dark", null, 2]]);
});

test("steps of the clock stay on the first clip's frames and inside the clips", () => {
  const clock = new clock_.Clock();
  const [first, second] = [new row.Clip(facts()), new row.Clip(facts({ clip_id: "b", frame_s: [0, 1] }))];
  clock.follow([first, second]);
  assert.equal(clock.duration_s, 2);
  clock.step(2);
  assert.equal(clock.at.value, first.times[2]);
  clock.step(Infinity);
  assert.equal(clock.at.value, first.times[3]);
  clock.seek(99);
  assert.equal(clock.at.value, 1);
  clock.step(-Infinity);
  assert.equal(clock.at.value, 0);
});

test("a clock at its end begins again, or stops where it must not", () => {
  const clock = new clock_.Clock();
  clock.follow([new row.Clip(facts())]);
  clock.seek(0.35);
  clock.advance(0.2);
  assert.ok(Math.abs(clock.at.value - 0.4) < 1e-9, "the last frame is shown to its end");
  clock.advance(0.2);
  assert.equal(clock.at.value, 0);
  clock.loop.value = false;
  clock.advance(5);
  assert.ok(Math.abs(clock.at.value - 0.4) < 1e-9);
  assert.equal(clock.playing.value, false);
});

test("what differs between two nested tables is named by its path, and nothing else is", () => {
  const [a, b] = [{ hands: { scale: 0.95, backend: "x" }, tracks: [1, 2], gone: 1 }, { hands: { scale: 1.05, backend: "x" }, tracks: [1, 2], stages: { body: { on: true } } }];
  assert.deepEqual(compare.changes(a, b), [
    { name: "hands.scale", a: 0.95, b: 1.05 },
    { name: "gone", a: 1, b: undefined },
    { name: "stages.body.on", a: undefined, b: true },
  ]);
  assert.deepEqual(compare.changes(b, b), []);
  assert.equal(compare.settingWords("hands.min_tracking_confidence"), "hands: min tracking confidence");
  assert.deepEqual(compare.stageChanges([{ name: "a", key: "1" }, { name: "b", key: "2" }], [{ name: "a", key: "1" }, { name: "b", key: "3" }, { name: "c", key: "4" }]), ["b", "c"]);
  assert.deepEqual(compare.factChanges(facts({ num_frames: 4 }), facts({ num_frames: 5 })), [{ name: "frames", a: 4, b: 5 }]);
});

const MATRIX = { data: Float32Array.of(500, 0, 320, 0, 500, 180, 0, 0, 1) };
const seenBy = (arrays, names = []) => {
  const clip = new row.Clip(facts({ arrays: names }));
  clip.add({ camera_matrix: MATRIX, ...arrays });
  return clip;
};

test("the camera's pyramid ends at the image's corners; under a lens that distorts along what it sees", () => {
  const lines = cameras.frustumLines(seenBy({}), 2);
  assert.equal(lines.length, 6 * 8);
  const corners = new Set();
  for (let n = 0; n < lines.length; n += 3) {
    const [x, y, z] = lines.slice(n, n + 3);
    if (z) corners.add([(500 * x) / z + 320, (500 * y) / z + 180].map((value) => value.toFixed(1)).join());
  }
  assert.deepEqual([...corners].sort(), ["-0.5,-0.5", "-0.5,359.5", "639.5,-0.5", "639.5,359.5"]);
  const ring = Float32Array.from({ length: 24 }, (_, n) => n);
  ring[3] = NaN; // the second direction is not seen
  const bent = cameras.frustumLines(seenBy({ image_border_rays: { data: ring } }), 2);
  assert.equal(bent.length, 6 * (6 + 4), "two lines of the ring are left out");
  assert.ok(bent.every(Number.isFinite));
});

test("the view through the camera is as high as what the lens sees, as far as a flat image can", () => {
  assert.equal(cameras.slopeOf(seenBy({})), 180 / 500);
  const seen = (top, bottom) => {
    const rays = new Float32Array(24);
    rays.set(top, 3);
    rays.set(bottom, 15);
    return cameras.slopeOf(seenBy({ image_border_rays: { data: rays } }));
  };
  assert.ok(Math.abs(seen([0, -0.6, 0.8], [0, 0.1, 1]) - 0.75) < 1e-6);
  const degrees = (slope) => Math.round((Math.atan(slope) * 180) / Math.PI);
  assert.equal(degrees(seen([0, -1, -0.2], [0, 0.1, 1])), 70);
  assert.equal(degrees(seen([NaN, NaN, NaN], [0, 0.1, 1])), 70);
});

test("points are lifted by their depth; under a lens that distorts they are those that the server lifted", async () => {
  const pose = cameras.posesOf(Float32Array.of(1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1), 2)(0); // one unit to the right: 2 m
  const plain = cameras.lifter(seenBy({}));
  assert.deepEqual(plain(0, 820, 180, 3, pose, false), [5, 0, 3]);
  assert.equal(plain(0, 820, 180, NaN, pose, false), null);
  assert.equal(plain(0, 820, 180, 3, null, false), null);
  const lifted = { track_points_cam_m: { data: Float32Array.of(1, 2, 3, NaN, NaN, NaN) }, regrid_points_cam_m: { data: Float32Array.of(0, 0, 4) } };
  const bent = cameras.lifter(seenBy(lifted, ["camera_distortion"]));
  assert.deepEqual(bent(0, 0, 0, 3, pose, false), [3, 2, 3]);
  assert.deepEqual(bent(0, 0, 0, 4, pose, true), [2, 0, 4]);
  assert.equal(bent(1, 0, 0, 3, pose, false), null);
});

test("a box around most places leaves strays out, and nothing is a box around nothing", () => {
  const values = Array.from({ length: 303 }, (_, n) => (n < 3 ? 99 : n % 3));
  assert.deepEqual(space.most(values, 0.04), [0, 1, 2, 0, 1, 2]);
  assert.deepEqual(space.most([NaN, NaN, NaN], 0.04), []);
  assert.deepEqual(space.amid([...values, NaN, 0, 0], 0.04), Array.from({ length: 300 }, (_, n) => n % 3));
  assert.deepEqual(space.amid([NaN, NaN, NaN], 0.04), []);
});

test("an eye has all places in sight, from the direction that is asked for, and cannot stand nearer", () => {
  const slopes = [0.6, 0.4];
  for (let seed = 1; seed <= 20; seed++) {
    const random = (n) => (((Math.sin(12.9898 * n + 78.233 * seed) * 43758.5453) % 1) + 1) % 1; // in 0 to 1, the same each time
    const places = Array.from({ length: 30 }, (_, n) => 5 * seed + random(n) * (n % 3 === 1 ? 0.2 : seed));
    const from = seed === 20 ? [0, 1, 1e-4] : [random(31) - 0.5, random(32) - 0.3, random(33) + 0.1];
    const { at, target } = space.standFor(places, from, slopes);
    const back = at.map((value, k) => value - target[k]);
    const length = Math.hypot(...from);
    back.forEach((value, k) => assert.ok(Math.abs(value / Math.hypot(...back) - from[k] / length) < 1e-6));
    const eye = new PerspectiveCamera((360 / Math.PI) * Math.atan(slopes[1]), slopes[0] / slopes[1], 1e-3, 1e4);
    eye.position.set(...at);
    eye.lookAt(new Vector3(...target));
    eye.updateMatrixWorld();
    const seen = [];
    for (let n = 0; n < places.length; n += 3) seen.push(new Vector3().fromArray(places, n).project(eye));
    const farthest = Math.max(...seen.flatMap(({ x, y }) => [Math.abs(x), Math.abs(y)]));
    assert.ok(Math.abs(farthest - 1) < 1e-3, `${seed}: ${farthest}`);
    assert.ok(seen.every(({ z }) => z < 1), "none is behind the eye");
  }
  const { at, target } = space.standFor([1, 2, 3], [0, 0, 1], slopes);
  assert.ok(at[2] > 3 && target[2] === 3, "one place alone");
});

test("the 3D view tells what it shows: tracks without a depth are not among it", () => {
  const hands = { data: new Float32Array(4 * 2 * 63).fill(1) };
  const points = { data: new Float32Array(4 * 1 * 2).fill(1), shape: [4, 1, 2] };
  const told = (arrays) => {
    const clip = new row.Clip(facts({ camera: { path_reason: "few_tracks" } }));
    clip.add(arrays);
    return scene.caption(clip, null);
  };
  assert.equal(told({ hand_keypoints_cam_m: hands }), "No camera path is known (few tracks): hands are shown in the camera's frame.");
  assert.match(told({ hand_keypoints_cam_m: hands, track_points_px: points }), /: hands are shown .* The tracks have no depth: they are on the image alone\.$/);
  const deep = { track_points_px: points, track_depth_m: { data: Float32Array.of(NaN, 0, 0.5, NaN) } };
  assert.match(told({ hand_keypoints_cam_m: hands, ...deep }), /: hands and tracks whose depth is known are shown in the camera's frame\.$/);
  assert.match(told({ track_points_px: points }), /: the camera is shown/);
});

test("a hand is whole or not shown", () => {
  const values = new Float32Array(2 * 2 * 63).fill(1);
  values[63 + 5] = NaN; // of the right hand in frame 0
  assert.equal(figures.handAt(values, 0, 0).length, 63);
  assert.equal(figures.handAt(values, 0, 1), null);
  assert.equal(figures.handAt(values, 2, 0), null);
  assert.equal(figures.handAt(undefined, 0, 0), null);
});
