// Requests to the server: its token, its errors, and whether it is there at all.

// The server said no. `status` and the message are those of its problem details.
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
  get isOverSoon() {
    return this.status === 429 || this.status === 503;
  }
}

// The server does not answer.
export class Gone extends Error {}

const RETRY = 1500; // milliseconds between two looks whether a server that was gone is back
let token = sessionStorage.getItem("token");
let coming = null; // a promise of the server's return, while it is gone
let asking = null; // a promise of a token, while the user is asked

// The JSON of an answer. body: a Blob or nothing. Throws Refused or Gone.
export async function request(method, path, body = null, signal = null) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { method, body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    back();
    throw new Gone("The server does not answer.");
  }
  if (response.status === 401) {
    await askForToken();
    return request(method, path, body, signal);
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Refused(response.status, problem.detail ?? response.statusText);
  }
  return response.status === 204 ? null : response.json();
}

// Resolves when the server is there, again.
export function back() {
  coming ??= (async () => {
    show("bad", "Server gone, trying again …");
    while (!(await fetch("/api/health").then((response) => response.ok, () => false))) await pause(RETRY);
    show("good", "Connected");
    coming = null;
  })();
  return coming;
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function show(kind, text) {
  const pill = document.querySelector("#connection");
  pill.className = `pill ${kind}`;
  pill.textContent = text;
}

function askForToken() {
  const dialog = document.querySelector("#token-dialog");
  asking ??= new Promise((resolve) => {
    document.querySelector("#token-wrong").hidden = !token;
    document.querySelector("#token").value = "";
    dialog.showModal();
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    document.querySelector("#token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      token = document.querySelector("#token").value.trim();
      sessionStorage.setItem("token", token);
      dialog.close();
      asking = null;
      resolve();
    }, { once: true });
  });
  return asking;
}
