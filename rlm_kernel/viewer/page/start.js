// The three entry points: the page of `rlm view`, a file with a log in it, and a widget in a notebook.

import { Addresses, placeIn } from "./addresses.js";
import { h } from "./elements.js";
import { Finder } from "./finder.js";
import { KernelLog, ServedLog, WrittenLog } from "./sources.js";
import { startTheme } from "./theme.js";
import { Viewer } from "./viewer.js";
import { visit } from "./visits.js";

const PAUSE = 3000; // milliseconds between two reads of the folder

/** The page: the log in it, or the folder of the server. */
export function startPage(style) {
  const host = document.querySelector("#rlm-viewer");
  const written = document.querySelector("#rlm-log");
  startTheme(host);
  if (written) {
    const viewer = new Viewer(host, style, { keyTarget: document, addresses: new Addresses() });
    const words = JSON.parse(document.querySelector("#rlm-words").textContent);
    viewer.opened(new WrittenLog(written.dataset.name, written.textContent, words, "fresh" in written.dataset));
    visit(viewer, placeIn(location.hash), history.state?.spot);
  } else startServed(host, style);
}

function startServed(host, style) {
  const finder = new Finder(STATES);
  const note = async (name, change) => {
    const why = await noteOn(name, change);
    finder.ask({ count: finder.query.count });
    return why;
  };
  const viewer = new Viewer(host, style, {
    keyTarget: document,
    library: {
      runs: null,
      problem: null,
      open: (name) => viewer.open(new ServedLog(name)),
      asPick: ({ name, modified }) => ({ source: new ServedLog(name), modified }),
      finder,
      note,
    },
    addresses: new Addresses(),
  });
  visit(viewer, placeIn(location.hash), history.state?.spot);
  look(viewer, finder);
}

/** Ask for the list again and again, and at once when something else is asked. */
async function look(viewer, finder) {
  let last = "";
  for (;;) {
    if (!viewer.current) last = await shelved(viewer, finder, last);
    const pause = new Promise((resolve) => setTimeout(resolve, viewer.current ? PAUSE / 10 : PAUSE));
    await Promise.race([pause, finder.asked()]);
  }
}

/** Show the list, unless it is the last one; returns what it was. */
async function shelved(viewer, finder, last) {
  const isNew = finder.isAsking;
  finder.isAsking = false;
  try {
    const response = await fetch(finder.address);
    const text = await response.text();
    if (response.status === 400) viewer.shelve({ problem: text });
    else if (!response.ok) throw new Error(text);
    else if (text !== last || isNew) viewer.shelve({ problem: null, ...JSON.parse(text) });
    return text;
  } catch {
    viewer.shelve({ problem: "The server of this page has stopped: start `rlm view` again. Open logs stay readable." });
    return "";
  }
}

/** Change the notes of a run. Returns why they were not changed, or null. */
async function noteOn(name, change) {
  try {
    const response = await fetch("notes", { method: "POST", body: JSON.stringify({ name, ...change }) });
    return response.ok ? null : await response.text();
  } catch {
    return "The server of this page has stopped: start `rlm view` again.";
  }
}

/** The widget: one log, or two side by side, read by the kernel of the notebook. */
export function startWidget({ model, el }, style) {
  // JupyterLab has shortcuts for the same keys; this attribute keeps it from taking them.
  const host = h("div", { "data-lm-suppress-shortcuts": "true", class: "rlm-viewer" });
  host.style.display = "block";
  host.style.height = `${model.get("height")}px`;
  el.append(host);
  startTheme(host);
  const viewer = new Viewer(host, style);
  const sides = model.get("names").map((name, place) => ({
    source: new KernelLog(name, model, place),
    steps: model.get("children")[place],
  }));
  if (sides.length > 1) viewer.compare(...sides);
  else viewer.enter(sides[0]);
  return () => viewer.entries.forEach((entry) => entry.close());
}
