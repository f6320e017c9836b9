// A run as a tree, built from the lines of its log one after another: turns, their cells, the calls of the cells, the
// runs of children. The same tree as `rlm_kernel/trajectory/tree.py`, for a log that may be cut, damaged or hostile.

import { documentedTurn } from "./documented.js";
import { number, textOf } from "./figures.js";
import { Call, Cell, Turn } from "./parts.js";
import {
  added,
  answerOf,
  fields,
  list,
  messagesOf,
  replyOf,
  resultOf,
  summaryOf,
  textOrNull,
  toolOf,
  wasAsked,
} from "./shapes.js";
import { stateAt } from "./states.js";

export class Run {
  /** `log`: of the run; `top`: the run of the log that this one is a child of, if it is one. */
  constructor(metadata = {}, title = "", log = null, top = null) {
    Object.assign(this, { title, log, top: top ?? this });
    this.metadata = metadata;
    this.model = textOf(metadata.model ?? metadata.root_model) || "unknown model";
    this.question = textOf(metadata.question) || textOf(metadata.input_text);
    this.environment = textOf(metadata.environment ?? metadata.environment_type);
    this.began = Date.parse(textOf(metadata.timestamp));
    this.setup = new Cell(null, 0, "", 0); // the sub-calls of the kernel's setup
    this.turns = [];
    this.cells = new Map();
    this.context = null;
    this.kernelSeconds = null;
    this.time = 0;
    this.answer = null;
    this.failure = null;
    this.usage = null;
    this.spending = [];
    this.partial = false; // the reference logs no usage of its root model
    this.changed = new Set();
  }

  /** Whether the log has the end of the run. If not, the run is in progress or was killed. */
  get over() {
    return this.answer !== null || this.failure !== null;
  }

  get state() {
    return stateAt(this, this.top.live);
  }

  /** Whether the run is in progress. */
  get live() {
    return Boolean(this.log?.fresh) && !this.over && this.log.runs.at(-1) === this.top;
  }

  /** Whether a cell or a call of the model has no end in the log. */
  get isOpen() {
    const turn = this.turns.at(-1);
    return Boolean(turn) && ((turn.reply === null && turn.asked !== null) || turn.cells.some((cell) => !cell.result));
  }

  get depth() {
    return number(this.metadata.depth);
  }

  /** Input and output tokens and the cost, added up; the cost is null when that of one call is unknown. */
  spent(turn = null) {
    const entries = turn ? this.spending.filter((entry) => entry.turn === turn) : this.spending;
    return { calls: entries.length, ...added(entries) };
  }

  /** The sub-calls and children of the run and its children. */
  counts() {
    const calls = [this.setup, ...this.cells.values()].flatMap((cell) => cell.calls);
    const below = calls.flatMap((call) => [...call.children.values()].map((child) => child.counts()));
    const sum = (name) => below.reduce((total, one) => total + one[name], 0);
    return {
      subcalls: calls.reduce((total, call) => total + call.prompts.length, 0) + sum("subcalls"),
      children: below.length + sum("children"),
    };
  }

  add(line) {
    this.time = Math.max(this.time, number(line.time));
    const take = TAKERS[line.type];
    if (take) take(this, line);
    const paid = this.paid(line);
    if (paid) this.spending.push({ time: this.time, turn: this.turns.at(-1), ...paid });
  }

  /** A run of its own below this one. */
  below(metadata, title) {
    return new Run(metadata, title, this.log, this.top);
  }

  /** The turn of this number; creates it if it is new. */
  turn(iteration) {
    let turn = this.turns.at(-1);
    if (turn?.iteration !== iteration) {
      turn = new Turn(iteration, this.turns.length);
      this.turns.push(turn);
    }
    this.changed.add(turn);
    return turn;
  }

  /** The last turn shows the state of the run where it has no result. */
  markLast() {
    if (this.turns.length) this.changed.add(this.turns.at(-1));
  }

  cell(line) {
    const cell = this.cellOf(line);
    if (!cell) throw new Error(`there is no cell ${line.cell}`);
    if (cell.turn) this.changed.add(cell.turn);
    return cell;
  }

  cellOf(line) {
    return line.cell === 0 ? this.setup : this.cells.get(line.cell);
  }

  /** Add the usage of a line to this run or to a child. */
  paid(line) {
    if (line.type === "child") return this.paidBelow(line);
    if (line.type === "reply" || line.type === "summary") return paidFor(replyOf(line.reply).usage, this.model, "root");
    if (line.type !== "answer") return null;
    const answer = answerOf(line);
    const call = this.cellOf(line)?.call(line.query);
    const counted = call?.children.has(line.index) || !wasAsked(answer);
    return counted ? null : paidFor(answer.usage, answer.model, "sub-call");
  }

  /** The same for a line of a child: every kernel counts its cells and calls from one, so only the child knows. */
  paidBelow(line) {
    const paid = this.cell(line).call(line.query).children.get(line.index).paid(fields(line.line));
    return paid && { ...paid, kind: "sub-call" };
  }
}

function paidFor(usage, model, kind) {
  return usage && { ...usage, model, kind };
}

/** A child is one more run of the tree, with the lines that its parent's log holds. */
function child(run, line) {
  const call = run.cell(line).call(line.query);
  const inner = fields(line.line);
  if (!call.children.has(line.index)) {
    const title = `Child of cell ${line.cell}${call.prompts.length > 1 ? `, prompt ${line.index + 1}` : ""}`;
    const started = inner.type === "metadata" ? { timestamp: run.metadata.timestamp, ...inner } : {};
    call.children.set(
      line.index,
      run.below({ ...started, question: inner.question ?? call.prompts[line.index] }, title),
    );
  }
  if (inner.type !== "metadata") call.children.get(line.index).add(inner);
}

const TAKERS = {
  context: (run, line) => (run.context = line),
  kernel_ready: (run, line) => (run.kernelSeconds = number(line.seconds)),
  asked(run, line) {
    const turn = run.turn(line.iteration);
    turn.asked ??= number(line.time);
    turn.messages.push(...messagesOf(line.told));
  },
  reply(run, line) {
    Object.assign(run.turn(line.iteration), { reply: replyOf(line.reply), seconds: number(line.seconds) });
  },
  cell(run, line) {
    const turn = run.turn(line.iteration);
    const cell = new Cell(turn, line.cell, textOf(line.code), number(line.time));
    turn.cells.push(cell);
    run.cells.set(line.cell, cell);
  },
  subcall: (run, line) => run.cell(line).begin(new Call(line)),
  rejected(run, line) {
    const { rejected } = run.cell(line).call(line.query);
    const reply = { text: replyOf(line.reply).text, problems: list(line.problems).map(textOf) };
    rejected.set(line.index, [...(rejected.get(line.index) ?? []), reply]);
  },
  answer: (run, line) => run.cell(line).call(line.query).answers.set(line.index, answerOf(line)),
  subcall_end: (run, line) => (run.cell(line).call(line.query).seconds = number(line.seconds)),
  tool_call: (run, line) => run.cell(line).tools.push(toolOf(line)),
  cell_result: (run, line) => (run.cell(line).result = resultOf(line.result)),
  iteration(run, line) {
    const turn = run.turn(line.iteration);
    if (turn.reply === null && "response" in line) documentedTurn(run, turn, line);
    turn.finished = number(line.seconds ?? line.iteration_time);
    turn.answer = textOrNull(line.answer ?? line.final_answer);
  },
  summary: (run, line) => (run.turn(line.iteration).summary = replyOf(line.reply).text),
  message: (run, line) => run.turn(number(line.iteration)).notices.push(`Message: ${textOf(line.text)}`),
  message_end: (run, line) => line.error && run.turn(number(line.iteration)).notices.push(`No answer: ${textOf(line.error)}`),
  notice: (run, line) => run.turn(run.turns.at(-1)?.iteration ?? 1).notices.push(textOf(line.message)),
  child,
  finished(run, line) {
    Object.assign(run, { answer: textOf(line.response), usage: summaryOf(line.usage_summary) });
    run.markLast();
  },
  failed(run, line) {
    const partial = textOrNull(line.partial_answer);
    run.failure = { type: textOf(line.error_type), message: textOf(line.error), partial };
    run.usage = summaryOf(line.usage_summary); // of a result that was kept without its log
    run.markLast();
  },
};
