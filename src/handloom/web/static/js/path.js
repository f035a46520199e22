// The way of the end effector, and of the places of things, in 3D on the page's clock; axes and a scale bar.
import {
  BufferAttribute, BufferGeometry, Group, html, Line, LineBasicMaterial, OrbitControls, PerspectiveCamera, Points, PointsMaterial,
  Scene as ThreeScene, useEffect, useRef, useState, Vector3, WebGLRenderer,
} from "../vendor/handloom-vendor.js";
import { thingColor } from "./overlay.js";
import { useLive } from "./player.js";
import { indexAt } from "./row.js";
import { axesLines, bounds, fixed, isSoftware, measure, shownColor } from "./scene.js";
import { short } from "./states.js";

/** (3T,) of a place in every step; NaN unknown. place: {index: [x, y, z]}; state: {data, shape: [T, S]}. */
export function wayOf({ data, shape: [length, width] }, { index }) {
  return Float32Array.from({ length: 3 * length }, (_, n) => data[Math.floor(n / 3) * width + index[n % 3]]);
}

export function PathView({ episode, arrays, clock }) {
  const canvas = useRef(null);
  const bar = useRef(null);
  const world = useRef(null);
  const told = useRef(null);
  const [failed, setFailed] = useState("");
  const places = arrays.state ? episode.places : [];
  const times = arrays.frame_s.data;
  const known = places.length > 0;
  useEffect(() => {
    if (!known) return undefined;
    try {
      world.current = new Ways(canvas.current, bar.current, places, arrays.state);
    } catch (error) {
      setFailed(`This browser draws no 3D here (${error.message}). The curves show the same numbers.`);
      return undefined;
    }
    world.current.show(indexAt(times, clock.at.peek()));
    return () => {
      world.current.close();
      world.current = null;
    };
  }, [episode, arrays]);
  useLive([clock.at], () => {
    const index = indexAt(times, clock.at.peek());
    world.current?.show(index);
    if (told.current) told.current.textContent = placeText(arrays.state, places[0], index);
  });
  if (!known) {
    return html`<div class="clip-scene clip-empty"><p>No way in 3D is known: ${arrays.state ? "the names of the state's numbers hold no place (x, y, z)" : "the episode has no state"}.</p></div>`;
  }
  return html`
    <figure class="clip-scene episode-path">
      <div class="clip-space">
        <canvas ref=${canvas} role="img" aria-label="3D view: the way of the end effector"></canvas>
        <div class="clip-bar num" ref=${bar}><span></span><i></i></div>
        ${failed && html`<p class="clip-notice" role="alert">${failed}</p>`}
      </div>
      <figcaption>
        <ul class="legend">
          ${places.map((place, n) => html`<li key=${place.name}><i class="dot" ref=${(dot) => dot && (dot.style.background = n === 0 ? "var(--left-text)" : thingOf(n))}></i> ${place.name}</li>`)}
        </ul>
        <span class="num" ref=${told}></span>
        <span>Frame as the dataset gives it, drawn with z up. x is red, y green, z blue.${places[0].unit ? "" : " The dataset states no unit."}</span>
      </figcaption>
    </figure>
  `;
}

const thingOf = (n) => thingColor(`object_${n}`);

function placeText(state, { index, unit, gripper }, step) {
  const at = (n) => short(state.data[step * state.shape[1] + n]);
  return `x ${at(index[0])}, y ${at(index[1])}, z ${at(index[2])}${unit ? ` ${unit}` : ""}${gripper === null ? "" : `; gripper ${at(gripper)}`}`;
}

/** The lines and points on one canvas; drawn only when something changes. */
class Ways {
  constructor(canvas, bar, places, state) {
    Object.assign(this, { canvas, bar, places, frame: 0, waiting: 0 });
    const slow = isSoftware();
    this.renderer = new WebGLRenderer({ canvas, antialias: !slow });
    this.renderer.outputColorSpace = "srgb-linear"; // see shownColor
    this.renderer.setPixelRatio(slow ? 1 : Math.min(devicePixelRatio, 2));
    this.scene = new ThreeScene();
    this.eye = new PerspectiveCamera(45, 1, 0.001, 1000);
    this.root = new Group();
    this.scene.add(this.root);
    this.parts = places.map((place) => this.way(wayOf(state, place)));
    this.stand();
    this.controls = new OrbitControls(this.eye, canvas);
    this.controls.target.copy(this.middle);
    this.controls.update();
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

  /** One place: all its way faint, what is behind it strong, and where it is. Steps without a place are left out. */
  way(values) {
    const known = [];
    const upTo = []; // number of known steps before and at each step
    for (let n = 0; n < values.length; n += 3) {
      if (values.subarray(n, n + 3).every(Number.isFinite)) known.push(values[n], values[n + 1], values[n + 2]);
      upTo.push(known.length / 3);
    }
    const whole = new Line(fixed(known), new LineBasicMaterial({ transparent: true, opacity: 0.35 }));
    const past = new Line(fixed(known), new LineBasicMaterial());
    const steps = new Points(past.geometry, new PointsMaterial({ size: 3, sizeAttenuation: false }));
    const point = new Points(new BufferGeometry().setAttribute("position", new BufferAttribute(new Float32Array(3), 3)), new PointsMaterial({ size: 9, sizeAttenuation: false }));
    for (const part of [whole, past, steps, point]) {
      part.frustumCulled = false;
      this.root.add(part);
    }
    return { values, known, upTo, past, point, tinted: [whole, past, steps, point] };
  }

  /** Up is z, as in frames of robots on tables and of the hands that handloom exports. The eye sees all ways. */
  stand() {
    const { root, parts, eye } = this;
    const [low, high] = bounds(parts.flatMap(({ known }) => known));
    const size = Math.max(Math.hypot(...high.map((value, k) => value - low[k])), 0.02);
    const axes = axesLines(0.2 * size);
    axes.position.set(...low);
    root.add(axes);
    root.rotation.x = -Math.PI / 2;
    root.updateMatrixWorld();
    this.middle = new Vector3(...low.map((value, k) => (value + high[k]) / 2)).applyMatrix4(root.matrixWorld);
    eye.position.copy(this.middle).add(new Vector3(0.8 * size, 0.7 * size, 1.0 * size));
    [eye.near, eye.far] = [size / 500, size * 500];
  }

  tint() {
    const style = getComputedStyle(this.canvas);
    this.parts.forEach(({ tinted }, n) => {
      const color = shownColor(n === 0 ? style.getPropertyValue("--left-text") : thingOf(n));
      for (const part of tinted) part.material.color.copy(color);
    });
    this.renderer.setClearColor(shownColor(style.getPropertyValue("--panel")));
  }

  show(frame) {
    this.frame = frame;
    this.schedule();
  }

  schedule() {
    this.waiting ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.waiting = 0;
    const { canvas, renderer, eye, frame } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    for (const { values, upTo, past, point } of this.parts) {
      const at = values.subarray(3 * frame, 3 * frame + 3);
      point.visible = at.length === 3 && at.every(Number.isFinite);
      if (point.visible) {
        point.geometry.attributes.position.array.set(at);
        point.geometry.attributes.position.needsUpdate = true;
      }
      past.geometry.setDrawRange(0, upTo[frame] ?? 0);
    }
    renderer.setSize(width, height, false);
    eye.aspect = width / height;
    eye.updateProjectionMatrix();
    renderer.render(this.scene, eye);
    measure(this.bar, eye, this.controls.target, height, this.places[0].unit ?? "");
    canvas.dataset.frame = frame;
  }

  close() {
    cancelAnimationFrame(this.waiting);
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
