// A video file: the browser plays it, the server recognizes its frames.

import { clock, plot } from "./charts.js";
import { csv, element, save, saveCanvas } from "./dom.js";
import { Viewer } from "./viewer.js";

const DRAW_AFTER = 1000; // milliseconds between two drawings of the plot

export function video(section, choice) {
  const viewer = new Viewer(section, { longest: 960, choice, onFrame: record });
  const file = element("input", { type: "file", accept: "video/*", id: "video-file", class: "unseen", onchange: open });
  const other = element("label", { class: "button", for: "video-file" }, "Choose a video");
  const play = element("button", { onclick: toggle, disabled: true }, "Play");
  const place = element("input", { type: "range", min: 0, max: 1, step: "any", value: 0, disabled: true, class: "seek",
    "aria-label": "Position in the video", oninput: () => { viewer.video.currentTime = place.value; } });
  const time = element("span", {}, "0:00");
  const table = element("button", { onclick: saveTable, disabled: true }, "Save table");
  const picture = element("button", { onclick: () => saveCanvas(`${name}_expressions.png`, canvas), disabled: true }, "Save plot");
  const canvas = element("canvas", { role: "img", "aria-label": "Probabilities of the expressions over time" });
  const plotted = element("div", { class: "plot", hidden: true }, canvas);
  viewer.controls.append(file, other, play, place, time, table, picture);
  section.append(plotted);
  section.querySelector(".history-title").textContent = "The last minute of the video";
  let name = "video", url = null, rows = [], drawn = -Infinity;
  viewer.tell("Watch a video with its expressions", "It is played here, and its frames go to the server of this page.",
    [element("label", { class: "button primary", for: "video-file" }, "Choose a video")]);
  for (const event of ["dragover", "drop"]) viewer.stage.addEventListener(event, drop);
  viewer.video.addEventListener("error", refuse);
  viewer.video.addEventListener("loadedmetadata", ready);
  viewer.video.addEventListener("timeupdate", tick);
  viewer.video.addEventListener("seeked", () => { if (viewer.video.paused) viewer.once(viewer.video.currentTime); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  for (const event of ["play", "pause", "ended"]) viewer.video.addEventListener(event, label);

  function drop(event) {
    event.preventDefault();
    if (event.type === "drop" && event.dataTransfer.files.length) load(event.dataTransfer.files[0]);
  }

  function open() {
    if (file.files.length) load(file.files[0]);
    file.value = "";
  }

  function load(chosen) {
    viewer.stop();
    viewer.reset();
    rows = [];
    if (url) URL.revokeObjectURL(url);
    url = URL.createObjectURL(chosen);
    name = chosen.name.replace(/\.[^.]*$/, "");
    viewer.tell("Opening the video");
    viewer.video.src = url;
  }

  function refuse() {
    if (!url) return;
    enable(false);
    viewer.tell("This browser cannot play this video", "WebM, and MP4 with H.264, can be played by all. The command "
      + "predict-from-video.py reads many more formats.", [element("label", { class: "button primary", for: "video-file" }, "Choose another")]);
  }

  async function ready() {
    viewer.tell("");
    place.max = viewer.video.duration;
    enable(true);
    viewer.start(() => viewer.video.currentTime);
    await viewer.video.play().catch(() => {});
  }

  function enable(on) {
    for (const control of [play, place]) control.disabled = !on;
    for (const button of [table, picture]) button.disabled = !rows.length;
    plotted.hidden = !rows.length;
  }

  function toggle() {
    if (viewer.video.paused) viewer.video.play();
    else viewer.video.pause();
  }

  function label() {
    play.textContent = viewer.video.paused ? "Play" : "Pause";
    if (viewer.video.paused) draw();
  }

  function tick() {
    const { currentTime, duration } = viewer.video;
    place.value = currentTime;
    time.textContent = `${clock(currentTime)} / ${clock(duration)}`;
  }

  // frame: counted by the frames that were recognized. The boxes are those of the video's own pixels.
  function record({ number, seconds, faces, scale }) {
    if (seconds < (rows.at(-1)?.[0] ?? 0)) forget(seconds);
    for (const { face, box, expression, confidence, probabilities } of faces) {
      const pixels = box.map((value) => Math.round(value / scale));
      const values = viewer.expressions.map((one) => probabilities[one].toFixed(4));
      rows.push([Number(seconds.toFixed(4)), number, face, ...pixels, expression, confidence.toFixed(4), ...values]);
    }
    if (rows.length && table.disabled) enable(true);
    if (performance.now() - drawn > DRAW_AFTER) draw();
  }

  // The video goes on from an earlier place: what follows it is recognized once more.
  function forget(seconds) {
    rows = rows.filter((row) => row[0] < seconds);
    for (const [face, moments] of viewer.histories) {
      const before = moments.filter((moment) => moment.seconds <= seconds);
      if (before.length) viewer.histories.set(face, before);
      else viewer.histories.delete(face);
    }
  }

  function draw() {
    if (!rows.length) return;
    drawn = performance.now();
    plot(canvas, viewer.histories, viewer.expressions, viewer.video.duration);
  }

  function saveTable() {
    const heads = ["seconds", "frame", "face", "x", "y", "width", "height", "expression", "confidence"];
    save(`${name}_faces.csv`, csv([[...heads, ...viewer.expressions], ...rows]), "text/csv");
  }

  return {
    restart: () => {
      viewer.stop();
      viewer.reset();
      rows = [];
      enable(Boolean(url));
      if (url) viewer.start(() => viewer.video.currentTime);
    },
    leave: () => viewer.video.pause(),
  };
}
