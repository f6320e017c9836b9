// Two runs side by side: their turns in rows, and in what each row differs.

import { pathTo } from "./addresses.js";
import { aligned, likenessOf } from "./alignment.js";
import { promptsOf } from "./calls.js";
import { textOf } from "./figures.js";
import { OpenLog } from "./open_log.js";
import { fields } from "./shapes.js";

/** One side of a comparison: a run of a log, or a child of one. */
class Side extends OpenLog {
  /** `upload`: the number of a file that was dropped; `place`: of the run in its log; `steps`: to the child. */
  constructor({ source, upload, place = 0, steps = [] }) {
    super(source);
    Object.assign(this, { upload, place, steps });
  }

  get run() {
    const top = this.log.runs[this.place];
    const path = top && pathTo(top, this.steps);
    return path ? (path.at(-1) ?? top) : undefined;
  }

  /** The name of the log, with the run and the child. */
  get name() {
    const run = this.place ? ` · run ${this.place + 1}` : "";
    return `${this.log.name}${run}${this.steps.length ? ` · child ${this.steps.join(" › ")}` : ""}`;
  }

  get trouble() {
    if (this.problem || !this.loaded || this.run) return this.problem;
    return this.log.problems[0] ?? (this.log.runs.length ? `There is no ${this.name}.` : `${this.log.name} has no run yet.`);
  }
}

/** Two runs, shown as one. For the viewer it is an entry like an open log. */
export class Comparison {
  constructor(left, right) {
    Object.assign(this, { left: new Side(left), right: new Side(right) });
    Object.assign(this, { path: [], place: 0, closed: false, live: false, following: false });
    this.log = { name: this.both.map((side) => side.name).join(" ↔ "), runs: [], problems: [] };
    this.source = { name: this.log.name, grows: left.source.grows && right.source.grows };
    this.memory = new Set();
    this.spots = new WeakMap();
  }

  get both() {
    return [this.left, this.right];
  }

  get run() {
    return this.both.every((entry) => entry.run) ? this : null;
  }

  get loaded() {
    return this.both.every((entry) => entry.loaded);
  }

  get problem() {
    return this.both.map((side) => side.trouble).find(Boolean) ?? null;
  }

  read(changed) {
    for (const entry of this.both) entry.read(changed);
  }

  close() {
    for (const entry of [this, ...this.both]) entry.closed = true;
  }
}

/** The turns of two runs in rows: `{ place, left, right, differs }`; `left` or `right` may be null. */
export function rowsOf(one, other) {
  const texts = new Map([...one.turns, ...other.turns].map((turn) => [turn, textOfTurn(turn)]));
  const likeness = (left, right) => likenessOf(texts.get(left), texts.get(right));
  return aligned(one.turns, other.turns, likeness).map(([left, right], place) => ({
    place,
    left,
    right,
    differs: left && right ? differences(one, left, other, right) : [left ? "only in A" : "only in B"],
  }));
}

/** The cells of two turns in rows. */
export function cellRows(left, right) {
  return aligned(left?.cells ?? [], right?.cells ?? [], (one, other) => likenessOf(one.code, other.code));
}

/** The sub-calls of two cells in rows, by their prompts. */
export function callRows(left, right) {
  const asked = (cell) => (cell ? promptsOf(cell) : []);
  return aligned(asked(left), asked(right), (one, other) => Number(one.prompt === other.prompt));
}

/** Whether two sub-calls asked the same and got the same. Either may be null. */
export function sameCall(one, other) {
  return one !== null && other !== null && one.prompt === other.prompt && answered(one) === answered(other);
}

/** What a sub-call came to, as text. */
export function answered({ call, index }) {
  const answer = call.answers.get(index);
  return answer ? (answer.error ?? answer.text) : "";
}

/** The outputs of a cell as text, or null if they hold more than text. */
export function outputText(cell) {
  const outputs = cell?.result?.outputs ?? [];
  const texts = outputs.map((output) => {
    const data = fields(output.data);
    const others = Object.keys(data).some((type) => type.startsWith("image/"));
    return others ? null : textOf(output.text ?? data["text/plain"] ?? output.traceback);
  });
  if (texts.includes(null)) return null;
  return texts.join("\n").trimEnd() || (cell?.result?.error ?? "");
}

/** Whether two cells put out the same. The numbers of executions do not count. */
export function sameOutputs(left, right) {
  const known = (cell) =>
    JSON.stringify(
      (cell?.result?.outputs ?? []).map(({ execution_count: _, metadata: __, traceback, ...rest }) => rest),
    );
  return left?.result?.status === right?.result?.status && known(left) === known(right);
}

function textOfTurn(turn) {
  return turn.cells.map((cell) => cell.code).join("\n") || (turn.reply?.text ?? "");
}

function differences(one, left, other, right) {
  const cells = cellRows(left, right);
  const found = {
    code: cells.some(([a, b]) => a?.code !== b?.code),
    output: cells.some(([a, b]) => !sameOutputs(a, b)) || left.answer !== right.answer,
    calls: cells.some(([a, b]) => callRows(a, b).some(([x, y]) => !sameCall(x, y))),
    words: (left.reply?.text ?? "") !== (right.reply?.text ?? ""),
    cost: differentCost(one.spent(left), other.spent(right)),
  };
  if (found.code) found.words = false; // the code is part of the reply
  return Object.keys(found).filter((name) => found[name]);
}

function differentCost(a, b) {
  return a.input !== b.input || a.output !== b.output || a.cost !== b.cost;
}
