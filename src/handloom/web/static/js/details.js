// What is known of a clip beside its images: quality, source, stages, downloads, the Python line, similar clips.
import { html, useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { about, get, media } from "./api.js";
import { changed, clipHref, place, withQuery } from "./router.js";
import { duration, Empty, Failure, Loading, nameOf, short } from "./states.js";

const percent = (share) => `${Math.round(100 * share)} %`;

/** A table that scrolls inside where it is too wide; then keys scroll it, too. */
export function Wide({ children }) {
  const box = useRef(null);
  useEffect(() => {
    const watch = new ResizeObserver(() => {
      if (box.current.scrollWidth > box.current.clientWidth) box.current.tabIndex = 0;
      else box.current.removeAttribute("tabindex");
    });
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  return html`<div class="clip-table" ref=${box}>${children}</div>`;
}

/** Where a clip's number lies among those of the others. place, equal: shares that are lower, and the same. */
function placeOf({ place, equal }) {
  if (place == null) return "–";
  if (equal === 1) return html`<span class="soft">the same in all</span>`;
  const words = `${percent(place)}${equal >= 0.005 ? `, ${percent(equal)} equal` : ""}`;
  return html`<span class="clip-place"><i style=${{ width: `${100 * place}%` }}></i></span> <span class="num">${words}</span>`;
}

/** The numbers of quality with their place among all clips. */
export function Quality({ facts }) {
  const known = (facts.quality ?? []).filter(({ value }) => value != null);
  const unknown = (facts.quality ?? []).filter(({ value }) => value == null);
  return html`
    <section class="panel clip-panel">
      <h2>Quality</h2>
      ${known.length
        ? html`<${Wide}><table class="clip-quality">
            <thead><tr><th>Number</th><th>Value</th><th>Higher than … of the others</th></tr></thead>
            <tbody>
              ${known.map(
                (one) => html`<tr key=${one.name}>
                  <th scope="row" title=${[one.name, one.about].filter(Boolean).join(": ")}>${nameOf(one).words}</th>
                  <td class="num">${short(one.value)} ${nameOf(one).unit}</td>
                  <td>${placeOf(one)}</td>
                </tr>`,
              )}
            </tbody>
          </table><//>`
        : html`<p class="soft">No number of quality is known: the stage <code>quality</code> has not run on this clip.</p>`}
      ${known.length > 0 && unknown.length > 0 && html`<p class="soft">Not known: ${unknown.map((one) => nameOf(one).words).join(", ")}.</p>`}
    </section>
  `;
}

/** Where the clip came from: source, licence, camera. */
export function Source({ clip }) {
  const { facts, facts: { facts: listed, camera } } = clip;
  const focal = camera?.focal_sigma != null ? `, focal length ± ${percent(camera.focal_sigma)}` : "";
  const rows = [
    ["Dataset", listed?.dataset],
    ["Video", listed?.video_id],
    ["File", listed?.video_uri],
    ["Time in the video", listed?.start_s != null ? `${listed.start_s.toFixed(2)} to ${listed.end_s?.toFixed(2) ?? "?"} s` : null],
    ["Frames", `${clip.length}${facts.fps ? `; video ${short(facts.fps)} frames/s` : ""}`],
    ["Image", facts.source ? `${facts.source.join(" × ")} pixels${facts.codec ? `, ${facts.codec}` : ""}` : null],
    ["Action", [listed?.verb, listed?.noun].filter(Boolean).join(" ")],
    ...Object.entries(facts.captions ?? {}).map(([name, text]) => [name.replaceAll("_", " "), text]),
    ["Participant", listed?.participant],
    ["Split", listed?.split],
    ["View", listed?.view],
    ["Notes on the video", [facts.video_notes].flat().filter(Boolean).join("; ")],
    ["Licence", facts.licence ?? listed?.licence ?? "not known: ask whoever recorded it"],
    ["Camera", camera?.source ? `${camera.source}${camera.preset ? ` (${camera.preset})` : ""}${focal}` : null],
    ["Camera path", [camera?.path_source, camera?.path_reason && camera.path_reason.replaceAll("_", " ")].filter(Boolean).join(": ")],
    ["Scale of the world", camera?.scale === "metric" ? "metres" : camera?.scale === "arbitrary" ? "unknown" : camera?.scale ?? null],
  ];
  return html`<section class="panel clip-panel"><h2>Source</h2>${facts_(rows)}</section>`;
}

/** Names with values, those that are known. rows: [[name, value]]. */
export const Facts = ({ rows }) => facts_(rows);

function facts_(rows) {
  return html`<dl class="clip-facts">
    ${rows.filter(([, value]) => value).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/** How the row was made: the stages with their keys, the run and its settings. */
export function Made({ facts }) {
  const { stages, run } = facts;
  return html`
    <section class="panel clip-panel">
      <h2>How it was made</h2>
      ${facts_([["Run key", run?.run_key], ["When", run?.at && new Date(run.at).toLocaleString()], ["Machine", facts.host]])}
      <details>
        <summary>${(stages ?? []).length} stages${(stages ?? []).some(({ current }) => current === false) ? ", some outdated" : ""}</summary>
        <${Wide}><table class="clip-stages">
          <thead><tr><th>Stage</th><th>Key</th><th>State</th></tr></thead>
          <tbody>
            ${(stages ?? []).map(
              ({ name, key, current, state }) => html`<tr key=${name}>
                <th scope="row">${name}</th><td class="mono">${key ?? "–"}</td>
                <td>${state ?? (key == null ? "missing" : current === false ? "outdated" : current == null ? "not known" : "current")}</td>
              </tr>`,
            )}
          </tbody>
        </table><//>
      </details>
      ${run?.settings && html`<details><summary>Settings</summary><pre class="clip-code">${JSON.stringify(run.settings, null, 2)}</pre></details>`}
    </section>
  `;
}

/** The Python line that loads exactly this clip, and its files. */
export function Take({ facts }) {
  const params = { id: facts.clip_id, v: facts.version };
  const files = [
    ["row", "Row (.parquet)"],
    ["overlay", "Overlay video (.mp4)"],
    ...(about.value?.recordings ? [["rrd", "Rerun recording (.rrd)"]] : []), // else its package is not installed beside the server
  ];
  return html`<${TakeAlong} python=${facts.python} files=${files.map(([kind, title]) => [withQuery(`/download/${kind}`, params), title])} />`;
}

/** A text of Python to copy, and files to take along: [[address, title]]. */
export function TakeAlong({ python, files }) {
  const [said, setSaid] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(python);
      setSaid("Copied");
    } catch {
      setSaid("The browser does not allow it here: select the text and copy it");
    }
    setTimeout(() => setSaid(""), 4000);
  };
  return html`
    <section class="panel clip-panel">
      <h2>Take it along</h2>
      ${python && html`
        <pre class="clip-code" tabindex="0">${python}</pre>
        <button type="button" class="button" onClick=${copy}>Copy the Python line</button> <span role="status" class="soft">${said}</span>
      `}
      <p class="clip-files">${files.map(([address, title]) => html`<a key=${title} class="button" href=${address} download>${title}</a> `)}</p>
    </section>
  `;
}

const WAYS = [["motion", "Motion"], ["look", "Look"], ["both", "Both"]];

/** Clips like this one; each can be put beside it. */
export function Similar({ id, version, by, setBy }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [again, setAgain] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    setFound(null);
    setError(null);
    get("/api/search", { clip: id, by, limit: 13, v: version }, { signal: abort.signal }).then(
      ({ hits }) => setFound(hits.filter((hit) => hit.clip_id !== id).slice(0, 12)),
      (failed) => failed.name !== "AbortError" && setError(failed),
    );
    return () => abort.abort();
  }, [id, by, version, again]);
  return html`
    <section class="panel clip-panel clip-similar">
      <h2>Similar clips</h2>
      <div class="switch" role="group" aria-label="Similar by">
        ${WAYS.map(([way, title]) => html`<button type="button" key=${way} class="button" aria-pressed=${by === way} onClick=${() => setBy(way)}>${title}</button>`)}
      </div>
      ${error
        ? html`<${Failure} error=${error} retry=${() => setAgain((n) => n + 1)} />`
        : !found
          ? html`<${Loading} what="Searching" />`
          : !found.length
            ? html`<${Empty} title="No other clip was found" hint="The database has one clip, or its stage of this embedding has not run." />`
            : html`<ul class="clip-hits">
                ${found.map(
                  (hit) => html`<li key=${hit.clip_id}>
                    <a href=${clipHref(hit.clip_id)} title=${hit.clip_id}>
                      <img src=${media("thumb", hit.clip_id, { h: 120 })} alt="" loading="lazy" />
                      <span class="clip-hit-name">${hit.narration || hit.clip_id}</span>
                    </a>
                    <span class="soft num">${duration(hit.duration_s)}${hit.score != null ? ` · ${hit.score.toFixed(3)}` : ""}</span>
                    <a class="clip-beside" href=${`${clipHref(id)}?${changed(place.value.params, { with: hit.clip_id, with_v: null })}`}>Compare</a>
                  </li>`,
                )}
              </ul>`}
    </section>
  `;
}
