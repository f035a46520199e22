// One clip as its page holds it: what /api/clip says, arrays as typed arrays, stored frames in memory.
import { bytes, readArrays } from "./api.js";

export const ARRAYS = [
  "hand_keypoints_px", "hand_keypoints_cam_m", "hand_keypoints_world_m", "hand_visible", "hand_infilled", "hand_confidence",
  "hand_speed_m_s", "world_from_camera", "camera_matrix", "image_border_rays", "things", "things_box_m", "other_hand_frame", "other_hand_keypoints_px",
  "body_keypoints_px", "body_keypoint_visibility", "body_keypoints_cam_m",
];
const FLAT_TRACKS = ["track_points_px", "track_visible", "regrid_query_frame", "regrid_frame", "regrid_visible", "regrid_points_px"];
export const TRACK_ARRAYS = [...FLAT_TRACKS, "track_depth_m", "track_points_world_m", "track_points_cam_m", "regrid_depth_m", "regrid_points_cam_m"];
export const TRACKS_LIMIT = 256 << 20; // bytes of tracks held in memory
/** What of the tracks is loaded: all; of long clips only what the image needs. */
export const TRACK_CHOICES = [TRACK_ARRAYS, FLAT_TRACKS];
/** Index of the last time that is not after `at_s`; 0 before the first. times: ascending. */
export function indexAt(times, at_s) {
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= at_s + 1e-6) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Index of the time nearest to `at_s`. */
export function nearestIndex(times, at_s) {
  const before = indexAt(times, at_s);
  return before + 1 < times.length && times[before + 1] - at_s < at_s - times[before] ? before + 1 : before;
}

export class Clip {
  /** facts: the answer of /api/clip. */
  constructor(facts) {
    this.facts = facts;
    this.id = facts.clip_id;
    this.frame_s = Float64Array.from(facts.frame_s ?? []);
    this.first_s = this.frame_s[0] ?? 0;
    this.times = this.frame_s.map((at) => at - this.first_s); // seconds since the first frame
    this.length = this.frame_s.length;
    [this.width, this.height] = facts.source ?? facts.size ?? [16, 9];
    this.arrays = {};
    this.truth = null; // what /api/truth says, with its arrays, once it was asked for
    this.doubts = doubts(facts.flags);
  }

  /** Seconds that the clip takes on a clock: the last frame is shown as long as the one before it. */
  get duration_s() {
    const { times, length } = this;
    return length < 2 ? 0 : 2 * times[length - 1] - times[length - 2];
  }

  add(arrays) {
    Object.assign(this.arrays, arrays);
    if (arrays.track_points_px) this.tracks = new Tracks(this);
  }

  /** Whether positions in the world are known: there is a camera path. */
  get hasWorld() {
    const poses = this.arrays.world_from_camera?.data;
    return !!poses && poses.some(Number.isFinite);
  }
}

/** {frame: Set of hands} whose side or position the frame's flags doubt. */
function doubts(flags) {
  const found = [new Set(), new Set()];
  for (const { name, frames } of flags ?? []) {
    const hand = /^HAND_(?:SIDE_UNSURE|UNSUPPORTED|OFF_TRACKS)_(LEFT|RIGHT)$/i.exec(name)?.[1];
    if (hand) for (const frame of frames) found[hand.toUpperCase() === "LEFT" ? 0 : 1].add(frame);
  }
  return found;
}

/** The tracks of a clip. Where later grids are stored, a frame shows the grid with most visible points, as `handloom show` does. */
export class Tracks {
  constructor({ arrays, width, height, length }) {
    const { track_points_px: points, track_visible: visible } = arrays;
    this.num = points.shape[1];
    this.points = points.data;
    this.visible = visible?.data ?? new Uint8Array(length * this.num);
    this.world = arrays.track_points_world_m?.data;
    this.depth = arrays.track_depth_m?.data;
    this.colors = trackColors(this.points, this.num, length, width, height);
    this.styles = Array.from({ length: this.num }, (_, n) => `rgb(${this.colors.subarray(3 * n, 3 * n + 3).join(" ")})`);
    this.grids = laterGrids(arrays);
    this.numGrid = arrays.regrid_visible?.shape[1] ?? 0;
    this.regrid = { visible: arrays.regrid_visible?.data, points: arrays.regrid_points_px?.data, depth: arrays.regrid_depth_m?.data };
    this.bests = new Map();
    this.entries = new Map();
  }

  /** The later grid shown in a frame; null: the first frame's. Of several with as many points, the newest. */
  best(frame) {
    if (!this.grids.length) return null;
    if (this.bests.has(frame)) return this.bests.get(frame);
    const count = (values, start) => {
      let sum = 0;
      for (let n = start; n < start + this.numGrid; n++) sum += values[n];
      return sum;
    };
    let found = null;
    let most = count(this.visible, frame * this.num);
    for (const grid of this.grids) {
      const entry = frame - grid.firstFrame;
      if (entry < 0 || entry >= grid.length) continue;
      const seen = count(this.regrid.visible, (grid.first + entry) * this.numGrid);
      if (seen >= most) [found, most] = [grid, seen];
    }
    this.bests.set(frame, found);
    return found;
  }

  /**
   * {xy: (2N,), depth: (N,) or null, number: (N,)} of a frame, in source pixels; NaN where a point is not visible. number: a
   * point's place in the flat arrays, of later grids (the first `numGrid` where `grid` is one) in `regrid_...`.
   */
  at(frame, grid) {
    const key = `${frame} ${grid?.first ?? ""}`;
    const kept = this.entries.get(key);
    if (kept) return kept;
    const xy = new Float32Array(2 * this.num).fill(NaN);
    const depth = this.depth || this.regrid.depth ? new Float32Array(this.num).fill(NaN) : null;
    const number = new Int32Array(this.num);
    const ownFrom = grid ? this.numGrid : 0;
    for (let n = ownFrom; n < this.num; n++) {
      const at = frame * this.num + n;
      if (!this.visible[at]) continue;
      number[n] = at;
      xy[2 * n] = this.points[2 * at];
      xy[2 * n + 1] = this.points[2 * at + 1];
      if (depth && this.depth) depth[n] = this.depth[at];
    }
    const entry = grid ? frame - grid.firstFrame : -1;
    if (grid && entry >= 0 && entry < grid.length) this.fill(grid.first + entry, xy, depth, number);
    if (this.entries.size >= 48) this.entries.delete(this.entries.keys().next().value);
    const value = { xy, depth, number };
    this.entries.set(key, value);
    return value;
  }

  fill(entry, xy, depth, numbers) {
    const { visible, points, depth: far } = this.regrid;
    let number = this.firstSeen(entry);
    for (let n = 0; n < this.numGrid; n++) {
      if (!visible[entry * this.numGrid + n]) continue;
      xy[2 * n] = points[2 * number];
      xy[2 * n + 1] = points[2 * number + 1];
      if (depth && far) depth[n] = far[number];
      numbers[n] = number;
      number++;
    }
  }

  /** Number of visible points of later grids before an entry: their positions are stored for visible points alone. */
  firstSeen(entry) {
    if (!this.seenBefore) {
      const { visible } = this.regrid;
      const num = visible.length / this.numGrid;
      this.seenBefore = new Int32Array(num + 1);
      for (let e = 0, sum = 0; e < num; e++) {
        for (let n = 0; n < this.numGrid; n++) sum += visible[e * this.numGrid + n];
        this.seenBefore[e + 1] = sum;
      }
    }
    return this.seenBefore[entry];
  }
}

/** [{first: index of its first entry, length, firstFrame}] of the row's later grids, in order of time. */
function laterGrids({ regrid_query_frame: begun, regrid_frame: frames, regrid_visible: visible, regrid_points_px: points }) {
  if (!begun || !frames || !visible || !points) return [];
  const found = [];
  for (let r = 0; r < begun.data.length; r++) {
    if (!r || begun.data[r] !== begun.data[r - 1]) found.push({ first: r, length: 0, firstFrame: frames.data[r] });
    found[found.length - 1].length++;
  }
  return found;
}

/** (3N,) RGB by the first known position of each track: hue runs along x, brightness along y; grey where none is known. */
export function trackColors(points, num, length, width, height) {
  const colors = new Uint8Array(3 * num).fill(128);
  for (let n = 0; n < num; n++) {
    let frame = 0;
    while (frame < length && !Number.isFinite(points[2 * (frame * num + n)])) frame++;
    if (frame === length) continue;
    const at = 2 * (frame * num + n);
    const x = Math.min(Math.max(points[at] / width, 0), 1);
    const y = Math.min(Math.max(points[at + 1] / height, 0), 1);
    colors.set(rgb(x * 300, 165 / 255, 1 - y / 3), 3 * n);
  }
  return colors;
}

/** Hue in degrees, saturation and value in 0 to 1 as 8-bit RGB. */
function rgb(hue, saturation, value) {
  const part = (n) => {
    const k = (n + hue / 60) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [part(5), part(3), part(1)];
}

const FRAMES_LIMIT = 256 << 20; // bytes of JPEG held in memory; above it, frames are fetched one by one
const BITMAPS_LIMIT = 128 << 20; // bytes of decoded images held

/** The stored frames of a clip: JPEGs in memory, decoded when they are asked for; the last ones stay decoded. */
export class Frames {
  constructor(id, version) {
    this.params = { id, v: version };
    this.blobs = null;
    this.bitmaps = new Map(); // frame -> ImageBitmap, the promise of one, or null: none is stored; oldest use first
  }

  async load(options = {}) {
    const buffer = await bytes("/media/frames", this.params, { ...options, limit: FRAMES_LIMIT });
    if (!buffer) return; // too many for memory: each is fetched when it is shown
    this.blobs = [];
    for (const [n, { data }] of Object.entries(readArrays(buffer))) this.blobs[Number(n)] = new Blob([data], { type: "image/jpeg" });
  }

  /** The decoded frame if it is there, else null, and `then` is called when it is (or with the error). */
  get(n, then) {
    const kept = this.bitmaps.get(n);
    if (kept !== undefined) {
      this.bitmaps.delete(n);
      this.bitmaps.set(n, kept);
      if (!(kept instanceof Promise)) return kept;
      kept.then(() => then?.(), () => {});
      return null;
    }
    const promise = this.decode(n);
    this.bitmaps.set(n, promise);
    promise.then(
      (bitmap) => {
        if (this.bitmaps.has(n)) this.bitmaps.set(n, bitmap);
        this.trim(bitmap);
        then?.();
      },
      (error) => {
        this.bitmaps.delete(n);
        then?.(error);
      },
    );
    return null;
  }

  async decode(n) {
    const blob = this.blobs?.[n] ?? new Blob([await bytes("/media/frame", { ...this.params, n })], { type: "image/jpeg" });
    return createImageBitmap(blob);
  }

  trim({ width, height }) {
    const most = Math.max(8, Math.floor(BITMAPS_LIMIT / (4 * width * height)));
    for (const [n, bitmap] of this.bitmaps) {
      if (this.bitmaps.size <= most) break;
      if (bitmap instanceof Promise) continue;
      this.bitmaps.delete(n);
      bitmap?.close();
    }
  }

  close() {
    for (const bitmap of this.bitmaps.values()) if (!(bitmap instanceof Promise)) bitmap?.close();
    this.bitmaps.clear();
    this.blobs = null;
  }
}
