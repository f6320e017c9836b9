// Search in all texts of a run: questions, prose, code, outputs, prompts and answers of sub-calls, tools, notices,
// and those of its children.

import { promptsOf } from "./calls.js";
import { textOf } from "./figures.js";

const MOST = 200;
const AROUND = 50;

/** The places with the words, at most 200, in the order of the run. Ignores case. */
export function hits(run, words, path = []) {
  const pattern = patternOf(words);
  const found = [];
  for (const place of places(run, path)) {
    const match = pattern.exec(place.text);
    if (match) found.push({ ...place, text: undefined, excerpt: excerptOf(place.text, match) });
    if (found.length >= MOST) break;
  }
  return found;
}

/** The words as a pattern. */
export function patternOf(words) {
  return new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+"), "i");
}

function excerptOf(text, match) {
  const from = Math.max(0, match.index - AROUND);
  const end = match.index + match[0].length;
  return {
    before: (from > 0 ? "…" : "") + text.slice(from, match.index),
    match: match[0].slice(0, 100),
    after: text.slice(end, end + AROUND * 2),
  };
}

function* places(run, path) {
  yield { path, turn: -1, label: "Question", part: "overview", text: run.question };
  for (const turn of run.turns) {
    const here = { path, turn: turn.place };
    for (const message of turn.messages)
      yield { ...here, label: `${turn.title} · messages`, part: "messages", text: message.content };
    yield { ...here, label: `${turn.title} · model`, part: "card", text: turn.reply?.text ?? "" };
    for (const cell of turn.cells) yield* placesOfCell(cell, here);
    for (const notice of turn.notices) yield { ...here, label: `${turn.title} · notice`, part: "card", text: notice };
    if (turn.summary !== null) yield { ...here, label: `${turn.title} · summary`, part: "summary", text: turn.summary };
  }
  if (run.answer !== null) yield { path, turn: -1, label: "Answer", part: "overview", text: run.answer };
  if (run.failure) yield { path, turn: -1, label: "Failure", part: "overview", text: run.failure.message };
}

function* placesOfCell(cell, here) {
  const where = { ...here, cell: cell.number };
  const name = `Cell ${cell.number}`;
  yield { ...where, label: `${name} · code`, part: "cell", text: cell.code };
  for (const output of cell.result?.outputs ?? []) {
    yield {
      ...where,
      label: `${name} · output`,
      part: "cell",
      text: textOf(output.text ?? output.data?.["text/plain"] ?? output.traceback),
    };
  }
  for (const [place, { call, index, prompt }] of promptsOf(cell).entries()) {
    const answer = call.answers.get(index);
    const title = `${name} · sub-call ${place + 1}`;
    yield { ...where, label: `${title}, prompt`, part: "call", place, text: prompt };
    if (answer) yield { ...where, label: `${title}, answer`, part: "call", place, text: answer.error ?? answer.text };
  }
  for (const [place, tool] of cell.tools.entries()) {
    yield { ...where, label: `${name} · tool`, part: "tool", place, text: `${tool.call} ${tool.result}` };
  }
  for (const call of cell.calls) {
    for (const child of call.children.values()) yield* places(child, [...here.path, child]);
  }
}
