// A plane of time, left to right, on a page's clock: rows with labels, curves in rows, an axis, and the time that is shown.
import { html, useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { useLive } from "./clock.js";
import { indexAt } from "./row.js";

const PLOT_PX = 44;

/**
 * Rows of one clip or episode on the clock; a press or a drag goes to that step.
 * rows: [{key, label, title, className, body}]; times: (T,) s; span_s: the plane's width; what: a step's name; end_s: the
 * plane is shaded after it (a longer clip beside this one).
 */
export function TimePlane({ rows, times, span_s, clock, what = "frame", end_s = null }) {
  const plane = useRef(null);
  const head = useRef(null);
  const left = leftOf(span_s);
  useLive([clock.at], () => {
    const at_s = clock.at.peek();
    if (!head.current) return;
    head.current.style.transform = `translateX(${left(at_s)})`;
    const index = indexAt(times, at_s);
    plane.current.setAttribute("aria-valuenow", index + 1);
    plane.current.setAttribute("aria-valuetext", `${what} ${index + 1} of ${times.length}, ${at_s.toFixed(2)} seconds`);
  });
  const { onDown, onMove } = scrubbing(plane, times, span_s, clock);
  return html`
    <div class="clip-timeline">
      <div class="clip-labels" aria-hidden="true">
        ${rows.map(({ key, label, title, className }) => html`<div key=${key} class=${`clip-label ${className}`} title=${title ?? label}>${label}</div>`)}
        <div class="clip-label clip-axis"></div>
      </div>
      <div class="clip-plane" ref=${plane} role="slider" tabindex="0" data-keys="page" aria-label="Time" aria-valuemin="1" aria-valuemax=${Math.max(times.length, 1)}
        onPointerDown=${onDown} onPointerMove=${onMove}>
        ${rows.map(({ key, className, body }) => html`<div key=${key} class=${`clip-row ${className}`}>${body}</div>`)}
        <${Axis} span_s=${span_s} left=${left} />
        ${end_s !== null && end_s < span_s - 1e-6 && html`<div class="clip-after" title="after the end of this clip" style=${{ left: left(end_s) }}></div>`}
        <div class="clip-heads"><div class="clip-head" ref=${head}></div></div>
      </div>
    </div>
  `;
}

/** seconds -> a place on a plane of this width. */
export const leftOf = (span_s) => (at_s) => `${(100 * at_s) / span_s}%`;

function scrubbing(plane, times, span_s, clock) {
  const scrub = (event) => {
    const { left: from, width } = plane.current.getBoundingClientRect();
    const at_s = ((event.clientX - from) / Math.max(width, 1)) * span_s;
    clock.seek(times[indexAt(times, at_s)] ?? 0);
  };
  const onDown = (event) => {
    if (event.button !== 0) return;
    clock.pause();
    scrub(event);
    plane.current.focus({ preventScroll: true });
    plane.current.setPointerCapture(event.pointerId);
    event.preventDefault();
  };
  const onMove = (event) => {
    if (plane.current.hasPointerCapture(event.pointerId)) scrub(event);
  };
  return { onDown, onMove };
}

/**
 * Curves over time in one row; gaps where a value is unknown, a single known step is a dot.
 * curves: [{color: a property of CSS, at: step -> value}]; range: [least, greatest], null where nothing is known; told:
 * what the range is, in words; now: step -> the values there, in words. The arrays may change in place: `revision` then does.
 */
export function Plot({ label, curves, range, told, now, times, span_s, clock, revision }) {
  const canvas = useRef(null);
  const value = useRef(null);
  useLive([clock.at], () => {
    if (value.current) value.current.textContent = now(indexAt(times, clock.at.peek()));
  });
  useEffect(() => {
    const draw = () => drawCurves(canvas.current, curves, range, times, span_s);
    draw();
    const watch = new ResizeObserver(draw);
    watch.observe(canvas.current);
    window.addEventListener("themechange", draw);
    return () => {
      watch.disconnect();
      window.removeEventListener("themechange", draw);
    };
  }, [curves, span_s, revision]);
  return html`
    <canvas ref=${canvas} role="img" aria-label=${`${label}: ${told}`}></canvas>
    <span class="clip-value num" ref=${value}></span><span class="clip-range num">${told}</span>
  `;
}

function drawCurves(canvas, curves, range, times, span_s) {
  const [width, height] = [Math.round(canvas.clientWidth * devicePixelRatio), Math.round(PLOT_PX * devicePixelRatio)];
  if (!width) return;
  [canvas.width, canvas.height] = [width, height];
  if (!range) return;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const [low, high] = range;
  const y = (value) => height - 3 - (high > low ? Math.min((value - low) / (high - low), 1) : 0.5) * (height - 6);
  context.lineWidth = 1.5 * devicePixelRatio;
  context.lineJoin = "round";
  for (const { color, at } of curves) {
    context.strokeStyle = style.getPropertyValue(color);
    context.beginPath();
    let down = false;
    for (let n = 0; n < times.length; n++) {
      const value = at(n);
      const x = (times[n] / span_s) * width;
      if (!Number.isFinite(value)) down = false;
      else if (down) context.lineTo(x, y(value));
      else {
        context.moveTo(x, y(value));
        context.lineTo(x + 0.5, y(value));
        down = true;
      }
    }
    context.stroke();
  }
}

/** [least, greatest] of the known values; null where none is known. columns: lists of numbers. */
export function rangeOf(columns) {
  let [low, high] = [Infinity, -Infinity];
  for (const column of columns) {
    for (const value of column) {
      if (!Number.isFinite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : null;
}

/** Round times below the rows, at least 80 pixels apart. */
function Axis({ span_s, left }) {
  const row = useRef(null);
  const [width, setWidth] = useState(600);
  useEffect(() => {
    const watch = new ResizeObserver(() => setWidth(row.current?.clientWidth || 600));
    watch.observe(row.current);
    return () => watch.disconnect();
  }, []);
  const step_s = roundStep((span_s * 80) / width);
  const ticks = Array.from({ length: Math.floor(span_s / step_s + 1e-9) + 1 }, (_, n) => n * step_s);
  return html`<div class="clip-row clip-axis num" ref=${row} aria-hidden="true">
    ${ticks.map((at_s) => html`<span key=${at_s} class="clip-tick" style=${{ left: left(at_s) }}>${Number(at_s.toFixed(3))} s</span>`)}
  </div>`;
}

/** The smallest of 1, 2, 5, 10, ... (times a power of ten) that is at least `least`. */
export function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-3)));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= least - 1e-12);
}
