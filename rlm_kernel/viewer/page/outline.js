// The outline of a run: its turns, each with the child runs that it started.

import { button, h } from "./elements.js";
import { firstWords, seconds } from "./figures.js";
import { plainLine } from "./foreign_text.js";
import { firstWordsOf } from "./prose.js";
import { textIn } from "./words.js";

const FIRST_CHILDREN = 20;

/**
 * The list. `go(place)` shows a turn, -1 the overview; `enter(child)` opens a child's run; `tree.box(child)`: the box
 * that chooses it for a comparison, without a child that of the run; `memory`: what is open.
 */
export function outlineOf(run, { go, enter, tree }, memory) {
  const slowest = Math.max(...run.turns.map((turn) => turn.finished ?? 0), 1e-6);
  const item = (turn) => {
    const bar = h("span.bar", { "aria-hidden": "true" });
    bar.style.setProperty("--part", String((turn.finished ?? 0) / slowest));
    const label = [
      h("span.outline-title", {}, turn.title),
      h("span.outline-hint.muted", {}, hintOf(turn, run.log?.words)),
      turn.failed && h("span.badge.bad", {}, "error"),
      bar,
    ];
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", "data-go": turn.place, title: seconds(turn.finished ?? NaN), click: () => go(turn.place) },
        label,
      ),
      childList(turn.children, { enter, tree }, memory, `turn ${turn.place}/children`),
    );
  };
  const top = h(
    "li",
    {},
    h("button", { type: "button", "data-go": -1, click: () => go(-1) }, h("span.outline-title", {}, "Overview")),
    tree?.box(),
  );
  return h("ol.outline", {}, top, run.turns.map(item));
}

function childList(children, { enter, tree }, memory, key) {
  if (!children.length) return null;
  const row = (child, place) => {
    const words = plainLine(firstWords(child.question, 60)) || child.title;
    const label = [
      h("span.outline-hint", {}, `↳ ${words}`),
      h("span.muted.outline-count", {}, `${child.turns.length}`),
    ];
    const inside = {
      enter: (...deeper) => enter(child, ...deeper),
      tree: tree && { box: (...deeper) => tree.box(child, ...deeper) },
    };
    return h(
      "li",
      {},
      h("button.outline-child", { type: "button", title: "Open the child's run", click: () => enter(child) }, label),
      tree?.box(child),
      childList(below(child), inside, memory, `${key}/${place}`),
    );
  };
  const list = h("ol");
  const fill = (most) => list.replaceChildren(...children.slice(0, most).map(row), ...rest(children.length - most));
  const rest = (more) => {
    const showAll = () => {
      memory.add(key);
      fill(children.length);
      list.children[FIRST_CHILDREN].firstChild.focus();
    };
    return more > 0 ? [h("li", {}, button(`and ${more} more`, showAll, { class: "muted outline-rest" }))] : [];
  };
  fill(memory.has(key) ? children.length : FIRST_CHILDREN);
  return list;
}

function below(run) {
  return run.turns.flatMap((turn) => turn.children);
}

/** A short title of a turn: the first words of the model, else of its code. */
function hintOf(turn, words) {
  const text = turn.reply?.text ?? "";
  const [first] = words?.of(text) ?? [];
  const said = first && first[0] !== "pre" ? textIn(first) : firstWordsOf(text);
  return plainLine(firstWords(said || (turn.cells[0]?.code ?? ""), 60));
}
