// The parts of a long page, and going to them.
import { html } from "../vendor/handloom-vendor.js";

const MOVES = ["wheel", "touchstart", "pointerdown", "keydown"];
const SETTLE_MS = 5000;

/** Go to a part, and stay there while what stands above it still comes, until the reader moves. */
export function jump(name) {
  const part = document.getElementById(`part-${name}`);
  if (!part) return;
  const to = () => part.scrollIntoView({ block: "start" });
  const watch = new ResizeObserver(to);
  const stop = () => {
    watch.disconnect();
    for (const kind of MOVES) window.removeEventListener(kind, stop, true);
  };
  to();
  part.focus({ preventScroll: true });
  for (const other of part.parentElement.children) watch.observe(other);
  setTimeout(() => MOVES.forEach((kind) => window.addEventListener(kind, stop, true))); // not the press that led here
  setTimeout(stop, SETTLE_MS);
}

export const Part = ({ name, title, about: words, children }) => html`
  <section class="dataset-part" id=${`part-${name}`} tabindex="-1" aria-label=${title}>
    <h2>${title}</h2>
    ${words && html`<p class="soft">${words}</p>`}
    ${children}
  </section>
`;
