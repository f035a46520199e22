// States and actions of an episode over time: one row for each number; an action of the same name lies over its state.
import { html, useMemo, useState } from "../vendor/handloom-vendor.js";
import { count, short } from "./states.js";
import { Plot, rangeOf, TimePlane } from "./timeplane.js";

const SHOWN = 24; // rows, before the reader asks for all

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

/**
 * Many rows in groups by their names, `[{name, rows}]`: `left.thumb_1.x` and `left.thumb_2.y` are of `left thumb`. One group
 * without a name where there are few rows, or where names do not tell many of them from the rest.
 */
export function groupsOf(rows) {
  const found = new Map();
  for (const row of rows) {
    const stem = row.label.replace(/ \(action\)$/, "").split(/[.]/).slice(0, -1).join(" ").replace(/_?\d+$/, "").replaceAll("_", " ");
    found.set(stem, [...(found.get(stem) ?? []), row]);
  }
  if (rows.length <= SHOWN || found.size < 2 || found.size > rows.length / 2) return [{ name: "", rows }];
  return [...found].map(([name, some]) => ({ name: name || "other numbers", rows: some }));
}

/** The curves, on the clock; a press goes to that step. arrays: frame_s (T), state (T, S), action (T, A), or none of them. */
export function Curves({ episode, arrays, clock }) {
  const times = arrays.frame_s.data;
  const numbers = useMemo(
    () => rowsOf(episode, arrays.state?.shape[1] ?? 0, arrays.action?.shape[1] ?? 0).map((row) => ({ ...row, ...plotOf(row, arrays) })),
    [episode, arrays],
  );
  const span_s = Math.max(episode.duration_s ?? 0, times[times.length - 1] ?? 0, 1e-6);
  if (!numbers.length) return html`<p class="soft episode-note">No states and no actions are known of this episode.</p>`;
  const groups = groupsOf(numbers);
  const plane = { times, span_s, clock };
  return html`
    <section class="episode-curves" aria-label="States and actions">
      <p class="legend episode-legend">
        ${arrays.state && html`<span><i class="episode-state"></i> state</span>`} ${arrays.action && html`<span><i class="episode-action"></i> action</span>`}
      </p>
      ${groups.length > 1 ? groups.map(({ name, rows }, n) => html`<${Group} key=${name} name=${name} rows=${rows} first=${n === 0} ...${plane} />`) : html`<${Rows} rows=${numbers} ...${plane} />`}
    </section>
  `;
}

/** Rows under a name, drawn once they are opened. */
function Group({ name, rows, first, ...plane }) {
  const [open, setOpen] = useState(first);
  const units = [...new Set(rows.map(({ unit }) => unit))];
  const known = rows.some(({ range }) => range);
  return html`
    <details class="episode-group" open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary>${name} <span class="soft">${count(rows.length, "number")}${units.length === 1 && units[0] ? `, ${units[0]}` : ""}${known ? "" : ", not known in any step"}</span></summary>
      ${open && html`<${Rows} rows=${rows} ...${plane} />`}
    </details>
  `;
}

/** One plane of time with a row for each number, the first ones where they are many. */
function Rows({ rows, times, span_s, clock }) {
  const [all, setAll] = useState(false);
  const shown = (all ? rows : rows.slice(0, SHOWN)).map(({ label, ...plot }) => ({
    key: label,
    label,
    className: "clip-plot",
    body: html`<${Plot} label=${label} times=${times} span_s=${span_s} clock=${clock} ...${plot} />`,
  }));
  return html`
    <${TimePlane} rows=${shown} times=${times} span_s=${span_s} clock=${clock} what="step" />
    ${rows.length > SHOWN && html`<p class="episode-note"><button type="button" class="button" aria-pressed=${all} onClick=${() => setAll(!all)}>${all ? `Show the first ${SHOWN}` : `Show all ${rows.length} numbers`}</button></p>`}
  `;
}

/** One number of every step: `(T,)`, NaN unknown. */
export const columnOf = ({ data, shape: [length, width] }, index) => Float32Array.from({ length }, (_, n) => data[n * width + index]);

/** What `Plot` takes of one row of `rowsOf`. */
function plotOf(row, arrays) {
  const kinds = ["state", "action"].filter((kind) => row[kind] !== null && arrays[kind]);
  const columns = kinds.map((kind) => columnOf(arrays[kind], row[kind]));
  const range = rangeOf(columns);
  return {
    curves: columns.map((column, k) => ({ color: kinds[k] === "state" ? "--left-text" : "--right-text", at: (n) => column[n] })),
    range,
    told: range ? `${short(range[0])} … ${short(range[1])}${row.unit ? ` ${row.unit}` : ""}` : "unknown",
    now: (n) => columns.map((column) => short(column[n])).join(" | "),
  };
}
