// One turn on the page: the reply, its cells with outputs and calls, notices, the answer.

import { callsOf, toolsOf } from "./calls.js";
import { fold, h, linkTo } from "./elements.js";
import { count, dollars, grouped, seconds, short, textOf } from "./figures.js";
import { outputsOf } from "./outputs.js";
import { drawnWords, passage, settled, wordsOf } from "./passage.js";
import { piecesOf } from "./prose.js";
import { codeNodes } from "./python_code.js";

/** The card. `memory`: the open parts; `ways`: `enter(child)` opens a child's run, `link(part)` is an address. */
export function turnCard(run, turn, memory, ways) {
  const key = `turn ${turn.place}`;
  const reply = turn.reply?.text ?? "";
  const head = h(
    "header.turn-head",
    {},
    h("h2", { tabindex: "-1", "data-stop": true, "data-turn": turn.place }, turn.title),
    linkTo(ways, { turn: turn.place }, `Link to ${turn.title.toLowerCase()}`),
    h("p.muted", {}, figuresOf(run, turn).join(" · ")),
  );
  const draw = (piece) => pieceOf(piece, run, memory, key, ways);
  const asItIs = () => [
    reply.trim() && passage(reply.trim(), { kind: "prose", label: "The model" }),
    turn.cells.map((cell) => draw({ cell })),
  ];
  const body = [settled(run.log.words, reply, (nodes) => (nodes ? piecesOf(nodes, turn.cells).map(draw) : asItIs()))];
  if (!turn.reply && !run.over) body.push(h("p.waiting", {}, "No reply yet."));
  return h(
    "section.turn",
    { "aria-label": turn.title, "data-card": turn.place },
    head,
    messages(turn, memory, key),
    body,
    happenings(run, turn, memory, key),
  );
}

function figuresOf(run, turn) {
  const { input, output, cost, calls } = run.spent(turn);
  const figures = [];
  if (turn.seconds !== null) figures.push(`model ${seconds(turn.seconds)}`);
  if (turn.finished !== null) figures.push(`in all ${seconds(turn.finished)}`);
  if (calls) figures.push(`${short(input)} tokens in, ${short(output)} out${calls > 1 ? " with sub-calls" : ""}`);
  if (calls && cost !== null) figures.push(dollars(cost));
  const ending = turn.reply?.ending;
  if (ending && !["stop", "end_turn"].includes(ending)) figures.push(`ended by ${ending}`);
  return figures;
}

function messages(turn, memory, key) {
  if (!turn.messages.length) return null;
  const length = turn.messages.reduce((sum, message) => sum + message.content.length, 0);
  const summary = [
    h("span", {}, "Messages to the model"),
    h("span.muted", {}, `${count(turn.messages.length, "message")}, ${grouped(length)} characters`),
  ];
  const body = () =>
    turn.messages.map((message) =>
      h(
        "div.message",
        {},
        h("p.label", {}, message.role),
        passage(message.content, { kind: "prose", label: "Message" }),
      ),
    );
  return fold(memory, `${key}/messages`, summary, body, { class: "folded" });
}

function pieceOf(piece, run, memory, key, ways) {
  if (piece.cell) return cellOf(piece.cell, run, memory, `${key}/cell ${piece.cell.number}`, ways);
  if (piece.words) {
    const cellFor = (text) => piece.inPlace.get(text);
    const inPlace = (text) => cellFor(text) && pieceOf({ cell: cellFor(text) }, run, memory, key, ways);
    return drawnWords(piece.words, { label: "The model", inPlace });
  }
  const label = `${piece.language || "Block"} · not run`;
  return h(
    "div.cell.not-run",
    {},
    h("p.cell-side.muted", {}, label),
    passage(piece.block, { kind: "code", paint: codeNodes, label }),
  );
}

function cellOf(cell, run, memory, key, ways) {
  const { result } = cell;
  const state = result ? result.status : run.state;
  const side = [h("span.cell-number", {}, `In [${result?.count ?? textOf(cell.number)}]`)];
  if (result) side.push(h("span", {}, seconds(result.seconds)));
  side.push(linkTo(ways, { turn: cell.turn.place, cell: cell.number }, `Link to cell ${textOf(cell.number)}`));
  if (state !== "ok") side.push(h(`span.badge${result ? ".bad" : ""}`, {}, STATES[state] ?? state));
  return h(
    "div.cell",
    { "data-cell": key },
    h("p.cell-side.muted", {}, side),
    h(
      "div.cell-body",
      {},
      passage(cell.code, { kind: "code", paint: codeNodes, label: `Code of cell ${cell.number}` }),
      callsOf(cell, memory, key, ways),
      toolsOf(cell, memory, key),
      outputsOf(cell, memory, key),
      restored(result),
    ),
  );
}

const STATES = { error: "raised", timeout: "timed out", died: "kernel died", answered: "no result" };

function restored(result) {
  const names = result?.restored ?? [];
  return names.length > 0 && h("p.note", {}, `Restored after the cell: ${names.join(", ")}.`);
}

function happenings(run, turn, memory, key) {
  const parts = turn.notices.map((notice) => h("p.note", {}, notice));
  if (turn.summary !== null) {
    const body = () => wordsOf(turn.summary, run.log.words, { kind: "prose", label: "Summary" });
    parts.push(
      fold(memory, `${key}/summary`, [h("span", {}, "The conversation was summarised here")], body, { class: "folded" }),
    );
  }
  if (turn.answer !== null) {
    parts.push(
      h("div.turn-answer", {}, h("p.label", {}, "Answer"), wordsOf(turn.answer, run.log.words, { kind: "answer", label: "Answer" })),
    );
  }
  return parts;
}
