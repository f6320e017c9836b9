// The two runs that are compared: of the list, of the tree of children, or one of each.

import { button, h } from "./elements.js";

export class Picks {
  /** `compare(left, right)`: shows two runs side by side; each is `{ source, upload, place, steps }`. */
  constructor(compare) {
    Object.assign(this, { chosen: [], compare, changed: () => {} });
  }

  get isFull() {
    return this.chosen.length === 2;
  }

  has(run) {
    return this.chosen.some((one) => keyOf(one) === keyOf(run));
  }

  /** Choose a run, or leave it out again. */
  pick(run) {
    const there = this.has(run);
    if (!there && this.isFull) return;
    this.chosen = there ? this.chosen.filter((one) => keyOf(one) !== keyOf(run)) : [...this.chosen, run];
    this.changed();
  }

  clear() {
    this.chosen = [];
    this.changed();
  }

  /** Compare the two. Of two runs of the list the older one is the left one, else the one that was chosen first. */
  go() {
    if (!this.isFull) return false;
    const [one, other] = this.chosen;
    return this.compare(...(one.modified > other.modified ? [other, one] : [one, other]));
  }

  /** The box of a run. `words`: its name for people who do not see it. */
  box(run, words) {
    const input = h("input", { type: "checkbox", "aria-label": `Compare ${words}`, title: "Compare (x)" });
    input.addEventListener("change", () => this.pick(run));
    const box = h("label.pick", {}, input);
    box.mark = () => {
      input.checked = this.has(run);
      input.disabled = this.isFull && !input.checked;
    };
    box.mark();
    return box;
  }

  /** The button that compares, and what is missing before. */
  start() {
    const words = () => ["Compare two runs", "Compare: choose one more", "Compare the two (c)"][this.chosen.length];
    const start = button("", () => this.go(), { class: "quiet" });
    start.mark = () => {
      start.disabled = !this.isFull;
      start.textContent = words();
    };
    start.mark();
    return start;
  }
}

function keyOf({ source, upload, place = 0, steps = [] }) {
  return JSON.stringify([source.name, source.place, upload, place, steps]);
}
