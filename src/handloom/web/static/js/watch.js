// One clip to be watched: it is loaded here, and shown as player, 3D view and timeline on a clock.
import { html, useEffect, useState } from "../vendor/handloom-vendor.js";
import { bytes, arrays as getArrays, get, readArrays } from "./api.js";
import { legendOf } from "./overlay.js";
import { LAYERS, Player } from "./player.js";
import { ARRAYS, Clip, Frames, TRACK_CHOICES, TRACKS_LIMIT } from "./row.js";
import { ComingSpace, Failure, useScript } from "./states.js";
import { Timeline } from "./timeline.js";

/**
 * What has come of a clip so far: {clip, frames, share of the frames that has come, revision: of its arrays, error, arraysError,
 * truth, truthError, retry}. id: null loads nothing. version: of `clips`; null: the newest. wantsTruth: the truth is loaded, too.
 */
export function useClip(id, version, wantsTruth) {
  const [state, setState] = useState({ clip: null, frames: null, revision: 0 });
  const [again, setAgain] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    let frames = null;
    const change = (changes) => !signal.aborted && setState((old) => ({ ...old, ...changes }));
    const arrived = (changes) => !signal.aborted && setState((old) => ({ ...old, ...changes, revision: old.revision + 1 }));
    setState({ clip: null, frames: null, share: 0, revision: 0 });
    const load = async () => {
      const facts = await get("/api/clip", { id, v: version }, { signal });
      const clip = new Clip(facts);
      change({ clip });
      const wanted = (names) => names.filter((name) => facts.arrays.includes(name));
      const some = async (names, limit) => {
        const found = names.length ? await getArrays(id, names, { v: facts.version, signal, limit }) : {};
        if (found) clip.add(found);
        arrived({});
        return !!found;
      };
      const tracks = async () => {
        for (const names of TRACK_CHOICES) if (await some(wanted(names), TRACKS_LIMIT)) return;
        change({ tooLong: true });
      };
      const images = async () => {
        frames = new Frames(id, facts.version);
        change({ frames }); // the one that is shown comes alone, before all of them
        let told = 0;
        const progress = (share) => {
          if (share - told < 0.05) return;
          told = share;
          change({ share });
        };
        await frames.load({ signal, progress });
        change({ share: 1 });
      };
      const failed = (error) => change({ arraysError: error });
      await Promise.all([some(wanted(ARRAYS)).then(tracks).catch(failed), facts.frames && images().catch(failed)]);
    };
    if (id) load().catch((error) => change({ error }));
    return () => {
      abort.abort();
      frames?.close();
    };
  }, [id, version, again]);
  useTruth(state.clip, wantsTruth && !state.truth, (changes) => setState((old) => (old.clip === state.clip ? { ...old, ...changes } : old)));
  return { ...state, truth: wantsTruth ? state.truth : null, retry: () => setAgain((n) => n + 1) };
}

/** Load a rendered clip's truth when it is wanted: `told({truth})`, or `told({truthError})`. */
function useTruth(clip, wanted, told) {
  useEffect(() => {
    if (!clip?.facts.truth || !wanted) return undefined;
    const abort = new AbortController();
    const params = { id: clip.id, v: clip.facts.version };
    const load = async () => {
      const [facts, buffer] = await Promise.all([get("/api/truth", params, { signal: abort.signal }), bytes("/api/truth_arrays", params, { signal: abort.signal })]);
      clip.truth = { ...facts, arrays: readArrays(buffer) };
      told({ truth: clip.truth, truthError: null });
    };
    load().catch((error) => error.name !== "AbortError" && told({ truthError: error }));
    return () => abort.abort();
  }, [clip, wanted]);
}

/** Whether the images come from the stored frames or the video: what was chosen, where it is there. */
export function sourceOf(clip, chosen) {
  const { frames, video } = clip.facts;
  if (!video?.playable) return "frames";
  return frames && chosen !== "video" ? "frames" : "video";
}

/**
 * Player and 3D view side by side, buttons (`children`) and the timeline below them; on narrow screens 3D comes last.
 * loaded: of `useClip`; shape: width over height of what is shown until that of the clip is known.
 */
export function Watch({ loaded, clock, layers, view, setView, source, setSource, title, shape = 16 / 9, children }) {
  const { clip, frames, revision, error, arraysError, share, tooLong, truth, truthError, retry } = loaded;
  const [broken, setBroken] = useState(null); // the video that the browser could not play
  if (error) return html`<${Failure} error=${error} retry=${retry} />`;
  if (!clip) return html`<${Waiting} shape=${shape} words="Loading the clip" />`;
  if (!clip.length) return html`<p class="state">This clip has no frames: the stage that decodes its video has not run on it, or found none.</p>`;
  const shown = broken === clip ? "frames" : sourceOf(clip, source);
  const why = broken === clip ? `this browser plays no ${clip.facts.codec ?? "such file"}` : clip.facts.video?.why || "it is not known";
  return html`
    ${arraysError && html`<${Failure} error=${arraysError} retry=${retry} />`}
    ${truthError && html`<${Failure} error=${truthError} />`}
    ${tooLong && html`<p class="soft">The tracks of this clip are more than ${TRACKS_LIMIT >> 20} MB, and are not shown: read them in Python, or cut the video into shorter clips.</p>`}
    <div class="clip-watch">
      <div class="clip-seen">
        <${Player} clip=${clip} clock=${clock} layers=${layers} frames=${frames} source=${shown} why=${why} revision=${revision} truth=${truth} label=${`${title}: image with hands and tracks`} onVideoError=${() => setBroken(clip)} />
        <${SourceNote} clip=${clip} shown=${shown} share=${arraysError ? 1 : share} setSource=${setSource} broken=${broken === clip} why=${why} />
        <${Legend} clip=${clip} truth=${truth} />
      </div>
      <div class="clip-buttons">${children}</div>
      <div class="clip-time"><${Timeline} clip=${clip} clock=${clock} revision=${revision} truth=${truth} /></div>
      <${Scene} clip=${clip} clock=${clock} layers=${layers} view=${view} setView=${setView} revision=${revision} truth=${truth ?? null} />
    </div>
  `;
}

/** The view in 3D: image and timeline do not wait for its script. */
function Scene(props) {
  const { script, failed } = useScript(() => import("./scene.js"), "the 3D view");
  return script ? html`<${script.Scene} ...${props} />` : html`<${ComingSpace} failed=${failed} shape=${Math.max(props.clip.width / props.clip.height, 0.75)} />`;
}

/** The place of an image that is on its way. */
const Waiting = ({ shape, words }) => html`
  <div class="clip-watch">
    <div class="clip-seen"><div class="clip-stage clip-waiting" style=${{ aspectRatio: `${shape}` }}><p role="status">${words} …</p></div></div>
  </div>
`;

/** What is drawn over the image. truth: drawn, too. */
const Legend = ({ clip, truth }) => html`
  <ul class="legend clip-legend">
    ${legendOf({ ...clip, truth }).map(([color, words, more]) => html`<li key=${words} title=${more}>${color && html`<i class="dot" style=${{ background: color }}></i> `}${words}</li>`)}
  </ul>
`;

/** Which images are shown, and why not the others. */
function SourceNote({ clip, shown, share, setSource, broken, why }) {
  const { frames, video, size, source } = clip.facts;
  const playable = video?.playable && !broken;
  return html`
    <p class="clip-source soft">
      ${playable && frames
        ? html`<span class="switch" role="group" aria-label="Images">
            <button type="button" class="button" aria-pressed=${shown === "frames"} onClick=${() => setSource(null)}>Stored frames</button>
            <button type="button" class="button" aria-pressed=${shown === "video"} onClick=${() => setSource("video")}>Video</button>
          </span>`
        : playable
          ? "The video is shown; no frames are stored."
          : frames
            ? html`Stored frames are shown: the video cannot be (${why}).`
            : null}
      ${shown === "frames" && size && source && size[0] < source[0] ? html` <span>${size.join(" × ")} of ${source.join(" × ")} pixels</span>` : null}
      ${shown === "frames" && frames && share < 1 ? html` <span class="num" role="status">Loading the frames … ${Math.round(100 * share)} %</span>` : null}
    </p>
  `;
}

/** The layers that are on: all but those named in `off`, a parameter of the address; the truth only with `truth`. */
export function layersOf(params) {
  const hidden = new Set((params.get("off") ?? "").split(","));
  return { ...Object.fromEntries(LAYERS.map(([name]) => [name, !hidden.has(name)])), truth: params.get("truth") !== null };
}

/** [name, title, number of its key, what it is] of the layers that some of these clips have. */
export function layersFor(clips) {
  const has = { body: (clip) => clip.facts.arrays.includes("body_keypoints_px"), truth: (clip) => !!clip.facts.truth };
  return LAYERS.map(([name, title, what], n) => [name, title, n + 1, what]).filter(([name]) => !has[name] || clips.some(has[name]));
}
