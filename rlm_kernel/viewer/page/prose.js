// A reply of a model in its order: words, the cells that ran, blocks that did not.

import { textIn } from "./words.js";

const FENCE = /^ {0,3}(?:```|~~~)/m;

/**
 * The pieces of a reply: `{ words: nodes }`, `{ cell }` or `{ block, language }`. Cells that are in no block come last.
 * `nodes`: what the reply is drawn as. `inPlace(text)` gives the cell of a block that is inside of other words.
 */
export function piecesOf(nodes, cells) {
  const left = [...cells];
  const take = (text) => {
    const ran = left.findIndex((cell) => comparable(cell.code) === comparable(text));
    return ran < 0 ? null : left.splice(ran, 1)[0];
  };
  const pieces = [];
  for (const node of nodes) {
    const cell = node[0] === "pre" && take(textIn(node));
    if (cell) pieces.push({ cell });
    else if (node[0] === "pre") pieces.push({ block: textIn(node), language: (node[1]["data-info"] ?? "").split(/\s/)[0] });
    else if (pieces.at(-1)?.words) pieces.at(-1).words.push(node);
    else pieces.push({ words: [node] });
  }
  const inPlace = new Map(pieces.filter((piece) => piece.words).map((piece) => [piece, new Map()]));
  for (const [piece, found] of inPlace) for (const text of blocksIn(piece.words)) found.set(text, take(text));
  return [...pieces.map((piece) => ({ ...piece, inPlace: inPlace.get(piece) })), ...left.map((cell) => ({ cell }))];
}

function blocksIn(nodes) {
  return nodes.filter((node) => typeof node !== "string").flatMap((node) => (node[0] === "pre" ? [textIn(node)] : blocksIn(node[2])));
}

/** Markdown keeps no carriage return and no NUL, and no empty lines at the ends of a block. */
function comparable(code) {
  return code.replace(/\r\n?/g, "\n").replaceAll("\0", "\ufffd").trim();
}

/** What a model says before its first block of code. */
export function firstWordsOf(reply) {
  return reply.slice(0, 2000).split(FENCE)[0].trim();
}
