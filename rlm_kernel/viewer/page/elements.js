// Building of the page, element by element. This is the only way anything gets onto it: strings become text nodes whose
// controls are shown by their names, and no module sets markup, so nothing that a model or a kernel wrote can become an
// element, or look like something else.

import { nodesOf } from "./foreign_text.js";

const SVG = "http://www.w3.org/2000/svg";
const ACTIVE = /^(?:on|src.|href|action|formaction|xlink)/i; // no value of these is text
const PICTURE = /^data:image\//;

/** An element: `h("div.note", {title: "…"}, "text", child)`. Functions become listeners, null and false are left out. */
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElement(tag), classes, attributes, children);
}

/** The same for drawings. */
export function s(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElementNS(SVG, tag), classes, attributes, children);
}

function filled(element, classes, attributes, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) {
      if (ACTIVE.test(key) || (key === "src" && !PICTURE.test(value))) throw new Error(`${key} could act`);
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child instanceof Node) element.append(child);
    else if (child !== null && child !== undefined && child !== false) element.append(...nodesOf(String(child)));
  }
  return element;
}

/** A button that says what it does, also to those who do not see its sign. */
export function button(label, act, attributes = {}) {
  return h("button", { type: "button", click: act, ...attributes }, label);
}

/**
 * A part that is folded away, and built when it is opened for the first time: of 600 sub-calls most are never looked at.
 * `memory` is the set of keys that are open, so that a part that is drawn anew while a log grows stays as it was.
 */
export function fold(memory, key, summary, build, attributes = {}) {
  const fill = () => {
    if (details.childElementCount === 1) details.append(...[build()].flat());
  };
  // Filled with the click that unfolds it: the event of the unfolding comes a moment later, and it would open empty.
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
