// The list of episodes of robots and of people's hands, and the reports of trainings.
import { html, useEffect, useMemo, useReducer, useRef, useState } from "../vendor/handloom-vendor.js";
import { about } from "./api.js";
import { Hits } from "./hits.js";
import { useKeys } from "./keys.js";
import { Reports } from "./reports.js";
import { episodeHref, go, setParams, withQuery } from "./router.js";
import { moveKeys, useSelected } from "./selection.js";
import { count, duration, Empty, Failure, Loading } from "./states.js";
import { Grid } from "./virtual.js";

const CHOICES = [
  ["kind", "Of", { robots: "Robots", people: "People's hands" }],
  ["dataset", "Dataset", {}],
  ["task", "Task", {}],
  ["robot_type", "Robot", {}],
  ["success", "Success", { yes: "yes", no: "no" }],
];
const NAMES = CHOICES.map(([name]) => name);
const SIZES = { least: 210, gap: 10, text: 64 };
const SIZES_PHONE = { ...SIZES, least: 150 };
const memories = new Map(); // search -> where the reader was

export function Page({ params }) {
  const search = searchOf(params).toString();
  const [, redraw] = useReducer((number) => number + 1, 0);
  const [turn, again] = useReducer((number) => number + 1, 0);
  const control = useRef(null);
  const episodes = useMemo(() => {
    const found = new Hits(new URLSearchParams(search), redraw, { path: "/api/episodes", list: "episodes" });
    found.memory = memories.get(search) ?? {};
    memories.set(search, found.memory);
    return found;
  }, [search, turn]);
  useEffect(() => {
    episodes.start();
    return () => {
      episodes.changed = () => {};
      episodes.stop();
    };
  }, [episodes]);
  const [selected, select, flush, current] = useSelected(params, episodes, control);
  useKeys("Episodes", keysOf({ hits: episodes, control, current, select }, flush));
  const phone = window.innerWidth < 480;
  const card = (index, { top }) => html`
    <${Card} key=${index} episode=${episodes.at(index)} version=${episodes.first?.version} index=${index} total=${episodes.total}
      selected=${index === selected.index && (selected.focus ? "focus" : true)} tab=${index === (selected.index < 0 ? top : selected.index)} select=${select} />
  `;
  return html`
    <section class="episodes">
      <h1 class="hidden-text">Episodes</h1>
      <${Choices} params=${params} first=${episodes.first} />
      ${about.value?.reports && html`<${Reports} open=${params.get("show") === "reports"} />`}
      <div class="search-hits">
        ${episodes.failed && !episodes.first
          ? html`<${Failure} error=${episodes.failed} retry=${again} />`
          : !episodes.first
            ? html`<${Loading} what="Reading the episodes" />`
            : !episodes.total
              ? html`<${Nothing} search=${search} />`
              : html`<${Grid} total=${episodes.total} sizes=${phone ? SIZES_PHONE : SIZES} card=${card} see=${(first, last) => episodes.see(first, last)} control=${control} memory=${episodes.memory} label="Episodes" />`}
      </div>
    </section>
  `;
}

/** What is chosen in an address, without what is not part of the list. An empty value is: unknown. */
export function searchOf(params) {
  const result = new URLSearchParams();
  for (const name of NAMES) for (const value of params.getAll(name)) result.append(name, value);
  return result;
}

const Nothing = ({ search }) =>
  search
    ? html`<${Empty} title="No episode is like that"><button type="button" class="button" onClick=${clear}>Show all episodes</button><//>`
    : html`<${Empty} title="The database has no episodes yet" hint="handloom ingest lerobot DATASET --db DB --licence LICENCE brings demonstrations of a robot." />`;

const clear = () => setParams(Object.fromEntries([...NAMES, "at"].map((name) => [name, null])));

/** One menu for each property, with counts that ignore its own choice. */
function Choices({ params, first }) {
  const total = first?.total;
  return html`
    <div class="episodes-line">
      <span class="found" role="status">${first && html`<b class="num">${count(total, "episode")}</b>`}</span>
      ${CHOICES.map(([name, label, words]) => {
        const values = first?.facets[name] ?? [];
        const chosen = params.has(name) ? `=${params.get(name)}` : "";
        if (values.length < 2 && !chosen) return null;
        const known = values.some(([value]) => `=${value ?? ""}` === chosen);
        return html`
          <label key=${name}><span class="soft">${label}</span>
            <select value=${chosen} onChange=${(event) => setParams({ [name]: event.target.value ? [event.target.value.slice(1)] : null, at: null })}>
              <option value="">all</option>
              ${chosen && !known && html`<option value=${chosen}>${chosen.slice(1) || "unknown"} (0)</option>`}
              ${values.map(([value, number]) => html`<option key=${value} value=${`=${value ?? ""}`}>${words[value] ?? value ?? "unknown"} (${number.toLocaleString("en")})</option>`)}
            </select>
          </label>
        `;
      })}
      ${NAMES.some((name) => params.has(name)) && html`<button type="button" class="button small" onClick=${clear}>Clear (c)</button>`}
    </div>
  `;
}

function Card({ episode, version, index, total, selected, tab, select }) {
  const [gone, setGone] = useState(false);
  const link = useRef(null);
  useEffect(() => {
    if (selected === "focus" && episode) link.current?.focus({ preventScroll: true });
  }, [selected, episode?.episode_id]);
  if (!episode) return html`<div class="card waiting" role="listitem" aria-setsize=${total} aria-posinset=${index + 1} aria-busy="true"></div>`;
  const image = withQuery("/media/episode_thumb", { id: episode.episode_id, h: 160, v: version });
  const cameras = episode.cameras.length ? count(episode.cameras.length, "camera") : "no camera";
  return html`
    <div class=${selected ? "card selected" : "card"} role="listitem" aria-setsize=${total} aria-posinset=${index + 1}>
      <a class="card-link" ref=${link} tabindex=${tab ? 0 : -1} href=${episodeHref(episode.episode_id)} title=${episode.episode_id} onClick=${() => select(index)} onFocus=${() => select(index)}>
        <div class="thumb">
          ${gone || !episode.cameras.length
            ? html`<span class="thumb-gone">no picture is stored</span>`
            : html`<img class="episode-thumb" src=${image} alt="" decoding="async" draggable=${false} onError=${() => setGone(true)} />`}
        </div>
        <span class="card-title">${episode.task || episode.episode_id}</span>
        <span class="card-meta">${episode.dataset} · ${episode.episode_index}${episode.split ? ` · ${episode.split}` : ""}</span>
        <span class="card-meta">${[episode.kind === "people" ? "people's hands" : episode.robot_type ?? "robot not named", cameras].join(" · ")}</span>
      </a>
      ${episode.success && html`<span class="card-marks"><span class=${`flag ${episode.success === "yes" ? "good" : "bad"}`}>${episode.success === "yes" ? "success" : "no success"}</span></span>`}
      <span class="card-length num">${duration(episode.duration_s)}</span>
    </div>
  `;
}

function keysOf(grid, flush) {
  const { hits, current } = grid;
  const open = () => {
    const episode = current() < 0 ? null : hits.at(current());
    if (!episode) return false;
    flush();
    go(episodeHref(episode.episode_id));
    return undefined;
  };
  return [...moveKeys(grid, "episode"), { keys: ["Enter"], about: "open the episode", run: open }, { keys: ["c"], about: "show all episodes", run: clear }];
}
