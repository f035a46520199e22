// Two clips, or two versions of one, side by side on one clock.
import { html, useEffect, useState } from "../vendor/handloom-vendor.js";
import { Judge } from "./judge.js";
import { clipHref, setParams } from "./router.js";
import { nameOf, short } from "./states.js";
import { Transport } from "./player.js";
import { Watch } from "./watch.js";

/** The page of two clips. pair: two of `useClip`; places: [{id, version}] of them. */
export function Compare({ pair, places, clock, layers, there, setLayer, view, setView, source, setSource }) {
  const clips = pair.map(({ clip }) => clip);
  return html`
    <${Transport} clock=${clock} layers=${layers} there=${there} setLayer=${setLayer}>
      <button type="button" class="button" onClick=${() => setParams({ with: null, with_v: null })}>Close the comparison</button>
    <//>
    <div class="clip-pair">
      ${pair.map((loaded, n) => html`
        <section class="clip-side" key=${n} aria-label=${`Clip ${"AB"[n]}`}>
          <h2><span class="clip-letter">${"AB"[n]}</span> <a href=${clipHref(places[n].id, { v: places[n].version })}>${places[n].id}</a>
            ${places[n].version != null && html` <span class="chip">version ${places[n].version}</span>`}</h2>
          ${clips[n]?.facts.facts?.narration && html`<p class="soft">${clips[n].facts.facts.narration}</p>`}
          <${Watch} loaded=${loaded} clock=${clock} layers=${layers} view=${view} setView=${setView} source=${n ? null : source} setSource=${setSource} title=${`Clip ${"AB"[n]}`} shape=${shapeOf(clips[1 - n])} />
          ${clips[n] && html`<div class="panel clip-panel clip-judge"><${Judge} id=${places[n].id} version=${clips[n].facts.version} keys=${false} /></div>`}
        </section>
      `)}
    </div>
    ${clips[0] && clips[1] && html`<${Differences} clips=${clips} />`}
  `;
}

const shapeOf = (clip) => (clip ? clip.width / clip.height : undefined);

/** The numbers of quality of both, and by how much they differ. */
function Differences({ clips }) {
  const rows = differences(clips[0].facts.quality, clips[1].facts.quality);
  return html`
    <section class="panel clip-panel">
      <h2>Quality of both</h2>
      <table class="clip-quality">
        <thead><tr><th>Number</th><th>A</th><th>B</th><th>B − A</th></tr></thead>
        <tbody>
          ${rows.map(({ name, title: { words, unit }, a, b }) => html`<tr key=${name}>
            <th scope="row" title=${name}>${words}${unit ? ` (${unit})` : ""}</th>
            <td class="num">${short(a)}</td><td class="num">${short(b)}</td><td class="num">${a == null || b == null ? "–" : `${b > a ? "+" : ""}${short(b - a)}`}</td>
          </tr>`)}
        </tbody>
      </table>
      ${!rows.length && html`<p class="soft">No number of quality is known of either clip.</p>`}
    </section>
  `;
}

/** [{name, title, a, b}] of the numbers that at least one of two lists knows, in the order of the first. */
export function differences(first, second) {
  const of = (list, name) => (list ?? []).find((one) => one.name === name);
  const names = [...new Set([...(first ?? []), ...(second ?? [])].map(({ name }) => name))];
  return names
    .map((name) => ({ name, title: nameOf(of(first, name) ?? of(second, name)), a: of(first, name)?.value ?? null, b: of(second, name)?.value ?? null }))
    .filter(({ a, b }) => a != null || b != null);
}

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
