// What the gallery's pages compute, without a browser: `node --test`. Run by test_pages.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { beforeEach, test } from "node:test";

globalThis.Element = class {};
globalThis.window = {
  location: new URL("http://here/?text=cup&at=7"),
  history: {
    steps: [],
    pushState(_state, _title, href) {
      this.steps.push(["push", href]);
      window.location = new URL(href, "http://here/");
    },
    replaceState(_state, _title, href) {
      this.steps.push(["replace", href]);
      window.location = new URL(href, "http://here/");
    },
  },
  addEventListener() {},
};

const js = new URL("../../../src/handloom/web/static/js/", import.meta.url);
const [router, virtual, hits, filters, api, keys, states, card, curves, path, plane, runs, reports, episode] = await Promise.all(
  ["router", "virtual", "hits", "filters", "api", "keys", "states", "card", "curves", "path", "timeplane", "runs", "reports", "episode"].map((name) => import(new URL(`${name}.js`, js))),
);

beforeEach(() => {
  window.history.steps.length = 0;
});

test("an id with every kind of sign comes back from its address", () => {
  for (const id of ["folder:a b:0-100", "a/b/c", "50%", "ä?x=1&y#z", "a+b"]) {
    const url = new URL(router.clipHref(id, { from_s: 1.5, to_s: null }), "http://here/");
    assert.deepEqual(router.route(url.pathname), { page: "clip", id });
    assert.equal(url.search, "?from_s=1.5");
  }
  assert.deepEqual(router.route("/clip/%E0%A4%A"), { page: "clip", id: "%E0%A4%A" });
  assert.equal(router.route("/").page, "search");
  assert.equal(router.route("/dataset/").page, "dataset");
  assert.equal(router.route("/else").page, "unknown");
});

test("parameters change alone, lists are repeated, empty ones go", () => {
  router.go("/?text=cup&verb=cut");
  router.setParams({ verb: ["cut", "pour"], text: "" });
  router.setParams({ at: 0 }, { replace: true });
  router.setParams({ at: 0 });
  assert.deepEqual(window.history.steps, [
    ["push", "/?text=cup&verb=cut"],
    ["push", "/?verb=cut&verb=pour"],
    ["replace", "/?verb=cut&verb=pour&at=0"],
  ]);
  assert.deepEqual(router.place.value.params.getAll("verb"), ["cut", "pour"]);
});

const SIZES = { least: 190, gap: 10, text: 46 };

test("cards fill the width, and every card has its place", () => {
  for (const width of [1, 150, 189, 390, 1150, 3840]) {
    for (const total of [0, 1, 59, 100_000]) {
      const { columns, cardWidth, rows } = virtual.layout(width, total, SIZES);
      assert.ok(columns >= 1 && columns * cardWidth + (columns - 1) * SIZES.gap <= Math.max(width, 1));
      assert.ok(rows * columns >= total && (rows - 1) * columns < Math.max(total, 1));
    }
  }
});

test("the rows in view cover the view, and are few", () => {
  const grid = virtual.layout(1150, 1_000_000, SIZES);
  for (const top of [0, 1, 777, grid.height / 2, grid.height - 700]) {
    const [first, last] = virtual.rowsInView(top, 700, grid);
    assert.ok(first * grid.step <= top && (last * grid.step >= top + 700 || last === grid.rows));
    assert.ok(last - first < 12);
  }
  assert.deepEqual(virtual.rowsInView(0, 700, virtual.layout(1150, 0, SIZES)), [0, 0]);
});

for (const total of [1000, 5_000_000]) {
  test(`both ends and every row of ${total} clips can be reached, and small steps are their own pixels`, () => {
    const view = 700;
    const grid = virtual.layout(390, total, SIZES);
    assert.ok(grid.track <= virtual.LONGEST_PX);
    const end = grid.track - view;
    const start = { bar: 0, top: 0 };
    assert.equal(virtual.follow({ bar: 50, top: 9000 }, 0, view, grid).top, 0);
    assert.ok(Math.abs(virtual.follow(start, end, view, grid).top - (grid.height - view)) < 1);
    assert.equal(virtual.follow(start, 120, view, grid).top, 120);
    for (const row of [0, 1, Math.floor(grid.rows / 3), grid.rows - 1]) {
      const top = virtual.topFor(row, 0, view, grid);
      assert.ok(top <= row * grid.step && row * grid.step + grid.rowHeight <= top + view + 1e-6, `row ${row}`);
      const bar = virtual.barAt(top, view, grid);
      assert.ok(bar >= 0 && bar <= end + 1e-6);
      const next = virtual.follow({ bar, top }, Math.round(bar), view, grid);
      assert.ok(Math.abs(next.top - top) <= 1, `the browser rounds the bar: row ${row} stays`);
    }
    assert.equal(virtual.topFor(2, 2 * grid.step - 5, view, grid), 2 * grid.step - 5);
  });
}

test("a search is the same however its address is written, and the selected hit is no part of it", () => {
  const one = hits.searchOf(new URLSearchParams("at=9&verb=cut&text=+cup+&q.jerk=0:1&q.blur=:2&noun=&where="));
  const two = hits.searchOf(new URLSearchParams("noun=&q.blur=:2&q.jerk=0:1&text=cup&verb=cut"));
  assert.equal(one.toString(), two.toString());
  assert.equal(one.get("noun"), "", "clips whose noun is unknown");
  assert.ok(!one.has("where"));
  assert.ok(hits.isRanked(one));
  assert.ok(!hits.isRanked(hits.searchOf(new URLSearchParams("verb=cut"))));
});

test("pages cover the wanted hits, the middle one first", () => {
  assert.deepEqual(hits.pagesOf(0, 30), [0]);
  assert.deepEqual(hits.pagesOf(59, 61), [0, 60]);
  assert.deepEqual(hits.pagesOf(90, 200), [120, 60, 180]);
  assert.deepEqual(hits.pagesOf(60, 60), []);
});

test("hits come page by page, all of one version; what is no longer near is stopped", async () => {
  const asked = [];
  const stopped = [];
  globalThis.fetch = (address, { signal }) => {
    const url = new URL(address, "http://here/");
    asked.push(url.searchParams);
    const offset = Number(url.searchParams.get("offset"));
    const list = Array.from({ length: 60 }, (_, index) => ({ clip_id: `c${offset + index}` }));
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => stopped.push(offset) && reject(new DOMException("stopped", "AbortError")));
      setTimeout(() => resolve(new Response(JSON.stringify({ version: 7, total: 10_000, took_ms: 1, hits: list }))), 90);
    });
  };
  const all = new hits.Hits(new URLSearchParams("verb=cut&verb=pour"), () => {});
  await all.start();
  assert.equal(all.total, 10_000);
  assert.equal(all.at(59).clip_id, "c59");
  assert.equal(all.at(60), undefined);
  assert.deepEqual(asked[0].getAll("verb"), ["cut", "pour"]);
  assert.equal(asked[0].get("facets"), "1");
  assert.equal(asked[0].get("v"), null);
  all.see(3000, 3030);
  while (!all.asked.has(3000)) await new Promise((resolve) => setTimeout(resolve, 5));
  all.see(9000, 9030);
  while (all.asked.size || !all.at(9029)) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(stopped.includes(3000) && all.at(3000) === undefined);
  assert.equal(all.at(9029).clip_id, "c9029");
  assert.ok(asked.slice(1).every((params) => params.get("v") === "7" && params.get("facets") === null));
});

test("a search that ranks shows its hits before the counts are there", async () => {
  const asked = [];
  globalThis.fetch = async (address) => {
    const { searchParams } = new URL(address, "http://here/");
    asked.push([searchParams.get("facets"), searchParams.get("limit"), searchParams.get("v")]);
    const facets = searchParams.get("facets") && { verb: [["cut", 3]] };
    return new Response(JSON.stringify({ version: 7, total: 3, took_ms: 1, hits: [{ clip_id: "c0" }], facets }));
  };
  const seen = [];
  const found = new hits.Hits(new URLSearchParams("text=cut"), () => seen.push([found.at(0).clip_id, found.counts?.facets.verb[0][1]]));
  await found.start();
  assert.deepEqual(seen, [["c0", undefined], ["c0", 3]]);
  assert.deepEqual(asked, [[null, "60", null], ["1", "1", "7"]]);
  await found.start();
  assert.equal(asked.length, 2, "what is known is not asked for again");
});

test("an error of the server is told in its words, and no answer too", async () => {
  globalThis.fetch = async () => new Response(JSON.stringify({ error: { problem: "no column `x`", hint: "columns: a, b" } }), { status: 400 });
  await assert.rejects(api.get("/api/search"), { problem: "no column `x`", hint: "columns: a, b", status: 400 });
  globalThis.fetch = async () => new Response("<h1>Bad gateway</h1>", { status: 502 });
  await assert.rejects(api.get("/api/search"), { status: 502 });
  globalThis.fetch = async () => new Response("{\"hits\": [", { status: 200 });
  await assert.rejects(api.get("/api/search"), (error) => error.problem.includes("cannot be read") && error.status === 502);
  const cut = (answer) => new ReadableStream({ pull: (to) => (answer.length ? to.enqueue(answer.pop()) : to.error(new TypeError("network error"))) });
  for (const progress of [undefined, () => {}]) {
    globalThis.fetch = async () => new Response(cut([new Uint8Array(3)]), { headers: { "Content-Length": "9" } });
    for (const asked of [api.get("/api/search"), api.post("/api/judge", {}), api.bytes("/media/frames", {}, { progress })]) {
      await assert.rejects(asked, (error) => error.status === 0 && error.problem.includes("does not answer"));
      assert.equal(api.trouble.value.status, 0);
    }
  }
  globalThis.fetch = async () => Promise.reject(new TypeError("failed to fetch"));
  await assert.rejects(api.get("/api/search"), { status: 0, problem: "the server does not answer" });
});

test("answers of one version are asked for once, others each time", async () => {
  let count = 0;
  globalThis.fetch = async () => new Response(JSON.stringify({ count: (count += 1) }));
  await api.get("/api/clip", { id: "x", v: 3 });
  assert.deepEqual(await api.get("/api/clip", { id: "x", v: 3 }), { count: 1 });
  await api.get("/api/clip", { id: "x" });
  assert.deepEqual(await api.get("/api/clip", { id: "x" }), { count: 3 });
});

/** The safetensors layout of `{name: [dtype, shape, typed array]}`. */
function packed(entries, pad = "") {
  let at = 0;
  const header = {};
  for (const [name, [dtype, shape, data]] of Object.entries(entries)) {
    header[name] = { dtype, shape, data_offsets: [at, (at += data.byteLength)] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header) + pad);
  const buffer = new Uint8Array(8 + text.length + at);
  new DataView(buffer.buffer).setBigUint64(0, BigInt(text.length), true);
  buffer.set(text, 8);
  at = 8 + text.length;
  for (const [, , data] of Object.values(entries)) {
    buffer.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return buffer.buffer;
}

test("arrays come back whole, also where they do not begin at a multiple of their size", () => {
  const entries = {
    mask: ["BOOL", [3], new Uint8Array([1, 0, 1])],
    points: ["F32", [2, 2], new Float32Array([1.5, NaN, -2, 1e9])],
    frame_s: ["F64", [2], new Float64Array([0.1, 1e-9])],
    flags: ["I32", [1], new Int32Array([-5])],
    none: ["F32", [0, 2], new Float32Array(0)],
  };
  for (const pad of ["", " ", "  ", "   ", "       "]) {
    const read = api.readArrays(packed(entries, pad));
    for (const [name, [dtype, shape, data]] of Object.entries(entries)) {
      assert.deepEqual(read[name].shape, shape);
      assert.equal(read[name].dtype, dtype);
      assert.deepEqual([...read[name].data], [...data]);
    }
  }
});

test("arrays that were cut short are an error", () => {
  const whole = packed({ points: ["F32", [4], new Float32Array(4)] });
  for (const length of [0, 7, 12, whole.byteLength - 1]) {
    assert.throws(() => api.readArrays(whole.slice(0, length)), { name: "Error" }, `${length} bytes`);
  }
  assert.throws(() => api.readArrays(packed({ x: ["BF16", [1], new Uint8Array(2)] })), /BF16/);
});

test("ranges come back from the address, open ends too", () => {
  for (const range of [[0.25, 1], [null, -3], [0, null]]) assert.deepEqual(filters.readRange(filters.writeRange(...range)), range);
  assert.equal(filters.writeRange(null, null), null);
  assert.deepEqual(filters.readRange(null), [null, null]);
  assert.deepEqual(filters.readRange("a:1"), [null, 1]);
  assert.equal(filters.rangeWords("0:"), "at least 0");
});

test("places in a histogram and values are inverse, also where bins are of unequal width", () => {
  const edges = [-10, 0, 0.5, 1, 40];
  for (let place = 0; place <= 4; place += 0.125) assert.ok(Math.abs(filters.placeOf(filters.valueAt(place, edges), edges) - place) < 1e-9);
  assert.equal(filters.placeOf(-99, edges), 0);
  assert.equal(filters.placeOf(99, edges), 4);
  assert.equal(filters.valueAt(4, edges), 40);
});

test("every filter is shown, can be taken away alone, and all at once", () => {
  const params = new URLSearchParams("text=cup&verb=cut&verb=pour&q.jerk=:1&stage=hands:missing&where=a>1&at=3");
  const found = filters.filtersOf(params);
  assert.equal(found.length, 5);
  assert.deepEqual(filters.dropFilter(params, found[0]), { verb: ["pour"] });
  assert.equal(router.changed(params, filters.withoutFilters(params)).toString(), "text=cup&at=3");
});

test("a facet that tells clips of the database apart stays, whatever was found", () => {
  const known = { facets: ["verb", "flag"], num_clips: 9 };
  for (const rows of [[], [["cut", 3]], [["cut", 3], ["pour", 1]]]) assert.ok(filters.isShown("verb", rows, known), rows);
  assert.ok(!filters.isShown("noun", [["cup", 9]], known) && !filters.isShown("noun", [], known), "all clips have it");
  assert.ok(filters.isShown("noun", [["fork", 0]], known), "an address chose it");
  assert.ok(filters.isShown("dataset", [["mine", 9]], known) && !filters.isShown("dataset", [], { facets: [], num_clips: 0 }));
  assert.ok(!filters.isShown("flag", [["none", 9]], { facets: [] }) && filters.isShown("flag", [["good", 9]], { facets: [] }));
});

test("of which clips the counts are is told where fewer are listed", () => {
  const words = (total, num_counted, query = "text=cup") => filters.countedWords({ total, num_counted }, new URLSearchParams(query));
  assert.equal(words(2000, 22030), "The counts are of all 22,030 clips that pass the filters, not of the 2,000 in the list.");
  assert.equal(words(5, 5), "");
  assert.equal(words(5, 6, "clip=a"), "", "all but the clip itself");
  assert.match(words(5, 7, "clip=a"), /all 7 clips/);
  assert.equal(filters.countedWords(null, new URLSearchParams()), "");
});

test("a number has its unit in brackets, in the list and in what holds", () => {
  assert.equal(states.nameWords("hand_max_speed_m_s"), "hand max speed (m/s)");
  assert.equal(states.nameWords("num_frames"), "frames");
  assert.deepEqual([["hand_max_speed_m_s", 0.32], ["num_frames", 1200], ["duration_s", 75], ["blur", null]].map(([name, value]) => states.valueWords(name, value)), ["0.32 m/s", "1,200", "1:15", "unknown"]);
  assert.equal(states.nameWords("of_later_px"), "of later (px)");
  const labels = filters.filtersOf(new URLSearchParams("flag=bad&q.hand_jitter_px=:2")).map(({ label }) => label);
  assert.deepEqual(labels, ["judged: bad", "hand jitter in the image (px): at most 2"]);
});

test("no two numbers of quality have one name", () => {
  const source = readFileSync(new URL("../../schemas/tables/arrow.py", new URL("../", js)), "utf8");
  const [fields] = /QUALITY_FIELDS[^{]*\{[\s\S]*?\n\}/.exec(source);
  const names = [...fields.matchAll(/^ {4}"(\w+)":/gm)].map(([, name]) => name);
  assert.ok(names.length > 30 && names.includes("hand_jitter_mm"));
  assert.equal(new Set(names.map((name) => states.nameOf({ name }).words)).size, names.length);
});

test("bars: nothing is nothing, one of a million can be seen", () => {
  const [none, one, all] = filters.heights([0, 1, 1_000_000], 1_000_000);
  assert.equal(none, 0);
  assert.ok(one >= 0.04);
  assert.equal(all, 1);
});

test("keys: the youngest table wins, fields keep their letters, a dialog stands before all", () => {
  const ran = [];
  const table = (title, list, modal = false) => ({ title, modal, live: () => list });
  const key = (name, id, more = {}) => ({ keys: [name], about: id, run: () => void ran.push(id), ...more });
  const event = (name, more = {}) => ({ key: name, preventDefault() {}, target: null, ...more });
  class Input extends Element {
    tagName = "INPUT";
    type = "text";
    closest = () => null;
    matches = () => false;
  }
  keys.tables.value = [table("site", [key("t", "theme"), key("x", "site x")]), table("page", [key("x", "page x"), key("Escape", "out", { typing: true })])];
  keys.press(event("x"));
  keys.press(event("t"));
  keys.press(event("x", { target: new Input() }));
  keys.press(event("Escape", { target: new Input() }));
  keys.press(event("x", { ctrlKey: true }));
  keys.tables.value = [...keys.tables.value, table("dialog", [key("Escape", "close")], true)];
  keys.press(event("Escape"));
  keys.press(event("t"));
  assert.deepEqual(ran, ["page x", "theme", "out", "close"]);
  assert.equal(keys.nameOf(event("?", { shiftKey: true })), "?");
  assert.equal(keys.nameOf(event("ArrowLeft", { shiftKey: true })), "Shift+ArrowLeft");
});

test("words for numbers", () => {
  assert.equal(states.count(1, "clip"), "1 clip");
  assert.equal(states.count(1234, "clip"), "1,234 clips");
  assert.equal(states.duration(4.21), "4.2 s");
  assert.equal(states.duration(65), "1:05");
  assert.equal(states.duration(3723), "1:02:03");
  assert.equal(states.duration(null), "–");
  assert.deepEqual([17.28, 59.9, 60, 252, 3600, 4442400].map(states.lengthWords), ["17.3 s", "59.9 s", "1 min", "4.2 min", "1 h", "1,234 h"]);
  assert.equal(states.short(0.123456), "0.123");
  assert.equal(states.short(NaN), "–");
});

test("a card says why it was found on one line, and all of it under the pointer", () => {
  const motion = { score: 0.912, rank: 1, equal: 12 };
  assert.deepEqual(card.whyOf({ parts: { motion } }), ["motion 0.912 #1"]);
  assert.deepEqual(card.whyOf({ parts: { words: motion, meaning: { score: 0.5, rank: 3 }, look: { score: 0.31, rank: null } } }), ["words #1", "meaning #3", "look 0.31"]);
  assert.equal(card.whyWords({ score: 0.0325, parts: { motion, look: { score: null, rank: null, equal: null } } }), "score 0.0325: motion 0.912 (#1, as 12 of the ranked clips); look –");
  assert.equal(card.whyWords({ score: null }), "score –");
  assert.equal(card.partsOf([{ parts: { motion } }, { parts: { motion, look: motion }, match_start_s: 0 }]), 3);
  assert.equal(card.partsOf(undefined), 0);
});

test("a line on the map comes back from its address, with few corners", async () => {
  globalThis.window.matchMedia ??= () => ({ matches: false });
  const map = await import(new URL("map.js", js));
  const square = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]];
  assert.deepEqual(map.readLasso(map.writeLasso(square)), square);
  const round = Array.from({ length: 500 }, (_, n) => [Math.cos(n / 79.6), Math.sin(n / 79.6)]);
  const kept = map.readLasso(map.writeLasso(round));
  assert.ok(kept.length <= 50 && map.writeLasso(round).length < 1000);
  assert.ok(kept.every(([x, y]) => Math.abs(Math.hypot(x, y) - 1) < 0.002));
  for (const wrong of [null, "", "1,2", "1,2;3,4", "a,b;c,d;e,f", "1;2;3"]) assert.deepEqual(map.readLasso(wrong), []);
  assert.ok(map.isInside([0, 0], square) && !map.isInside([0, 0.6], square) && !map.isInside([2, 0], square));
  const star = Array.from({ length: 5 }, (_, n) => [Math.cos(n * 0.8 * Math.PI), Math.sin(n * 0.8 * Math.PI)]);
  assert.ok(!map.isInside([0, 0], star) && map.isInside([0.9, 0], star)); // as web/dataset.py decides
});

test("a judgement made on this page is newer than what a list holds", async () => {
  const judge = await import(new URL("judge.js", js));
  const hit = { clip_id: "a", flag: "good" };
  assert.equal(judge.flagOf(hit), "good");
  assert.equal(judge.flagOf({ clip_id: "b", flag: "none" }), null);
  judge.judged.value = { a: { clip_id: "a", verdict: "bad" } };
  assert.equal(judge.flagOf(hit), "bad");
  judge.judged.value = { a: null };
  assert.equal(judge.flagOf(hit), null);
});

test("a run says how far it is, and only the newest one has stopped", () => {
  const told = { total: 40, units: "clips", rows: 11, rejects: 1, frames: 900, clips_per_s: 0.25, frames_per_s: 31.24, left_s: 130, at_work: "tracks (4 s)" };
  assert.deepEqual(runs.factsOf(told), ["12 of 40 clips done, 1 rejected", "15 clips a minute, 31.2 frames/s over the last minute", "about 2:10 left", "at work: tracks (4 s)"]);
  const begun = { ...told, rows: 0, rejects: 0, frames: 0, clips_per_s: null, frames_per_s: null, left_s: null, at_work: "" };
  assert.deepEqual(runs.factsOf(begun), ["0 of 40 clips done", "workers start and load their models"]);
  assert.deepEqual(runs.factsOf({ ...begun, total: 1, units: "rows", rows: 1, clips_per_s: 8, left_s: 0 }), ["1 of 1 row done", "8 rows/s over the last minute", "the last rows are committed"]);
  const run = (state, of_stages = true) => ({ run_id: state, state, of_stages });
  assert.equal(runs.stoppedRun({ runs: [] }), null);
  assert.equal(runs.stoppedRun({ runs: [run("done"), run("gone")] }), null, "what came later has ended");
  assert.equal(runs.stoppedRun({ runs: [run("gone", false)] }), null, "no run: it kept runs away");
  for (const state of ["gone", "silent"]) assert.equal(runs.stoppedRun({ runs: [run(state), run("done")] }).run_id, state);
});

test("a place among the others is said in words that hold", async () => {
  const { placeWords } = await import(new URL("dataset.js", js));
  const said = [[1, 0], [0.9941, 0], [0.99999, 0], [0.98, 0.01], [0, 0], [0, 0.25], [0.5, 0], [null, null]].map(([place, equal]) => placeWords({ place, equal }));
  assert.deepEqual(said, ["higher than all others", "higher than 99.4 %", "higher than 99.9 %", "higher than 98 %, 1 % equal",
    "lower than all others", "lower than 75 %, 25 % equal", "higher than 50 %", ""]);
});

test("losses of a factor of 20 are drawn logarithmically, and one point or equal ones have a place", () => {
  assert.equal(reports.axesOf([]), null);
  const flat = reports.axesOf([{ points: [[1, 0.5]] }]);
  assert.ok(!flat.log && flat.y(0.5) === 60 && flat.x(1) === 320);
  const far = reports.axesOf([{ points: [[1, 100], [10, 1]] }, { points: [[5, 10]] }]);
  assert.ok(far.log && Math.abs(far.y(10) - 60) < 1e-9 && far.y(100) === 4 && far.y(1) === 116);
  assert.ok(!reports.axesOf([{ points: [[1, 100], [2, 0]] }]).log, "a loss of 0 has no logarithm");
});

test("a place is known in a step where all its three numbers are", () => {
  assert.ok(path.isKnown(Float32Array.of(NaN, 1, 2, 3, 4, 5)));
  assert.ok(!path.isKnown(Float32Array.of(NaN, 1, 2, 3, NaN, 5)));
  assert.ok(!path.isKnown(new Float32Array()));
});

test("an image that an episode lacks is told from one that is on its way", async () => {
  globalThis.createImageBitmap = async () => ({ width: 2, height: 2, close() {} });
  const frames = new episode.CameraFrames("a", 1, "ego");
  frames.bring = async () => ({ 1: new Blob() });
  assert.ok(!frames.isMissing(0), "not asked for");
  for (const n of [0, 1]) await new Promise((done) => frames.get(n, done));
  assert.deepEqual([frames.isMissing(0), frames.get(0)], [true, null]);
  assert.equal(frames.get(1).width, 2);
  assert.ok(!frames.isMissing(1) && !frames.isMissing(2));
});

test("many curves are grouped by what they are of, and none is lost", () => {
  const fingers = ["wrist", "thumb_1", "thumb_2", "index_1", "index_2"];
  const names = ["left", "right"].flatMap((hand) => fingers.flatMap((point) => ["x", "y", "z"].map((axis) => `${hand}.${point}.${axis}`)));
  const rows = curves.rowsOf({ state_names: names, action_names: names }, names.length, names.length);
  const groups = curves.groupsOf(rows);
  assert.deepEqual(groups.map((one) => [one.name, one.rows.length]), ["left", "right"].flatMap((hand) => [[`${hand} wrist`, 3], [`${hand} thumb`, 6], [`${hand} index`, 6]]));
  assert.deepEqual(groups.flatMap((one) => one.rows), rows);
  assert.deepEqual(curves.groupsOf(rows.slice(0, 9)), [{ name: "", rows: rows.slice(0, 9) }], "few need no groups");
  const unnamed = curves.rowsOf({}, 60, 60);
  assert.deepEqual(curves.groupsOf(unnamed), [{ name: "", rows: unnamed }]);
});

test("hands of a state are its keypoints in order, and a hand that it lacks is unknown", () => {
  const state = { data: Float32Array.from({ length: 2 * 70 }, (_, n) => n), shape: [2, 70] };
  const found = path.handsOf(state, [null, { index: Array.from({ length: 63 }, (_, k) => 65 - k) }]);
  assert.equal(found.length, 2 * 2 * 63);
  assert.ok(found.subarray(0, 63).every(Number.isNaN));
  assert.deepEqual([found[63], found[125], found[3 * 63]], [65, 3, 70 + 65]);
});

test("an action lies over the state of its name, and no number is lost or shown twice", () => {
  const names = { state_names: ["observation.state.x", "state.y", "grip"], state_units: ["m", "m", null], action_names: ["action.y", "grip", "other"], action_units: null };
  const rows = curves.rowsOf(names, 3, 3);
  assert.deepEqual(rows.map(({ label, state, action }) => [label, state, action]), [["x", 0, null], ["y", 1, 0], ["grip", 2, 1], ["other (action)", null, 2]]);
  assert.deepEqual(rows.map(({ unit }) => unit), ["m", "m", null, null]);
  assert.deepEqual(curves.rowsOf({}, 2, 2).map(({ state, action }) => [state, action]), [[0, 0], [1, 1]]);
  assert.equal(curves.rowsOf({}, 2, 3).length, 5);
  assert.deepEqual(curves.rowsOf({}, 0, 0), []);
});

test("curves and ways are columns of the arrays, and unknown values have no range", () => {
  const array = { data: Float32Array.from([1, 2, 3, NaN, 5, 6, 7, 8]), shape: [2, 4] };
  assert.deepEqual([...curves.columnOf(array, 1)], [2, 6]);
  assert.deepEqual(plane.rangeOf([curves.columnOf(array, 3), curves.columnOf(array, 0)]), [1, 8]);
  assert.equal(plane.rangeOf([Float32Array.of(NaN)]), null);
  assert.deepEqual([...path.wayOf(array, { index: [2, 0, 1] })], [3, 1, 2, 7, 5, 6]);
});
