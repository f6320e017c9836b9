// Goes to what an address names: a log, which may have to be read first, and a place in it.

import { partOf, pathTo } from "./addresses.js";
import { ServedLog } from "./sources.js";

/** Show what an address names; `spot`: where it was scrolled to. */
export function visit(viewer, place, spot) {
  const entry = entryAt(viewer, place);
  if (entry) Object.assign(entry, { wanted: { ...place, spot }, lost: false });
  viewer.show(entry, false);
  if (entry) arrive(viewer);
  else if (spot) viewer.body.firstChild.scrollTop = spot.by;
}

function entryAt(viewer, { name, upload, beside }) {
  if (!viewer.library) return viewer.entries[0];
  if (upload) return viewer.entries.find((entry) => entry.upload === upload) ?? null;
  if (!name) return null;
  return beside ? viewer.pair(new ServedLog(name), new ServedLog(beside)) : viewer.opened(new ServedLog(name));
}

/** Go to the place that is wanted as soon as the log holds it. */
export function arrive(viewer) {
  const { current: entry, view } = viewer;
  if (!entry?.wanted || !view) return;
  const { wanted } = entry;
  const { path, part } = entry.both ? { path: [], part: { turn: (wanted.turn ?? 0) - 1 } } : found(entry, wanted);
  if (!part && (!entry.loaded || entry.live)) return;
  Object.assign(entry, { wanted: null, lost: !part });
  if (!entry.both && path) Object.assign(entry, { path, place: wanted.run - 1 });
  if (view.run !== entry.run || entry.lost) viewer.draw();
  if (wanted.spot) viewer.view.spot = wanted.spot;
  else if (part) viewer.view.arrive(part);
}

function found(entry, wanted) {
  const run = entry.log.runs[wanted.run - 1];
  const path = run && pathTo(run, wanted.children);
  return { path, part: path && partOf(path.at(-1) ?? run, wanted) };
}
