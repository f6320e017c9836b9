// The top of a run: the question, the answer and the main figures.

import { fold, h } from "./elements.js";
import { bytes, count, day, dollars, grouped, number, seconds, short, textOf } from "./figures.js";
import { passage, wordsOf } from "./passage.js";
import { plotOf } from "./plot.js";
import { stateBadge, title } from "./states.js";

/** The overview. `entry`: the open log of the run. */
export function overviewOf(run, entry, memory) {
  const { log, live, problem } = entry;
  return h(
    "section.overview",
    { "aria-label": "Overview" },
    h("p.kicker.muted", {}, stateBadge(run.state), ...about(run)),
    h("h1", { tabindex: "-1", "data-stop": true, "data-turn": -1 }, "Question"),
    h(
      "div.question",
      {},
      wordsOf(run.question || "The log has no separate question: the input was the whole prompt.", run.log.words, {
        kind: "question",
        label: "Question",
        first: 1200,
      }),
    ),
    outcome(run),
    facts(run),
    plotOf(run, memory),
    h("div.folds", {}, usageByModel(run, memory), settings(run, memory)),
    warnings(run, log, live, problem),
  );
}

function about(run) {
  const facts = [run.model, run.environment, Number.isFinite(run.began) && day(run.began)];
  return facts.filter(Boolean).map((words) => h("span", {}, words));
}

function outcome(run) {
  if (run.answer !== null) {
    return h(
      "div.outcome",
      {},
      h("p.label", {}, "Answer"),
      wordsOf(run.answer || "(an empty answer)", run.log.words, { kind: "answer", label: "Answer" }),
    );
  }
  if (run.failure !== null) {
    const { type, message, partial } = run.failure;
    const best = partial && [
      h("p.label", {}, "Best answer so far"),
      wordsOf(partial, run.log.words, { kind: "answer", label: "Partial answer" }),
    ];
    return h(
      `div.outcome.outcome-${run.state}`,
      {},
      h("p.label", {}, [title(run.state), run.state !== "stopped" && type].filter(Boolean).join(" · ")),
      message ? passage(message, { kind: "error", label: "Error" }) : h("p", {}, ENDINGS[run.state]),
      best,
    );
  }
  return h(
    "div.outcome",
    {},
    h("p.label", {}, "Answer"),
    h("p.waiting", {}, ENDINGS[run.state]),
  );
}

const ENDINGS = {
  running: "The run is in progress …",
  stopped: "The run was stopped before it had an answer.",
  limit: "The run reached a limit before it had an answer.",
  failed: "The run failed without a message.",
  lost: "No answer: the log has no end, so the process of the run was killed. `rlm resume` continues it.",
};

function facts(run) {
  // Prefer the usage of the outcome: a log may lack the calls of the root model.
  const { input, output, cost, calls } = run.usage ?? run.spent();
  const { subcalls, children } = run.counts();
  const tokens = run.partial && !run.usage ? `${short(input + output)} in sub-calls` : short(input + output);
  const list = [
    ["Time", seconds(run.time)],
    [
      "Turns",
      run.metadata.max_iterations
        ? `${grouped(run.turns.length)} of ${textOf(run.metadata.max_iterations)}`
        : grouped(run.turns.length),
    ],
    ["Cells", grouped(run.cells.size)],
    calls > 0 && (run.usage || !run.partial) && ["Model calls", grouped(calls), "Everything that models answered: turns and sub-calls, also those of children"],
    ["Sub-calls", grouped(subcalls), "Prompts of llm_query and rlm_query, also those of children"],
    children > 0 && ["Children", grouped(children), "Runs that rlm_query started, also those of children"],
    ["Tokens", tokens, `${grouped(input)} in, ${grouped(output)} out`],
    ["Cost", dollars(cost).replace("cost ", "")],
  ].filter(Boolean);
  return h(
    "dl.facts",
    {},
    list.map(([name, value, title]) => h("div", { title }, h("dt", {}, name), h("dd", {}, value))),
  );
}

function usageByModel(run, memory) {
  const models = modelsOf(run);
  if (!models.length) return null;
  const row = ({ model, calls, input, output, cost }) => {
    const figures = [grouped(calls), grouped(input), grouped(output), cost === null ? "unknown" : dollars(cost)];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, model || "unknown"),
      figures.map((figure) => h("td", {}, figure)),
    );
  };
  const names = ["Model", "Calls", "Tokens in", "Tokens out", "Cost"];
  const head = h(
    "tr",
    {},
    names.map((name) => h("th", { scope: "col" }, name)),
  );
  const table = () =>
    h(
      "div.table-frame",
      { tabindex: "0", role: "region", "aria-label": "Usage by model" },
      h("table", {}, h("thead", {}, head), h("tbody", {}, models.map(row))),
    );
  const summary = [h("span", {}, "Usage by model"), h("span.muted", {}, count(models.length, "model"))];
  return fold(memory, "models", summary, table, { class: "folded" });
}

/** The models of the outcome, else those of the calls so far. */
function modelsOf(run) {
  if (run.usage) return run.usage.models;
  const models = new Map();
  for (const { model, input, output, cost } of run.spending) {
    const sum = models.get(model) ?? { calls: 0, input: 0, output: 0, cost: 0 };
    const known = sum.cost !== null && cost !== null;
    models.set(model, {
      model,
      calls: sum.calls + 1,
      input: sum.input + input,
      output: sum.output + output,
      cost: known ? sum.cost + cost : null,
    });
  }
  return [...models.values()];
}

function settings(run, memory) {
  const { context } = run;
  const known = run.metadata.configuration ?? run.metadata;
  const size = context ? bytes(number(context.size)) : "";
  const type = textOf(run.metadata.context_type);
  const body = () => [
    h(
      "p.note",
      {},
      [
        type &&
          `The context is a ${type} of ${grouped(number(run.metadata.context_length))} ${type === "str" ? "characters" : "items"}.`,
        context?.sha256 && `SHA-256 ${textOf(context.sha256)}.`,
        context?.redacted && "It was not stored because it holds a secret.",
      ]
        .filter(Boolean)
        .join(" "),
    ),
    passage(JSON.stringify(known, null, 2), { label: "Settings" }),
  ];
  return fold(
    memory,
    "settings",
    [h("span", {}, "Input and settings"), h("span.muted", {}, [type, size].filter(Boolean).join(", "))],
    body,
    { class: "folded" },
  );
}

function warnings(run, log, live, problem) {
  const notes = [problem, ...log.problems.slice(0, 5)].filter(Boolean);
  if (log.problems.length > 5) notes.push(`${grouped(log.problems.length - 5)} more lines could not be read.`);
  if (log.cut && !live)
    notes.push(
      "The last line of the log is incomplete: the process was killed while writing it. All lines before it are shown.",
    );
  if (run.partial && !run.depth && !run.usage)
    notes.push("This log does not record the usage of the root model: tokens and cost are those of the sub-calls.");
  return notes.map((words) => h("p.note", {}, words));
}

/** The page of a log that has no run yet, or none that can be read. */
export function waiting(entry) {
  const empty = entry.loaded ? `${entry.log.name} has no run yet.` : "Reading …";
  const text = entry.problem ?? entry.log.problems[0] ?? empty;
  return h(
    "main.scroller",
    {},
    h("div.library", {}, h("h1", { tabindex: "-1" }, entry.log.name), h("p.note", {}, text)),
  );
}
