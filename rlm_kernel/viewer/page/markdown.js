// Markdown of a person or a model as elements. The rules are those of `rlm_kernel/html/prose.py`: what is not Markdown
// is shown as it is, links and pictures are shown as written, and nothing is ever HTML.

import { h } from "./elements.js";
import { nodesOf } from "./foreign_text.js";

const MARKS = new RegExp(
  "^[ ]{0,3}(?:#{1,6}[ ]+\\S|[-*+][ ]+\\S|\\d{1,9}[.)][ ]+\\S|>[ ]?\\S|```|~~~|-{3,}[ ]*$|\\*{3,}[ ]*$)" +
    "|^[ ]*\\|?[ ]*:?-{2,}:?[ ]*\\|" +
    "|\\*\\*(?=[^\\s*])[^*\\n]+\\*\\*|(?<![\\w*])\\*(?=[^\\s*])[^*\\n]*[^\\s*]\\*(?![\\w*])" +
    "|(?<![\\w_])_(?=[^\\s_])[^_\\n]*[^\\s_]_(?![\\w_])|`[^`\\n]+`",
  "m",
);
const MATHEMATICAL = "(?:[^$`\\n]|\\n(?![ \\t]*\\n))";
const IN_BRACKETS = "(?:[^$`\\n\\\\]|\\\\(?![()\\[\\]])|\\n(?![ \\t]*\\n))";
const FORMULA =
  `(?<![\\\\$])\\$\\$(?!\\$)(?=[ \\t\\n]*(?:[A-Za-z][ \\t\\n]*\\$|${MATHEMATICAL}*?[\\\\^_={<>+]))` +
  `(?<block>${MATHEMATICAL}+)\\$\\$(?!\\$)` +
  "|(?<![\\\\$\\w])\\$(?=[^\\s\\d$](?:\\$|[^$`\\n]*[\\\\^_={<>+]))(?<line>[^$`\\n]*[^\\s$`\\\\])\\$(?![\\w$])" +
  `|\\\\\\[(?<brackets>${IN_BRACKETS}+)\\\\\\]|\\\\\\((?<parentheses>${IN_BRACKETS}+)\\\\\\)`;
const ANY_FORMULA = new RegExp(FORMULA);
const INLINE = new RegExp(
  `(?<ticks>\`+)(?<code>(?!\`)[^]*?[^\`])\\k<ticks>(?!\`)|${FORMULA}|\\\\(?<escaped>[!-/:-@[-\`{-~])` +
    "|\\*\\*(?=[^\\s*])(?<bold>(?:[^*\\n]|\\*(?!\\*))*[^\\s*])\\*\\*|__(?=[^\\s_])(?<strong>[^_\\n]*[^\\s_])__(?!\\w)" +
    "|\\*(?=[^\\s*])(?<italic>(?:[^*\\n]|\\*\\*[^*\\n]+\\*\\*)*[^\\s*])\\*(?!\\*)|(?<![\\w_])_(?=[^\\s_])(?<underlined>[^_\\n]*[^\\s_])_(?![\\w_])" +
    "|~~(?=[^\\s~])(?<struck>[^~\\n]*[^\\s~])~~",
  "g",
);
const TAGS = { bold: "strong", strong: "strong", italic: "em", underlined: "em", struck: "s" };
const HEADING = /^ {0,3}(#{1,6})[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t]*$/;
const FENCE = /^ {0,3}(`{3,}|~{3,})[^`]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3}(?:[-*+]|(\d{1,9})[.)])[ \t]+)(?=\S)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const INDENTED = /^(?: {4}|\t)/;
const MOST = 50_000;
const DEEPEST = 12;

/** Whether a text has a mark of Markdown or a formula, and is no JSON. */
export function isMarkdown(text) {
  return text.length <= MOST && (MARKS.test(text) || ANY_FORMULA.test(text)) && !isJson(text);
}

function isJson(text) {
  if (!/^\s*[{[]/.test(text)) return false;
  try {
    JSON.parse(text);
  } catch {
    return false;
  }
  return true;
}

/** A text as elements: Markdown where it is Markdown, else as it is. */
export function proseNodes(text) {
  if (!isMarkdown(text)) return nodesOf(text);
  const lines = text.split("\n");
  const levels = new Set();
  withoutFences(lines).forEach((line) => HEADING.test(line) && levels.add(HEADING.exec(line)[1].length));
  return blocksOf(lines, { ranks: [...levels].sort(), depth: 0 });
}

function withoutFences(lines) {
  let fence = null;
  return lines.filter((line) => {
    const found = FENCE.exec(line)?.[1];
    if (fence === null && found) fence = found;
    else if (fence !== null && found?.startsWith(fence)) fence = null;
    return fence === null;
  });
}

function blocksOf(lines, place) {
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const take = place.depth > DEEPEST ? paragraph : takerOf(lines, at);
    const [node, next] = take(lines, at, place);
    nodes.push(node);
    at = next;
  }
  return nodes;
}

function takerOf(lines, at) {
  const line = lines[at];
  if (INDENTED.test(line)) return indented;
  if (FENCE.test(line)) return fenced;
  if (HEADING.test(line)) return heading;
  if (RULE.test(line)) return (_, place) => [h("hr"), place + 1];
  if (QUOTE.test(line)) return quoted;
  if (ITEM.test(line)) return listed;
  return isTable(lines, at) ? table : paragraph;
}

function isTable(lines, at) {
  const rule = lines[at + 1] ?? "";
  return lines[at].includes("|") && DELIMITERS.test(rule) && cellsOf(lines[at]).length === cellsOf(rule).length;
}

function interrupts(line) {
  const item = ITEM.exec(line);
  return [FENCE, HEADING, RULE, QUOTE].some((one) => one.test(line)) || (item && (!item[2] || item[2] === "1"));
}

function paragraph(lines, at, place) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && (place.depth > DEEPEST || !interrupts(lines[next]))) next += 1;
  return [h("p", {}, inlineOf(lines.slice(at, next).map((line) => line.trim()).join("\n"))), next];
}

function heading(lines, at, { ranks }) {
  const [, marks, words] = HEADING.exec(lines[at]);
  const rank = Math.min(3, Math.max(0, ranks.indexOf(marks.length)));
  return [h(`h${rank + 3}.said`, {}, inlineOf(words)), at + 1];
}

function indented(lines, at) {
  let next = at;
  while (next < lines.length && (INDENTED.test(lines[next]) || !lines[next].trim())) next += 1;
  const code = lines.slice(at, next).map((line) => line.replace(INDENTED, ""));
  return [h("pre", {}, nodesOf(code.join("\n").trimEnd())), next];
}

function fenced(lines, at) {
  const [fence] = FENCE.exec(lines[at]).slice(1);
  let next = at + 1;
  while (next < lines.length && !(lines[next].trim().startsWith(fence) && /^ {0,3}[`~]+\s*$/.test(lines[next]))) next += 1;
  return [h("pre", {}, nodesOf(lines.slice(at + 1, next).join("\n").trimEnd())), next + 1];
}

function quoted(lines, at, place) {
  let next = at;
  while (next < lines.length && lines[next].trim() && (QUOTE.test(lines[next]) || !interrupts(lines[next]))) next += 1;
  const inside = lines.slice(at, next).map((line) => line.replace(QUOTE, ""));
  return [h("blockquote", {}, blocksOf(inside, { ...place, depth: place.depth + 1 })), next];
}

function listed(lines, at, place) {
  const first = ITEM.exec(lines[at])[2];
  const [items, inner] = [[], { ...place, depth: place.depth + 1 }];
  let [next, loose] = [at, false];
  while (next < lines.length && markerOf(lines[next]) === markerOf(lines[at])) {
    const width = ITEM.exec(lines[next])[1].length;
    const inside = [lines[next].slice(width)];
    next += 1;
    while (next < lines.length && belongs(lines, next, width)) {
      inside.push(lines[next].replace(new RegExp(`^ {0,${width}}`), ""));
      next += 1;
    }
    loose ||= inside.some((line, place) => !line.trim() && inside.slice(place).some((later) => later.trim()));
    loose ||= !inside.at(-1).trim() && ITEM.test(lines[next] ?? "");
    items.push(inside);
  }
  const made = items.map((inside) => h("li", {}, tight(blocksOf(inside, inner), loose)));
  return [h(first ? "ol" : "ul", first && first !== "1" ? { start: Number(first) } : {}, made), next];
}

/** The sign of an item, such as `-` or `)`; items with another sign begin another list. */
function markerOf(line) {
  return ITEM.exec(line)?.[1].trim().at(-1);
}

/** Whether a line is a part of the item before: it is indented, or goes on with its paragraph. */
function belongs(lines, at, width) {
  const line = lines[at];
  if (!line.trim()) return at + 1 < lines.length && (belongs(lines, at + 1, width) || ITEM.test(lines[at + 1]));
  if (line.startsWith(" ".repeat(width))) return true;
  return Boolean(lines[at - 1].trim()) && !interrupts(line) && !ITEM.test(line);
}

function tight(nodes, loose) {
  return loose ? nodes : nodes.flatMap((node) => (node.tagName === "P" ? [...node.childNodes] : [node]));
}

function table(lines, at) {
  const head = cellsOf(lines[at]);
  const sides = cellsOf(lines[at + 1]).map((rule) => (rule.endsWith(":") ? (rule.startsWith(":") ? "center" : "right") : null));
  let next = at + 2;
  while (next < lines.length && lines[next].trim() && !interrupts(lines[next])) next += 1;
  const row = (tag, cells) =>
    h("tr", {}, head.map((_, place) => h(tag, { class: sides[place] && `to-${sides[place]}` }, inlineOf(cells[place] ?? ""))));
  const body = lines.slice(at + 2, next).map((line) => row("td", cellsOf(line)));
  return [h("table.said", {}, h("thead", {}, row("th", head)), body.length > 0 && h("tbody", {}, body)), next];
}

function cellsOf(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function inlineOf(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    nodes.push(...linesOf(text.slice(from, match.index)), ...marked(match));
    from = match.index + match[0].length;
  }
  return [...nodes, ...linesOf(text.slice(from))];
}

function marked({ 0: whole, groups }) {
  if (groups.code !== undefined) return [h("code", {}, nodesOf(groups.code.replace(/^ (.*\S.*) $/s, "$1").replaceAll("\n", " ")))];
  if (groups.escaped !== undefined) return nodesOf(groups.escaped);
  const [name] = Object.keys(TAGS).filter((one) => groups[one] !== undefined);
  return [name ? h(TAGS[name], {}, inlineOf(groups[name])) : h("span.formula", {}, nodesOf(whole))];
}

function linesOf(text) {
  return text.split("\n").flatMap((line, place) => [...(place ? [h("br")] : []), ...(line ? nodesOf(line) : [])]);
}
