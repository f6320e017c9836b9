// The outputs of a cell, as nbformat keeps them. Pictures are shown from data URIs; HTML and the like stays source.

import { fold, h } from "./elements.js";
import { grouped, textOf } from "./figures.js";
import { passage } from "./passage.js";
import { fields } from "./shapes.js";

const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const BASE64 = /^[A-Za-z0-9+/=\s]+$/;
const MAX_PICTURE = 30_000_000;

/** The outputs as elements. */
export function outputsOf(cell, memory, key) {
  const { outputs, dropped, error } = cell.result ?? { outputs: [], dropped: 0, error: null };
  const shown = outputs.map((output, index) => outputOf(output, memory, `${key}/output ${index}`));
  if (error && !outputs.some((output) => output.output_type === "error")) {
    shown.push(passage(error, { kind: "error", label: "Traceback" }));
  }
  if (dropped > 0) shown.push(h("p.note", {}, `${grouped(dropped)} characters of output were not kept.`));
  return shown;
}

function outputOf(output, memory, key) {
  switch (output.output_type) {
    case "stream":
      return passage(textOf(output.text), {
        kind: output.name === "stderr" ? "stderr" : "stdout",
        label: `Output, ${textOf(output.name)}`,
      });
    case "error":
      return passage(tracebackOf(output), { kind: "error", label: "Traceback" });
    default:
      return displayed(fields(output.data), memory, key);
  }
}

function tracebackOf({ traceback, ename, evalue }) {
  const lines = Array.isArray(traceback) ? traceback.map(textOf).join("\n") : textOf(traceback);
  return lines || `${textOf(ename)}: ${textOf(evalue)}`;
}

function displayed(data, memory, key) {
  const plain = textOf(data["text/plain"]);
  const picture = pictureOf(data, plain);
  const others = Object.keys(data).filter((type) => type !== "text/plain" && !(picture && type === picture.type));
  const parts = [picture?.element ?? (plain && passage(plain, { kind: "value", label: "Value" }))];
  for (const type of others) {
    parts.push(
      fold(memory, `${key}/${type}`, `${type}, shown as text`, () => passage(textOf(data[type]), { label: type }), {
        class: "source",
      }),
    );
  }
  return parts.filter(Boolean);
}

function pictureOf(data, plain) {
  for (const type of PICTURES) {
    const encoded = textOf(data[type]);
    if (encoded && encoded.length <= MAX_PICTURE && BASE64.test(encoded.slice(0, 1000))) {
      return { type, element: drawn(`data:${type};base64,${encoded.replace(/\s+/g, "")}`, plain) };
    }
  }
  const svg = textOf(data["image/svg+xml"]);
  // In an <img>, an SVG runs no script and loads nothing.
  if (svg)
    return {
      type: "image/svg+xml",
      element: drawn(`data:image/svg+xml,${encodeURIComponent(svg.toWellFormed())}`, plain),
    };
  return null;
}

function drawn(source, plain) {
  return h("img.picture", {
    src: source,
    alt: plain ? `Picture: ${plain.slice(0, 200)}` : "A picture that the cell showed",
    loading: "lazy",
  });
}
