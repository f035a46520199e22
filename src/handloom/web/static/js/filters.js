// The filters beside the hits: values with counts, ranges with histograms, stages, SQL. All of it lives in the address.
import { html, useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { about } from "./api.js";
import { FACETS } from "./hits.js";
import { setParams } from "./router.js";
import { count, nameWords, Problem, sentence, short } from "./states.js";

const FEW = 6;
const STATES = ["current", "outdated", "missing", "rejected"];

/** Every filter of an address: `[{name, value, label}]`, to be shown and taken away one by one. */
export function filtersOf(params) {
  const found = [];
  for (const [name, value] of params) {
    if (FACETS.some(([facet]) => facet === name)) found.push({ name, value, label: `${name === "flag" ? "judged" : name}: ${value || "unknown"}` });
    else if (name === "stage") found.push({ name, value, label: value.replace(":", ": ") });
    else if (name === "where") found.push({ name, value, label: value });
    else if (name === "lasso") found.push({ name, value, label: "chosen on the map" });
    else if (name.startsWith("q.")) found.push({ name, value, label: `${nameWords(name.slice(2))}: ${rangeWords(value)}` });
  }
  return found;
}

/** `0.2:0.9` as `0.2 to 0.9`, `0.2:` as `at least 0.2`, `:0.9` as `at most 0.9`. */
export function rangeWords(range) {
  const [low, high] = range.split(":");
  if (low && high) return `${short(Number(low))} to ${short(Number(high))}`;
  return low ? `at least ${short(Number(low))}` : `at most ${short(Number(high))}`;
}

/** The address's parameters without any filter. */
export const withoutFilters = (params) => Object.fromEntries(filtersOf(params).map(({ name }) => [name, null]));

/** Take away one value of a parameter. */
export function dropFilter(params, { name, value }) {
  return { [name]: params.getAll(name).filter((one) => one !== value) };
}

/** `[low, high]` of a range parameter; null where it is open. */
export function readRange(text) {
  const [low, high] = (text ?? ":").split(":").map((part) => (part.trim() === "" ? null : Number(part)));
  return [Number.isFinite(low) ? low : null, Number.isFinite(high) ? high : null];
}

/** A range as the address holds it; null when both ends are open. */
export const writeRange = (low, high) => (low === null && high === null ? null : `${low ?? ""}:${high ?? ""}`);

const set = (changes, options) => setParams({ ...changes, at: null }, options);

/** Filters that hold, each with a button that takes it away. */
export function Chips({ params }) {
  const found = filtersOf(params);
  if (!found.length) return null;
  return html`
    <div class="chips" aria-label="Filters that hold">
      ${found.map(
        (filter) => html`
          <span class="chip" key=${filter.name + filter.value}>
            <span class="chip-text">${filter.label}</span>
            <button type="button" aria-label=${`Take away ${filter.label}`} onClick=${() => set(dropFilter(params, filter))}>✕</button>
          </span>
        `,
      )}
      <button type="button" class="button quiet small" onClick=${() => set(withoutFilters(params))}>Clear filters</button>
    </div>
  `;
}

/** Of which clips the counts are, where a search lists fewer than pass the filters; "" where it lists them all. */
export function countedWords(answer, params) {
  const others = (answer?.num_counted ?? 0) - (params.has("clip") ? 1 : 0); // a clip is not among those like it
  if (!answer || others <= answer.total) return "";
  return `The counts are of all ${count(answer.num_counted, "clip")} that pass the filters, not of the ${answer.total.toLocaleString("en")} in the list.`;
}

/** All filters; `answer` is the first answer of the search that is shown (facets, histograms), or null. */
export function Filters({ answer, params, error }) {
  const facets = answer?.facets ?? {};
  const histograms = Object.entries(answer?.histograms ?? {}).filter(([, { all }]) => all.some((number) => number > 0));
  const stages = about.value?.stages ?? [];
  const counted = countedWords(answer, params);
  return html`
    <div class="filters">
      ${counted && html`<p class="soft small counted">${counted}</p>`}
      ${FACETS.map(([name, label, words]) => html`<${Facet} key=${name} name=${name} label=${label} words=${words} values=${facets[name] ?? []} params=${params} />`)}
      ${histograms.length > 0 && html`<${Ranges} histograms=${histograms} params=${params} />`}
      ${stages.length > 0 && html`<${StageFilter} stages=${stages} params=${params} />`}
      <${Where} params=${params} error=${error} />
    </div>
  `;
}

/**
 * Whether a facet is shown, whatever was found: one that tells the clips of the database apart stays where it is. rows:
 * `[[value, count]]` of those found and chosen; known: what `/api/about` says.
 */
export function isShown(name, rows, known) {
  if (rows.length > 1 || rows.some(([, number]) => number === 0)) return true;
  if (name === "flag" && rows.some(([value]) => value !== "none")) return true; // judged since
  return Boolean(known?.facets?.includes(name) || (name === "dataset" && known?.num_clips));
}

/** Whether the server has left out values of a facet: it tells the most frequent ones. */
export const areMore = (values) => values.length >= (about.value?.most_values ?? Infinity);

function Facet({ name, label, words, values, params }) {
  const [all, setAll] = useState(false);
  const [find, setFind] = useState("");
  const chosen = params.getAll(name);
  const known = values.map(([value, number]) => [value ?? "", number]);
  const rows = [...known, ...chosen.filter((value) => !known.some(([one]) => one === value)).map((value) => [value, 0])];
  const matching = rows.filter(([value]) => value.toLowerCase().includes(find.toLowerCase()));
  const shown = all || find ? matching : matching.filter(([value], index) => index < FEW || chosen.includes(value));
  if (!isShown(name, rows, about.value)) return null;
  const alone = rows.length === 1 && !chosen.length; // all that were found have it
  const toggle = (value, on) => set({ [name]: on ? [...chosen, value] : chosen.filter((one) => one !== value) });
  return html`
    <details class="filter" open>
      <summary title=${words}>${label}</summary>
      <fieldset aria-label=${label}>
        ${rows.length > 12 && html`<input type="search" class="small" placeholder=${`Find in ${count(rows.length, "value")}`} aria-label=${`Find in ${label}`} value=${find} onInput=${(event) => setFind(event.target.value)} />`}
        ${shown.map(
          ([value, number]) => html`
            <label key=${value} class=${number && !alone ? "choice" : "choice none"} title=${alone ? "All clips that were found have it" : null}>
              <input type="checkbox" checked=${chosen.includes(value)} onChange=${(event) => toggle(value, event.target.checked)} />
              <span class=${value ? "choice-text" : "choice-text soft"} title=${value}>${value || "unknown"}</span>
              <span class="num soft">${number.toLocaleString("en")}</span>
            </label>
          `,
        )}
        ${!rows.length && html`<p class="soft small">of no clip</p>`}
        ${name === "flag" && html`<${Downloads} />`}
        ${!find && matching.length > FEW && html`<button type="button" class="button quiet small" onClick=${() => setAll(!all)}>${all ? "Fewer" : `All ${matching.length.toLocaleString("en")}`}</button>`}
        ${areMore(values) && (all || find) && html`<p class="soft small">The ${values.length.toLocaleString("en")} most frequent. Find others by SQL, below.</p>`}
      </fieldset>
    </details>
  `;
}

/** All judgements as a file: what `handloom judgements --csv` writes, and the same as a table. */
const Downloads = () => html`
  <p class="soft small">All judgements: <a href="/download/judgements" download>CSV</a>, <a href="/download/judgements?format=parquet" download>Parquet</a></p>
`;

const FIRST_RANGES = 3;

/** What a number means, in words of the docs of its column. */
export const aboutOf = (name) => about.value?.numbers?.[name] ?? "";

function Ranges({ histograms, params }) {
  const [find, setFind] = useState("");
  const wanted = find.replaceAll("_", " ").toLowerCase();
  const shown = histograms.filter(([name]) => nameWords(name).includes(wanted));
  return html`
    <details class="filter" open>
      <summary>Quality and length</summary>
      ${histograms.length > 6 && html`<input type="search" class="small" placeholder=${`Find in ${histograms.length} numbers`} aria-label="Find a number" value=${find} onInput=${(event) => setFind(event.target.value)} />`}
      ${!shown.length && html`<p class="soft small">No number is called that.</p>`}
      ${shown.map(([name, one], index) => {
        const held = params.has(`q.${name}`);
        return html`
          <details key=${name} class="range" open=${held || index < FIRST_RANGES}>
            <summary title=${aboutOf(name)}>${nameWords(name)}${held && html` <span class="chip">${rangeWords(params.get(`q.${name}`))}</span>`}</summary>
            <${Range} name=${name} histogram=${one} value=${params.get(`q.${name}`)} />
          </details>
        `;
      })}
    </details>
  `;
}

/** Heights of a histogram's bars, 0 to 1, by square roots: a few clips among many stay visible. */
export function heights(counts, most) {
  return counts.map((number) => (number > 0 ? Math.max(0.04, Math.sqrt(number / most)) : 0));
}

/** The value at a place of the histogram, counted in bins from its left edge (bins may be of unequal width). */
export function valueAt(place, edges) {
  const bin = Math.min(Math.max(Math.floor(place), 0), edges.length - 2);
  return edges[bin] + (place - bin) * (edges[bin + 1] - edges[bin]);
}

/** The place of a value in the histogram, in bins: the inverse of `valueAt`. */
export function placeOf(value, edges) {
  const last = edges.length - 1;
  if (value <= edges[0]) return 0;
  if (value >= edges[last]) return last;
  const bin = edges.findIndex((edge, index) => index > 0 && value < edge) - 1;
  return bin + (value - edges[bin]) / (edges[bin + 1] - edges[bin]);
}

function Range({ name, histogram, value }) {
  const { edges, counts, all = counts, unknown } = histogram;
  const [least, most] = [edges[0], edges[edges.length - 1]];
  const [ends, setEnds] = useState(readRange(value));
  const timer = useRef(null);
  useEffect(() => setEnds(readRange(value)), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  if (!(most > least)) return html`<p class="soft small">${unknown ? "all clips where it is known" : "all clips"} have ${short(least)}</p>`;
  const bins = counts.length;
  const write = (next, options) => {
    clearTimeout(timer.current);
    const text = writeRange(...next);
    const send = () => set({ [`q.${name}`]: text }, options);
    if (options?.replace) timer.current = setTimeout(send, 150);
    else send();
  };
  // An end at the edge is open: clips beyond it, and new ones, stay in.
  const choose = (which, raw, options) => {
    const asked = raw === "" ? NaN : Number(raw);
    const open = !Number.isFinite(asked) || (which === 0 ? asked <= least : asked >= most);
    const number = Number(asked.toPrecision(6));
    const next = [...ends];
    next[which] = open ? null : which === 0 ? Math.min(number, ends[1] ?? most) : Math.max(number, ends[0] ?? least);
    setEnds(next);
    write(next, options);
  };
  const [low, high] = [ends[0] ?? least, ends[1] ?? most];
  const top = Math.max(...all, 1);
  const width = 100 / bins;
  const inside = (index) => edges[index + 1] > low && edges[index] < high;
  const label = nameWords(name);
  const described = `about-${name}`;
  const slider = (which, end) => html`
    <input
      type="range" min="0" max=${bins} step="0.1" value=${placeOf(end, edges)} aria-label=${`${label}, ${which ? "at most" : "at least"}`} aria-valuetext=${short(end)} aria-describedby=${described}
      onInput=${(event) => choose(which, valueAt(Number(event.target.value), edges), { replace: true })}
    />
  `;
  return html`
    <div class="range-box">
      <svg viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">
        ${heights(all, top).map((height, index) => html`<rect key=${`a${index}`} class="bar-all" x=${index * width} width=${width * 0.86} y=${30 - 30 * height} height=${30 * height} />`)}
        ${heights(counts, top).map((height, index) => html`<rect key=${`c${index}`} class=${inside(index) ? "bar-in" : "bar-out"} x=${index * width} width=${width * 0.86} y=${30 - 30 * height} height=${30 * height} />`)}
      </svg>
      <p class="soft small range-about" id=${described}>${sentence(aboutOf(name))}</p>
      <div class="two-sliders">${slider(0, low)}${slider(1, high)}</div>
      <div class="range-ends num">
        <input type="number" class="small" step="any" value=${ends[0] ?? ""} placeholder=${short(least)} aria-label=${`${label}, at least`} aria-describedby=${described} onChange=${(event) => choose(0, event.target.value)} />
        <span class="soft small">${unknown > 0 ? `${unknown.toLocaleString("en")} unknown` : ""}</span>
        <input type="number" class="small" step="any" value=${ends[1] ?? ""} placeholder=${short(most)} aria-label=${`${label}, at most`} aria-describedby=${described} onChange=${(event) => choose(1, event.target.value)} />
      </div>
    </div>
  `;
}

function StageFilter({ stages, params }) {
  const chosen = params.getAll("stage");
  const [stage, setStage] = useState(stages[0]);
  return html`
    <details class="filter" open=${chosen.length > 0}>
      <summary>Stages</summary>
      <div class="stage-choice">
        <select aria-label="Stage" value=${stage} onChange=${(event) => setStage(event.target.value)}>
          ${stages.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select>
        <span class="switch">
          ${STATES.map((state) => {
            const value = `${stage}:${state}`;
            const on = chosen.includes(value);
            return html`<button key=${state} type="button" class="button small" aria-pressed=${on} onClick=${() => set({ stage: on ? chosen.filter((one) => one !== value) : [...chosen.filter((one) => !one.startsWith(`${stage}:`)), value] })}>${state}</button>`;
          })}
        </span>
      </div>
    </details>
  `;
}

function Where({ params, error }) {
  const held = params.get("where") ?? "";
  const [text, setText] = useState(held);
  useEffect(() => setText(held), [held]);
  const send = (event) => {
    event.preventDefault();
    set({ where: text.trim() });
  };
  return html`
    <details class="filter" open=${Boolean(held)}>
      <summary>SQL</summary>
      <form onSubmit=${send}>
        <textarea rows="3" maxlength="4000" spellcheck=${false} class="mono" aria-label="SQL filter" aria-invalid=${Boolean(error && held)} placeholder="duration_s > 2 AND verb = 'cut'" value=${text} onInput=${(event) => setText(event.target.value)}></textarea>
        ${error && held && html`<${Problem} error=${error} />`}
        <button type="submit" class="button small" disabled=${text.trim() === held.trim()}>Filter</button>
      </form>
    </details>
  `;
}
