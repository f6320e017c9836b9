// An open log: what was read of it, the position of the reader, and reading on while it grows.

import { Log } from "./log.js";
import { textsOf } from "./words.js";

const PAUSE = 1000; // milliseconds between two reads of a growing log
const SELDOM = 5000; // the same for a finished log: its run may be resumed

export class OpenLog {
  constructor(source) {
    this.source = source;
    this.log = new Log(source);
    this.place = 0;
    this.path = [];
    this.problem = null;
    this.loaded = false;
    this.closed = false;
    this.following = true;
    this.memories = new WeakMap();
    this.spots = new WeakMap(); // where each run is scrolled to
    this.wanted = null; // the place of an address that the log does not hold yet
    this.lost = false; // whether it never held it
  }

  /** The run that is shown: a run of the log, or a child of one. */
  get run() {
    return this.path.at(-1) ?? this.log.runs[this.place];
  }

  /** Whether the log may still grow. */
  get live() {
    return this.source.fresh && !this.log.runs.at(-1)?.over;
  }

  state() {
    return [this.log.size, this.live, this.loaded, this.problem].join();
  }

  /** The open parts of a run. */
  memoryOf(run) {
    if (!this.memories.has(run)) this.memories.set(run, new Set());
    return this.memories.get(run);
  }

  close() {
    this.closed = true;
  }

  /** Read to the end, and on while the log grows. `changed` is called after each piece. */
  async read(changed) {
    while (!this.closed) {
      const before = this.state();
      try {
        for await (const piece of this.source.from(this.log.size)) {
          if (this.closed) return;
          this.log.fresh = this.source.fresh;
          this.log.push(piece);
          if (this.run) await this.log.words.learn(textsOf(this.run)); // else the page would move when they come
          changed();
        }
        this.log.fresh = this.source.fresh;
        if (!this.source.grows) this.log.finish();
        this.problem = null;
      } catch (error) {
        this.problem = `${this.log.name} cannot be read: ${error.message}`;
      }
      this.loaded = true;
      if (before !== this.state()) changed();
      if (!this.source.grows) return;
      await new Promise((resolve) => setTimeout(resolve, this.live ? PAUSE : SELDOM));
    }
  }
}
