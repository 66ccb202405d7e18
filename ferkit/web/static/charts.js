// What faces show: bars of one moment, a strip of the last minute, and a plot of a whole video.

import { colour } from "./colours.js";
import { element, percent } from "./dom.js";

const MINUTE = 60;

export class Bars {
  constructor(list) {
    this.list = list;
    this.rows = new Map();
  }

  // probabilities: by the names of the expressions; null when there is no face.
  show(probabilities, expressions) {
    if (String([...this.rows.keys()]) !== String(expressions)) this.#make(expressions);
    const best = probabilities && Math.max(...Object.values(probabilities));
    for (const [name, row] of this.rows) {
      const value = probabilities?.[name];
      row.fill.style.width = value === undefined ? "0" : `${100 * value}%`;
      row.value.textContent = value === undefined ? "–" : percent(value);
      row.item.classList.toggle("best", value !== undefined && value === best);
    }
  }

  #make(expressions) {
    this.rows.clear();
    for (const name of expressions) {
      const fill = element("span", { class: "fill" }), value = element("span", { class: "value" });
      fill.style.background = `var(--${CSS.escape(name)}, ${colour(name)})`;
      const item = element("li", {}, element("span", {}, name), element("span", { class: "track" }, fill), value);
      this.rows.set(name, { item, fill, value });
    }
    this.list.replaceChildren(...[...this.rows.values()].map((row) => row.item));
  }
}

// A strip for each face that was seen in the last minute: the colour is its expression, the height its confidence.
export class Strips {
  constructor(place, most = 5) {
    this.place = place;
    this.most = most;
    this.strips = new Map();
    this.axis = element("div", { class: "axis", "aria-hidden": "true" },
      element("span", {}, "1 minute ago"), element("span", {}, "now"));
  }

  // histories: face → [{ seconds, expression, confidence }], in the order of time.
  show(histories, now) {
    const recent = [...histories].filter(([, moments]) => moments.at(-1).seconds > now - MINUTE).slice(-this.most);
    const kept = new Set(recent.map(([face]) => face));
    for (const face of this.strips.keys()) if (!kept.has(face)) this.#remove(face);
    for (const [face, moments] of recent) this.#draw(this.strips.get(face) ?? this.#make(face), moments, now);
    if (!kept.size) this.place.replaceChildren("No face yet.");
    else if (this.place.lastChild !== this.axis) this.place.append(this.axis);
  }

  #make(face) {
    const canvas = element("canvas", { role: "img" }), now = element("span");
    const figure = element("figure", {}, element("figcaption", {}, element("span", {}, `Face ${face}`), now), canvas);
    const strip = { figure, canvas, now };
    if (!this.strips.size) this.place.replaceChildren();
    this.strips.set(face, strip);
    this.place.append(figure, this.axis);
    return strip;
  }

  #remove(face) {
    this.strips.get(face).figure.remove();
    this.strips.delete(face);
  }

  #draw({ canvas, now: caption }, moments, now) {
    const shares = sharesOf(moments.filter(({ seconds }) => seconds > now - MINUTE));
    const text = shares.slice(0, 2).map(([name, share]) => `${name} ${percent(share)}`).join(", ");
    if (caption.textContent !== text) caption.textContent = text;
    canvas.setAttribute("aria-label", `In the last minute: ${text}`);
    const ratio = devicePixelRatio, width = Math.round(canvas.clientWidth * ratio), height = Math.round(26 * ratio);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const at = (seconds) => width * (1 - (now - seconds) / MINUTE);
    for (const [index, moment] of moments.entries()) {
      const next = moments[index + 1]?.seconds ?? now;
      const left = Math.floor(at(moment.seconds)), right = Math.ceil(at(Math.min(next, moment.seconds + 0.5)));
      const tall = height * (0.25 + 0.75 * moment.confidence);
      context.fillStyle = colour(moment.expression);
      context.fillRect(left, height - tall, Math.max(1, right - left), tall);
    }
  }
}

// The share of the time that each expression has, largest first.
export function sharesOf(moments) {
  const counts = new Map();
  for (const { expression } of moments) counts.set(expression, (counts.get(expression) ?? 0) + 1);
  return [...counts].map(([name, count]) => [name, count / moments.length]).sort((one, other) => other[1] - one[1]);
}

// The probabilities of all expressions over time, stacked, with a panel for each face.
export function plot(canvas, histories, expressions, duration) {
  const panels = [...histories].filter(([, moments]) => moments.length > 1).slice(0, 12);
  const width = 1120, left = 76, right = 20, high = 92, gap = 20, legend = 44, bottom = 12;
  const height = legend + Math.max(1, panels.length) * (high + gap) + bottom;
  [canvas.width, canvas.height] = [2 * width, 2 * height]; // sharp on every screen and in print
  const context = canvas.getContext("2d"), span = width - left - right;
  const at = (seconds) => left + (span * seconds) / duration;
  const font = (weight, size) => `${weight} ${size}px system-ui, "Noto Sans", "Liberation Sans", sans-serif`;
  const light = getComputedStyle(document.documentElement);
  const ground = light.getPropertyValue("--card").trim(), ink = light.getPropertyValue("--text").trim();
  const soft = light.getPropertyValue("--soft").trim(), line = light.getPropertyValue("--line").trim();
  context.scale(2, 2);
  context.fillStyle = ground;
  context.fillRect(0, 0, width, height);
  context.textBaseline = "middle";
  context.font = font(500, 14);
  let x = left;
  for (const name of expressions) {
    context.fillStyle = colour(name);
    context.fillRect(x, 13, 12, 12);
    context.fillStyle = ink;
    context.fillText(name, x + 18, 20);
    x += 40 + context.measureText(name).width;
  }
  for (const [index, [face, moments]] of panels.entries()) {
    const top = legend + index * (high + gap);
    context.fillStyle = ink;
    context.font = font(600, 14);
    context.fillText(`Face ${face}`, 8, top + high / 2);
    for (const [place, moment] of moments.entries()) {
      const next = moments[place + 1]?.seconds ?? moment.seconds + 0.1;
      const start = at(moment.seconds), end = at(Math.min(next, moment.seconds + 0.5));
      let level = top;
      for (const name of [...expressions].reverse()) {
        const tall = high * (moment.probabilities[name] ?? 0);
        context.fillStyle = colour(name);
        context.fillRect(start, level, Math.max(1, end - start) + 0.5, tall + 0.5);
        level += tall;
      }
    }
    context.strokeStyle = line;
    context.strokeRect(left - 0.5, top - 0.5, span + 1, high + 1);
  }
  context.font = font(400, 13);
  context.fillStyle = soft;
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((size) => duration / size <= 10) ?? 7200;
  const axis = legend + Math.max(1, panels.length) * (high + gap) - gap + 18;
  for (let seconds = 0; seconds <= duration; seconds += step) {
    context.textAlign = "center";
    context.fillText(clock(seconds), at(seconds), axis);
  }
  context.textAlign = "start";
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
