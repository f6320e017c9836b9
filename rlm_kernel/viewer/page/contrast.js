// Two texts side by side: what both hold once, and what differs in two columns.

import { stretches } from "./alignment.js";
import { button, h } from "./elements.js";
import { grouped } from "./figures.js";
import { drawnWords, passage } from "./passage.js";
import { partsOf } from "./words.js";

export const NAMES = ["A", "B"];
const FEW_STRETCHES = 60;

/** Two parts of the page in two columns; below each other on a narrow page. */
export function sides(parts, attributes = {}) {
  return h("div.sides", attributes, parts);
}

/** A list that is drawn bit by bit. */
export function pages(kind, rows, most, draw) {
  const list = h(kind);
  const foot = h("div.list-foot");
  const more = () => {
    const from = list.childElementCount;
    list.append(...rows.slice(from, from + most).map((row) => draw(row)));
    const left = rows.length - list.childElementCount;
    foot.replaceChildren(...(left ? [button(`Show more of ${grouped(rows.length)} parts`, more, { class: "quiet" })] : []));
  };
  more();
  return rows.length > most ? [list, foot] : list;
}

/** Two texts by their lines: what both hold once, and what differs side by side. */
export function compared(left, right, how = {}) {
  if (!left && !right) return null;
  const shown = (lines, more) => lines.join("\n") && passage(lines.join("\n"), { ...how, ...more });
  return inStretches(stretches(left.split("\n"), right.split("\n")), how.label, shown);
}

/** Words of two runs by their blocks. Each is a text and its nodes, or null where it is shown as it is. */
export function comparedWords([left, drawnLeft], [right, drawnRight], how) {
  if (!drawnLeft && !drawnRight) return compared(left, right, how);
  const parts = (text, nodes) => partsOf(nodes ?? text.split("\n").filter(Boolean).map((line) => ["p", {}, [line]]));
  const shown = (nodes, more) => nodes.length > 0 && drawnWords(nodes, { ...how, ...more });
  return inStretches(stretches(parts(left, drawnLeft), parts(right, drawnRight), JSON.stringify), how.label, shown);
}

/** `shown(parts, options)`: the element of some parts, or nothing where they are empty. */
function inStretches(found, label = "Text", shown) {
  const part = (parts, side) => {
    const there = shown(parts, { label: `${label}, only in ${NAMES[side]}` });
    return there ? h(`div.part-${side}`, {}, there) : h("div.part-none.muted", {}, `nothing in ${NAMES[side]}`);
  };
  const draw = ({ same, left, right }) =>
    same
      ? h("div.part-both", {}, shown(left, { label: `${label} of both`, first: 1200 }))
      : sides([part(left, 0), part(right, 1)]);
  return pages("div.texts", found, FEW_STRETCHES, draw);
}
