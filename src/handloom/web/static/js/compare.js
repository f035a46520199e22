// Two clips, or two versions of one, side by side on one clock.
import { html, useEffect, useState } from "../vendor/handloom-vendor.js";
import { get } from "./api.js";
import { Differences } from "./differences.js";
import { Judge } from "./judge.js";
import { clipHref, setParams } from "./router.js";
import { Transport } from "./player.js";
import { count, Problem } from "./states.js";
import { Watch } from "./watch.js";

/** The page of two clips. pair: two of `useClip`; places: [{id, version}] of them. */
export function Compare({ pair, places, clock, layers, there, setLayer, view, setView, source, setSource }) {
  const clips = pair.map(({ clip }) => clip);
  const versionOf = (n) => clips[n]?.facts.version ?? places[n].version;
  return html`
    <${Transport} clock=${clock} layers=${layers} there=${there} setLayer=${setLayer}>
      <button type="button" class="button" onClick=${() => setParams({ with: null, with_v: null })}>Close the comparison</button>
    <//>
    <div class="clip-pair">
      ${pair.map((loaded, n) => html`
        <section class="clip-side" key=${n} aria-label=${`Clip ${"AB"[n]}`}>
          <h2><span class="clip-letter">${"AB"[n]}</span> <a href=${clipHref(places[n].id, { v: places[n].version })}>${places[n].id}</a>
            ${versionOf(n) != null && html` <span class="chip">version ${versionOf(n)}</span>`}</h2>
          ${clips[n]?.facts.facts?.narration && html`<p class="soft">${clips[n].facts.facts.narration}</p>`}
          <${Watch} loaded=${loaded} clock=${clock} layers=${layers} view=${view} setView=${setView} source=${n ? null : source} setSource=${setSource} title=${`Clip ${"AB"[n]}`} shape=${shapeOf(clips[1 - n])} />
          ${clips[n] && html`<div class="panel clip-panel clip-judge"><${Judge} id=${places[n].id} version=${clips[n].facts.version} keys=${false} /></div>`}
        </section>
      `)}
    </div>
    ${clips[0] && clips[1] && html`<${Differences} clips=${clips} truths=${pair.map(({ truth }) => truth ?? null)} />`}
  `;
}

const shapeOf = (clip) => (clip ? clip.width / clip.height : undefined);

/** A form to put another clip, or another version of this one, beside this clip. version: that is shown. */
export function CompareWith({ id, version: shown }) {
  const [other, setOther] = useState("");
  const [version, setVersion] = useState("");
  const [open, setOpen] = useState(false);
  const [found, setFound] = useState(null);
  const [failed, setFailed] = useState(null);
  useEffect(() => setOther(""), [id]);
  useEffect(() => {
    if (!open) return undefined;
    const abort = new AbortController();
    setFailed(null);
    get("/api/versions", {}, { signal: abort.signal }).then(setFound, (error) => error.name !== "AbortError" && setFailed(error));
    return () => abort.abort();
  }, [open]);
  const start = (event) => {
    event.preventDefault();
    if (other.trim() || version) setParams({ with: other.trim() || id, with_v: version || null });
  };
  return html`
    <details class="clip-with" onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary class="button">Compare …</summary>
      <form onSubmit=${start}>
        <label>Clip <input type="text" value=${other} placeholder=${id} onInput=${(event) => setOther(event.target.value)} /></label>
        <label>Version
          <select value=${version} onChange=${(event) => setVersion(event.target.value)}>
            <option value="">${other.trim() ? "newest" : "choose one"}</option>
            ${(found?.versions ?? []).map((one) => html`<option key=${one.version} value=${one.version}>${versionWords(one)}${one.version === shown ? " (shown)" : ""}</option>`)}
          </select>
        </label>
        <button type="submit" class="button main" disabled=${!other.trim() && !version}>Side by side</button>
        ${failed && html`<${Problem} error=${failed} />`}
        <p class="soft">Leave the clip empty to see another version of this one.${found?.older ? ` ${count(found.older, "older version")} not listed: with_v=NUMBER in the address takes one.` : ""}</p>
      </form>
    </details>
  `;
}

/** `version 7: 30 Nov 2026, 10:29, 6 clips`, in the reader's time. */
export function versionWords({ version, at, rows }) {
  const when = new Date(at).toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
  return `version ${version}: ${when}, ${count(rows, "clip")}`;
}
