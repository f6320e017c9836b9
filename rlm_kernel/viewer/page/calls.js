// The sub-calls and tool calls of a cell. There may be thousands of prompts: they are one folded list that shows a page
// of rows at a time. A row is built when it is opened.

import { button, fold, h, linkTo } from "./elements.js";
import { count, dollars, firstWords, grouped, seconds, short } from "./figures.js";
import { plainLine } from "./foreign_text.js";
import { passage } from "./passage.js";
import { added, wasAsked } from "./shapes.js";

const PAGE = 100;

/** The folded list of a cell's sub-calls, or null. `ways`: see `turnCard`. */
export function callsOf(cell, memory, key, ways) {
  if (!cell.calls.length) return null;
  const details = fold(memory, `${key}/calls`, summaryOf(cell), () => listOf(cell, memory, key, ways), {
    class: "calls",
  });
  details.reveal = (place) => {
    details.unfold();
    return details.querySelector(".call-list").reveal(place);
  };
  return details;
}

/** Every prompt of a cell with its call, in order. */
export function promptsOf(cell) {
  return cell.calls.flatMap((call) => call.prompts.map((prompt, index) => ({ call, index, prompt })));
}

function summaryOf(cell) {
  const prompts = promptsOf(cell);
  const answers = cell.calls.flatMap((call) => [...call.answers.values()]);
  const failed = cell.calls.reduce((sum, call) => sum + call.failed, 0);
  const kinds = [...new Set(cell.calls.map((call) => call.kind))].join(", ");
  const waiting = prompts.length - answers.length;
  return [
    h("span.calls-title", {}, count(prompts.length, "sub-call")),
    h("span.muted", {}, [kinds, ...totals(answers)].join(" · ")),
    failed > 0 && h("span.badge.bad", {}, `${grouped(failed)} failed`),
    waiting > 0 && progress(answers.length, prompts.length, secondsLeft(cell.calls[0].began, answers, waiting)),
  ];
}

function totals(answers) {
  const { input, output, cost } = added(answers.filter(wasAsked).map((answer) => answer.usage));
  const models = [...new Set(answers.map((answer) => answer.model))].filter(Boolean).slice(0, 3);
  return [models.join(", "), `${short(input + output)} tokens`, cost !== null && dollars(cost)].filter(Boolean);
}

function progress(done, all, left) {
  const time = left === null ? "" : `, about ${seconds(left)} left`;
  return h(
    "span.progress",
    {},
    h("progress", { value: done, max: all, "aria-label": "Answered" }),
    `${grouped(done)} of ${grouped(all)}${time}`,
  );
}

/** How long the prompts that wait will take at the pace so far, or null before the first answer. */
function secondsLeft(began, answers, waiting) {
  const took = answers.reduce((last, answer) => Math.max(last, answer.time), 0) - began;
  return took > 0 ? Math.ceil((took / answers.length) * waiting) : null;
}

function listOf(cell, memory, key, ways) {
  const prompts = promptsOf(cell);
  const failed = ({ call, index }) => Boolean(call.answers.get(index)?.error);
  const box = h("div.call-list");
  const rows = h("ol.rows");
  const foot = h("div.list-foot");
  const [shown, some] = [{ onlyFailed: memory.has(`${key}/failed`) }, prompts.some(failed)];
  let places = [];
  const next = (most = PAGE) => {
    const from = rows.childElementCount;
    for (const place of places.slice(from, from + most))
      rows.append(h("li", {}, rowOf(prompts[place], place, memory, key, ways)));
    const left = places.length - rows.childElementCount;
    const label = `Show ${grouped(Math.min(PAGE, left))} more of ${grouped(places.length)}`;
    foot.replaceChildren(...(left > 0 ? [button(label, () => more(), { class: "quiet", "data-stop": true })] : []));
  };
  const more = () => {
    const first = rows.childElementCount;
    next();
    rows.children[first]?.querySelector("summary").focus();
  };
  const draw = () => {
    places = prompts.map((_, place) => place).filter((place) => !shown.onlyFailed || failed(prompts[place]));
    rows.replaceChildren();
    next();
  };
  box.reveal = (place) => {
    if (shown.onlyFailed) Object.assign(shown, { onlyFailed: false });
    if (places.length !== prompts.length) draw();
    if (place >= rows.childElementCount) next(place + 1 - rows.childElementCount);
    const row = rows.children[place].querySelector("details");
    row.unfold();
    return row;
  };
  draw();
  box.append(...[some && failedOnly(shown, memory, `${key}/failed`, draw), rows, foot].filter(Boolean));
  return box;
}

function failedOnly(shown, memory, key, draw) {
  const box = h("input", { type: "checkbox", "data-stop": true });
  box.checked = shown.onlyFailed;
  box.addEventListener("change", () => {
    shown.onlyFailed = box.checked;
    memory[box.checked ? "add" : "delete"](key);
    draw();
  });
  return h("label.filter", {}, box, "Only failed prompts");
}

function rowOf(asked, place, memory, key, ways) {
  const { call, index, prompt } = asked;
  const answer = call.answers.get(index);
  const child = call.children.get(index);
  const text = answer ? (answer.error ?? answer.text) : "no answer yet";
  const summary = h(
    "span.row",
    {},
    h("span.row-number.muted", {}, grouped(place + 1)),
    h("span.row-prompt", {}, plainLine(firstWords(prompt)) || "(empty prompt)"),
    h(`span.row-answer${answer?.error ? ".bad-text" : ""}`, {}, plainLine(firstWords(text)) || "(empty answer)"),
    h("span.row-figures.muted", {}, child && h("span.badge", {}, "child"), ...figuresOf(answer)),
  );
  const part = { turn: call.cell.turn?.place ?? -1, cell: call.cell.number, call: place };
  const link = call.cell.turn && linkTo(ways, part, `Link to sub-call ${grouped(place + 1)}`);
  return fold(memory, `${key}/call ${place}`, summary, () => bodyOf(asked, link, ways), { class: "call" });
}

function figuresOf(answer) {
  if (!answer) return [];
  const tokens = wasAsked(answer) ? short(answer.usage.input + answer.usage.output) : "–";
  return [h("span", { title: "tokens" }, tokens), h("span", { title: "time" }, seconds(answer.seconds))];
}

function bodyOf({ call, index, prompt }, link, { enter }) {
  const answer = call.answers.get(index);
  const child = call.children.get(index);
  const parts = [facts(call, answer, link), titled("Prompt", passage(prompt, { label: "Prompt" }))];
  if (call.images.length)
    parts.push(h("p.note", {}, `With ${count(call.images.length, "picture")}, which the log does not store.`));
  for (const { text, problems } of call.rejected.get(index) ?? []) {
    parts.push(titled("Rejected reply", passage(text), h("p.note", {}, problems.join(" "))));
  }
  if (answer?.error) parts.push(titled("Error", passage(answer.error, { kind: "error", label: "Error" })));
  else if (answer) parts.push(titled("Answer", passage(answer.text, { kind: "answer", label: "Answer" })));
  if (child)
    parts.push(
      button(`Open the child's run (${count(child.turns.length, "turn")})`, () => enter(child), { "data-stop": true }),
    );
  return h("div.call-body", {}, parts);
}

function facts(call, answer, link) {
  const { usage } = answer ?? {};
  const parts = [call.kind, answer?.model || call.model];
  if (answer && wasAsked(answer)) {
    parts.push(`${grouped(usage.input)} tokens in, ${grouped(usage.output)} out`, dollars(usage.cost));
  }
  if (answer) parts.push(seconds(answer.seconds));
  if (answer?.attempts > 1) parts.push(count(answer.attempts, "attempt"));
  return h("p.muted.facts-line", {}, parts.filter(Boolean).join(" · "), " ", link);
}

function titled(title, ...content) {
  return h("div.titled", {}, h("p.label", {}, title), content);
}

/** The calls of custom tools. */
export function toolsOf(cell, memory, key) {
  return cell.tools.map(({ call, error, result, seconds: took }, index) => {
    const came = `→ ${plainLine(firstWords(result, 80))} · ${seconds(took)}`;
    const summary = [
      h("span.calls-title", {}, "Tool"),
      h("code.tool-call", {}, plainLine(firstWords(call, 120))),
      h(`span${error === null ? ".muted" : ".bad-text"}`, {}, came),
    ];
    const body = () => [
      titled("Call", passage(call)),
      titled(error === null ? "Result" : "Error", passage(result, { kind: error === null ? "answer" : "error" })),
    ];
    return fold(memory, `${key}/tool ${index}`, summary, body, { class: "calls" });
  });
}
