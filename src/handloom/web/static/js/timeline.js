// The time of a clip: segments of each hand, frames with flags, confidence and speed of the hands, errors against the truth.
import { html, useMemo, useRef } from "../vendor/handloom-vendor.js";
import { useLive } from "./clock.js";
import { indexAt } from "./row.js";
import { leftOf, Plot, TimePlane } from "./timeplane.js";
import { short } from "./states.js";

const HANDS = ["left", "right"];

/** One clip's lanes on the clock. revision: changes when arrays have come; truth: of the clip, once it has come. */
export function Timeline({ clip, clock, revision, truth }) {
  const { facts } = clip;
  const span_s = Math.max(clock.duration_s, clip.duration_s, 1e-6);
  const left = leftOf(span_s);
  const lanes = useMemo(() => laneRows(facts.segments, clip), [clip, revision]);
  const flags = useMemo(() => flagRows(facts.flags), [clip]);
  const plots = useMemo(() => plotRows(clip, truth), [clip, revision, truth]);
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
      label: flagWords(name),
      title: about,
      className: "clip-flags",
      body: runs.map(
        ([from, to]) => html`<span class="clip-flag" title=${`${about ?? flagWords(name)} (${frames} frames)`} style=${{ left: left(clip.times[from] ?? 0), width: left((clip.times[to] ?? clip.duration_s) - (clip.times[from] ?? 0)) }}></span>`,
      ),
    })),
    ...plots.map(({ name, label, about, ...plot }) => ({
      key: name,
      label,
      title: about,
      className: "clip-plot",
      body: html`<${Plot} label=${label} times=${clip.times} span_s=${span_s} clock=${clock} revision=${revision} ...${plot} />`,
    })),
  ];
  return html`
    <section aria-label="Timeline">
      <${TimePlane} rows=${rows} times=${clip.times} span_s=${span_s} clock=${clock} end_s=${clip.duration_s} />
      ${flags.length > 0 && html`<${FlagsNow} flags=${facts.flags} clip=${clip} clock=${clock} />`}
      ${facts.segments_judged && html`<p class="soft">${facts.segments_judged}</p>`}
      ${facts.segments == null && html`<p class="soft">No actions are known: the stage <code>segments</code> has not run on this clip, or its hands have no place.</p>`}
    </section>
  `;
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

/** A flag's name for the reader: `HAND_OFF_TRACKS_LEFT` as `Left hand: off tracks`. */
export function flagWords(name) {
  const [, what, hand] = /^HAND_(.*)_(LEFT|RIGHT)$/.exec(name) ?? [null, name];
  const plain = what.toLowerCase().replaceAll("_", " ");
  const text = hand ? `${hand.toLowerCase()} hand: ${plain}` : plain;
  return text[0].toUpperCase() + text.slice(1);
}

/** What the flags of the frame on the clock mean. */
function FlagsNow({ flags, clip, clock }) {
  const line = useRef(null);
  const of = useMemo(() => flags.map(({ about, name, frames }) => [about ?? flagWords(name), new Set(frames)]), [flags]);
  useLive([clock.at], () => {
    const frame = indexAt(clip.times, clock.at.peek());
    const told = of.filter(([, frames]) => frames.has(frame)).map(([about]) => about);
    if (line.current) line.current.textContent = told.length ? `This frame: ${told.join("; ")}.` : "This frame has no flag.";
  });
  return html`<p class="soft clip-flags-now" ref=${line}></p>`;
}

const PLOTS = [
  { name: "hand_confidence", label: "Confidence", unit: "", most: () => 1 },
  { name: "hand_speed_m_s", label: "Hand speed", unit: "m/s", most: (values) => Math.max(0.1, quantile(values, 0.99) * 1.1) },
  { name: "error_px", label: "Error, image", unit: "px", most: (values) => quantile(values, 1) * 1.05, about: "mean distance of a hand's keypoints from the true ones, source pixels" },
  { name: "error_camera_mm", label: "Error, camera", unit: "mm", most: (values) => quantile(values, 1) * 1.05, about: "mean distance of a hand's keypoints from the true ones, in the camera's frame" },
  { name: "error_world_mm", label: "Error, world", unit: "mm", most: (values) => quantile(values, 1) * 1.05, about: "the same in the world, laid on the true one by a rigid motion: errors of the camera path count" },
];

/** What `Plot` takes, of each number of a frame and a hand that the clip has; (T, 2) each. */
function plotRows(clip, truth) {
  const arrays = { ...clip.arrays, ...truth?.arrays };
  if (clip.facts.camera?.path_source !== "estimated") delete arrays.error_world_mm; // the camera's then is the same
  return PLOTS.filter(({ name }) => arrays[name]).map(({ name, label, unit, most, about }) => {
    const { data } = arrays[name];
    const known = data.some(Number.isFinite);
    const top = most(data);
    const told = (value) => (Number.isFinite(value) ? short(value) : "–");
    return {
      name,
      label,
      about,
      curves: [0, 1].map((hand) => ({ color: hand ? "--right-text" : "--left-text", at: (n) => data[2 * n + hand] })),
      range: known ? [0, top] : null,
      told: known ? `${short(top)} ${unit}` : "unknown",
      now: (n) => (known ? `L ${told(data[2 * n])} | R ${told(data[2 * n + 1])}` : ""),
    };
  });
}

function quantile(values, share) {
  const known = values.filter(Number.isFinite).sort();
  return known.length ? known[Math.min(known.length - 1, Math.floor(share * known.length))] : 0;
}
