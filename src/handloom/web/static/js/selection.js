// The card of a grid that is selected: at once on the page, a moment later in the address; the keys that move it.
import { useEffect, useRef, useState } from "../vendor/handloom-vendor.js";
import { keptWith, keepWith, setParams } from "./router.js";

const SELECTED_MS = 300;
const SETTLED_MS = 250;

/**
 * The selected card, `{index, focus}` (-1: none), how to select another, how to write it into the address now, not a
 * moment later (browsers refuse many changes a second), and its index when it is asked for: keys come faster than the
 * page is drawn, and one after an arrow means the new card. hits: what has `total` and `memory`.
 */
export function useSelected(params, hits, control) {
  const read = params.get("at");
  const asked = read === null ? -1 : Number(read);
  const [selected, setSelected] = useState({ index: asked, focus: false });
  const timer = useRef(null);
  const written = useRef(asked);
  const latest = useRef(asked);
  const write = () => {
    clearTimeout(timer.current);
    timer.current = null;
    if (written.current === latest.current) return;
    written.current = latest.current;
    setParams({ at: latest.current < 0 ? null : latest.current }, { replace: true });
  };
  useEffect(() => {
    if (asked === written.current) return;
    clearTimeout(timer.current);
    timer.current = null;
    written.current = asked;
    latest.current = asked;
    setSelected({ index: asked, focus: false });
    if (asked >= 0) control.current?.show(asked);
  }, [asked]);
  if (!("wanted" in hits.memory)) {
    hits.memory.wanted = asked >= 0 ? asked : null;
    hits.memory.start = keptWith()?.start ?? null;
  }
  const settling = useRef(null);
  hits.memory.settled = (start) => {
    clearTimeout(settling.current);
    settling.current = setTimeout(() => keepWith({ start }), SETTLED_MS);
  };
  useEffect(() => () => clearTimeout(settling.current), [hits]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const select = (index, { focus = false } = {}) => {
    if (index === latest.current && !focus) return;
    latest.current = index;
    setSelected({ index, focus });
    clearTimeout(timer.current);
    timer.current = setTimeout(write, SELECTED_MS);
  };
  return [selected, select, () => timer.current && write(), () => latest.current];
}

/** Keys that go through all cards. ready: whether `hits` are those that are shown; what: a word for one of them. */
export function moveKeys({ hits, ready = true, control, current, select }, what) {
  const to = (index) => {
    if (!ready || !hits.total || !control.current) return false;
    const next = Math.min(Math.max(index, 0), hits.total - 1);
    select(next, { focus: true });
    control.current.show(next);
    return undefined;
  };
  const step = (far) => () => to(current() < 0 ? control.current?.first() ?? 0 : current() + far());
  const columns = () => control.current?.columns() ?? 1;
  return [
    { keys: ["ArrowRight"], about: `next ${what}`, run: step(() => 1) },
    { keys: ["ArrowLeft"], about: `${what} before`, run: step(() => -1) },
    { keys: ["ArrowDown"], about: "one row down", run: step(columns) },
    { keys: ["ArrowUp"], about: "one row up", run: step(() => -columns()) },
    { keys: ["PageDown"], about: "one page down", run: step(() => control.current?.page() ?? 1) },
    { keys: ["PageUp"], about: "one page up", run: step(() => -(control.current?.page() ?? 1)) },
    { keys: ["Home"], about: `first ${what}`, run: () => to(0) },
    { keys: ["End"], about: `last ${what}`, run: () => to(hits.total - 1) },
  ];
}
