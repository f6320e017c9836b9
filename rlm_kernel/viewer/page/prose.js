// A reply in pieces: words of the model, and its blocks of code.

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n([\s\S]*?)(?:^ {0,3}\1[`~]*[ \t]*$|$(?![\s\S]))/gm;

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
