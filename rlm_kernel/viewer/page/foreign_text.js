// Text of a model or a kernel, as nodes that only show it.
//
// Terminal colours become classes. Other escape sequences are dropped, and of a progress bar only the last state is
// kept. Control and text-direction characters, which could make a text look like another one, are shown by their
// names. Everything becomes text nodes.

const ESCAPES = new RegExp(
  "(?:\\u001b\\]|\\u009d)[^\\u0007\\u001b\\u009c]*(?:\\u0007|\\u001b\\\\|\\u009c)" + // window titles, links, the clipboard
    "|(?:\\u001b[PX^_]|[\\u0090\\u0098\\u009e\\u009f])[^\\u001b\\u009c]*(?:\\u001b\\\\|\\u009c)" + // to the device
    "|(?:\\u001b\\[|\\u009b)(?<codes>[0-?]*)[ -/]*(?<end>[@-~])" +
    "|\\u001b[ -/]*[0-~]",
  "g",
);
const DECEPTIVE =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/g;
const SUSPECT =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/;

/** Whether the text holds characters that are not plain text. */
export function isSuspect(text) {
  return SUSPECT.test(text);
}

/** The text as nodes. */
export function nodesOf(text) {
  if (!isSuspect(text)) return [document.createTextNode(text)];
  const nodes = [];
  for (const { piece, style } of coloured(repainted(text))) {
    const parts = visible(piece);
    if (!style) nodes.push(...parts);
    else {
      const span = document.createElement("span");
      span.className = style;
      span.append(...parts);
      nodes.push(span);
    }
  }
  return nodes;
}

/** The text in one line without colours: for lists and headings. */
export function plainLine(text) {
  return text.replace(ESCAPES, "").replace(DECEPTIVE, (sign) => (sign === "\r" ? " " : nameOf(sign)));
}

/** The last visible state of a line that was overwritten with carriage returns. */
function repainted(text) {
  if (!text.includes("\r")) return text;
  const lastPaint = (line) =>
    line
      .split("\r")
      .reverse()
      .find((paint) => paint.trim()) ?? "";
  return text
    .split("\n")
    .map((line) => (line.includes("\r") ? lastPaint(line) : line))
    .join("\n");
}

function* coloured(text) {
  let [from, state] = [0, {}];
  for (const match of text.matchAll(ESCAPES)) {
    if (match.index > from) yield { piece: text.slice(from, match.index), style: classesOf(state) };
    from = match.index + match[0].length;
    if (match.groups.end === "m") state = repaint(state, match.groups.codes);
  }
  if (from < text.length) yield { piece: text.slice(from), style: classesOf(state) };
}

function repaint(state, codes) {
  const numbers = codes.split(/[;:]/).map((code) => Number(code || 0));
  const next = { ...state };
  for (let i = 0; i < numbers.length; i += 1) {
    const code = numbers[i];
    if (code === 0) Object.keys(next).forEach((key) => delete next[key]);
    else if (code === 1) next.bold = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underlined = true;
    else if (code === 22) delete next.bold;
    else if (code === 23) delete next.italic;
    else if (code === 24) delete next.underlined;
    else if (code >= 30 && code <= 37) next.colour = code - 30;
    else if (code >= 90 && code <= 97) next.colour = code - 90;
    else if (code === 39) delete next.colour;
    else if (code === 38 || code === 48) {
      // 256 colours and true colours: the first sixteen have a class, the others are not coloured.
      const colour = numbers[i + 1] === 5 ? numbers[i + 2] : undefined;
      if (code === 38 && colour < 16) next.colour = colour % 8;
      i += numbers[i + 1] === 5 ? 2 : 4;
    }
  }
  return next;
}

function classesOf(state) {
  const classes = ["bold", "italic", "underlined"].filter((name) => state[name]).map((name) => `ansi-${name}`);
  if (state.colour !== undefined) classes.push(`ansi-${state.colour}`);
  return classes.join(" ");
}

function visible(piece) {
  const nodes = [];
  let from = 0;
  for (const match of piece.matchAll(DECEPTIVE)) {
    if (match.index > from) nodes.push(document.createTextNode(piece.slice(from, match.index)));
    from = match.index + 1;
    const sign = document.createElement("span");
    sign.className = "sign";
    sign.textContent = nameOf(match[0]);
    nodes.push(sign);
  }
  if (from < piece.length) nodes.push(document.createTextNode(piece.slice(from)));
  return nodes;
}

function nameOf(sign) {
  const code = sign.charCodeAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}
