// The tabs of the bar: the list of runs, and each open log.

import { button, h } from "./elements.js";
import { plainLine } from "./foreign_text.js";

/** The tabs of a viewer. */
export function tabsOf({ library, entries, current }, show, close) {
  const tab = (entry) => {
    const words = nameOf(entry);
    const name = button(words, () => show(entry), {
      class: "tab-name",
      "aria-current": entry === current ? "page" : null,
      title: words,
    });
    const shut =
      (library || entries.length > 1) &&
      button("×", () => close(entry), { class: "tab-close", "aria-label": `Close ${words}` });
    return h(`span.tab${entry === current ? ".tab-current" : ""}`, {}, name, shut);
  };
  const home =
    library && button("Runs", () => show(null), { class: "tab-name home", "aria-current": current ? null : "page" });
  return h("nav.tabs", { "aria-label": "Open logs" }, home, entries.map(tab));
}

/** The name of an open log without its endings. */
export function nameOf(entry) {
  return plainLine((entry.name ?? entry.log.name).replaceAll(/\.jsonl(?= |$)/g, ""));
}
