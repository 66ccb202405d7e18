// The page: its tabs, and the choice of the model.

import { element } from "./dom.js";
import { live } from "./live.js";
import { photographs } from "./photographs.js";
import { Gone, back, request } from "./server.js";
import { video } from "./video.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const select = document.querySelector("#model");
const models = await load();
const choice = () => models.find(({ name }) => name === select.value);
const parts = {
  live: live(document.querySelector("#live"), choice),
  video: video(document.querySelector("#video"), choice),
};
photographs(document.querySelector("#photographs"), choice);
select.addEventListener("change", () => Object.values(parts).forEach((part) => part.restart()));
for (const tab of tabs) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    open(next);
    next.focus();
  });
}
for (const event of ["dragover", "drop"]) { // a file that misses its place must not replace the page
  document.addEventListener(event, (dragged) => dragged.preventDefault());
}
open(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0]);

async function load() {
  await back(); // tells whether the server is there
  for (;;) {
    try {
      const { models: listed } = await request("GET", "/api/models");
      select.replaceChildren(...listed.map(({ name, title, default: chosen }) =>
        element("option", { value: name, selected: chosen }, title)));
      select.disabled = listed.length < 2;
      return listed;
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      await back();
    }
  }
}

function open(tab) {
  for (const one of tabs) {
    const chosen = one === tab, name = one.getAttribute("aria-controls");
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    document.getElementById(name).hidden = !chosen;
    if (!chosen) parts[name]?.leave();
  }
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
}
