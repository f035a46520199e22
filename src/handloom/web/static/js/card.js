// One hit: thumbnail that plays while the pointer is on it, what the clip is, and why it was found.
import { html, useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { about, ApiError, bytes, media, readArrays } from "./api.js";
import { flagOf } from "./judge.js";
import { clipHref } from "./router.js";
import { duration, nameWords, short, valueWords } from "./states.js";

const STEP_MS = 220;
const STRIPS_KEPT = 24;
const strips = new Map(); // clip id -> promise of {url, frames}
const STAYED_MS = 350;
const FRAMES_KEPT = 4;
const FRAMES_BYTES = 12e6;
const frames = new Map(); // clip id -> promise of JPEGs

/** The strip of a clip as a picture in memory: `{url, frames}`. Kept for the last clips. */
export function stripOf(id) {
  if (!strips.has(id)) {
    const brought = fetch(media("strip", id)).then(async (response) => {
      if (!response.ok) throw new ApiError("no strip", "", response.status);
      return { url: URL.createObjectURL(await response.blob()), frames: Number(response.headers.get("X-Frames")) || 1 };
    });
    strips.set(id, brought);
    brought.catch(() => strips.delete(id));
    if (strips.size > STRIPS_KEPT) {
      const oldest = strips.keys().next().value;
      strips.get(oldest).then(({ url }) => URL.revokeObjectURL(url), () => {});
      strips.delete(oldest);
    }
  }
  return strips.get(id);
}

/** Whether pictures may move. */
const mayMove = () => !matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The strip, frame after frame, over the thumbnail. */
function Strip({ id }) {
  const [strip, setStrip] = useState(null);
  const picture = useRef(null);
  useEffect(() => {
    let gone = false;
    stripOf(id).then((found) => !gone && setStrip(found), () => {});
    return () => {
      gone = true;
    };
  }, [id]);
  useEffect(() => {
    if (!strip || strip.frames < 2) return undefined;
    let frame = 0;
    const show = () => {
      if (picture.current) picture.current.style.backgroundPosition = `${(100 * frame) / (strip.frames - 1)}% 0`;
      frame = (frame + 1) % strip.frames;
    };
    show();
    const timer = setInterval(show, STEP_MS);
    return () => clearInterval(timer);
  }, [strip]);
  if (!strip || strip.frames < 2) return null;
  const style = { backgroundImage: `url("${strip.url}")`, backgroundSize: `${100 * strip.frames}% 100%` };
  return html`<div class="strip" ref=${picture} style=${style}></div>`;
}

/** The stored frames of a clip as JPEGs, in order; null where they are more than a card may bring. Kept for the last. */
function framesOf(id) {
  if (!frames.has(id)) {
    const v = about.value?.version;
    const brought = bytes("/media/frames", { id, v }, { limit: FRAMES_BYTES }).then((buffer) => {
      if (!buffer) return null;
      const found = readArrays(buffer);
      return Object.keys(found).sort((a, b) => a - b).map((name) => new Blob([found[name].data], { type: "image/jpeg" }));
    });
    frames.set(id, brought);
    brought.catch(() => frames.delete(id));
    if (frames.size > FRAMES_KEPT) frames.delete(frames.keys().next().value);
  }
  return frames.get(id);
}

/** All stored frames at the speed of the clip, once the pointer has stayed; nothing before they are here. */
function Frames({ hit }) {
  const canvas = useRef(null);
  useEffect(() => {
    let gone = false;
    let next = 0;
    const play = async () => {
      const list = await framesOf(hit.clip_id);
      if (!list?.length) return;
      const began = performance.now();
      let last = -1;
      const draw = async (now) => {
        if (gone || !canvas.current) return;
        const index = Math.floor(((now - began) / 1000 / hit.duration_s) * list.length) % list.length;
        if (index >= 0 && index !== last) {
          last = index;
          const image = await createImageBitmap(list[index]);
          if (gone || !canvas.current) return;
          Object.assign(canvas.current, { width: image.width, height: image.height, hidden: false });
          canvas.current.getContext("2d").drawImage(image, 0, 0);
          image.close();
        }
        next = requestAnimationFrame(draw);
      };
      next = requestAnimationFrame(draw);
    };
    const timer = setTimeout(() => play().catch(() => {}), STAYED_MS);
    return () => {
      gone = true;
      clearTimeout(timer);
      cancelAnimationFrame(next);
    };
  }, [hit.clip_id]);
  return html`<canvas class="moving" ref=${canvas} hidden></canvas>`;
}

/** Thumbnail of a clip, 16:9, nothing cut off; `play` shows its strip, and `frames` then all stored frames. */
export function Thumb({ hit, play, height = 160 }) {
  const [gone, setGone] = useState(false);
  const wide = hit.width / hit.height >= 16 / 9;
  const style = hit.width && hit.height ? { aspectRatio: `${hit.width} / ${hit.height}`, [wide ? "width" : "height"]: "100%" } : { width: "100%", height: "100%" };
  return html`
    <div class="thumb">
      <div class="thumb-inside" style=${style}>
        ${gone
          ? html`<span class="thumb-gone">no picture is stored</span>`
          : html`<img src=${media("thumb", hit.clip_id, { h: height })} alt="" decoding="async" draggable=${false} onError=${() => setGone(true)} />`}
        ${play && mayMove() && !gone && html`<${Strip} id=${hit.clip_id} />`}
        ${play === "frames" && hit.has_frames && hit.duration_s > 0 && mayMove() && !gone && html`<${Frames} hit=${hit} />`}
      </div>
    </div>
  `;
}

/** What the clip is in a few words: narration, or verb and noun, or its id. */
export const titleOf = (hit) => hit.narration || [hit.verb, hit.noun].filter(Boolean).join(" ") || hit.clip_id;

/** Why it was found, for one line of a card: `motion 0.91 #1`; of several parts the ranks, and a score where there is none. */
export function whyOf(hit) {
  const parts = Object.entries(hit.parts ?? {});
  return parts.map(([name, part]) => {
    const score = ` ${short(part?.score ?? null)}`;
    const rank = Number.isInteger(part?.rank) ? ` #${part.rank}` : "";
    return name + (rank && parts.length > 1 ? rank : score + rank);
  });
}

/** The same, all of it: scores, ranks, and how many share one. */
export function whyWords(hit) {
  const parts = Object.entries(hit.parts ?? {}).map(([name, part]) => {
    const shared = part?.equal > 1 ? `, as ${part.equal.toLocaleString("en")} of the ranked clips` : "";
    return `${name} ${short(part?.score ?? null)}${Number.isInteger(part?.rank) ? ` (#${part.rank}${shared})` : ""}`;
  });
  return `score ${short(hit.score)}${parts.length ? `: ${parts.join("; ")}` : ""}`;
}

const FLAGS = { good: ["✓", "judged good"], bad: ["✗", "judged bad"] };

/** Of how many parts the longest line of `whyOf` is, with the time of the match. */
export const partsOf = (hits) => Math.max(0, ...(hits ?? []).map((hit) => whyOf(hit).length + (isTimed(hit) ? 1 : 0)));

const isTimed = (hit) => Number.isFinite(hit.match_start_s);

/**
 * A card of the grid. lines: for why it was found, 0 where nothing is ranked. `hit` is undefined while it is on its way. `tab`: the Tab key
 * stops at it (at one card of all). `sorted`: the number that the list is ordered by, shown in place of the length, or null.
 */
export function Card({ hit, index, total, selected, tab, lines, sorted, select, more, chosen }) {
  const [over, setOver] = useState(false);
  const link = useRef(null);
  useEffect(() => {
    if (selected && hit && document.activeElement !== link.current && selected === "focus") link.current?.focus({ preventScroll: true });
  }, [selected, hit?.clip_id]);
  if (!hit) return html`<div class="card waiting" role="listitem" aria-setsize=${total} aria-posinset=${index + 1} aria-busy="true"></div>`;
  const why = whyOf(hit);
  const judged = flagOf(hit);
  const flag = FLAGS[judged];
  const matched = isTimed(hit);
  const isChosen = chosen.ids.has(hit.clip_id);
  const clicked = (event) => {
    select(index);
    if (!event.shiftKey) return;
    event.preventDefault(); // not a window of its own
    chosen.extend(index);
  };
  const params = matched ? { from_s: hit.match_start_s, to_s: hit.match_end_s } : {};
  return html`
    <div
      class=${`card${selected ? " selected" : ""}${isChosen ? " is-chosen" : ""}`}
      role="listitem"
      aria-setsize=${total}
      aria-posinset=${index + 1}
      onPointerEnter=${(event) => event.pointerType === "mouse" && setOver(true)}
      onPointerLeave=${() => setOver(false)}
    >
      <a class="card-link" ref=${link} tabindex=${tab ? 0 : -1} href=${clipHref(hit.clip_id, params)} title=${hit.clip_id} onClick=${clicked} onFocus=${() => select(index)}>
        <${Thumb} hit=${hit} play=${over ? "frames" : Boolean(selected)} />
        <span class="card-title">${titleOf(hit)}</span>
      </a>
      <span class="card-marks">
        <label class="card-choose" title="Choose (x); Shift and a click choose all between"><input type="checkbox" tabindex=${tab ? 0 : -1} checked=${isChosen} aria-label=${`Choose ${titleOf(hit)}`} onClick=${(event) => (event.shiftKey ? chosen.extend(index) : chosen.toggle(index))} /></label>
        ${hit.hand_left && html`<span class="hand left" title="the left hand is seen">L</span>`}
        ${hit.hand_right && html`<span class="hand right" title="the right hand is seen">R</span>`}
        ${flag && html`<span class=${`flag ${judged}`} title=${flag[1]}>${flag[0]}<span class="hidden-text"> ${flag[1]}</span></span>`}
      </span>
      <span class="card-length num" title=${sorted ? nameWords(sorted) : "length"}>${sorted ? valueWords(sorted, hit.sort_value) : duration(hit.duration_s)}</span>
      <span class="card-meta" title=${`${hit.dataset} · ${hit.video_id}`}>
        ${hit.dataset} · ${[hit.verb, hit.noun].filter(Boolean).join(" ") || hit.video_id}
      </span>
      ${lines > 0 && html`<span class=${lines > 1 ? "card-why two num" : "card-why num"} title=${whyWords(hit)}>${why.map((one) => one.replaceAll(" ", "\u00a0")).join(" · ") || `score ${short(hit.score)}`}${matched && ` · at ${duration(hit.match_start_s)}`}</span>`}
      <button type="button" class="button card-more" tabindex=${tab ? 0 : -1} onClick=${() => more(hit)} title="Clips like this one (m)">like this</button>
    </div>
  `;
}
