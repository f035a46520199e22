// The dataset page: how much there is, how complete it is, what was rejected, distributions, outliers, the map, runs.
import { html, useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { about, get, loadAbout, post } from "./api.js";
import { Thumb, titleOf } from "./card.js";
import { areMore, heights } from "./filters.js";
import { FACETS } from "./hits.js";
import { flagOf, judgeAll } from "./judge.js";
import { useKeys } from "./keys.js";
import { Map as EmbeddingMap } from "./map.js";
import { jump, Part } from "./parts.js";
import { clipHref, setParams, withQuery } from "./router.js";
import { Indexes, percent, Running, Runs, shareOf, stoppedRun } from "./runs.js";
import { count, Empty, Failure, lengthWords, Loading, nameWords, Problem, sentence, short } from "./states.js";

const LIVE_MS = 3000;
const CALM_MS = 5000;
const SECTIONS = [
  ["stages", "Stages"],
  ["rejects", "Rejects"],
  ["numbers", "Distributions"],
  ["outliers", "Outliers"],
  ["map", "Map"],
  ["runs", "Runs"],
];

export function Page({ params }) {
  const [found, setFound] = useState(null);
  const [failed, setFailed] = useState(null);
  const [turn, setTurn] = useState(0);
  const again = () => setTurn((number) => number + 1);
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const ask = async () => {
      let wait = CALM_MS;
      try {
        if (!document.hidden) {
          const answer = await get("/api/dataset", {}, { signal: abort.signal });
          if (answer.version !== about.value?.version) loadAbout().catch(() => {});
          setFound(answer);
          setFailed(null);
          if (answer.running || stoppedRun(answer)) wait = LIVE_MS;
        }
      } catch (error) {
        if (error.name === "AbortError") return;
        setFailed(error);
      }
      timer = setTimeout(ask, wait);
    };
    ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [turn]);
  useKeys("Dataset", SECTIONS.map(([name, label], index) => ({ keys: [String(index + 1)], about: `to: ${label}`, run: () => void jump(name) })));
  if (!found) return failed ? html`<${Failure} error=${failed} retry=${again} />` : html`<${Loading} what="Counting" />`;
  if (!found.counts.clip_list && !found.counts.clips) {
    return html`<${Empty} title="The database lists no clips yet" hint="handloom ingest folder DIR --db DB lists some; this page follows while handloom run works on them." />`;
  }
  const number = params.get("q") || "";
  return html`
    <div class="dataset">
      ${failed && html`<p class="dataset-stale" role="alert">${sentence(failed.problem)}. What is shown was counted before. <button type="button" class="button" onClick=${again}>Load again</button></p>`}
      <${Running} found=${found} />
      <${Tiles} found=${found} />
      <nav class="dataset-nav" aria-label="Parts of this page">
        ${SECTIONS.map(([name, label]) => html`<button key=${name} type="button" class="button quiet" onClick=${() => jump(name)}>${label}</button>`)}
      </nav>
      <${Part} name="stages" title="Stages" about="Rows whose columns are of today's settings, of earlier ones, or not computed."><${Stages} stages=${found.stages} /><//>
      <${Part} name="rejects" title="Rejects" about="Clips, and stages of clips, that could not be processed.">
        <${Rejects} title="Clips without a row" rejects=${found.rejects} part="clips" again=${again} />
        <${Rejects} title="Stages that failed on clips with a row" rejects=${found.stage_rejects} part="stages" again=${again} />
        ${!found.rejects.length && !found.stage_rejects.length && html`<p class="soft">Nothing is rejected.</p>`}
      <//>
      <${Part} name="numbers" title="Distributions" about="Bars are in the scale of square roots, so that few clips among many are seen. Choose a number for its outliers, a word for its clips.">
        ${found.counts.clips ? html`<${Facets} facets=${found.facets} /><${Numbers} found=${found} chosen=${number} />` : html`<p class="soft">No row yet: numbers come with the first ones.</p>`}
      <//>
      <${Part} name="outliers" title="Outliers" about="The clips with the smallest or largest values of a number."><${Outliers} found=${found} params=${params} /><//>
      <${Part} name="map" title="Map" about=""><${EmbeddingMap} params=${params} version=${found.version} /><//>
      <${Part} name="runs" title="Runs and indexes" about=""><${Runs} runs=${found.runs} /><${Indexes} indexes=${found.counts.indexes} rows=${found.counts.clips} /><//>
    </div>
  `;
}

function Tiles({ found }) {
  const { counts, facets } = found;
  const flags = Object.fromEntries((facets.flag ?? []).map(([value, number]) => [value ?? "none", number]));
  const metric = counts.clips_by_world_scale?.metric ?? 0;
  const people = counts.clips_of_people;
  const lost = counts.judgements.without_row;
  const judgedBad = lost ? `${count(lost, "judged clip has", "judged clips have")} no row now` : "of clips with a row";
  const tiles = [
    ["Rows", counts.clips, `of ${count(counts.clip_list, "clip")} in the list`, "Clips that were processed: each has a row in the table clips", "/"],
    ["Length", lengthWords(3600 * counts.hours), count(counts.frames, "frame"), "Length of all clips with a row"],
    ["Pending", counts.pending, counts.pending ? "handloom run goes on" : "all are done", "Clips of the list with neither a row nor a reject"],
    ["Rejects", counts.rejects, `${shareOf(counts.rejects, counts.clip_list)} of the list`, "Clips that could not be processed; their reasons are below"],
    ["Left hand", shareOf(counts.clips_with_left_hand, people), "of the clips of people", "Clips in which the person's left hand is seen", withQuery("/", { hand: ["left", "both"] })],
    ["Right hand", shareOf(counts.clips_with_right_hand, people), "of the clips of people", "Clips in which the person's right hand is seen", withQuery("/", { hand: ["right", "both"] })],
    ["In metres", shareOf(metric, counts.clips), "have camera poses in metres", "Clips whose camera path is in metres, not of arbitrary scale", withQuery("/", { scale: "metric" })],
    ["Judged good", flags.good ?? 0, "of clips with a row", "Clips that people found good", withQuery("/", { flag: "good" })],
    ["Judged bad", flags.bad ?? 0, judgedBad, "Clips that people found bad", withQuery("/", { flag: "bad" })],
  ];
  if (counts.outdated) tiles.push(["Outdated", counts.outdated, "made with another camera", "Rows that handloom run --recompute brings up to date"]);
  if (counts.clips_of_robots) tiles.push(["Of robots", counts.clips_of_robots, "of the rows", "Clips of datasets of robots"]);
  if (counts.duplicates) tiles.push(["Near-duplicates", counts.duplicates.num_in_groups, `in ${count(counts.duplicates.num_groups, "group")}`, "Clips that show a recording which another clip shows too"]);
  const shown = (value) => (typeof value === "number" ? value.toLocaleString("en") : value);
  return html`
    <h1 class="hidden-text">Dataset</h1>
    <dl class="tiles">
      ${tiles.map(([label, value, more, words, href]) => html`
        <div class="tile" key=${label} title=${words}>
          <dt>${label}</dt>
          <dd><span class="tile-value num">${href && counts.clips ? html`<a href=${href}>${shown(value)}</a>` : shown(value)}</span> <span class="soft">${more}</span></dd>
        </div>`)}
    </dl>
  `;
}

const KINDS = [
  ["current", "current"],
  ["outdated", "outdated"],
  ["missing", "missing"],
  ["rejected", "rejected"],
];

function Stages({ stages }) {
  if (!stages.length) return html`<p class="soft">No row yet.</p>`;
  return html`
    <p class="legend">${KINDS.map(([kind, label]) => html`<span key=${kind}><i class=${`block ${kind}`}></i> ${label}</span>`)}</p>
    <div class="wide" tabindex="0" role="region" aria-label="Stages"><table class="stages">
      <thead><tr><th scope="col">Stage</th><th scope="col" class="stages-bar">Rows</th>${KINDS.map(([kind, label]) => html`<th scope="col" class="num" key=${kind}>${label}</th>`)}<th scope="col" class="num">s/clip</th></tr></thead>
      <tbody>
        ${stages.map((stage) => {
          const all = Math.max(1, stage.current + stage.outdated + stage.missing);
          const parts = { ...stage, missing: Math.max(0, stage.missing - stage.rejected) };
          return html`
            <tr key=${stage.name}>
              <th scope="row">${stage.name}${!stage.in_settings && html` <span class="soft">(not in the settings)</span>`}</th>
              <td class="stages-bar"><span class="stack" aria-hidden="true">${KINDS.map(([kind]) => parts[kind] > 0 && html`<i key=${kind} class=${`block ${kind}`} style=${{ width: `${(100 * parts[kind]) / all}%` }}></i>`)}</span></td>
              ${KINDS.map(([kind]) => html`<td key=${kind} class="num">${stage[kind] ? html`<a href=${withQuery("/", { stage: `${stage.name}:${kind}` })}>${stage[kind].toLocaleString("en")}</a>` : html`<span class="soft">0</span>`}</td>`)}
              <td class="num soft">${short(stage.clip_s)}</td>
            </tr>
          `;
        })}
      </tbody>
    </table></div>
  `;
}

function Rejects({ title, rejects, part, again }) {
  const [said, setSaid] = useState(""); // here, not beside the button: a reason whose last clip is put back is no longer shown
  return html`
    ${rejects.length > 0 && html`<h3>${title}</h3>`}
    ${said && html`<p role="status">${said}</p>`}
    ${rejects.map((one) => html`<${Reason} key=${`${one.stage}/${one.reason}`} one=${one} part=${part} again=${again} say=${setSaid} />`)}
  `;
}

const PAGE = 50;

function Reason({ one, part, again, say }) {
  const [open, setOpen] = useState(false);
  const [listed, setListed] = useState(null);
  const [failed, setFailed] = useState(null);
  const load = async (limit) => {
    setFailed(null);
    try {
      setListed(await get("/api/rejects", { part, stage: one.stage, reason: one.reason, limit }));
    } catch (error) {
      setFailed(error);
    }
  };
  useEffect(() => {
    if (open) load(Math.max(PAGE, listed?.rejects.length ?? 0));
  }, [open, one.count]);
  const requeue = async (ids) => {
    setFailed(null);
    say("");
    try {
      const { clips, stages } = await post("/api/requeue", { ids });
      const back = [clips > 0 && count(clips, "clip"), stages > 0 && count(stages, "stage")].filter(Boolean).join(" and ");
      say(back ? `${back} will be tried again by the next handloom run` : "Nothing was put back: they are tried again already, or have a row now");
      again();
      load(Math.max(PAGE, listed?.rejects.length ?? 0));
    } catch (error) {
      setFailed(error);
    }
  };
  const all = async () => {
    const { rejects } = await get("/api/rejects", { part, stage: one.stage, reason: one.reason, limit: 2000 });
    await requeue(rejects.map((reject) => reject.clip_id));
  };
  return html`
    <details class="reason" onToggle=${(event) => setOpen(event.target.open)}>
      <summary><b class="num">${one.count.toLocaleString("en")}</b> <code>${one.stage}</code> ${one.reason} <span class="soft">${one.meaning}</span></summary>
      ${failed && html`<${Problem} error=${failed} />`}
      ${about.value?.judging
        ? html`<p><button type="button" class="button" onClick=${all}>Run ${one.count > 2000 ? "2,000" : "all"} again</button></p>`
        : html`<p class="soft">Started with <code>--judge</code>, this page can put them back for the next run.</p>`}
      <ul class="plain">
        ${(listed?.rejects ?? one.examples).map((reject) => html`
          <li key=${reject.clip_id}>
            <a href=${clipHref(reject.clip_id)}>${reject.clip_id}</a>
            ${about.value?.judging && html` <button type="button" class="button small" onClick=${() => requeue([reject.clip_id])}>Run again</button>`}
            <span class="soft detail">${reject.detail}</span>
          </li>`)}
      </ul>
      ${listed && listed.total > listed.rejects.length && html`<button type="button" class="button" onClick=${() => load(Math.min(2000, listed.rejects.length + 200))}>More (${(listed.total - listed.rejects.length).toLocaleString("en")} left)</button>`}
    </details>
  `;
}

const MOST_WORDS = 10;

function Facets({ facets }) {
  const shown = FACETS.filter(([name]) => name !== "flag" && facets[name]?.some(([value]) => value !== null));
  return html`
    <div class="multiples">
      ${shown.map(([name, label, words]) => {
        const most = Math.max(...facets[name].map(([, number]) => number));
        return html`
          <section class="panel multiple" key=${name} aria-label=${label} title=${words}>
            <h3>${label}</h3>
            <ul class="plain words">
              ${facets[name].slice(0, MOST_WORDS).map(([value, number]) => html`
                <li key=${value}>
                  ${value === null ? html`<span class="soft">unknown</span>` : html`<a href=${withQuery("/", { [name]: value })}>${value}</a>`}
                  <i class="block missing" style=${{ width: `${(100 * number) / most}%` }}></i>
                  <span class="num">${number.toLocaleString("en")}</span>
                </li>`)}
            </ul>
            ${facets[name].length > MOST_WORDS && html`<p class="soft">and ${areMore(facets[name]) ? `${(facets[name].length - MOST_WORDS).toLocaleString("en")} or more others` : count(facets[name].length - MOST_WORDS, "other")}</p>`}
          </section>
        `;
      })}
    </div>
  `;
}

function Numbers({ found, chosen }) {
  const known = found.distributions.filter((one) => one.all.some((number) => number > 0));
  const empty = found.distributions.filter((one) => !known.includes(one));
  const choose = (name) => {
    setParams({ q: name });
    jump("outliers");
  };
  return html`
    <div class="multiples numbers">
      ${known.map((one) => html`
        <button type="button" class="panel multiple" key=${one.name} title=${[one.name, one.about].filter(Boolean).join(": ")} aria-pressed=${one.name === chosen} onClick=${() => choose(one.name)}>
          <span class="multiple-name">${nameWords(one.name)}</span>
          <${Bars} counts=${one.all} />
          <span class="multiple-ends num">${endsOf(one).map((end) => html`<span>${end}</span>`)}</span>
          <span class="soft">${one.unknown ? `unknown in ${shareOf(one.unknown, found.counts.clips)}` : "known in all"}</span>
        </button>`)}
    </div>
    ${empty.length > 0 && html`<p class="soft">Known in no clip: ${empty.map((one) => nameWords(one.name)).join(", ")}.</p>`}
  `;
}

/** The smallest and the largest value with the unit; one of them where they are the same. */
function endsOf({ edges, unit }) {
  const [least, most] = [edges[0], edges[edges.length - 1]];
  const last = `${short(most)}${unit ? ` ${unit}` : ""}`;
  return most > least ? [short(least), last] : [`all ${last}`];
}

function Bars({ counts }) {
  const shares = heights(counts, Math.max(1, ...counts));
  const wide = 100 / counts.length;
  return html`
    <svg viewBox="0 0 100 40" preserveAspectRatio="none" aria-hidden="true" class="bars">
      ${shares.map((share, index) => html`<rect key=${index} x=${index * wide + 0.4} y=${40 - 40 * share} width=${wide - 0.8} height=${40 * share} />`)}
    </svg>
  `;
}

const FIRST = ["hand_jitter_mm", "hand_jitter_px", "blur", "hand_coverage", "duration_s"];

function Outliers({ found, params }) {
  const names = found.distributions.filter((one) => one.all.some((number) => number > 0)).map((one) => one.name);
  const asked = params.get("q");
  const name = asked || FIRST.find((one) => names.includes(one)) || names[0];
  const order = params.get("order") === "low" ? "low" : "high";
  const { edges } = found.distributions.find((one) => one.name === name) ?? { edges: [0, 1] };
  const same = edges[0] === edges[edges.length - 1];
  const [answer, setAnswer] = useState(null);
  const [failed, setFailed] = useState(null);
  const [limit, setLimit] = useState(24);
  useEffect(() => {
    if (!name) return undefined;
    const abort = new AbortController();
    get("/api/outliers", { q: name, order, limit }, { signal: abort.signal }).then(
      (told) => {
        setAnswer(told);
        setFailed(null);
      },
      (error) => error.name !== "AbortError" && setFailed(error),
    );
    return () => abort.abort();
  }, [name, order, limit, found.version]);
  if (!name) return html`<p class="soft">No number is known yet.</p>`;
  return html`
    <div class="line">
      <label>Number
        <select value=${name} onChange=${(event) => setParams({ q: event.target.value })}>
          ${(names.includes(name) ? names : [name, ...names]).map((one) => html`<option key=${one} value=${one}>${nameWords(one)}</option>`)}
        </select>
      </label>
      <span class="switch" role="group" aria-label="Which end">
        <button type="button" class="button" aria-pressed=${order === "high"} onClick=${() => setParams({ order: null })}>Largest</button>
        <button type="button" class="button" aria-pressed=${order === "low"} onClick=${() => setParams({ order: "low" })}>Smallest</button>
      </span>
      <a class="button" href=${withQuery("/", { sort: order === "low" ? name : `-${name}` })}>All in this order</a>
    </div>
    ${failed && html`<${Failure} error=${failed} />`}
    ${answer && html`
      <p class="soft">${answer.about}${answer.about && ". "}Known in ${count(answer.known, "clip")}.</p>
      <${Cards} hits=${answer.hits} text=${(hit) => `${short(hit.value)}${answer.unit ? ` ${answer.unit}` : ""} · ${same ? "the same in all" : placeWords(hit)}`} />
      ${answer.hits.length >= limit && limit < 200 && html`<button type="button" class="button" onClick=${() => setLimit(Math.min(200, limit * 3))}>More</button>`}
    `}
  `;
}

/** Where a value lies among those of the other clips: `higher than 98 %, 1 % equal`, `lower than all others`. */
export function placeWords({ place, equal }) {
  if (place === null) return "";
  const above = Math.max(0, 1 - place - equal);
  const than = (share) => (share === 1 ? "all others" : `${share > 0.99 ? Math.min(99.9, Math.floor(1000 * share) / 10) : Math.round(100 * share)} %`);
  return `${place >= above ? `higher than ${than(place)}` : `lower than ${than(above)}`}${equal > 0 ? `, ${percent(equal)} equal` : ""}`;
}

/** Small cards of clips, with a text each; buttons judge where that is allowed. */
export function Cards({ hits, text }) {
  const [failed, setFailed] = useState(null);
  const set = (hit, verdict) => judgeAll([hit.clip_id], flagOf(hit) === verdict ? null : verdict).then(() => setFailed(null), setFailed);
  return html`
    ${failed && html`<${Problem} error=${failed} />`}
    <ul class="plain small-cards">
      ${hits.map((hit) => {
        const flag = flagOf(hit);
        return html`
          <li class="card" key=${hit.clip_id}>
            <a class="card-link" href=${clipHref(hit.clip_id)} title=${hit.clip_id}>
              <${Thumb} hit=${hit} play=${false} height=${120} />
              <span class="card-title">${titleOf(hit)}</span>
            </a>
            <span class="card-meta num">${text(hit)}</span>
            ${about.value?.judging
              ? html`<span class="card-judge">
                  <button type="button" class="button small" aria-pressed=${flag === "good"} aria-label=${`Good: ${hit.clip_id}`} onClick=${() => set(hit, "good")}>✓</button>
                  <button type="button" class="button small" aria-pressed=${flag === "bad"} aria-label=${`Bad: ${hit.clip_id}`} onClick=${() => set(hit, "bad")}>✗</button>
                </span>`
              : flag && html`<span class="card-marks"><span class=${`flag ${flag}`}>${flag}</span></span>`}
          </li>
        `;
      })}
    </ul>
  `;
}
