// The three entry points: the page of `rlm view`, a file with a log in it, and a widget in a notebook.

import { Addresses, placeIn } from "./addresses.js";
import { h } from "./elements.js";
import { Picks } from "./picks.js";
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
    viewer.opened(new WrittenLog(written.dataset.name, written.textContent, "fresh" in written.dataset));
    visit(viewer, placeIn(location.hash), history.state?.spot);
  } else startServed(host, style);
}

function startServed(host, style) {
  const picks = new Picks((left, right) => viewer.compare(new ServedLog(left), new ServedLog(right)));
  const viewer = new Viewer(host, style, {
    keyTarget: document,
    library: { folder: "", runs: null, problem: null, open: (name) => viewer.open(new ServedLog(name)), picks },
    addresses: new Addresses(),
  });
  visit(viewer, placeIn(location.hash), history.state?.spot);
  look(viewer);
}

async function look(viewer) {
  let last = "";
  for (;;) {
    if (!viewer.current) {
      try {
        const response = await fetch("logs");
        const text = await response.text();
        if (!response.ok) throw new Error(text);
        if (text !== last) viewer.shelve({ problem: null, ...JSON.parse(text) });
        last = text;
      } catch {
        viewer.shelve({
          problem: "The server of this page has stopped: start `rlm view` again. Open logs stay readable.",
        });
        last = "";
      }
    }
    await new Promise((resolve) => setTimeout(resolve, viewer.current ? PAUSE / 10 : PAUSE));
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
  const logs = model.get("names").map((name, place) => new KernelLog(name, model, place));
  if (logs.length > 1) viewer.compare(...logs);
  else viewer.open(logs[0]);
  return () => viewer.entries.forEach((entry) => entry.close());
}
