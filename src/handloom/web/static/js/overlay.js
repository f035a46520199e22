// Hands, tracks, held things and a body of one frame, drawn on a canvas over its image as draw/overlay.py of `handloom show` draws them; and the true hands.

export const HAND_COLORS = ["rgb(86 180 233)", "rgb(255 159 0)"]; // left, right: Okabe and Ito's palette
export const THING_COLORS = ["rgb(255 60 200)", "rgb(0 255 160)", "rgb(120 120 255)", "rgb(255 220 0)"];
const OTHER_COLOR = "rgb(110 110 110)";
const EDGE = "rgb(15 15 15)";
const LETTERS = ["L", "R"];
export const BODY_COLOR = "rgb(0 158 115)";
const TRUTH_COLOR = "white";
export const NUM_KEYPOINTS = 21;
export const SKELETON = [
  [0, 1], [0, 5], [5, 9], [9, 13], [13, 17], [0, 17],
  [1, 2], [2, 3], [3, 4], [5, 6], [6, 7], [7, 8], [9, 10], [10, 11], [11, 12], [13, 14], [14, 15], [15, 16], [17, 18], [18, 19], [19, 20],
];
/** Of the body's 33 keypoints: as geometry/bodies.py. */
export const BODY_BONES = [
  [11, 12], [23, 24], [9, 10], [0, 2], [0, 5], [2, 7], [5, 8],
  [11, 13], [13, 15], [15, 17], [15, 19], [15, 21], [11, 23], [23, 25], [25, 27], [27, 29], [29, 31],
  [12, 14], [14, 16], [16, 18], [16, 20], [16, 22], [12, 24], [24, 26], [26, 28], [28, 30], [30, 32],
];
const SEEN_VISIBILITY = 0.5; // below it the network guesses where a keypoint is
const TAIL_FRAMES = 8;
const TAIL_SHARE = 0.09; // longest tail, as a share of the image's short side
const STILL_SHARE = 0.004; // a shorter tail is drawn as a dot

/** What the drawing of a clip holds, in words: `[colour or null, words, more words]`. */
export function legendOf({ facts, arrays, tracks, doubts, truth }) {
  const { hand_visible: visible, hand_infilled: filled, hand_confidence: confidence, other_hand_frame: others } = arrays;
  const seen = [0, 1].filter((hand) => visible?.data.some((value, n) => n % 2 === hand && value));
  const things = [...new Set((facts.segments ?? []).map((one) => one.thing).filter(Boolean))];
  return [
    ...seen.map((hand) => [HAND_COLORS[hand], hand ? "right hand" : "left hand", "of the person who wears the camera, or is seen"]),
    seen.length && confidence && [null, "0.9: confidence", "how sure the network is of the hand, 0 to 1"],
    seen.some((hand) => doubts[hand].size) && [null, "?: side or place in doubt", "the flags below the image tell which of them"],
    filled?.data.some(Boolean) && [null, "filled: no hand seen, interpolated", "over a short gap; its joints are dark"],
    others?.data.length && [OTHER_COLOR, "somebody else's hand, not counted", "or one that is taken for somebody else's: it is in no number of quality and in no flag"],
    ...things.map((name) => [thingColor(name), name.replace("_", " "), "held by a hand"]),
    tracks && [null, "points: tracks", "their colour is where they begin in the image"],
    arrays.body_keypoints_px && [BODY_COLOR, "body", "of the person who is seen"],
    truth && [null, "dashed: the truth", "of a rendered clip"],
  ].filter(Boolean);
}

/** The 2D context of a canvas that the processor draws: 1,500 short lines cost it a few ms, and much more a graphics chip that is emulated. */
export const flat = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

/** Draw a frame's layers on a cleared canvas. layers: {hands, tracks, things, body, others, truth}. */
export function drawOverlay(canvas, clip, frame, layers) {
  const context = flat(canvas);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.lineCap = context.lineJoin = "round";
  const at = {
    context,
    short: Math.min(canvas.width, canvas.height),
    unit: Math.max(0.5, Math.min(canvas.width, canvas.height) / 360),
    // (0, 0) is the centre of the source's first pixel, and the corner of the canvas.
    x: (x) => ((x + 0.5) * canvas.width) / clip.width,
    y: (y) => ((y + 0.5) * canvas.height) / clip.height,
  };
  if (layers.tracks) drawTracks(at, clip, frame);
  if (layers.things) drawThings(at, clip, frame);
  if (layers.body) drawBody(at, clip, frame);
  if (layers.others) drawOthers(at, clip, frame);
  if (layers.hands) drawHands(at, clip, frame);
  if (layers.truth) drawTruth(at, clip, frame);
}

function drawTracks({ context, unit, short, x, y }, { tracks }, frame) {
  if (!tracks) return;
  const grid = tracks.best(frame);
  const path = []; // newest first
  for (let f = frame; f >= Math.max(0, frame - TAIL_FRAMES + 1); f--) path.push(tracks.at(f, grid).xy);
  const now = path[0];
  context.lineWidth = Math.max(1, 0.8 * unit);
  context.globalAlpha = 0.65;
  for (let n = 0; n < tracks.num; n++) {
    if (Number.isNaN(now[2 * n])) continue;
    const tail = [x(now[2 * n]), y(now[2 * n + 1])];
    let length = 0;
    for (let back = 1; back < path.length; back++) {
      const [px, py] = [x(path[back][2 * n]), y(path[back][2 * n + 1])];
      const step = Math.hypot(px - tail[tail.length - 2], py - tail[tail.length - 1]);
      if (!(length + step <= short * TAIL_SHARE)) break;
      length += step;
      tail.push(px, py);
    }
    if (length < short * STILL_SHARE) continue;
    context.strokeStyle = tracks.styles[n];
    context.beginPath();
    context.moveTo(tail[0], tail[1]);
    for (let k = 2; k < tail.length; k += 2) context.lineTo(tail[k], tail[k + 1]);
    context.stroke();
  }
  context.globalAlpha = 1;
  const radius = Math.max(0.9 * unit, 0.6);
  for (let n = 0; n < tracks.num; n++) {
    if (Number.isNaN(now[2 * n])) continue;
    context.fillStyle = tracks.styles[n];
    context.fillRect(x(now[2 * n]) - radius, y(now[2 * n + 1]) - radius, 2 * radius, 2 * radius); // 1,500 squares cost less than 1,500 arcs
  }
}

/** Colour of `object_1`, `object_2`, ... */
export function thingColor(name) {
  return THING_COLORS[(Number(name.slice("object_".length)) - 1) % THING_COLORS.length];
}

function drawThings({ context, short, x, y }, { facts, tracks }, frame) {
  if (!tracks) return;
  const radius = Math.max(2, short / 150);
  for (const segment of facts.segments ?? []) {
    if (!segment.thing || !(segment.start_frame <= frame && frame < segment.end_frame)) continue;
    context.fillStyle = thingColor(segment.thing);
    for (const n of segment.object_tracks ?? []) {
      const at = frame * tracks.num + n;
      if (!tracks.visible[at]) continue;
      context.beginPath();
      context.arc(x(tracks.points[2 * at]), y(tracks.points[2 * at + 1]), radius, 0, 7);
      context.fill();
    }
  }
}

/** Bones between keypoints that the network has seen, not guessed. */
function drawBody(at, { arrays, length }, frame) {
  const { body_keypoints_px: keypoints, body_keypoint_visibility: visibility } = arrays;
  if (!keypoints || !visibility) return;
  const num = visibility.data.length / length;
  const points = pointsOf(at, keypoints.data, frame, num).map((point, k) => (visibility.data[num * frame + k] >= SEEN_VISIBILITY ? point : null));
  drawBones(at, points, BODY_BONES, [[3.5, EDGE], [1.8, BODY_COLOR]]);
}

/** True hands that are in the image, dashed. */
function drawTruth(at, { truth }, frame) {
  const { truth_keypoints_px: keypoints, truth_present: present } = truth?.arrays ?? {};
  if (!keypoints) return;
  for (const hand of [0, 1]) {
    const number = 2 * frame + hand;
    if (!present.data[number]) continue;
    const points = pointsOf(at, keypoints.data, number, NUM_KEYPOINTS);
    at.context.setLineDash([5 * at.unit, 4 * at.unit]);
    drawBones(at, points, SKELETON, [[2.6, EDGE], [1.4, TRUTH_COLOR]]);
    at.context.setLineDash([]);
  }
}

/** Lines between known points. strokes: [width in units, colour], the lowest first. */
function drawBones({ context, unit }, points, bones, strokes) {
  for (const [width, tint] of strokes) {
    context.lineWidth = Math.max(1, width * unit);
    context.strokeStyle = tint;
    context.beginPath();
    for (const [a, b] of bones) {
      if (!points[a] || !points[b]) continue;
      context.moveTo(...points[a]);
      context.lineTo(...points[b]);
    }
    context.stroke();
  }
}

function drawOthers(at, { arrays }, frame) {
  const { other_hand_frame: frames, other_hand_keypoints_px: keypoints } = arrays;
  if (!frames || !keypoints) return;
  frames.data.forEach((of, n) => {
    if (of !== frame) return;
    const points = pointsOf(at, keypoints.data, n, NUM_KEYPOINTS);
    drawSkeleton(at, points, OTHER_COLOR, false);
  });
}

function drawHands(at, { arrays, doubts }, frame) {
  const { hand_keypoints_px: keypoints, hand_visible: visible, hand_infilled: filled, hand_confidence: confidence } = arrays;
  if (!keypoints || !visible) return;
  const labels = [];
  for (const hand of [0, 1]) {
    const number = 2 * frame + hand;
    const infilled = !!filled?.data[number];
    const points = pointsOf(at, keypoints.data, number, NUM_KEYPOINTS);
    if (!(visible.data[number] || infilled) || !points.some(Boolean)) continue;
    drawSkeleton(at, points, HAND_COLORS[hand], infilled);
    const score = confidence?.data[number];
    const words = [LETTERS[hand] + (doubts[hand].has(frame) ? "?" : ""), Number.isFinite(score) ? score.toFixed(2) : "", infilled ? "filled" : ""];
    labels.push([points.filter(Boolean), words.filter(Boolean).join(" "), HAND_COLORS[hand]]);
  }
  drawLabels(at, labels); // later, so that no skeleton covers them
}

/** `num` places [x, y] on the canvas of the hand or body with this number in (.., num, 2); null where unknown. */
function pointsOf({ x, y }, data, number, num) {
  return Array.from({ length: num }, (_, k) => {
    const first = 2 * (number * num + k);
    return Number.isFinite(data[first]) && Number.isFinite(data[first + 1]) ? [x(data[first]), y(data[first + 1])] : null;
  });
}

/** Bones with a dark edge; white joints, dark where the hand was filled in. A small hand has thinner lines. */
function drawSkeleton({ context, unit }, points, color, infilled) {
  const known = points.filter(Boolean);
  if (!known.length) return;
  const [left, top, right, bottom] = bounds(known);
  const thin = Math.min(unit, Math.max(0.35 * unit, Math.hypot(right - left, bottom - top) / 75));
  drawBones({ context, unit: thin }, points, SKELETON, [[Math.max(2 / thin, 4.5), EDGE], [2.5, color]]);
  for (const [radius, tint] of [[3.2, EDGE], [2.6, color], [1.3, infilled ? EDGE : "white"]]) {
    context.fillStyle = tint;
    for (const [px, py] of known) {
      context.beginPath();
      context.arc(px, py, radius * thin, 0, 7);
      context.fill();
    }
  }
}

function bounds(points) {
  const xs = points.map(([px]) => px);
  const ys = points.map(([, py]) => py);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** Each label above its hand, or below or beside it where it covers less of hands and other labels. labels: [points, text, colour]. */
function drawLabels({ context, unit }, labels) {
  const size = Math.max(10, 13 * unit);
  const { width, height } = context.canvas;
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const taken = labels.map(([points]) => bounds(points));
  labels.forEach(([, text, color], number) => {
    const [left, top, right, bottom] = taken[number];
    const [wide, high, gap] = [context.measureText(text).width + size / 2, 1.45 * size, 0.3 * size];
    const middle = [(left + right - wide) / 2, (top + bottom - high) / 2];
    const corners = [[middle[0], top - high - gap], [middle[0], bottom + gap], [right + gap, middle[1]], [left - wide - gap, middle[1]]];
    const boxes = corners.map(([x, y]) => {
      const at = [Math.min(Math.max(x, 0), Math.max(0, width - wide)), Math.min(Math.max(y, 0), Math.max(0, height - high))];
      return [...at, at[0] + wide, at[1] + high];
    });
    const covered = boxes.map((box) => taken.reduce((sum, other) => sum + overlap(box, other), 0));
    const box = boxes[covered.indexOf(Math.min(...covered))];
    taken.push(box);
    const place = [box[0] + size / 4, (box[1] + box[3]) / 2];
    context.lineWidth = size / 4;
    context.strokeStyle = EDGE;
    context.strokeText(text, ...place);
    context.fillStyle = color;
    context.fillText(text, ...place);
  });
}

/** Area that two boxes (x0, y0, x1, y1) share. */
function overlap(a, b) {
  return Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
}
