// The search page: one box for words, a clip or a file; filters; the hits; all of it in the address.
import { html, useCallback, useEffect, useMemo, useReducer, useRef, useState } from "../vendor/handloom-vendor.js";
import { about } from "./api.js";
import { Card, partsOf } from "./card.js";
import { ChosenBar, useChosen } from "./choosing.js";
import { aboutOf, Chips, Filters, filtersOf, withoutFilters } from "./filters.js";
import { Hits, isRanked, searchOf, sortedBy } from "./hits.js";
import { judgeAll } from "./judge.js";
import { isTyping, useKeys } from "./keys.js";
import { Box, NO_QUERY, Query, Reading, Sending, useDrop, useUpload } from "./query.js";
import { clipHref, go, place, setParams } from "./router.js";
import { moveKeys, useSelected } from "./selection.js";
import { count, Dialog, Empty, Failure, Loading, nameWords, Problem } from "./states.js";
import { Grid } from "./virtual.js";

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
  const [sending, send, stopSending] = useUpload();
  const [failed, setFailed] = useState(null);
  const [filtersOpen, setFiltersOpen] = useState(false);
  const wide = useMedia("(min-width: 900px)");
  const phone = useMedia("(max-width: 480px)");
  const box = useRef(null);
  const control = useRef(null);
  const [selected, select, flush, current] = useSelected(params, hits, control);
  const ranked = isRanked(shown.search);
  const sorted = sortedBy(shown.search);

  const chosen = useChosen(shown, current);

  const more = (hit) => {
    flush();
    setParams({ ...NO_QUERY, by: params.get("by"), clip: hit.clip_id, sort: null });
  };
  const judge = (verdict) => {
    const hit = current() < 0 ? null : shown.at(current());
    const ids = chosen.ids.size ? [...chosen.ids] : hit ? [hit.clip_id] : [];
    return ids.length ? void judgeAll(ids, verdict).then(() => (setFailed(null), shown.recount()), setFailed) : false;
  };
  useKeys("Search", keysOf({ hits: shown, ready: hits === shown, control, current, select, flush, box, more, wide, openFilters: () => setFiltersOpen(true), judge, chosen }));
  const dragging = useDrop(send);

  const lines = ranked ? (partsOf(shown.first?.hits) > (phone ? 2 : 3) ? 2 : 1) : 0; // of why a clip was found
  const sizes = useMemo(() => ({ least: phone ? LEAST_PHONE : LEAST, gap: GAP, text: TEXT_PX + lines * WHY_PX }), [phone, lines]);
  const see = useCallback((first, last) => shown.see(first, last), [shown]);
  const tabStop = (index, { first, last, top }) => index === (selected.index >= first && selected.index < last ? selected.index : top);
  const card = (index, shownCards) => html`
    <${Card} key=${index} index=${index} tab=${tabStop(index, shownCards)} hit=${shown.at(index)} total=${shown.total} lines=${lines} sorted=${sorted} select=${select} more=${more} chosen=${chosen}
      selected=${index === selected.index ? (selected.focus ? "focus" : "yes") : null} />
  `;
  const reads = isVideo(params) && !hits.first && !hits.failed;
  const filters = html`<${Filters} answer=${counts} params=${params} error=${hits.failed} />`;
  return html`
    <div class=${dragging ? "search dragging" : "search"}>
      ${wide && html`<aside class="search-side" aria-label="Filters" aria-busy=${hits.counts && counts === hits.counts ? "false" : "true"}>${filters}</aside>`}
      <section class="search-main">
        <h1 class="hidden-text">Search clips</h1>
        <${Box} params=${params} box=${box} send=${send} control=${control} />
        <${Query} params=${params} />
        <${Sending} sending=${sending} stop=${stopSending} />
        ${reads && html`<${Reading} params=${params} />`}
        ${failed && html`<${Problem} error=${failed}><button type="button" class="button small" onClick=${() => setFailed(null)}>Close</button><//>`}
        <div class="search-line">
          <${Found} hits=${hits} shown=${shown} again=${again} />
          ${!wide && html`<button type="button" class="button small" onClick=${() => setFiltersOpen(true)}>Filters${filtersOf(params).length > 0 && ` (${filtersOf(params).length})`}</button>`}
          <${Sort} params=${params} counts=${counts} ranked=${isRanked(hits.search)} />
        </div>
        ${params.has("text") && !params.has("clip") && !params.has("query") && html`<${OnlyWords} params=${params} />`}
        <${Unused} parts=${shown.first?.unused ?? {}} />
        <${Chips} params=${params} />
        <div class=${hits === shown || hits.failed ? "search-hits" : "search-hits old"}>
          <${Results} hits=${hits} shown=${shown} again=${again} params=${params}>
            <${Grid} total=${shown.total} sizes=${sizes} card=${card} see=${see} control=${control} memory=${shown.memory} label="Clips found" />
          <//>
        </div>
        <${ChosenBar} chosen=${chosen} total=${shown.total} judgedSome=${() => shown.recount()} />
      </section>
      ${!wide && filtersOpen && html`<${Dialog} title="Filters" side close=${() => setFiltersOpen(false)}>
        ${filters}
        <div class="dialog-foot">
          <button type="button" class="button main" onClick=${() => setFiltersOpen(false)}>Show ${count(shown.total, "clip")}</button>
          ${filtersOf(params).length > 0 && html`<button type="button" class="button" onClick=${() => setParams({ ...withoutFilters(params), at: null })}>Clear filters</button>`}
        </div>
      <//>`}
      ${dragging && html`<div class="drop-here">Drop a video or an image: clips like it are found</div>`}
    </div>
  `;
}

/** Whether it is searched by a video, which the server has to read first. */
const isVideo = (params) => params.has("query") && params.get("kind") !== "image";

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

function keysOf({ hits, ready, control, current, select, flush, box, more, wide, openFilters, judge, chosen }) {
  const selectedHit = () => (current() < 0 ? null : hits.at(current()));
  const moves = moveKeys({ hits, ready, control, current, select }, "clip");
  const extend = (event) => {
    const from = current();
    if (moves.find(({ keys }) => keys[0] === event.key).run() === false) return false;
    chosen.extend(current(), from);
    return undefined;
  };
  return [
    {
      keys: ["/"],
      about: "to the search box",
      run: () => {
        box.current?.focus();
        box.current?.select();
      },
    },
    {
      keys: ["ArrowDown"],
      about: "from the box to the clips",
      typing: true,
      run: (event) => {
        if (event.target !== box.current || !hits.total || !control.current) return false;
        const index = current() < 0 ? control.current.first() : current();
        select(index, { focus: true });
        control.current.show(index);
        return undefined;
      },
    },
    ...moves,
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
    { keys: ["x"], about: "choose the clip, or not", run: () => (selectedHit() ? chosen.toggle(current()) : false) },
    { keys: ["Shift+ArrowRight", "Shift+ArrowLeft", "Shift+ArrowDown", "Shift+ArrowUp"], about: "choose on the way", run: (event) => extend(event) },
    { keys: ["a"], about: "choose all that were found", run: chosen.all },
    ...(about.value?.judging ? [["y", "good"], ["n", "bad"], ["u", null]] : []).map(([key, verdict]) => ({
      keys: [key],
      about: verdict ? `judge the clip, or the chosen ones, ${verdict}` : "take back the judgement",
      run: () => judge(verdict),
    })),
    { keys: ["f"], about: "filters", run: () => (wide ? document.querySelector(".search-side input, .search-side summary")?.focus() : openFilters()) },
    { keys: ["c"], about: "clear the filters", run: () => setParams({ ...withoutFilters(place.value.params), at: null }) },
    { keys: ["Ctrl+Enter"], about: "filter by the SQL", typing: true, run: (event) => (event.target.matches?.("textarea") ? event.target.form.requestSubmit() : false) },
    { keys: ["Escape"], about: "out of the box; choose none", typing: true, run: (event) => (isTyping(event.target) ? event.target.blur() : chosen.clear()) },
  ];
}

const SCORES = {
  rrf: "by the ranks of all parts together",
  weights: "by weighted scores",
  bm25: "by words",
  motion: "by movement",
  moment: "by the most alike moment",
  cosine: "by likeness",
};

/** How many, how fast, why; and whether there is a newer version of the table. */
function Found({ hits, shown, again }) {
  const { first } = shown;
  if (!first) return html`<span class="found" role="status"></span>`;
  const capped = isRanked(shown.search) && first.total === first.num_listed_at_most;
  const newer = about.value.version > first.version;
  return html`
    ${newer && html`<button type="button" class="button small" onClick=${again} title=${`Version ${about.value.version} of the table; shown is ${first.version}`}>Newer rows: show them</button>`}
    <span class="found" role="status">
      <b class="num">${capped ? `the best ${count(first.total, "clip")}` : count(first.total, "clip")}</b>
      ${hits !== shown && !hits.failed && html` <span class="spinner" aria-hidden="true"></span>`}
      <span class="soft num" title=${`${Math.round(shown.took ?? first.took_ms)} ms until the page had the answer`}> ${short1(first.took_ms)} ms${first.exact === false ? ", approximate" : ""}</span>
      ${first.scoring && html`<span class="soft"> · ${SCORES[first.scoring] ?? first.scoring}</span>`}
    </span>
  `;
}

/** A text ranks all clips by its meaning: a switch for those that hold its words. */
const OnlyWords = ({ params }) => html`
  <label class="only-words small">
    <input type="checkbox" checked=${params.get("words") === "1"} onChange=${(event) => setParams({ words: event.target.checked ? "1" : null, at: null })} />
    Only clips with these words (else all, by words and meaning)
  </label>
`;

/** Parts of the query that found nothing, and why: no fault, the other parts did. */
function Unused({ parts }) {
  const told = Object.entries(parts).map(([part, why]) => `${part} (${why})`);
  return told.length > 0 && html`<p class="unused soft small" role="status">Without ${told.join("; without ")}</p>`;
}

const short1 = (number) => (number < 10 ? number.toFixed(1) : Math.round(number).toLocaleString("en"));

function Sort({ params, counts, ranked }) {
  const now = params.get("sort") ?? "";
  const known = Object.entries(counts?.histograms ?? {}).filter(([name, { all }]) => name !== "duration_s" && all.some((number) => number > 0));
  const names = ["duration_s", ...known.map(([name]) => name)];
  const random = now.startsWith("random") ? now : `random:${1 + Math.floor(Math.random() * 9999)}`;
  const choices = [["", ranked ? "Best first" : "As in the table"], ["clip_id", "Clip id"], [random, "Random"]];
  for (const name of names) choices.push([`-${name}`, `${nameWords(name)} ↓`], [name, `${nameWords(name)} ↑`]);
  if (!choices.some(([value]) => value === now)) choices.push([now, now]);
  return html`
    <select aria-label="Order" title=${aboutOf(now.replace(/^-/, ""))} value=${now} onChange=${(event) => setParams({ sort: event.target.value, at: null })}>
      ${choices.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}
    </select>
  `;
}

const ASKED_WRONGLY = [400, 404, 413]; // the same question gets the same answer

/** The search failed: another one, or the same again. */
function Failed({ error, again, params }) {
  const wrong = ASKED_WRONGLY.includes(error.status);
  const filters = wrong && filtersOf(params).length > 0;
  const query = wrong && (params.has("query") || params.has("clip"));
  return html`
    <${Failure} error=${error} retry=${filters || query ? null : again}>
      ${filters && html`<button type="button" class="button" onClick=${() => setParams({ ...withoutFilters(params), at: null })}>Clear filters</button>`}
      ${query && html` <button type="button" class="button" onClick=${() => setParams({ ...NO_QUERY, text: params.get("text") })}>Search without it</button>`}
    <//>
  `;
}

function Results({ hits, shown, again, params, children }) {
  if (hits.failed) return html`<${Failed} error=${hits.failed} again=${again} params=${params} />`;
  if (!shown.first) return isVideo(params) ? null : html`<${Loading} what="Searching" />`;
  if (shown.total > 0) return children;
  if (about.value.num_clips === 0) {
    return html`<${Empty} title="The database has no clips yet" hint="handloom ingest lists clips, handloom run makes their rows: they appear here as they are written." />`;
  }
  const filters = filtersOf(params).length;
  const wordless = params.has("text") && about.value.texts === false;
  return html`
    <${Empty} title=${wordless ? "No clip of this database has words" : "No clip is like that"} hint=${wordless ? "Narrations, verbs and nouns come with a dataset, or from a file clips.csv beside the videos. A clip, a video or an image finds clips like it." : filters ? "Fewer filters find more." : "Other words, or a clip, a video or an image to search with, may find some."}>
      ${filters > 0 && html`<button type="button" class="button" onClick=${() => setParams({ ...withoutFilters(params), at: null })}>Clear filters</button>`}
      <a class="button" href="/">All clips</a>
    <//>
  `;
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
