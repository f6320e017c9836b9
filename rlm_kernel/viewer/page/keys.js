// Keyboard control of the whole page, and the list of keys that `?` shows.

import { button, h } from "./elements.js";

export const KEYS = [
  [["j", "k"], "next or previous turn; in the list, run"],
  [["↓", "↑"], "next or previous part that opens"],
  [["→", "←"], "open or close a part"],
  [["Enter"], "open or close the selected part"],
  [["x", "c"], "in the list or the outline: choose a run, compare the two"],
  [["Esc"], "back: leave the search, the child run or the run"],
  [["/"], "search this run, or the list"],
  [["[", "]"], "previous or next open log"],
  [["f"], "follow a run in progress, or stop following"],
  [["t"], "light or dark colours"],
  [["?"], "show the keys"],
];

/** Handle keys. `deeds` maps a key to its action; an action that returns false leaves the key to the browser. */
export function listen(target, deeds) {
  target.addEventListener("keydown", (event) => {
    const [from] = event.composedPath();
    if (event.ctrlKey || event.metaKey || event.altKey || typing(from) || from.closest?.("dialog")) return;
    const deed = deeds[NAMES[event.key] ?? event.key];
    if (!deed || deed(from) === false) return;
    event.preventDefault();
    event.stopPropagation();
  });
}

const NAMES = { ArrowDown: "↓", ArrowUp: "↑", ArrowRight: "→", ArrowLeft: "←", Escape: "Esc" };

function typing(element) {
  return element instanceof HTMLTextAreaElement || (element instanceof HTMLInputElement && element.type !== "checkbox");
}

/** The dialog that shows the keys. */
export function keysDialog() {
  const dialog = h("dialog.keys", { "aria-labelledby": "rlm-keys-title" });
  const row = ([keys, words]) =>
    h(
      "div",
      {},
      h(
        "dt",
        {},
        keys.map((key) => h("kbd", {}, key)),
      ),
      h("dd", {}, words),
    );
  const close = button("Close", () => dialog.close(), { class: "quiet" });
  dialog.append(h("h2", { id: "rlm-keys-title" }, "Keys"), h("dl", {}, KEYS.map(row)), close);
  return dialog;
}

/** Move the focus to the next stop; if that is out of view, scroll towards it instead. */
export function walk(scroller, selector, by, { jump = false } = {}) {
  const stops = [...scroller.querySelectorAll(selector)].filter((stop) => stop.offsetParent !== null);
  const active = scroller.getRootNode().activeElement;
  const view = scroller.getBoundingClientRect();
  const visible = active && scroller.contains(active) && inside(active, view);
  const here = visible ? stops.findIndex((stop) => stop === active || stop.contains(active)) : -1;
  let next = here >= 0 ? stops[here + by] : from(stops, active, view, by);
  if (!visible && next === undefined) next = by > 0 ? stops.at(-1) : stops[0];
  if (!next) return;
  if (!jump && !inside(next, view)) {
    scroller.scrollBy({ top: by * Math.min(160, view.height / 3) });
    if (!inside(next, view)) return;
  }
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: jump ? "start" : "nearest" });
}

/** If nothing in view has the focus: the first stop below the upper edge, or the last one above it. */
function from(stops, active, view, by) {
  const below = stops.findIndex((stop) => stop.getBoundingClientRect().top >= view.top - 1);
  if (by > 0) return stops[below];
  return below < 0 ? stops.at(-1) : stops[Math.max(0, below - 1)];
}

function inside(element, view) {
  const box = element.getBoundingClientRect();
  return box.bottom > view.top && box.top < view.bottom;
}
