// The search page: one box for words, a clip or a file; filters; the hits; all of it in the address.
import { html, useCallback, useEffect, useMemo, useReducer, useRef, useState } from "../vendor/handloom-vendor.js";
import { about, get, upload } from "./api.js";
import { Card, Thumb } from "./card.js";
import { Chips, Filters, filtersOf, withoutFilters } from "./filters.js";
import { Hits, isRanked, searchOf } from "./hits.js";
import { judgeAll } from "./judge.js";
import { useKeys } from "./keys.js";
import { clipHref, go, place, setParams } from "./router.js";
import { moveKeys, useSelected } from "./selection.js";
import { count, Dialog, Empty, Failure, Loading } from "./states.js";
import { Grid } from "./virtual.js";

const TYPING_MS = 220;
const GAP = 10;
const LEAST = 190;
const LEAST_PHONE = 158;
const TEXT_PX = 46;
const WHY_PX = 18;
const KEPT = 8;
const kept = new Map(); // search -> Hits: steps back in the browser's history show at once

export function Page({ params }) {
  const search = searchOf(params).toString();
  const [hits, shown, counts, again] = useHits(search);
  const [sending, setSending] = useState(null);
  const [sent, setSent] = useState(null);
  const [filtersOpen, setFiltersOpen] = useState(false);
  const wide = useMedia("(min-width: 900px)");
  const phone = useMedia("(max-width: 480px)");
  const box = useRef(null);
  const control = useRef(null);
  const [selected, select, flush, current] = useSelected(params, hits, control);
  const ranked = isRanked(shown.search);

  const more = (hit) => {
    flush();
    setParams({ clip: hit.clip_id, text: null, query: null, name: null, kind: null, from_s: null, to_s: null, at: null, sort: null });
  };
  const send = async (file) => {
    setSending(file.name || "a picture");
    setSent(null);
    try {
      const answer = await upload(file);
      setParams({ query: answer.query, name: answer.name, kind: answer.kind, by: answer.kind === "image" ? "look" : null, clip: null, text: null, from_s: null, to_s: null, at: null, sort: null });
    } catch (error) {
      setSent(error);
    } finally {
      setSending(null);
    }
  };
  useKeys("Search", keysOf({ hits: shown, ready: hits === shown, control, current, select, flush, box, more, wide, openFilters: () => setFiltersOpen(true), failed: setSent }));
  const dragging = useDrop(send);

  const sizes = useMemo(() => ({ least: phone ? LEAST_PHONE : LEAST, gap: GAP, text: TEXT_PX + (ranked ? WHY_PX : 0) }), [phone, ranked]);
  const see = useCallback((first, last) => shown.see(first, last), [shown]);
  const tabStop = (index, { first, last, top }) => index === (selected.index >= first && selected.index < last ? selected.index : top);
  const card = (index, shownCards) => html`
    <${Card} key=${index} index=${index} tab=${tabStop(index, shownCards)} hit=${shown.at(index)} total=${shown.total} ranked=${ranked} select=${select} more=${more}
      selected=${index === selected.index ? (selected.focus ? "focus" : "yes") : null} />
  `;
  const filters = html`<${Filters} answer=${counts} params=${params} error=${hits.failed} />`;
  return html`
    <div class=${dragging ? "search dragging" : "search"}>
      ${wide && html`<aside class="search-side" aria-label="Filters" aria-busy=${hits.counts && counts === hits.counts ? "false" : "true"}>${filters}</aside>`}
      <section class="search-main">
        <h1 class="hidden-text">Search clips</h1>
        <${Box} params=${params} box=${box} send=${send} control=${control} />
        <${Query} params=${params} />
        ${sending && html`<div class="note" role="status"><span class="spinner" aria-hidden="true"></span> Reading ${sending} …</div>`}
        ${sent && html`<div class="note wrong" role="alert">${sent.problem} ${sent.hint} <button type="button" class="button small" onClick=${() => setSent(null)}>Close</button></div>`}
        <div class="search-line">
          <${Found} hits=${hits} shown=${shown} again=${again} />
          ${!wide && html`<button type="button" class="button small" onClick=${() => setFiltersOpen(true)}>Filters${filtersOf(params).length > 0 && ` (${filtersOf(params).length})`}</button>`}
          <${Sort} params=${params} counts=${counts} ranked=${isRanked(hits.search)} />
        </div>
        <${Chips} params=${params} />
        <div class=${hits === shown ? "search-hits" : "search-hits old"}>
          <${Results} hits=${hits} shown=${shown} again=${again} params=${params}>
            <${Grid} total=${shown.total} sizes=${sizes} card=${card} see=${see} control=${control} memory=${shown.memory} label="Clips found" />
          <//>
        </div>
      </section>
      ${!wide && filtersOpen && html`<${Dialog} title="Filters" side close=${() => setFiltersOpen(false)}>${filters}<button type="button" class="button main" onClick=${() => setFiltersOpen(false)}>Show ${count(shown.total, "clip")}</button><//>`}
      ${dragging && html`<div class="drop-here">Drop a video or an image: clips like it are found</div>`}
    </div>
  `;
}

/** The hits of a search, those to show while new ones are on their way, the newest counts, and a way to ask again. */
function useHits(search) {
  const [, redraw] = useReducer((number) => number + 1, 0);
  const last = useRef(null);
  const counts = useRef(null);
  const [turn, again] = useReducer((number) => number + 1, 0);
  const hits = useMemo(() => {
    const found = kept.get(search);
    if (found && !found.failed && found.first?.version === about.value?.version) return found;
    return new Hits(new URLSearchParams(search), () => {});
  }, [search, turn]);
  useEffect(() => {
    hits.changed = redraw;
    kept.delete(search);
    kept.set(search, hits);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    hits.start();
    return () => {
      hits.changed = () => {};
      hits.stop();
    };
  }, [hits]);
  if (hits.first || !last.current) last.current = hits;
  if (hits.counts) counts.current = hits.counts;
  return [hits, last.current, counts.current, again];
}

function keysOf({ hits, ready, control, current, select, flush, box, more, wide, openFilters, failed }) {
  const selectedHit = () => (current() < 0 ? null : hits.at(current()));
  return [
    {
      keys: ["/"],
      about: "to the search box",
      run: () => {
        box.current?.focus();
        box.current?.select();
      },
    },
    ...moveKeys({ hits, ready, control, current, select }, "clip"),
    {
      keys: ["Enter"],
      about: "open the clip",
      run: () => {
        const hit = selectedHit();
        if (!hit) return false;
        flush();
        go(clipHref(hit.clip_id));
        return undefined;
      },
    },
    { keys: ["m"], about: "more clips like this one", run: () => (selectedHit() ? more(selectedHit()) : false) },
    ...(about.value?.judging ? [["y", "good"], ["n", "bad"], ["u", null]] : []).map(([key, verdict]) => ({
      keys: [key],
      about: verdict ? `judge the clip ${verdict}` : "take the clip's judgement back",
      run: () => (selectedHit() ? void judgeAll([selectedHit().clip_id], verdict).catch(failed) : false),
    })),
    { keys: ["f"], about: "filters", run: () => (wide ? document.querySelector(".search-side input, .search-side summary")?.focus() : openFilters()) },
    { keys: ["c"], about: "clear the filters", run: () => setParams({ ...withoutFilters(place.value.params), at: null }) },
    { keys: ["Escape"], about: "out of the box", typing: true, run: (event) => (event.target.blur?.(), undefined) },
  ];
}

const looksLikeId = (text) => /^\S{4,512}$/.test(text) && /[:\d]/.test(text);

/** The box: words search while they are typed; a clip's id, pasted or with Enter, searches clips like it. */
function Box({ params, box, send, control }) {
  const held = params.get("text") ?? "";
  const [text, setText] = useState(held);
  const timer = useRef(null);
  const file = useRef(null);
  useEffect(() => {
    if (document.activeElement !== box.current || timer.current === null) setText(held);
  }, [held]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const write = (words, options) => {
    clearTimeout(timer.current);
    timer.current = null;
    if (words.trim() !== (place.value.params.get("text") ?? "")) setParams({ text: words.trim(), at: null }, options);
  };
  const typed = (event) => {
    const words = event.target.value;
    setText(words);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => write(words, { replace: true }), TYPING_MS);
  };
  const tryId = async (words) => {
    const id = words.trim();
    if (!looksLikeId(id)) return false;
    const known = await get("/api/clip", { id }).then(() => true, () => false);
    if (!known) return false;
    clearTimeout(timer.current);
    timer.current = null;
    setText("");
    setParams({ clip: id, text: null, query: null, name: null, kind: null, at: null });
    return true;
  };
  const submit = async (event) => {
    event.preventDefault();
    if (!(await tryId(text))) write(text);
    control.current?.show(0);
  };
  const pasted = (event) => {
    const [picture] = event.clipboardData?.files ?? [];
    if (picture) {
      event.preventDefault();
      send(picture);
      return;
    }
    const words = event.clipboardData?.getData("text") ?? "";
    if (!text && looksLikeId(words.trim())) setTimeout(() => tryId(words));
  };
  const down = (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    event.target.blur();
    window.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
  };
  return html`
    <form class="box" role="search" onSubmit=${submit}>
      <input ref=${box} type="search" maxlength="2000" autocomplete="off" spellcheck=${false} value=${text} onInput=${typed} onPaste=${pasted} onKeyDown=${down}
        aria-label="Search by words or a clip's id" placeholder=${about.value.texts === false ? "A clip's id, or drop a video or an image" : "Words, or a clip's id; or drop a video or an image"} />
      <button type="button" class="button" onClick=${() => file.current.click()} title="Find clips like a video or an image of yours">File…</button>
      <input ref=${file} type="file" accept="video/*,image/*" hidden aria-hidden="true" tabindex="-1" onChange=${(event) => {
        const [chosen] = event.target.files;
        if (chosen) send(chosen);
        event.target.value = "";
      }} />
    </form>
  `;
}

const WAYS = { motion: "Motion", look: "Look", both: "Both", appearance: "Colours" };
const MOVING = ["motion", "both"]; // ways that need more than one picture

/** The ways to be alike that a database knows, the usual ones first: names of embeddings, and `both`. */
export function waysOf(embeddings, kind) {
  const known = embeddings.filter((name) => name !== "text");
  if (known.includes("motion") && known.includes("look")) known.push("both");
  const ways = [...Object.keys(WAYS).filter((name) => known.includes(name)), ...known.filter((name) => !(name in WAYS))];
  return kind === "image" ? ways.filter((name) => !MOVING.includes(name)) : ways;
}

const SCORES = {
  rrf: "by the ranks of all parts together",
  weights: "by weighted scores",
  bm25: "by words",
  motion: "by movement",
  moment: "by the most alike moment",
  cosine: "by likeness",
};

/** What is searched with besides words: a clip or a file, and by what. */
function Query({ params }) {
  const clip = params.get("clip");
  const query = params.get("query");
  if (!clip && !query) return null;
  const ways = waysOf(about.value.embeddings, query && params.get("kind"));
  const by = params.get("by") ?? "motion";
  const from = params.get("from_s");
  const to = params.get("to_s");
  const choose = (way) => setParams({ by: way === "motion" ? null : way, at: null });
  return html`
    <div class="query">
      ${clip && html`<a class="query-clip" href=${clipHref(clip)} title=${`Open ${clip}`}><${Thumb} hit=${{ clip_id: clip }} height=${96} /><span>like <b>${clip}</b></span></a>`}
      ${query && html`<span class="query-clip"><span>like the file <b>${params.get("name") ?? "you sent"}</b></span></span>`}
      ${(from || to) && html`<span class="chip">seconds ${from || "0"} to ${to || "end"} <button type="button" aria-label="The whole clip" onClick=${() => setParams({ from_s: null, to_s: null, at: null })}>✕</button></span>`}
      <span class="switch" role="group" aria-label="Alike by">
        ${ways.map((way) => html`<button key=${way} type="button" class="button small" aria-pressed=${way === by} onClick=${() => choose(way)}>${WAYS[way] ?? way.replaceAll("_", " ")}</button>`)}
      </span>
      <button type="button" class="button quiet small" onClick=${() => setParams({ clip: null, query: null, name: null, kind: null, by: null, from_s: null, to_s: null, at: null })}>✕ all clips</button>
    </div>
  `;
}

/** How many, how fast, why; and whether there is a newer version of the table. */
function Found({ hits, shown, again }) {
  const { first } = shown;
  if (!first) return html`<span class="found" role="status"></span>`;
  const unused = Object.entries(first.unused ?? {});
  const unusedWords = unused.map(([part, why]) => `${part} (${why})`).join("; "); // cut on a narrow page: whole under the pointer
  const capped = isRanked(shown.search) && first.total === first.num_listed_at_most;
  const newer = about.value.version > first.version;
  return html`
    ${newer && html`<button type="button" class="button small" onClick=${again} title=${`Version ${about.value.version} of the table; shown is ${first.version}`}>Newer rows: show them</button>`}
    <span class="found" role="status">
      <b class="num">${capped ? `the best ${count(first.total, "clip")}` : count(first.total, "clip")}</b>
      ${hits !== shown && !hits.failed && html` <span class="spinner" aria-hidden="true"></span>`}
      <span class="soft num" title=${`${Math.round(shown.took ?? first.took_ms)} ms until the page had the answer`}> ${short1(first.took_ms)} ms${first.exact === false ? ", approximate" : ""}</span>
      ${first.scoring && html`<span class="soft"> · ${SCORES[first.scoring] ?? first.scoring}</span>`}
      ${unused.length > 0 && html`<span class="warning" title=${unusedWords}> · not used: ${unusedWords}</span>`}
    </span>
  `;
}

const short1 = (number) => (number < 10 ? number.toFixed(1) : Math.round(number).toLocaleString("en"));

function Sort({ params, counts, ranked }) {
  const now = params.get("sort") ?? "";
  const names = ["duration_s", ...Object.keys(counts?.histograms ?? {}).filter((name) => name !== "duration_s")];
  const random = now.startsWith("random") ? now : `random:${1 + Math.floor(Math.random() * 9999)}`;
  const choices = [["", ranked ? "Best first" : "As in the table"], ["clip_id", "Clip id"], [random, "Random"]];
  for (const name of names) choices.push([`-${name}`, `${name} ↓`], [name, `${name} ↑`]);
  if (!choices.some(([value]) => value === now)) choices.push([now, now]);
  return html`
    <select aria-label="Order" value=${now} onChange=${(event) => setParams({ sort: event.target.value, at: null })}>
      ${choices.map(([value, label]) => html`<option key=${value} value=${value}>${label.replaceAll("_", " ")}</option>`)}
    </select>
  `;
}

function Results({ hits, shown, again, params, children }) {
  if (hits.failed) return html`<${Failure} error=${hits.failed} retry=${again} />`;
  if (!shown.first) return html`<${Loading} what="Searching" />`;
  if (shown.total > 0) return children;
  if (about.value.num_clips === 0) {
    return html`<${Empty} title="The database has no clips yet" hint="Run handloom extract with a clip list; the clips appear here when their rows are written." />`;
  }
  const filters = filtersOf(params).length;
  return html`
    <${Empty} title="No clip is like that" hint=${filters ? "Fewer filters find more." : "Other words, or a clip, a video or an image to search with, may find some."}>
      ${filters > 0 && html`<button type="button" class="button" onClick=${() => setParams({ ...withoutFilters(params), at: null })}>Clear filters</button>`}
      <a class="button" href="/">All clips</a>
    <//>
  `;
}

/** Whether a file is held over the page; a dropped one is sent. */
function useDrop(send) {
  const [over, setOver] = useState(false);
  const latest = useRef(send);
  latest.current = send;
  useEffect(() => {
    let depth = 0;
    const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
    const enter = (event) => {
      if (!holdsFile(event)) return;
      depth += 1;
      setOver(true);
    };
    const leave = () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) setOver(false);
    };
    const stay = (event) => holdsFile(event) && event.preventDefault();
    const drop = (event) => {
      if (!holdsFile(event)) return;
      event.preventDefault();
      depth = 0;
      setOver(false);
      if (event.dataTransfer.files[0]) latest.current(event.dataTransfer.files[0]);
    };
    const all = { dragenter: enter, dragleave: leave, dragover: stay, drop };
    for (const [name, run] of Object.entries(all)) window.addEventListener(name, run);
    return () => {
      for (const [name, run] of Object.entries(all)) window.removeEventListener(name, run);
    };
  }, []);
  return over;
}

function useMedia(query) {
  const [fits, setFits] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const change = () => setFits(list.matches);
    list.addEventListener("change", change);
    return () => list.removeEventListener("change", change);
  }, [query]);
  return fits;
}
