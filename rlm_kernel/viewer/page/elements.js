// Builds the page from elements. This is the only way to add something to it: strings become text nodes, with control
// characters shown by their names, and no module sets markup. So foreign text can neither become an element nor look
// like something else.

import { nodesOf } from "./foreign_text.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const SVG = "http://www.w3.org/2000/svg";
const ACTIVE = /^(?:on|src.|href|action|formaction|xlink)/i; // attributes whose values are not plain text
const PICTURE = /^data:image\//;

/** An element: `h("div.note", {title: "…"}, "text", child)`. Functions become listeners, null and false are left out. */
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElement(tag), classes, attributes, children);
}

/** An SVG element, see `h`. */
export function s(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElementNS(SVG, tag), classes, attributes, children);
}

/** A MathML element, see `h`. */
export function m(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(MATHML, tag), [], attributes, children);
}

function filled(element, classes, attributes, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) {
      if ((ACTIVE.test(key) && !(key === "href" && value.startsWith("#"))) || (key === "src" && !PICTURE.test(value))) throw new Error(`${key} could act`);
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child instanceof Node) element.append(child);
    else if (child !== null && child !== undefined && child !== false) element.append(...nodesOf(String(child)));
  }
  return element;
}

/** A button with a label for screen readers. */
export function button(label, act, attributes = {}) {
  return h("button", { type: "button", click: act, ...attributes }, label);
}

/** A link to a part of the page, or null where the page has no addresses. `link(part)` gives the address. */
export function linkTo({ link }, part, words) {
  return link && h("a.here", { href: link(part), "aria-label": words, title: words }, "#");
}

/**
 * A folded part that is built when it is first opened: of 600 sub-calls most are never opened. `memory` is the set of
 * open keys, so that a part keeps its state when it is drawn again while the log grows.
 */
export function fold(memory, key, summary, build, attributes = {}) {
  const fill = () => {
    if (details.childElementCount === 1) details.append(...[build()].flat());
  };
  // Built on the click, because the `toggle` event comes later and the part would open empty.
  const details = h(
    "details",
    { "data-key": key, ...attributes },
    h("summary", { "data-stop": true, click: fill }, summary),
  );
  details.unfold = () => {
    fill();
    details.open = true;
    memory.add(key);
  };
  details.addEventListener("toggle", () => {
    if (details.open) details.unfold();
    else memory.delete(key);
  });
  if (memory.has(key)) details.unfold();
  return details;
}

/** Open or close the part whose summary has the focus; false if there is none. */
export function folded(from, open) {
  const details = from.closest?.("summary")?.parentElement;
  if (!details?.unfold || details.open === open) return false;
  if (open) details.unfold();
  else details.open = false;
  return true;
}
