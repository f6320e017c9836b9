// A log as bytes: it may still grow, end in the middle of a line, and hold several runs one after the other (the
// reference writes all completions of one logger into one file and starts counting again).

import { Run } from "./run.js";
import { Words } from "./words.js";

export class Log {
  /** `source`: where its bytes come from, and what its words are drawn as. */
  constructor(source) {
    this.name = source.name;
    this.words = new Words(source);
    this.runs = [];
    this.fresh = false; // whether it changed lately
    this.problems = [];
    this.size = 0;
    this.rest = "";
    this.lineNumber = 0;
    this.decoder = new TextDecoder();
  }

  /** Add the next bytes. */
  push(bytes) {
    this.size += bytes.length;
    const parts = this.decoder.decode(bytes, { stream: true }).split("\n");
    parts[0] = this.rest + parts[0];
    this.rest = parts.pop();
    parts.forEach((part) => this.line(part));
  }

  /** End of the bytes: a last line without a newline is used if it is complete. */
  finish() {
    if (this.rest.trim() && whole(this.rest)) {
      this.line(this.rest);
      this.rest = "";
    }
  }

  get cut() {
    return this.rest.trim() !== "";
  }

  line(text) {
    this.lineNumber += 1;
    if (!text.trim()) return;
    try {
      const line = JSON.parse(text);
      if (line === null || typeof line !== "object") throw new Error("it is not a JSON object");
      this.runFor(line).add(line);
    } catch (error) {
      this.problems.push(`Line ${this.lineNumber} could not be read and is left out (${error.message.slice(0, 120)}).`);
    }
  }

  runFor(line) {
    const run = this.runs.at(-1);
    if (line.type === "metadata" || !run) return this.begin(line.type === "metadata" ? line : {});
    const again =
      line.type === "iteration" && !run.metadata.log_schema && line.iteration <= (run.turns.at(-1)?.iteration ?? 0);
    return again ? this.begin({ ...run.metadata, timestamp: run.metadata.timestamp, question: "" }) : run;
  }

  begin(metadata) {
    this.runs.push(new Run(metadata, `Run ${this.runs.length + 1}`, this));
    return this.runs.at(-1);
  }
}

function whole(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
