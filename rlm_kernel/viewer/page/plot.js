// Time, tokens and cost of a run: a chart over its time, and the same figures as a table.

import { fold, h, s } from "./elements.js";
import { dollars, grouped, number, seconds, short } from "./figures.js";

const [LEFT, RIGHT, GAP] = [54, 12, 18];
const [STRIP, TOKENS, COST] = [18, 96, 56];

/** The chart with its legend and table. It adapts to the width of its container. */
export function plotOf(run, memory) {
  if (!run.turns.length) return null;
  const frame = h("div.plot-frame");
  const known = run.spent().cost !== null;
  frame.style.minHeight = `${heightOf(known)}px`; // known before it is drawn, so that nothing below moves then
  let width = 0;
  const draw = () => {
    if (Math.abs(frame.clientWidth - width) < 4 || !frame.isConnected) return;
    width = frame.clientWidth;
    frame.replaceChildren(drawing(run, Math.max(260, width), known));
  };
  new ResizeObserver(draw).observe(frame);
  return h(
    "figure.plot",
    {},
    h("figcaption", {}, legend(run)),
    frame,
    fold(memory, "figures", "The figures as a table", () => table(run), { class: "folded" }),
  );
}

function legend(run) {
  const entry = (kind, words) => h("span.legend", {}, h(`span.swatch.${kind}`, { "aria-hidden": "true" }), words);
  const subCalls = run.spending.some((one) => one.kind === "sub-call");
  return [
    entry("swatch-model", run.partial ? "turns" : "model writes"),
    !run.partial && entry("swatch-cell", "cell runs"),
    !run.partial && run.isOpen && entry("swatch-open", `no end: ${run.state}`),
    !run.partial && run.turns.some((turn) => turn.failed) && entry("swatch-error", "cell failed"),
    !run.partial && entry("swatch-root", "tokens, root"),
    subCalls && entry("swatch-sub", "tokens, sub-calls"),
    run.spent().cost !== null && entry("swatch-cost", "cost"),
  ];
}

function heightOf(known) {
  return STRIP + GAP + TOKENS + GAP + (known ? COST + GAP : 0) + 6;
}

function drawing(run, width, known) {
  const end = Math.max(run.time, 1e-3);
  const x = (time) => LEFT + ((width - LEFT - RIGHT) * Math.min(Math.max(0, time), end)) / end;
  const parts = [strip(run, x)];
  const top = STRIP + GAP;
  parts.push(tokens(run, x, top, width));
  if (known) parts.push(costs(run, x, top + TOKENS + GAP, width));
  const height = heightOf(known);
  parts.push(axis(end, x, height - GAP + 8, width));
  const { input, output, cost } = run.spent();
  const summary = `Over ${seconds(end)}: ${grouped(run.turns.length)} turns, ${grouped(input + output)} tokens, ${dollars(cost)}. The table below has the figures.`;
  return s("svg", { role: "img", "aria-label": summary, width, height, viewBox: `0 0 ${width} ${height}` }, parts);
}

/** A strip of activities: the model writes, a cell runs. */
function strip(run, x) {
  const bar = (kind, from, length, title) =>
    s(
      `rect.${kind}`,
      { x: x(from), y: 0, width: Math.max(kind.endsWith("open") ? 4 : 1, x(from + length) - x(from)), height: STRIP, rx: 2 },
      s("title", {}, title),
    );
  return run.turns.flatMap((turn) => [
    turn.whole !== null && bar("fill-model", turn.asked, turn.whole, `${turn.title}: ${seconds(turn.whole)}`),
    turn.asked !== null &&
      turn.seconds !== null &&
      bar("fill-model", turn.asked, turn.seconds, `${turn.title}: model ${seconds(turn.seconds)}`),
    // A model or a cell without a result was busy until the end of the log.
    turn.asked !== null &&
      turn.reply === null &&
      bar("fill-model.fill-open", turn.asked, run.time - turn.asked, `${turn.title}: model, ${run.state}`),
    ...turn.cells
      .filter((cell) => cell.began !== null)
      .map((cell) =>
        cell.result
          ? bar(
              cell.failed ? "fill-error" : "fill-cell",
              cell.began,
              number(cell.result.seconds),
              `Cell ${cell.number}: ${seconds(cell.result.seconds)}`,
            )
          : bar("fill-cell.fill-open", cell.began, run.time - cell.began, `Cell ${cell.number}: ${run.state}`),
      ),
  ]);
}

/** Tokens so far, those of the root model below those of sub-calls. */
function tokens(run, x, top, width) {
  let [root, sub] = [0, 0];
  const points = run.spending.map((one) => {
    if (one.kind === "root") root += one.input + one.output;
    else sub += one.input + one.output;
    return { time: one.time, root, all: root + sub };
  });
  const most = Math.max(1, root + sub);
  const y = (value) => top + TOKENS * (1 - value / most);
  return [
    scale(most, y, width, short),
    s("path.fill-sub", { d: area(points, (point) => point.all, x, y, run.time) }),
    s("path.fill-root", { d: area(points, (point) => point.root, x, y, run.time) }),
  ];
}

function costs(run, x, top, width) {
  let sum = 0;
  const points = run.spending.map((one) => ({ time: one.time, cost: (sum += one.cost) }));
  const y = (value) => top + COST * (1 - value / (sum || 1));
  return [
    scale(sum, y, width, dollars),
    s("path.line-cost", { d: steps(points, (point) => point.cost, x, y, run.time) }),
  ];
}

function steps(points, value, x, y, end) {
  let d = `M${x(0)} ${y(0)}`;
  for (const point of points) d += `H${x(point.time).toFixed(1)}V${y(value(point)).toFixed(1)}`;
  return `${d}H${x(end)}`;
}

function area(points, value, x, y, end) {
  return `${steps(points, value, x, y, end)}V${y(0)}H${x(0)}Z`;
}

/** Two grid lines: zero and the maximum. */
function scale(most, y, width, words) {
  return [0, most].map((value) => [
    s("line.grid", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
    value > 0 && s("text.tick", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, words(value)),
  ]);
}

function axis(end, x, y, width) {
  const step = niceStep(end, width < 480 ? 3 : 6);
  const ticks = [];
  for (let time = 0; time <= end * 1.0001 && ticks.length < 20; time += step) ticks.push(time);
  return ticks.map((time) =>
    s(
      "text.tick",
      { x: x(time), y, "text-anchor": time === 0 ? "start" : x(time) > width - 50 ? "end" : "middle" },
      time ? seconds(time) : "0",
    ),
  );
}

function niceStep(end, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400];
  const large = steps.find((step) => end / step <= most);
  if (end >= most) return large ?? end / most;
  const power = 10 ** Math.floor(Math.log10(end / most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => end / step <= most);
}

function table(run) {
  const names = ["Turn", "Model", "In all", "Calls", "Tokens in", "Tokens out", "Cost"];
  const rows = run.turns.map((turn) => {
    const { calls, input, output, cost } = run.spent(turn);
    return [
      turn.iteration,
      seconds(turn.seconds ?? NaN),
      seconds(turn.finished ?? NaN),
      grouped(calls),
      grouped(input),
      grouped(output),
      cost === null ? "–" : dollars(cost),
    ];
  });
  const cells = (row) =>
    h(
      "tr",
      {},
      row.map((value, place) => h(place ? "td" : "th", place ? {} : { scope: "row" }, String(value))),
    );
  const head = h(
    "tr",
    {},
    names.map((name) => h("th", { scope: "col" }, name)),
  );
  return h(
    "div.table-frame",
    { tabindex: "0", role: "region", "aria-label": "Figures by turn" },
    h("table", {}, h("thead", {}, head), h("tbody", {}, rows.map(cells))),
  );
}
