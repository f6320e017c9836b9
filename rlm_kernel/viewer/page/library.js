// The first page of `rlm view`: the runs of the folder, newest first. Other logs can be dropped on it.

import { button, h } from "./elements.js";
import { bytes, count, day, dollars, firstWords, seconds, short, textOf } from "./figures.js";
import { plainLine } from "./foreign_text.js";
import { stateBadge } from "./states.js";

/** The page. `runs`: the list from the server, or null before it has come; `open(name)`, `choose(files)`. */
export function libraryOf({ folder, runs, count: all = 0, problem, open, choose, picks }) {
  const input = h("input", { type: "file", accept: ".jsonl", multiple: true, hidden: true });
  input.addEventListener("change", () => choose([...input.files]));
  const head = h(
    "header.library-head",
    {},
    h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, "Runs"),
      h(
        "p.muted",
        {},
        folder && `${folder} · ${all > runs.length ? `the newest ${runs.length} of ` : ""}${count(all, "log")}`,
      ),
    ),
    h(
      "div.library-open",
      {},
      button("Open a .jsonl …", () => input.click(), { class: "primary", "data-stop": true }),
      h("span.muted", {}, "or drop the file on this page"),
      runs?.length > 1 && picks.start,
      input,
    ),
  );
  return h("div.library", {}, head, problem && h("p.note", { role: "alert" }, problem), listOf(runs, folder, open, picks));
}

function listOf(runs, folder, open, picks) {
  if (runs === null) return null;
  if (!runs.length && folder)
    return h("p.empty.muted", {}, "This folder has no log yet. New runs appear here automatically.");
  return h(
    "ol.runs",
    {},
    runs.map((run) => h("li.run-item", {}, rowOf(run, open), runs.length > 1 && picks.box(run))),
  );
}

function rowOf(run, open) {
  const question = plainLine(firstWords(textOf(run.question), 300)) || run.name;
  const answer = plainLine(firstWords(textOf(run.answer ?? run.error).replaceAll("**", ""), 300));
  const figures = [
    textOf(run.model),
    run.seconds !== null && seconds(run.seconds),
    run.tokens !== null && `${short(run.tokens)} tokens`,
    run.cost !== null && dollars(run.cost),
    bytes(run.size),
  ];
  return h(
    "button.run-row",
    { type: "button", "data-stop": true, "data-name": run.name, click: () => open(run.name) },
    h(
      "span.run-top",
      {},
      stateBadge(run.state),
      h("span.muted", {}, day(run.modified * 1000)),
    ),
    h("span.run-question", {}, question),
    answer && h(`span.run-answer${run.error ? ".bad-text" : ""}`, {}, answer),
    h(
      "span.run-figures.muted",
      {},
      figures.filter(Boolean).map((words) => h("span", {}, words)),
    ),
  );
}

/** Accept files that are dropped on the page. */
export function receiveDrops(target, choose) {
  const files = (event) => event.dataTransfer?.types?.includes("Files");
  target.addEventListener("dragover", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    target.classList.add("dropping");
  });
  target.addEventListener("dragleave", () => target.classList.remove("dropping"));
  target.addEventListener("drop", (event) => {
    target.classList.remove("dropping");
    if (!files(event)) return;
    event.preventDefault();
    choose([...event.dataTransfer.files]);
  });
}
