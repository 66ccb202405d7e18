// One colour for each expression.

const SPARE = ["#d23c35", "#5c8a21", "#8a4fc8", "#b98500", "#2f6fd0", "#d1661a", "#737b87", "#a8508f"];
// On pictures, whose backgrounds are of any colour, and on dark ground: brighter ones.
const BRIGHT = {
  Angry: "#ff6b61", Disgust: "#9ccc4e", Fear: "#b98cf0", Happy: "#ffcf3f",
  Sad: "#6ea8ff", Surprise: "#ff9f4a", Neutral: "#c3cad4", Contempt: "#dd8fc6",
};

// The colour on the page, which is light or dark. Names that models of other data may have get a colour too.
export function colour(expression) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${expression}`).trim() || spare(expression);
}

export const bright = (expression) => BRIGHT[expression] ?? spare(expression);

function spare(expression) {
  let sum = 0;
  for (const letter of expression) sum += letter.codePointAt(0);
  return SPARE[sum % SPARE.length];
}
