// States and actions of an episode over time: one row for each number; an action of the same name lies over its state.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { useLive } from "./player.js";
import { indexAt } from "./row.js";
import { short } from "./states.js";
import { Axis, scrubbing } from "./timeline.js";

const SHOWN = 24; // rows, before the reader asks for all
const PLOT_PX = 44;

const plainName = (name) => name?.replace(/^observation\./, "").replace(/^(state|action|environment_state)[._]/, "");

/**
 * Rows of an episode: `[{label, unit, state: index or null, action: index or null}]`. An action lies over the state of
 * its name; without names, where there are as many actions as states, over the one of its number.
 */
export function rowsOf({ state_names: states, state_units: stateUnits, action_names: actions, action_units: actionUnits }, numStates, numActions) {
  const left = new Set(Array.from({ length: numActions }, (_, n) => n));
  const rows = Array.from({ length: numStates }, (_, n) => {
    const name = plainName(states?.[n]);
    const named = name !== undefined && actions ? actions.findIndex((one, k) => left.has(k) && plainName(one) === name) : -1;
    const action = named >= 0 ? named : !states && !actions && numStates === numActions ? n : null;
    if (action !== null) left.delete(action);
    return { label: name ?? `state ${n}`, unit: stateUnits?.[n] ?? null, state: n, action };
  });
  for (const n of left) rows.push({ label: `${plainName(actions?.[n]) ?? n} (action)`, unit: actionUnits?.[n] ?? null, state: null, action: n });
  return rows;
}

/** The curves, on the clock; a press goes to that step. arrays: frame_s (T), state (T, S), action (T, A), or none of them. */
export function Curves({ episode, arrays, clock }) {
  const plane = useRef(null);
  const head = useRef(null);
  const [all, setAll] = useState(false);
  const times = arrays.frame_s.data;
  const rows = useMemo(() => rowsOf(episode, arrays.state?.shape[1] ?? 0, arrays.action?.shape[1] ?? 0), [episode, arrays]);
  const span_s = Math.max(episode.duration_s ?? 0, times[times.length - 1] ?? 0, 1e-6);
  const left = (at_s) => `${(100 * at_s) / span_s}%`;
  const shown = all ? rows : rows.slice(0, SHOWN);
  useLive([clock.at], () => {
    const at_s = clock.at.peek();
    if (!head.current) return;
    head.current.style.transform = `translateX(${left(at_s)})`;
    const index = indexAt(times, at_s);
    plane.current.setAttribute("aria-valuenow", index + 1);
    plane.current.setAttribute("aria-valuetext", `step ${index + 1} of ${times.length}, ${at_s.toFixed(2)} seconds`);
  });
  const { onDown, onMove } = scrubbing(plane, times, span_s, clock);
  if (!rows.length) return html`<p class="soft episode-note">No states and no actions are known of this episode.</p>`;
  return html`
    <section aria-label="States and actions">
      <p class="legend episode-legend">
        ${arrays.state && html`<span><i class="episode-state"></i> state</span>`} ${arrays.action && html`<span><i class="episode-action"></i> action</span>`}
      </p>
      <div class="clip-timeline">
        <div class="clip-labels">
          ${shown.map((row) => html`<div key=${row.label} class="clip-label clip-plot" title=${row.label}>${row.label}</div>`)}
          <div class="clip-label clip-axis"></div>
        </div>
        <div class="clip-plane" ref=${plane} role="slider" tabindex="0" data-keys="page" aria-label="Time" aria-valuemin="1" aria-valuemax=${Math.max(times.length, 1)}
          onPointerDown=${onDown} onPointerMove=${onMove}>
          ${shown.map((row) => html`<${Plot} key=${row.label} row=${row} arrays=${arrays} clock=${clock} span_s=${span_s} />`)}
          <${Axis} span_s=${span_s} left=${left} />
          <div class="clip-heads"><div class="clip-head" ref=${head}></div></div>
        </div>
      </div>
      ${rows.length > SHOWN && html`<p class="episode-note"><button type="button" class="button" aria-pressed=${all} onClick=${() => setAll(!all)}>${all ? `Show the first ${SHOWN}` : `Show all ${rows.length} numbers`}</button></p>`}
    </section>
  `;
}

/** One number of every step: `(T,)`, NaN unknown. */
export const columnOf = ({ data, shape: [length, width] }, index) => Float32Array.from({ length }, (_, n) => data[n * width + index]);

/** [least, greatest] of the known values; null where none is known. */
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

function Plot({ row, arrays, clock, span_s }) {
  const canvas = useRef(null);
  const value = useRef(null);
  const times = arrays.frame_s.data;
  const curves = useMemo(
    () => ["state", "action"].filter((kind) => row[kind] !== null && arrays[kind]).map((kind) => ({ kind, column: columnOf(arrays[kind], row[kind]) })),
    [row, arrays],
  );
  const range = useMemo(() => rangeOf(curves.map(({ column }) => column)), [curves]);
  useLive([clock.at], () => {
    const index = indexAt(times, clock.at.peek());
    if (value.current) value.current.textContent = curves.map(({ column }) => short(column[index])).join(" | ");
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
  }, [curves, span_s]);
  const told = range ? `${short(range[0])} … ${short(range[1])}${row.unit ? ` ${row.unit}` : ""}` : "unknown";
  return html`
    <div class="clip-row clip-plot">
      <canvas ref=${canvas} role="img" aria-label=${`${row.label}: ${told}`}></canvas>
      <span class="episode-value num" ref=${value}></span><span class="episode-range num">${told}</span>
    </div>
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
  const y = (value) => height - 3 - (high > low ? (value - low) / (high - low) : 0.5) * (height - 6);
  context.lineWidth = 1.5 * devicePixelRatio;
  context.lineJoin = "round";
  for (const { kind, column } of curves) {
    context.strokeStyle = style.getPropertyValue(kind === "state" ? "--left-text" : "--right-text");
    context.beginPath();
    let down = false;
    column.forEach((value, n) => {
      const x = (times[n] / span_s) * width;
      if (!Number.isFinite(value)) down = false;
      else if (down) context.lineTo(x, y(value));
      else {
        context.moveTo(x, y(value));
        context.lineTo(x + 0.5, y(value)); // a single known step is a dot
        down = true;
      }
    });
    context.stroke();
  }
}
