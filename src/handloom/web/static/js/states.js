// What a page shows while it waits, when there is nothing, and when something failed; dialogs; small words.
import { html, useEffect, useRef } from "../vendor/handloom-vendor.js";
import { useKeys } from "./keys.js";

/** While something is on its way. */
export const Loading = ({ what = "Loading" }) =>
  html`<div class="state" role="status"><span class="spinner" aria-hidden="true"></span> ${what} …</div>`;

/** Something failed: what, and what to do next; `retry` is called by a button. */
export const Failure = ({ error, retry }) => html`
  <div class="state failed" role="alert">
    <p class="state-title">${error.problem ?? error.message ?? String(error)}</p>
    ${error.hint && html`<p>${error.hint}</p>`}
    ${retry && html`<button type="button" class="button" onClick=${retry}>Try again</button>`}
  </div>
`;

/** Nothing to show, and what to do next. */
export const Empty = ({ title, hint, children }) => html`
  <div class="state">
    <p class="state-title">${title}</p>
    ${hint && html`<p>${hint}</p>`} ${children}
  </div>
`;

/** A dialog over the page; Escape, its button and a click beside it close it. The focus goes back to where it was. */
export function Dialog({ title, close, side = false, children }) {
  const box = useRef(null);
  useKeys(title, [{ keys: ["Escape"], about: "close", run: close, typing: true }], { modal: true });
  useEffect(() => {
    box.current.showModal();
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

const UNITS = { px: "px", mm: "mm", m: "m", s: "s", m_s: "m/s", deg: "°", rad: "rad" };

/** A number of quality for the reader: its name in words without its unit, and the unit. */
export function nameOf({ name, unit }) {
  const [, stem, suffix] = /^(.*?)(?:_(px|mm|m_s|m|s|deg|rad))?$/.exec(name);
  return { words: stem.replaceAll("_", " "), unit: unit || UNITS[suffix] || "" };
}

/** The same on one line: `hand_max_speed_m_s` as `hand max speed (m/s)`. */
export function nameWords(name) {
  const { words, unit } = nameOf({ name });
  return unit ? `${words} (${unit})` : words;
}
