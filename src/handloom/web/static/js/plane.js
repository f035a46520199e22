// The map's canvas: between pixels and the plane, and drawing its points.

const NEAR_PX = 9;
const DOT_PX = 3;
export const SHAPES = 3;

export const halves = (canvas) => {
  const { clientWidth: width, clientHeight: height } = canvas;
  const side = Math.min(width, height) * 0.47;
  return [width / 2 / side, height / 2 / side];
};

export const scaleOf = (canvas, view) => Math.min(canvas.clientWidth, canvas.clientHeight) * 0.47 * view.zoom;

export function toPlane(canvas, view, event) {
  const box = canvas.getBoundingClientRect();
  const scale = scaleOf(canvas, view);
  return [view.x + (event.clientX - box.left - box.width / 2) / scale, view.y - (event.clientY - box.top - box.height / 2) / scale];
}

export function nearest(canvas, { found, view }, event) {
  const [x, y] = toPlane(canvas, view, event);
  let best = null;
  let least = (NEAR_PX / scaleOf(canvas, view)) ** 2;
  found.xy.forEach(([px, py], index) => {
    const far = (px - x) ** 2 + (py - y) ** 2;
    if (far <= least) [best, least] = [index, far];
  });
  return best;
}

export function draw(canvas, { found, lasso, chosen, colours, over, drawing, view }) {
  if (!canvas || !canvas.clientWidth) return;
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
  }
  const style = getComputedStyle(canvas);
  const pen = canvas.getContext("2d");
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.clearRect(0, 0, width, height);
  const scale = scaleOf(canvas, view);
  const toPx = ([x, y]) => [width / 2 + (x - view.x) * scale, height / 2 - (y - view.y) * scale];
  const radius = Math.min(7, DOT_PX * Math.max(1, Math.sqrt(800 / found.ids.length)));
  const grey = style.getPropertyValue("--bar");
  const text = style.getPropertyValue("--text");
  found.xy.forEach((xy, index) => {
    const [x, y] = toPx(xy);
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) return;
    const code = colours.of[index];
    pen.globalAlpha = chosen.size && !chosen.has(index) ? 0.25 : 0.85;
    pen.fillStyle = code < 0 ? grey : colours.colours[code];
    mark(pen, x, y, radius, code < 0 ? 0 : code % SHAPES);
  });
  pen.globalAlpha = 1;
  pen.strokeStyle = text;
  if (over !== null && over < found.xy.length) {
    const [x, y] = toPx(found.xy[over]);
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, radius + 3, 0, 2 * Math.PI);
    pen.stroke();
  }
  const line = drawing.current && !drawing.current.pan ? drawing.current.corners : lasso;
  if (line.length > 1) {
    pen.lineWidth = 1.5;
    pen.setLineDash([5, 4]);
    pen.beginPath();
    for (const corner of line) pen.lineTo(...toPx(corner));
    pen.closePath();
    pen.stroke();
    pen.setLineDash([]);
  }
}

/** A disc, a square or a triangle: neighbouring values differ by more than colour. */
function mark(pen, x, y, radius, shape) {
  pen.beginPath();
  if (shape === 0) pen.arc(x, y, radius, 0, 2 * Math.PI);
  else if (shape === 1) pen.rect(x - radius * 0.9, y - radius * 0.9, radius * 1.8, radius * 1.8);
  else {
    pen.moveTo(x, y - radius * 1.2);
    pen.lineTo(x + radius * 1.1, y + radius * 0.8);
    pen.lineTo(x - radius * 1.1, y + radius * 0.8);
  }
  pen.fill();
}
