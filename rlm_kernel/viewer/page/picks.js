// The two runs of the list that are compared.

import { button, h } from "./elements.js";

export class Picks {
  /** `compare(left, right)`: shows two logs, by their names, side by side. */
  constructor(compare) {
    Object.assign(this, { names: [], compare });
    this.start = button("", () => this.go(), { class: "quiet" });
    this.boxes = new Map();
    this.times = new Map();
    this.mark();
  }

  /** The box of a run; the older of two is the left one. */
  box({ name, modified }) {
    this.times.set(name, modified);
    const box = h("input", { type: "checkbox", "aria-label": `Compare ${name}`, title: "Compare (x)" });
    box.addEventListener("change", () => this.pick(name));
    this.boxes.set(name, box);
    this.mark();
    return h("label.pick", {}, box);
  }

  pick(name) {
    const there = this.names.includes(name);
    if (!there && this.names.length === 2) return;
    this.names = there ? this.names.filter((other) => other !== name) : [...this.names, name];
    this.mark();
  }

  go() {
    if (this.names.length < 2) return false;
    return this.compare(...this.names.toSorted((one, other) => this.times.get(one) - this.times.get(other)));
  }

  mark() {
    const full = this.names.length === 2;
    for (const [name, box] of this.boxes) {
      box.checked = this.names.includes(name);
      box.disabled = full && !box.checked;
    }
    this.start.disabled = !full;
    this.start.textContent = ["Compare two runs", "Compare: choose one more", "Compare the two (c)"][this.names.length];
  }
}
