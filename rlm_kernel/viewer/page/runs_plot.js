// Outcome, cost and time of many runs: three charts over the days, and the same figures by model as a table.

import { h, s } from "./elements.js";
import { count, dollars, grouped, seconds } from "./figures.js";

const [LEFT, RIGHT, GAP, HEIGHT] = [62, 10, 26, 74];
const MOST_BARS = 60;
const FEW = 1000;

export class RunsPlot {
  /** `toggled(open)`: called when the plot is opened or closed; the points are only sent to an open one. */
  constructor(toggled) {
    this.points = null;
    this.frame = h("div.plot-frame");
    this.table = h("div.table-frame", { tabindex: "0", role: "region", "aria-label": "Figures by model" });
    this.legend = h("p.plot-legend");
    this.element = h(
      "details.folded.runs-plot",
      {},
      h("summary", { "data-stop": true }, "Outcome, cost and time"),
      h("figure.plot", {}, this.legend, this.frame, this.table),
    );
    this.element.addEventListener("toggle", () => toggled(this.element.open));
    new ResizeObserver(() => this.drawChart()).observe(this.frame);
  }

  draw(points) {
    if (!points || JSON.stringify(points) === this.text) return;
    Object.assign(this, { points, text: JSON.stringify(points), width: 0 });
    const shown = STATES.filter((_, state) => points.state.includes(state));
    this.legend.replaceChildren(
      ...shown.map((state) => h("span.legend", {}, h(`span.swatch.swatch-${state}`, { "aria-hidden": "true" }), state)),
    );
    this.table.replaceChildren(tableOf(points));
    this.drawChart();
  }

  drawChart() {
    const width = this.frame.clientWidth;
    if (!this.points || !width || Math.abs(width - (this.width || 0)) < 4) return;
    this.width = width;
    this.frame.replaceChildren(chartOf(this.points, Math.max(260, width)));
  }
}

function chartOf(points, width) {
  const begin = points.began.reduce((least, value) => Math.min(least, value), Infinity);
  const end = Math.max(begin + 1, points.began.reduce((most, value) => Math.max(most, value), 0));
  const x = (time) => LEFT + ((width - LEFT - RIGHT) * (time - begin)) / (end - begin);
  const rows = [
    outcomes(points, x, begin, end, width),
    dots(points, points.cost, x, HEIGHT + GAP, width, "cost", dollars),
    dots(points, points.seconds, x, 2 * (HEIGHT + GAP), width, "time", seconds),
  ];
  const bottom = 3 * (HEIGHT + GAP);
  const label = `Outcome, cost and time of ${count(points.began.length, "run")}. The table below has the figures.`;
  return s(
    "svg",
    { role: "img", "aria-label": label, width, height: bottom + 14, viewBox: `0 -12 ${width} ${bottom + 14}` },
    rows,
    days(begin, end, x, bottom - 8, width),
  );
}

/** How many runs ended how, in parts of the time. */
function outcomes(points, x, begin, end, width) {
  const bars = Math.max(1, Math.min(MOST_BARS, points.began.length, Math.floor((width - LEFT) / 9)));
  const sums = Array.from({ length: bars }, () => STATES.map(() => 0));
  points.began.forEach((time, place) => {
    sums[Math.min(bars - 1, Math.floor(((time - begin) / (end - begin)) * bars))][points.state[place]] += 1;
  });
  const most = Math.max(1, ...sums.map((sum) => sum.reduce((total, value) => total + value, 0)));
  const step = (width - LEFT - RIGHT) / bars;
  const paths = STATES.map((state, place) => {
    let d = "";
    sums.forEach((sum, bar) => {
      const below = sum.slice(0, place).reduce((total, value) => total + value, 0);
      const height = (sum[place] / most) * HEIGHT;
      if (height) d += rect(LEFT + bar * step + 0.5, HEIGHT * (1 - below / most) - height, Math.max(1, step - 1), height);
    });
    return d && s(`path.dots-${state}`, { d });
  });
  return [scale(0, width, "runs", grouped(most)), paths];
}

/** One dot for each run whose value is known. */
function dots(points, values, x, top, width, name, words) {
  const most = values.reduce((largest, value) => Math.max(largest, value ?? 0), 0);
  if (!most) return [scale(top, width, name, "unknown")];
  const size = points.began.length < FEW ? 4 : 2.5;
  const paths = STATES.map((state, place) => {
    let d = "";
    values.forEach((value, run) => {
      if (value === null || points.state[run] !== place) return;
      d += rect(x(points.began[run]) - size / 2, top + HEIGHT * (1 - value / most) - size / 2, size, size);
    });
    return d && s(`path.dots-${state}.dots`, { d });
  });
  return [scale(top, width, name, words(most)), paths];
}

function rect(left, top, width, height) {
  return `M${left.toFixed(1)} ${top.toFixed(1)}h${width.toFixed(1)}v${height.toFixed(1)}h${(-width).toFixed(1)}z`;
}

function scale(top, width, name, most) {
  return [
    [top, top + HEIGHT].map((y) => s("line.grid", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y })),
    s("text.tick", { x: LEFT - 8, y: top + 4, "text-anchor": "end" }, most),
    s("text.tick", { x: LEFT - 8, y: top + HEIGHT, "text-anchor": "end" }, name),
  ];
}

function days(begin, end, x, y, width) {
  const ticks = width < 520 ? 2 : 5;
  const format = end - begin < 2 * 86_400 ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric" };
  return Array.from({ length: ticks + 1 }, (_, place) => {
    const time = begin + ((end - begin) * place) / ticks;
    const anchor = place === 0 ? "start" : place === ticks ? "end" : "middle";
    return s("text.tick", { x: x(time), y, "text-anchor": anchor }, new Date(time * 1000).toLocaleString([], format));
  });
}

function tableOf(points) {
  const names = ["Model", "Runs", "Answered", "Known cost", "Median cost", "Median time"];
  const head = h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)));
  const rows = points.models.map((model, number) => rowOf(points, model || "unknown", (place) => points.model[place] === number));
  if (points.models.length > 1) rows.push(rowOf(points, "all", () => true));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, rows));
}

function rowOf(points, name, isOf) {
  const places = points.began.map((_, place) => place).filter(isOf);
  const known = (values) => places.map((place) => values[place]).filter((value) => value !== null);
  const costs = known(points.cost);
  const answered = places.filter((place) => STATES[points.state[place]] === "answered").length;
  const figures = [
    grouped(places.length),
    `${Math.round((100 * answered) / places.length)} %`,
    costs.length ? dollars(costs.reduce((sum, cost) => sum + cost, 0)) : "–",
    costs.length ? dollars(median(costs)) : "–",
    seconds(median(known(points.seconds))),
  ];
  return h("tr", {}, h("th", { scope: "row" }, name), figures.map((figure) => h("td", {}, figure)));
}

function median(values) {
  if (!values.length) return NaN;
  const sorted = values.toSorted((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
