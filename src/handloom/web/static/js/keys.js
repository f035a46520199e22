// One table of keys for the whole site: pages add theirs while they are shown; `?` shows all that hold now.
import { signal, useEffect, useRef } from "../vendor/handloom-vendor.js";

/** Tables that hold now, the oldest first: `{title, modal, live()}`; `live()` gives the keys. */
export const tables = signal([]);

/**
 * Add keys while the component is shown.
 *
 * `keys`: a list of `{keys: ["j", "ArrowDown"], about: "next clip", run(event), typing: false}`. A name is
 * `KeyboardEvent.key`, with `Ctrl+`, `Alt+` or `Shift+` before it where needed (Ctrl is also the Mac's command key).
 * `typing: true` holds in text fields too. `run` may return false: the key is then left to others and the browser.
 * `modal`: no older table holds while this one is shown (a dialog).
 */
export function useKeys(title, keys, { modal = false } = {}) {
  const latest = useRef(keys);
  latest.current = keys;
  const names = JSON.stringify(keys.map((key) => [key.keys, key.about]));
  useEffect(() => {
    const table = { title, modal, live: () => latest.current };
    tables.value = [...tables.value, table];
    return () => {
      tables.value = tables.value.filter((one) => one !== table);
    };
  }, [title, names]);
}

/** The name of a pressed key as tables write it. Shift counts only with keys of several letters ("Shift+ArrowLeft"). */
export function nameOf(event) {
  const long = event.key.length > 1;
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  if (event.shiftKey && long) parts.push("Shift");
  parts.push(event.key);
  return parts.join("+");
}

/** Whether keys go into a field where the person types. */
export const isTyping = (target) =>
  target instanceof Element &&
  (target.closest("textarea, select, [contenteditable]") !== null ||
    (target.tagName === "INPUT" && !["checkbox", "radio", "button", "range"].includes(target.type)));

/** Keys that a focused control needs for itself: Enter and space of buttons and links, arrows of sliders and choices. */
const OWN = [
  ["button, a[href], summary, [role=button]", ["Enter", " "]],
  ["input[type=range], input[type=radio], [role=slider]", ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]],
  ["input[type=checkbox]", [" "]],
];

const belongs = (target, name) => target instanceof Element && OWN.some(([what, keys]) => target.matches(what) && keys.includes(name));

/** Run the youngest table's key that fits; the event is used up then. */
export function press(event) {
  if (event.defaultPrevented || event.isComposing) return;
  const name = nameOf(event);
  const typing = isTyping(event.target);
  if (belongs(event.target, name) && !event.target.closest("[data-keys=page]")) return;
  for (const table of [...tables.value].reverse()) {
    for (const key of table.live()) {
      if (!key.keys.includes(name) || (typing && !key.typing)) continue;
      if (key.run(event) === false) continue;
      event.preventDefault();
      return;
    }
    if (table.modal) return;
  }
}

/** Once, at the start. */
export const startKeys = () => window.addEventListener("keydown", press);

const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Escape: "Esc" };

/** A key's name for the reader. */
export const keyLabel = (name) =>
  name.length > 1 && name.includes("+")
    ? name.split("+").map((part) => SIGNS[part] ?? part).join(" ")
    : SIGNS[name] ?? name;
