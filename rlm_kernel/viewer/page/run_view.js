// One run on the page: the outline, the overview, the turns, and the updates while the log grows.

import { stepsBelow } from "./addresses.js";
import { button, h } from "./elements.js";
import { count, firstWords } from "./figures.js";
import { keepingFocus } from "./focus.js";
import { markIn } from "./found.js";
import { plainLine } from "./foreign_text.js";
import { outlineOf } from "./outline.js";
import { overviewOf } from "./overview.js";
import { patternOf } from "./search.js";
import { turnCard } from "./turn_card.js";

const AT_ONCE = 10;
const TREE = "tree"; // in the memory of a run: whether the tree is unfolded on a narrow page

export class RunView {
  /**
   * `deeds`: `enter(...children)`, `leave(depth)`, `choose(place)` of the log's runs, `follow()`, `went(part)` of the
   * run, `link(part)`: its address, or null where there are none; `picks`: the runs that are compared.
   */
  constructor(entry, deeds) {
    Object.assign(this, { entry, deeds, run: entry.run, memory: entry.memoryOf(entry.run) });
    this.side = h("nav.side", { "aria-label": "Turns" });
    this.head = h("div.run-head");
    this.turns = h("div.turns");
    this.scroller = h("main.scroller", {}, this.head, this.turns);
    this.element = h("div.run", {}, this.side, this.scroller);
    this.seen = new IntersectionObserver(() => this.spy(), { root: this.scroller, threshold: [0, 0.2] });
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.ways = { enter: (...children) => deeds.enter(...children), link: deeds.link };
    this.drawHead();
    this.build(AT_ONCE);
    this.buildRest();
    this.run.changed.clear();
  }

  /** Stop following when the user scrolls away from the end. */
  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const away = scrollHeight - scrollTop - clientHeight > clientHeight / 2;
    if (away && this.entry.live && this.entry.following && this.entry.loaded) {
      this.entry.following = false;
      this.drawSide();
    } else this.spy();
  }

  /** Draw the rest of a long run after its first turns are on the screen. */
  buildRest() {
    if (this.turns.childElementCount >= this.run.turns.length) return;
    setTimeout(() => {
      if (!this.element.isConnected) return;
      this.build(AT_ONCE);
      this.buildRest();
    });
  }

  build(most) {
    const from = this.turns.childElementCount;
    for (const turn of this.run.turns.slice(from, from + most)) this.turns.append(this.card(turn));
  }

  card(turn) {
    const card = turnCard(this.run, turn, this.memory, this.ways);
    this.seen.observe(card);
    return card;
  }

  drawHead() {
    const { entry, run } = this;
    const lost = entry.lost && h("p.note", { role: "alert" }, "The log has no such place as the address names.");
    const parts = [lost, this.crumbs(), overviewOf(run, entry, this.memory)].filter(Boolean);
    keepingFocus(this.head, () => this.head.replaceChildren(...parts));
    this.drawSide();
  }

  drawSide() {
    const { entry, deeds } = this;
    const follow =
      entry.live &&
      button(entry.following ? "Following" : "Follow", () => deeds.follow(), {
        class: "quiet follow",
        "aria-pressed": String(entry.following),
      });
    const open = this.memory.has(TREE);
    const unfold = button("Outline", () => this.unfold(!open), { class: "quiet tree", "aria-expanded": String(open) });
    this.side.classList.toggle("side-open", open);
    const ways = { go: (place) => this.choose(place), enter: this.ways.enter, tree: this.tree() };
    const parts = [follow, unfold, this.chosen(), outlineOf(this.run, ways, this.memory)].filter(Boolean);
    keepingFocus(this.side, () => this.side.replaceChildren(...parts));
    this.spy();
  }

  /** On a narrow page the outline is a strip of turns; unfolded, it is the whole tree with the children. */
  unfold(open) {
    this.memory[open ? "add" : "delete"](TREE);
    this.drawSide();
    this.side.querySelector(".tree").focus();
  }

  /** The boxes of the runs of the tree: `box(...path below this run)`. None where there is nothing to compare. */
  tree() {
    const { entry, deeds, run } = this;
    const isTree = entry.path.length > 0 || run.turns.some((turn) => turn.children.length > 0);
    if (!isTree && !deeds.picks.chosen.length) return null;
    const known = new Map(); // of each run, the steps to its children
    const stepOf = (parent, child) => {
      if (!known.has(parent)) known.set(parent, stepsBelow(parent));
      return known.get(parent).get(child);
    };
    const box = (...path) => {
      const way = [entry.log.runs[entry.place], ...entry.path, ...path];
      const steps = way.slice(1).map((child, depth) => stepOf(way[depth], child));
      const { source, upload, place } = entry;
      return deeds.picks.box({ source, upload, place, steps }, path.length ? path.at(-1).title : "this run");
    };
    return { box };
  }

  /** What is chosen to be compared. */
  chosen() {
    const { picks } = this.deeds;
    if (!picks.chosen.length) return null;
    const clear = button("Clear", () => picks.clear(), { class: "link" });
    return h("div.chosen", {}, picks.start(), clear);
  }

  /** The path of this run in the tree of runs, as links. */
  crumbs() {
    const { entry, deeds } = this;
    const runs = entry.log.runs;
    const parts = [];
    if (runs.length > 1) {
      const select = h(
        "select",
        { "aria-label": "Run of this log", change: () => deeds.choose(Number(select.value)) },
        runs.map((run, place) =>
          h("option", { value: place }, `${run.title} of ${runs.length}: ${plainLine(firstWords(run.question, 60))}`),
        ),
      );
      select.value = String(entry.place);
      parts.push(select);
    }
    if (entry.path.length)
      parts.push(
        button(runs[entry.place].title.replace(/^Run 1$/, "The run"), () => deeds.leave(0), { class: "link" }),
      );
    entry.path.forEach((child, depth) => {
      const last = depth === entry.path.length - 1;
      parts.push(
        h("span.muted", { "aria-hidden": "true" }, "›"),
        last
          ? h("span", { "aria-current": "page" }, child.title)
          : button(child.title, () => deeds.leave(depth + 1), { class: "link" }),
      );
    });
    return parts.length > 0 && h("nav.crumbs", { "aria-label": "Tree of runs" }, parts);
  }

  /** Draw what was added to the log. */
  update() {
    const changed = [...this.run.changed];
    this.run.changed.clear();
    for (const turn of changed) {
      const old = this.turns.children[turn.place];
      if (old) this.replace(old, turn);
    }
    this.buildRest();
    this.drawHead();
    if (changed.length && this.entry.loaded && this.entry.live && this.entry.following) this.toTheEnd();
    return changed.length > 0 ? `${count(this.run.turns.length, "turn")} so far` : "";
  }

  replace(old, turn) {
    this.seen.unobserve(old);
    keepingFocus(old, () => {
      const card = this.card(turn);
      old.replaceWith(card);
      return card;
    });
  }

  toTheEnd() {
    this.build(Infinity);
    this.scroller.scrollTo({ top: this.scroller.scrollHeight });
  }

  /** Where the page is scrolled to: pixels below the top of a turn, or of the page: -1. */
  get spot() {
    const turn = this.turnInView();
    return { turn, by: turn < 0 ? this.scroller.scrollTop : this.below(turn) };
  }

  set spot({ turn, by }) {
    if (turn >= this.turns.childElementCount) this.build(turn + AT_ONCE);
    this.scroller.scrollTop = turn < 0 ? by : this.scroller.scrollTop - this.below(turn) + by;
  }

  below(turn) {
    return this.scroller.getBoundingClientRect().top - this.turns.children[turn].getBoundingClientRect().top;
  }

  choose(place) {
    if (this.memory.delete(TREE)) this.drawSide();
    this.deeds.went({ turn: place });
    this.go(place);
  }

  /** Show the part of an address. */
  arrive(hit) {
    this.go(hit.turn);
    if (hit.cell === undefined) return;
    const area = this.area(hit);
    area.querySelector("summary, [tabindex]")?.focus({ preventScroll: true });
    area.scrollIntoView({ block: "start" });
  }

  /** Show a turn, -1 the overview, and give it the focus. */
  go(place) {
    if (place >= this.turns.childElementCount) this.build(place + 1 - this.turns.childElementCount);
    const heading = this.scroller.querySelector(`[data-turn="${place}"]`);
    heading?.focus({ preventScroll: true });
    if (place < 0) this.scroller.scrollTo({ top: 0 });
    else heading?.scrollIntoView({ block: "start" });
  }

  /** Show a search hit: open the parts around it, scroll to it, mark it. */
  reveal(hit, words) {
    this.go(hit.turn);
    const area = this.area(hit);
    const pattern = patternOf(words);
    const frames = [...area.querySelectorAll(".passage")].map((pre) => pre.parentElement);
    const pre = frames.find((frame) => frame.holds(pattern))?.firstChild;
    area.querySelector("summary, [tabindex]")?.focus({ preventScroll: true });
    (pre ? markIn(pre, pattern) : area).scrollIntoView({ block: "center" });
  }

  area(hit) {
    const card = hit.turn < 0 ? this.head : this.turns.children[hit.turn];
    const key = `turn ${hit.turn}`;
    const unfolded = (name) => {
      const details = card.querySelector(`[data-key="${name}"]`);
      details?.unfold();
      return details ?? card;
    };
    if (hit.part === "messages" || hit.part === "summary") return unfolded(`${key}/${hit.part}`);
    const cell = `${key}/cell ${hit.cell}`;
    if (hit.part === "cell") return card.querySelector(`[data-cell="${cell}"]`) ?? card;
    if (hit.part === "tool") return unfolded(`${cell}/tool ${hit.place}`);
    if (hit.part === "call") return card.querySelector(`[data-key="${cell}/calls"]`).reveal(hit.place);
    return card;
  }

  /** The place of the turn at the top of the page, -1 for the overview. */
  turnInView() {
    const top = this.scroller.getBoundingClientRect().top + 120;
    return [...this.turns.children].findLastIndex((card) => card.getBoundingClientRect().top <= top);
  }

  /** Mark the visible turn in the outline. */
  spy() {
    const passed = this.turnInView();
    for (const item of this.side.querySelectorAll("[data-go]")) {
      const current = Number(item.dataset.go) === passed;
      if (current === item.hasAttribute("aria-current")) continue;
      if (current) item.setAttribute("aria-current", "true");
      else item.removeAttribute("aria-current");
      if (current) keepInSight(item, this.side);
    }
  }
}

function keepInSight(item, side) {
  const [box, view] = [item.getBoundingClientRect(), side.getBoundingClientRect()];
  if (box.top < view.top || box.bottom > view.bottom) side.scrollTop += box.top - view.top - view.height / 2;
  if (box.left < view.left || box.right > view.right) side.scrollLeft += box.left - view.left - view.width / 2;
}
