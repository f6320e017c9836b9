// Checks the values of a log for the rest of the viewer. A log may be damaged, written by another version, or hostile:
// a value of a wrong type becomes an empty value of the right type.

import { number, textOf } from "./figures.js";

export function list(value) {
  return Array.isArray(value) ? value : [];
}

export function fields(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

/** A text, or null where there is none. */
export function textOrNull(value) {
  return value === null || value === undefined ? null : textOf(value);
}

/** A number, or null: an unknown cost is not 0. */
export function knownNumber(value) {
  return value === number(value) ? value : null;
}

export function messagesOf(value) {
  return list(value).map((message) => ({
    role: textOf(fields(message).role),
    content: textOf(fields(message).content),
  }));
}

export function replyOf(value) {
  const reply = fields(value);
  return { text: textOf(reply.text), ending: textOf(reply.finish_reason), usage: usageOf(reply.usage) };
}

/** What one call cost: `{ input, output, cost }`, or null. */
export function usageOf(value) {
  if (value !== fields(value)) return null;
  return { input: number(value.input_tokens), output: number(value.output_tokens), cost: knownNumber(value.cost) };
}

/** A documented usage summary: `{ models: [{ model, calls, input, output, cost }], input, output, cost }`, or null. */
export function summaryOf(value) {
  const models = Object.entries(fields(fields(value).model_usage_summaries)).map(([model, sum]) => ({
    model,
    calls: number(fields(sum).total_calls),
    input: number(fields(sum).total_input_tokens),
    output: number(fields(sum).total_output_tokens),
    cost: knownNumber(fields(sum).total_cost),
  }));
  const calls = models.reduce((total, model) => total + model.calls, 0);
  return models.length ? { models, calls, ...added(models) } : null;
}

/** Usages added up; the cost is null when one of them is. */
export function added(usages) {
  const sum = (name) => usages.reduce((total, usage) => total + usage[name], 0);
  const known = usages.length > 0 && usages.every((usage) => usage.cost !== null);
  return { input: sum("input"), output: sum("output"), cost: known ? sum("cost") : null };
}

export function answerOf(line) {
  return {
    model: textOf(line.model),
    text: textOf(line.text),
    error: textOrNull(line.error),
    usage: usageOf(line.usage),
    seconds: number(line.seconds),
    attempts: number(line.attempts),
    time: number(line.time),
  };
}

/** Whether the call reached a model. One that failed before has a usage of zeros only. */
export function wasAsked({ usage, error }) {
  return usage !== null && !(error && !usage.input && usage.cost === null);
}

export function resultOf(value) {
  const result = fields(value);
  const error = result.error ? fields(result.error) : null;
  return {
    status: textOf(result.status) || "ok",
    outputs: list(result.outputs).map(fields),
    error: error && (textOf(error.traceback) || `${textOf(error.name)}: ${textOf(error.message)}`),
    count: knownNumber(result.execution_count),
    seconds: number(result.seconds),
    dropped: number(result.dropped_characters),
    restored: Object.keys(fields(fields(result.report).restored)),
  };
}

/** A call of a custom tool and its result. */
export function toolOf(line) {
  const [call, outcome] = [fields(line.call), fields(line.outcome)];
  const named = Object.entries(fields(call.kwargs)).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  const words = [...list(call.args).map((value) => JSON.stringify(value)), ...named].join(", ");
  const error = textOrNull(outcome.error);
  return {
    call: `${textOf(call.tool)}(${words})`,
    error,
    result: error ?? textOf(outcome.text),
    seconds: number(line.seconds),
  };
}
