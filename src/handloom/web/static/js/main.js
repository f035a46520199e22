// The shell of every page: header, pages loaded when they are needed, dark and light, help on `?`.
import { html, render, useEffect, useState } from "../vendor/handloom-vendor.js";
import { about, loadAbout, trouble } from "./api.js";
import { keyLabel, startKeys, tables, useKeys } from "./keys.js";
import { go, place, route, startRouter } from "./router.js";
import { count, Dialog, Empty, Failure, Loading, useScript } from "./states.js";

// Where a page lives. `Page` gets `{id, params}`: the id of `/clip/ID` and `/episode/ID`, and the query string.
const PAGES = {
  search: () => import("./search.js"),
  clip: () => import("./clip.js"),
  dataset: () => import("./dataset.js"),
  episodes: () => import("./episodes.js"),
  episode: () => import("./episode.js"),
};
const LINKS = [
  ["search", "/", "Search"],
  ["dataset", "/dataset", "Dataset"],
  ["episodes", "/episodes", "Episodes"],
  ["reports", "/episodes?show=reports", "Reports"],
];

function App() {
  const [help, setHelp] = useState(false);
  const [failed, setFailed] = useState(null);
  const load = () => {
    setFailed(null);
    loadAbout().catch(setFailed);
  };
  useEffect(load, []);
  useEffect(lookForNewVersions, []);
  useKeys("Everywhere", [
    { keys: ["?"], about: "these keys", run: () => setHelp(true) },
    { keys: ["g"], about: `then ${about.value?.episodes ? "s, d or e: search, dataset, episodes" : "s or d: search, dataset"}`, run: waitForPage },
    { keys: ["t"], about: "dark or light", run: switchTheme },
  ]);
  const { page, id } = route(place.value.path);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <${Header} page=${page} openHelp=${() => setHelp(true)} />
    <${Trouble} />
    <main id="main" tabindex="-1">
      ${failed
        ? html`<${Failure} error=${failed} retry=${load} />`
        : about.value
          ? html`<${Lazy} key=${page} page=${page} id=${id} params=${place.value.params} />`
          : html`<${Loading} what="Opening the database" />`}
    </main>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}
  `;
}

const LOOK_MS = 30_000;
const AGAIN_MS = 2_000;

/** While the server is away: that it is, and that it is asked again. What was typed stays on the page. */
function Trouble() {
  const error = trouble.value;
  useEffect(() => {
    if (!error) return undefined;
    const timer = setTimeout(() => loadAbout().catch(() => {}), AGAIN_MS); // another error begins anew
    return () => clearTimeout(timer);
  }, [error]);
  return error && html`<p class="trouble" role="alert"><b>${error.problem}</b>: ${error.hint}. It is asked again every few seconds.</p>`;
}

/** Ask for the newest version now and then, and when the reader comes back to the page. */
function lookForNewVersions() {
  const look = () => document.visibilityState === "visible" && about.value && loadAbout().catch(() => {});
  const timer = setInterval(look, LOOK_MS);
  window.addEventListener("focus", look);
  return () => {
    clearInterval(timer);
    window.removeEventListener("focus", look);
  };
}

function Header({ page, openHelp }) {
  const known = about.value;
  const links = LINKS.filter(([name]) => (name === "episodes" ? !known || known.episodes > 0 : name !== "reports" || known?.reports));
  const here = page === "episode" ? "episodes" : page === "episodes" && known?.reports && place.value.params.get("show") === "reports" ? "reports" : page;
  return html`
    <header class="top">
      <a class="brand" href="/">handloom</a>
      <nav aria-label="Pages">
        ${links.map(
          ([name, href, label]) =>
            html`<a key=${name} href=${href} aria-current=${name === here ? "page" : null}>${label}</a>`,
        )}
      </nav>
      <span class="top-facts">
        ${known && html`<span class="uri" title=${known.uri}>${known.uri}</span> <span>${count(known.num_clips, "clip")}${known.version === null ? "" : ` · version ${known.version}`}</span>`}
      </span>
      <button type="button" class="button quiet" onClick=${switchTheme} aria-label="Dark or light" title="Dark or light (t)">◐</button>
      <button type="button" class="button quiet" onClick=${openHelp} aria-label="Keys" title="Keys (?)">?</button>
    </header>
  `;
}

function Lazy({ page, id, params }) {
  const { script, failed } = useScript(() => PAGES[page]?.(), "this page");
  useEffect(() => {
    document.title = `${id ?? (PAGES[page] ? page : "no such page")} · handloom`;
  }, [page, id]);
  if (!PAGES[page]) return html`<${NoPage} />`;
  if (failed) return html`<${Failure} error=${failed} retry=${() => location.reload()} />`; // browsers keep that a script did not come
  return script ? html`<${script.Page} id=${id} params=${params} />` : html`<${Loading} />`;
}

/** A mistyped address: where else to go. */
const NoPage = () => html`
  <${Empty} title="There is no such page" hint=${`Nothing of this gallery has the address ${place.value.path}.`}>
    <a class="button" href="/">Search clips</a> <a class="button" href="/dataset">Dataset</a>${about.value.episodes > 0 && html` <a class="button" href="/episodes">Episodes</a>`}
  <//>
`;

function Help({ close }) {
  return html`
    <${Dialog} title="Keys" close=${close}>
      <div class="help">
        ${tables.value.filter((table) => !table.modal).map(
          (table) => html`
            <section key=${table.title}>
              <h3>${table.title}</h3>
              <dl>
                ${table.live().filter((key) => key.about).map(
                  (key) => html`
                    <div key=${key.about}>
                      <dt>${key.keys.map((name, index) => [index > 0 && " ", html`<kbd>${keyLabel(name)}</kbd>`])}</dt>
                      <dd>${key.about}</dd>
                    </div>
                  `,
                )}
              </dl>
            </section>
          `,
        )}
      </div>
    <//>
  `;
}

function waitForPage() {
  const places = { s: "/", d: "/dataset", e: "/episodes" };
  const second = (event) => {
    if (!places[event.key]) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    go(places[event.key]);
  };
  window.addEventListener("keydown", second, { capture: true, once: true });
  setTimeout(() => window.removeEventListener("keydown", second, { capture: true }), 1500);
}

const switchTheme = () => void window.dispatchEvent(new Event("themechoice")); // theme.js, which runs before this module

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

PAGES[route(place.value.path).page]?.().catch(() => {}); // beside the first request; who shows it tells what is wrong
startRouter();
startKeys();
render(html`<${App} />`, document.getElementById("app"));
