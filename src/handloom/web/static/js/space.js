// A view in 3D: one canvas with a camera that the reader turns, a scale bar, the page's colours; drawn only when something changes.
import {
  BufferAttribute, BufferGeometry, Color, DynamicDrawUsage, Group, LineBasicMaterial, LineSegments, OrbitControls, PerspectiveCamera, Scene,
  Vector3, WebGLRenderer,
} from "../vendor/handloom-three.js";
import { html, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { roundStep } from "./timeplane.js";

const FILLED = 0.86; // of the canvas, where places are to fill it: buttons and the scale bar lie over its edges
const [SLOW_MS, REST_MS] = [500, 120]; // without a graphics chip: longest time between two draws, and how long the clock rests before one

/** One canvas. What is in it is added to `root`; a subclass has `update(width, height)` for a frame, and `tint()`. */
export class Space {
  constructor(canvas, bar, { fov = 50, near = 0.005, far = 200, lost = () => {} } = {}) {
    const drawn = graphics();
    if (!drawn) throw new Error("WebGL is switched off, or this machine has none");
    Object.assign(this, { canvas, bar, frame: 0, waiting: 0, drawn_ms: -Infinity });
    this.slow = drawn === "software";
    this.renderer = new WebGLRenderer({ canvas, antialias: !this.slow, alpha: false });
    this.renderer.outputColorSpace = "srgb-linear"; // see shownColor
    this.renderer.setPixelRatio(this.slow ? 1 : Math.min(devicePixelRatio, 2));
    this.scene = new Scene();
    this.eye = new PerspectiveCamera(fov, 1, near, far);
    this.root = new Group();
    this.scene.add(this.root);
    this.controls = new OrbitControls(this.eye, canvas);
    this.controls.addEventListener("change", () => this.schedule());
    this.sized = new ResizeObserver(() => this.schedule());
    this.sized.observe(canvas);
    this.onTheme = () => {
      this.tint();
      this.schedule();
    };
    window.addEventListener("themechange", this.onTheme);
    this.onLost = () => lost("the browser has taken its graphics away: load the page again");
    canvas.addEventListener("webglcontextlost", this.onLost);
  }

  /** Add a part whose positions move: their bounds are not kept. */
  add(part, to = this.root) {
    part.frustumCulled = false;
    to.add(part);
    return part;
  }

  /** Turn the eye so that these places [x, y, z, ...] fill the canvas, seen from a direction; it then turns about their middle. */
  lookAt(places, from) {
    const { canvas, eye, controls } = this;
    const high = Math.tan((eye.fov * Math.PI) / 360) * FILLED;
    const { at, target } = standFor(places, from, [(high * (canvas.clientWidth || 4)) / (canvas.clientHeight || 3), high]);
    eye.position.set(...at);
    controls.target.set(...target);
    controls.update();
    this.schedule();
  }

  /** A colour of the page: a property of CSS. */
  themed(property) {
    return shownColor(getComputedStyle(this.canvas).getPropertyValue(property));
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
    this.update(width, height);
    eye.aspect = width / height;
    eye.updateProjectionMatrix();
    renderer.render(this.scene, eye);
    const unit = this.unit();
    this.bar.hidden = unit === null;
    if (unit !== null) measure(this.bar, eye, this.controls.target, height, unit);
    this.drawn_ms = performance.now();
    canvas.dataset.frame = this.frame;
  }

  close() {
    cancelAnimationFrame(this.waiting);
    clearTimeout(this.later);
    this.sized.disconnect();
    this.controls.dispose();
    window.removeEventListener("themechange", this.onTheme);
    this.canvas.removeEventListener("webglcontextlost", this.onLost);
    this.scene.traverse((part) => {
      part.geometry?.dispose();
      part.material?.dispose();
    });
    this.renderer.dispose();
  }
}

/**
 * A space that `make(canvas, bar, lost)` gives, made anew when `deps` change: {canvas, bar: refs, space: () => Space or null,
 * failed: why nothing can be drawn, or ""}.
 */
export function useSpace(make, deps) {
  const canvas = useRef(null);
  const bar = useRef(null);
  const held = useMemo(() => ({ space: null, canvas: null }), []);
  const [failed, setFailed] = useState("");
  useEffect(() => {
    if (!canvas.current) return undefined;
    try {
      held.space = make(canvas.current, bar.current, setFailed);
      held.canvas = canvas.current;
    } catch (error) {
      setFailed(error.message);
      return undefined;
    }
    return () => {
      held.space.close();
      held.space = null;
    };
  }, deps);
  // Once the page is left: a browser has 16 contexts, frees them late, and takes the oldest away before. After `close`, as the canvas may
  // get another space until then, and a lost context never comes back.
  useEffect(() => () => loseContext(held.canvas), []);
  return { canvas, bar, space: () => held.space, failed };
}

/** In place of a view that cannot be drawn. instead: what on the page shows the same. */
export const NoSpace = ({ why, instead }) => html`<div class="clip-scene clip-empty"><p role="status">This browser draws no 3D here (${why}). ${instead}</p></div>`;

/** Make a bar a round length at the distance of `target`. unit: "m", or "" where lengths have no known unit. */
function measure(bar, eye, target, height, unit) {
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

const loseContext = (canvas) => canvas?.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();

let known;
/** What draws 3D here: `hardware`, `software` (the processor, for want of a graphics chip), or null: nothing. */
function graphics() {
  if (known === undefined) {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("webgl2");
    const about = context?.getExtension("WEBGL_debug_renderer_info");
    const name = about ? context.getParameter(about.UNMASKED_RENDERER_WEBGL) : "";
    loseContext(canvas);
    known = !context ? null : /swiftshader|llvmpipe|software|basic render/i.test(name) ? "software" : "hardware";
  }
  return known;
}

/** Places that change: room for `num`. */
export function moving(num) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(3 * num), 3).setUsage(DynamicDrawUsage));
  return geometry;
}

/** Places [x, y, z, ...] that stay. */
export function fixed(values) {
  return new BufferGeometry().setAttribute("position", new BufferAttribute(Float32Array.from(values), 3));
}

/** Give a moving geometry its places now; as many are drawn. */
export function setPlaces(geometry, values) {
  geometry.attributes.position.array.set(values);
  geometry.attributes.position.needsUpdate = true;
  geometry.setDrawRange(0, values.length / 3);
}

/** x red, y green, z blue. */
export function axesLines(length) {
  const geometry = fixed([0, 0, 0, length, 0, 0, 0, 0, 0, 0, length, 0, 0, 0, 0, 0, 0, length]);
  geometry.setAttribute("color", new BufferAttribute(new Float32Array([1, 0.2, 0.2, 1, 0.2, 0.2, 0.2, 0.8, 0.3, 0.2, 0.8, 0.3, 0.3, 0.5, 1, 0.3, 0.5, 1]), 3));
  return new LineSegments(geometry, new LineBasicMaterial({ vertexColors: true }));
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

/**
 * Where an eye stands that has all places in sight and is as near as can be: {at, target: [x, y, z]}, the target amid the depths.
 * places: [x, y, z, ...], one or more; from: [x, y, z] from them to the eye, y being up and not alone; slopes: of what it sees, half the
 * width and half the height at distance 1. Each edge of the view bounds where the eye may stand; the farther of two such corners counts.
 */
export function standFor(places, from, slopes) {
  const unit = (way) => way.map((value) => value / Math.hypot(...way));
  const back = unit(from);
  const right = unit([back[2], 0, -back[0]]);
  const up = [back[1] * right[2] - back[2] * right[1], back[2] * right[0] - back[0] * right[2], back[0] * right[1] - back[1] * right[0]];
  const along = (axis, n) => axis[0] * places[n] + axis[1] * places[n + 1] + axis[2] * places[n + 2];
  const most = [-Infinity, -Infinity];
  const least = [Infinity, Infinity];
  let [near, far] = [-Infinity, Infinity];
  for (let n = 0; n + 2 < places.length; n += 3) {
    const depth = along(back, n);
    [near, far] = [Math.max(near, depth), Math.min(far, depth)];
    [right, up].forEach((axis, k) => {
      most[k] = Math.max(most[k], along(axis, n) + slopes[k] * depth);
      least[k] = Math.min(least[k], along(axis, n) - slopes[k] * depth);
    });
  }
  const [x, y] = [0, 1].map((k) => (most[k] + least[k]) / 2);
  const z = Math.max((most[0] - least[0]) / (2 * slopes[0]), (most[1] - least[1]) / (2 * slopes[1]), near + 0.05 * (near - far), near + 0.02);
  const point = (depth) => [0, 1, 2].map((k) => x * right[k] + y * up[k] + depth * back[k]);
  return { at: point(z), target: point((near + far) / 2) };
}

/** Places [x, y, z, ...] moved by a Matrix4, as a Float32Array. */
export function placed(matrix, values) {
  const found = new Float32Array(values.length);
  const place = new Vector3();
  for (let n = 0; n < values.length; n += 3) place.fromArray(values, n).applyMatrix4(matrix).toArray(found, n);
  return found;
}

/** Of the places [x, y, z, ...] those that lie, along each axis, where all but a share at both ends do. */
export function amid(values, share) {
  const [x0, y0, z0, x1, y1, z1] = most(values, share);
  const found = [];
  for (let n = 0; n + 2 < values.length; n += 3) {
    const [x, y, z] = values.slice(n, n + 3);
    if (x >= x0 && x <= x1 && y >= y0 && y <= y1 && z >= z0 && z <= z1) found.push(x, y, z);
  }
  return found;
}

/** The corners [x, y, z, x, y, z] between which the finite places in [x, y, z, ...] lie along each axis, but for a share at both ends; [] without any. */
export function most(values, share) {
  const axes = [0, 1, 2].map((k) => Float32Array.from(values.filter((value, n) => n % 3 === k && Number.isFinite(value))).sort());
  if (!axes[0].length) return [];
  return [share, 1 - share].flatMap((part) => axes.map((sorted) => sorted[Math.round(part * (sorted.length - 1))]));
}
