// The first page of `rlm view`: the runs of the folder, with search, filters and a plot. Other logs can be dropped on it.

import { button, h } from "./elements.js";
import { count, dollars, grouped } from "./figures.js";
import { FIGURES, ROWS } from "./finder.js";
import { notesOf, rowOf } from "./run_row.js";
import { RunsPlot } from "./runs_plot.js";

export class Library {
  /** `deeds`: `open(name)`, `asPick(run)`, `choose(files)`, `note(name, change)`; `finder`, `picks`: see there. */
  constructor({ finder, picks, ...deeds }) {
    Object.assign(this, { finder, picks, rows: new Map(), count: 0 });
    this.deeds = { ...deeds, tag: (tag) => finder.choose("tag", tag) };
    this.about = h("p.muted");
    this.start = picks.start();
    this.problem = h("p.note", { role: "alert", hidden: true });
    this.plot = new RunsPlot((open) => finder.ask({ plot: open ? "yes" : "", count: finder.query.count }));
    this.totals = h("p.totals", { role: "status" });
    this.heads = h("div.heads", { role: "group", "aria-label": "Sort by" });
    this.list = h("ol.runs");
    this.foot = h("div.list-foot");
    this.page = h("div.library", {}, this.head(), this.problem, finder.element, this.plot.element, this.totals, this.heads, this.list, this.foot);
    this.element = h("main.scroller", {}, this.page);
  }

  head() {
    const input = h("input", { type: "file", accept: ".jsonl", multiple: true, hidden: true });
    input.addEventListener("change", () => this.deeds.choose([...input.files]));
    return h(
      "header.library-head",
      {},
      h("div", {}, h("h1", { tabindex: "-1" }, "Runs"), this.about),
      h(
        "div.library-open",
        {},
        button("Open a .jsonl …", () => input.click(), { class: "primary", "data-stop": true }),
        h("span.muted", {}, "or drop the file on this page"),
        this.start,
        input,
      ),
    );
  }

  /** Show what the server gave. `runs` is null before that. */
  update({ folder, runs, count: all = 0, found = 0, cost = 0, states = {}, models = [], tags = [], points = null, problem }) {
    this.problem.hidden = !problem;
    this.problem.textContent = problem ?? "";
    if (runs === null) return;
    const many = all > 1;
    this.about.textContent = `${folder} · ${count(all, "log")}`;
    this.start.hidden = !many;
    this.mark();
    for (const part of [this.finder.element, this.heads, this.plot.element, this.totals]) part.hidden = !many;
    this.finder.offer({ model: models, tag: tags });
    this.totals.textContent = totalsOf(found, states, cost);
    this.setWidths();
    this.drawHeads();
    this.drawRows(runs, many);
    this.plot.draw(points);
    this.drawFoot(runs.length, found, all);
  }

  /** Show which runs are chosen. */
  mark() {
    this.start.mark();
    for (const box of this.list.querySelectorAll(".pick")) box.mark();
  }

  /** The columns of the heads and of the rows have the same widths. */
  setWidths() {
    const widths = this.finder.columns.map((name) => (name === "model" ? 150 : 84));
    this.page.style.setProperty("--tracks", widths.map((width) => `${width}px`).join(" ") || "0");
    this.page.style.setProperty("--figures", `${widths.reduce((sum, width) => sum + width + 10, 0)}px`);
  }

  drawHeads() {
    const { finder } = this;
    const head = (name, words) => {
      const sorted = finder.query.sort === name;
      const order = finder.query.descending === "yes" ? "descending" : "ascending";
      const sign = sorted && h("span", { "aria-hidden": "true" }, order === "descending" ? " ↓" : " ↑");
      const label = sorted ? `${words}, ${order}` : words;
      return button([words, sign].filter(Boolean), () => finder.sort(name), {
        class: "head", "data-head": name, "aria-pressed": String(sorted), "aria-label": label,
      });
    };
    const held = this.heads.getRootNode().activeElement?.dataset?.head;
    const shown = FIGURES.filter(([name]) => finder.columns.includes(name));
    this.heads.replaceChildren(
      h("span", {}, head("began", "Began"), head("state", "State"), head("question", "Question")),
      h("span.run-figures", {}, shown.map(([name, words]) => head(name, words))),
    );
    if (held) this.heads.querySelector(`[data-head="${held}"]`)?.focus({ preventScroll: true });
  }

  /** Rows that did not change stay, with what is open in them. */
  drawRows(runs, many) {
    const before = this.rows;
    this.rows = new Map();
    for (const run of runs) {
      const text = JSON.stringify([run, this.finder.columns, many]);
      const old = before.get(run.name);
      const editing = old?.item.querySelector(".note-box:not([hidden])");
      const same = old && (old.text === text || editing);
      this.rows.set(run.name, same ? old : { text, item: this.item(run, many) });
    }
    let place = this.list.firstChild;
    const held = this.list.getRootNode().activeElement;
    const name = this.list.contains(held) ? held.closest(".run-item").querySelector(".run-row").dataset.name : null;
    for (const { item } of this.rows.values()) {
      if (item === place) place = place.nextSibling;
      else this.list.insertBefore(item, place);
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
    if (name && !held.isConnected) this.list.querySelector(`[data-name="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
  }

  item(run, many) {
    return h("li.run-item", {}, rowOf(run, this.finder.columns, this.deeds), notesOf(run, this.deeds), many && this.picks.box(this.deeds.asPick(run), run.name));
  }

  drawFoot(shown, found, all) {
    const { finder } = this;
    const left = found - shown;
    const more = () => finder.ask({ count: shown + ROWS });
    const parts = [];
    if (!all) parts.push(h("p.empty.muted", {}, "This folder has no log yet. New runs appear here automatically."));
    else if (!found) parts.push(h("p.empty.muted", {}, "No run is like that."));
    if (left > 0) parts.push(button(`Show ${grouped(Math.min(ROWS, left))} more of ${grouped(found)}`, more, { class: "quiet", "data-stop": true }));
    const held = this.foot.contains(this.foot.getRootNode().activeElement);
    this.foot.replaceChildren(...parts);
    if (held) this.foot.querySelector("button")?.focus({ preventScroll: true });
  }
}

function totalsOf(found, states, cost) {
  const counts = STATES.filter((state) => states[state]).map((state) => `${grouped(states[state])} ${state}`);
  return [count(found, "run"), counts.join(", "), cost > 0 && `${dollars(cost)} of known cost`].filter(Boolean).join(" · ");
}

/** Accept files that are dropped on the page. */
export function receiveDrops(target, choose) {
  const files = (event) => event.dataTransfer?.types?.includes("Files");
  target.addEventListener("dragover", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    target.classList.add("dropping");
  });
  target.addEventListener("dragleave", () => target.classList.remove("dropping"));
  target.addEventListener("drop", (event) => {
    target.classList.remove("dropping");
    if (!files(event)) return;
    event.preventDefault();
    choose([...event.dataTransfer.files]);
  });
}
