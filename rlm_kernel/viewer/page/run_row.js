// One run in the list: what it was, its figures, and what people say about it.

import { button, h, s } from "./elements.js";
import { bytes, day, dollars, firstWords, grouped, seconds, short, textOf } from "./figures.js";
import { FIGURES } from "./finder.js";
import { plainLine } from "./foreign_text.js";
import { stateBadge } from "./states.js";

const [MAX_TAG, MAX_NOTE] = [60, 4000]; // as in trajectory/runs/notes.py
const FORMATS = { seconds, turns: grouped, calls: grouped, tokens: short, cost: dollars, size: bytes, model: textOf, environment: textOf };

/** The row. `deeds`: `open(name)`, `note(name, change)`, `tag(tag)` shows the runs with it. */
export function rowOf(run, columns, deeds) {
  const question = plainLine(firstWords(textOf(run.question), 300)) || run.name;
  const answer = plainLine(firstWords(textOf(run.answer ?? run.error), 300));
  return h(
    "button.run-row",
    { type: "button", "data-stop": true, "data-name": run.name, click: () => deeds.open(run.name) },
    h("span.run-top", {}, stateBadge(run.state), h("span.muted", {}, day(run.began * 1000))),
    h("span.run-question", {}, question),
    h(
      `span.run-answer${run.state === "failed" || run.state === "limit" ? ".bad-text" : ""}${answer ? "" : ".muted"}`,
      {},
      answer || (run.state === "running" ? "No answer yet" : "No answer"),
    ),
    h("span.run-figures", {}, figuresOf(run, columns)),
  );
}

function figuresOf(run, columns) {
  return FIGURES.filter(([name]) => columns.includes(name)).map(([name, words]) => {
    const value = run[name];
    const known = value !== null && value !== "";
    const text = known ? plainLine(FORMATS[name](value)) : "–";
    return h(
      `span.figure.figure-${name}${known ? "" : ".muted"}`,
      { title: known ? text : `${words}: unknown` },
      h("span.figure-name.muted", {}, `${words} `),
      text,
    );
  });
}

/** The thumbs, tags and note below a row, and the fields to change them. */
export function notesOf(run, deeds) {
  const thumb = (kind) =>
    button(thumbSign(), () => deeds.note(run.name, { thumb: run.thumb === kind ? "none" : kind }), {
      class: `thumb thumb-${kind}`,
      "aria-pressed": String(run.thumb === kind),
      "aria-label": `Thumb ${kind}`,
      title: `Thumb ${kind}`,
    });
  const tags = run.tags.map((tag) => button(plainLine(tag), () => deeds.tag(tag), { class: "tag", title: "Show runs with this tag" }));
  const box = h("div.note-box", { hidden: true });
  const edit = button("Tags and note", () => toggle(), { class: "link edit-notes", "aria-expanded": "false" });
  const toggle = () => {
    box.hidden = !box.hidden;
    edit.setAttribute("aria-expanded", String(!box.hidden));
    if (!box.hidden) {
      box.replaceChildren(...fieldsOf(run, deeds, toggle));
      box.querySelector("input").focus();
    } else edit.focus();
  };
  const note = run.note && h("p.run-note", {}, plainLine(firstWords(run.note, 300)));
  const element = h("div.run-notes", {}, h("div.run-marks", {}, thumb("up"), thumb("down"), tags, edit), note, box);
  return element;
}

function fieldsOf(run, deeds, close) {
  const tags = h("input", { type: "text", "aria-label": "Tags, separated by commas", placeholder: "tags, separated by commas" });
  tags.value = run.tags.join(", ");
  const note = h("textarea", { rows: 3, maxlength: MAX_NOTE, "aria-label": "Note", placeholder: "a note" });
  note.value = run.note;
  const problem = h("p.bad-text", { role: "alert" });
  const save = async () => {
    const wanted = tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
    const long = wanted.find((tag) => tag.length > MAX_TAG);
    if (long) {
      problem.textContent = `A tag has at most ${MAX_TAG} characters: shorten “${firstWords(long, 30)}”.`;
      return;
    }
    const change = {
      add_tags: wanted.filter((tag) => !run.tags.includes(tag)),
      remove_tags: run.tags.filter((tag) => !wanted.includes(tag)),
      note: note.value,
    };
    const why = await deeds.note(run.name, change);
    if (why) problem.textContent = why;
    else close();
  };
  tags.addEventListener("keydown", (event) => event.key === "Enter" && save());
  for (const field of [tags, note]) field.addEventListener("keydown", (event) => event.key === "Escape" && close());
  return [tags, note, problem, h("div.note-deeds", {}, button("Save", save, { class: "quiet" }), button("Cancel", close, { class: "link" }))];
}

function thumbSign() {
  const path = "M7 21V10l4-8a3 3 0 0 1 3 3v4h5.5a2 2 0 0 1 2 2.3l-1.3 7.9a2 2 0 0 1-2 1.8zM7 10H3v11h4";
  return s("svg", { viewBox: "0 0 24 24", width: 16, height: 16, "aria-hidden": "true" }, s("path", { d: path }));
}
