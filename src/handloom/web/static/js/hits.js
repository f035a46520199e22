// The hits of one search: pages are asked for when they come near, all of one version of the table.
import { about, ApiError, get, loadAbout } from "./api.js";

export const PAGE = 60;
const PAGES_KEPT = 60;
const MOST_LIMIT = 200; // of one answer

/** Parameters of the address that are part of the search; all others (which hit is selected) are not. */
const NAMES = ["text", "words", "clip", "query", "by", "from_s", "to_s", "where", "stage", "sort", "lasso"];

/** Parameters that choose among values, their names for the reader, and what they mean; an empty value means: unknown. */
export const FACETS = [
  ["dataset", "Dataset", "The dataset that the clip was ingested from"],
  ["verb", "Verb", "What is done, as the dataset's annotations say"],
  ["noun", "Noun", "With what it is done, as the dataset's annotations say"],
  ["participant", "Participant", "The person, as the dataset names them"],
  ["hand", "Hands seen", "Which hands of the person are seen in the clip"],
  ["scale", "Scale of the camera path", "metric: in metres; arbitrary: the shape is known, the size is not; none: no path"],
  ["flag", "Judged", "What people think of the clip: good or bad, or nothing yet"],
];

/** The search of an address, always written the same way: `URLSearchParams` without what is not part of it. */
export function searchOf(params) {
  const result = new URLSearchParams();
  const ranges = [...new Set(params.keys())].filter((name) => name.startsWith("q.")).sort();
  for (const name of [...NAMES, ...ranges]) {
    for (const value of params.getAll(name)) if (value.trim()) result.append(name, value.trim());
  }
  for (const [name] of FACETS) for (const value of params.getAll(name)) result.append(name, value);
  return result;
}

/** The number that a search is ordered by, or null. */
export function sortedBy(search) {
  const name = (search.get("sort") ?? "").replace(/^-/, "");
  return name && name !== "clip_id" && !name.startsWith("random") ? name : null;
}

/** Whether the search ranks by likeness (else it only filters). */
export const isRanked = (search) => ["text", "clip", "query"].some((name) => search.has(name));

/** The offsets of the pages that hold hits `[first, last)`, the middle ones first. */
export function pagesOf(first, last, page = PAGE) {
  const offsets = [];
  for (let offset = Math.floor(first / page) * page; offset < last; offset += page) offsets.push(offset);
  const middle = (first + last - page) / 2;
  return offsets.sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
}

/**
 * One search and what is known of it. `changed()` is called whenever more is known. `path` answers with pages, `list`
 * names their items: clips, or what else is listed so.
 */
export class Hits {
  constructor(search, changed, { path = "/api/search", list = "hits" } = {}) {
    Object.assign(this, { path, list });
    this.search = search;
    this.changed = changed;
    this.first = null; // the first answer: total, scoring
    this.counts = null; // the answer with facets and histograms
    this.failed = null;
    this.memory = {}; // of the grid
    this.pages = new Map(); // offset -> list of hits, the longest unused first
    this.asked = new Map(); // offset -> AbortController
    this.wanted = [0, 0];
    this.took = null; // milliseconds from the question to the answer, as the reader felt them
  }

  /** Ask for the first page and the counts: together where nothing is ranked, else the page first, as counts take longer. */
  async start() {
    if (!this.first) {
      const began = performance.now();
      const together = !isRanked(this.search);
      const answer = await this.ask(0, together ? { facets: 1 } : {});
      if (!answer) return;
      this.first = answer;
      if (together) this.counts = answer;
      this.took = performance.now() - began;
      if (this.list === "hits" && about.value && answer.version !== about.value.version) loadAbout().catch(() => {});
      this.changed();
    }
    if (this.counts) return;
    this.counting = new AbortController();
    try {
      this.counts = await get(this.path, { ...this.asks(), limit: 1, facets: 1, v: this.first.version }, { signal: this.counting.signal });
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    }
    this.changed();
  }

  /** Count again, of the same version: judgements have changed. */
  async recount() {
    try {
      this.counts = await get(this.path, { ...this.asks(), limit: 1, facets: 1 });
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    }
    this.changed();
  }

  get total() {
    return this.first?.total ?? 0;
  }

  /** The hit at this place, or undefined while it is not here. */
  at(index) {
    return this.pages.get(Math.floor(index / PAGE) * PAGE)?.[index % PAGE];
  }

  /** Hits `[first, last)` are near the view: bring what is missing, stop what is no longer needed. */
  see(first, last) {
    this.wanted = [first, last];
    if (!this.first || this.timer || last <= first) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.bring();
    }, 40);
  }

  bring() {
    const near = pagesOf(...this.wanted);
    for (const [offset, abort] of this.asked) if (!near.includes(offset)) abort.abort();
    for (const offset of near) {
      const page = this.pages.get(offset);
      if (page) {
        this.pages.delete(offset);
        this.pages.set(offset, page);
      } else if (!this.asked.has(offset)) this.ask(offset).then((answer) => answer && this.changed());
    }
    while (this.pages.size > PAGES_KEPT) this.pages.delete(this.pages.keys().next().value);
  }

  /** The clip ids of hits `[first, last)`; those that are not here are asked for. Throws ApiError. */
  async ids(first, last) {
    const found = Array.from({ length: Math.max(0, Math.min(last, this.total) - first) }, (_, place) => this.at(first + place));
    for (let at = found.indexOf(undefined); at >= 0; at = found.indexOf(undefined)) {
      const limit = Math.min(MOST_LIMIT, found.length - at);
      const answer = await get(this.path, { ...this.asks(), offset: first + at, limit, v: this.first.version });
      for (let place = 0; place < limit; place += 1) found[at + place] ??= answer[this.list][place] ?? null;
    }
    return found.filter(Boolean).map((hit) => hit.clip_id);
  }

  async ask(offset, more = {}) {
    const abort = new AbortController();
    this.asked.set(offset, abort);
    try {
      const answer = await get(this.path, { ...this.asks(), offset, limit: PAGE, ...more, v: this.first?.version }, { signal: abort.signal });
      this.pages.set(offset, answer[this.list]);
      this.failed = null;
      return answer;
    } catch (error) {
      if (error.name === "AbortError") return null;
      this.fail(error);
      this.changed();
      return null;
    } finally {
      if (this.asked.get(offset) === abort) this.asked.delete(offset);
    }
  }

  /** The search as parameters of a request. */
  asks() {
    return Object.fromEntries([...new Set(this.search.keys())].map((name) => [name, this.search.getAll(name)]));
  }

  fail(error) {
    this.failed = error instanceof ApiError ? error : new ApiError(`the page has a fault: ${error.message}`, "load it again");
  }

  /** Stop everything that is on its way. */
  stop() {
    this.counting?.abort();
    for (const abort of this.asked.values()) abort.abort();
  }
}
