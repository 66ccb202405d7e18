// Photographs: chosen, dropped or pasted, recognized one after another.

import { drawFaces } from "./boxes.js";
import { colour } from "./colours.js";
import { csv, element, percent, save, saveCanvas } from "./dom.js";
import { Gone, Refused, back, pause, request } from "./server.js";

const MOST_BYTES = 16 * 2 ** 20; // that the server takes
const LARGEST_COPY = 1600; // longer side of an annotated copy, in pixels
const LONGEST = 6000; // side of a larger picture after it was scaled down, as the server would do it

export function photographs(section, choice) {
  const part = (selector) => section.querySelector(selector);
  const drop = part("#drop"), files = part("#files"), gallery = part("#gallery"), progress = part("#progress");
  let answers = [], waiting = [], working = false, done = 0;
  files.addEventListener("change", () => {
    add(files.files);
    files.value = "";
  });
  for (const event of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      drop.classList.toggle("over", event === "dragenter" || event === "dragover");
      if (event === "drop") add(dragged.dataTransfer.files);
    });
  }
  document.addEventListener("paste", (event) => {
    if (!section.hidden && event.clipboardData.files.length) add(event.clipboardData.files);
  });
  part("#save-json").addEventListener("click", () =>
    save("faces.jsonl", answers.map((answer) => `${JSON.stringify(answer)}\n`).join(""), "application/jsonl"));
  part("#save-csv").addEventListener("click", () => save("faces.csv", table(), "text/csv"));
  part("#clear").addEventListener("click", () => {
    [answers, waiting, done] = [[], [], 0];
    gallery.replaceChildren();
    show();
  });

  function add(chosen) {
    waiting.push(...chosen);
    show();
    if (!working) work();
  }

  async function work() {
    working = true;
    while (waiting.length) {
      const file = waiting.shift(), card = new Card(file);
      gallery.prepend(card.place);
      show();
      const answer = await card.recognize(query());
      if (card.place.isConnected) {
        done++;
        if (answer) answers.push(answer);
      }
    }
    working = false;
    show();
  }

  function query() {
    const answer = (box) => (part(box).checked ? "yes" : "no");
    const model = encodeURIComponent(choice().name);
    return `model=${model}&small_faces=${answer("#small-faces")}&test_time_augmentation=${answer("#six-views")}`;
  }

  function show() {
    const left = waiting.length + (working && gallery.children.length > done ? 1 : 0);
    progress.textContent = left ? `${left} to go …` : "";
    for (const button of ["#save-json", "#save-csv"]) part(button).disabled = !answers.length;
    part("#clear").disabled = !gallery.children.length;
  }

  // As of predict.py --log, without its last column. Models may name different expressions.
  function table() {
    const names = [...new Set(answers.flatMap(({ faces }) => faces.flatMap((face) => Object.keys(face.probabilities))))];
    const heads = ["image", "faces", "face", "x", "y", "width", "height", "expression", "confidence", "score", ...names];
    const rows = answers.flatMap(({ image, faces }) => faces.length ? faces.map((face, index) => [
      image, faces.length, index + 1, ...face.box, face.expression, face.confidence.toFixed(4), face.score.toFixed(4),
      ...names.map((one) => face.probabilities[one]?.toFixed(4) ?? ""),
    ]) : [[image, 0, ...heads.slice(2).map(() => "")]]);
    return csv([heads, ...rows]);
  }
}

// One photograph and what was found in it.
class Card {
  constructor(file) {
    this.file = file;
    this.picture = element("div", { class: "picture" }, element("p", {}, "Being recognized …"));
    this.found = element("div");
    this.place = element("article", { class: "photograph" }, this.picture,
      element("div", {}, element("h3", {}, file.name || "Pasted picture"), this.found));
  }

  // The server's answer, null when there is none.
  async recognize(query) {
    const bitmap = await createImageBitmap(this.file).catch(() => null); // upright, by its EXIF data
    try {
      const answer = await this.#ask(query, await this.#sent(bitmap));
      answer.image = this.file.name || "pasted";
      this.#show(answer, bitmap);
      bitmap?.close();
      return answer;
    } catch (error) {
      this.picture.replaceChildren(element("p", {}, "No result"));
      this.found.replaceChildren(element("p", { class: "bad" }, error.message));
      return null;
    }
  }

  async #ask(query, body) {
    for (;;) {
      try {
        return await request("POST", `/api/recognize?${query}`, body);
      } catch (error) {
        if (error instanceof Gone) await back();
        else if (error instanceof Refused && error.isOverSoon) await pause(1000);
        else throw error;
      }
    }
  }

  // What is sent: the file itself, or a smaller copy of a picture that is too large.
  async #sent(bitmap) {
    if (this.file.size <= MOST_BYTES || !bitmap) return new Blob([this.file], { type: this.file.type || "image/*" });
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  }

  #show(answer, bitmap) {
    const { faces, width } = answer;
    if (bitmap) this.#draw(bitmap, faces, bitmap.width / width);
    else this.picture.replaceChildren(element("p", {}, "This browser cannot show the picture. The server could read it."));
    const count = faces.length === 1 ? "1 face" : `${faces.length || "No"} face${faces.length ? "s" : ""}`;
    const parts = [element("p", { class: "hint" }, `${count}, ${answer.seconds.toFixed(3)} s`)];
    if (faces.length) parts.push(tableOf(faces));
    if (bitmap) {
      const name = `${(this.file.name || "pasted").replace(/\.[^.]*$/, "")}_annotated.png`;
      const canvas = this.picture.querySelector("canvas");
      parts.push(element("div", { class: "bar" }, element("button", { onclick: () => saveCanvas(name, canvas) }, "Save picture")));
    }
    this.found.replaceChildren(...parts);
  }

  #draw(bitmap, faces, scale) {
    const shrunk = Math.min(1, LARGEST_COPY / Math.max(bitmap.width, bitmap.height));
    const size = { width: Math.round(bitmap.width * shrunk), height: Math.round(bitmap.height * shrunk) };
    const text = faces.map(({ expression }) => expression).join(", ") || "no face";
    const canvas = element("canvas", { ...size, role: "img", "aria-label": `${this.file.name}: ${text}` });
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0, size.width, size.height);
    this.picture.replaceChildren(canvas);
    const unit = Math.max(1, size.width / (canvas.clientWidth || 700));
    drawFaces(context, faces, { scale: scale * shrunk, unit });
  }
}

function tableOf(faces) {
  const number = (text) => element("td", { class: "number" }, text);
  const rows = faces.map(({ expression, confidence, probabilities, box }, index) => {
    const [, second] = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = colour(expression);
    return element("tr", {}, element("td", {}, index + 1), element("td", {}, swatch, expression),
      number(percent(confidence)), element("td", {}, second?.[1] >= 0.01 ? `${second[0]} ${percent(second[1])}` : "–"),
      number(`${box[2]} px`));
  });
  const heads = element("tr", {}, element("th", {}, "Face"), element("th", {}, "Expression"),
    element("th", { class: "number" }, "Confidence"), element("th", {}, "Next"), element("th", { class: "number" }, "Width"));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, heads), element("tbody", {}, ...rows)));
}
