// A piece of foreign text on the page: its beginning, and the rest on demand. A log may hold 10 MB in one line,
// which takes a browser seconds to lay out.

import { button, h } from "./elements.js";
import { grouped } from "./figures.js";
import { nodesOf } from "./foreign_text.js";
import { isMarkdown, proseNodes } from "./markdown.js";

const FIRST = 4_000;
const STEP = 100_000;
const AROUND = 2_000;
const WIDEST_LINE = 240;

/** Words of a person or a model: Markdown where it is Markdown, else as it is. */
export function wordsOf(text, options = {}) {
  return passage(text, isMarkdown(text) ? { ...options, paint: proseNodes, tag: "div" } : options);
}

/** The text in a `pre`, with a button for what is left out. `reveal(offset)` shows the part around a place in it. */
export function passage(text, { kind = "text", paint = nodesOf, label = "text", first = FIRST, tag = "pre" } = {}) {
  const pre = h(`${tag}.passage.passage-${kind}`, { role: "group", "aria-label": label });
  const whole = h("div.passage-frame", {}, pre);
  let [from, to] = [0, firstStop(text, first)];
  const draw = () => {
    const shown = text.slice(from, to);
    pre.replaceChildren(...paint(shown));
    pre.classList.toggle("wrapped", longestLine(shown) > WIDEST_LINE);
    whole.querySelector(".passage-more")?.remove();
    if (from > 0 || to < text.length) whole.append(more());
  };
  const more = () => {
    const left = text.length - to;
    const showMore = () => {
      to = Math.min(text.length, to + STEP);
      draw();
      (whole.querySelector("button") ?? pre).focus();
    };
    const showAll =
      left <= STEP ? `Show the other ${grouped(left)} characters` : `Show ${grouped(STEP)} more characters`;
    const note =
      from > 0
        ? `characters ${grouped(from)} to ${grouped(to)} of ${grouped(text.length)}`
        : `of ${grouped(text.length)}`;
    return h(
      "div.passage-more",
      {},
      left > 0 && button(showAll, showMore, { class: "quiet" }),
      h("span.muted", {}, note),
    );
  };
  whole.holds = (pattern) => {
    const match = pattern.exec(text);
    if (match) whole.reveal(match.index);
    return match !== null;
  };
  whole.reveal = (offset) => {
    if (offset >= from && offset + AROUND / 4 <= to) return;
    from = offset < STEP ? 0 : offset - AROUND;
    to = Math.min(text.length, offset + AROUND);
    draw();
  };
  draw();
  return whole;
}

/** Where the first part ends: after a whole line if possible; the whole text if it is only a little longer. */
function firstStop(text, first) {
  if (text.length <= first * 1.25) return text.length;
  const end = text.lastIndexOf("\n", first);
  return end > first / 2 ? end : first;
}

function longestLine(text) {
  return text.split("\n").reduce((longest, line) => Math.max(longest, line.length), 0);
}

/** A `pre` that scrolls sideways must be reachable by keyboard; other ones must not take the focus. */
export function watchWidths(root) {
  const check = (pre) => {
    if (pre.scrollWidth > pre.clientWidth + 1) pre.setAttribute("tabindex", "0");
    else pre.removeAttribute("tabindex");
  };
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => check(entry.target)));
  const seen = new WeakSet();
  const look = () => {
    for (const pre of root.querySelectorAll("pre.passage:not(.wrapped)")) {
      if (!seen.has(pre)) sizes.observe(pre);
      seen.add(pre);
    }
  };
  const births = new MutationObserver(look);
  births.observe(root, { childList: true, subtree: true });
  look();
}
