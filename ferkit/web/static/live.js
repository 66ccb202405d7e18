// The camera: asked for on a button, never by itself.

import { element, saveCanvas } from "./dom.js";
import { Viewer } from "./viewer.js";

const REASONS = {
  NotAllowedError: ["The camera was refused", "Allow it beside the address of this page, then try again."],
  NotFoundError: ["No camera was found", "Connect one, then try again."],
  OverconstrainedError: ["This camera is not there any more", "Choose another one, then try again."],
  NotReadableError: ["The camera cannot be used", "Another program may have it. Close that one, then try again."],
};
const KEPT = 60; // seconds of history

export function live(section, choice) {
  const viewer = new Viewer(section, { longest: 640, choice, onFrame: forget });
  const start = element("button", { class: "primary", onclick: open }, "Start the camera");
  const stop = element("button", { onclick: close, disabled: true }, "Stop");
  const hold = element("button", { onclick: toggle, disabled: true, "aria-pressed": "false" }, "Pause");
  const shoot = element("button", { onclick: snapshot, disabled: true }, "Save snapshot");
  const mirror = element("input", { type: "checkbox", checked: true, onchange: () => viewer.mirror(mirror.checked) });
  const cameras = element("select", { onchange: open, disabled: true }, element("option", {}, "Default"));
  viewer.controls.append(
    hold, shoot, stop, element("span", { class: "gap" }),
    element("label", { class: "check" }, mirror, "Mirror"), element("label", { class: "field" }, "Camera ", cameras));
  viewer.mirror(true);
  let stream = null, opening = 0;
  close();

  async function open() {
    const number = ++opening;
    release();
    viewer.reset();
    if (!navigator.mediaDevices) {
      return tell("The camera cannot be used", "Browsers open it only on pages with https, and on http://127.0.0.1.");
    }
    viewer.tell("Waiting for the camera", "The browser asks whether this page may use it.");
    try {
      const wanted = cameras.value && !cameras.disabled ? { deviceId: { exact: cameras.value } } : { facingMode: "user" };
      const opened = await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, ...wanted }, audio: false,
      });
      if (number !== opening) return opened.getTracks().forEach((track) => track.stop());
      stream = opened;
      const [track] = stream.getVideoTracks();
      track.addEventListener("ended", () => {
        close();
        tell("The camera is gone", "It was unplugged, or taken away. Connect it, then try again.");
      });
      viewer.video.srcObject = stream;
      await viewer.video.play();
      await list(track.getSettings().deviceId);
    } catch (error) {
      if (number !== opening) return;
      close();
      tell(...(REASONS[error.name] ?? ["The camera cannot be used", error.message]));
      return start.focus();
    }
    enable(true);
    if (document.activeElement === document.body) hold.focus(); // the button that was pressed is gone
    viewer.tell("");
    run();
  }

  function release() {
    viewer.stop();
    stream?.getTracks().forEach((track) => track.stop());
    stream = viewer.video.srcObject = null;
  }

  function close() {
    const focused = document.activeElement === stop;
    opening++;
    release();
    enable(false);
    viewer.reset();
    tell("See what a face shows", "The pictures of your camera go to the server of this page, and nowhere else.");
    if (focused) start.focus();
  }

  function tell(title, hint) {
    enable(false);
    viewer.tell(title, hint, [start]);
  }

  function enable(running) {
    for (const button of [stop, hold, shoot]) button.disabled = !running;
    hold.textContent = "Pause";
    hold.setAttribute("aria-pressed", "false");
  }

  function toggle() {
    const { video } = viewer, paused = !video.paused;
    if (paused) video.pause();
    else video.play();
    hold.textContent = paused ? "Go on" : "Pause";
    hold.setAttribute("aria-pressed", String(paused));
  }

  function snapshot() {
    saveCanvas(`snapshot_${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.png`, viewer.snapshot());
  }

  // The cameras can be named only after the permission.
  async function list(current) {
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    cameras.replaceChildren(...devices.map(({ deviceId, label }, index) =>
      element("option", { value: deviceId, selected: deviceId === current }, label || `Camera ${index + 1}`)));
    cameras.disabled = devices.length < 2;
  }

  // Only the last minute is kept, however long the camera runs.
  function forget({ seconds }) {
    for (const [face, moments] of viewer.histories) {
      while (moments.length && moments[0].seconds < seconds - KEPT) moments.shift();
      if (!moments.length) viewer.histories.delete(face);
    }
  }

  function restart() {
    viewer.stop();
    viewer.reset();
    if (stream) run();
  }

  function run() {
    viewer.start(() => performance.now() / 1000);
  }

  return { restart, leave: close };
}
