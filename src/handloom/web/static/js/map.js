// The map: clips as points in the plane in which an embedding differs most; a lasso chooses some.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/handloom-vendor.js";
import { about, get } from "./api.js";
import { Thumb } from "./card.js";
import { ChosenBar } from "./choosing.js";
import { judged } from "./judge.js";
import { useKeys } from "./keys.js";
import { jump } from "./parts.js";
import { draw, halves, nearest, scaleOf, SHAPES, toPlane } from "./plane.js";
import { clipHref, go, setParams, withQuery } from "./router.js";
import { count, Failure, Loading } from "./states.js";

const POINTS = 5000;
const COLOUR_NAMES = { hand: "hands seen", scale: "scale of the camera path" };
const MOST_CORNERS = 48;
const MOST_SHOWN = 60;
const MOST_ZOOM = 200;
// Okabe and Ito's eight, then four more; values beyond them are grey.
const COLOURS = ["#56b4e9", "#ff9f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#9b7ede", "#7fd1ae", "#e377c2", "#bcbd22", "#8c8c8c"];

export function Map({ params, version }) {
  const known = about.value?.embeddings ?? [];
  const by = known.includes(params.get("by")) ? params.get("by") : known[0];
  const [found, setFound] = useState(null);
  const [failed, setFailed] = useState(null);
  const [near, box] = useNear(params.has("lasso"));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!near || !by) return undefined;
    const abort = new AbortController();
    get("/api/map", { by, n: POINTS }, { signal: abort.signal }).then(
      (told) => {
        setFound(told);
        setFailed(null);
      },
      (error) => error.name !== "AbortError" && setFailed(error),
    );
    return () => abort.abort();
  }, [near, by, version, turn]);
  if (!by) return html`<p class="soft">No embedding is in the table yet: the stages <code>motion</code> and <code>look</code> make them.</p>`;
  const colour = params.get("colour") ?? "";
  const names = Object.entries(found?.codes ?? {}).filter(([, one]) => one.values.length > 0).map(([name]) => name);
  const shown = colour === "flag" || names.includes(colour) ? colour : names.find((name) => found.codes[name].values.length > 1) ?? names[0] ?? "";
  return html`
    <div ref=${box}>
      <div class="line">
        <label>Embedding
          <select value=${by} onChange=${(event) => setParams({ by: event.target.value, lasso: null })}>${known.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
        </label>
        <label>Colour
          <select value=${shown} onChange=${(event) => setParams({ colour: event.target.value })}>
            ${names.map((name) => html`<option key=${name} value=${name}>${COLOUR_NAMES[name] ?? name}</option>`)}
            <option value="flag">judged</option>
          </select>
        </label>
      </div>
      ${failed && html`<${Failure} error=${failed} retry=${() => setTurn(turn + 1)} />`}
      ${!found && !failed && html`<${Loading} what="Projecting" />`}
      ${found && (found.ids.length ? html`<${Plane} key=${`${found.by}/${found.version}`} found=${found} colour=${shown} params=${params} />` : html`<p class="soft">No clip has the embedding ${by}.</p>`)}
    </div>
  `;
}

/** Whether a part of the page is, or was, about to be seen. at: the address is about it, so the page begins there. */
function useNear(at) {
  const box = useRef(null);
  const [near, setNear] = useState(at);
  useEffect(() => {
    if (at) jump("map");
    const watch = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && setNear(true), { rootMargin: "400px" });
    if (box.current) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  return [near, box];
}

/** `x,y;x,y;...` of the address as corners; none where it is no polygon. */
export function readLasso(text) {
  const corners = (text ?? "").split(";").map((pair) => pair.split(",").map(Number));
  return corners.length > 2 && corners.every((one) => one.length === 2 && one.every(Number.isFinite)) ? corners : [];
}

/** At most `MOST_CORNERS` corners, evenly along the line, as the address holds them. */
export function writeLasso(corners) {
  const step = Math.max(1, corners.length / MOST_CORNERS);
  const kept = [];
  for (let at = 0; at < corners.length; at += step) kept.push(corners[Math.floor(at)]);
  return kept.map((one) => one.map((value) => Number(value.toFixed(3))).join(",")).join(";");
}

/** Whether a point lies within a polygon, by the crossings of a ray (even-odd rule). */
export function isInside([x, y], corners) {
  let inside = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i, i += 1) {
    const [xi, yi] = corners[i];
    const [xj, yj] = corners[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

function Plane({ found, colour, params }) {
  const canvas = useRef(null);
  const view = useRef({ x: 0, y: 0, zoom: 1 });
  const drawing = useRef(null);
  const [moving, setMoving] = useState(false);
  const [over, setOver] = useState(null);
  const text = params.get("lasso");
  const lasso = useMemo(() => readLasso(text), [text]);
  const chosen = useMemo(() => (lasso.length ? found.xy.flatMap((xy, index) => (isInside(xy, lasso) ? [index] : [])) : []), [found, lasso]);
  const verdicts = judged.value;
  const colours = useMemo(() => coloursOf(found, colour, verdicts), [found, colour, verdicts]);
  const state = { found, lasso, chosen: new Set(chosen), colours, over, drawing, view: view.current };
  const latest = useRef(state);
  latest.current = state;
  const redraw = () => draw(canvas.current, latest.current);
  useEffect(redraw);
  useEffect(() => {
    const watch = new ResizeObserver(redraw);
    watch.observe(canvas.current);
    window.addEventListener("themechange", redraw);
    return () => {
      watch.disconnect();
      window.removeEventListener("themechange", redraw);
    };
  }, []);
  const zoom = (factor, at = null) => {
    const { view: now } = latest.current;
    const old = now.zoom;
    now.zoom = Math.min(MOST_ZOOM, Math.max(1, old * factor));
    const point = at ?? [now.x, now.y];
    now.x = point[0] + (now.x - point[0]) * (old / now.zoom);
    now.y = point[1] + (now.y - point[1]) * (old / now.zoom);
    if (now.zoom === 1) Object.assign(now, { x: 0, y: 0 });
    redraw();
  };
  useEffect(() => {
    const wheel = (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // without a key the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 200), toPlane(canvas.current, latest.current.view, event));
    };
    const element = canvas.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
  const shift = (x, y) => () => {
    if (document.activeElement !== canvas.current) return false;
    view.current.x += x / view.current.zoom;
    view.current.y += y / view.current.zoom;
    redraw();
    return undefined;
  };
  const step = (by) => () => {
    if (document.activeElement !== canvas.current) return false;
    const order = chosen.length ? chosen : found.ids.map((_, index) => index);
    const at = order.indexOf(over);
    setOver(order[(at + by + order.length) % order.length]);
    return undefined;
  };
  useKeys("Map, when it has the focus", [
    { keys: ["ArrowLeft"], about: "look left", run: shift(-0.2, 0) },
    { keys: ["ArrowRight"], about: "look right", run: shift(0.2, 0) },
    { keys: ["ArrowUp"], about: "look up", run: shift(0, 0.2) },
    { keys: ["ArrowDown"], about: "look down", run: shift(0, -0.2) },
    { keys: ["+", "="], about: "nearer", run: () => (document.activeElement === canvas.current ? zoom(1.5) : false) },
    { keys: ["-"], about: "farther", run: () => (document.activeElement === canvas.current ? zoom(1 / 1.5) : false) },
    { keys: ["."], about: "next point", run: step(1) },
    { keys: [","], about: "point before", run: step(-1) },
    { keys: ["a"], about: "choose all that is in view", run: () => (document.activeElement === canvas.current ? chooseView() : false) },
    { keys: ["Enter"], about: "open the point's clip", run: () => (document.activeElement === canvas.current && over !== null ? go(clipHref(found.ids[over])) : false) },
    { keys: ["Escape"], about: "choose nothing", run: () => (text ? setParams({ lasso: null }) : false) },
  ]);
  const chooseView = () => {
    const { x, y, zoom: near } = view.current;
    const [a, b] = halves(canvas.current).map((half) => half / near);
    setParams({ lasso: writeLasso([[x - a, y - b], [x + a, y - b], [x + a, y + b], [x - a, y + b]]) });
  };
  const down = (event) => {
    if (event.button !== 0) return;
    canvas.current.setPointerCapture(event.pointerId);
    const at = toPlane(canvas.current, view.current, event);
    drawing.current = { corners: [at], pan: moving || event.shiftKey ? { at, ...view.current } : null, far: 0, from: [event.clientX, event.clientY] };
  };
  const move = (event) => {
    const now = drawing.current;
    if (!now) {
      const index = nearest(canvas.current, latest.current, event);
      if (index !== over) setOver(index);
      return;
    }
    now.far = Math.max(now.far, Math.hypot(event.clientX - now.from[0], event.clientY - now.from[1]));
    if (now.pan) {
      const scale = scaleOf(canvas.current, view.current);
      view.current.x = now.pan.x - (event.clientX - now.from[0]) / scale;
      view.current.y = now.pan.y + (event.clientY - now.from[1]) / scale;
    } else {
      now.corners.push(toPlane(canvas.current, view.current, event));
    }
    redraw();
  };
  const up = (event) => {
    const now = drawing.current;
    drawing.current = null;
    if (!now) return;
    if (now.far < 4) {
      const index = nearest(canvas.current, latest.current, event);
      if (index !== null) go(clipHref(found.ids[index]));
      else if (text) setParams({ lasso: null });
      redraw();
      return;
    }
    if (now.pan || now.corners.length < 3) redraw();
    else setParams({ lasso: writeLasso(now.corners) });
  };
  const cancel = () => {
    drawing.current = null;
    redraw();
  };
  const explained = found.explained === null ? " They are fewer than three, or do not differ: all stand at one point." : ` They show ${Math.round(100 * found.explained)} % of how the clips differ, so clips that are near here may be unlike in other ways.`;
  return html`
    <p class="soft">
      ${found.ids.length < found.total - found.without ? `${count(found.ids.length, "clip")} of ${found.total.toLocaleString("en")}, drawn at random,` : count(found.ids.length, "clip")} along the two main directions of ${found.by} (principal components).${explained}${" "}
      Draw around clips to choose them. A click opens one.
    </p>
    <div class="map-box">
      <canvas ref=${canvas} class=${moving ? "map moving" : "map"} tabindex="0" role="application" data-keys="page"
        aria-label=${`Map of ${count(found.ids.length, "clip")} by ${found.by}. Arrows move, plus and minus zoom, full stop goes to the next point, a chooses what is in view.`}
        onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${cancel} onPointerLeave=${() => !drawing.current && setOver(null)}></canvas>
      <div class="map-tools">
        <button type="button" class="button small" aria-pressed=${moving} title="Drag to move instead of choosing (or hold Shift)" onClick=${() => setMoving(!moving)}>Move</button>
        <button type="button" class="button small" aria-label="Nearer" title="Nearer (+, or Ctrl and the wheel)" onClick=${() => zoom(1.5)}>+</button>
        <button type="button" class="button small" aria-label="Farther" title="Farther (-)" onClick=${() => zoom(1 / 1.5)}>−</button>
        <button type="button" class="button small" onClick=${() => zoom(0)}>All</button>
      </div>
      ${over !== null && html`<${Over} found=${found} index=${over} colours=${colours} />`}
    </div>
    <${Legend} colours=${colours} />
    <${Chosen} found=${found} chosen=${chosen} lasso=${lasso} />
  `;
}

function Over({ found, index, colours }) {
  const id = found.ids[index];
  return html`
    <div class="map-over" role="status">
      <${Thumb} key=${id} hit=${{ clip_id: id }} height=${120} />
      <span>${found.narrations?.[index] || id}</span>
      ${colours.values.length > 0 && html`<span class="soft">${colours.values[colours.of[index]] ?? "other or unknown"}</span>`}
    </div>
  `;
}

const Legend = ({ colours }) => html`
  <p class="legend">
    ${colours.values.map((value, index) => html`<span key=${value}><${Sign} colour=${colours.colours[index]} shape=${index % SHAPES} /> ${value}</span>`)}
    ${colours.of.some((code) => code < 0) && html`<span><i class="dot"></i> ${colours.rest}</span>`}
  </p>
`;

/** A value's mark as the map draws it. */
const Sign = ({ colour, shape }) => html`
  <svg class="sign" viewBox="-6 -6 12 12" aria-hidden="true" fill=${colour}>
    ${shape === 0 ? html`<circle r="5" />` : shape === 1 ? html`<rect x="-4.5" y="-4.5" width="9" height="9" />` : html`<path d="M0 -5.6 L5.4 4.2 L-5.4 4.2 Z" />`}
  </svg>
`;

/** The chosen clips: what can be done with them, and pictures. */
function Chosen({ found, chosen, lasso }) {
  const inside = useMemo(() => new Set(chosen.map((index) => found.ids[index])), [chosen, found]);
  if (!lasso.length) return html`<p class="soft">Nothing is chosen.</p>`;
  const ids = [...inside];
  const clear = () => setParams({ lasso: null });
  if (!ids.length) return html`<p class="soft">No clip is within the line. <button type="button" class="button small" onClick=${clear}>Clear</button></p>`;
  return html`
    <${ChosenBar} key=${writeLasso(lasso)} keys=${false} chosen=${{ ids: inside, clear }} total=${ids.length}>
      <a class="button small" href=${withQuery("/", { lasso: `${found.by}:${writeLasso(lasso)}` })}>Search within them</a>
    <//>
    <ul class="plain small-cards tiny">
      ${ids.slice(0, MOST_SHOWN).map((id, place) => html`
        <li class="card" key=${id}><a class="card-link" href=${clipHref(id)} title=${id}><${Thumb} hit=${{ clip_id: id }} height=${96} /><span class="card-title">${found.narrations?.[chosen[place]] || id}</span></a></li>`)}
    </ul>
    ${ids.length > MOST_SHOWN && html`<p class="soft">and ${(ids.length - MOST_SHOWN).toLocaleString("en")} more.</p>`}
  `;
}

/** `{values, of, colours, rest}`: the place of each point in `values`, -1 for none of them. */
function coloursOf(found, colour, verdicts) {
  if (colour === "flag") {
    const values = ["good", "bad"];
    const of = found.ids.map((id, index) => {
      const flag = id in verdicts ? verdicts[id]?.verdict : found.flags?.[index];
      return values.indexOf(flag);
    });
    return { values, of, colours: ["#009e73", "#d55e00"], rest: "not judged" };
  }
  const { values, of } = found.codes[colour] ?? { values: [], of: found.ids.map(() => -1) };
  return { values, of, colours: values.map((_, index) => COLOURS[index % COLOURS.length]), rest: "other or unknown" };
}
