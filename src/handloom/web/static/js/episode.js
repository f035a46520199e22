// The page of one episode: its cameras on one clock, states and actions as curves, the way of the end effector.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { bytes, get, readArrays } from "./api.js";
import { Curves } from "./curves.js";
import { Facts, TakeAlong } from "./details.js";
import { useKeys } from "./keys.js";
import { Clock, useLive } from "./clock.js";
import { Transport } from "./player.js";
import { clipHref, episodeHref, go, withQuery } from "./router.js";
import { Frames, indexAt } from "./row.js";
import { ComingSpace, count, duration, Empty, Failure, Loading, useScript } from "./states.js";

const CHUNK = 32; // images that are fetched at once
const AHEAD = 8; // images decoded before they are shown
const CHUNKS_BYTES = 96 << 20; // of each camera

/** id: the episode; params: of the address (URLSearchParams): v. */
export function Page({ id, params }) {
  const clock = useMemo(() => new Clock(), [id]);
  const { episode, arrays, error, retry } = useEpisode(id, params.get("v"));
  useMemo(() => {
    if (!episode || !arrays) return;
    const times = arrays.frame_s.data;
    clock.follow([{ times, length: times.length, duration_s: episode.duration_s ?? 0 }]);
  }, [clock, episode, arrays]);
  useEffect(() => () => clock.pause(), [clock]);
  useKeys("Episode", keysOf(clock, episode));
  if (!id) return html`<${Empty} title="No episode is named" hint="Choose one on the page Episodes."><a class="button" href="/episodes">Episodes</a><//>`;
  if (error) return html`<${Failure} error=${error} retry=${retry} />`;
  if (!episode || !arrays) return html`<${Loading} what="Loading the episode" />`;
  return html`
    <div class="clip-page">
      <${Head} episode=${episode} />
      <div class="clip-watch">
        <${Cameras} episode=${episode} times=${arrays.frame_s.data} clock=${clock} />
        <${PathView} episode=${episode} arrays=${arrays} clock=${clock} />
      </div>
      <${Transport} clock=${clock} />
      <${Curves} episode=${episode} arrays=${arrays} clock=${clock} />
      <div class="clip-panels">
        <${Source} episode=${episode} />
        <${TakeAlong} python=${episode.python} files=${[[withQuery("/download/episode", { id: episode.episode_id, v: episode.version }), "Row (.parquet)"]]} />
      </div>
    </div>
  `;
}

/** {episode: of /api/episode, arrays, error, retry}. */
function useEpisode(id, version) {
  const [state, setState] = useState({});
  const [again, setAgain] = useState(0);
  useEffect(() => {
    if (!id) return undefined;
    const abort = new AbortController();
    const { signal } = abort;
    setState({});
    const load = async () => {
      const episode = await get("/api/episode", { id, v: version }, { signal });
      const arrays = readArrays(await bytes("/api/episode_arrays", { id, v: episode.version }, { signal }));
      setState({ episode, arrays });
    };
    load().catch((error) => error.name !== "AbortError" && setState({ error }));
    return () => abort.abort();
  }, [id, version, again]);
  return { ...state, retry: () => setAgain((n) => n + 1) };
}

function Head({ episode }) {
  const { episode_id: id, task, before, after } = episode;
  const robot = episode.kind === "people" ? `people's hands (${episode.robot_type})` : episode.robot_type ?? "robot not named";
  const link = (other, words, key) => other && html`<a class="button" href=${episodeHref(other)} title=${`${other} (${key})`}>${words}</a>`;
  return html`
    <header class="clip-top">
      <div>
        <h1>${task || id}</h1>
        <p class="soft"><span class="mono">${id}</span> · ${count(episode.num_frames, "step")} · ${duration(episode.duration_s)} · ${robot} · version ${episode.version}</p>
      </div>
      <div class="switch">${link(before, "‹ before", "p")}${link(after, "next ›", "n")}</div>
    </header>
  `;
}

/** Images of one camera: fetched in chunks, kept as JPEG and, the last ones, decoded. */
export class CameraFrames extends Frames {
  constructor(id, version, camera) {
    super(id, version);
    this.camera = camera;
    this.chunks = new Map(); // first image -> promise of {number: Blob}, the longest unused first
    this.sizes = new Map();
  }

  async decode(n) {
    const first = n - (n % CHUNK);
    const blob = (await this.chunk(first))[n];
    return blob ? createImageBitmap(blob) : null;
  }

  chunk(first) {
    const there = this.chunks.get(first);
    const brought = there ?? this.bring(first);
    this.chunks.delete(first);
    this.chunks.set(first, brought);
    if (!there) brought.catch(() => this.chunks.delete(first));
    return brought;
  }

  async bring(first) {
    const buffer = await bytes("/media/episode_frames", { ...this.params, camera: this.camera, from: first, num: CHUNK });
    this.sizes.set(first, buffer.byteLength);
    let all = [...this.sizes.values()].reduce((sum, size) => sum + size, 0);
    for (const oldest of [...this.chunks.keys()]) {
      if (all <= CHUNKS_BYTES || oldest === first) break;
      all -= this.sizes.get(oldest) ?? 0;
      this.sizes.delete(oldest);
      this.chunks.delete(oldest);
    }
    return Object.fromEntries(Object.entries(readArrays(buffer)).map(([n, { data }]) => [n, new Blob([data], { type: "image/jpeg" })]));
  }

  trim(bitmap) {
    if (bitmap) super.trim(bitmap);
  }

  /** Whether it is known that the episode has no image of this step. */
  isMissing(n) {
    return this.bitmaps.get(n) === null;
  }
}

function Cameras({ episode, times, clock }) {
  const { cameras, images, clips } = episode;
  if (!cameras.length) return html`<div class="clip-empty"><p>No camera of this episode was ingested.</p></div>`;
  return html`
    <div class="episode-cameras">
      ${cameras.map((camera, n) => html`<${Camera} key=${camera} episode=${episode} camera=${camera} size=${images?.[n]} clip=${clips[n]} times=${times} clock=${clock} />`)}
    </div>
  `;
}

function Camera({ episode, camera, size, clip, times, clock }) {
  const canvas = useRef(null);
  const [failed, setFailed] = useState("");
  const [missing, setMissing] = useState(false);
  const frames = useMemo(() => size && new CameraFrames(episode.episode_id, episode.version, camera), [episode, camera]);
  const view = useMemo(() => ({ waiting: 0 }), []);
  view.draw = () => {
    view.waiting = 0;
    if (!canvas.current || !frames) return;
    const index = indexAt(times, clock.at.peek());
    const bitmap = frames.get(index, (error) => (error ? setFailed(error.problem ?? error.message) : view.schedule()));
    for (let n = 1; n <= AHEAD; n++) if (index + n < times.length) frames.get(index + n);
    if (index + CHUNK < times.length) frames.chunk(index + CHUNK - ((index + CHUNK) % CHUNK)).catch(() => {});
    const { current: on } = canvas;
    const none = frames.isMissing(index);
    setMissing(none);
    if (none) {
      on.getContext("2d").clearRect(0, 0, on.width, on.height);
      on.dataset.frame = index;
    }
    if (!bitmap) return;
    if (on.width !== bitmap.width || on.height !== bitmap.height) [on.width, on.height] = [bitmap.width, bitmap.height];
    on.getContext("2d").drawImage(bitmap, 0, 0);
    on.dataset.frame = index;
  };
  view.schedule = () => {
    view.waiting ||= requestAnimationFrame(() => view.draw());
  };
  useLive([clock.at], () => {
    view.schedule();
  });
  useEffect(() => {
    view.schedule();
    return () => {
      cancelAnimationFrame(view.waiting);
      view.waiting = 0;
      frames?.close();
    };
  }, [frames]);
  const name = camera.replace(/^observation\.images?\./, "");
  return html`
    <figure class="episode-camera">
      <div class="clip-stage" style=${{ aspectRatio: size ? `${size[0]} / ${size[1]}` : "16 / 9" }} onClick=${() => clock.toggle()}>
        ${size ? html`<canvas ref=${canvas} role="img" aria-label=${`Camera ${name}`}></canvas>` : html`<p class="clip-notice">No images of this camera are stored${clip ? ": its clip may show them" : ""}.</p>`}
        ${missing && html`<p class="clip-notice">No image of this camera at this step.</p>`}
        ${failed && html`<p class="clip-notice" role="alert">${failed}</p>`}
      </div>
      <figcaption><span title=${camera}>${name}</span>${size && html`<span class="soft num"> ${size.join(" × ")}</span>`}${clip && html` <a href=${clipHref(clip)}>its clip</a>`}</figcaption>
    </figure>
  `;
}

/** The way in 3D: cameras and curves do not wait for its script. */
function PathView(props) {
  const { script, failed } = useScript(() => import("./path.js"), "the 3D view");
  return script ? html`<${script.PathView} ...${props} />` : html`<${ComingSpace} failed=${failed} />`;
}

function Source({ episode }) {
  const rows = [
    ["Dataset", html`<a href=${withQuery("/episodes", { dataset: episode.dataset })}>${episode.dataset}</a>${`, episode ${episode.episode_index}`}`],
    ["Task", episode.task && html`<a href=${withQuery("/episodes", { task: episode.task })}>${episode.task}</a>`],
    ["Success", episode.success === null ? "not known: the dataset does not say" : episode.success ? "yes, the dataset says" : "no, the dataset says"],
    ["Robot", episode.robot_type],
    ["Steps", `${episode.num_frames.toLocaleString("en")}, ${episode.fps} a second`],
    ["Split", episode.split],
    ["Licence", episode.licence ?? "not known: ask whoever recorded it"],
    ["File", episode.source_uri],
    ["Format", episode.source_version],
    ["Key of the source", html`<span class="mono">${episode.source_key}</span>`],
  ];
  return html`<section class="panel clip-panel"><h2>Source</h2><${Facts} rows=${rows} /></section>`;
}

function keysOf(clock, episode) {
  const to = (id) => {
    if (!id) return false;
    go(episodeHref(id));
    return undefined;
  };
  return [
    { keys: [" "], about: "play or pause", run: () => clock.toggle() },
    { keys: ["ArrowLeft"], about: "one step back", run: () => clock.step(-1) },
    { keys: ["ArrowRight"], about: "one step on", run: () => clock.step(1) },
    { keys: ["Shift+ArrowLeft"], about: "ten steps back", run: () => clock.step(-10) },
    { keys: ["Shift+ArrowRight"], about: "ten steps on", run: () => clock.step(10) },
    { keys: ["Home"], about: "first step", run: () => clock.step(-Infinity) },
    { keys: ["End"], about: "last step", run: () => clock.step(Infinity) },
    { keys: ["-"], about: "slower", run: () => clock.faster(-1) },
    { keys: ["+", "="], about: "faster", run: () => clock.faster(1) },
    { keys: ["l"], about: "begin again at the end, or stop there", run: () => void (clock.loop.value = !clock.loop.peek()) },
    { keys: ["p"], about: "episode before", run: () => to(episode?.before) },
    { keys: ["n"], about: "next episode", run: () => to(episode?.after) },
  ];
}
