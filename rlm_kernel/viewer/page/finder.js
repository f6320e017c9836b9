// What is asked of the list of runs: search, filters, order and columns, and the elements to set them.

import { button, h } from "./elements.js";

export const ROWS = 100;
const PLACE = "rlm-viewer-columns";
const PAUSE = 150; // milliseconds after a key, before the server is asked

/** The columns of figures that a person may show: name, words, whether they are shown at first. */
export const FIGURES = [
  ["model", "Model", true],
  ["environment", "Place", false],
  ["seconds", "Time", true],
  ["turns", "Turns", false],
  ["calls", "Calls", false],
  ["tokens", "Tokens", true],
  ["cost", "Cost", true],
  ["size", "Size", false],
];

export class Finder {
  constructor(states) {
    Object.assign(this, { query: { sort: "began", descending: "yes", count: ROWS }, isAsking: false, wake: null });
    this.columns = remembered() ?? FIGURES.filter(([, , first]) => first).map(([name]) => name);
    this.search = this.input("search", "search", "Search", { placeholder: "Search questions, answers, notes …" });
    this.choices = {
      state: this.select("state", "Any state"),
      model: this.select("model", "Any model"),
      tag: this.select("tag", "Any tag"),
      thumb: this.select("thumb", "Any thumb"),
    };
    this.offer({ state: states, thumb: ["up", "down"] });
    this.clear = button("Clear", () => this.reset(), { class: "link", hidden: true });
    this.element = h("div.finder", { role: "search" }, this.search, ...Object.values(this.choices), this.more(), this.clear);
  }

  /** Where the server gives what is asked. */
  get address() {
    const given = Object.entries(this.query).filter(([, value]) => value !== "");
    return `logs?${new URLSearchParams(given)}`;
  }

  /** Whether anything is filtered. */
  get isFiltered() {
    return Object.entries(this.query).some(([name, value]) => !OWN.includes(name) && value !== "");
  }

  /** Resolves when something else is asked. */
  asked() {
    if (this.isAsking) return Promise.resolve();
    return new Promise((resolve) => (this.wake = resolve));
  }

  ask(change = {}) {
    Object.assign(this.query, { count: ROWS }, change);
    this.clear.hidden = !this.isFiltered;
    this.isAsking = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.wake?.(), PAUSE);
  }

  /** Sort by a column; the same column once more: in the other order. */
  sort(name) {
    const again = this.query.sort === name;
    const first = ["question", "model", "state", "environment"].includes(name) ? "no" : "yes";
    const turned = this.query.descending === "yes" ? "no" : "yes";
    this.ask({ sort: name, descending: again ? turned : first });
  }

  reset() {
    for (const name of Object.keys(this.query)) if (!OWN.includes(name)) this.query[name] = "";
    for (const input of this.element.querySelectorAll("[data-query]")) input.value = "";
    this.ask();
    this.search.focus();
  }

  /** Set a filter from elsewhere on the page. */
  choose(name, value) {
    this.offer({ [name]: [...new Set([...[...this.choices[name].options].slice(1).map((one) => one.value), value])] });
    this.choices[name].value = value;
    this.ask({ [name]: value });
  }

  /** The values that a filter may have; the chosen one stays. */
  offer(choices) {
    for (const [name, values] of Object.entries(choices)) {
      const select = this.choices[name];
      const known = [...select.options].slice(1).map((option) => option.value);
      if (known.join("\n") === values.join("\n")) continue;
      const chosen = select.value;
      const shown = chosen && !values.includes(chosen) ? [chosen, ...values] : values;
      select.replaceChildren(select.options[0], ...shown.map((value) => h("option", { value }, value)));
      select.value = chosen;
    }
  }

  /** Dates, costs and columns, folded. */
  more() {
    const field = (name, type, words, attributes) => h("label", {}, words, this.input(name, type, words, attributes));
    const column = ([name, words]) => {
      const box = h("input", { type: "checkbox" });
      box.checked = this.columns.includes(name);
      box.addEventListener("change", () => this.show(name, box.checked));
      return h("label", {}, box, words);
    };
    const dollars = { min: "0", step: "any", placeholder: "$" };
    return h(
      "details.more",
      {},
      h("summary", { "data-stop": true }, "Dates, cost, columns"),
      h(
        "div.more-fields",
        {},
        field("since", "date", "From"),
        field("until", "date", "To"),
        field("min_cost", "number", "Cost from", dollars),
        field("max_cost", "number", "to", dollars),
        h("fieldset.columns", {}, h("legend", {}, "Columns"), FIGURES.map(column)),
      ),
    );
  }

  show(name, shown) {
    const kept = this.columns.filter((other) => other !== name);
    this.columns = FIGURES.map(([one]) => one).filter((one) => kept.includes(one) || (shown && one === name));
    remember(this.columns);
    this.ask();
  }

  input(name, type, words, attributes = {}) {
    const input = h("input", { type, "data-query": name, "aria-label": words, ...attributes });
    input.addEventListener("input", () => this.ask({ [name]: input.value.trim() }));
    return input;
  }

  select(name, words) {
    const select = h("select", { "data-query": name, "aria-label": words }, h("option", { value: "" }, words));
    select.addEventListener("change", () => this.ask({ [name]: select.value }));
    return select;
  }
}

const OWN = ["sort", "descending", "count", "plot"];

function remembered() {
  try {
    const names = JSON.parse(localStorage.getItem(PLACE));
    return Array.isArray(names) ? FIGURES.map(([name]) => name).filter((name) => names.includes(name)) : null;
  } catch {
    return null; // a sandboxed page has no storage
  }
}

function remember(names) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(names));
  } catch {
    // The columns are shown on this page all the same.
  }
}
