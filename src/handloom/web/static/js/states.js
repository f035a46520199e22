// What a page shows while it waits, when there is nothing, and when something failed; dialogs; small words.
import { html, useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { ApiError, trouble } from "./api.js";
import { useKeys } from "./keys.js";

/** While something is on its way. */
export const Loading = ({ what = "Loading" }) =>
  html`<div class="state" role="status"><span class="spinner" aria-hidden="true"></span> ${what} …</div>`;

/** A sentence for the page: errors begin small, as the command line prints them after a name. */
export const sentence = (text) => (/^[a-z]+[ ,:]/.test(text ?? "") ? text[0].toUpperCase() + text.slice(1) : text);

/** Something failed: what, and what to do next; `retry` is called by a button, and once the server is back, if it was away; children are other ways on. */
export function Failure({ error, retry, children }) {
  const away = useRef(false);
  useEffect(() => {
    if (error.status !== 0 || !retry) return undefined;
    return trouble.subscribe((now) => {
      if (!now && away.current) setTimeout(retry);
      away.current = Boolean(now);
    });
  }, [error]);
  return html`
    <div class="state failed" role="alert">
      <p class="state-title">${sentence(error.problem ?? error.message ?? String(error))}</p>
      ${error.hint && html`<p>${sentence(error.hint)}</p>`}
      ${retry && html`<button type="button" class="button" onClick=${retry}>Load again</button>`} ${children}
    </div>
  `;
}

/** The same within a page: what failed on one line, what to do next on another. */
export const Problem = ({ error, children }) => html`
  <div class="problem" role="alert">
    <p class="wrong">${sentence(error.problem ?? error.message ?? String(error))}</p>
    ${error.hint && html`<p>${sentence(error.hint)}</p>`} ${children}
  </div>
`;

/** Nothing to show, and what to do next. */
export const Empty = ({ title, hint, children }) => html`
  <div class="state">
    <p class="state-title">${title}</p>
    ${hint && html`<p>${hint}</p>`} ${children}
  </div>
`;

/** A script that is loaded when it is first needed: {script, failed}. load: imports it; name: what it shows, for the error. */
export function useScript(load, name) {
  const [state, setState] = useState({});
  useEffect(() => {
    load()?.then(
      (script) => setState({ script }),
      (error) => setState({ failed: new ApiError(`${name} could not be loaded`, error.message) }),
    );
  }, []);
  return state;
}

/** The place of a view in 3D while its script, the largest of the page, is on its way. shape: width over height; an episode's has its own. */
export const ComingSpace = ({ failed, shape = null }) => html`
  <figure class=${shape ? "clip-scene" : "clip-scene episode-path"}>
    <div class="clip-space clip-waiting" style=${shape ? { aspectRatio: `${shape}` } : {}}>
      <p role=${failed ? "alert" : "status"}>${failed ? `${sentence(failed.problem)} (${failed.hint}): load the page again` : "Loading the 3D view …"}</p>
    </div>
  </figure>
`;

/** A dialog over the page; Escape, its button and a click beside it close it. The focus goes back to where it was. */
export function Dialog({ title, close, side = false, children }) {
  const box = useRef(null);
  useKeys(title, [{ keys: ["Escape"], about: "close", run: close, typing: true }], { modal: true });
  useEffect(() => {
    const dialog = box.current;
    dialog.showModal();
    return () => dialog.close(); // a dialog that is only taken away leaves the focus nowhere
  }, []);
  return html`
    <dialog
      ref=${box}
      class=${side ? "dialog side" : "dialog"}
      aria-label=${title}
      onCancel=${(event) => (event.preventDefault(), close())}
      onClick=${(event) => event.target === box.current && close()}
    >
      <div class="dialog-inside">
        <header class="dialog-head">
          <h2>${title}</h2>
          <button type="button" class="button quiet" onClick=${close} aria-label=${`Close ${title}`}>✕</button>
        </header>
        ${children}
      </div>
    </dialog>
  `;
}

/** `1 clip`, `1,234 clips`. */
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** A number of quality for the reader: four digits, unknown is a dash. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(size < 0.001 ? 2 : 3)));
}

/** Seconds as `4.2 s`, `1:05`, `1:02:03`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
}

/** A length of many clips in the unit of its size: `17.3 s`, `4.2 min`, `1,234 h`. */
export function lengthWords(seconds) {
  const [size, unit] = [[3600, "h"], [60, "min"]].find(([size]) => seconds >= size) ?? [1, "s"];
  return `${short(seconds / size)} ${unit}`;
}

const UNITS = { px: "px", mm: "mm", m: "m", s: "s", m_s: "m/s", deg: "°", rad: "rad" };

// Where the column's own name does not say it, or two columns differ in their unit alone.
const WORDS = {
  duration_s: "duration", num_frames: "frames", num_cuts: "cuts",
  hand_jitter_px: "hand jitter in the image", hand_jitter_mm: "hand jitter in 3D", hand_reprojection_px: "hand reprojection error",
  hand_bone_cv: "variation of bone lengths", hand_sigma_mm: "uncertainty of hand distance", hand_max_speed_m_s: "hand max speed",
  hand_track_residual_px: "hands against tracks", hand_view_log_odds: "log odds of a head camera", hand_scale_sigma: "uncertainty of hand scale",
  hand_length_found_m: "hand length found", hand_length_found_sigma: "uncertainty of hand length", metric_trust: "trust in metres",
  focal_found: "focal length found", focal_found_sigma: "uncertainty of focal length", camera_error_px: "camera path error",
  camera_explained: "corners explained by the path", camera_parallax_px: "camera parallax", camera_scale_sigma: "uncertainty of path scale",
  camera_residual_px: "tracks at rest against the path", camera_coverage: "frames with a camera pose", track_survival: "tracks that last",
  track_mean_visible: "visible tracks", track_lost_step: "most tracks lost in a step", share_flagged: "flagged frames", duplicate_share: "repeated frames",
  hand_coverage: "frames with a hand", hand_coverage_left: "frames with the left hand", hand_coverage_right: "frames with the right hand",
};

/** A number of quality for the reader: its name in words without its unit, and the unit. */
export function nameOf({ name, unit }) {
  const [, stem, suffix] = /^(.*?)(?:_(px|mm|m_s|m|s|deg|rad))?$/.exec(name);
  return { words: WORDS[name] ?? stem.replaceAll("_", " "), unit: unit || UNITS[suffix] || "" };
}

/** Its value for the reader: `0.32 m/s`; lengths of clips as elsewhere. */
export function valueWords(name, value) {
  if (value === null || value === undefined) return "unknown";
  const { unit } = nameOf({ name });
  return name === "duration_s" ? duration(value) : `${short(value)}${unit && ` ${unit}`}`;
}

/** The same on one line: `hand_max_speed_m_s` as `hand max speed (m/s)`. */
export function nameWords(name) {
  const { words, unit } = nameOf({ name });
  return unit ? `${words} (${unit})` : words;
}
