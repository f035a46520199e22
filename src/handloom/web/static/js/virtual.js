// A grid of any number of cards of equal height: only the rows in view exist. Also a million: a browser's longest page
// is shorter than that, so the scroll bar is then a scale and small steps move by their own pixels.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/handloom-vendor.js";

/** The longest scroll track in pixels; Firefox stops at 17,895,697, Chrome at 33,554,428. */
export const LONGEST_PX = 8_000_000;

/** How `total` cards lie in `width` pixels: columns at least `least` wide, pictures 16:9, `text` pixels below them. */
export function layout(width, total, { least, gap, text }) {
  const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
  const cardWidth = Math.max(1, Math.floor((width - gap * (columns - 1)) / columns));
  const rowHeight = Math.round((cardWidth * 9) / 16) + text;
  const step = rowHeight + gap;
  const rows = Math.ceil(total / columns);
  return { columns, cardWidth, rowHeight, step, rows, height: rows * step, track: Math.min(rows * step, LONGEST_PX) };
}

/** Rows `[first, last)` that a view of `view` pixels at `top` needs, with `over` more on each side. */
export function rowsInView(top, view, { step, rows }, over = 2) {
  const first = Math.max(0, Math.floor(top / step) - over);
  return [Math.min(first, rows), Math.min(rows, Math.ceil((top + view) / step) + over)];
}

/** After the scroll bar moved to `bar`: `{bar, top}`, `top` being the pixel of the whole grid at the view's upper edge. */
export function follow(last, bar, view, { height, track }) {
  if (height <= track) return { bar, top: bar };
  const farthest = height - view;
  const end = track - view;
  if (bar <= 0) return { bar, top: 0 };
  if (bar >= end - 1) return { bar, top: farthest };
  const moved = bar - last.bar;
  const top = Math.abs(moved) <= view ? last.top + moved : (bar / end) * farthest;
  return { bar, top: Math.min(Math.max(top, 0), farthest) };
}

/** Where the scroll bar stands when the grid's pixel `top` is at the upper edge. */
export function barAt(top, view, { height, track }) {
  if (height <= track) return top;
  return ((track - view) * top) / (height - view);
}

/** `top` such that the row is wholly in view, moved as little as possible; in the middle if it was far away. */
export function topFor(row, top, view, { step, rowHeight, height }) {
  const start = row * step;
  const farthest = Math.max(0, height - view);
  if (start >= top && start + rowHeight <= top + view) return top;
  const far = start + rowHeight < top - view || start > top + 2 * view;
  const wanted = far ? start - (view - rowHeight) / 2 : start < top ? start : start + rowHeight - view;
  return Math.min(Math.max(wanted, 0), farthest);
}

/**
 * The grid.
 *
 * `card(index, {first, last, top})` draws one, while `[first, last)` exist and `top` is the first wholly in view.
 * `see(first, last)` is told which are near. `control.current` gets `{show(index), page(), columns(), first()}`. `memory`
 * is an object that keeps where the reader was between visits; its `wanted` is a card to be in view at first, or its
 * `start` the one at the upper edge (with the part of its row above it), and `settled(start)` is told that.
 */
export function Grid({ total, sizes, card, see, control, memory, label }) {
  const box = useRef(null);
  const [size, setSize] = useState(null);
  const [at, setAt] = useState(memory.at ?? { bar: 0, top: 0 });
  const where = useRef(at);
  const geometry = size && layout(size.width, total, sizes);

  useLayoutEffect(() => {
    const measure = () => {
      const style = getComputedStyle(box.current);
      const width = box.current.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      const height = box.current.clientHeight;
      setSize((old) => (old?.width === width && old?.height === height ? old : { width, height }));
    };
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    measure();
    return () => observer.disconnect();
  }, []);

  const move = (next) => {
    where.current = next;
    memory.at = next;
    setAt(next);
  };
  const showTop = (top) => {
    const bar = barAt(top, size.height, geometry);
    box.current.scrollTop = bar;
    move({ bar: box.current.scrollTop, top });
  };
  useLayoutEffect(() => {
    // A new result, or a new width: what was at the upper edge stays there, as far as there is such a row.
    if (!geometry) return;
    const kept = memory.at ?? { top: 0 };
    const index = memory.first ?? 0;
    const changed = memory.columns && memory.columns !== geometry.columns;
    let top = changed ? Math.floor(index / geometry.columns) * geometry.step : kept.top;
    if (typeof memory.start === "number") top = (Math.min(memory.start, total - 1) / geometry.columns) * geometry.step;
    else if (typeof memory.wanted === "number") top = topFor(Math.floor(Math.min(memory.wanted, total - 1) / geometry.columns), top, size.height, geometry);
    memory.wanted = memory.start = null;
    memory.columns = geometry.columns;
    showTop(Math.min(top, Math.max(0, geometry.height - size.height)));
  }, [memory, size?.width, size?.height, total, sizes.text]);

  const [first, last] = geometry ? rowsInView(at.top, size.height, geometry) : [0, 0];
  useEffect(() => {
    if (!geometry) return;
    memory.first = Math.floor(at.top / geometry.step) * geometry.columns;
    memory.settled?.(Math.round((100 * at.top * geometry.columns) / geometry.step) / 100);
    see(first * geometry.columns, Math.min(total, last * geometry.columns));
  });

  control.current = geometry && {
    columns: () => geometry.columns,
    page: () => Math.max(1, Math.floor(size.height / geometry.step)) * geometry.columns,
    first: () => Math.min(total - 1, Math.ceil(where.current.top / geometry.step) * geometry.columns),
    show: (index) => {
      const top = topFor(Math.floor(index / geometry.columns), where.current.top, size.height, geometry);
      if (top !== where.current.top) showTop(top);
    },
  };

  const rows = [];
  const top = geometry ? Math.ceil(at.top / geometry.step) * geometry.columns : 0;
  for (let row = first; row < last; row += 1) {
    const y = row * geometry.step + (at.bar - at.top);
    const cards = [];
    for (let index = row * geometry.columns; index < Math.min(total, (row + 1) * geometry.columns); index += 1) {
      cards.push(card(index, { first: first * geometry.columns, last: last * geometry.columns, top }));
    }
    const style = { transform: `translateY(${y}px)`, height: `${geometry.rowHeight}px`, gridTemplateColumns: `repeat(${geometry.columns}, ${geometry.cardWidth}px)`, gap: `${sizes.gap}px` };
    rows.push(html`<div key=${row} class="grid-row" role="presentation" style=${style}>${cards}</div>`);
  }
  const scrolled = () => size && box.current && move(follow(where.current, box.current.scrollTop, size.height, geometry));
  return html`
    <div class="grid" ref=${box} onScroll=${scrolled} tabindex="-1">
      <div class="grid-track" role="list" aria-label=${label} style=${{ height: `${geometry?.track ?? 0}px` }}>${rows}</div>
    </div>
  `;
}
