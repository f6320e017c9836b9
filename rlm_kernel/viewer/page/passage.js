// A piece of foreign text on the page: its beginning, and the rest on demand. A log may hold 10 MB in one line,
// which takes a browser seconds to lay out.

import { button, h } from "./elements.js";
import { grouped } from "./figures.js";
import { keepingFocus } from "./focus.js";
import { nodesOf } from "./foreign_text.js";
import { nodesFrom, textIn } from "./words.js";

const FIRST = 4_000;
const STEP = 100_000;
const AROUND = 2_000;
const WIDEST_LINE = 240;

/** Words of a person or a model: Markdown where it is Markdown, else as it is. `words`: those of the log. */
export function wordsOf(text, words, options = {}) {
  return settled(words, text, (nodes) => (nodes ? drawnWords(nodes, options) : passage(text, options)));
}

/** A part of the page that is drawn now, and once more when its words are known. `draw(nodes)` gives its content. */
export function settled(words, text, draw) {
  const box = h("div.words", {}, draw(words.of(text)));
  if (words.of(text) === undefined) {
    const redraw = () => box.replaceChildren(...[draw(words.of(text))].flat());
    words.learn([text]).then(() => words.of(text) && keepingFocus(box, redraw));
  }
  return box;
}

/** Words as their elements, with a button for what is left out. `inPlace`: see `nodesFrom`. */
export function drawnWords(nodes, { kind = "prose", label = "text", first = FIRST, inPlace } = {}) {
  const box = h(`div.passage.passage-${kind}`, { role: "group", "aria-label": label });
  const whole = h("div.passage-frame", {}, box);
  const lengths = nodes.map((node) => textIn(node).length);
  const all = lengths.reduce((sum, one) => sum + one, 0);
  const fitting = lengths.findIndex((_, place) => lengths.slice(0, place + 1).reduce((sum, one) => sum + one, 0) > first);
  const draw = (most) => {
    box.replaceChildren(...nodesFrom(nodes.slice(0, most), inPlace));
    whole.querySelector(".passage-more")?.remove();
    const left = lengths.slice(most).reduce((sum, one) => sum + one, 0);
    const rest = () => {
      draw(nodes.length);
      box.querySelector("[tabindex]")?.focus();
    };
    if (left > 0) whole.append(h("div.passage-more", {}, button(`Show the other ${grouped(left)} characters`, rest, { class: "quiet" })));
  };
  whole.holds = (pattern) => {
    const there = pattern.test(nodes.map(textIn).join("\n"));
    if (there) draw(nodes.length);
    return there;
  };
  draw(all <= first * 1.25 || fitting < 0 ? nodes.length : Math.max(1, fitting));
  return whole;
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
