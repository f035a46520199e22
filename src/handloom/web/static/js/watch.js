// One clip to be watched: it is loaded here, and shown as player, 3D view and timeline on a clock.
import { html, useEffect, useState } from "../vendor/handloom-vendor.js";
import { arrays as getArrays, get } from "./api.js";
import { LAYERS, Player } from "./player.js";
import { ARRAYS, Clip, Frames, TRACK_CHOICES, TRACKS_LIMIT } from "./row.js";
import { Scene } from "./scene.js";
import { Failure, Loading } from "./states.js";
import { Timeline } from "./timeline.js";

/**
 * What has come of a clip so far: {clip, frames, share of the frames that has come, revision, error, arraysError, retry}.
 * id: null loads nothing. version: of `clips`; null: the newest.
 */
export function useClip(id, version) {
  const [state, setState] = useState({ clip: null, frames: null, revision: 0 });
  const [again, setAgain] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    let frames = null;
    const change = (changes) => !signal.aborted && setState((old) => ({ ...old, ...changes, revision: old.revision + 1 }));
    setState({ clip: null, frames: null, share: 0, revision: 0 });
    const load = async () => {
      const facts = await get("/api/clip", { id, v: version }, { signal });
      const clip = new Clip(facts);
      change({ clip });
      const wanted = (names) => names.filter((name) => facts.arrays.includes(name));
      const some = async (names, limit) => {
        const found = names.length ? await getArrays(id, names, { v: facts.version, signal, limit }) : {};
        if (found) clip.add(found);
        change({});
        return !!found;
      };
      const tracks = async () => {
        for (const names of TRACK_CHOICES) if (await some(wanted(names), TRACKS_LIMIT)) return;
        change({ tooLong: true });
      };
      const images = async () => {
        frames = new Frames(id, facts.version);
        let told = 0;
        const progress = (share) => {
          if (share - told < 0.05) return;
          told = share;
          change({ share });
        };
        await frames.load({ signal, progress });
        change({ frames, share: 1 });
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
  return { ...state, retry: () => setAgain((n) => n + 1) };
}

/** Whether the images come from the stored frames or the video: what was chosen, where it is there. */
export function sourceOf(clip, chosen) {
  const { frames, video } = clip.facts;
  if (!video?.playable) return "frames";
  return frames && chosen !== "video" ? "frames" : "video";
}

/** Player and 3D view side by side, the timeline below them. loaded: of `useClip`. */
export function Watch({ loaded, clock, layers, view, setView, source, setSource, title, children }) {
  const { clip, frames, revision, error, arraysError, share, tooLong, retry } = loaded;
  const [broken, setBroken] = useState(null); // the video that the browser could not play
  if (error) return html`<${Failure} error=${error} retry=${retry} />`;
  if (!clip) return html`<${Loading} what="Loading the clip" />`;
  if (!clip.length) return html`<p class="state">This clip has no frames: the stage that decodes its video has not run on it, or found none.</p>`;
  const shown = broken === clip ? "frames" : sourceOf(clip, source);
  return html`
    ${arraysError && html`<${Failure} error=${arraysError} retry=${retry} />`}
    ${tooLong && html`<p class="soft">The tracks of this clip are more than ${TRACKS_LIMIT >> 20} MB, and are not shown: read them in Python, or cut the video into shorter clips.</p>`}
    <div class="clip-watch">
      <div>
        ${clip.facts.frames && shown === "frames" && !frames && !arraysError
          ? html`<div class="clip-stage clip-empty" style=${{ aspectRatio: `${clip.width} / ${clip.height}` }}><p role="status">Loading the frames … ${Math.round(100 * (share ?? 0))} %</p></div>`
          : html`<${Player} clip=${clip} clock=${clock} layers=${layers} frames=${frames} source=${shown} revision=${revision} label=${`${title}: image with hands and tracks`} onVideoError=${() => setBroken(clip)} />`}
        <${SourceNote} clip=${clip} shown=${shown} setSource=${setSource} broken=${broken === clip} />
      </div>
      <${Scene} clip=${clip} clock=${clock} layers=${layers} view=${view} setView=${setView} revision=${revision} />
    </div>
    ${children}
    <${Timeline} clip=${clip} clock=${clock} revision=${revision} />
  `;
}

/** Which images are shown, and why not the others. */
function SourceNote({ clip, shown, setSource, broken }) {
  const { frames, video, size, source } = clip.facts;
  const why = broken ? "this browser cannot play it" : video?.why || "it is not known";
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
    </p>
  `;
}

/** The layers that are on: all but those named in `off`, the parameter of the address. */
export function layersOf(off) {
  const hidden = new Set((off ?? "").split(","));
  return Object.fromEntries(LAYERS.map(([name]) => [name, !hidden.has(name)]));
}
