// A moving picture, live or of a file: its frames go to the server, one at a time, and the answers are drawn over it.

import { drawFaces } from "./boxes.js";
import { Bars, Strips } from "./charts.js";
import { element, percent } from "./dom.js";
import { Gone, Refused, back, pause, request } from "./server.js";

const QUALITY = 0.85; // of the JPEG that is sent
const AVERAGED = 30; // frames over which rate and delay are averaged
const SPEAK_AFTER = 3000; // milliseconds between two announcements for screen readers
const STRIPS_AFTER = 200; // milliseconds between two drawings of the strips

export class Viewer {
  // section: where the viewer is put. longest: side of the frames that are sent, in pixels. choice: of the model.
  constructor(section, { longest, choice, onFrame = () => {} }) {
    section.append(document.querySelector("#viewer").content.cloneNode(true));
    const part = (selector) => section.querySelector(selector);
    this.section = section;
    this.longest = longest;
    this.choice = choice;
    this.onFrame = onFrame;
    this.stage = part(".stage");
    this.video = part("video");
    this.overlay = part(".overlay");
    this.controls = part(".controls");
    this.message = part(".message");
    this.figures = part(".figures");
    this.buttons = part(".faces");
    this.spoken = part(".spoken");
    this.bars = new Bars(part(".bars"));
    this.strips = new Strips(part(".history"));
    this.frame = element("canvas", { width: 1, height: 1 }); // the frame that was sent
    this.shown = null; // when the newest frame was captured; null if it was sent
    this.arrived = () => {};
    this.mirrored = false;
    this.run = 0; // its number: a run whose number has passed ends itself
    this.reset();
    this.video.addEventListener("resize", () => this.#fit());
    this.#watch();
    this.overlay.addEventListener("click", (event) => this.#pick(event));
    new ResizeObserver(() => this.#draw()).observe(this.stage);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#show(this.seconds));
  }

  // Forgets all faces.
  reset() {
    this.session = null;
    this.before = 0; // the highest number of a face of earlier sessions
    this.expressions = this.choice().expressions;
    this.faces = []; // of the last answer, in pixels of `frame`
    this.selected = null;
    this.histories = new Map(); // face → its moments
    this.times = [];
    this.delays = [];
    this.number = 0;
    this.#show(0);
  }

  // Text in place of the picture. over: whether the picture is seen through it.
  tell(title, hint = "", buttons = [], over = false) {
    this.message.className = over ? "message over" : "message";
    this.message.replaceChildren(
      ...(title ? [element("p", { class: "title" }, title)] : []),
      ...(hint ? [element("p", { class: "hint" }, hint)] : []), ...buttons);
  }

  // Recognizes frames until `stop`. seconds: () → the time stamp of the present frame.
  async start(seconds) {
    const run = ++this.run;
    while (run === this.run) {
      try {
        const shown = await this.#nextFrame();
        if (run !== this.run) return;
        if (this.video.paused || this.video.seeking) continue;
        await this.#recognize(run, seconds(), shown);
      } catch (error) {
        if (run !== this.run) return;
        await this.#recover(error);
      }
    }
  }

  stop() {
    this.run++;
    if (this.session) request("DELETE", `/api/sessions/${this.session}`).catch(() => {});
    this.session = null;
    this.faces = [];
    this.#draw();
    this.figures.textContent = "";
  }

  // Recognizes what is seen now, although the video stands still.
  async once(seconds) {
    try {
      await this.#recognize(this.run, seconds, performance.now());
    } catch (error) {
      if (!(error instanceof Gone || error instanceof Refused)) throw error;
    }
  }

  // The last recognized frame with its faces drawn in.
  snapshot() {
    const canvas = element("canvas", { width: this.frame.width, height: this.frame.height });
    const context = canvas.getContext("2d");
    if (this.mirrored) context.setTransform(-1, 0, 0, 1, canvas.width, 0);
    context.drawImage(this.frame, 0, 0);
    context.resetTransform();
    drawFaces(context, this.faces, { unit: Math.max(1, canvas.width / 800), mirrored: this.mirrored });
    return canvas;
  }

  mirror(mirrored) {
    this.mirrored = mirrored;
    this.video.classList.toggle("mirrored", mirrored);
    this.#draw();
  }

  // Notes every frame that appears, with the time of its capture where the browser tells.
  #watch() {
    const seen = (now, frame) => {
      this.shown = frame?.captureTime ?? now;
      this.arrived();
      this.#watch();
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(seen);
    else requestAnimationFrame(seen);
  }

  // The time of the newest frame, at once if it was not sent yet, else of the next one.
  async #nextFrame() {
    if (this.shown === null) {
      await new Promise((resolve) => {
        this.arrived = resolve;
        setTimeout(resolve, 1000); // no frame comes while the video stands still
      });
    }
    const shown = this.shown ?? performance.now();
    this.shown = null;
    return shown;
  }

  async #recognize(run, seconds, shown) {
    const { videoWidth, videoHeight } = this.video;
    if (!videoWidth) return;
    const scale = Math.min(1, this.longest / Math.max(videoWidth, videoHeight));
    const size = [Math.round(videoWidth * scale), Math.round(videoHeight * scale)];
    if (this.frame.width !== size[0] || this.frame.height !== size[1]) [this.frame.width, this.frame.height] = size;
    this.frame.getContext("2d", { willReadFrequently: true }).drawImage(this.video, 0, 0, ...size);
    const picture = encoded(this.frame);
    if (!this.session) {
      const started = await request("POST", `/api/sessions?model=${encodeURIComponent(this.choice().name)}`);
      this.session = started.session;
      this.before = Math.max(0, ...this.histories.keys()); // no number of an earlier session comes again
      this.expressions = started.expressions;
    }
    const path = `/api/sessions/${this.session}/frames?seconds=${Math.max(0, seconds).toFixed(4)}`;
    const answer = await request("POST", path, picture);
    if (run !== this.run) return;
    this.faces = answer.faces.map((face) => ({ ...face, face: face.face + this.before }));
    for (const { face, expression, confidence, probabilities } of this.faces) {
      if (!this.histories.has(face)) this.histories.set(face, []);
      this.histories.get(face).push({ seconds, expression, confidence, probabilities });
    }
    this.onFrame({ number: this.number++, seconds, faces: this.faces, scale });
    this.#show(seconds);
    this.#measure(shown);
  }

  // After an error: the next frame is tried when it is worth it.
  async #recover(error) {
    if (error instanceof Gone) {
      this.session = null;
      this.faces = [];
      this.#show(this.seconds);
      this.tell("The server does not answer", "This page goes on as soon as it is back.", [], true);
      await back();
      this.tell("");
    } else if (error instanceof Refused && error.status === 404) this.session = null; // it has ended: a new one
    else if (error instanceof Refused && error.isOverSoon) await pause(300);
    else {
      this.tell("This does not work", error.message, [], true);
      await pause(3000);
      this.tell("");
    }
  }

  #measure(shown) {
    const now = performance.now();
    this.times.push(now);
    this.delays.push(now - shown);
    if (this.times.length > AVERAGED) {
      this.times.shift();
      this.delays.shift();
    }
    if (this.times.length < 5) return;
    const rate = (1000 * (this.times.length - 1)) / (now - this.times[0]);
    const delay = this.delays.reduce((sum, value) => sum + value) / this.delays.length;
    this.stage.dataset.rate = rate.toFixed(2);
    this.stage.dataset.delay = delay.toFixed(2);
    const text = `${Math.round(rate)} frames/s · ${Math.round(delay)} ms from picture to box`;
    if (this.figures.textContent !== text) this.figures.textContent = text;
  }

  #show(seconds) {
    this.seconds = seconds;
    const numbers = this.faces.map(({ face }) => face);
    if (!numbers.includes(this.selected)) this.selected = numbers[0] ?? null;
    this.#draw();
    this.#showButtons();
    const chosen = this.faces.find(({ face }) => face === this.selected);
    this.bars.show(chosen?.probabilities ?? null, this.expressions);
    const now = performance.now();
    if (now - (this.drawnAt ?? -Infinity) > STRIPS_AFTER || !seconds) {
      this.drawnAt = now;
      this.strips.show(this.histories, seconds);
    }
    if (now - (this.spokenAt ?? -Infinity) > SPEAK_AFTER && this.number) {
      const text = this.faces.map((face) => `Face ${face.face}: ${face.expression}`).join(", ") || "No face";
      if (this.spoken.textContent !== text) {
        this.spokenAt = now;
        this.spoken.textContent = text;
      }
    }
  }

  // A button for each face. They are only made anew when other faces are there, so that they keep the focus.
  #showButtons() {
    const key = `${this.faces.map(({ face }) => face)} ${this.number > 0}`;
    if (key !== this.shownFaces) {
      this.shownFaces = key;
      this.buttons.replaceChildren(...(this.faces.length ? this.faces.map(({ face }) => element("button", {
        role: "radio", "data-face": face, onclick: () => this.#select(face), onkeydown: (event) => this.#move(event),
      })) : [this.number ? "No face in the picture." : "No face yet."]));
    }
    for (const [index, face] of this.faces.entries()) {
      const button = this.buttons.children[index], chosen = face.face === this.selected;
      const text = `Face ${face.face} · ${face.expression} ${percent(face.confidence)}`;
      if (button.textContent !== text) button.textContent = text;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
  }

  #select(face) {
    this.selected = face;
    this.#show(this.seconds);
  }

  #move(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.buttons.children], place = buttons.indexOf(event.target) + step + buttons.length;
    const button = buttons[place % buttons.length];
    this.#select(Number(button.dataset.face));
    button.focus();
  }

  #pick(event) {
    const { left, width, top } = this.overlay.getBoundingClientRect(), scale = this.frame.width / width;
    const across = (event.clientX - left) * scale, y = (event.clientY - top) * scale;
    const x = this.mirrored ? this.frame.width - across : across;
    const hit = this.faces.find(({ box }) => x >= box[0] && x <= box[0] + box[2] && y >= box[1] && y <= box[1] + box[3]);
    if (hit) this.#select(hit.face);
  }

  // The stage takes the shape of the video, so that the overlay lies exactly on it.
  #fit() {
    const { videoWidth, videoHeight } = this.video;
    if (videoWidth) this.stage.closest(".viewer").style.setProperty("--ratio", videoWidth / videoHeight);
  }

  #draw() {
    const { clientWidth, clientHeight } = this.stage, unit = devicePixelRatio;
    const size = [Math.round(clientWidth * unit), Math.round(clientHeight * unit)];
    if (this.overlay.width !== size[0] || this.overlay.height !== size[1]) [this.overlay.width, this.overlay.height] = size;
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, ...size);
    const scale = size[0] / this.frame.width;
    drawFaces(context, this.faces, { scale, unit, mirrored: this.mirrored, selected: this.selected });
  }
}

// The canvas as a JPEG. At once: the asynchronous ways wait until the browser is idle, which takes several times as long.
function encoded(canvas) {
  const letters = atob(canvas.toDataURL("image/jpeg", QUALITY).split(",")[1]);
  return new Blob([Uint8Array.from(letters, (letter) => letter.charCodeAt(0))], { type: "image/jpeg" });
}
