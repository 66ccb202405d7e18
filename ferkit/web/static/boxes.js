// Boxes and labels of faces, drawn into a canvas.

import { bright } from "./colours.js";
import { percent } from "./dom.js";

// faces: of the server. scale: canvas pixels for each pixel of the picture. unit: canvas pixels for each on the screen.
export function drawFaces(context, faces, { scale = 1, unit = 1, mirrored = false, selected = null } = {}) {
  const width = context.canvas.width;
  for (const face of faces) {
    let [x, y, w, h] = face.box.map((value) => value * scale);
    if (mirrored) x = width - x - w;
    drawBox(context, x, y, w, h, bright(face.expression), unit * (face.face === selected && faces.length > 1 ? 4 : 2.5));
    drawLabel(context, x, y, h, `${face.expression} ${percent(face.confidence)}`, bright(face.expression), unit);
  }
}

function drawBox(context, x, y, w, h, colour, thickness) {
  for (const [style, more] of [["rgb(0 0 0 / 45%)", thickness * 0.8], [colour, 0]]) {
    context.lineWidth = thickness + more;
    context.strokeStyle = style;
    context.beginPath();
    context.roundRect(x, y, w, h, Math.min(w, h) * 0.06);
    context.stroke();
  }
}

function drawLabel(context, x, y, h, text, colour, unit) {
  const size = 14 * unit, padding = 7 * unit, height = size + padding;
  context.font = `600 ${size}px system-ui, "Noto Sans", "Liberation Sans", sans-serif`;
  const swatch = size * 0.6, width = context.measureText(text).width + 2.6 * padding + swatch;
  const left = Math.max(0, Math.min(x, context.canvas.width - width));
  let top = y - height - 4 * unit;
  if (top < 0) top = Math.min(y + h + 4 * unit, context.canvas.height - height);
  context.fillStyle = "rgb(13 16 22 / 82%)";
  context.beginPath();
  context.roundRect(left, top, width, height, height / 3);
  context.fill();
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(left + padding, top + (height - swatch) / 2, swatch, swatch, swatch / 3);
  context.fill();
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, left + 1.6 * padding + swatch, top + height / 2 + unit * 0.5);
}
