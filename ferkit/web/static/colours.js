// One colour for each expression.

// For up to 20 names that models of other data may have: none is one of style.css.
const SPARE = [
  "#0f9d8a", "#c2407f", "#7a5c2e", "#5a6fd8", "#9a8f00", "#b0563b", "#3f8fb8", "#7d8f5a", "#c77dbb", "#2f7d4f",
  "#8d6bd1", "#d08a4a", "#5f7f9f", "#a83a5a", "#6aa84f", "#4f5bb0", "#b5a05a", "#8c4a8c", "#3aa0a0", "#a06a5a",
];
const given = new Map(); // of these, to the names that came first
// On pictures, whose backgrounds are of any colour, and on dark ground: brighter ones.
const BRIGHT = {
  Angry: "#ff6b61", Disgust: "#9ccc4e", Fear: "#b98cf0", Happy: "#ffcf3f",
  Sad: "#6ea8ff", Surprise: "#ff9f4a", Neutral: "#c3cad4", Contempt: "#dd8fc6",
};

// The colour on the page, which is light or dark.
export function colour(expression) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${expression}`).trim() || spare(expression);
}

export const bright = (expression) => BRIGHT[expression] ?? spare(expression);

function spare(expression) {
  if (!given.has(expression)) given.set(expression, SPARE[given.size % SPARE.length]);
  return given.get(expression);
}
