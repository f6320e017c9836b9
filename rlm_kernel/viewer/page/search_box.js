// The search field and its list of hits.

import { h } from "./elements.js";
import { count } from "./figures.js";
import { plainLine } from "./foreign_text.js";

const PATIENCE = 120; // milliseconds after the last key: a search over 10 MB takes a moment

/** The box. `find(words)` gives hits, `pick(hit, words)` goes to one, `leave()` returns the focus. */
export function searchBox({ find, pick, leave }) {
  const list = h("ul.hits", { role: "listbox", id: "rlm-hits", "aria-label": "Search results", hidden: true });
  const status = h("p.hits-count.muted", { role: "status" });
  const input = h("input", {
    type: "search",
    placeholder: "Search",
    "aria-label": "Search this run",
    role: "combobox",
    "aria-expanded": "false",
    "aria-controls": "rlm-hits",
    autocomplete: "off",
    spellcheck: "false",
  });
  const box = h("div.search", {}, input, h("div.hits-panel", { hidden: true }, status, list));
  const panel = box.lastChild;
  const state = { hits: [], chosen: -1, timer: 0 };

  const show = () => {
    const words = input.value.trim();
    state.hits = words ? find(words) : [];
    state.chosen = state.hits.length ? 0 : -1;
    panel.hidden = list.hidden = !words;
    input.setAttribute("aria-expanded", String(!panel.hidden));
    status.textContent = state.hits.length
      ? `${count(state.hits.length, "place")}${state.hits.length === 200 ? ", more were found" : ""}`
      : "No matches";
    list.replaceChildren(...state.hits.map(option));
    mark();
  };
  const option = (hit, place) => {
    const { before, match, after } = hit.excerpt;
    const excerpt = h("span.hit-excerpt", {}, plainLine(before), h("mark", {}, plainLine(match)), plainLine(after));
    return h(
      "li",
      { role: "option", id: `rlm-hit-${place}`, "aria-selected": "false", click: () => choose(place) },
      h("span.hit-label.muted", {}, [...hit.path.map((child) => child.title), hit.label].join(" › ")),
      excerpt,
    );
  };
  const mark = () => {
    [...list.children].forEach((row, place) => row.setAttribute("aria-selected", String(place === state.chosen)));
    if (state.chosen < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", `rlm-hit-${state.chosen}`);
    return list.children[state.chosen].scrollIntoView({ block: "nearest" });
  };
  const choose = (place) => {
    const hit = state.hits[place];
    close();
    if (hit) pick(hit, input.value.trim());
  };
  const close = () => {
    panel.hidden = list.hidden = true;
    input.setAttribute("aria-expanded", "false");
  };
  const move = (by) => {
    if (panel.hidden) return show();
    if (state.hits.length) state.chosen = (state.chosen + by + state.hits.length) % state.hits.length;
    return mark();
  };
  input.addEventListener("input", () => {
    clearTimeout(state.timer);
    state.timer = setTimeout(show, PATIENCE);
  });
  input.addEventListener("keydown", (event) => {
    const act = { ArrowDown: () => move(1), ArrowUp: () => move(-1), Enter: () => enter(), Escape: () => escape() }[
      event.key
    ];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
  const enter = () => {
    clearTimeout(state.timer);
    if (panel.hidden || !state.hits.length) show();
    else choose(state.chosen);
  };
  const escape = () => {
    clearTimeout(state.timer);
    if (!panel.hidden) return close();
    input.value = "";
    return leave();
  };
  box.addEventListener("focusout", (event) => {
    if (!box.contains(event.relatedTarget)) close();
  });
  list.addEventListener("mousedown", (event) => event.preventDefault()); // keeps the focus in the field until the click
  const clear = () => {
    input.value = "";
    close();
  };
  return Object.assign(box, { clear, focus: () => input.select() || input.focus() });
}
