// Behaviour on one prompt as a point: care upwards and register to the right, as in the book's figures; and how far an
// edit moves it.

const WIDTH = 460, HEIGHT = 338, LEFT = 74, BOTTOM = 58, TOP = 24, RIGHT = 14;

/** Paths of the markers that the book's figures use, around the origin. */
const MARKERS = {
  s: "M-5,-5H5V5H-5Z",
  o: "M-5.5,0A5.5,5.5 0 1 0 5.5,0A5.5,5.5 0 1 0 -5.5,0Z",
  D: "M0,-7L7,0L0,7L-7,0Z",
  "^": "M0,-7L6.5,5H-6.5Z",
  v: "M0,7L6.5,-5H-6.5Z",
  P: "M-2.2,-6H2.2V-2.2H6V2.2H2.2V6H-2.2V2.2H-6V-2.2H-2.2Z",
};

function svg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

/** A span that holds all values, and round ticks in it. */
function axis(values) {
  const low = Math.min(0, ...values), high = Math.max(0, ...values);
  const step = [1, 2, 5, 10, 20].find((one) => (high - low) / one <= 8) ?? 50;
  const from = Math.floor((low - 0.3 * step) / step) * step, to = Math.ceil((high + 0.3 * step) / step) * step;
  const ticks = [];
  for (let at = from; at <= to; at += step) ticks.push(at);
  return { from, to, ticks };
}

/**
 * Figure of the variants' points and of the moved one. points: {name, colour, marker, care, register} each; moved:
 * {from, to, trail} of points, or null; label: the alternative text.
 */
export function plane(points, moved, label) {
  const all = [...points, ...(moved ? [moved.from, moved.to, ...moved.trail] : [])];
  const x = axis(all.map((one) => one.register)), y = axis(all.map((one) => one.care));
  const across = (register) => LEFT + ((register - x.from) / (x.to - x.from)) * (WIDTH - LEFT - RIGHT);
  const up = (care) => HEIGHT - BOTTOM - ((care - y.from) / (y.to - y.from)) * (HEIGHT - BOTTOM - TOP);
  const figure = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, class: "lab-plane" });
  const line = (x1, y1, x2, y2, style) => figure.append(svg("line", { x1, y1, x2, y2, class: style }));
  const write = (text, at, place, anchor = "middle", more = {}) =>
    figure.append(svg("text", { x: at, y: place, "text-anchor": anchor, ...more }, text));
  for (const tick of x.ticks) {
    line(across(tick), TOP, across(tick), HEIGHT - BOTTOM, tick ? "lab-grid" : "lab-zero");
    write(String(tick).replace("-", "−"), across(tick), HEIGHT - BOTTOM + 15);
  }
  for (const tick of y.ticks) {
    line(LEFT, up(tick), WIDTH - RIGHT, up(tick), tick ? "lab-grid" : "lab-zero");
    write(String(tick).replace("-", "−"), LEFT - 6, up(tick) + 4, "end");
  }
  const middle = (HEIGHT - BOTTOM + TOP) / 2;
  write("register: plain against formal (nats)", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
  ["care: careless against", "careful (nats)"].forEach((text, i) => {
    const at = 16 + 18 * i;
    write(text, at, middle, "middle", { transform: `rotate(-90,${at},${middle})` });
  });
  write("careless", 2, 13, "start", { class: "lab-end" });
  write("careful", 2, HEIGHT - BOTTOM + 28, "start", { class: "lab-end" });
  write("formal", LEFT - 16, HEIGHT - 8, "start", { class: "lab-end" });
  write("plain", WIDTH - 2, HEIGHT - 8, "end", { class: "lab-end" });
  for (const { care, register, colour, marker } of points) {
    const place = `translate(${across(register)},${up(care)})`;
    figure.append(svg("path", { d: MARKERS[marker] ?? MARKERS.o, transform: place, fill: colour }));
  }
  if (moved) {
    for (const one of moved.trail) {
      figure.append(svg("circle", { cx: across(one.register), cy: up(one.care), r: 2, class: "lab-trail" }));
    }
    line(across(moved.from.register), up(moved.from.care), across(moved.to.register), up(moved.to.care), "lab-move");
    figure.append(svg("circle", { cx: across(moved.to.register), cy: up(moved.to.care), r: 9, class: "lab-moved" }));
  }
  return figure;
}

/** The legend of such a figure: marker and name of each variant. */
export function legend(points) {
  const list = document.createElement("ul");
  list.className = "lab-legend";
  for (const { name, colour, marker } of points) {
    const sign = svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" });
    sign.append(svg("path", { d: MARKERS[marker] ?? MARKERS.o, fill: colour }));
    const item = document.createElement("li");
    item.append(sign, name);
    list.append(item);
  }
  return list;
}
