// The page of one clip, or of two side by side (`with=ID`, `with_v=VERSION`).
import { html, signal, useEffect, useMemo, useRef } from "../vendor/handloom-vendor.js";
import { about } from "./api.js";
import { Compare, CompareWith } from "./compare.js";
import { Made, Quality, Similar, Source, Take } from "./details.js";
import { Judge, judgementOf } from "./judge.js";
import { useKeys } from "./keys.js";
import { Clock } from "./clock.js";
import { LAYERS, Transport, VIEWS } from "./player.js";
import { place, setParams } from "./router.js";
import { indexAt } from "./row.js";
import { Empty, duration } from "./states.js";
import { Truth } from "./truth.js";
import { layersFor, layersOf, useClip, Watch } from "./watch.js";

const replace = { replace: true };
const SAVE_MS = 400; // after the clock has come to rest its time goes into the address

/** id: the clip; params: of the address (URLSearchParams): with, with_v, v, t, off, truth, view, source, by. */
export const Page = ({ id, params }) => html`<${One} key=${id} id=${id} params=${params} />`; // another clip begins anew

function One({ id, params }) {
  const clock = useMemo(() => new Clock(), []);
  const layers = useMemo(() => signal(layersOf(params)), []);
  const wantsTruth = params.get("truth") !== null;
  const first = useClip(id, params.get("v"), wantsTruth);
  const other = params.get("with");
  const second = useClip(other, params.get("with_v"), wantsTruth);
  const { clip } = first;
  const view = VIEWS.some(([name]) => name === params.get("view")) ? params.get("view") : "orbit";

  const beside = other ? second.clip : null;
  const began = useMemo(() => ({ t: params.get("t") }), []);
  const first_s = useRef(0);
  useEffect(() => {
    const there = [clip, beside].filter(Boolean);
    if (!there.length) return;
    clock.follow(there);
    if (first_s.current === null || clock.at.peek() !== first_s.current) return; // the reader went elsewhere meanwhile
    clock.seek(Number(began.t) || 0);
    first_s.current = there.length < (other ? 2 : 1) ? clock.at.peek() : null; // the other clip may be longer
  }, [clip, beside]);
  useEffect(() => {
    document.getElementById("main")?.scrollTo(0, 0);
    return () => clock.pause();
  }, []);
  useSavedTime(clock, clip ?? beside);

  const setLayer = (name) => {
    layers.value = { ...layers.peek(), [name]: !layers.peek()[name] };
    const off = LAYERS.map(([one]) => one).filter((one) => one !== "truth" && !layers.peek()[one]);
    setParams({ off: off.join(",") || null, truth: layers.peek().truth ? "1" : null }, replace);
  };
  const there = layersFor([clip, beside].filter(Boolean));
  const setView = (next) => setParams({ view: next === "orbit" ? null : next }, replace);
  useKeys("Clip", clipKeys({ clock, clip: clip ?? beside, there, setLayer, view, setView }));

  if (!id) return html`<${Empty} title="No clip is named" hint="Choose one on the search page." />`;
  const shared = { clock, layers, there, setLayer, view, setView, source: params.get("source"), setSource: (source) => setParams({ source }, replace) };
  return html`
    <div class="clip-page">
      <${Head} id=${id} clip=${clip} truth=${there.some(([name]) => name === "truth") ? { shown: wantsTruth, turn: () => setLayer("truth") } : null} />
      ${other
        ? html`<${Compare} pair=${[first, second]} places=${[{ id, version: params.get("v") }, { id: other, version: params.get("with_v") }]} ...${shared} />`
        : html`
            <${Watch} loaded=${first} title=${id} ...${shared}><${Transport} clock=${clock} layers=${layers} there=${there} setLayer=${setLayer} /><//>
            ${clip && html`
              <div class="clip-panels">
                ${wantsTruth && first.truth && html`<${Truth} truth=${first.truth} />`}
                <${Quality} facts=${clip.facts} />
                <${Source} clip=${clip} />
                <div class="clip-column"><section class="panel clip-panel"><h2>Judgement</h2><${Judge} id=${id} version=${clip.facts.version} /></section><${Take} facts=${clip.facts} /><${Made} facts=${clip.facts} /></div>
              </div>
              <${Similar} id=${id} version=${params.get("v")} by=${params.get("by") ?? "motion"} setBy=${(by) => setParams({ by }, replace)} />
            `}
          `}
    </div>
  `;
}

/** truth: {shown, turn()} where one is known of a clip of the page. */
function Head({ id, clip, truth }) {
  const listed = clip?.facts.facts ?? {};
  const words = listed.narration || [listed.verb, listed.noun].filter(Boolean).join(" ");
  return html`
    <header class="clip-top">
      <div>
        <h1>${words || id} <${Verdict} id=${id} /></h1>
        <p class="soft">
          ${words && html`<span class="mono">${id}</span> · `}${clip && html`${clip.length} frames · ${duration(listed.end_s != null ? listed.end_s - listed.start_s : clip.duration_s)}${listed.dataset ? ` · ${listed.dataset}` : ""} · version ${clip.facts.version}`}
          ${clip && about.value && clip.facts.version < about.value.version ? " (not the newest)" : ""}
        </p>
      </div>
      <div class="clip-head-buttons">
        ${truth && html`<button type="button" class="button" aria-pressed=${truth.shown} title="The exact truth of this rendered clip: over the image, in 3D, as errors (7)" onClick=${truth.turn}>Compare with the truth</button>`}
        <${CompareWith} id=${id} version=${clip?.facts.version} />
      </div>
    </header>
  `;
}

/** What the clip is judged to be: the keys work wherever the page is scrolled, and the panel may be out of sight. */
function Verdict({ id }) {
  const verdict = judgementOf(id)?.verdict;
  if (!verdict) return null;
  return html`<span class=${`flag ${verdict}`} role="status">${verdict === "good" ? "✓ good" : "✗ bad"}</span>`;
}

/** Keep the time in the address once the clock rests, so that a link shows what was seen. */
function useSavedTime(clock, clip) {
  useEffect(() => {
    if (!clip) return undefined;
    const path = place.peek().path;
    let waiting = 0;
    const save = () => {
      if (clock.playing.peek() || place.peek().path !== path) return;
      const at_s = clock.at.peek();
      setParams({ t: at_s > 0 ? at_s.toFixed(3) : null }, replace);
    };
    const later = () => {
      clearTimeout(waiting);
      if (!clock.playing.peek()) waiting = setTimeout(save, SAVE_MS);
    };
    const stops = [clock.at.subscribe(later), clock.playing.subscribe(later)];
    return () => {
      clearTimeout(waiting);
      stops.forEach((stop) => stop());
    };
  }, [clock, clip]);
}

function clipKeys({ clock, clip, there, setLayer, view, setView }) {
  const toSegment = (direction) => {
    if (!clip?.length) return false;
    clock.pause();
    clock.seek(nextStart(clip.facts.segments, clip, clock.at.peek(), direction));
    return true;
  };
  const nextView = () => setView(VIEWS[(VIEWS.findIndex(([name]) => name === view) + 1) % VIEWS.length][0]);
  return [
    { keys: [" "], about: "play or pause", run: () => clock.toggle() },
    { keys: ["ArrowLeft"], about: "one frame back", run: () => clock.step(-1) },
    { keys: ["ArrowRight"], about: "one frame on", run: () => clock.step(1) },
    { keys: ["Shift+ArrowLeft"], about: "ten frames back", run: () => clock.step(-10) },
    { keys: ["Shift+ArrowRight"], about: "ten frames on", run: () => clock.step(10) },
    { keys: ["Home"], about: "first frame", run: () => clock.step(-Infinity) },
    { keys: ["End"], about: "last frame", run: () => clock.step(Infinity) },
    { keys: ["["], about: "start of this action, or of the one before", run: () => toSegment(-1) },
    { keys: ["]"], about: "start of the next action", run: () => toSegment(1) },
    ...there.map(([name, title, key]) => ({ keys: [String(key)], about: `${title.toLowerCase()}: on or off`, run: () => setLayer(name) })),
    { keys: ["v"], about: "3D view: orbit, follow the camera, from above", run: nextView },
    { keys: ["-"], about: "slower", run: () => clock.faster(-1) },
    { keys: ["+", "="], about: "faster", run: () => clock.faster(1) },
    { keys: ["l"], about: "begin again at the end, or stop there", run: () => void (clock.loop.value = !clock.loop.peek()) },
  ];
}

/** Time of the start of the segment before or after `at_s`, on the clip's frames; the clip's ends where there is none. */
export function nextStart(segments, clip, at_s, direction) {
  const starts = (segments ?? []).map((one) => clip.times[indexAt(clip.times, one.start_s - clip.first_s)]).sort((a, b) => a - b);
  if (direction > 0) return starts.find((start) => start > at_s + 1e-6) ?? clip.times[clip.length - 1];
  return starts.findLast((start) => start < at_s - 1e-6) ?? 0;
}
