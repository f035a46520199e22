// Trainings: the loss of each, its settings and checkpoint; the whole report opens as a page of its own.
import { html, useEffect, useState } from "../vendor/handloom-vendor.js";
import { get } from "./api.js";
import { Facts } from "./details.js";
import { duration, Loading, short } from "./states.js";

const AGAIN_MS = 5000; // while it trains
const [WIDTH, HEIGHT] = [320, 120];

/** All trainings, the newest first. open: whether the list is. */
export function Reports({ open }) {
  const [found, setFound] = useState(null);
  const [failed, setFailed] = useState(null);
  useEffect(() => {
    get("/api/reports").then(setFound, setFailed);
  }, []);
  return html`
    <details class="episodes-reports" open=${open}>
      <summary>Trainings and their reports${found ? ` (${found.reports.length})` : ""}</summary>
      ${failed && html`<p class="wrong" role="alert">${failed.problem}</p>`}
      ${found && !found.reports.length && html`<p class="soft">There is no training below ${found.folders.join(", ")}: <code>handloom train --out</code> makes one.</p>`}
      ${found?.reports.map((one) => html`<${Training} key=${`${one.number}/${one.place}`} one=${one} />`)}
    </details>
  `;
}

function Training({ one }) {
  const [open, setOpen] = useState(false);
  const [told, setTold] = useState(null);
  const [failed, setFailed] = useState(null);
  useEffect(() => {
    if (!open) return undefined;
    const abort = new AbortController();
    let timer = 0;
    const ask = () => get("/api/report", { number: one.number, place: one.place }, { signal: abort.signal }).then(
      (answer) => {
        setTold(answer);
        setFailed(null);
        if (!answer.ended) timer = setTimeout(ask, AGAIN_MS);
      },
      (error) => error.name !== "AbortError" && setFailed(error),
    );
    ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [open]);
  return html`
    <details class="training" onToggle=${(event) => setOpen(event.target.open)}>
      <summary>${one.title ?? one.path} <span class="soft mono">${one.folder.split("/").pop()}/${one.path}</span> <span class="soft num">${new Date(1000 * one.changed_s).toLocaleString()}</span> ${!one.url && html`<span class="flag">no report yet</span>`}</summary>
      ${failed && html`<p class="wrong" role="alert">${failed.problem} ${failed.hint}</p>`}
      ${open && !told && !failed && html`<${Loading} what="Reading the training" />`}
      ${told && html`
        <p>${one.url ? html`<a class="button" href=${one.url}>Open the report</a>` : html`<span class="soft">It trains, or was stopped: its report is written at the end. <code>handloom train</code> with the same --out goes on.</span>`}</p>
        ${told.variants.map((variant) => html`<${Variant} key=${variant.name} variant=${variant} />`)}
        ${!told.variants.length && html`<p class="soft">This report has no losses: they are of <code>handloom train</code> alone.</p>`}
        <details><summary>Settings (${Object.keys(told.settings).length})</summary><${Facts} rows=${Object.entries(told.settings).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])} /></details>`}
    </details>
  `;
}

function Variant({ variant }) {
  const { name, end, curves, steps, at_s, from_step } = variant;
  const held = end?.held_out?.loss;
  return html`
    <section class="training-variant" aria-label=${name}>
      <${Losses} name=${name} curves=${curves} />
      <div>
        <h3>${name}</h3>
        <${Facts} rows=${[
          ["Steps", steps ?? end?.steps],
          ["Time", at_s ?? end?.train_s ? duration(at_s ?? end.train_s) : null],
          ["Held-out loss", held === undefined ? null : `${short(held)}${end.held_out_windows ? ` of ${end.held_out_windows.toLocaleString("en")} windows` : ""}`],
          ["Epochs", end?.epochs],
          ["Checkpoint", end?.checkpoint && html`<span class="mono">${end.checkpoint}</span>`],
          ["Versions of data", end?.data_versions?.join(", ")],
          ["Machine", end?.hardware && [end.hardware.gpu ?? end.hardware.cpu, end.hardware.cores && `${end.hardware.cores} cores`].filter(Boolean).join(", ")],
          ["Packages", end?.versions && Object.entries(end.versions).map(([one, version]) => `${one} ${version}`).join(", ")],
          ["Shown", from_step > 1 ? `from step ${from_step.toLocaleString("en")} on: the history before is longer than is read` : null],
        ].filter(([, value]) => value !== null && value !== undefined && value !== "")} />
      </div>
    </section>
  `;
}

/** `{x, y, low, high, log}` between steps, losses and pixels; y is logarithmic where losses span a factor of 20. Null: no point. */
export function axesOf(curves) {
  const points = curves.flatMap((curve) => curve.points);
  if (!points.length) return null;
  const values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const last = Math.max(...points.map(([step]) => step), 1);
  const log = low > 0 && high / low > 20;
  const scale = log ? Math.log : (value) => value;
  const span = scale(high) - scale(low);
  return { last, low, high, log, x: (step) => (WIDTH * step) / last, y: (value) => HEIGHT - 4 - (span > 0 ? (scale(value) - scale(low)) / span : 0.5) * (HEIGHT - 8) };
}

function Losses({ name, curves }) {
  const axes = axesOf(curves);
  if (!axes) return html`<p class="soft">No loss is known yet.</p>`;
  const { x, y, low, high, last, log } = axes;
  const words = curves.map((curve) => `${curve.name} ${short(curve.points[0][1])} to ${short(curve.points[curve.points.length - 1][1])}`).join("; ");
  return html`
    <figure class="losses">
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`Loss of ${name}: ${words}`}>
        ${curves.map((curve, n) => html`<polyline key=${curve.name} class=${n ? "losses-held" : "losses-training"} points=${curve.points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ")} />`)}
      </svg>
      <span class="losses-high num">${short(high)}</span><span class="losses-low num">${short(low)}</span>
      <figcaption class="legend">
        ${curves.map((curve, n) => html`<span key=${curve.name}><i class=${`line ${n ? "losses-held" : "losses-training"}`}></i> ${curve.name}</span>`)}
        <span class="num">${last.toLocaleString("en")} steps${log ? ", logarithmic" : ""}</span>
      </figcaption>
    </figure>
  `;
}
