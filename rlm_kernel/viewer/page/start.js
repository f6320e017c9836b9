// The three entry points: the page of `rlm view`, a file with a log in it, and a widget in a notebook.

import { h } from "./elements.js";
import { KernelLog, ServedLog, WrittenLog } from "./sources.js";
import { startTheme } from "./theme.js";
import { Viewer } from "./viewer.js";

const PAUSE = 3000; // milliseconds between two reads of the folder

/** The page: the log in it, or the folder of the server. */
export function startPage(style) {
  const host = document.querySelector("#rlm-viewer");
  const written = document.querySelector("#rlm-log");
  startTheme(host);
  if (written) {
    const viewer = new Viewer(host, style, { keyTarget: document });
    viewer.open(new WrittenLog(written.dataset.name, written.textContent, "fresh" in written.dataset));
  } else startServed(host, style);
}

function startServed(host, style) {
  const title = document.title;
  const viewer = new Viewer(host, style, {
    keyTarget: document,
    library: { folder: "", runs: null, problem: null, open: (name) => viewer.open(new ServedLog(name)) },
    open: (entry) => {
      document.title = `${entry.log.name} · ${title}`;
      const hash = entry.source.grows ? `#${encodeURIComponent(entry.log.name)}` : "#";
      if (location.hash !== hash) history.pushState(null, "", hash);
    },
    home: () => {
      document.title = title;
      if (location.hash) history.pushState(null, "", location.pathname);
    },
  });
  const named = () => {
    const name = nameIn(location.hash);
    if (name) viewer.open(new ServedLog(name));
    else if (viewer.current?.source.grows) viewer.show(null);
  };
  addEventListener("popstate", named);
  named();
  look(viewer);
}

/** The name after the `#` of the address; it may be any text. */
function nameIn(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return hash.slice(1);
  }
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

/** The widget: one log, read by the kernel of the notebook. */
export function startWidget({ model, el }, style) {
  // JupyterLab has shortcuts for the same keys; this attribute keeps it from taking them.
  const host = h("div", { "data-lm-suppress-shortcuts": "true", class: "rlm-viewer" });
  host.style.display = "block";
  host.style.height = `${model.get("height")}px`;
  el.append(host);
  startTheme(host);
  const viewer = new Viewer(host, style);
  viewer.open(new KernelLog(model.get("name"), model));
  return () => viewer.entries.forEach((entry) => Object.assign(entry, { closed: true }));
}
