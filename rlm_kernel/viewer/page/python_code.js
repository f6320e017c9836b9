// Colours for Python source: enough to read it by, no more.

import { isSuspect, nodesOf } from "./foreign_text.js";

const TOKEN = new RegExp(
  "(?<comment>#[^\\n]*)" +
    "|(?<string>[rbfuRBFU]{0,2}(?:\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$)|\"(?:\\\\.|[^\"\\\\\\n])*\"?|'(?:\\\\.|[^'\\\\\\n])*'?))" +
    "|(?<number>\\b\\d[\\d_]*(?:\\.\\d+)?(?:e[+-]?\\d+)?\\b)" +
    "|(?<word>[^\\W\\d]\\w*)",
  "g",
);
const KEYWORDS = new Set(
  (
    "False None True and as assert async await break class continue def del elif else except finally for from global if " +
    "import in is lambda nonlocal not or pass raise return try while with yield match case"
  ).split(" "),
);
const OURS = new Set(
  (
    "context history answer llm_query llm_query_batched rlm_query rlm_query_batched allm_query allm_query_batched " +
    "arlm_query arlm_query_batched FINAL FINAL_VAR SHOW_VARS"
  ).split(" "),
);
const MOST = 40_000; // longer code is not coloured: it would take too long

export function codeNodes(source) {
  if (source.length > MOST || isSuspect(source)) return nodesOf(source);
  const nodes = [];
  let from = 0;
  for (const match of source.matchAll(TOKEN)) {
    const kind = kindOf(match);
    if (!kind) continue;
    if (match.index > from) nodes.push(...nodesOf(source.slice(from, match.index)));
    const span = document.createElement("span");
    span.className = `code-${kind}`;
    span.append(...nodesOf(match[0]));
    nodes.push(span);
    from = match.index + match[0].length;
  }
  if (from < source.length) nodes.push(...nodesOf(source.slice(from)));
  return nodes;
}

function kindOf({ groups, 0: text }) {
  if (groups.comment) return "comment";
  if (groups.string) return "string";
  if (groups.number) return "number";
  if (KEYWORDS.has(text)) return "keyword";
  return OURS.has(text) ? "ours" : null;
}
