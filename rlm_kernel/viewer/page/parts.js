// The parts of a run: turns, cells, the calls of a cell.

import { number, textOf } from "./figures.js";
import { list } from "./shapes.js";

export class Turn {
  constructor(iteration, place) {
    Object.assign(this, { iteration, place, messages: [], reply: null, seconds: null, asked: null, whole: null });
    Object.assign(this, { cells: [], notices: [], summary: null, finished: null, answer: null });
  }

  get title() {
    return `Turn ${textOf(this.iteration)}`;
  }

  get failed() {
    return this.cells.some((cell) => cell.failed);
  }

  get children() {
    return this.cells.flatMap((cell) => cell.calls.flatMap((call) => [...call.children.values()]));
  }
}

export class Cell {
  constructor(turn, cellNumber, code, time) {
    Object.assign(this, { turn, number: cellNumber, code, began: time, calls: [], tools: [], result: null });
    this.byQuery = new Map(); // a cell may hold thousands of calls
  }

  begin(call) {
    this.calls.push(Object.assign(call, { cell: this }));
    this.byQuery.set(call.query, call);
  }

  get failed() {
    return this.result !== null && this.result.status !== "ok";
  }

  call(query) {
    return this.byQuery.get(query);
  }
}

export class Call {
  constructor(line) {
    this.query = line.query;
    this.kind = textOf(line.kind) || "llm_query";
    this.model = textOf(line.model);
    this.prompts = list(line.prompts).map(textOf);
    this.images = list(line.images);
    this.answers = new Map();
    this.rejected = new Map();
    this.children = new Map();
    this.seconds = null;
    this.began = number(line.time);
  }

  get failed() {
    return [...this.answers.values()].filter((answer) => answer.error !== null).length;
  }
}
