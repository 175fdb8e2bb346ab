// Small charts as inline SVG, drawn to the width of the element that holds them.

const HEIGHT = 200;
const BOX = { left: 52, right: 14, top: 14, bottom: 24 };

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// The smallest round number of which `count` cover `span`.
function niceStep(span, count) {
  const raw = span / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw);
}

// Grid and labels over [low, high] and the xs given; returns the canvas and the two scales.
function axes(target, { label, low, high, tick, xs, padding }) {
  const width = Math.max(260, target.clientWidth);
  const canvas = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  const step = niceStep(high - low, 4);
  const floor = Math.floor(low / step + 1e-9) * step;
  const ceiling = Math.max(floor + step, Math.ceil(high / step - 1e-9) * step);
  const tall = HEIGHT - BOX.top - BOX.bottom;
  const y = (value) => HEIGHT - BOX.bottom - ((value - floor) / (ceiling - floor)) * tall;
  const [first, last] = [xs[0], xs.at(-1)];
  const inner = width - BOX.left - BOX.right - 2 * padding;
  const share = (value) => (last === first ? 0.5 : (value - first) / (last - first));
  const x = (value) => BOX.left + padding + share(value) * inner;
  for (let at = floor; at <= ceiling + step / 2; at += step) {
    canvas.append(
      svg("line", { class: "grid", x1: BOX.left, x2: width - BOX.right, y1: y(at), y2: y(at) }),
      svg("text", { x: BOX.left - 8, y: y(at) + 4, "text-anchor": "end" }, tick(at, step)));
  }
  const every = Math.ceil(niceStep(last - first, 8));
  for (let at = Math.ceil(first / every) * every; at <= last; at += every) {
    canvas.append(svg("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, String(at)));
  }
  return { canvas, x, y, inner };
}

function drawNothing(target) {
  const note = document.createElement("p");
  note.className = "empty";
  note.textContent = "Nothing reported yet.";
  target.replaceChildren(note);
}

const plainTick = (y, step) => y.toFixed(step < 0.1 || step === 0.25 ? 2 : 1);

// `points` are {x, y} in order of x; `format` words a y, `low` starts the axis lower than they do.
export function drawLine(target, points, { format, tick = plainTick, low = Infinity }) {
  if (!points.length) return drawNothing(target);
  const ys = points.map((point) => point.y);
  const { canvas, x, y } = axes(target, {
    label: `${points.length} points, from ${format(ys[0])} to ${format(ys.at(-1))}`,
    low: Math.min(low, ...ys), high: Math.max(...ys), tick, xs: points.map((point) => point.x),
    padding: 10,
  });
  const path = points.map((point) => `${x(point.x)},${y(point.y)}`).join(" ");
  canvas.append(svg("polyline", { class: "line", points: path }));
  const r = points.length > 60 ? 2.5 : 4;
  for (const point of points) {
    const title = svg("title", {}, `version ${point.x}: ${format(point.y)}`);
    canvas.append(svg("circle", { class: "dot", cx: x(point.x), cy: y(point.y), r }, title));
  }
  target.replaceChildren(canvas);
}

// `bars` are {x, front, back, title} in order of x; the two values share a baseline of 0.
export function drawBars(target, bars, { label, format }) {
  if (!bars.length) return drawNothing(target);
  const { canvas, x, y, inner } = axes(target, {
    label, low: 0, high: Math.max(...bars.flatMap((bar) => [bar.front, bar.back])),
    tick: (value) => (value ? format(value) : "0"), xs: bars.map((bar) => bar.x), padding: 24,
  });
  const span = Math.max(1, bars.at(-1).x - bars[0].x);
  const width = Math.min(32, Math.max(2, (0.7 * inner) / span));
  for (const bar of bars) {
    const rect = (look, value) => svg("rect", {
      class: look, x: x(bar.x) - width / 2, width, y: y(value), height: y(0) - y(value), rx: 1.5,
    });
    const title = svg("title", {}, bar.title);
    canvas.append(svg("g", {}, title, rect("back", bar.back), rect("front", bar.front)));
  }
  target.replaceChildren(canvas);
}
