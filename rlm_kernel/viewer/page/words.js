// Words of a person or a model. What is Markdown in them, and what a formula, is decided in Python
// (`rlm_kernel/html/prose.py`): the page asks for a text, and gets elements as `[name, attributes, children]`.

import { h, m } from "./elements.js";

const LONGEST = 50_000; // as in prose.py: a longer text is shown as it is
const AT_ONCE = 100_000; // characters of one request

/** The words of a log. `source`: gives what texts are drawn as. */
export class Words {
  constructor(source) {
    Object.assign(this, { source, known: new Map(), asked: new Map() });
  }

  /** What a text is drawn as: nodes; null: as it is; undefined: not known yet. */
  of(text) {
    return text.length > LONGEST || !text.trim() ? null : this.known.get(text);
  }

  /** Resolves when the texts are known. A source that does not answer is asked again when they are drawn again. */
  async learn(texts) {
    const missing = [...new Set(texts)].filter((text) => this.of(text) === undefined && !this.asked.has(text));
    for (const some of portions(missing)) {
      const answer = this.source.drawn(some).then(
        (drawn) => some.forEach((text, place) => this.known.set(text, drawn[place] ?? null)),
        () => {},
      );
      for (const text of some) this.asked.set(text, answer);
      answer.finally(() => some.forEach((text) => this.asked.delete(text)));
    }
    await Promise.all(texts.map((text) => this.asked.get(text)));
  }
}

function* portions(texts) {
  let [portion, size] = [[], 0];
  for (const text of texts) {
    if (portion.length && (size + text.length > AT_ONCE || portion.length >= 1000)) {
      yield portion;
      [portion, size] = [[], 0];
    }
    portion.push(text);
    size += text.length;
  }
  if (portion.length) yield portion;
}

/** The words of a run that its page shows, without those of its children. */
export function textsOf(run) {
  const said = run.turns.flatMap((turn) => [turn.reply?.text, turn.summary, turn.answer]);
  return [run.question, run.answer, run.failure?.partial, ...said].filter(Boolean);
}

/** Nodes of the page. `inPlace(text)`: an element for a block of code, or null. */
export function nodesFrom(nodes, inPlace = () => null) {
  return nodes.map((node) => {
    if (typeof node === "string") return node;
    const [name, { style, ...attributes }, children] = node;
    const special = name === "pre" && inPlace(textIn(node));
    if (special) return special;
    const make = MATHEMATICS.includes(name) ? m : h;
    if (make === h && !CONTENT.includes(name)) throw new Error(`${name} is not an element of words`);
    const element = make(name, attributes, nodesFrom(children, inPlace));
    if (style) element.style.cssText = style;
    return element;
  });
}

/** The text of nodes. */
export function textIn(node) {
  return typeof node === "string" ? node : node[0] === "br" ? "\n" : node[2].map(textIn).join("");
}

/** The parts of words that are compared with each other: blocks, the items of a list, the lines of a paragraph. */
export function partsOf(nodes) {
  return nodes.flatMap((node) => {
    const [name, attributes, children] = typeof node === "string" ? ["", {}, []] : node;
    if (name === "p") return linesOf(children).map((line) => [name, attributes, line]);
    if (name !== "ul" && name !== "ol") return [node];
    const from = Number(attributes.start ?? 1);
    return children.map((item, place) => [name, name === "ol" ? { ...attributes, start: from + place } : attributes, [item]]);
  });
}

function linesOf(children) {
  const lines = [[]];
  for (const child of children) {
    if (child[0] === "br" && typeof child !== "string") lines.push([]);
    else lines.at(-1).push(child);
  }
  return lines;
}
