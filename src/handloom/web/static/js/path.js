// The way of the end effector, hands, and the places of things, in 3D on the page's clock; axes and a scale bar.
import { Line, LineBasicMaterial, Points, PointsMaterial } from "../vendor/handloom-three.js";
import { html, useMemo, useRef } from "../vendor/handloom-vendor.js";
import { useLive } from "./clock.js";
import { HandFigure } from "./figures.js";
import { HAND_COLORS, NUM_KEYPOINTS, thingColor } from "./overlay.js";
import { indexAt } from "./row.js";
import { amid, axesLines, bounds, fixed, moving, NoSpace, placed, setPlaces, shownColor, Space, useSpace } from "./space.js";
import { short } from "./states.js";

/** (3T,) of a place in every step; NaN unknown. place: {index: [x, y, z]}; state: {data, shape: [T, S]}. */
export function wayOf({ data, shape: [length, width] }, { index }) {
  return Float32Array.from({ length: 3 * length }, (_, n) => data[Math.floor(n / 3) * width + index[n % 3]]);
}

/** Whether a place is known in any step. */
export const isKnown = (way) => way.some((_, n) => n % 3 === 0 && way.subarray(n, n + 3).every(Number.isFinite));

/** (T, 2, 21, 3) flat: the keypoints of the hands that a state has; NaN unknown. hands: {index: 63 numbers of the state} or null, left and right. */
export function handsOf({ data, shape: [length, width] }, hands) {
  const one = 3 * NUM_KEYPOINTS;
  const found = new Float32Array(2 * one * length).fill(NaN);
  hands.forEach((hand, side) => {
    for (let n = 0; hand && n < length; n++) hand.index.forEach((number, k) => (found[one * (2 * n + side) + k] = data[n * width + number]));
  });
  return found;
}

const HAND_NAMES = ["left hand", "right hand"];

export function PathView({ episode, arrays, clock }) {
  const told = useRef(null);
  const places = useMemo(() => (arrays.state ? episode.places.filter((place) => isKnown(wayOf(arrays.state, place))) : []), [episode, arrays]);
  const hands = useMemo(() => (arrays.state && episode.hands?.some(Boolean) ? handsOf(arrays.state, episode.hands) : null), [episode, arrays]);
  const unit = [...(episode.hands ?? []), ...places].find(Boolean)?.unit ?? "";
  const times = arrays.frame_s.data;
  const { canvas, bar, space, failed } = useSpace(
    (at, scale, lost) => {
      const ways = new Ways(at, scale, { places, state: arrays.state, hands, unit }, lost);
      ways.show(indexAt(times, clock.at.peek()));
      return ways;
    },
    [episode, arrays],
  );
  useLive([clock.at], () => {
    const index = indexAt(times, clock.at.peek());
    space()?.show(index);
    if (told.current && places.length) told.current.textContent = placeText(arrays.state, places[0], index);
  });
  if (failed) return html`<${NoSpace} why=${failed} instead="The curves show the same numbers." />`;
  if (!places.length && !hands?.some(Number.isFinite)) {
    return html`<div class="clip-scene clip-empty"><p>No way in 3D is known: ${!arrays.state ? "the episode has no state" : episode.places.length ? "in no step are x, y and z all known" : "the names of the state's numbers hold no place (x, y, z)"}.</p></div>`;
  }
  return html`
    <figure class="clip-scene episode-path">
      <div class="clip-space">
        <canvas ref=${canvas} role="img" aria-label=${`3D view: ${hands ? "hands" : "the way of the end effector"}`}></canvas>
        <div class="clip-bar num" ref=${bar}><span></span><i></i></div>
      </div>
      <figcaption>
        <ul class="legend">
          ${hands && HAND_NAMES.map((name, side) => episode.hands[side] && html`<li key=${name}><i class="dot" ref=${(dot) => dot && (dot.style.background = HAND_COLORS[side])}></i> ${name}</li>`)}
          ${places.map((place, n) => html`<li key=${place.name}><i class="dot" ref=${(dot) => dot && (dot.style.background = n === 0 ? "var(--left-text)" : thingOf(n))}></i> ${place.name}</li>`)}
        </ul>
        <span class="num" ref=${told}></span>
        <span>Frame as the dataset gives it, drawn with ${hands ? "y down, as a camera's" : "z up"}. x is red, y green, z blue.${unit ? "" : " The dataset states no unit."}</span>
      </figcaption>
    </figure>
  `;
}

const thingOf = (n) => thingColor(`object_${n}`);

function placeText(state, { index, unit, gripper }, step) {
  const at = (n) => short(state.data[step * state.shape[1] + n]);
  return `x ${at(index[0])}, y ${at(index[1])}, z ${at(index[2])}${unit ? ` ${unit}` : ""}${gripper === null ? "" : `; gripper ${at(gripper)}`}`;
}

/** The lines and points on one canvas. */
class Ways extends Space {
  /** what: {places: of the state (T, S), hands: (T, 2, 21, 3) or null, unit: of all}. */
  constructor(canvas, bar, { places, state, hands, unit }, lost) {
    super(canvas, bar, { fov: 45, near: 0.001, far: 1000, lost });
    Object.assign(this, { places, hands, unitName: unit });
    this.handFigures = hands ? HAND_COLORS.map((color) => new HandFigure(this, color)) : [];
    this.parts = places.map((place) => this.way(wayOf(state, place)));
    this.stand();
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
    const point = new Points(moving(1), new PointsMaterial({ size: 9, sizeAttenuation: false }));
    for (const part of [whole, past, steps, point]) this.add(part);
    return { values, known, upTo, past, point, tinted: [whole, past, steps, point] };
  }

  /** Up is z, as in frames of robots on tables and of one hand that handloom exports; of whole hands, -y. The eye sees all ways. */
  stand() {
    const { root, parts, eye } = this;
    const all = [...parts.flatMap(({ known }) => known), ...amid(this.hands ?? [], 0.05)];
    const [low, high] = bounds(all);
    const size = Math.max(Math.hypot(...high.map((value, k) => value - low[k])), 0.02);
    const axes = axesLines(0.2 * size);
    axes.position.set(...low);
    root.add(axes);
    root.rotation.x = this.hands ? Math.PI : -Math.PI / 2;
    root.updateMatrixWorld();
    [eye.near, eye.far] = [size / 500, size * 500];
    this.lookAt(placed(root.matrixWorld, [...all, ...low]), [0.8, 0.7, 1]);
  }

  tint() {
    this.parts.forEach(({ tinted }, n) => {
      const color = n === 0 ? this.themed("--left-text") : shownColor(thingOf(n));
      for (const part of tinted) part.material.color.copy(color);
    });
    this.renderer.setClearColor(this.themed("--panel"));
  }

  update() {
    const { frame } = this;
    this.handFigures.forEach((figure, hand) => figure.show(this.hands, frame, hand));
    for (const { values, upTo, past, point } of this.parts) {
      const at = values.subarray(3 * frame, 3 * frame + 3);
      point.visible = at.length === 3 && at.every(Number.isFinite);
      if (point.visible) setPlaces(point.geometry, at);
      past.geometry.setDrawRange(0, upTo[frame] ?? 0);
    }
  }

  /** Of the scale bar: "" where the dataset states none. */
  unit() {
    return this.unitName;
  }
}
