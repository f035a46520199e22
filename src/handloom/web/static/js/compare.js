// Two clips, or two versions of one, side by side on one clock.
import { html, useEffect, useState } from "../vendor/handloom-vendor.js";
import { Differences } from "./differences.js";
import { Judge } from "./judge.js";
import { clipHref, setParams } from "./router.js";
import { Transport } from "./player.js";
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

/** A field to put another clip, or another version of this one, beside this clip. */
export function CompareWith({ id }) {
  const [other, setOther] = useState("");
  const [version, setVersion] = useState("");
  useEffect(() => setOther(""), [id]);
  const open = (event) => {
    event.preventDefault();
    if (other.trim() || version) setParams({ with: other.trim() || id, with_v: version || null });
  };
  return html`
    <details class="clip-with">
      <summary class="button">Compare …</summary>
      <form onSubmit=${open}>
        <label>Clip <input type="text" value=${other} placeholder=${id} onInput=${(event) => setOther(event.target.value)} /></label>
        <label>Version <input type="number" min="1" value=${version} placeholder="newest" onInput=${(event) => setVersion(event.target.value)} /></label>
        <button type="submit" class="button main">Side by side</button>
        <p class="soft">Leave the clip empty to see another version of this one.</p>
      </form>
    </details>
  `;
}
