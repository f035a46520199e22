// The clock that everything on a clip's page follows, and the player: an image with its layers drawn over it.
import { html, signal, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { drawOverlay, flat } from "./overlay.js";
import { indexAt, nearestIndex } from "./row.js";

export const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
/** Layers in the order of their keys, 1 to 5. */
export const LAYERS = [
  ["hands", "Hands"],
  ["tracks", "Tracks"],
  ["things", "Held things"],
  ["others", "Other hands"],
  ["image", "Image"],
];

/** Seconds since the first frame, on which two clips may run side by side. A video that plays leads it. */
export class Clock {
  constructor() {
    this.at = signal(0);
    this.playing = signal(false);
    this.speed = signal(1);
    this.loop = signal(true);
    this.duration_s = 0;
    this.times = [0];
    this.length = signal(1); // frames of the first clip
    this.leader = null; // a video element that plays
    this.inner_s = this.last_s = 0;
  }

  /** The clips on the clock; the first one's frames are the steps. */
  follow(clips) {
    const longest = clips.reduce((most, clip) => Math.max(most, clip.duration_s), 0);
    this.duration_s = longest;
    this.times = clips[0]?.times.length ? clips[0].times : [0];
    this.length.value = this.times.length;
    this.last_s = Math.max(...clips.map((clip) => clip.times[clip.length - 1] ?? 0), 0);
  }

  seek(at_s) {
    this.inner_s = Math.min(Math.max(at_s, 0), this.last_s);
    this.at.value = this.inner_s;
  }

  step(frames) {
    this.pause();
    const next = indexAt(this.times, this.at.peek()) + frames;
    this.seek(this.times[Math.min(Math.max(next, 0), this.times.length - 1)]);
  }

  toggle() {
    if (this.playing.peek()) this.pause();
    else this.play();
  }

  play() {
    if (this.playing.peek() || !(this.duration_s > 0)) return;
    if (this.at.peek() >= this.last_s - 1e-6) this.seek(0);
    this.playing.value = true;
    let before = performance.now();
    const tick = (now) => {
      if (!this.playing.peek()) return;
      const passed_s = Math.min((now - before) / 1000, 0.25);
      before = now;
      if (!this.leader) this.advance(passed_s * this.speed.peek());
      this.waiting = requestAnimationFrame(tick);
    };
    this.waiting = requestAnimationFrame(tick);
  }

  advance(by_s) {
    this.inner_s += by_s; // runs beyond the last frame's time: that frame is shown as long as the others
    if (this.inner_s < this.duration_s) this.at.value = Math.min(this.inner_s, this.last_s);
    else this.atEnd();
  }

  atEnd() {
    if (this.loop.peek()) this.seek(0);
    else {
      this.pause();
      this.seek(this.last_s);
    }
  }

  pause() {
    this.playing.value = false;
    cancelAnimationFrame(this.waiting);
  }

  faster(by) {
    const now = SPEEDS.indexOf(this.speed.peek());
    this.speed.value = SPEEDS[Math.min(Math.max(now + by, 0), SPEEDS.length - 1)];
  }
}

/** Call `run` now and at once when a signal changes; `useSignalEffect` would wait for the browser's next frame. */
export function useLive(signals, run) {
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => {
    const stops = signals.map((one) => one.subscribe(() => latest.current()));
    return () => stops.forEach((stop) => stop());
  }, signals);
}

/**
 * One clip's image with its layers. frames: `Frames`, or null where none are stored. source: "frames" or "video".
 * The element's `data-frame` is the frame that is drawn.
 */
export function Player({ clip, clock, layers, frames, source, onVideoError, revision, label }) {
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
  }, [clip, frames, revision, videoUrl]);
  useEffect(() => () => cancelAnimationFrame(view.waiting), []);
  useVideo(video, clip, clock, videoUrl);

  return html`
    <figure class="clip-player">
      <div class="clip-stage" ref=${box} style=${{ aspectRatio: `${clip.width} / ${clip.height}` }} role="img" aria-label=${label}
        onClick=${() => clock.toggle()}>
        ${videoUrl && html`<video ref=${video} src=${videoUrl} muted playsinline preload="auto" onError=${() => onVideoError?.(video.current?.error?.message ?? "")}></video>`}
        <canvas ref=${image} class="clip-image" hidden=${!!videoUrl}></canvas>
        <canvas ref=${overlay} class="clip-overlay"></canvas>
        ${!videoUrl && !frames && html`<p class="clip-notice">No images of this clip are stored, and its video cannot be shown: ${clip.facts.video?.why || "it is not known"}.</p>`}
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
    const state = { told_s: -1, call: 0 };
    const follow = (at_s) => {
      // The middle of the frame: its start may round to the frame before.
      const index = indexAt(clip.times, at_s);
      const next = clip.times[index + 1] ?? clip.duration_s;
      video.currentTime = clip.first_s + at_s + Math.min((next - clip.times[index]) / 4, 0.008);
    };
    const onFrame = (_, { mediaTime }) => {
      state.call = video.requestVideoFrameCallback(onFrame);
      if (!clock.playing.peek()) return;
      const at_s = mediaTime - clip.first_s;
      if (at_s >= clip.duration_s - 1e-3) {
        clock.atEnd();
        follow(clock.at.peek());
        return;
      }
      state.told_s = Math.max(at_s, 0);
      clock.seek(state.told_s);
    };
    const stops = [
      clock.playing.subscribe((playing) => {
        clock.leader = playing ? video : null;
        if (playing) video.play().catch(() => (clock.leader = null));
        else {
          video.pause();
          follow(clock.at.peek());
        }
      }),
      clock.speed.subscribe((speed) => {
        video.playbackRate = speed;
      }),
      clock.at.subscribe((at_s) => {
        if (at_s !== state.told_s && Math.abs(at_s - state.told_s) > 1e-6) follow(at_s);
      }),
    ];
    const onEnded = () => {
      if (!clock.playing.peek()) return;
      clock.atEnd();
      follow(clock.at.peek());
      if (clock.playing.peek()) video.play().catch(() => {});
    };
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

/** Buttons below the players. layers: null where there are none. */
export function Transport({ clock, layers, setLayer, children }) {
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
        ${LAYERS.map(
          ([name, title], n) => html`<button type="button" key=${name} class="button" aria-pressed=${!!layers.peek()[name]} onClick=${() => setLayer(name)} title=${`${title} (${n + 1})`}>${title}</button>`,
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
