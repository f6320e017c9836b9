// The page of two runs side by side: both answers, the figures, and the turns in rows with what differs.

import { answered, callRows, cellRows, outputText, rowsOf, sameCall, sameOutputs } from "./comparison.js";
import { button, fold, h } from "./elements.js";
import { count, dollars, grouped, seconds, short } from "./figures.js";
import { keepingFocus } from "./focus.js";
import { outputsOf } from "./outputs.js";
import { stateBadge } from "./states.js";
import { compared, comparedWords, NAMES, pages, sides } from "./contrast.js";
import { wordsOf } from "./passage.js";
import { piecesOf } from "./prose.js";
import { codeNodes } from "./python_code.js";
import { nameOf } from "./tabs.js";
import { textsOf } from "./words.js";

const FEW_CALLS = 50;

export class CompareView {
  /** `open(entry)` shows one of the two runs alone. */
  constructor(comparison, open) {
    Object.assign(this, { entry: comparison, run: comparison, open, memory: comparison.memory });
    this.scroller = h("main.scroller");
    this.element = h("div.run", {}, this.scroller);
    this.draw();
  }

  /** Draw what was added to the logs. */
  update() {
    keepingFocus(this.scroller, () => this.draw());
    return "";
  }

  get spot() {
    return { turn: -1, by: this.scroller.scrollTop };
  }

  set spot({ by }) {
    this.scroller.scrollTop = by;
  }

  /** Show a turn of an address. */
  arrive({ turn }) {
    const heading = this.scroller.querySelector(`[data-turn="${turn}"]`);
    heading?.focus({ preventScroll: true });
    if (turn >= 0) heading?.scrollIntoView({ block: "start" });
  }

  draw() {
    const { both } = this.entry;
    const [one, other] = both.map((entry) => entry.run);
    this.learn([one, other]);
    const rows = rowsOf(one, other);
    this.scroller.replaceChildren(
      h(
        "div.compared",
        {},
        h("h1", { tabindex: "-1", "data-stop": true, "data-turn": -1 }, "Two runs side by side"),
        sides(both.map((entry, side) => this.headOf(entry, side))),
        questionsOf(one, other),
        outcomes(one, other),
        figures(one, other),
        h("p.note", { role: "status" }, summaryOf(rows)),
        rows.map((row) => this.rowOf(row, one, other)),
      ),
    );
  }

  /** Draw once more when the words of both runs are known. */
  async learn(runs) {
    const unknown = runs.filter((run) => textsOf(run).some((text) => run.log.words.of(text) === undefined));
    await Promise.all(unknown.map((run) => run.log.words.learn(textsOf(run))));
    const came = unknown.some((run) => textsOf(run).some((text) => run.log.words.of(text)));
    if (came && this.element.isConnected) this.update();
  }

  headOf(entry, side) {
    return h(
      "div",
      {},
      h("p.kicker.muted", {}, h("span.badge", {}, NAMES[side]), stateBadge(entry.run.state), h("span", {}, entry.run.model)),
      button(nameOf(entry), () => this.open(entry), { class: "link side-name", title: "Open this run", "data-stop": true }),
      entry.steps.length > 0 && h("p.muted.facts-line", {}, entry.run.title),
    );
  }

  rowOf(row, one, other) {
    const { place, left, right, differs } = row;
    const both = left && right;
    const title = left && right && left.title === right.title ? left.title : [left?.title, right?.title];
    const head = h(
      "header.turn-head",
      {},
      h("h2", { tabindex: "-1", "data-stop": true, "data-turn": place }, titleOf(title)),
      both && (differs.length ? differs.map((name) => h("span.badge.differs", {}, name)) : h("span.muted", {}, "the same")),
    );
    const spent = [left && one.spent(left), right && other.spent(right)];
    const words = [left, right].map((turn, side) => (turn ? figuresOf(turn, spent[side]) : ""));
    const lines = words.map((line) => h("p.muted.facts-line", {}, line));
    const body = () => bodyOf(row, one, other, this.memory).filter(Boolean);
    const same = differs.every((name) => name === "cost");
    return h(
      "section.turn.row-pair",
      { "aria-label": titleOf(title), "data-differs": differs.join(" ") },
      head,
      words[0] === words[1] ? lines[0] : sides(lines),
      same ? fold(this.memory, `row ${place}`, "Show what both did", body, { class: "folded" }) : body(),
    );
  }
}

function titleOf(title) {
  if (!Array.isArray(title)) return title;
  const [left, right] = title;
  if (!left || !right) return `${left ?? right}, only in ${left ? "A" : "B"}`;
  return `${left} of A, ${right.toLowerCase()} of B`;
}

function summaryOf(rows) {
  const same = rows.filter((row) => row.differs.every((name) => name === "cost")).length;
  if (same === rows.length) return `All ${count(rows.length, "turn")} do the same.`;
  const kinds = new Map();
  for (const name of rows.flatMap((row) => row.differs)) kinds.set(name, (kinds.get(name) ?? 0) + 1);
  const parts = [...kinds].map(([name, times]) => `${name} (${grouped(times)})`);
  return `${grouped(same)} of ${count(rows.length, "turn")} do the same. What differs, and in how many: ${parts.join(", ")}.`;
}

function questionsOf(one, other) {
  const shown = (run) =>
    wordsOf(run.question || "(no separate question)", run.log.words, { kind: "question", label: "Question", first: 600 });
  if (one.question === other.question) return h("div.titled", {}, h("p.label", {}, "Question of both"), shown(one));
  return titled("Question", sides([shown(one), shown(other)]));
}

function outcomes(one, other) {
  const words = (run) => run.answer ?? (run.failure ? `${run.failure.type}: ${run.failure.message}` : "");
  if (words(one) === words(other)) {
    const shown = wordsOf(words(one) || "(none yet)", one.log.words, { kind: "answer", label: "Answer of both" });
    return titled("Answer of both", shown);
  }
  const [left, right] = [one, other].map((run) => [words(run), run.log.words.of(words(run)) ?? null]);
  return titled("Answer", comparedWords(left, right, { kind: "answer", label: "Answer" }));
}

function titled(title, ...content) {
  return h("div.titled", {}, h("p.label", {}, title), content);
}

/** The figures of both runs and their difference, as a table. */
function figures(one, other) {
  const [a, b] = [totalsOf(one), totalsOf(other)];
  const row = ([name, key, words]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      h("td", {}, words(a[key])),
      h("td", {}, words(b[key])),
      h("td", {}, changeOf(a[key], b[key], words)),
    );
  const names = ["", ...NAMES, "B − A"];
  return h(
    "div.table-frame",
    { tabindex: "0", role: "region", "aria-label": "Figures of both runs" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, names.map((name) => h(name ? "th" : "td", { scope: name ? "col" : null }, name)))),
      h("tbody", {}, FIGURES.filter(([, key]) => a[key] !== 0 || b[key] !== 0).map(row)),
    ),
  );
}

const FIGURES = [
  ["Time", "time", seconds],
  ["Turns", "turns", grouped],
  ["Cells", "cells", grouped],
  ["Sub-calls", "prompts", grouped],
  ["Children", "children", grouped],
  ["Tokens in", "input", short],
  ["Tokens out", "output", short],
  ["Cost", "cost", (value) => dollars(value).replace("cost ", "")],
];

function totalsOf(run) {
  const calls = [...run.cells.values()].flatMap((cell) => cell.calls);
  return {
    ...(run.usage ?? run.spent()),
    time: run.time,
    turns: run.turns.length,
    cells: run.cells.size,
    prompts: calls.reduce((sum, call) => sum + call.prompts.length, 0),
    children: run.turns.reduce((sum, turn) => sum + turn.children.length, 0),
  };
}

function changeOf(a, b, words) {
  if (a === null || b === null) return "unknown";
  if (a === b) return "the same";
  const share = a && Math.abs(b - a) < 10 * a ? `, ${b > a ? "+" : "−"}${Math.round((Math.abs(b - a) / a) * 100)} %` : "";
  return `${b > a ? "+" : "−"}${words(Math.abs(b - a))}${share}`;
}

function figuresOf(turn, { input, output, cost, calls }) {
  const parts = [turn.finished !== null && seconds(turn.finished), calls && `${short(input)} tokens in, ${short(output)} out`];
  if (calls && cost !== null) parts.push(dollars(cost));
  return parts.filter(Boolean).join(" · ");
}

function bodyOf({ place, left, right }, one, other, memory) {
  return [
    comparedWords(saidIn(one, left), saidIn(other, right), { kind: "prose", label: "The model" }),
    ...cellRows(left, right).map(([a, b], index) => cellsOf(a, b, memory, `row ${place}/cell ${index}`)),
  ];
}

/** What the model said in a turn besides code: the text, and what it is drawn as or null. */
function saidIn(run, turn) {
  const text = turn?.reply?.text ?? "";
  const nodes = run.log.words.of(text) ?? null;
  const words = nodes && piecesOf(nodes, turn.cells).flatMap((piece) => piece.words ?? []);
  return [nodes && !words.length ? "" : text, words];
}

function cellsOf(a, b, memory, key) {
  return h(
    "div.cell",
    {},
    compared(a?.code ?? "", b?.code ?? "", { kind: "code", paint: codeNodes, label: "Code" }),
    callsOf(a, b, memory, key),
    outputs(a, b, memory, key),
  );
}

function outputs(a, b, memory, key) {
  const [left, right] = [outputText(a), outputText(b)];
  if (left !== null && right !== null && !(a?.failed || b?.failed))
    return compared(left, right, { kind: "stdout", label: "Output" });
  const shown = (cell, side) => h("div", {}, cell ? outputsOf(cell, memory, `${key}/output ${side}`) : []);
  if (sameOutputs(a, b)) return shown(a, 0);
  return sides([shown(a, 0), shown(b, 1)]);
}

function callsOf(a, b, memory, key) {
  const rows = callRows(a, b);
  if (!rows.length) return null;
  const different = rows.filter(([one, other]) => !sameCall(one, other));
  const number = (cell) => cell?.calls.reduce((sum, call) => sum + call.prompts.length, 0) ?? 0;
  const counts = number(a) === number(b) ? count(number(a), "sub-call") : `${number(a)} and ${number(b)} sub-calls`;
  const summary = [
    h("span.calls-title", {}, counts),
    h("span.muted", {}, different.length ? `${grouped(different.length)} differ` : "the same prompts and answers"),
  ];
  if (!different.length) return h("p.calls.calls-same", {}, summary);
  return fold(memory, `${key}/calls`, summary, () => callList(different), { class: "calls" });
}

function callList(rows) {
  return pages("ol.rows", rows, FEW_CALLS, (row) => h("li.call", {}, callPair(row)));
}

function callPair([one, other]) {
  const [prompts, answers] = [
    [one?.prompt ?? "", other?.prompt ?? ""],
    [one ? answered(one) : "", other ? answered(other) : ""],
  ];
  return [
    titled("Prompt", compared(...prompts, { label: "Prompt" })),
    titled("Answer", compared(...answers, { kind: "answer", label: "Answer" })),
  ];
}
