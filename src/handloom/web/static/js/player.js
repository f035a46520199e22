// The player: an image with its layers drawn over it, and the buttons below it.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { SPEEDS, useLive } from "./clock.js";
import { drawOverlay, flat } from "./overlay.js";
import { indexAt, nearestIndex } from "./row.js";

/** Layers in the order of their keys, 1 to 7: name, title, what it is. */
export const LAYERS = [
  ["hands", "Hands", "the wearer's left and right hand; in a view from outside the person's"],
  ["tracks", "Tracks", "points that are followed through the clip"],
  ["things", "Held things", "the points and the box of what a hand holds"],
  ["others", "Other hands", "hands of somebody else, or taken for such: grey; they are in no number of quality, and in no flag"],
  ["image", "Image", "the clip's image below all that is drawn"],
  ["body", "Body", "the body of the person who is seen"],
  ["truth", "Truth", "the exact truth of a rendered clip: dashed"],
];

/** Of the view in 3D: the reader turns it; it follows the camera; it looks from above. */
export const VIEWS = [["orbit", "Orbit"], ["camera", "Camera"], ["top", "Top"]];

/**
 * One clip's image with its layers. frames: `Frames`, or null where none are stored. source: "frames" or "video"; why: why
 * not the video. `onVideoError()`: the browser cannot play it, or plays its sound alone.
 * The element's `data-frame` is the frame that is drawn.
 */
export function Player({ clip, clock, layers, frames, source, why, onVideoError, revision, truth, label }) {
  const box = useRef(null);
  const image = useRef(null);
  const overlay = useRef(null);
  const video = useRef(null);
  const [failed, setFailed] = useState("");
  const view = useMemo(() => ({ waiting: 0, drawn: -1 }), []);
  const videoUrl = source === "video" ? clip.facts.video?.url : null;

  view.draw = () => {
    view.waiting = 0;
    if (!box.current) return;
    const at_s = clock.at.peek();
    const index = videoUrl ? nearestIndex(clip.times, at_s) : indexAt(clip.times, at_s);
    const shown = layers.peek();
    fit(overlay.current, box.current, clip);
    drawOverlay(overlay.current, clip, index, shown);
    if (!videoUrl) drawImage(index, shown);
    else if (video.current) video.current.hidden = !shown.image;
    box.current.dataset.frame = index;
    box.current.classList.toggle("ended", clip.duration_s < clock.duration_s - 1e-3 && at_s > clip.duration_s - 1e-3);
  };
  const drawImage = (index, shown) => {
    const canvas = image.current;
    const bitmap = frames && shown.image ? frames.get(index, (error) => (error ? setFailed(error.problem ?? error.message) : view.schedule())) : null;
    if (bitmap) {
      if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
      flat(canvas).drawImage(bitmap, 0, 0);
      box.current.dataset.image = index;
    } else if (!frames || !shown.image) flat(canvas).clearRect(0, 0, canvas.width, canvas.height);
    if (frames && clock.playing.peek()) for (let n = 1; n <= 4; n++) if (index + n < clip.length) frames.get(index + n);
  };
  view.schedule = () => {
    view.waiting ||= requestAnimationFrame(() => view.draw());
  };

  useLive([clock.at, layers], () => view.schedule());
  useEffect(() => {
    view.schedule();
    const watch = new ResizeObserver(() => view.schedule());
    watch.observe(box.current);
    return () => watch.disconnect();
  }, [clip, frames, revision, truth, videoUrl]);
  useEffect(() => () => cancelAnimationFrame(view.waiting), []);
  useVideo(video, clip, clock, videoUrl);

  return html`
    <figure class="clip-player">
      <div class="clip-stage" ref=${box} style=${{ aspectRatio: `${clip.width} / ${clip.height}` }} role="img" aria-label=${label}
        onClick=${() => clock.toggle()}>
        ${videoUrl && html`<video ref=${video} src=${videoUrl} muted playsinline preload="auto" onLoadedMetadata=${() => video.current?.videoWidth || onVideoError?.()} onLoadedData=${() => (box.current.dataset.image = "video")} onError=${() => onVideoError?.()}></video>`}
        <canvas ref=${image} class="clip-image" hidden=${!!videoUrl}></canvas>
        <canvas ref=${overlay} class="clip-overlay"></canvas>
        ${(videoUrl || frames) && html`<p class="clip-loading" role="status">Loading the image …</p>`}
        <p class="clip-ended">ended at ${clip.duration_s.toFixed(2)} s</p>
        ${!videoUrl && !frames && html`<p class="clip-notice">No images of this clip are stored, and its video cannot be shown: ${why}.</p>`}
        ${failed && html`<p class="clip-notice" role="alert">${failed}</p>`}
      </div>
    </figure>
  `;
}

/** Give the canvas as many pixels as its place on the screen has, and never more than 2,560 across. */
function fit(canvas, box, clip) {
  const width = Math.min(Math.max(1, Math.round(box.clientWidth * devicePixelRatio)), 2560);
  const height = Math.max(1, Math.round((width * clip.height) / clip.width));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
}

/** Keep a video and the clock in step: the video leads while it plays, and follows where the clock is set. */
function useVideo(ref, clip, clock, url) {
  useEffect(() => {
    const video = ref.current;
    if (!url || !video) return undefined;
    const state = { told_s: -1, call: 0, refused: false };
    const follow = (at_s) => {
      // The middle of the frame: its start may round to the frame before.
      const index = indexAt(clip.times, at_s);
      const next = clip.times[index + 1] ?? clip.duration_s;
      video.currentTime = clip.first_s + at_s + Math.min((next - clip.times[index]) / 4, 0.008);
    };
    const lead = () => {
      clock.leader = video;
      video.play().catch(({ name }) => {
        clock.leader = null;
        state.refused = name !== "AbortError"; // then the clock runs without it
      });
    };
    // At the clip's end: the clock begins again or stops; or it goes on without this video, with a longer clip beside it.
    const over = () => {
      if (clock.duration_s > clip.duration_s + 1e-3) {
        clock.leader = null;
        video.pause();
        clock.seek(clip.duration_s);
        return;
      }
      clock.atEnd();
      follow(clock.at.peek());
      if (clock.playing.peek()) lead();
    };
    const onFrame = (_, { mediaTime }) => {
      state.call = video.requestVideoFrameCallback(onFrame);
      if (!clock.playing.peek() || clock.leader !== video) return;
      const at_s = mediaTime - clip.first_s;
      if (at_s >= clip.duration_s - 1e-3) {
        over();
        return;
      }
      state.told_s = Math.max(at_s, 0);
      clock.seek(state.told_s);
    };
    const stops = [
      clock.playing.subscribe((playing) => {
        clock.leader = null;
        if (playing && clock.at.peek() < clip.duration_s - 1e-3) lead();
        else {
          video.pause();
          follow(clock.at.peek());
        }
      }),
      clock.speed.subscribe((speed) => {
        video.playbackRate = speed;
      }),
      clock.at.subscribe((at_s) => {
        if (at_s >= clip.duration_s - 1e-3 && !clock.leader && clock.playing.peek()) return;
        if (at_s !== state.told_s && Math.abs(at_s - state.told_s) > 1e-6) follow(at_s);
        if (clock.playing.peek() && !clock.leader && !state.refused) lead();
      }),
    ];
    const onEnded = () => void (clock.playing.peek() && clock.leader === video && over());
    video.addEventListener("ended", onEnded);
    if (video.requestVideoFrameCallback) state.call = video.requestVideoFrameCallback(onFrame);
    return () => {
      stops.forEach((stop) => stop());
      video.removeEventListener("ended", onEnded);
      video.cancelVideoFrameCallback?.(state.call);
      if (clock.leader === video) clock.leader = null;
      video.pause();
    };
  }, [clip, url]);
}

/** Buttons below the players. layers: null where there are none; there: those that can be switched, `layersFor`. */
export function Transport({ clock, layers, there, setLayer, children }) {
  const [, redraw] = useState(0);
  useLive([clock.playing, clock.speed, clock.loop, ...(layers ? [layers] : [])], () => redraw((n) => n + 1));
  const playing = clock.playing.peek();
  return html`
    <div class="clip-transport">
      <div class="switch">
        <button type="button" class="button" onClick=${() => clock.step(-1)} title="One frame back (←)" aria-label="One frame back">◂|</button>
        <button type="button" class="button clip-play" onClick=${() => clock.toggle()} title="Play or pause (space)" aria-label=${playing ? "Pause" : "Play"}>${playing ? "❚❚" : "▶"}</button>
        <button type="button" class="button" onClick=${() => clock.step(1)} title="One frame on (→)" aria-label="One frame on">|▸</button>
      </div>
      <${Position} clock=${clock} />
      <label class="clip-speed"><span class="hidden-text">Speed</span>
        <select value=${clock.speed.peek()} onChange=${(event) => (clock.speed.value = Number(event.target.value))} title="Speed (- and +)">
          ${SPEEDS.map((speed) => html`<option value=${speed}>${speed} ×</option>`)}
        </select>
      </label>
      <button type="button" class="button" aria-pressed=${clock.loop.peek()} onClick=${() => (clock.loop.value = !clock.loop.peek())} title="Begin again at the end (l)">Loop</button>
      ${layers && html`<div class="clip-layers" role="group" aria-label="Layers">
        ${there.map(
          ([name, title, key, what]) => html`<button type="button" key=${name} class="button" aria-pressed=${!!layers.peek()[name]} onClick=${() => setLayer(name)} title=${`${title}: ${what} (${key})`}>${title}</button>`,
        )}
      </div>`}
      ${children}
    </div>
  `;
}

function Position({ clock }) {
  const text = useRef(null);
  useLive([clock.at, clock.length], () => {
    const at_s = clock.at.peek();
    if (text.current) text.current.textContent = `${indexAt(clock.times, at_s) + 1} / ${clock.times.length} · ${at_s.toFixed(2)} s`;
  });
  return html`<output class="clip-position num" ref=${text}></output>`;
}
