// In what two clips, or two versions of one, differ: settings and versions of their runs, stages, facts, numbers.
import { html, useEffect, useState } from "../vendor/handloom-vendor.js";
import { get } from "./api.js";
import { Wide } from "./details.js";
import { nameOf, short } from "./states.js";
import { titleOf } from "./truth.js";

/** clips: A and B; truths: what /api/truth says of each, or null. */
export function Differences({ clips, truths }) {
  const [a, b] = clips.map(({ facts }) => facts);
  const numbers = differences(a.quality, b.quality);
  const errors = differences(truths[0]?.numbers, truths[1]?.numbers);
  return html`
    <div class="clip-panels">
      <${Making} a=${a} b=${b} />
      ${errors.length > 0 && html`<${Numbers} title="Both against the truth" rows=${errors} titleOf=${titleOf} />`}
      <${Numbers} title="Quality of both" rows=${numbers} titleOf=${(one) => nameOf(one).words} />
    </div>
  `;
}

/** How they were made, as far as that differs. */
function Making({ a, b }) {
  const settings = a.run?.settings && b.run?.settings ? changes(a.run.settings, b.run.settings) : null;
  const versions = changes(a.run?.versions ?? {}, b.run?.versions ?? {});
  const facts = factChanges(a, b);
  const stages = stageChanges(a.stages, b.stages);
  const meanings = useMeanings(settings?.length > 0);
  const unknown = ["A", "B"].filter((_, n) => !(n ? b : a).run?.settings);
  return html`
    <section class="panel clip-panel">
      <h2>How they were made</h2>
      ${settings === null
        ? html`<p class="soft">The settings of ${unknown.join(" and ")} are not known: the table of runs does not have the run.</p>`
        : settings.length
          ? html`<${Changes} head="Setting" rows=${settings.map((one) => ({ ...one, title: [one.name, meanings[one.name]].filter(Boolean).join(": "), words: settingWords(one.name) }))} />`
          : html`<p>Both were made with the same settings.</p>`}
      ${versions.length > 0 && html`<${Changes} head="Version of" rows=${versions.map((one) => ({ ...one, words: one.name.replaceAll(".", ": ") }))} />`}
      ${facts.length > 0 && html`<${Changes} head="Fact" rows=${facts.map((one) => ({ ...one, words: one.name }))} />`}
      <p class="soft">${stages.length ? `Stages that were computed otherwise: ${stages.join(", ")}.` : "All stages were computed in the same way."}</p>
    </section>
  `;
}

const Changes = ({ head, rows }) => html`
  <${Wide}>
    <table class="clip-quality">
      <thead><tr><th>${head}</th><th>A</th><th>B</th></tr></thead>
      <tbody>${rows.map(({ name, words, title, a, b }) => html`<tr key=${name}><th scope="row" title=${title ?? name}>${words}</th><td>${valueWords(a)}</td><td>${valueWords(b)}</td></tr>`)}</tbody>
    </table>
  <//>
`;

function Numbers({ title, rows, titleOf: named }) {
  return html`
    <section class="panel clip-panel">
      <h2>${title}</h2>
      ${rows.length
        ? html`<${Wide}><table class="clip-quality">
            <thead><tr><th>Number</th><th>A</th><th>B</th><th>B − A</th></tr></thead>
            <tbody>
              ${rows.map(({ name, unit, a, b }) => html`<tr key=${name}>
                <th scope="row" title=${name}>${named({ name, unit })}${unit ? ` (${unit})` : ""}</th>
                <td class="num">${short(a)}</td><td class="num">${short(b)}</td><td class="num">${a == null || b == null ? "–" : `${b > a ? "+" : ""}${short(b - a)}`}</td>
              </tr>`)}
            </tbody>
          </table><//>`
        : html`<p class="soft">No number is known of either clip.</p>`}
    </section>
  `;
}

/** What settings mean, by name; {} until it is known. It is asked for once it is wanted. */
function useMeanings(wanted) {
  const [meanings, setMeanings] = useState({});
  useEffect(() => {
    if (wanted) get("/api/settings").then((told) => setMeanings(told.meanings), () => {}); // names alone do, too
  }, [wanted]);
  return meanings;
}

/** [{name, unit, a, b}] of the numbers that at least one of two lists knows, in the order of the first. */
export function differences(first, second) {
  const of = (list, name) => (list ?? []).find((one) => one.name === name);
  const names = [...new Set([...(first ?? []), ...(second ?? [])].map(({ name }) => name))];
  return names
    .map((name) => ({ name, unit: nameOf(of(first, name) ?? of(second, name)).unit, a: of(first, name)?.value ?? null, b: of(second, name)?.value ?? null }))
    .filter(({ a, b }) => a != null || b != null);
}

/** [{name: "hands.min_confidence", a, b}] of what differs between two nested objects; undefined: it is not there. */
export function changes(first, second, prefix = "") {
  const nested = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  return [...new Set([...Object.keys(first), ...Object.keys(second)])].flatMap((key) => {
    const [a, b, name] = [first[key], second[key], `${prefix}${key}`];
    if (nested(a) || nested(b)) return changes(nested(a) ? a : {}, nested(b) ? b : {}, `${name}.`);
    return JSON.stringify(a) === JSON.stringify(b) ? [] : [{ name, a, b }];
  });
}

/** `hands.min_tracking_confidence` as `hands: min tracking confidence`. */
export const settingWords = (name) => name.split(".").map((part) => part.replaceAll("_", " ")).join(": ");

const valueWords = (value) => (value === undefined || value === null || value === "" ? "–" : value === true ? "yes" : value === false ? "no" : typeof value === "number" ? short(value) : typeof value === "string" ? value : JSON.stringify(value));

/** [{name, a, b}] of what the pages say of a clip beside its numbers, where it differs. */
export function factChanges(first, second) {
  const facts = ({ facts: listed = {}, ...clip }) => ({
    frames: clip.num_frames,
    "seconds from": listed.start_s,
    "seconds to": listed.end_s,
    video: listed.video_uri,
    "stored images": clip.size?.join(" × "),
    codec: clip.codec,
    camera: clip.camera?.source,
    "camera preset": clip.camera?.preset,
    "camera path": [clip.camera?.path_source, clip.camera?.path_reason?.replaceAll("_", " ")].filter(Boolean).join(": "),
    "scale of the world": clip.camera?.scale,
    actions: clip.segments?.length,
    narration: listed.narration,
    licence: clip.licence,
    run: clip.run?.run_key,
    made: clip.run?.at && new Date(clip.run.at).toLocaleString(),
    version: clip.version,
  });
  return changes(facts(first), facts(second));
}

/** Names of stages whose keys differ. */
export function stageChanges(first, second) {
  const keys = (list) => Object.fromEntries((list ?? []).map(({ name, key }) => [name, key ?? null]));
  return changes(keys(first), keys(second)).map(({ name }) => name);
}
