// Addresses of the page: what stands after the `#` names a log and a place in it, so that it can be sent as a link, and
// that the browser's Back goes back. `#a.jsonl?child=3.1&turn=2&cell=4&call=12`; `#a.jsonl?with=b.jsonl&with-child=3.1`
// compares two.

import { promptsOf } from "./calls.js";
import { textOf } from "./figures.js";

/** What an address says: `{ name, upload, run, children, beside, turn, cell, call }`. It may be any text. */
export function placeIn(hash) {
  const [name, query] = hash.slice(1).split(/\?(.*)/s);
  const known = new URLSearchParams(query ?? "");
  const numbered = (key) => (/^\d{1,9}$/.test(known.get(key) ?? "") ? Number(known.get(key)) : null);
  const runOf = (prefix) => ({
    upload: numbered(`${prefix}upload`),
    run: numbered(`${prefix}run`) ?? 1,
    children: known.getAll(`${prefix}child`).filter((step) => /^\d{1,9}\.\d{1,9}$/.test(step)),
  });
  return {
    name: decoded(name),
    ...runOf(""),
    beside: known.has("with") ? { name: known.get("with"), ...runOf("with-") } : null,
    turn: numbered("turn"),
    cell: known.get("cell"),
    call: numbered("call"),
  };
}

function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** The address of a place in an open log: `turn` counts from 0, -1 is the overview; `cell` is its number. */
export function addressOf(entry, { path = entry.path, turn = -1, cell = null, call = null } = {}) {
  const query = new URLSearchParams();
  const [first, second] = entry.both ?? [entry];
  const add = (prefix, { upload, place }, steps) => {
    if (upload) query.set(`${prefix}upload`, upload);
    if (place) query.set(`${prefix}run`, place + 1);
    for (const step of steps) query.append(`${prefix}child`, step);
  };
  add("", first, first.steps ?? stepsTo(first.log.runs[first.place], path));
  if (second) {
    query.set("with", second.upload ? "" : second.log.name);
    add("with-", second, second.steps);
  }
  if (turn >= 0) query.set("turn", turn + 1);
  if (cell !== null) query.set("cell", textOf(cell));
  if (call !== null) query.set("call", call + 1);
  const name = first.upload ? "" : encodeURIComponent(first.log.name);
  return `#${name}${query.size ? `?${query}` : ""}`;
}

/** The steps to a run below another one. */
function stepsTo(run, path) {
  return path.flatMap((child, depth) => stepsBelow(path[depth - 1] ?? run).get(child) ?? []);
}

/** Each child of a run with its step: the number of its cell and that of its prompt in the cell. */
export function stepsBelow(run) {
  const steps = new Map();
  for (const cell of run.cells.values()) {
    for (const [place, { call, index }] of promptsOf(cell).entries()) {
      const child = call.children.get(index);
      if (child) steps.set(child, `${textOf(cell.number)}.${place + 1}`);
    }
  }
  return steps;
}

/** The children that the steps of an address name, or null while the log lacks one. */
export function pathTo(run, steps) {
  const path = [];
  for (const step of steps) {
    const [cell, prompt] = step.split(".").map(Number);
    const asked = (path.at(-1) ?? run).cells.get(cell);
    const { call, index } = (asked && promptsOf(asked)[prompt - 1]) ?? {};
    const child = call?.children.get(index);
    if (!child) return null;
    path.push(child);
  }
  return path;
}

/** The part of a run that an address names, as a hit of the search; null while the log lacks it. */
export function partOf(run, { turn, cell, call }) {
  const found = cell === null ? null : [...run.cells.values()].find((one) => textOf(one.number) === cell);
  const place = found ? found.turn.place : (turn ?? 0) - 1;
  if (place >= run.turns.length || (cell !== null && !found)) return null;
  if (!found) return { turn: place, part: place < 0 ? "overview" : "card" };
  const where = { turn: place, cell: found.number };
  if (call === null) return { ...where, part: "cell" };
  return promptsOf(found).length >= call ? { ...where, part: "call", place: call - 1 } : null;
}

/** The history of the browser. Each place that a person goes to is an entry, which keeps where it was scrolled to. */
export class Addresses {
  constructor(title = document.title) {
    this.title = title;
  }

  /** Call `visit(place, spot)` when the person goes back or forward, or follows a link. */
  listen(visit) {
    addEventListener("popstate", () => visit(placeIn(location.hash), history.state?.spot));
  }

  /** A person went to a place; null is the list of runs. */
  go(entry, part) {
    const address = entry ? addressOf(entry, part) : location.pathname;
    if (entry ? address !== location.hash : location.hash) history.pushState(null, "", address);
  }

  /** The page was scrolled. */
  stay(spot) {
    history.replaceState({ spot }, "");
  }

  /** The title of the page. */
  name(entry) {
    document.title = entry ? `${entry.log.name} · ${this.title}` : this.title;
  }
}
