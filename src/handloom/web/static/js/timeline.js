// The time of a clip from left to right: segments of each hand, frames with flags, confidence and speed of the hands.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { useLive } from "./player.js";
import { indexAt } from "./row.js";

const HANDS = ["left", "right"];
const PLOT_PX = 44;

/** One clip's lanes on the clock. revision: changes when arrays have come. */
export function Timeline({ clip, clock, revision }) {
  const plane = useRef(null);
  const head = useRef(null);
  const { facts } = clip;
  const span_s = Math.max(clock.duration_s, clip.duration_s, 1e-6);
  const left = (at_s) => `${(100 * at_s) / span_s}%`;

  useLive([clock.at], () => {
    const at_s = clock.at.peek();
    if (!head.current) return;
    head.current.style.transform = `translateX(${left(at_s)})`;
    const index = indexAt(clip.times, at_s);
    const { current: slider } = plane;
    slider.setAttribute("aria-valuenow", index + 1);
    slider.setAttribute("aria-valuetext", `frame ${index + 1} of ${clip.length}, ${at_s.toFixed(2)} seconds`);
  });

  const { onDown, onMove } = scrubbing(plane, clip.times, span_s, clock);

  const lanes = useMemo(() => laneRows(facts.segments, clip), [clip, revision]);
  const flags = useMemo(() => flagRows(facts.flags), [clip]);
  const rows = [
    ...lanes.map(({ hand, segments }) => ({
      key: `hand ${hand}`,
      label: hand === "left" ? "Left hand" : "Right hand",
      className: `clip-lane ${hand}`,
      body: segments.length
        ? segments.map((segment) => html`<${Segment} segment=${segment} clip=${clip} left=${left} clock=${clock} />`)
        : html`<span class="clip-none">no actions found</span>`,
    })),
    ...flags.map(({ name, about, runs, frames }) => ({
      key: `flag ${name}`,
      label: words(name),
      className: "clip-flags",
      body: runs.map(
        ([from, to]) => html`<span class="clip-flag" title=${`${about ?? words(name)} (${frames} frames)`} style=${{ left: left(clip.times[from] ?? 0), width: left((clip.times[to] ?? clip.duration_s) - (clip.times[from] ?? 0)) }}></span>`,
      ),
    })),
  ];
  return html`
    <section class="clip-timeline" aria-label="Timeline">
      <div class="clip-labels" aria-hidden="true">
        ${rows.map(({ key, label, className }) => html`<div key=${key} class=${`clip-label ${className}`}>${label}</div>`)}
        ${PLOTS.map(({ name, label }) => clip.arrays[name] && html`<div key=${name} class="clip-label clip-plot">${label}</div>`)}
        <div class="clip-label clip-axis"></div>
      </div>
      <div class="clip-plane" ref=${plane} role="slider" tabindex="0" data-keys="page" aria-label="Time" aria-valuemin="1" aria-valuemax=${Math.max(clip.length, 1)}
        onPointerDown=${onDown} onPointerMove=${onMove}>
        ${rows.map(({ key, className, body }) => html`<div key=${key} class=${`clip-row ${className}`}>${body}</div>`)}
        ${PLOTS.map(
          (plot) => clip.arrays[plot.name] && html`<${Plot} key=${plot.name} plot=${plot} clip=${clip} span_s=${span_s} revision=${revision} />`,
        )}
        <${Axis} span_s=${span_s} left=${left} />
        <div class="clip-heads"><div class="clip-head" ref=${head}></div></div>
      </div>
    </section>
    ${facts.segments_judged && html`<p class="soft">${facts.segments_judged}</p>`}
    ${facts.segments == null && html`<p class="soft">No actions are known: the stage <code>segments</code> has not run on this clip, or its hands have no place.</p>`}
  `;
}

/** What a press and a drag on a plane of time do: the clock goes to that step. times: (T,); span_s: the plane's width. */
export function scrubbing(plane, times, span_s, clock) {
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

function Segment({ segment, clip, left, clock }) {
  const from_s = segment.start_s - clip.first_s;
  const contact = segment.contact_start_s != null && segment.contact_end_s != null;
  const about = `${segment.text}${segment.unsure ? " (unsure)" : ""}, ${segment.start_s.toFixed(2)} to ${segment.end_s.toFixed(2)} s`;
  const place = (start_s, end_s) => ({ left: left(Math.max(start_s - clip.first_s, 0)), width: left(Math.max(end_s - Math.max(start_s, clip.first_s), 0)) });
  return html`
    <span class=${`clip-segment ${segment.phase ?? "free"} ${segment.unsure ? "unsure" : ""}`} style=${place(segment.start_s, segment.end_s)} title=${about}
      onDblClick=${() => clock.seek(from_s)}>${segment.text}${segment.unsure ? " ?" : ""}</span>
    ${contact && html`<span class="clip-contact" style=${place(segment.contact_start_s, segment.contact_end_s)} title="contact"></span>`}
  `;
}

/** The hands that were seen or act, each with its segments. */
function laneRows(segments, clip) {
  if (segments == null) return [];
  const visible = clip.arrays.hand_visible?.data;
  const seen = HANDS.filter((_, hand) => visible?.some((value, n) => n % 2 === hand && value));
  return HANDS.filter((hand) => seen.includes(hand) || segments.some((one) => one.hand === hand)).map((hand) => ({
    hand,
    segments: segments.filter((one) => one.hand === hand),
  }));
}

/** [{name, about, frames: how many, runs: [[first, after the last]]}] of the flags that a clip has. */
export function flagRows(flags) {
  return (flags ?? [])
    .filter(({ frames }) => frames.length)
    .map(({ name, about, frames }) => {
      const runs = [];
      for (const frame of frames) {
        const last = runs[runs.length - 1];
        if (last && last[1] === frame) last[1] = frame + 1;
        else runs.push([frame, frame + 1]);
      }
      return { name, about, frames: frames.length, runs };
    });
}

const words = (name) => {
  const text = name.toLowerCase().replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
};

const PLOTS = [
  { name: "hand_confidence", label: "Confidence", top: () => 1, unit: "" },
  { name: "hand_speed_m_s", label: "Hand speed", top: (values) => Math.max(0.1, quantile(values, 0.99) * 1.1), unit: " m/s" },
];

function quantile(values, share) {
  const known = values.filter(Number.isFinite).sort();
  return known.length ? known[Math.min(known.length - 1, Math.floor(share * known.length))] : 0;
}

/** A curve for each hand over time; gaps where a value is unknown. */
function Plot({ plot, clip, span_s, revision }) {
  const canvas = useRef(null);
  const values = clip.arrays[plot.name];
  const top = plot.top(values.data);
  useEffect(() => {
    const draw = () => drawPlot(canvas.current, values.data, clip.times, span_s, top);
    draw();
    const watch = new ResizeObserver(draw);
    watch.observe(canvas.current);
    window.addEventListener("themechange", draw);
    return () => {
      watch.disconnect();
      window.removeEventListener("themechange", draw);
    };
  }, [clip, span_s, revision]);
  return html`<div class="clip-row clip-plot"><canvas ref=${canvas} role="img" aria-label=${plot.label}></canvas><span class="clip-top num">${top.toPrecision(2)}${plot.unit}</span></div>`;
}

function drawPlot(canvas, data, times, span_s, top) {
  const [width, height] = [Math.round(canvas.clientWidth * devicePixelRatio), Math.round(PLOT_PX * devicePixelRatio)];
  if (!width) return;
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  context.lineWidth = 1.5 * devicePixelRatio;
  context.lineJoin = "round";
  for (const hand of [0, 1]) {
    context.strokeStyle = style.getPropertyValue(hand ? "--right-text" : "--left-text");
    context.beginPath();
    let down = false;
    for (let n = 0; n < times.length; n++) {
      const value = data[2 * n + hand];
      const x = (times[n] / span_s) * width;
      const y = height - 1 - Math.min(value / top, 1) * (height - 3);
      if (!Number.isFinite(value)) down = false;
      else if (down) context.lineTo(x, y);
      else {
        context.moveTo(x, y);
        context.lineTo(x + 0.5, y); // a single known frame is a dot
        down = true;
      }
    }
    context.stroke();
  }
}

/** Round times below the lanes, at least 80 pixels apart. */
export function Axis({ span_s, left }) {
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
