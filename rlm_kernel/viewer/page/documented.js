// The documented `iteration` lines, which hold a whole turn: logs of the reference, and `completion.metadata`.
//
// They hold less than our own lines: no times of cells, no usage of the root model, only the text of outputs.

import { number, textOf } from "./figures.js";
import { Call, Cell } from "./parts.js";
import { fields, list, messagesOf, resultOf, summaryOf, textOrNull } from "./shapes.js";

// The forms of the question: of the reference, and of our large and small prompt profiles.
const QUESTIONS = [
  /^Answer the following: ([\s\S]*?)\n\nYour context is/,
  /^Question: ([\s\S]*?)\n\n`context` is/,
  /\n\nQuestion: (.+)\s*$/,
];

/** Fill a turn from its line. */
export function documentedTurn(run, turn, line) {
  const took = number(line.iteration_time);
  // Without time stamps, a turn begins when the one before ends.
  const stamped = (Date.parse(textOf(line.timestamp)) - run.began) / 1000;
  const ended = Number.isFinite(stamped) ? number(stamped) : run.time + took;
  run.partial = true;
  run.time = Math.max(run.time, ended);
  const messages = messagesOf(Array.isArray(line.prompt) ? line.prompt : [{ role: "user", content: line.prompt }]);
  run.question ||= questionIn(messages);
  turn.messages = messages.slice(messages.findLastIndex((message) => message.role === "assistant") + 1);
  turn.reply = { text: textOf(line.response), ending: "", usage: null };
  Object.assign(turn, { asked: Math.max(0, ended - took), whole: took });
  for (const block of list(line.code_blocks)) cellOf(run, turn, fields(block));
  const final = line.final_answer;
  if (final !== null && final !== undefined && !run.metadata.log_schema) run.answer = textOf(final);
}

function cellOf(run, turn, block) {
  const result = fields(block.result);
  const cell = new Cell(turn, run.cells.size + 1, textOf(block.code), null);
  const outputs = ["stdout", "stderr"]
    .map((name) => ({ output_type: "stream", name, text: textOf(result[name]) }))
    .filter((output) => output.text);
  // The reference does not mark failed cells. A traceback, or an error name before a colon, shows a failure.
  const failed = /^(Traceback |\w*(Error|Exception)(:|$))|\n\w*(Error|Exception)(:|\s*$)/.test(textOf(result.stderr));
  cell.result = resultOf({ status: failed ? "error" : "ok", outputs, seconds: result.execution_time });
  const calls = list(result.rlm_calls).map(fields);
  if (calls.length) cell.begin(callOf(run, turn, calls, cell.number));
  turn.cells.push(cell);
  run.cells.set(cell.number, cell);
}

function callOf(run, turn, calls, cellNumber) {
  const kind = calls.some((one) => one.metadata) ? "rlm_query" : "llm_query";
  const call = new Call({
    query: `documented ${cellNumber}`,
    kind,
    model: calls[0].root_model,
    prompts: calls.map(promptOf),
  });
  calls.forEach((one, index) => {
    const usage = summaryOf(one.usage_summary);
    const model = textOf(one.root_model);
    if (usage) run.spending.push({ time: run.time, turn, ...usage, model, kind: "sub-call" });
    const [text, error] = [textOf(one.response), textOrNull(one.error)];
    call.answers.set(index, { model, text, error, usage, seconds: number(one.execution_time), attempts: 1 });
    if (one.metadata) {
      call.children.set(index, childOf(run, one.metadata, `Child of cell ${cellNumber}`, call.prompts[index]));
    }
  });
  return call;
}

/** The run of a child, which is part of the call that it answered. */
function childOf(parent, metadata, title, question) {
  const [about, iterations] = [fields(metadata.run_metadata), list(metadata.iterations).map(fields)];
  const run = parent.below({ question, ...about }, title);
  // The reference does not log when a child began. Its first turn has its end time and its duration.
  if (!Number.isFinite(run.began)) {
    run.began = Date.parse(textOf(iterations[0]?.timestamp)) - number(iterations[0]?.iteration_time) * 1000;
  }
  for (const line of iterations) run.add({ ...line, type: "iteration" });
  run.answer ??= textOf(iterations.at(-1)?.final_answer);
  return run;
}

function promptOf({ prompt }) {
  if (Array.isArray(prompt) && prompt.every((message) => fields(message).content !== undefined)) {
    return prompt.map((message) => `${textOf(message.role)}: ${textOf(message.content)}`).join("\n\n");
  }
  return textOf(prompt);
}

function questionIn(messages) {
  const texts = messages.filter((message) => message.role === "user").map((message) => message.content);
  const found = texts.reverse().flatMap((text) => QUESTIONS.map((pattern) => pattern.exec(text)?.[1]));
  return found.find(Boolean) ?? "";
}
