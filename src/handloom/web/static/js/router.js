// Addresses: one signal holds where the page is; links and steps change it. All state of a page is in its query string.
import { signal } from "../vendor/handloom-vendor.js";

const here = () => ({ path: window.location.pathname, params: new URLSearchParams(window.location.search) });

/** Where the page is: `{path, params}`. A component that reads `place.value` is drawn again when it changes. */
export const place = signal(here());

/** Go to an address of this site; `replace` keeps the browser's history as it is (typing, sliders, the selected hit). */
export function go(href, { replace = false } = {}) {
  const url = new URL(href, window.location.href);
  if (url.origin !== window.location.origin) return;
  const same = url.pathname === window.location.pathname && url.search === window.location.search;
  if (!same) window.history[replace ? "replaceState" : "pushState"](replace ? window.history.state : null, "", url.pathname + url.search);
  place.value = here();
}

/** What is kept with this step of the browser's history, not in the address: where the page was scrolled to. */
export const keptWith = () => window.history.state;

/** Keep this with the step. */
export function keepWith(state) {
  if (JSON.stringify(state) !== JSON.stringify(window.history.state)) window.history.replaceState(state, "");
}

/** Set parameters of this address: `{name: value | [values] | null}`; null, "" and [] take a parameter away. In a list
 * "" is a value of its own: clips where it is unknown. */
export function setParams(changes, options) {
  const params = changed(place.value.params, changes);
  const text = params.toString();
  go(place.value.path + (text ? `?${text}` : ""), options);
}

/** A copy of `params` with these changes. */
export function changed(params, changes) {
  const result = new URLSearchParams(params);
  for (const [name, value] of Object.entries(changes)) {
    result.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && (one !== "" || Array.isArray(value))) result.append(name, String(one));
    }
  }
  return result;
}

/** The page of a path: `{page, id}`; `id` is decoded and may hold `/` and `:`. */
export function route(path) {
  const match = /^\/(clip|episode)\/(.+)$/.exec(path);
  if (match) return { page: match[1], id: decode(match[2]) };
  const page = { "/": "search", "/dataset": "dataset", "/episodes": "episodes" }[path.replace(/(.)\/+$/, "$1")];
  return { page: page ?? "unknown", id: null };
}

/** Address of a clip's page. */
export const clipHref = (id, params = {}) => withQuery(`/clip/${encodeURIComponent(id)}`, params);

/** Address of an episode's page. */
export const episodeHref = (id, params = {}) => withQuery(`/episode/${encodeURIComponent(id)}`, params);

/** `path` with parameters, lists repeated, empty ones left out. */
export function withQuery(path, params) {
  const text = changed(new URLSearchParams(), params).toString();
  return text ? `${path}?${text}` : path;
}

/** Once, at the start: links of this site and the browser's own steps. */
export function startRouter() {
  window.addEventListener("popstate", () => {
    place.value = here();
  });
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.target || link.hasAttribute("download") || link.origin !== window.location.origin) return;
    if (route(link.pathname).page === "unknown") return;
    event.preventDefault();
    go(link.href);
  });
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
