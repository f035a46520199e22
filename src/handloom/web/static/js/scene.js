// A clip in 3D on the page's clock: hands, tracks, held things, the camera and its path, axes and a scale bar.
import {
  BoxGeometry, BufferAttribute, BufferGeometry, Color, DynamicDrawUsage, EdgesGeometry, Group, html, InstancedMesh, Line, LineBasicMaterial, LineSegments,
  Matrix4, MeshBasicMaterial, OrbitControls, PerspectiveCamera, Points, PointsMaterial, Quaternion, Scene as ThreeScene, useEffect, useMemo, useRef, useState, Vector3,
  WebGLRenderer,
} from "../vendor/handloom-vendor.js";
import { HAND_COLORS, SKELETON, thingColor } from "./overlay.js";
import { useLive } from "./player.js";
import { indexAt } from "./row.js";
import { roundStep } from "./timeline.js";

const NUM_KEYPOINTS = 21;
const FLIP = new Matrix4().makeScale(1, -1, -1); // x right, y down, z forward of handloom to y up, z backward of three
/** The reader turns it; it follows the camera; it looks from above. */
export const VIEWS = [["orbit", "Orbit"], ["camera", "Camera"], ["top", "Top"]];
const TRAIL_FRAMES = 15;
const [SLOW_MS, REST_MS] = [500, 120]; // without a graphics chip: longest time between two draws, and how long the clock rests before one

/** The 3D view of one clip. revision: changes when arrays have come; view: one of `VIEWS`. */
export function Scene({ clip, clock, layers, view, setView, revision }) {
  const canvas = useRef(null);
  const bar = useRef(null);
  const [failed, setFailed] = useState("");
  const held = useMemo(() => ({ world: null }), []);
  const known = clip.hasWorld || hasAny(clip.arrays.hand_keypoints_cam_m);

  useEffect(() => {
    if (!known) return undefined;
    let world;
    try {
      world = new World(canvas.current, bar.current, clip, layers);
    } catch (error) {
      setFailed(`This browser draws no 3D here (${error.message}). The image beside shows the same hands and tracks.`);
      return undefined;
    }
    held.world = world;
    world.setView(view);
    world.show(indexAt(clip.times, clock.at.peek()));
    return () => {
      held.world = null;
      world.close();
    };
  }, [clip, revision, known]);
  useEffect(() => held.world?.setView(view), [view]);
  useLive([clock.at, layers], () => held.world?.show(indexAt(clip.times, clock.at.peek())));

  if (!known) return html`<div class="clip-scene clip-empty"><p>No position in 3D is known of this clip: no camera path, and no hand with a place.</p></div>`;
  return html`
    <figure class="clip-scene">
      <div class="clip-space" style=${{ aspectRatio: `${clip.width} / ${clip.height}` }}>
        <canvas ref=${canvas} role="img" aria-label="3D view: hands, tracks and camera"></canvas>
        <div class="clip-views switch" role="group" aria-label="View">
          ${VIEWS.map(([name, title]) => html`<button type="button" key=${name} class="button" aria-pressed=${view === name} onClick=${() => setView(name)} title="Next view: v">${title}</button>`)}
        </div>
        <div class="clip-bar num" ref=${bar} hidden><span></span><i></i></div>
        ${failed && html`<p class="clip-notice" role="alert">${failed}</p>`}
      </div>
      <figcaption>${caption(clip)}</figcaption>
    </figure>
  `;
}

/** Whether the view is of the world. Where hands have places in the camera's frame alone (a path of unknown scale), it is of that. */
function isInWorld(clip) {
  const { hand_keypoints_world_m: world, hand_keypoints_cam_m: camera } = clip.arrays;
  return clip.hasWorld && (hasAny(world) || !hasAny(camera));
}

function hasAny(array) {
  return !!array && array.data.some(Number.isFinite);
}

/** What the reader must know about the frame and the scale. */
function caption(clip) {
  const { scale, path_reason: reason } = clip.facts.camera ?? {};
  if (clip.hasWorld && !isInWorld(clip)) return "The camera path has no known scale: hands and tracks are shown in the camera's frame, in metres.";
  if (!clip.hasWorld) return `No camera path is known${reason ? ` (${reason})` : ""}: hands and tracks are shown in the camera's frame.`;
  if (scale !== "metric") return "World of the camera path. Its scale is unknown: lengths have no unit.";
  return "World of the camera path, in metres. Up is the first camera's up.";
}

/** The objects of one clip on one canvas; drawn only when something changes. */
class World {
  constructor(canvas, bar, clip, layers) {
    Object.assign(this, { canvas, bar, clip, layers, frame: 0, view: "orbit", drawn_ms: -Infinity });
    this.slow = isSoftware();
    this.renderer = new WebGLRenderer({ canvas, antialias: !this.slow, alpha: false });
    this.renderer.outputColorSpace = "srgb-linear"; // see shownColor
    this.renderer.setPixelRatio(this.slow ? 1 : Math.min(devicePixelRatio, 2));
    this.scene = new ThreeScene();
    this.eye = new PerspectiveCamera(50, 1, 0.005, 200);
    this.poses = cameraPoses(clip);
    this.root = new Group();
    this.root.matrixAutoUpdate = false;
    this.root.matrix.copy(upright(this.poses));
    this.scene.add(this.root);
    this.build();
    this.frameAll();
    this.controls = new OrbitControls(this.eye, canvas);
    this.controls.addEventListener("change", () => this.schedule());
    this.sized = new ResizeObserver(() => this.schedule());
    this.sized.observe(canvas);
    this.onTheme = () => {
      this.tint();
      this.schedule();
    };
    window.addEventListener("themechange", this.onTheme);
    this.tint();
  }

  build() {
    const { clip, root } = this;
    const { arrays } = clip;
    const inWorld = (this.inWorld = isInWorld(clip));
    this.hands = (inWorld ? arrays.hand_keypoints_world_m : arrays.hand_keypoints_cam_m)?.data;
    this.handParts = [0, 1].map((hand) => {
      const color = shownColor(HAND_COLORS[hand]);
      const points = moving(NUM_KEYPOINTS);
      const bones = new InstancedMesh(new BoxGeometry(1, 1, 1), new MeshBasicMaterial({ color }), SKELETON.length);
      const joints = new Points(points, new PointsMaterial({ color, size: 3, sizeAttenuation: false }));
      const trail = new Line(moving(TRAIL_FRAMES), new LineBasicMaterial({ color, transparent: true, opacity: 0.6 }));
      for (const part of [bones, joints, trail]) add(root, part);
      return { points, bones, joints, trail };
    });
    const { tracks } = clip;
    if (tracks && (inWorld ? tracks.world : tracks.depth)) {
      const geometry = moving(tracks.num);
      geometry.setAttribute("color", new BufferAttribute(tracks.colors, 3, true));
      this.cloud = add(root, new Points(geometry, new PointsMaterial({ size: 3, sizeAttenuation: false, vertexColors: true })));
      if (!inWorld || arrays.regrid_depth_m) this.lift = lifter(clip);
    }
    this.path = add(root, new Line(fixed(this.poses.places()), new LineBasicMaterial()));
    this.path.visible = inWorld;
    this.places = this.seenPlaces();
    const size = this.extent();
    this.frustum = add(root, new LineSegments(fixed(frustumLines(clip, 0.12 * size)), new LineBasicMaterial()));
    this.frustum.matrixAutoUpdate = false;
    this.axes = [add(root, axesLines(0.1 * size)), axesLines(0.06 * size)];
    this.frustum.add(this.axes[1]);
    this.things = thingBoxes(clip);
    for (const { part } of this.things) add(root, part);
  }

  /** About how large the whole is, in the clip's units. */
  extent() {
    const [low, high] = bounds(this.places);
    return Math.min(Math.max(Math.hypot(...high.map((value, k) => value - low[k])), 0.05), 50);
  }

  /** [x, y, z, ...] of the camera and the wrists in all frames, and of a box around most of the tracks. */
  seenPlaces() {
    const { hands, clip } = this;
    const found = [...this.poses.places()];
    for (let n = 0; hands && n < 2 * clip.length; n++) for (let k = 0; k < 3; k++) found.push(hands[3 * NUM_KEYPOINTS * n + k]);
    if (this.cloud) found.push(...this.cloudBox());
    return found;
  }

  /** The corners between which four fifths of the tracks lie along each axis, over some frames. */
  cloudBox() {
    const { clip, cloud } = this;
    const seen = [[], [], []];
    for (let n = 0; n < 6; n++) {
      this.setCloud(clip.tracks, Math.round((n * (clip.length - 1)) / 5));
      const { array } = cloud.geometry.attributes.position;
      for (let at = 0; at < 3 * cloud.geometry.drawRange.count; at++) seen[at % 3].push(array[at]);
    }
    if (!seen[0].length) return [];
    const sorted = seen.map((values) => Float32Array.from(values).sort());
    return [0.1, 0.9].flatMap((share) => sorted.map((values) => values[Math.floor(share * (values.length - 1))]));
  }

  frameAll() {
    const [low, high] = bounds(this.places);
    this.middle = new Vector3(...low.map((value, k) => (value + high[k]) / 2)).applyMatrix4(this.root.matrix);
    this.far = Math.max(this.extent(), 0.25);
  }

  setView(view) {
    const { controls, eye, middle, far } = this;
    this.view = view;
    controls.enabled = view !== "camera";
    eye.fov = view === "camera" ? this.poses.fov : 50;
    eye.up.set(0, 1, 0);
    if (view !== "camera") {
      controls.target.copy(middle);
      eye.position.copy(middle).add(view === "top" ? new Vector3(0, far * 1.2, 1e-4) : new Vector3(0.55 * far, 0.5 * far, 0.8 * far));
      controls.update();
    }
    this.schedule();
  }

  /** Light or dark: lines that carry no data's colour take the text's. */
  tint() {
    const style = getComputedStyle(this.canvas);
    this.path.material.color.copy(shownColor(style.getPropertyValue("--text")));
    this.frustum.material.color.copy(shownColor(style.getPropertyValue("--soft")));
    this.renderer.setClearColor(shownColor(style.getPropertyValue("--panel")));
  }

  /** Draw a frame. Where the processor draws 3D, the image beside comes first: this view follows when the clock rests, or after a while. */
  show(frame) {
    this.frame = frame;
    if (!this.slow) {
      this.schedule();
      return;
    }
    clearTimeout(this.later);
    const now = performance.now();
    this.later = setTimeout(() => this.schedule(), now - this.drawn_ms > SLOW_MS ? 0 : REST_MS);
  }

  schedule() {
    this.waiting ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.waiting = 0;
    const { canvas, renderer, eye } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    renderer.setSize(width, height, false);
    this.update();
    if (this.view === "camera") this.lookThroughCamera(width / height);
    eye.aspect = width / height;
    eye.updateProjectionMatrix();
    renderer.render(this.scene, eye);
    this.drawBar(height);
    this.drawn_ms = performance.now();
    canvas.dataset.frame = this.frame;
  }

  update() {
    const { frame, clip, layers, hands } = this;
    const shown = layers.peek();
    this.handParts.forEach(({ points, bones, joints, trail }, hand) => {
      const first = 3 * NUM_KEYPOINTS * (2 * frame + hand);
      const values = hands?.subarray(first, first + 3 * NUM_KEYPOINTS);
      const there = shown.hands && !!values && values.every(Number.isFinite);
      bones.visible = joints.visible = there;
      if (there) {
        set(points, values);
        setBones(bones, values);
      }
      trail.visible = shown.hands && this.setTrail(trail, hand);
    });
    if (this.cloud) {
      this.cloud.visible = shown.tracks;
      if (shown.tracks) this.setCloud(clip.tracks, frame);
    }
    const pose = this.poses.at(frame);
    this.frustum.visible = !!pose && this.view !== "camera";
    if (pose) {
      this.frustum.matrix.copy(pose);
      this.frustum.matrixWorldNeedsUpdate = true;
    }
    for (const { part, poses } of this.things) {
      const values = poses.subarray(16 * frame, 16 * frame + 16);
      part.visible = shown.things && values.length === 16 && values.every(Number.isFinite);
      if (part.visible) {
        part.matrix.set(...values);
        part.matrixWorldNeedsUpdate = true;
      }
    }
  }

  /** The wrist's way of the last frames, as far as it is known without a gap. */
  setTrail(trail, hand) {
    const values = [];
    for (let f = this.frame; this.hands && f >= Math.max(0, this.frame - TRAIL_FRAMES + 1); f--) {
      const first = 3 * NUM_KEYPOINTS * (2 * f + hand);
      if (!Number.isFinite(this.hands[first])) break;
      values.push(this.hands[first], this.hands[first + 1], this.hands[first + 2]);
    }
    trail.geometry.setDrawRange(0, values.length / 3);
    set(trail.geometry, values);
    return values.length > 3;
  }

  /** The tracks of a frame, those with a place first. */
  setCloud(tracks, frame) {
    const { position, color } = this.cloud.geometry.attributes;
    this.colors ??= color.array.slice();
    const grid = this.lift ? tracks.best(frame) : null; // later grids have no places of their own in the world
    const { xy, depth } = tracks.at(frame, grid);
    let num = 0;
    for (let n = 0; n < tracks.num; n++) {
      let place = null;
      if (tracks.world && this.inWorld && !(grid && n < tracks.numGrid)) {
        const first = 3 * (frame * tracks.num + n);
        place = [tracks.world[first], tracks.world[first + 1], tracks.world[first + 2]];
      } else if (this.lift && depth) place = this.lift(xy[2 * n], xy[2 * n + 1], depth[n], this.poses.at(frame));
      if (!place || !Number.isFinite(place[0])) continue;
      position.array.set(place, 3 * num);
      color.array.set(this.colors.subarray(3 * n, 3 * n + 3), 3 * num);
      num++;
    }
    this.cloud.geometry.setDrawRange(0, num);
    position.needsUpdate = color.needsUpdate = true;
  }

  lookThroughCamera(aspect) {
    const pose = this.poses.at(this.frame);
    if (!pose) return;
    const { eye, poses, clip } = this;
    new Matrix4().multiplyMatrices(this.root.matrix, pose).multiply(FLIP).decompose(eye.position, eye.quaternion, new Vector3());
    const wide = clip.width / clip.height > aspect; // the whole image stays in sight
    const tangent = Math.tan((poses.fov * Math.PI) / 360) * (wide ? clip.width / clip.height / aspect : 1);
    eye.fov = (360 / Math.PI) * Math.atan(tangent);
  }

  /** A bar of a round length at the distance of what is looked at. */
  drawBar(height) {
    const { eye, controls, bar, clip } = this;
    const metric = !this.inWorld || clip.facts.camera?.scale === "metric";
    bar.hidden = !metric || this.view === "camera";
    if (bar.hidden) return;
    measure(bar, eye, controls.target, height, "m");
  }

  close() {
    cancelAnimationFrame(this.waiting);
    clearTimeout(this.later);
    this.sized.disconnect();
    this.controls.dispose();
    window.removeEventListener("themechange", this.onTheme);
    this.scene.traverse((part) => {
      part.geometry?.dispose();
      part.material?.dispose();
    });
    this.renderer.dispose();
  }
}

/** Make a bar a round length at the distance of `target`. unit: "m", or "" where lengths have no known unit. */
export function measure(bar, eye, target, height, unit) {
  const unit_px = height / (2 * Math.tan((eye.fov * Math.PI) / 360) * Math.max(eye.position.distanceTo(target), 1e-3));
  const length = roundStep(60 / unit_px);
  bar.querySelector("i").style.width = `${length * unit_px}px`;
  const metres = length >= 1 ? `${length} m` : length >= 0.01 ? `${Math.round(length * 100)} cm` : `${Math.round(length * 1000)} mm`;
  bar.querySelector("span").textContent = unit === "m" ? metres : `${Number(length.toPrecision(3))} ${unit || "(unit unknown)"}`;
}

/** A colour of CSS as the renderer puts it out: colours are shown as they are, as on the image, without a conversion. */
export function shownColor(text) {
  return new Color(text.trim().replace(/(\d) (?=\d)/g, "$1,") || "#888888").convertLinearToSRGB();
}

/** Whether the processor draws 3D here, for want of a graphics chip. */
export function isSoftware() {
  const context = document.createElement("canvas").getContext("webgl2");
  const about = context?.getExtension("WEBGL_debug_renderer_info");
  const name = about ? context.getParameter(about.UNMASKED_RENDERER_WEBGL) : "";
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(name);
}

function add(root, part) {
  part.frustumCulled = false; // positions move: their bounds are not kept
  root.add(part);
  return part;
}

function moving(num) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(3 * num), 3).setUsage(DynamicDrawUsage));
  return geometry;
}

export function fixed(values) {
  return new BufferGeometry().setAttribute("position", new BufferAttribute(Float32Array.from(values), 3));
}

function set(geometry, values) {
  geometry.attributes.position.array.set(values);
  geometry.attributes.position.needsUpdate = true;
}

const STICK = { matrix: new Matrix4(), from: new Vector3(), way: new Vector3(), turn: new Quaternion(), size: new Vector3(), up: new Vector3(0, 1, 0) };

/** A stick for each bone of a hand, as thick as a fourteenth of the palm. values: (63,) places of the keypoints. */
function setBones(bones, values) {
  const { matrix, from, way, turn, size, up } = STICK;
  const place = (k, into) => into.fromArray(values, 3 * k);
  const thick = place(9, way).sub(place(0, from)).length() / 14;
  SKELETON.forEach(([a, b], n) => {
    place(b, way).sub(place(a, from));
    const length = way.length();
    turn.setFromUnitVectors(up, size.copy(way).divideScalar(length || 1));
    matrix.compose(from.addScaledVector(way, 0.5), turn, size.set(thick, length || thick, thick));
    bones.setMatrixAt(n, matrix);
  });
  bones.instanceMatrix.needsUpdate = true;
}

/** The camera's poses: `at(frame)` a Matrix4 in metres, null unknown; the identity where there is no path. fov: degrees. */
function cameraPoses(clip) {
  const poses = isInWorld(clip) ? clip.arrays.world_from_camera.data : null;
  const unit_m = clip.facts.camera?.unit_m ?? 1;
  const focal_px = clip.arrays.camera_matrix?.data[4] || clip.height;
  const at = (frame) => {
    if (!poses) return new Matrix4();
    const values = poses.subarray(16 * frame, 16 * frame + 16);
    if (values.length < 16 || !values.every(Number.isFinite)) return null;
    const pose = new Matrix4().set(...values);
    return pose.setPosition(new Vector3().setFromMatrixPosition(pose).multiplyScalar(unit_m));
  };
  const places = () => {
    const found = [];
    for (let frame = 0; frame < (poses ? clip.length : 1); frame++) {
      const pose = at(frame);
      if (pose) found.push(...new Vector3().setFromMatrixPosition(pose).toArray());
    }
    return found;
  };
  return { at, places, num: clip.length, fov: (360 / Math.PI) * Math.atan(clip.height / 2 / focal_px) };
}

/** three_from_world: the first known camera looks away from the reader, and its up is up. */
function upright(poses) {
  for (let frame = 0; frame < poses.num; frame++) {
    const pose = poses.at(frame);
    if (!pose) continue;
    const turn = new Quaternion();
    pose.decompose(new Vector3(), turn, new Vector3());
    return new Matrix4().multiplyMatrices(FLIP, new Matrix4().makeRotationFromQuaternion(turn.invert()));
  }
  return FLIP.clone();
}

/** Corners [low, high] of the finite places in [x, y, z, ...]. */
export function bounds(values) {
  const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  values.forEach((value, n) => {
    if (!Number.isFinite(value)) return;
    low[n % 3] = Math.min(low[n % 3], value);
    high[n % 3] = Math.max(high[n % 3], value);
  });
  return Number.isFinite(low[0]) ? [low, high] : [[-0.1, -0.1, -0.1], [0.1, 0.1, 0.1]];
}

/** Eight lines of a pyramid over the image, its ground at a distance in front of the camera. */
function frustumLines(clip, far) {
  const matrix = clip.arrays.camera_matrix?.data ?? [clip.height, 0, clip.width / 2, 0, clip.height, clip.height / 2];
  const corner = (x, y) => [((x - 0.5 - matrix[2]) / matrix[0]) * far, ((y - 0.5 - matrix[5]) / matrix[4]) * far, far];
  const ring = [corner(0, 0), corner(clip.width, 0), corner(clip.width, clip.height), corner(0, clip.height)];
  return ring.flatMap((point, n) => [0, 0, 0, ...point, ...point, ...ring[(n + 1) % 4]]);
}

/** x red, y green, z blue. */
export function axesLines(length) {
  const geometry = fixed([0, 0, 0, length, 0, 0, 0, 0, 0, 0, length, 0, 0, 0, 0, 0, 0, length]);
  geometry.setAttribute("color", new BufferAttribute(new Float32Array([1, 0.2, 0.2, 1, 0.2, 0.2, 0.2, 0.8, 0.3, 0.2, 0.8, 0.3, 0.3, 0.5, 1, 0.3, 0.5, 1]), 3));
  return new LineSegments(geometry, new LineBasicMaterial({ vertexColors: true }));
}

/** [{part, poses}] of the things whose poses are known: (K, T, 4, 4) and their boxes (K, 6), least and largest corner. */
function thingBoxes({ facts, arrays: { things, things_box_m: boxes } }) {
  if (!things || !boxes) return [];
  const size = things.data.length / things.shape[0];
  return Array.from({ length: things.shape[0] }, (_, k) => {
    const [x0, y0, z0, x1, y1, z1] = boxes.data.subarray(6 * k, 6 * k + 6);
    const box = new BoxGeometry(x1 - x0, y1 - y0, z1 - z0).translate((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2);
    const part = new LineSegments(new EdgesGeometry(box), new LineBasicMaterial({ color: shownColor(thingColor(facts.things?.[k]?.name ?? `object_${k + 1}`)) }));
    box.dispose();
    part.matrixAutoUpdate = false;
    return { part, poses: things.data.subarray(size * k, size * (k + 1)) };
  });
}

/** (x, y, depth, pose) -> place, of a lens without distortion; null for other lenses, whose rays the page does not know. */
function lifter(clip) {
  const matrix = clip.arrays.camera_matrix?.data;
  if (!matrix || clip.facts.arrays.includes("camera_distortion")) return null;
  const place = new Vector3();
  return (x, y, depth, pose) => {
    if (!pose || !(depth > 0)) return null;
    place.set(((x - matrix[2]) / matrix[0]) * depth, ((y - matrix[5]) / matrix[4]) * depth, depth).applyMatrix4(pose);
    return place.toArray();
  };
}
