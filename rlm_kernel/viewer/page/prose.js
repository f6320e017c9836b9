// The prose of a reply. A few elements of Markdown are drawn; everything else is shown as written.

import { h } from "./elements.js";
import { nodesOf } from "./foreign_text.js";

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|^#{1,6} +(.+)$/gm;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n([\s\S]*?)(?:^ {0,3}\1[`~]*[ \t]*$|$(?![\s\S]))/gm;

export function proseNodes(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > from) nodes.push(...nodesOf(text.slice(from, match.index)));
    const [whole, code, bold, heading] = match;
    nodes.push(h(code ? "code" : "strong", {}, nodesOf(code ?? bold ?? heading)));
    from = match.index + whole.length;
  }
  if (from < text.length) nodes.push(...nodesOf(text.slice(from)));
  return nodes;
}

/** A reply in its order: prose, the cells that ran, blocks that did not. Cells that are in no block come last. */
export function piecesOf(reply, cells) {
  const pieces = [];
  const left = [...cells];
  let from = 0;
  const say = (text) => text.trim() && pieces.push({ prose: text.trim() });
  for (const match of reply.matchAll(FENCE)) {
    say(reply.slice(from, match.index));
    from = match.index + match[0].length;
    const ran = left.findIndex((cell) => cell.code.trim() === match[3].trim());
    if (ran < 0) pieces.push({ block: match[3], language: match[2] });
    else pieces.push({ cell: left.splice(ran, 1)[0] });
  }
  say(reply.slice(from));
  return [...pieces, ...left.map((cell) => ({ cell }))];
}
