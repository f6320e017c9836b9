// The viewer: a bar with the open logs, the search and the theme, and below it the list of runs or one run.
//
// It is in a shadow root, so that its styles and those of the page around it (a notebook) do not mix.

import { addressOf } from "./addresses.js";
import { CompareView } from "./compare_view.js";
import { Comparison } from "./comparison.js";
import { button, folded, h } from "./elements.js";
import { keysDialog, listen, walk } from "./keys.js";
import { Library, receiveDrops } from "./library.js";
import { OpenLog } from "./open_log.js";
import { waiting } from "./overview.js";
import { watchWidths } from "./passage.js";
import { Picks } from "./picks.js";
import { RunView } from "./run_view.js";
import { hits } from "./search.js";
import { searchBox } from "./search_box.js";
import { ChosenFile } from "./sources.js";
import { tabsOf } from "./tabs.js";
import { nextTheme } from "./theme.js";
import { arrive, visit } from "./visits.js";

export class Viewer {
  /**
   * `library`: what `libraryOf` shows; null if there is only one log. `keyTarget`: the element whose keys count.
   * `addresses`: the history of the browser; null in a notebook, whose address is not ours.
   */
  constructor(host, style, { library = null, keyTarget = host, addresses = null } = {}) {
    Object.assign(this, {
      host,
      library,
      alone: keyTarget !== host,
      addresses,
      entries: [],
      current: null,
      view: null,
      frame: 0,
    });
    this.picks = new Picks((left, right) => this.compare(left, right));
    this.picks.changed = () => this.marked();
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(style);
    root.adoptedStyleSheets = [sheet];
    this.bar = h("header.bar");
    this.body = h("div.body");
    this.status = h("p.unseen", { role: "status" });
    this.dialog = keysDialog();
    this.search = searchBox({
      find: (words) => this.find(words),
      pick: (hit, words) => this.pick(hit, words),
      leave: () => this.focusMain(),
    });
    root.append(h("div.viewer", {}, this.bar, this.body, this.status, this.dialog));
    listen(keyTarget, this.deeds());
    watchWidths(this.body);
    this.body.addEventListener("scrollend", ({ target }) => this.scrolled(target), { capture: true });
    addresses?.listen((place, spot) => visit(this, place, spot));
    if (library) receiveDrops(host, (files) => this.choose(files));
    this.draw();
  }

  deeds() {
    const run = (deed) => () => (this.view ? deed(this.view) : false);
    const scroller = () => this.view?.scroller ?? this.body;
    const large = (by) => () =>
      walk(scroller(), this.view ? "[data-turn]" : ".run-row", by, { jump: Boolean(this.view) });
    const small = (by) => () => walk(scroller(), "[data-stop]", by);
    return {
      j: large(1),
      k: large(-1),
      "↓": (from) => !from.closest?.("select") && small(1)(),
      "↑": (from) => !from.closest?.("select") && small(-1)(),
      "→": (from) => folded(from, true),
      "←": (from) => folded(from, false),
      "/": () => this.toSearch(),
      f: run(() => this.follow()),
      t: () => this.turnTheme(),
      x: (from) => this.tick(from),
      c: () => this.picks.go(),
      "[": () => this.beside(-1),
      "]": () => this.beside(1),
      "?": () => this.dialog.showModal(),
      Esc: () => this.back(),
    };
  }

  toSearch() {
    const box = this.view ? this.search : !this.current && this.library?.finder.search;
    return box ? box.focus() : false;
  }

  /** Open a log, or show it if it is open. */
  open(source) {
    return this.show(this.opened(source));
  }

  opened(source) {
    const there = this.entries.find(
      (entry) => entry.log.name === source.name && entry.source.grows && source.grows,
    );
    return there ?? this.add(new OpenLog(source));
  }

  /** Open the log of a run, and go to the run in it: `{ source, upload, place, steps }`. */
  enter({ source, upload = null, place = 0, steps = [] }) {
    const entry = this.entries.find((one) => upload && one.upload === upload) ?? this.opened(source);
    entry.wanted = { run: place + 1, children: steps, turn: null, cell: null, call: null };
    this.show(entry, false);
    arrive(this);
    this.addresses?.go({ log: entry.log, upload, place, steps });
  }

  /** Show two runs side by side, see `enter`. */
  compare(left, right) {
    return this.show(this.pair(left, right));
  }

  pair(left, right) {
    const entry = new Comparison(left, right);
    return this.entries.find((other) => other.both && other.log.name === entry.log.name) ?? this.add(entry);
  }

  /** Show which runs are chosen to be compared. */
  marked() {
    this.page?.mark();
    if (this.view?.drawSide) this.view.drawSide();
  }

  add(entry) {
    this.entries.push(entry);
    entry.read(() => this.changed(entry));
    return entry;
  }

  tick(from) {
    const box = from.closest?.("li")?.querySelector(":scope > .pick input");
    return box ? box.click() : false;
  }

  choose(files) {
    for (const file of files) {
      const upload = Math.max(0, ...this.entries.map((entry) => entry.upload ?? 0)) + 1;
      this.show(this.add(Object.assign(new OpenLog(new ChosenFile(file)), { upload })));
    }
  }

  /** `travelled`: whether a person went there, and did not come back. */
  show(entry, travelled = true) {
    if (entry !== this.current) this.search.clear();
    this.current = entry;
    this.draw();
    if (travelled) this.went(entry);
    if (this.library) this.addresses?.name(entry);
    this.focusMain();
  }

  went(entry, part) {
    if (entry) Object.assign(entry, { wanted: null, lost: false });
    this.addresses?.go(entry, part);
  }

  scrolled(scroller) {
    if (scroller.matches(".scroller")) this.addresses?.stay(this.view?.spot ?? { turn: -1, by: scroller.scrollTop });
  }

  close(entry) {
    entry.close();
    this.entries = this.entries.filter((other) => other !== entry);
    this.show(this.current === entry ? (this.library ? null : (this.entries[0] ?? null)) : this.current);
  }

  /** Draw new data with the next frame. */
  changed(entry) {
    if (entry !== this.current || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.current !== entry) return;
      if (this.view && this.view.run === entry.run) this.status.textContent = this.view.update();
      else this.draw();
      arrive(this);
    });
  }

  draw() {
    const held = this.body.contains(this.host.shadowRoot.activeElement);
    this.drawBar();
    this.drawBody(this.current);
    if (held) this.focusMain();
  }

  drawBody(entry) {
    if (this.view) this.view.entry.spots.set(this.view.run, this.view.spot);
    this.view = null;
    if (!entry) return this.library ? this.drawLibrary() : this.body.replaceChildren();
    if (!entry.run) return this.body.replaceChildren(waiting(entry));
    this.view = entry.both ? new CompareView(entry, (side) => this.enter(side)) : this.runView(entry);
    this.body.replaceChildren(this.view.element);
    const spot = entry.spots.get(entry.run);
    if (spot) this.view.spot = spot;
    return null;
  }

  runView(entry) {
    return new RunView(entry, {
      enter: (...children) => this.to(entry, [...entry.path, ...children]),
      leave: (depth) => this.to(entry, entry.path.slice(0, depth)),
      choose: (place) => this.to(entry, [], place),
      follow: () => this.follow(),
      went: (part) => this.went(entry, part),
      link: this.addresses && ((part) => addressOf(entry, part)),
      picks: this.picks,
    });
  }

  to(entry, path, place = entry.place) {
    Object.assign(entry, { path, place });
    this.draw();
    this.went(entry);
    this.focusMain();
  }

  drawLibrary() {
    this.page ??= new Library({ ...this.library, picks: this.picks, choose: (files) => this.choose(files) });
    this.page.update(this.library);
    if (this.body.firstChild !== this.page.element) this.body.replaceChildren(this.page.element);
  }

  /** Take the list of runs from the server. */
  shelve(library) {
    Object.assign(this.library, library);
    if (!this.current) this.drawLibrary();
  }

  drawBar() {
    this.bar.replaceChildren(
      ...[
        tabsOf(
          this,
          (entry) => this.show(entry),
          (entry) => this.close(entry),
        ),
        this.current && !this.current.both && this.search,
        button("◐", () => this.turnTheme(), {
          class: "icon",
          "aria-label": "Light or dark colours",
          title: "Light or dark colours (t)",
        }),
        button("?", () => this.dialog.showModal(), { class: "icon", "aria-label": "Keys", title: "Keys (?)" }),
      ].filter(Boolean),
    );
    const current = this.bar.querySelector(".tab-current");
    if (current) this.bar.firstChild.scrollLeft = current.offsetLeft - this.bar.firstChild.offsetLeft;
  }

  find(words) {
    const { log, place } = this.current;
    return log.runs[place] ? hits(log.runs[place], words) : [];
  }

  pick(hit, words) {
    const same =
      hit.path.length === this.current.path.length && hit.path.every((run, depth) => run === this.current.path[depth]);
    if (!same) this.to(this.current, hit.path);
    const call = hit.part === "call" ? hit.place : null;
    this.went(this.current, { turn: hit.turn, cell: hit.cell ?? null, call });
    this.view.reveal(hit, words);
  }

  follow() {
    if (!this.current.live) return false;
    this.current.following = !this.current.following;
    this.view.drawSide();
    if (this.current.following) this.view.toTheEnd();
    return true;
  }

  beside(by) {
    const stops = [...(this.library ? [null] : []), ...this.entries];
    if (stops.length > 1) this.show(stops[(stops.indexOf(this.current) + by + stops.length) % stops.length]);
  }

  back() {
    if (this.current?.path.length) return this.to(this.current, this.current.path.slice(0, -1));
    return this.current && this.library ? this.show(null) : false;
  }

  turnTheme() {
    this.status.textContent = nextTheme(this.host);
  }

  /** Take the focus, but not in a widget: there the page has other parts. */
  focusMain() {
    if (!this.alone && !this.host.shadowRoot.activeElement) return;
    this.body.querySelector("h1")?.focus({ preventScroll: true });
  }
}
