// The clock that everything on a page of one clip or episode follows.
import { signal, useEffect, useRef } from "../vendor/handloom-vendor.js";
import { indexAt } from "./row.js";

export const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

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
