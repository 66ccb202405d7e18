// Making elements of the page.

const SVG = "http://www.w3.org/2000/svg";
const OF_SVG = new Set(["svg", "path", "rect", "line", "text", "g", "title"]);

// An element with attributes and children. Attributes that are null or false are left out; "on…" are listeners.
export function element(tag, attributes = {}, ...children) {
  const made = OF_SVG.has(tag) && !(tag === "title" && attributes.html)
    ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
