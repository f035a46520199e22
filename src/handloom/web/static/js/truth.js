// What was found in a rendered clip against its exact truth: numbers of one clip, and of two beside each other.
import { html } from "../vendor/handloom-vendor.js";
import { Wide } from "./details.js";
import { count, nameOf, short } from "./states.js";

/** The clip's numbers against its truth. truth: what /api/truth says. */
export function Truth({ truth }) {
  const known = truth.numbers.filter(({ value }) => value != null);
  const unknown = truth.numbers.filter(({ value }) => value == null);
  return html`
    <section class="panel clip-panel">
      <h2>Against the truth</h2>
      <p class="soft">${foundWords(truth)} Truth: <span class="mono">${truth.file}</span>.</p>
      <${Wide}>
        <table class="clip-quality">
          <thead><tr><th>Number</th><th>Value</th></tr></thead>
          <tbody>
            ${known.map((one) => html`<tr key=${one.name}>
              <th scope="row" title=${`${one.name}: ${one.about}`}>${titleOf(one)}</th>
              <td class="num">${short(one.value)} ${one.unit ?? ""}</td>
            </tr>`)}
          </tbody>
        </table>
      <//>
      ${unknown.length > 0 && html`<p class="soft">Not measured: ${unknown.map(titleOf).join(", ")}.</p>`}
      <p class="soft">Curves and medians are of the truly visible hands that were found; the others are gaps, not zeros.</p>
    </section>
  `;
}

const foundWords = ({ num_found: found, num_visible: visible }) =>
  visible ? `${found.toLocaleString("en")} of ${count(visible, "visible hand", "visible hands")} (a hand in a frame) found.` : "No hand is truly visible in this clip.";

const TITLES = {
  error_px: "median error in the image",
  camera_mm: "median error, camera frame",
  root_relative_mm: "the same, wrists aligned",
  pa_mm: "the same, best similarity",
  world_mm: "median error, world",
  coverage: "share of visible hands found",
  handedness: "share with the right side",
  false_hands: "hands where there is none, per visible hand",
  camera_rotation_deg: "error of the camera's turns",
  camera_ate_m: "error of the camera's places",
};

/** A number's name for the reader. */
export const titleOf = ({ name, unit }) => TITLES[name] ?? nameOf({ name, unit }).words;
