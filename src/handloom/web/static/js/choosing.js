// Many clips at once: chosen by a box on each card, Shift and keys; judged together with one reason, or copied as a list.
import { html, useReducer, useRef, useState } from "../vendor/handloom-vendor.js";
import { about } from "./api.js";
import { judgeAll, REASONS } from "./judge.js";
import { count, Problem } from "./states.js";

/** As many as one request judges. */
export const MOST_CHOSEN = 2000;

/** The places from `from` to `to`, both ends included, whichever is larger: `[first, last)`. */
export const span = (from, to) => [Math.min(from, to), Math.max(from, to) + 1];

/**
 * Which clips of a result are chosen; kept with the result (`hits.memory`) while the browser may go back to it.
 *
 * Gives {ids: Set of clip ids, toggle(index), extend(index): all from the last one on, all(), clear(), failed}.
 * Ids of clips that are not loaded are asked for; `current()` is where an extension begins if nothing was chosen.
 */
export function useChosen(hits, current) {
  const [, redraw] = useReducer((number) => number + 1, 0);
  const [failed, setFailed] = useState(null);
  const memory = hits.memory;
  memory.chosen ??= new Set();
  const latest = useRef(null);
  latest.current = memory;
  const add = (ids) => {
    const room = MOST_CHOSEN - memory.chosen.size;
    const fresh = ids.filter((id) => !memory.chosen.has(id));
    for (const id of fresh.slice(0, room)) memory.chosen.add(id);
    setFailed(fresh.length > room ? { problem: `At most ${count(MOST_CHOSEN, "clip")} can be chosen.`, hint: "Judge these first, then choose others." } : null);
    redraw();
  };
  const toggle = (index) => {
    const hit = hits.at(index);
    if (!hit) return false;
    memory.anchor = index;
    if (!memory.chosen.delete(hit.clip_id)) add([hit.clip_id]);
    else redraw();
    return undefined;
  };
  const between = (first, last) => {
    hits.ids(first, last).then((ids) => latest.current === memory && add(ids), setFailed);
  };
  const extend = (index, from = current()) => {
    between(...span(memory.anchor ?? (from < 0 ? index : from), index));
    memory.anchor ??= from < 0 ? index : from;
  };
  const clear = () => {
    if (!memory.chosen.size) return false;
    memory.chosen.clear();
    memory.anchor = undefined;
    setFailed(null);
    redraw();
    return undefined;
  };
  const all = () => (hits.total ? between(0, Math.min(hits.total, MOST_CHOSEN + 1)) : false);
  return { ids: memory.chosen, toggle, extend, all, clear, failed };
}

/**
 * What can be done with the chosen clips (`useChosen`, or ids and `clear` alone); nothing where none is. `total`: of the
 * result. `judgedSome()` is called when judgements have changed. keys: whether y, n and u do so here. Children: other
 * ways on.
 */
export function ChosenBar({ chosen, total, judgedSome = () => {}, keys = true, children }) {
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [said, setSaid] = useState("");
  const [failed, setFailed] = useState(null);
  const number = chosen.ids.size;
  const key = (name) => (keys ? ` (${name})` : "");
  if (!number) return null;
  const judge = async (verdict) => {
    setBusy(true);
    setSaid("");
    setFailed(null);
    try {
      const done = await judgeAll([...chosen.ids], verdict, verdict && reason.trim() ? { reason: reason.trim() } : {});
      judgedSome();
      setSaid(verdict ? `${count(done, "clip")} judged ${verdict}.` : `${count(done, "judgement")} taken back.`);
    } catch (error) {
      setFailed(error);
    } finally {
      setBusy(false);
    }
  };
  const copy = () =>
    navigator.clipboard.writeText(`clips = ${JSON.stringify([...chosen.ids], null, 1)}\n`).then(
      () => setSaid(`Copied: a list for Python.`),
      () => setFailed({ problem: "This browser does not let the page copy.", hint: "Open the gallery at 127.0.0.1 or over https." }),
    );
  return html`
    <section class="chosen" aria-label="Chosen clips">
      <b class="num" role="status">${count(number, "clip")} chosen</b>
      ${about.value?.judging && html`
        <span class="switch" role="group" aria-label="Judge the chosen clips">
          <button type="button" class="button small" disabled=${busy} title=${`Judge them good${key("y")}`} onClick=${() => judge("good")}>✓ Good</button>
          <button type="button" class="button small" disabled=${busy} title=${`Judge them bad${key("n")}`} onClick=${() => judge("bad")}>✗ Bad</button>
        </span>
        <label>Why <input type="text" class="small chosen-why" maxlength="200" list="chosen-reasons" value=${reason} placeholder="as before" onInput=${(event) => setReason(event.target.value)} /></label>
        <datalist id="chosen-reasons">${[...REASONS.bad, ...REASONS.good].map((one) => html`<option key=${one} value=${one}></option>`)}</datalist>
        <button type="button" class="button small" disabled=${busy} title=${`Take their judgements back${key("u")}`} onClick=${() => judge(null)}>Take back</button>`}
      <button type="button" class="button small" title="A list for Python" onClick=${copy}>Copy ids</button> ${children}
      ${number < total && number < MOST_CHOSEN && html`<button type="button" class="button small" title="All that were found (a)" onClick=${chosen.all}>All ${Math.min(total, MOST_CHOSEN).toLocaleString("en")}</button>`}
      <button type="button" class="button small" title="Choose none (Esc)" onClick=${chosen.clear}>None</button>
      ${busy && html`<span class="spinner" aria-hidden="true"></span>`}
      <span role="status" class="soft">${busy ? "Writing …" : said}</span>
      ${(failed ?? chosen.failed) && html`<${Problem} error=${failed ?? chosen.failed} />`}
    </section>
  `;
}
