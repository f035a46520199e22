// What is asked for: the box for words, ids and files; what is searched with besides words; how far a file has come.
import { html, useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { about, get, upload } from "./api.js";
import { Thumb } from "./card.js";
import { clipHref, go, place, setParams } from "./router.js";
import { Problem } from "./states.js";

const TYPING_MS = 220;

/** Takes away what is searched with, and what belongs to it. */
export const NO_QUERY = { clip: null, text: null, query: null, name: null, kind: null, by: null, from_s: null, to_s: null, at: null };

const looksLikeId = (text) => /^\S{4,512}$/.test(text) && /[:\d]/.test(text);

/** The box: words search while they are typed; a clip's id, pasted or with Enter, searches clips like it. */
export function Box({ params, box, send, control }) {
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
  return html`
    <form class="box" role="search" onSubmit=${submit}>
      <input ref=${box} type="search" maxlength="2000" autocomplete="off" spellcheck=${false} value=${text} onInput=${typed} onPaste=${pasted}
        aria-label="Search by words or a clip's id" placeholder=${about.value.texts === false ? "A clip's id, or drop a video or an image" : "Words, or a clip's id; or drop a video or an image"} />
      <button type="button" class="button" onClick=${() => file.current.click()} title="Find clips like a video or an image of yours">File…</button>
      <input ref=${file} type="file" accept="video/*,image/jpeg,image/png,image/webp" hidden aria-hidden="true" tabindex="-1" onChange=${(event) => {
        const [chosen] = event.target.files;
        if (chosen) send(chosen);
        event.target.value = "";
      }} />
    </form>
  `;
}

let before = null; // the address from which the last file was sent

const PREVIEWS_KEPT = 8;
const previews = new Map(); // id of an upload -> address of the file in the browser's memory

function keepPreview(query, file) {
  previews.set(query, URL.createObjectURL(file));
  if (previews.size <= PREVIEWS_KEPT) return;
  const [oldest, url] = previews.entries().next().value;
  URL.revokeObjectURL(url);
  previews.delete(oldest);
}

/** The file that is searched by, as this window sent it; nothing after the page was loaded again, or where the browser cannot show it. */
function Preview({ query, kind }) {
  const [gone, setGone] = useState(null);
  const url = previews.get(query);
  if (!url || gone === url) return null;
  const failed = () => setGone(url);
  return html`
    <div class="thumb"><div class="thumb-inside whole">
      ${kind === "image"
        ? html`<img src=${url} alt="" decoding="async" onError=${failed} />`
        : html`<video src=${`${url}#t=0.1`} muted playsinline preload="auto" tabindex="-1" aria-hidden="true" onError=${failed}></video>`}
    </div></div>
  `;
}

/** A file on its way to the server: `[{name, share, error}` or null`, send(file), stop()]`. */
export function useUpload() {
  const [sending, setSending] = useState(null);
  const abort = useRef(null);
  const stop = () => {
    abort.current?.abort();
    setSending(null);
  };
  useEffect(() => () => abort.current?.abort(), []);
  const send = async (file) => {
    abort.current?.abort();
    const mine = new AbortController();
    abort.current = mine;
    const name = file.name || "a picture";
    setSending({ name, share: 0 });
    const from = place.value;
    try {
      const answer = await upload(file, { signal: mine.signal, progress: (share) => abort.current === mine && setSending({ name, share }) });
      if (abort.current !== mine) return;
      setSending(null);
      if (!from.params.has("query")) before = from;
      keepPreview(answer.query, file);
      setParams({ ...NO_QUERY, query: answer.query, name: answer.name, kind: answer.kind, by: answer.kind === "image" ? "look" : null, sort: null });
    } catch (error) {
      if (error.name !== "AbortError") setSending({ name, error });
    }
  };
  return [sending, send, stop];
}

/** The line of a file that is sent, or could not be. */
export function Sending({ sending, stop }) {
  if (!sending) return null;
  if (sending.error) return html`<${Problem} error=${sending.error}><button type="button" class="button small" onClick=${stop}>Close</button><//>`;
  const { name, share } = sending;
  return html`
    <div class="note reading">
      <span class="spinner" aria-hidden="true"></span>
      <span role="status">Sending ${name} …</span>
      <progress max="1" value=${share} aria-label="Share that is sent"></progress>
      <button type="button" class="button small" onClick=${stop}>Cancel</button>
    </div>
  `;
}

const ASK_MS = 1000;
// What stages do, as far as a search needs them.
const DOING = {
  decode_wait: "reading the images",
  hands_2d: "finding the hands",
  hands_3d: "placing the hands in 3D",
  lens: "estimating the lens",
  tracks: "following points",
  camera: "following the camera",
  motion_steps: "describing how the hands move",
  motion: "describing how the hands move",
  appearance: "describing the colours",
  look: "describing the look",
};

/** The line of a video that is searched by while the server reads it; the reader may wait, or not. */
export function Reading({ params }) {
  const query = params.get("query");
  const [doing, setDoing] = useState(null);
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    const began = performance.now();
    const timer = setInterval(() => {
      setSeconds(Math.round((performance.now() - began) / 1000));
      get("/api/upload", { query }, { signal: abort.signal }).then((told) => setDoing(told.doing), () => {});
    }, ASK_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [query]);
  const cancel = () => {
    if (before) go(before.path + (before.params.toString() ? `?${before.params}` : ""), { replace: true });
    else setParams(NO_QUERY);
  };
  const words = doing ? (DOING[doing] ?? `the stage ${doing.replaceAll("_", " ").replace(/^load /, "")}`) : "it begins";
  return html`
    <div class="note reading">
      <span class="spinner" aria-hidden="true"></span>
      <span role="status">Reading the video: ${words} …</span>
      <span class="soft num" aria-hidden="true">${seconds} s</span>
      <button type="button" class="button small" onClick=${cancel}>Cancel</button>
      <span class="soft">Only the first search by a video takes so long.</span>
    </div>
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

/** What is searched with besides words: a clip or a file, and by what. */
export function Query({ params }) {
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
      ${query && html`<span class="query-clip"><${Preview} key=${query} query=${query} kind=${params.get("kind")} /><span>like the file <b>${params.get("name") ?? "you sent"}</b></span></span>`}
      ${(from || to) && html`<span class="chip">seconds ${from || "0"} to ${to || "end"} <button type="button" aria-label="The whole clip" onClick=${() => setParams({ from_s: null, to_s: null, at: null })}>✕</button></span>`}
      <span class="switch" role="group" aria-label="Alike by">
        ${ways.map((way) => html`<button key=${way} type="button" class="button small" aria-pressed=${way === by} onClick=${() => choose(way)}>${WAYS[way] ?? way.replaceAll("_", " ")}</button>`)}
      </span>
      <button type="button" class="button quiet small" onClick=${() => setParams({ ...NO_QUERY, text: params.get("text") })}>✕ all clips</button>
    </div>
  `;
}

/** Whether a file is held over the page; a dropped one is sent. */
export function useDrop(send) {
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
